// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// RouteChooser: the way of each request, by one of the four routers of policy/router.hpp, over the
// links that lead to the end. The host asks when a request can begin; the whole way is chosen at
// once. (In Helix only the max-flow router does that; hop by hop, the others decide when a request
// reaches a node. Here the coordinator knows every node's queue, so it can decide for them.)
//
// KV estimates apply to all four: a way over a node that would pass its high-water mark is refused,
// and the request waits.
//
// Pure; copyable; its own random numbers.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "base/rng.hpp"
#include "base/units.hpp"
#include "policy/kv_ledger.hpp"
#include "policy/pipeline.hpp"
#include "policy/router.hpp"

namespace towline::policy {

enum class RouterKind : uint8_t { kFlow, kSwarm, kRandom, kShortestQueue };
std::string_view router_name(RouterKind kind);
Result<RouterKind> router_named(std::string_view name);

class RouteChooser {
 public:
  struct Node {
    LayerRange layers;          // empty: not there
    int64_t kv_tokens = 0;      // its KV memory, in tokens of all its layers
    int32_t longest_prompt = 0; // tokens
  };
  RouteChooser(RouterKind kind, RouteMap map, std::span<const double> flow,
               const std::vector<Node>& nodes, KvEstimator estimator, uint64_t seed);

  // `queue` [node]: requests in progress there, for the shortest queue.
  enum class Verdict { kRouted, kWait, kNever };
  Verdict choose(int64_t input_tokens, std::span<const int64_t> queue, Pipeline& pipeline);
  // The same without a look at the KV estimate, for a request that has the cluster for itself.
  Verdict choose_alone(int64_t input_tokens, std::span<const int64_t> queue, Pipeline& pipeline);
  // A way that was chosen under an earlier plan and goes on.
  void book(const Pipeline& pipeline, int64_t input_tokens) {
    ledger_.book(pipeline, input_tokens);
  }
  void finish(const Pipeline& pipeline, int64_t input_tokens) {
    ledger_.release(pipeline, input_tokens);
  }
  // A step of `tokens` sequences took `taken` from end to end.
  void stepped(const Pipeline& pipeline, int64_t tokens, Duration taken);

  const RouteMap& map() const { return map_; }
  const KvLedger& ledger() const { return ledger_; }

 private:
  Verdict choose_hop_by_hop(int64_t input_tokens, std::span<const int64_t> queue, bool alone,
                            Pipeline& pipeline);
  int32_t pick(int32_t node, std::span<const int32_t> links, std::span<const int64_t> queue,
               std::span<const uint8_t> usable);

  struct Shuffler {  // policy::pick_random's idea of a generator
    Rng rng;
    void shuffle(std::vector<int32_t>& items) {
      for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[rng.below(i)]);
    }
  };
  RouterKind kind_;
  RouteMap map_;
  KvLedger ledger_;
  std::vector<int32_t> longest_prompt_;
  std::optional<FlowRouter> flow_;
  std::optional<SwarmRouter<double>> swarm_;
  std::vector<uint8_t> leads_on_;  // [node] a way from its end to the sink exists
  Shuffler random_;
};

}  // namespace towline::policy
