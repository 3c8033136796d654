// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The named pre-split rules of GGUF (tokenizer.ggml.pre). A GGUF file says only "llama-bpe" where a
// tokenizer.json spells the expressions out; this table gives them. Each expression cuts the pieces
// that those before it left. Source: the tokenizer.json files of the models named.
#pragma once

#include <span>
#include <string_view>
#include <vector>

namespace towline::engine {

struct PreRule {
  std::vector<std::string_view> names;
  std::vector<std::string_view> expressions;
  bool ignore_merges = false;  // a piece that is a token is that token
  bool add_bos = false;        // unless the file says otherwise
};

std::span<const PreRule> pre_rules();
// null if the name is not known.
const PreRule* find_pre_rule(std::string_view name);

}  // namespace towline::engine
