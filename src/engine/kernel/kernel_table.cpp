// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/kernel/kernel_table.hpp"

#include <string>

#include "base/fmt.hpp"
#include "engine/kernel/kernel_math.hpp"

namespace towline::engine {

int64_t attention_scratch_floats(int32_t head_dim) {
  // Scaled queries and running outputs of all pairs, their scores in a chunk, a block of K or V as
  // float32, and two vectors a pair; rows rounded up to whole vectors.
  const int64_t dim = (head_dim + kLanes - 1) / kLanes * kLanes;
  return kAttentionPairs * (2 * dim + kChunkTokens + 2 * kLanes) + kKvBlockTokens * dim;
}

std::vector<const KernelTable*> attainable_tables() {
  std::vector<const KernelTable*> tables;
  for (const KernelTable* table : {avx512_table(), avx2_table(), generic_table()}) {
    if (table != nullptr) tables.push_back(table);
  }
  return tables;
}

Result<const KernelTable*> kernel_table(std::string_view name) {
  const std::vector<const KernelTable*> tables = attainable_tables();
  if (name.empty() || name == "auto") return tables.front();
  std::string names = "auto";
  for (const KernelTable* table : tables) {
    if (table->name == name) return table;
    names += ", ";
    names += table->name;
  }
  return errorf(Code::kInvalidArgument,
                "--isa {}: this processor and build can run only: {}", name, names);
}

std::string_view cpu_features() {
  static const std::string features = [] {
    std::string text;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const auto note = [&text](bool has, std::string_view feature) {
      if (has) text += (text.empty() ? "" : " ") + std::string(feature);
    };
    note(__builtin_cpu_supports("avx2"), "avx2");
    note(__builtin_cpu_supports("fma"), "fma");
    note(__builtin_cpu_supports("f16c"), "f16c");
    note(__builtin_cpu_supports("avx512f"), "avx512f");
    note(__builtin_cpu_supports("avx512bw"), "avx512bw");
    note(__builtin_cpu_supports("avx512dq"), "avx512dq");
    note(__builtin_cpu_supports("avx512vl"), "avx512vl");
    note(__builtin_cpu_supports("avx512vbmi"), "avx512vbmi");
    note(__builtin_cpu_supports("avx512vnni"), "avx512vnni");
    note(__builtin_cpu_supports("avx512bf16"), "avx512bf16");
#endif
    return text;
  }();
  return features;
}

}  // namespace towline::engine
