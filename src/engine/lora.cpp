// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/lora.hpp"

#include <charconv>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "engine/format/dtype.hpp"
#include "engine/format/safetensors.hpp"
#include "engine/weights.hpp"

namespace towline::engine {
namespace {

constexpr std::string_view kTargetNames[kLoraTargets] = {
    "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};

struct Scaling {
  double alpha = 0;
  bool by_root = false;  // "rslora"
  double of(int64_t r) const {
    return alpha / (by_root ? std::sqrt(static_cast<double>(r)) : static_cast<double>(r));
  }
};

Result<Scaling> read_config(const Json& config) {
  const auto refuse = [](std::string_view what) { return errorf(Code::kUnsupported, "{}", what); };
  const std::string kind = config["peft_type"].as_string_or("LORA");
  if (kind != "LORA") {
    return refuse(format("adapters of type '{}' are not supported, only LORA", kind));
  }
  if (config["use_dora"].as_bool()) return refuse("DoRA adapters are not supported");
  if (config["bias"].as_string_or("none") != "none") {
    return refuse("trained biases are not supported");
  }
  if (config["fan_in_fan_out"].as_bool()) return refuse("fan_in_fan_out is not supported");
  if (config["alpha_pattern"].size() > 0) return refuse("alpha_pattern is not supported");
  if (config["modules_to_save"].size() > 0) return refuse("modules_to_save is not supported");
  Scaling scaling;
  scaling.alpha = config["lora_alpha"].as_double(0);
  scaling.by_root = config["use_rslora"].as_bool();
  if (!(scaling.alpha > 0 && scaling.alpha < 1e6)) {
    return Error(Code::kDataCorrupt, "lora_alpha must be a number above 0");
  }
  return scaling;
}

struct Place {
  int32_t layer;
  LoraTarget target;
};
// "blk.3.attn_q.weight"; nothing if it is not one of the seven matrices.
std::optional<Place> place_of(std::string_view name) {
  if (!name.starts_with("blk.") || !name.ends_with(".weight")) return std::nullopt;
  name.remove_prefix(4);
  name.remove_suffix(7);
  int32_t layer = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
  if (error != std::errc() || layer < 0) return std::nullopt;
  name.remove_prefix(static_cast<size_t>(end - name.data()));
  for (size_t t = 0; t < kLoraTargets; ++t) {
    if (name.size() == kTargetNames[t].size() + 1 && name[0] == '.' &&
        name.substr(1) == kTargetNames[t]) {
      return Place{layer, static_cast<LoraTarget>(t)};
    }
  }
  return std::nullopt;
}

struct Matrix {
  int64_t rows = 0, cols = 0;
  std::vector<float> values;
};

Result<Matrix> read_matrix(const SafeTensor& tensor, std::span<const std::byte> file) {
  const std::pair<std::string_view, DType> types[] = {
      {"F32", DType::kF32}, {"F16", DType::kF16}, {"BF16", DType::kBF16}};
  for (const auto& [name, dtype] : types) {
    if (tensor.dtype != name) continue;
    if (tensor.shape.size() != 2 || tensor.shape[0] < 1 || tensor.shape[1] < 1) break;
    Matrix m{tensor.shape[0], tensor.shape[1], {}};
    m.values.resize(static_cast<size_t>(m.rows * m.cols));
    // Aligned, whatever the file's offsets are.
    const std::vector<std::byte> bytes(file.begin() + static_cast<int64_t>(tensor.begin),
                                       file.begin() + static_cast<int64_t>(tensor.end));
    dequantize_row(dtype, bytes.data(), m.values);
    for (const float v : m.values) {
      if (!std::isfinite(v)) {
        return errorf(Code::kDataCorrupt, "tensor '{}' holds a value that is no number",
                      tensor.name);
      }
    }
    return m;
  }
  return errorf(Code::kUnsupported,
                "tensor '{}' is {} with {} dimensions; a matrix of F32, F16 or "
                "BF16 is needed",
                tensor.name, tensor.dtype, tensor.shape.size());
}

}  // namespace

class LoraReader {
 public:
  LoraReader(const spec::ModelDesc& model, LayerRange layers, Shard shard)
      : model_(model), layers_(layers), shard_(shard) {}

