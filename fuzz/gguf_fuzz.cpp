// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as a GGUF file: an error, or a model whose every tensor can be read.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "engine/format/model_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace towline::engine;
  static const int file = ::memfd_create("gguf", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(file);
  if (::ftruncate(file, 0) != 0 || ::pwrite(file, data, size, 0) != static_cast<ssize_t>(size)) {
    std::abort();
  }
  const towline::Result<ModelFile> model = ModelFile::open(path);
  if (!model) {
    if (model.error().message().empty()) std::abort();
    return 0;
  }
  std::vector<float> row;
  for (const Tensor& t : model->tensors()) {
    if (model->find(t.name) != &t) std::abort();
    row.resize(static_cast<size_t>(t.cols));
    for (const int64_t r : {int64_t{0}, t.rows - 1}) dequantize_row(t.dtype, t.row(r), row);
  }
  for (size_t i = 0; i < model->all_meta().size(); ++i) {
    if (model->meta_bytes(i).size() < 5) std::abort();
    (void)model->meta(model->all_meta()[i].first);
  }
  if (model->desc().layers > 0) (void)model->check({0, model->desc().layers});
  return 0;
}
