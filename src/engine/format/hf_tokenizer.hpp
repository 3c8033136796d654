// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// tokenizer.json -> GGUF's tokenizer.ggml.* keys, for model files that are converted.
#pragma once

#include <cstdint>

#include "base/json.hpp"
#include "base/result.hpp"
#include "engine/format/gguf_meta.hpp"

namespace towline::engine {

// The files of a Hugging Face directory that say something about its tokenizer; null if absent.
struct HfTokenizerFiles {
  Json tokenizer;   // tokenizer.json
  Json config;      // tokenizer_config.json
  Json generation;  // generation_config.json, else config.json: eos_token_id
  std::string chat_template;  // chat_template.jinja; wins over the one in `config`
};

// Sets the keys for a vocabulary of `vocab` tokens; ids that no token has become unused ones.
// Two kinds exist: byte-level BPE ("gpt2", with the name of its pre-split rule) and BPE with byte
// fallback ("llama": merges become scores, the earlier merge the higher). A tokenizer that GGUF
// cannot express is an error that says why: the file would tokenize wrongly.
Result<void> set_tokenizer_keys(const HfTokenizerFiles& files, int32_t vocab, GgufMeta& meta);

}  // namespace towline::engine
