// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/format/model_file.hpp"

#include <algorithm>
#include <filesystem>

#include "base/fmt.hpp"
#include "engine/format/gguf.hpp"
#include "engine/format/model_shape.hpp"
#include "engine/format/safetensors.hpp"

namespace towline::engine {

Result<ModelFile> ModelFile::open(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    ASSIGN_OR_RETURN(ModelParts parts, read_hf_directory(path).context(path));
    return ModelFile(std::move(parts));
  }
  ASSIGN_OR_RETURN(ModelParts parts, read_gguf(path).context(path));
  return ModelFile(std::move(parts));
}

const Tensor* ModelFile::find(std::string_view name) const {
  const auto at = std::lower_bound(
      parts_.tensors.begin(), parts_.tensors.end(), name,
      [](const Tensor& tensor, std::string_view wanted) { return tensor.name < wanted; });
  return at != parts_.tensors.end() && at->name == name ? &*at : nullptr;
}

Result<const Tensor*> ModelFile::require(std::string_view name, int64_t rows, int64_t cols) const {
  const Tensor* tensor = find(name);
  if (tensor == nullptr) {
    return errorf(Code::kDataCorrupt, "'{}' has no tensor '{}' (a [{} x {}] one is needed)", path(),
                  name, rows, cols);
  }
  if (tensor->rows != rows || tensor->cols != cols) {
    return errorf(Code::kDataCorrupt, "tensor '{}' of '{}' is [{} x {}]; [{} x {}] is needed", name,
                  path(), tensor->rows, tensor->cols, rows, cols);
  }
  return tensor;
}

const MetaValue& ModelFile::meta(std::string_view key) const {
  static const MetaValue kNone;
  const auto at = std::lower_bound(
      parts_.meta.begin(), parts_.meta.end(), key,
      [](const auto& entry, std::string_view wanted) { return entry.first < wanted; });
  return at != parts_.meta.end() && at->first == key ? at->second : kNone;
}

Result<Json> ModelFile::side_file(std::string_view name) const {
  if (!is_directory()) {
    return errorf(Code::kNotFound, "'{}' is a single file; it has no '{}' beside it", path(), name);
  }
  return load_json((std::filesystem::path(path()) / name).string());
}

Result<void> ModelFile::check(LayerRange layers) const {
  if (layers.begin < 0 || layers.empty() || layers.end > desc().layers) {
    return errorf(Code::kInvalidArgument, "layers [{}, {}) are not a part of the {} layers of '{}'",
                  layers.begin, layers.end, desc().layers, path());
  }
  if (tensors().empty()) {
    return errorf(Code::kInvalidArgument, "'{}' holds a vocabulary and no weights", path());
  }
  for (const TensorShape& needed : needed_tensors(desc(), layers)) {
    TRY(require(needed.name, needed.rows, needed.cols));
  }
  return {};
}

void ModelFile::drop_pages(const Tensor& tensor) const {
  const MappedFile& file = parts_.files[static_cast<size_t>(tensor.file)];
  file.drop_pages(static_cast<size_t>(tensor.data - file.bytes().data()),
                  static_cast<size_t>(tensor.bytes()));
}

}  // namespace towline::engine
