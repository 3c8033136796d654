// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/format/convert_model.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "base/fmt.hpp"
#include "engine/format/hf_tokenizer.hpp"
#include "engine/format/model_shape.hpp"

namespace towline::engine {
namespace {

constexpr std::string_view kRopeTable = "rope_freqs.weight";

// The first value of a row that is not finite; -1 if all are.
int64_t first_bad_value(std::span<const float> values) {
  const auto at = std::find_if(values.begin(), values.end(),
                               [](float v) { return !std::isfinite(v); });
  return at == values.end() ? -1 : at - values.begin();
}

Error not_finite(const Tensor& t, int64_t row, int64_t col, float value) {
  return errorf(Code::kDataCorrupt, "the tensor '{}' has the value {} at row {}, column {}", t.name,
                value, row, col);
}

bool is_rotary(std::string_view name) {
  return name.ends_with("attn_q.weight") || name.ends_with("attn_k.weight") ||
         name.ends_with("attn_q.bias") || name.ends_with("attn_k.bias");
}

// Plans and fills the tensors of the new file.
class Conversion {
 public:
  Conversion(const ModelFile& model, const QuantRecipe& recipe) : model_(model), recipe_(recipe) {
    const spec::ModelDesc& d = model.desc();
    reorder_ = model.is_directory() && gguf_architecture(d) == "llama";
    if (d.rope_scaling == spec::RopeScaling::kLlama3) {
      rope_table_ = llama3_rope_factors(d);
      add(kRopeTable, 1, static_cast<int64_t>(rope_table_.size()), nullptr);
    }
    std::set<std::string_view> done;
    for (const TensorShape& needed : needed_tensors(d, {0, d.layers})) {
      const Tensor* t = model.find(needed.name);
      done.insert(t->name);  // check() has seen it
      add(t->name, t->rows, t->cols, t);
    }
    for (const Tensor& t : model.tensors()) {
      if (!done.contains(t.name)) add(t.name, t.rows, t.cols, &t);
    }
  }

  std::span<const PlannedTensor> tensors() const { return planned_; }

  Result<void> fill(size_t index, int64_t begin, int64_t end, std::byte* out) const {
    const PlannedTensor& to = planned_[index];
    const Tensor* from = sources_[index];
    if (from == nullptr) {
      std::memcpy(out, rope_table_.data(), rope_table_.size() * sizeof(float));
      return {};
    }
    const bool reorder = reorder_ && is_rotary(to.name);
    if (to.rows == 1) return fill_vector(*from, to, reorder, out);
    const spec::ModelDesc& d = model_.desc();
    std::vector<float> values(static_cast<size_t>(to.cols));
    const int64_t bytes = row_bytes(to.dtype, to.cols);
    for (int64_t row = begin; row < end; ++row, out += bytes) {
      const int64_t source = reorder ? interleaved_source_row(row, d.head_dim, d.rope_dim) : row;
      if (from->dtype == to.dtype) {
        std::memcpy(out, from->row(source), static_cast<size_t>(bytes));
        continue;
      }
      TRY(read_row(*from, source, values));
      quantize_row(to.dtype, values, out);
    }
    return {};
  }

 private:
  void add(std::string_view name, int64_t rows, int64_t cols, const Tensor* from) {
    const DType type = choose_dtype(recipe_, model_.desc(), name, rows, cols);
    planned_.push_back({std::string(name), type, rows, cols});
    sources_.push_back(from);
  }

  static Result<void> read_row(const Tensor& from, int64_t row, std::span<float> values) {
    dequantize_row(from.dtype, from.row(row), values);
    const int64_t bad = first_bad_value(values);
    if (bad >= 0) return not_finite(from, row, bad, values[static_cast<size_t>(bad)]);
    return {};
  }

  Result<void> fill_vector(const Tensor& from, const PlannedTensor& to, bool reorder,
                           std::byte* out) const {
    std::vector<float> values(static_cast<size_t>(to.cols));
    TRY(read_row(from, 0, values));
    if (reorder) {
      const std::vector<float> before = values;
      for (int64_t i = 0; i < to.cols; ++i) {
        const int64_t source =
            interleaved_source_row(i, model_.desc().head_dim, model_.desc().rope_dim);
        values[static_cast<size_t>(i)] = before[static_cast<size_t>(source)];
      }
    }
    quantize_row(to.dtype, values, out);
    return {};
  }

