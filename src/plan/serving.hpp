// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Serving estimates: what a placement decodes when it is full of work, and how long that takes; in
// closed form, some microseconds a placement, where the simulator takes tenths of a second.
//
// Static flow knows neither KV capacity nor latency. Here, by Little's law,
//   requests in flight  N = rate * (prompt latency + output tokens * decode latency),
// where N is what the scarcest layer's KV cache holds, and both latencies grow with the rate. The
// rate that solves this is the estimate; bisection. A latency is a sum over the nodes that a
// request passes, each weighted with its share of the flow:
//   a pass   a node's layers times the time of a decode batch of the usual size, once and a half (a
//            request finds a pass under way), slowed by the share of time that prompts take
//   a hop    the link's latency and bytes
//   convoys  a prompt takes much longer through a node than a decode. Decodes behind it catch up
//            and stay in its batches until their ways part. A decode that follows a run of shared
//            nodes, where a prompt needs D seconds more than a decode, loses D^2/2 on each prompt
//            a second: the square is why two parallel slow branches beat one fast chain. The runs
//            that two independent requests share are followed through the flow network.
// The effect of convoys dominates in Helix's simulator, and its fading through parallel branches is
// what lets plans of lower static flow win (docs/planner.md, "What wins").
//
// Copies of the KV cache (Replication) leave less of it for requests, and cross the links: each
// token that a node processes is sent on once more, its layers' KV, to a node that takes over from
// it (the last nodes send theirs to the first, or, where there is no such link, over their widest
// one). Links and NICs that carry activations and copies bound the rate; copies are made in the
// background and add no latency (Strati et al., "DejaVu", ICML'24).
//
// Thread-compatible: a ServingModel is immutable and shared; an estimate is made by a
// ServingEstimator, one a thread.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "plan/evaluator.hpp"
#include "plan/problem.hpp"
#include "spec/profile.hpp"

namespace towline::plan {

// What requests look like; the defaults are those of a chat service.
struct RequestShape {
  double input = 763;          // mean prompt tokens
  double output = 232;         // mean output tokens
  double input_spread = 1.34;  // mean of the squared prompt over the square of its mean
};
RequestShape shape_of(std::span<const std::pair<int32_t, int32_t>> lengths);

// Goals of latency, seconds; 0: none.
struct LatencyGoals {
  double ttft = 0;  // mean time to the first token
  double tpot = 0;  // mean time of a further token
};

struct ServingNode {
  std::vector<double> kv_tokens;       // [k-1] tokens of context that fit in each of k layers
  std::vector<double> decode_seconds;  // [sequences] a layer's decode batch; the last stands beyond
  double prompt_seconds = 0;           // a layer, a prompt of the mean length
};

struct ServingModel {
  int32_t layers = 0;
  RequestShape requests;
  std::vector<ServingNode> nodes;
  struct HopSeconds {
    double decode = 0, prompt = 0;  // on the link, latency included
  };
  std::vector<HopSeconds> nearest;  // [node] of its quickest inbound link between nodes
  std::vector<HopSeconds> between;  // [from * nodes + to] for up to kPairwiseNodes, else empty
  HopSeconds to_sink, from_source;  // of the mean link

  struct Replication {
    double copies = 0;                    // of every KV cache, on other nodes
    double kv_bytes = 0;                  // of a token and layer
    double activation_bytes = 0;          // of a token, on the same links
    std::vector<double> nic_in, nic_out;  // [node] bytes/s
    std::vector<double> links;  // [from * nodes + to] bytes/s; as `between`, else only NICs count
  } replication;

  static constexpr int32_t kPairwiseNodes = 512;
};

// Makes `model`, that of `problem`, keep `copies` further copies of every KV cache.
void replicate(ServingModel& model, const PlanProblem& problem, double copies, double kv_bytes);

// `profile` is the one that `problem` was made with.
ServingModel make_serving_model(const PlanProblem& problem, const spec::Profile& profile,
                                const RequestShape& requests);

struct ServingEstimate {
  double requests = 0;        // a second
  double decode_tps = 0;      // output tokens/s
  double tokens = 0;          // prompt and output tokens/s
  double decode_latency = 0;  // seconds a token
  double prompt_latency = 0;  // seconds to the first token
  double in_flight = 0;       // requests
};

class ServingEstimator {
 public:
  explicit ServingEstimator(const ServingModel& model) : model_(model) {}

  // Of the placement that `evaluator` computed the flow of last. With goals: the highest rate that
  // meets them, 0 if none does. `flow` is what the evaluator returned. T(k) is the rate of a
  // typical state, not a limit of the machine: the estimate may exceed the flow by `stretch`.
  ServingEstimate estimate(const FlowEvaluator& evaluator, std::span<const LayerRange> ranges,
                           double flow, const LatencyGoals& goals = {}, double stretch = 1);

 private:
  struct Latency {
    double decode = 0, prompt = 0;
  };
  Latency latency_at(double rate);
  double kv_requests(std::span<const LayerRange> ranges);
  void follow(std::span<const LayerRange> ranges, double flow);
  std::vector<std::pair<int32_t, double>> keepers_of_last(int32_t node) const;
  double replicated_requests();

  struct Vertex {       // a node that carries flow, or a hub where flows mix
    int32_t node = -1;  // -1: a hub
    int32_t layers = 0;
    double share = 0;  // of the requests
  };
  struct Hop {
    int32_t from, to;  // vertices; to < 0: the sink
    double share;      // of what leaves `from`
    ServingModel::HopSeconds seconds;
  };
  // Of two independent requests, the runs of vertices that they share.
  struct Run {
    double sum = 0;     // expectation of the run's prompt excess, seconds, if both are here
    double square = 0;  // of its square
  };

  const ServingModel& model_;
  std::vector<VertexFlow> flows_;
  std::vector<Vertex> vertices_;                    // in the order of the way
  std::vector<Hop> hops_;                           // by `from`
  std::vector<int32_t> index_;                      // [vertex of the network]
  std::vector<Run> runs_;                           // [vertex]
  std::vector<double> kv_;                          // [layer]
  std::vector<double> sent_, received_, on_links_;  // bytes a request: [node], [from * nodes + to]
};

}  // namespace towline::plan
