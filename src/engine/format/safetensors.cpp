// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/format/safetensors.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <set>

#include "base/fmt.hpp"
#include "engine/format/model_shape.hpp"

namespace towline::engine {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMostHeader = 100'000'000;  // the format's own limit
constexpr int64_t kMostElements = int64_t{1} << 52;

// Bytes of an element; 0 for types that are not known here.
int64_t element_bytes(std::string_view dtype) {
  if (dtype == "F64" || dtype == "I64" || dtype == "U64") return 8;
  if (dtype == "F32" || dtype == "I32" || dtype == "U32") return 4;
  if (dtype == "F16" || dtype == "BF16" || dtype == "I16" || dtype == "U16") return 2;
  if (dtype == "I8" || dtype == "U8" || dtype == "BOOL" || dtype.starts_with("F8_")) return 1;
  return 0;
}

Result<std::vector<int64_t>> read_shape(const Json& json) {
  if (!json.is_array() || json.size() > 8) {
    return Error(Code::kDataCorrupt, "its shape is not a list of at most 8 numbers");
  }
  std::vector<int64_t> shape;
  int64_t elements = 1;
  for (const Json& item : json.items()) {
    const int64_t n = item.is_int() ? item.as_int() : -1;
    if (n < 0 || n > kMostElements || (n > 0 && elements > kMostElements / n)) {
      return errorf(Code::kDataCorrupt, "its shape {} is not possible", json.dump());
    }
    elements *= n;
    shape.push_back(n);
  }
  return shape;
}

Result<SafeTensor> read_entry(const std::string& name, const Json& json, uint64_t data_begin,
                              uint64_t file_bytes) {
  SafeTensor t;
  t.name = name;
  t.dtype = json["dtype"].as_string();
  if (t.dtype.empty()) return Error(Code::kDataCorrupt, "it has no dtype");
  ASSIGN_OR_RETURN(t.shape, read_shape(json["shape"]));
  const Json& offsets = json["data_offsets"];
  if (offsets.size() != 2 || !offsets[0].is_int() || !offsets[1].is_int()) {
    return Error(Code::kDataCorrupt, "its data_offsets are not two integers");
  }
  const int64_t begin = offsets[size_t{0}].as_int(), end = offsets[1].as_int();
  const auto room = static_cast<int64_t>(file_bytes - data_begin);
  if (begin < 0 || end < begin || end > room) {
    return errorf(Code::kDataCorrupt,
                  "its data are at [{}, {}) of {} bytes; the file is truncated or damaged", begin,
                  end, room);
  }
  if (const int64_t size = element_bytes(t.dtype); size > 0) {
    int64_t elements = 1;
    for (const int64_t n : t.shape) elements *= n;
    if (elements * size != end - begin) {
      return errorf(Code::kDataCorrupt, "its shape {} of {} takes {} bytes but its data have {}",
                    json["shape"].dump(), t.dtype, elements * size, end - begin);
    }
  }
  t.begin = data_begin + static_cast<uint64_t>(begin);
  t.end = data_begin + static_cast<uint64_t>(end);
  return t;
}

Result<void> check_overlap(const std::vector<SafeTensor>& tensors) {
  std::vector<const SafeTensor*> order;
  for (const SafeTensor& t : tensors) order.push_back(&t);
  std::sort(order.begin(), order.end(), [](const SafeTensor* a, const SafeTensor* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i]->begin < order[i - 1]->end) {
      return errorf(Code::kDataCorrupt, "the tensors '{}' and '{}' overlap",
                    printable(order[i - 1]->name), printable(order[i]->name));
    }
  }
  return {};
}