  const ModelFile& model_;
  const QuantRecipe& recipe_;
  bool reorder_ = false;
  std::vector<float> rope_table_;
  std::vector<PlannedTensor> planned_;
  std::vector<const Tensor*> sources_;  // null: the rotary table
};

void copy_gguf_keys(const ModelFile& model, GgufMeta& meta) {
  for (size_t i = 0; i < model.all_meta().size(); ++i) {
    const std::string& key = model.all_meta()[i].first;
    // The new file is whole, and aligned as usual.
    if (key.starts_with("split.") || key == "general.alignment") continue;
    meta.set_bytes(key, model.meta_bytes(i));
  }
}

// A side file that may be absent, but must be readable if it is there.
Result<Json> optional_side_file(const ModelFile& model, std::string_view name) {
  Result<Json> json = model.side_file(name);
  if (!json && json.error().code() == Code::kNotFound) return Json();
  return json;
}

Result<void> make_hf_keys(const ModelFile& model, GgufMeta& meta) {
  set_model_keys(model.desc(), meta);
  HfTokenizerFiles files;
  ASSIGN_OR_RETURN(files.tokenizer, optional_side_file(model, "tokenizer.json"));
  if (files.tokenizer.is_null()) return {};  // weights alone: the file says so by having no keys
  ASSIGN_OR_RETURN(files.config, optional_side_file(model, "tokenizer_config.json"));
  ASSIGN_OR_RETURN(files.generation, optional_side_file(model, "generation_config.json"));
  if (!files.generation.contains("eos_token_id")) {
    ASSIGN_OR_RETURN(files.generation, model.side_file("config.json"));
  }
  const auto jinja = std::filesystem::path(model.path()) / "chat_template.jinja";
  std::error_code ignored;
  if (std::filesystem::exists(jinja, ignored)) {
    ASSIGN_OR_RETURN(files.chat_template, read_file(jinja.string(), 1 << 24));
  }
  return set_tokenizer_keys(files, model.desc().vocab, meta).context("tokenizer.json");
}

// Hands the rows of all tensors to a few threads, a slice at a time.
class ValueCheck {
 public:
  ValueCheck(const ModelFile& model, const WriteOptions& options)
      : model_(model), options_(options) {
    for (const Tensor& t : model.tensors()) {
      const int64_t step = std::max<int64_t>(1, (int64_t{4} << 20) / row_bytes(t.dtype, t.cols));
      for (int64_t r = 0; r < t.rows; r += step) {
        slices_.push_back({&t, r, std::min(t.rows, r + step)});
      }
      total_ += t.bytes();
    }
  }

  Result<void> run() {
    {
      std::vector<std::jthread> team;
      for (int i = 1; i < options_.threads; ++i) team.emplace_back([this] { work(); });
      work();
    }
    if (error_) return *std::move(error_);
    return {};
  }

 private:
  struct Slice {
    const Tensor* tensor;
    int64_t begin, end;
  };

  void work() {
    std::vector<float> values;
    while (!stop_) {
      const size_t index = next_.fetch_add(1);
      if (index >= slices_.size()) return;
      const Slice& s = slices_[index];
      values.resize(static_cast<size_t>(s.tensor->cols));
      for (int64_t row = s.begin; row < s.end; ++row) {
        dequantize_row(s.tensor->dtype, s.tensor->row(row), values);
        const int64_t bad = first_bad_value(values);
        if (bad >= 0) {
          return fail(index, not_finite(*s.tensor, row, bad, values[static_cast<size_t>(bad)]));
        }
      }
      drop(s);
      report(s);
    }
  }

  // The rows' pages, so that checking a large file does not fill the memory.
  void drop(const Slice& s) const {
    Tensor rows = *s.tensor;
    rows.data = s.tensor->row(s.begin);
    rows.rows = s.end - s.begin;
    model_.drop_pages(rows);
  }

  // Of several failures the one nearest the start is reported, whoever found it first.
  void fail(size_t index, Error error) {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    if (error_ && failed_at_ < index) return;
    failed_at_ = index;
    error_ = std::move(error);
  }

  void report(const Slice& s) {
    const std::lock_guard lock(mutex_);
    done_ += (s.end - s.begin) * row_bytes(s.tensor->dtype, s.tensor->cols);
    if (options_.progress) options_.progress(done_, total_);
  }

  const ModelFile& model_;
  const WriteOptions& options_;
  std::vector<Slice> slices_;
  int64_t total_ = 0;
  std::atomic<size_t> next_ = 0;
  std::atomic<bool> stop_ = false;
  std::mutex mutex_;  // guards the three below
  int64_t done_ = 0;
  size_t failed_at_ = 0;
  std::optional<Error> error_;
};

}  // namespace

int64_t interleaved_source_row(int64_t row, int64_t head_dim, int64_t rope_dim) {
  const int64_t in_head = row % head_dim;
  if (in_head >= rope_dim) return row;
  return row - in_head + in_head % 2 * (rope_dim / 2) + in_head / 2;
}

Result<void> convert_model(const ModelFile& model, const QuantRecipe& recipe,
                           const std::string& path, const WriteOptions& options) {
  TRY(model.check({0, model.desc().layers}));
  GgufMeta meta;
  if (model.is_directory()) {
    TRY(make_hf_keys(model, meta));
  } else {
    copy_gguf_keys(model, meta);
  }
  meta.set_u32("general.quantization_version", 2);
  meta.set_u32("general.file_type", recipe.gguf_file_type);
  const Conversion conversion(model, recipe);
  const FillRows fill = [&](size_t index, int64_t begin, int64_t end, std::byte* out) {
    return conversion.fill(index, begin, end, out);
  };
  return write_gguf(path, meta, conversion.tensors(), fill, options);
}

Result<void> check_values(const ModelFile& model, const WriteOptions& options) {
  return ValueCheck(model, options).run();
}

}  // namespace towline::engine
