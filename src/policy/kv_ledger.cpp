// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/kv_ledger.hpp"

#include <algorithm>

#include "base/check.hpp"

namespace towline::policy {

KvLedger::KvLedger(std::vector<Node> nodes, int32_t total_layers, KvEstimator estimator)
    : total_layers_(total_layers), estimator_(estimator) {
  accounts_.reserve(nodes.size());
  for (const Node& node : nodes) {
    CHECK(node.layers.empty() || (node.layers.begin >= 0 && node.layers.end <= total_layers),
          node.layers.begin, node.layers.end, total_layers);
    const double reserve = (1 - estimator.high_water) * static_cast<double>(node.capacity);
    accounts_.push_back({node.layers, node.capacity, node.capacity, node.capacity, reserve});
  }
}

void KvLedger::book(const Pipeline& pipeline, int64_t input_tokens) {
  const int64_t tokens = expected_tokens(input_tokens);
  for (const Hop& hop : pipeline) {
    if (hop.node != kSinkNode) accounts_[hop.node].expected_free -= tokens * hop.layers.size();
  }
}

void KvLedger::release(const Pipeline& pipeline, int64_t input_tokens) {
  const int64_t tokens = expected_tokens(input_tokens);
  for (const Hop& hop : pipeline) {
    if (hop.node == kSinkNode) continue;
    Account& a = accounts_[hop.node];
    a.expected_free += tokens * hop.layers.size();
    CHECK(a.expected_free <= a.capacity, hop.node, a.expected_free, a.capacity);
  }
}

void KvLedger::vacate(int32_t node, int64_t layer_tokens) {
  Account& a = accounts_[node];
  a.real_free += layer_tokens;
  CHECK(a.real_free <= a.capacity, node, a.real_free, a.capacity);
}

double KvLedger::bottleneck(int64_t Account::*free) const {
  struct Sum {
    double free = 0, total = 0;
  };
  std::vector<Sum> layers(total_layers_);
  for (const Account& a : accounts_) {
    if (a.layers.empty()) continue;
    const double share = static_cast<double>(a.*free) / a.layers.size();
    const double total = static_cast<double>(a.capacity) / a.layers.size();
    for (int32_t layer = a.layers.begin; layer < a.layers.end; ++layer) {
      layers[layer].free += share;
      layers[layer].total += total;
    }
  }
  double worst = 0;
  for (const Sum& sum : layers) {
    if (sum.total > 0) worst = std::max(worst, 1 - sum.free / sum.total);
  }
  return worst;
}

}  // namespace towline::policy