// The part of a layer: "self_attn.q_proj" -> "attn_q".
constexpr std::array<std::pair<std::string_view, std::string_view>, 11> kLayerParts = {{
    {"input_layernorm", "attn_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"},
    {"self_attn.q_norm", "attn_q_norm"},
    {"self_attn.k_norm", "attn_k_norm"},
    {"post_attention_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
}};

// False also where it cannot be looked at: a link to itself, a folder that is closed to us.
bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// The .safetensors files of a directory: those of the index, else the one file; none is fine.
Result<std::vector<std::string>> weight_files(const fs::path& directory) {
  const fs::path index = directory / "model.safetensors.index.json";
  if (!is_there(index)) {
    if (is_there(directory / "model.safetensors")) {
      return std::vector<std::string>{"model.safetensors"};
    }
    if (is_there(directory / "pytorch_model.bin") ||
        is_there(directory / "pytorch_model.bin.index.json")) {
      return Error(Code::kUnsupported,
                   "the weights are a PyTorch pickle (pytorch_model.bin), which can run code when "
                   "it is read; save them as safetensors");
    }
    return std::vector<std::string>();
  }
  ASSIGN_OR_RETURN(const Json json, load_json(index.string()));
  std::set<std::string> names;
  for (const auto& [tensor, file] : json["weight_map"].members()) {
    const std::string& name = file.as_string();
    if (name.empty() || name.find('/') != std::string::npos || !name.ends_with(".safetensors")) {
      return errorf(Code::kDataCorrupt,
                    "'{}' puts the tensor '{}' into '{}', which is not a .safetensors file of this "
                    "directory",
                    index.string(), printable(tensor), printable(name));
    }
    names.insert(name);
  }
  if (names.empty()) {
    return errorf(Code::kDataCorrupt, "'{}' has no weight_map", index.string());
  }
  return std::vector<std::string>(names.begin(), names.end());
}

Result<DType> float_dtype(const SafeTensor& t) {
  if (t.dtype == "F32") return DType::kF32;
  if (t.dtype == "F16") return DType::kF16;
  if (t.dtype == "BF16") return DType::kBF16;
  return errorf(Code::kUnsupported,
                "the tensor '{}' is {}, which is not supported; F32, F16 and BF16 are",
                printable(t.name), printable(t.dtype));
}

Result<Tensor> to_tensor(const SafeTensor& t, std::string name, const MappedFile& file,
                         size_t file_index) {
  Tensor out;
  out.name = std::move(name);
  ASSIGN_OR_RETURN(out.dtype, float_dtype(t));
  if (t.shape.empty() || t.shape.size() > 2 || t.begin == t.end) {
    return errorf(Code::kDataCorrupt, "the tensor '{}' is not a vector or a matrix with elements",
                  printable(t.name));
  }
  out.cols = t.shape.back();
  out.rows = t.shape.size() == 2 ? t.shape.front() : 1;
  if (t.begin % static_cast<uint64_t>(element_bytes(t.dtype)) != 0) {
    return errorf(Code::kUnsupported,
                  "the tensor '{}' begins at the odd offset {}; save the file again with a current "
                  "safetensors library",
                  printable(t.name), t.begin);
  }
  out.data = file.bytes().data() + t.begin;
  out.file = static_cast<int32_t>(file_index);
  return out;
}

Result<void> add_weights(const fs::path& path, ModelParts& parts) {
  ASSIGN_OR_RETURN(MappedFile file, MappedFile::open(path.string()));
  ASSIGN_OR_RETURN(const std::vector<SafeTensor> entries, read_safetensors(file.bytes()));
  for (const SafeTensor& entry : entries) {
    std::string name = gguf_name_of_hf(entry.name);
    if (name.empty()) continue;  // buffers such as rotary_emb.inv_freq
    ASSIGN_OR_RETURN(Tensor tensor, to_tensor(entry, std::move(name), file, parts.files.size()));
    parts.tensors.push_back(std::move(tensor));
  }
  parts.files.push_back(std::move(file));
  return {};
}

bool has(const ModelParts& parts, std::string_view name) {
  return std::any_of(parts.tensors.begin(), parts.tensors.end(),
                     [&](const Tensor& t) { return t.name == name; });
}

// Tied embeddings may be stored under either name, or both; then the output matrix is not listed.
void settle_tied_embeddings(ModelParts& parts) {
  const bool embedding = has(parts, "token_embd.weight"), head = has(parts, "output.weight");
  if (!head) parts.desc.tied_embeddings = true;
  if (!parts.desc.tied_embeddings || !head) return;
  if (embedding) {
    std::erase_if(parts.tensors, [](const Tensor& t) { return t.name == "output.weight"; });
  } else {
    for (Tensor& t : parts.tensors) {
      if (t.name == "output.weight") t.name = "token_embd.weight";
    }
  }
}

Result<void> settle_desc(ModelParts& parts) {
  settle_tied_embeddings(parts);
  TRY(sort_tensors(parts.tensors));
  for (const std::string_view name : {"blk.0.attn_output.bias", "blk.0.ffn_down.bias"}) {
    if (has(parts, name)) {
      return errorf(Code::kUnsupported,
                    "the model has a bias on its output or feed-forward matrices ('{}'); only q, k "
                    "and v may have one",
                    name);
    }
  }
  parts.desc.qkv_bias = has(parts, "blk.0.attn_q.bias");
  return {};
}

}  // namespace

