// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/node_timeline.hpp"

namespace towline::sim {

void NodeTimeline::add(double at, double each, const std::vector<float>& busy_now,
                       const std::vector<float>& kv_now) {
  if (busy.empty()) {
    begin = at - each;
    step = each;
    busy.resize(busy_now.size());
    kv.resize(kv_now.size());
  }
  if (looks_ == 0 && columns() == kMostColumns) halve();
  for (size_t i = 0; i < busy.size(); ++i) {
    if (looks_ == 0) {
      busy[i].push_back(0);
      kv[i].push_back(0);
    }
    // The mean of the looks so far.
    const float share = 1.0F / static_cast<float>(looks_ + 1);
    busy[i].back() += (busy_now[i] - busy[i].back()) * share;
    kv[i].back() += (kv_now[i] - kv[i].back()) * share;
  }
  looks_ = (looks_ + 1) % per_column_;
}

void NodeTimeline::halve() {
  for (auto* all : {&busy, &kv}) {
    for (std::vector<float>& row : *all) {
      for (size_t c = 0; 2 * c + 1 < row.size(); ++c) row[c] = (row[2 * c] + row[2 * c + 1]) / 2;
      row.resize(row.size() / 2);
    }
  }
  step *= 2;
  per_column_ *= 2;
}

}  // namespace towline::sim
