// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// RouteChooser: the way of each request, by one of the four routers of policy/router.hpp, over the
// links that lead to the end. The host asks when a request can begin; the whole way is chosen at
// once. (In Helix only the max-flow router does that; hop by hop, the others decide when a request
// reaches a node. Here the host knows every node's queue, so it can decide for them.)
//
// KV estimates apply to all four: a node that would pass its high-water mark is refused, and the
// request waits. So does size: a node whose whole KV memory is smaller than what the request may
// come to need is not on its way, nor one that leads only to such nodes.
//
// Pure; copyable; its own random numbers.
#pragma once

#include <cstdint>
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
    int64_t room = 0;            // tokens of one sequence that its KV memory can hold
    int32_t longest_prompt = 0;  // tokens
  };
  // `flow` [link] tokens/s, for the flow router; `nodes` [node].
  RouteChooser(RouterKind kind, RouteMap map, std::span<const double> flow,
               const std::vector<Node>& nodes, double minimum_share, uint64_t seed);

  struct Ask {
    int64_t input_tokens = 0;         // known so far
    int64_t most_tokens = 0;          // whose KV it may come to hold
    std::span<const int64_t> queue;   // [node] requests placed there, for the shortest queue
    bool alone = false;               // nobody else is placed: the KV estimate does not count
  };
  enum class Verdict {
    kRouted,    // `pipeline`, booked in `ledger`
    kWait,      // it may be routed when others have ended
    kTooLarge,  // no way has so much memory
    kNever,     // no way leads through
  };
  Verdict choose(const Ask& ask, KvLedger& ledger, Pipeline& pipeline);
  // A step of a lane with this pipeline of ours took `taken` from end to end, and `decodes`
  // sequences of it generated.
  void stepped(const Pipeline& pipeline, int64_t decodes, Duration taken);

  const RouteMap& map() const { return map_; }

 private:
  Verdict choose_hop_by_hop(const Ask& ask, std::span<const uint8_t> roomy, KvLedger& ledger,
                            Pipeline& pipeline);
  int32_t pick(int32_t node, std::span<const int32_t> links, std::span<const int64_t> queue,
               std::span<const uint8_t> usable);
  // [node] Does a way to the end leave it, over nodes of at least so much room?
  std::vector<uint8_t> leading_on(int64_t room) const;

  struct Shuffler {  // policy::pick_random's idea of a generator
    Rng rng;
    void shuffle(std::vector<int32_t>& items) {
      for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[rng.below(i)]);
    }
  };
  RouterKind kind_;
  RouteMap map_;
  std::vector<Node> nodes_;
  int64_t least_room_ = 0;           // of a node that leads on
  std::optional<FlowRouter> flow_;
  std::optional<SwarmRouter<double>> swarm_;
  std::vector<uint8_t> leads_on_;    // [node] leading_on(0)
  Shuffler random_;
};

}  // namespace towline::policy
