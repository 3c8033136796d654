// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/format/dummy_model.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/fmt.hpp"
#include "base/rng.hpp"
#include "engine/format/blocks.hpp"
#include "engine/format/model_shape.hpp"

namespace towline::engine {
namespace {

void append_utf8(std::string& out, uint32_t point) {  // below U+0800
  if (point < 0x80) {
    out += static_cast<char>(point);
  } else {
    out += static_cast<char>(0xc0 | (point >> 6));
    out += static_cast<char>(0x80 | (point & 0x3f));
  }
}

// The printable stand-ins of the 256 bytes in byte-level BPE (GPT-2): printable Latin-1 stands for
// itself, the rest takes U+0100 onwards in order.
std::vector<std::string> byte_tokens() {
  std::vector<std::string> tokens;
  uint32_t next = 256;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool itself =
        (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    append_utf8(tokens.emplace_back(), itself ? byte : next++);
  }
  return tokens;
}

constexpr int32_t kNormal = 1, kControl = 3;  // tokenizer.ggml.token_type

void set_dummy_tokenizer(const spec::ModelDesc& desc, GgufMeta& meta) {
  std::vector<std::string> tokens = byte_tokens(), merges;
  const auto vocab = static_cast<size_t>(desc.vocab);
  const auto add_pair = [&](const std::string& a, const std::string& b) {
    if (tokens.size() + 2 >= vocab) return;
    tokens.push_back(a + b);
    merges.push_back(a + " " + b);
  };
  for (char b = 'a'; b <= 'z'; ++b) add_pair("Ġ", std::string(1, b));  // U+0120, a blank
  for (char a = 'a'; a <= 'z'; ++a) {
    for (char b = 'a'; b <= 'z'; ++b) add_pair(std::string(1, a), std::string(1, b));
  }
  for (size_t i = tokens.size(); i + 2 < vocab; ++i) tokens.push_back(format("<filler-{}>", i));
  tokens.resize(vocab);
  tokens[vocab - 2] = "<|begin_of_text|>";
  tokens[vocab - 1] = "<|end_of_text|>";
  std::vector<int32_t> types(vocab, kNormal);
  types[vocab - 2] = types[vocab - 1] = kControl;
  const bool qwen = desc.architecture.starts_with("qwen");
  meta.set_string("tokenizer.ggml.model", "gpt2");
  meta.set_string("tokenizer.ggml.pre", qwen ? "qwen2" : "llama-bpe");
  meta.set_strings("tokenizer.ggml.tokens", tokens);
  meta.set_i32s("tokenizer.ggml.token_type", types);
  meta.set_strings("tokenizer.ggml.merges", merges);
  meta.set_u32("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(vocab - 2));
  meta.set_u32("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(vocab - 1));
  meta.set_bool("tokenizer.ggml.add_bos_token", !qwen);
}

uint64_t hash_name(std::string_view name) {
  uint64_t h = 0;
  for (const char c : name) h = mix64(h ^ static_cast<unsigned char>(c));
  return h;
}

// The random stream of one row: a pure function of (key, row, position).
class RowBits {
 public:
  RowBits(uint64_t key, int64_t row) : key_(mix64(key ^ mix64(static_cast<uint64_t>(row)))) {}
  uint64_t next() { return mix64(key_ ^ (counter_++ * 0xd1342543de82ef95ull)); }
  void bytes(void* out, size_t size) {
    auto* to = static_cast<unsigned char*>(out);
    for (; size >= 8; to += 8, size -= 8) {
      const uint64_t bits = next();
      std::memcpy(to, &bits, 8);
    }
    const uint64_t bits = next();
    std::memcpy(to, &bits, size);
  }
  double symmetric() { return 2 * to_unit(next()) - 1; }  // uniform in [-1, 1)
  bool coin() { return (next() & 1) != 0; }

 private:
  uint64_t key_, counter_ = 0;
};

uint16_t half_with_sign(double d, RowBits& bits) {
  return float_to_half(static_cast<float>(bits.coin() ? d : -d));
}

// Blocks of random levels whose values have a root mean square of `rms`. Levels that are not
// symmetric about zero get a random sign of the scale, so that the mean is zero all the same.
void random_block(double rms, RowBits& bits, BlockQ8_0& b) {
  bits.bytes(b.q, sizeof b.q);
  for (int8_t& q : b.q) q = std::max<int8_t>(q, -127);  // as quantisers do
  b.d = half_with_sign(rms / 73.6, bits);
}
void random_block(double rms, RowBits& bits, BlockQ4_0& b) {
  bits.bytes(b.q, sizeof b.q);
  b.d = half_with_sign(rms / 4.64, bits);
}
void random_block(double rms, RowBits& bits, BlockQ5_0& b) {
  bits.bytes(b.high, sizeof b.high);
  bits.bytes(b.q, sizeof b.q);
  b.d = half_with_sign(rms / 9.25, bits);
}
void random_block(double rms, RowBits& bits, BlockQ4_1& b) {
  bits.bytes(b.q, sizeof b.q);
  b.d = float_to_half(static_cast<float>(rms / 4.61));
  b.m = float_to_half(static_cast<float>(-7.5 * rms / 4.61));
}
void random_block(double rms, RowBits& bits, BlockQ5_1& b) {
  bits.bytes(b.high, sizeof b.high);
  bits.bytes(b.q, sizeof b.q);
  b.d = float_to_half(static_cast<float>(rms / 9.23));
  b.m = float_to_half(static_cast<float>(-15.5 * rms / 9.23));
}
// Scales of 32..63 (root mean square 48.4) with minima equal to them.
template <class Block>
void random_scales(double d, double middle, RowBits& bits, Block& b) {
  std::memset(b.scales, 0, sizeof b.scales);
  uint64_t random = bits.next();
  for (int group = 0; group < 8; ++group, random >>= 8) {
    const int scale = 32 + static_cast<int>(random & 31);
    pack_scale_min(b.scales, group, scale, scale);
  }
  b.d = float_to_half(static_cast<float>(d));
  b.min = float_to_half(static_cast<float>(d * middle));
}
void random_block(double rms, RowBits& bits, BlockQ4_K& b) {
  bits.bytes(b.q, sizeof b.q);
  random_scales(rms / (4.61 * 48.4), 7.5, bits, b);
}
void random_block(double rms, RowBits& bits, BlockQ5_K& b) {
  bits.bytes(b.high, sizeof b.high);
  bits.bytes(b.q, sizeof b.q);
  random_scales(rms / (9.23 * 48.4), 15.5, bits, b);
}
void random_block(double rms, RowBits& bits, BlockQ6_K& b) {
  bits.bytes(b.low, sizeof b.low);
  bits.bytes(b.high, sizeof b.high);
  bits.bytes(b.scales, sizeof b.scales);
  for (int8_t& s : b.scales) {  // magnitudes 64..127, any sign
    const int magnitude = 64 + (s & 63);
    s = static_cast<int8_t>(s < 0 ? -magnitude : magnitude);
  }
  b.d = float_to_half(static_cast<float>(rms / (18.48 * 97.2)));
}

template <class Block>
void random_blocks(double rms, int64_t cols, RowBits& bits, std::byte* out) {
  for (int64_t i = 0; i < cols; i += Block::kElements, out += sizeof(Block)) {
    Block block;
    random_block(rms, bits, block);
    std::memcpy(out, &block, sizeof block);
  }
}

void random_floats(DType type, double middle, double rms, int64_t cols, RowBits& bits,
                   std::byte* out) {
  std::vector<float> values(static_cast<size_t>(cols));
  const double spread = rms * std::sqrt(3.0);
  for (float& v : values) v = static_cast<float>(middle + spread * bits.symmetric());
  quantize_row(type, values, out);
}

void random_row(const PlannedTensor& t, RowBits& bits, std::byte* out) {
  const double rms = 1 / std::sqrt(static_cast<double>(t.cols));
  switch (t.dtype) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16: {
      const bool norm = t.name.ends_with("norm.weight");
      const double spread = t.rows > 1 ? rms : norm ? 0.05 : 0.02;
      return random_floats(t.dtype, norm ? 1 : 0, spread, t.cols, bits, out);
    }
    case DType::kQ8_0: return random_blocks<BlockQ8_0>(rms, t.cols, bits, out);
    case DType::kQ4_0: return random_blocks<BlockQ4_0>(rms, t.cols, bits, out);
    case DType::kQ4_1: return random_blocks<BlockQ4_1>(rms, t.cols, bits, out);
    case DType::kQ5_0: return random_blocks<BlockQ5_0>(rms, t.cols, bits, out);
    case DType::kQ5_1: return random_blocks<BlockQ5_1>(rms, t.cols, bits, out);
    case DType::kQ4_K: return random_blocks<BlockQ4_K>(rms, t.cols, bits, out);
    case DType::kQ5_K: return random_blocks<BlockQ5_K>(rms, t.cols, bits, out);
    case DType::kQ6_K: return random_blocks<BlockQ6_K>(rms, t.cols, bits, out);
  }
}

constexpr std::string_view kRopeTable = "rope_freqs.weight";

}  // namespace

std::vector<PlannedTensor> dummy_tensors(const spec::ModelDesc& desc, const QuantRecipe& recipe) {
  std::vector<PlannedTensor> out;
  if (desc.rope_scaling == spec::RopeScaling::kLlama3) {
    out.push_back({std::string(kRopeTable), DType::kF32, 1, desc.rope_dim / 2});
  }
  for (TensorShape& t : needed_tensors(desc, {0, desc.layers})) {
    const DType type = choose_dtype(recipe, desc, t.name, t.rows, t.cols);
    out.push_back({std::move(t.name), type, t.rows, t.cols});
  }
  return out;
}

Result<void> make_dummy_model(const spec::ModelDesc& desc, const QuantRecipe& recipe, uint64_t seed,
                              const std::string& path, const WriteOptions& options) {
  TRY(validate(desc));
  constexpr int32_t kLeastVocab = 260;
  if (desc.vocab < kLeastVocab) {
    return errorf(Code::kInvalidArgument,
                  "a dummy vocabulary needs at least {} tokens; the shape has {}", kLeastVocab,
                  desc.vocab);
  }
  GgufMeta meta;
  set_model_keys(desc, meta);
  meta.set_u32("general.quantization_version", 2);
  meta.set_u32("general.file_type", recipe.gguf_file_type);
  meta.set_string("general.description", "random weights, for measurements");
  set_dummy_tokenizer(desc, meta);
  const std::vector<PlannedTensor> tensors = dummy_tensors(desc, recipe);
  const std::vector<float> rope = llama3_rope_factors(desc);
  const FillRows fill = [&](size_t index, int64_t begin, int64_t end,
                            std::byte* out) -> Result<void> {
    const PlannedTensor& t = tensors[index];
    if (t.name == kRopeTable) {
      std::memcpy(out, rope.data(), rope.size() * sizeof(float));
      return {};
    }
    const uint64_t key = mix64(seed) ^ hash_name(t.name);
    for (int64_t row = begin; row < end; ++row, out += row_bytes(t.dtype, t.cols)) {
      RowBits bits(key, row);
      random_row(t, bits, out);
    }
    return {};
  };
  return write_gguf(path, meta, tensors, fill, options);
}

}  // namespace towline::engine
