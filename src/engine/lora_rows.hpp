// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// LoraRows: adds the adapters' part to the rows of a step that ask for one (engine/stage.cpp).
//
// Rows of one adapter are gathered and multiplied together; what a row gets does not depend on the
// others. Used by one stage, one caller at a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/kernel/activations.hpp"
#include "engine/kernel/compute_team.hpp"
#include "engine/kernel/kernel_table.hpp"
#include "engine/lora.hpp"

namespace towline::engine {

// The sums of one row by `ranks` ranks, n numbers each and `stride` apart, added in a balanced
// tree: the upper levels of the tree whose lower ones are inside the products (k_shards).
void sum_parts(const float* parts, int32_t ranks, int64_t stride, int64_t n, float* out);

class LoraRows {
 public:
  LoraRows(const KernelTable& kernels, ComputeTeam& team) : kernels_(&kernels), team_(&team) {}

  // A new step: forgets the rows of the last one.
  void clear();
  // Row `row` of the step has this adapter. Rows come in ascending order; seal() after the last.
  void add_row(const LoraAdapter& adapter, int32_t row);
  void seal();
  bool empty() const { return groups_.empty(); }

  // Where a matrix's outputs of all rows are, `ldo` floats a row.
  struct Output {
    LoraTarget target;
    float* out;
    int64_t ldo;
  };
  // q, k, v, gate, up: out[row] += B (A x[row]) for the rows with adapters.
  void add(int32_t layer, std::span<const Output> outputs, const float* x, int64_t ldx);

  // o, down, in two halves, because A x must be summed over the ranks: shrink() writes this rank's
  // part of it, parts[i * kMaxLoraRank + ...] for the i-th row with an adapter...
  void shrink(int32_t layer, LoraTarget target, const float* x, int64_t ldx, float* parts);
  // ... and expand() adds up the parts of `ranks` ranks, `stride` apart, and keeps B (A x).
  void expand(int32_t layer, LoraTarget target, const float* parts, int32_t ranks, int64_t stride,
              int64_t hidden);
  // What expand() kept for a row; null if it has none. Read from any thread.
  const float* kept(int64_t row, int64_t hidden) const;

 private:
  struct Group {
    const LoraAdapter* adapter;
    std::vector<int32_t> rows;
    int32_t first = 0;  // of its rows among all rows with adapters
  };
  // out[i] = m * x[i], i < n.
  void multiply(const PackedMatrix& m, const float* x, int64_t ldx, int64_t n, float* out,
                int64_t ldo);
  void gather(const Group& group, const float* x, int64_t ldx, int64_t cols);

  const KernelTable* kernels_;
  ComputeTeam* team_;
  std::vector<Group> groups_;
  std::vector<int32_t> slot_of_row_;     // of the step; -1: no adapter
  int32_t rows_ = 0;                     // with adapters
  std::vector<char> has_kept_;           // [rows_]
  std::vector<float> kept_;              // [rows_][hidden]
  std::vector<float> gathered_, shrunk_, expanded_;
  Activations acts_;
};

}  // namespace towline::engine