Result<std::vector<SafeTensor>> read_safetensors(std::span<const std::byte> file) {
  uint64_t header_bytes = 0;
  if (file.size() < sizeof header_bytes) {
    return errorf(Code::kDataCorrupt, "the file has {} bytes, too few for a safetensors header",
                  file.size());
  }
  std::memcpy(&header_bytes, file.data(), sizeof header_bytes);
  if (header_bytes > kMostHeader || header_bytes > file.size() - sizeof header_bytes) {
    return errorf(Code::kDataCorrupt,
                  "this is not a safetensors file, or it is truncated: its header would have {} "
                  "bytes, the file has {}",
                  header_bytes, file.size());
  }
  const auto* text = reinterpret_cast<const char*>(file.data()) + sizeof header_bytes;
  ASSIGN_OR_RETURN(const Json header, parse_json({text, header_bytes}, "the safetensors header"));
  if (!header.is_object()) {
    return Error(Code::kDataCorrupt, "the safetensors header is not a JSON object");
  }
  std::vector<SafeTensor> tensors;
  for (const auto& [name, entry] : header.members()) {
    if (name == "__metadata__") continue;
    ASSIGN_OR_RETURN(SafeTensor tensor,
                     read_entry(name, entry, sizeof header_bytes + header_bytes, file.size())
                         .context("tensor '" + printable(name) + "'"));
    tensors.push_back(std::move(tensor));
  }
  TRY(check_overlap(tensors));
  return tensors;
}

std::string gguf_name_of_hf(std::string_view name) {
  if (name == "model.embed_tokens.weight") return "token_embd.weight";
  if (name == "model.norm.weight") return "output_norm.weight";
  if (name == "lm_head.weight") return "output.weight";
  constexpr std::string_view kLayers = "model.layers.";
  if (!name.starts_with(kLayers)) return {};
  name.remove_prefix(kLayers.size());
  int32_t layer = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
  if (error != std::errc() || layer < 0) return {};
  name.remove_prefix(static_cast<size_t>(end - name.data()));
  if (!name.starts_with('.')) return {};
  name.remove_prefix(1);
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return {};
  const std::string_view part = name.substr(0, dot), kind = name.substr(dot + 1);
  if (kind != "weight" && kind != "bias") return {};
  for (const auto& [theirs, ours] : kLayerParts) {
    if (part == theirs) return format("blk.{}.{}.{}", layer, ours, kind);
  }
  return {};
}

Result<ModelParts> read_hf_directory(const std::string& path) {
  ModelParts parts;
  parts.path = path;
  parts.directory = true;
  const fs::path directory(path);
  ASSIGN_OR_RETURN(const std::vector<std::string> files, weight_files(directory));
  if (::access(path.c_str(), X_OK) != 0) {
    return errorf(Code::kPermissionDenied, "the directory cannot be entered: {}",
                  std::strerror(errno));
  }
  const bool config = is_there(directory / "config.json");
  if (!config && (!files.empty() || !is_there(directory / "tokenizer.json"))) {
    return Error(Code::kNotFound,
                 "the directory has no config.json; a model directory has config.json, "
                 "*.safetensors and tokenizer.json");
  }
  if (config) {
    ASSIGN_OR_RETURN(const Json json, load_json((directory / "config.json").string()));
    ASSIGN_OR_RETURN(parts.desc, desc_from_hf_config(json).context("config.json"));
  }
  std::error_code ignored;
  const fs::path full = fs::weakly_canonical(directory, ignored);
  parts.desc.name = full.filename().string();
  for (const std::string& file : files) {
    TRY(add_weights(directory / file, parts).context(file));
  }
  if (files.empty()) return parts;
  TRY(settle_desc(parts));
  TRY(validate(parts.desc));
  return parts;
}

}  // namespace towline::engine
