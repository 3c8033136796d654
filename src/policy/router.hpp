// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Routers: which nodes a request passes through. Four slots, as in Helix (ASPLOS'25, section 5):
//
//   FlowRouter      max flow: the whole pipeline at arrival, by IWRR over the planned flow
//   SwarmRouter     hop by hop, to the link whose recent hops were quickest (SWARM, ICML'23, app. C)
//   pick_random     hop by hop, a free link at random
//   pick_shortest   hop by hop, a free link to a node with the shortest queue, at random among these
//
// Pure machines: no clock (durations come in as values), random numbers from a generator that is
// passed in; copyable. Times are a template parameter: nanoseconds in production, seconds as double
// where the published simulator must be met bit for bit.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "policy/iwrr.hpp"
#include "policy/kv_ledger.hpp"
#include "policy/pipeline.hpp"

namespace towline::policy {

// Why no next hop could take a request, counted over the links of the node where it got stuck.
struct RouteRefusal {
  int32_t node = kSourceNode;  // the node whose links all refused
  int32_t by_flow = 0;         // planned flow below the minimum share
  int32_t by_length = 0;       // prompt longer than the node takes
  int32_t by_kv = 0;           // KV estimate above the high-water mark
  int32_t by_rule = 0;         // not usable for this request (RouteRules)
  std::string_view main_reason() const {  // the one that may pass with time, if any refused for it
    return by_kv > 0 ? "kv" : by_length > 0 ? "length" : "flow";
  }
};

// What holds for one request besides what the router knows.
struct RouteRules {
  bool ignore_kv = false;               // the KV estimate does not count: it has the cluster alone
  std::span<const uint8_t> usable;      // [node] 0: not this one; empty: all of them
};

class FlowRouter {
 public:
  // `flow` [link]: planned tokens/s. `longest_prompt` [node]. Links that carry less than
  // `minimum_share` of their origin's flow are never used.
  FlowRouter(RouteMap map, std::span<const double> flow, std::vector<int32_t> longest_prompt,
             double minimum_share = 0.05);

  // A pipeline for a prompt of `input_tokens`; loads and the ledger are charged. On refusal nothing
  // is charged, `pipeline` is empty, and false is returned with the reason in last_refusal().
  bool route(int64_t input_tokens, KvLedger& ledger, Pipeline& pipeline,
             const RouteRules& rules = {});
  // Decode steps of so many requests along a pipeline that route() gave.
  void charge_decode(const Pipeline& pipeline, double requests = 1.0);
  // The request ended: its expected KV is given back.
  static void finish(const Pipeline& pipeline, int64_t input_tokens, KvLedger& ledger) {
    ledger.release(pipeline, input_tokens);
  }

  const RouteRefusal& last_refusal() const { return refusal_; }
  const Iwrr& weights() const { return iwrr_; }  // [link]
  const RouteMap& map() const { return map_; }

 private:
  enum class Verdict { kPass, kLength, kKv, kRule };
  Verdict judge(int32_t next, int64_t input_tokens, const KvLedger& ledger,
                const RouteRules& rules) const;

  RouteMap map_;
  std::vector<int32_t> longest_prompt_;
  Iwrr iwrr_;                          // [link]
  std::vector<std::vector<int32_t>> open_;  // [node + 1] links with enough flow, in ascending order
  RouteRefusal refusal_;
};

struct SwarmOptions {
  double first_estimate = 0.05;  // of every hop, in the driver's unit of time
  double smoothing = 0.8;        // weight of the newest measurement
  int64_t most_on_the_fly = 99'999;  // requests sent by a node and not yet reported back
};

template <class Duration>
class SwarmRouter {
 public:
  SwarmRouter(const RouteMap& map, SwarmOptions options) : options_(options) {
    estimate_.assign(map.links.size(), options.first_estimate);
    nodes_.resize(map.out.size());
    for (size_t i = 0; i < map.out.size(); ++i) {
      for (const int32_t link : map.out[i]) {
        nodes_[i].queue.emplace_back(options.first_estimate, link);
      }
    }
  }

  // The link for the next prompt at `node`: the least priority, which then grows by the estimate.
  int32_t choose(int32_t node) {
    auto& queue = nodes_[node + 1].queue;
    auto best = std::min_element(queue.begin(), queue.end());
    best->first += estimate_[best->second];
    return best->second;
  }
  // A request sent over `link` by `node` came out of the node at the link's end after `taken`.
  void report(int32_t node, int32_t link, Duration taken) {
    double& e = estimate_[link];
    e = options_.smoothing * static_cast<double>(taken) + (1 - options_.smoothing) * e;
    --nodes_[node + 1].on_the_fly;
  }
  void sent(int32_t node) { ++nodes_[node + 1].on_the_fly; }
  // How many more requests `node` may schedule while `scheduled` are waiting for their link.
  int64_t room(int32_t node, int64_t scheduled) const {
    const Node& n = nodes_[node + 1];
    if (n.queue.size() == 1) return std::numeric_limits<int64_t>::max();  // no choice, no limit
    return options_.most_on_the_fly - n.on_the_fly - scheduled;
  }
  double estimate(int32_t link) const { return estimate_[link]; }

 private:
  struct Node {
    std::vector<std::pair<double, int32_t>> queue;  // (priority, link)
    int64_t on_the_fly = 0;
  };
  SwarmOptions options_;
  std::vector<double> estimate_;  // [link]
  std::vector<Node> nodes_;       // [node + 1]
};

// The first usable item in a random order of 0..usable.size()-1, or -1. `scratch` avoids allocation.
template <class Random>
int32_t pick_random(Random& random, std::span<const uint8_t> usable,
                    std::vector<int32_t>& scratch) {
  scratch.resize(usable.size());
  for (size_t i = 0; i < scratch.size(); ++i) scratch[i] = static_cast<int32_t>(i);
  random.shuffle(scratch);
  for (const int32_t i : scratch) {
    if (usable[i] != 0) return i;
  }
  return -1;
}

// Marks (1) the candidates whose queue is shortest. A negative length is the sink, which has no
// queue: it is marked and ends the scan.
void mark_shortest(std::span<const int64_t> queue_lengths, std::span<uint8_t> marks);

}  // namespace towline::policy