  Result<std::unique_ptr<LoraAdapter>> read(const Json& config, std::span<const std::byte> file) {
    ASSIGN_OR_RETURN(scaling_, read_config(config));
    ASSIGN_OR_RETURN(const std::vector<SafeTensor> tensors, read_safetensors(file));
    std::unique_ptr<LoraAdapter> adapter(new LoraAdapter());
    adapter->layers_.resize(static_cast<size_t>(layers_.size()));
    for (const SafeTensor& tensor : tensors) TRY(take(tensor, file));
    if (halves_.empty()) return Error(Code::kDataCorrupt, "there are no LoRA matrices");
    int64_t bytes = 0;
    for (auto& [key, halves] : halves_) {
      TRY(plan(key.first, key.second, halves, *adapter, bytes));
    }
    ASSIGN_OR_RETURN(adapter->arena_, Arena::create(std::max<int64_t>(bytes, 64)));
    for (const Packing& p : packings_) {
      p.to->panels = adapter->arena_.take(p.to->bytes());
      pack({.dtype = DType::kF32,
            .data = reinterpret_cast<const std::byte*>(p.matrix->values.data() +
                                                       p.row * p.matrix->cols),
            .row_stride = p.matrix->cols * 4,
            .rows = p.to->rows,
            .col_begin = p.col,
            .cols = p.to->cols},
           *p.to, 0, p.to->panel_count());
    }
    return adapter;
  }

 private:
  struct Halves {
    std::optional<Matrix> a, b;
  };
  struct Packing {
    const Matrix* matrix;
    int64_t row, col;  // where the rank's part begins
    PackedMatrix* to;
  };

  // Keeps a matrix of one of our layers; refuses what this build would silently leave out.
  Result<void> take(const SafeTensor& tensor, std::span<const std::byte> file) {
    std::string_view name = tensor.name;
    const std::string_view prefix = "base_model.model.";
    if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
    bool is_a = false;
    size_t cut = std::string_view::npos;
    for (const auto& [suffix, first] : {std::pair<std::string_view, bool>{".lora_A.weight", true},
                                        {".lora_A.default.weight", true},
                                        {".lora_B.weight", false},
                                        {".lora_B.default.weight", false}}) {
      if (!name.ends_with(suffix)) continue;
      cut = name.size() - suffix.size();
      is_a = first;
    }
    std::optional<Place> place;
    if (cut != std::string_view::npos) {
      place = place_of(gguf_name_of_hf(std::string(name.substr(0, cut)) + ".weight"));
    }
    if (!place || place->layer >= model_.layers) {
      return errorf(
          Code::kUnsupported,
          "tensor '{}' is no lora_A or lora_B of a q, k, v, o, gate, up or down matrix of "
          "this model",
          tensor.name);
    }
    if (!layers_.contains(place->layer)) {  // another stage's
      halves_.try_emplace({-1, LoraTarget::kQ});
      return {};
    }
    Halves& halves = halves_[{place->layer, place->target}];
    ASSIGN_OR_RETURN(Matrix m, read_matrix(tensor, file));
    (is_a ? halves.a : halves.b) = std::move(m);
    return {};
  }

