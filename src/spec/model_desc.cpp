// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/model_desc.hpp"

namespace towline::spec {

int64_t ModelDesc::layer_parameters() const {
  const int64_t attention = int64_t{hidden} * q_width() * 2 + int64_t{hidden} * kv_width() * 2;
  return attention + int64_t{3} * hidden * ffn;
}

int64_t ModelDesc::parameters() const {
  const int64_t embedding = int64_t{vocab} * hidden;
  return embedding * (tied_embeddings ? 1 : 2) + layers * layer_parameters();
}

}  // namespace towline::spec
