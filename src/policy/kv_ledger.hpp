// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// KvLedger: how full every node's KV cache is, and how full it is expected to become.
//
// The unit is the layer-token: one token's K and V in one layer. Two accounts are kept per node:
//   expected  booked for a whole request when it is routed (its prompt plus the output that is
//             usual), given back when it ends. The router asks this account.
//   real      what the tokens processed so far occupy. A driver asks this account.
// The estimator and its high-water mark are those of Helix (Mei et al., ASPLOS'25, section 5.2).
//
// Pure: integers, no clock; copyable. Booking never fails and may pass the high-water mark (the
// check is fits()); balances never become negative: releasing more than was booked is a CHECK.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "policy/pipeline.hpp"

namespace towline::policy {

struct KvEstimator {
  double high_water = 0.85;     // a node takes a request only if this share is not passed
  double usual_output = 240;    // tokens a request is expected to produce...
  double output_ratio = 1.0;    // ...times this
};

class KvLedger {
 public:
  struct Node {
    LayerRange layers;          // empty: holds nothing, never asked
    int64_t capacity = 0;       // layer-tokens
  };

  KvLedger(std::vector<Node> nodes, int32_t total_layers, KvEstimator estimator);

  // Tokens a request of this prompt is expected to hold at its end.
  int64_t expected_tokens(int64_t input_tokens) const {
    return static_cast<int64_t>(static_cast<double>(input_tokens) +
                                estimator_.usual_output * estimator_.output_ratio);
  }
  // Would `node` stay below the high-water mark with this request on all of its layers?
  bool fits(int32_t node, int64_t input_tokens) const {
    const Account& a = accounts_[node];
    const int64_t left = a.expected_free - expected_tokens(input_tokens) * a.layers.size();
    return static_cast<double>(left) >= a.reserve;
  }
  void book(const Pipeline& pipeline, int64_t input_tokens);
  void release(const Pipeline& pipeline, int64_t input_tokens);

  // False, and nothing changes, if the node has not that much left.
  bool occupy(int32_t node, int64_t layer_tokens) {
    Account& a = accounts_[node];
    if (a.real_free < layer_tokens) return false;
    a.real_free -= layer_tokens;
    return true;
  }
  void vacate(int32_t node, int64_t layer_tokens);

  int32_t nodes() const { return static_cast<int32_t>(accounts_.size()); }
  int64_t capacity(int32_t node) const { return accounts_[node].capacity; }
  int64_t expected_used(int32_t node) const {
    return accounts_[node].capacity - accounts_[node].expected_free;
  }
  int64_t real_used(int32_t node) const {
    return accounts_[node].capacity - accounts_[node].real_free;
  }
  // The fullest layer's share in use, over all nodes that hold the layer together; 0..1.
  double expected_bottleneck() const { return bottleneck(&Account::expected_free); }
  double real_bottleneck() const { return bottleneck(&Account::real_free); }

 private:
  struct Account {
    LayerRange layers;
    int64_t capacity = 0;
    int64_t expected_free = 0;
    int64_t real_free = 0;
    double reserve = 0;  // must stay free: (1 - high_water) * capacity
  };
  double bottleneck(int64_t Account::*free) const;

  std::vector<Account> accounts_;
  int32_t total_layers_;
  KvEstimator estimator_;
};

}  // namespace towline::policy
