// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/lora_rows.hpp"

#include <algorithm>

namespace towline::engine {

void sum_parts(const float* parts, int32_t ranks, int64_t stride, int64_t n, float* out) {
  constexpr int64_t kChunk = 64;
  constexpr int kMaxRanks = 64;
  float sum[kMaxRanks][kChunk];
  for (int64_t at = 0; at < n; at += kChunk) {
    const int64_t count = std::min(kChunk, n - at);
    for (int32_t r = 0; r < ranks; ++r) std::copy_n(parts + r * stride + at, count, sum[r]);
    for (int32_t left = ranks / 2; left > 0; left /= 2) {
      for (int32_t r = 0; r < left; ++r) {
        for (int64_t i = 0; i < count; ++i) sum[r][i] = sum[2 * r][i] + sum[2 * r + 1][i];
      }
    }
    std::copy_n(sum[0], count, out + at);
  }
}

void LoraRows::clear() {
  groups_.clear();
  slot_of_row_.clear();
  has_kept_.clear();
  rows_ = 0;
}

void LoraRows::add_row(const LoraAdapter& adapter, int32_t row) {
  auto at = std::ranges::find(groups_, &adapter, &Group::adapter);
  if (at == groups_.end()) at = groups_.insert(at, Group{&adapter, {}, 0});
  at->rows.push_back(row);
  slot_of_row_.resize(static_cast<size_t>(row) + 1, -1);
}

void LoraRows::seal() {
  for (Group& group : groups_) {
    group.first = rows_;
    for (const int32_t row : group.rows) slot_of_row_[static_cast<size_t>(row)] = rows_++;
  }
}

void LoraRows::multiply(const PackedMatrix& m, const float* x, int64_t ldx, int64_t n, float* out,
                        int64_t ldo) {
  acts_.reset(ActKind::kF32, n, m.cols);
  team_->parallel_for(acts_.group_count(), [&](int64_t group, int) {
    kernels_->prepare(acts_, group, group + 1, x, ldx);
  });
  team_->parallel_ranges(m.panel_count(), [&](int64_t begin, int64_t end, int) {
    kernels_->gemm(m, begin, end, acts_, out, ldo);
  });
}

void LoraRows::gather(const Group& group, const float* x, int64_t ldx, int64_t cols) {
  gathered_.resize(group.rows.size() * static_cast<size_t>(cols));
  for (size_t i = 0; i < group.rows.size(); ++i) {
    std::copy_n(x + group.rows[i] * ldx, cols, gathered_.begin() + static_cast<int64_t>(i) * cols);
  }
}

void LoraRows::add(int32_t layer, std::span<const Output> outputs, const float* x, int64_t ldx) {
  for (const Group& group : groups_) {
    const auto n = static_cast<int64_t>(group.rows.size());
    for (const Output& output : outputs) {
      const LoraPair& pair = group.adapter->pair(layer, output.target);
      if (!pair.present()) continue;
      gather(group, x, ldx, pair.a.cols);
      shrunk_.resize(static_cast<size_t>(n * pair.a.rows));
      expanded_.resize(static_cast<size_t>(n * pair.b.rows));
      multiply(pair.a, gathered_.data(), pair.a.cols, n, shrunk_.data(), pair.a.rows);
      multiply(pair.b, shrunk_.data(), pair.b.cols, n, expanded_.data(), pair.b.rows);
      for (int64_t i = 0; i < n; ++i) {
        kernels_->add(output.out + group.rows[static_cast<size_t>(i)] * output.ldo,
                      expanded_.data() + i * pair.b.rows, pair.b.rows);
      }
    }
  }
}

void LoraRows::shrink(int32_t layer, LoraTarget target, const float* x, int64_t ldx,
                      float* parts) {
  for (const Group& group : groups_) {
    const LoraPair& pair = group.adapter->pair(layer, target);
    if (!pair.present()) continue;
    gather(group, x, ldx, pair.a.cols);
    multiply(pair.a, gathered_.data(), pair.a.cols, static_cast<int64_t>(group.rows.size()),
             parts + group.first * int64_t{kMaxLoraRank}, kMaxLoraRank);
  }
}

void LoraRows::expand(int32_t layer, LoraTarget target, const float* parts, int32_t ranks,
                      int64_t stride, int64_t hidden) {
  has_kept_.assign(static_cast<size_t>(rows_), 0);
  kept_.resize(static_cast<size_t>(rows_ * hidden));
  for (const Group& group : groups_) {
    const LoraPair& pair = group.adapter->pair(layer, target);
    if (!pair.present()) continue;
    const auto n = static_cast<int64_t>(group.rows.size());
    const int64_t r = pair.b.cols;
    shrunk_.resize(static_cast<size_t>(n * r));
    for (int64_t i = 0; i < n; ++i) {
      sum_parts(parts + (group.first + i) * kMaxLoraRank, ranks, stride, r, shrunk_.data() + i * r);
    }
    multiply(pair.b, shrunk_.data(), r, n, kept_.data() + group.first * hidden, hidden);
    std::fill_n(has_kept_.begin() + group.first, n, char{1});
  }
}

const float* LoraRows::kept(int64_t row, int64_t hidden) const {
  if (row >= static_cast<int64_t>(slot_of_row_.size())) return nullptr;
  const int32_t slot = slot_of_row_[static_cast<size_t>(row)];
  if (slot < 0 || static_cast<size_t>(slot) >= has_kept_.size()) return nullptr;
  if (has_kept_[static_cast<size_t>(slot)] == 0) return nullptr;
  return kept_.data() + slot * hidden;
}

}  // namespace towline::engine
