// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// NodeTimeline: what every node did over a run of any length, in at most kMostColumns columns. When
// they are full, each two become one, so that memory is bounded by the number of nodes.
#pragma once

#include <cstddef>
#include <vector>

namespace towline::sim {

struct NodeTimeline {
  static constexpr size_t kMostColumns = 480;

  double begin = 0, step = 0;            // seconds; column c is from begin + c step on
  std::vector<std::vector<float>> busy;  // [node][column] share of the time that it computed
  std::vector<std::vector<float>> kv;    // [node][column] share of its KV blocks held

  size_t columns() const { return busy.empty() ? 0 : busy.front().size(); }

  // A look every `each` seconds, the first at `at`; shares since the look before, [node].
  void add(double at, double each, const std::vector<float>& busy_now,
           const std::vector<float>& kv_now);

 private:
  void halve();
  int looks_ = 0;     // in the column that is being filled...
  int per_column_ = 1;  // ...of so many
};

}  // namespace towline::sim