  // Checks the shapes, scales and reorders B, and plans the rank's part.
  Result<void> plan(int32_t layer, LoraTarget target, Halves& h, LoraAdapter& adapter,
                    int64_t& bytes) {
    if (layer < 0) return {};
    const auto t = static_cast<size_t>(target);
    const std::string name = format("blk.{}.{}", layer, kTargetNames[t]);
    if (!h.a || !h.b) {
      return errorf(Code::kDataCorrupt, "{} has only one of lora_A and lora_B", name);
    }
    const bool splits_input = target == LoraTarget::kO || target == LoraTarget::kDown;
    const auto [in, out] = widths(model_, target);
    const int64_t r = h.a->rows;
    if (h.a->cols != in || h.b->rows != out || h.b->cols != r || r > kMaxLoraRank) {
      return errorf(Code::kDataCorrupt,
                    "{}: lora_A is {} x {} and lora_B {} x {}; r x {} and {} x r are needed, r at "
                    "most {}",
                    name, h.a->rows, h.a->cols, h.b->rows, h.b->cols, in, out, kMaxLoraRank);
    }
    const auto scale = static_cast<float>(scaling_.of(r));
    for (float& v : h.b->values) v *= scale;
    const bool rotated = target == LoraTarget::kQ || target == LoraTarget::kK;
    if (rotated && model_.rope_pairing == spec::RopePairing::kInterleaved) interleave_heads(*h.b);

    ASSIGN_OR_RETURN(const spec::ModelDesc own, shard_shape(model_, shard_));
    const auto [own_in, own_out] = widths(own, target);
    const int32_t pieces = splits_input ? reduction_pieces(DType::kF32, in) : 1;
    if (splits_input && pieces % shard_.of != 0) {
      return errorf(Code::kUnsupported, "{}: {} ranks cannot share {} columns", name, shard_.of,
                    in);
    }
    LoraPair& pair =
        adapter.layers_[static_cast<size_t>(layer - layers_.begin)][static_cast<size_t>(t)];
    ASSIGN_OR_RETURN(pair.a, plan_packed(DType::kF32, r, splits_input ? own_in : in,
                                         splits_input ? pieces / shard_.of : 1));
    ASSIGN_OR_RETURN(pair.b, plan_packed(DType::kF32, splits_input ? out : own_out, r));
    const int64_t first_in = splits_input ? own_in * shard_.rank : 0;
    packings_.push_back({&*h.a, 0, first_in, &pair.a});
    packings_.push_back({&*h.b, splits_input ? 0 : first_output(own_out, target), 0, &pair.b});
    bytes += Arena::rounded(pair.a.bytes()) + Arena::rounded(pair.b.bytes());
    adapter.largest_rank_ = std::max(adapter.largest_rank_, static_cast<int32_t>(r));
    return {};
  }

  // (input, output) of a target's matrix.
  static std::pair<int64_t, int64_t> widths(const spec::ModelDesc& d, LoraTarget target) {
    switch (target) {
      case LoraTarget::kQ: return {d.hidden, d.q_width()};
      case LoraTarget::kK:
      case LoraTarget::kV: return {d.hidden, d.kv_width()};
      case LoraTarget::kO: return {d.q_width(), d.hidden};
      case LoraTarget::kGate:
      case LoraTarget::kUp: return {d.hidden, d.ffn};
      case LoraTarget::kDown: return {d.ffn, d.hidden};
    }
    return {0, 0};
  }

  int64_t first_output(int64_t own_out, LoraTarget target) const {
    if (target == LoraTarget::kK || target == LoraTarget::kV) {  // see plan_layer in weights.cpp
      return int64_t{shard_.rank} * model_.kv_heads / shard_.of * model_.head_dim;
    }
    return own_out * shard_.rank;
  }

  // From pairs (i, i + half) of each head, as Hugging Face stores them, to pairs (2 i, 2 i + 1).
  void interleave_heads(Matrix& b) const {
    const Matrix from = b;
    const int64_t half = model_.rope_dim / 2;
    for (int64_t head = 0; head < b.rows; head += model_.head_dim) {
      for (int64_t i = 0; i < half; ++i) {
        for (int64_t side = 0; side < 2; ++side) {
          std::copy_n(from.values.begin() + (head + side * half + i) * b.cols, b.cols,
                      b.values.begin() + (head + 2 * i + side) * b.cols);
        }
      }
    }
  }

  const spec::ModelDesc& model_;
  LayerRange layers_;
  Shard shard_;
  Scaling scaling_;
  std::map<std::pair<int32_t, LoraTarget>, Halves> halves_;  // by layer; -1: other stages' exist
  std::vector<Packing> packings_;
};

Result<std::unique_ptr<LoraAdapter>> LoraAdapter::load(const std::string& path,
                                                       const spec::ModelDesc& model,
                                                       LayerRange layers, Shard shard) {
  ASSIGN_OR_RETURN(const Json config, load_json(path + "/adapter_config.json"));
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::open(path + "/adapter_model.safetensors"));
  auto adapter = parse(config, file.bytes(), model, layers, shard);
  if (!adapter) return std::move(adapter).error().context("adapter " + path);
  return adapter;
}

Result<std::unique_ptr<LoraAdapter>> LoraAdapter::parse(const Json& config,
                                                        std::span<const std::byte> weights,
                                                        const spec::ModelDesc& model,
                                                        LayerRange layers, Shard shard) {
  return LoraReader(model, layers, shard).read(config, weights);
}

}  // namespace towline::engine
