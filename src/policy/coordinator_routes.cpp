// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Coordinator: which way each request takes, and what happens when the way breaks.
#include <algorithm>
#include <utility>

#include "base/check.hpp"
#include "base/fmt.hpp"
#include "base/rng.hpp"
#include "policy/coordinator.hpp"

namespace towline::policy {
namespace {

constexpr size_t kTracesKept = 512;  // of requests that ended

// Which layers of a node a lane uses is part of what its KV blocks hold.
uint64_t layers_salt(LayerRange used, LayerRange held) {
  if (used == held) return 0;
  return mix64(static_cast<uint64_t>(used.begin) << 32 | static_cast<uint32_t>(used.end)) | 1;
}

}  // namespace

void Coordinator::route_waiting() {
  if (awaiting_plan_) return;
  if (!chooser_) {
    const std::set<std::pair<int32_t, SeqId>> waiting = queue_;
    for (const auto& [priority, seq] : waiting) {
      Request& r = requests_.at(seq);
      if (r.stranded.ns < 0) r.stranded = now_;
      if (now_ < r.stranded + options_.wait_for_nodes) continue;
      const std::vector<RequestTrace::Attempt>& attempts = traces_.at(r.spec.id).attempts;
      fail(r, Code::kUnavailable,
           attempts.empty() ? "no set of nodes that are here holds all layers of the model"
                            : format("no way is left: {}", attempts.back().outcome));
    }
    report_ends();
    return;
  }
  if (!std::exchange(retry_routes_, false)) return;
  while (!queue_.empty()) {
    Request& r = requests_.at(queue_.begin()->second);
    r.stranded = Instant{-1};
    if (!route(r)) break;  // those behind it wait too: nobody starves
  }
  report_ends();
}

// False if it has to wait; true if it has a way or has failed.
bool Coordinator::route(Request& r) {
  std::vector<int64_t> queues;
  int64_t routed = 0;
  for (const Node& node : nodes_) {
    queues.push_back(node.requests);
    routed += node.requests;
  }
  const int64_t tokens = r.spec.spec.prompt_length + r.outputs;
  Pipeline pipeline;
  auto verdict = chooser_->choose(tokens, queues, pipeline);
  if (verdict == RouteChooser::Verdict::kWait && routed == 0) {
    verdict = chooser_->choose_alone(tokens, queues, pipeline);
  }
  if (verdict == RouteChooser::Verdict::kWait) return false;
  queue_.erase({r.spec.priority, r.seq});
  if (verdict == RouteChooser::Verdict::kNever) {
    fail(r, Code::kUnavailable, "no way through the nodes that are here takes this request");
    return true;
  }
  r.booked = std::move(pipeline);
  r.booked_tokens = tokens;
  r.plan = plan_;
  for (const Hop& hop : r.booked) {
    if (hop.node >= 0) ++nodes_[static_cast<size_t>(hop.node)].requests;
  }
  r.lane = lane_for(r.booked);
  ++r.routes;
  Result<void> taken;
  if (r.known_to_batcher) {
    taken = batcher_.move(r.seq, r.lane);
  } else {
    SequenceSpec spec;
    spec.id = r.seq;
    spec.prompt = std::move(r.spec.prompt);  // from here on the batcher keeps its tokens
    spec.max_tokens = r.spec.max_tokens;
    spec.priority = r.spec.priority;
    spec.every_row = r.spec.spec.prompt_logprobs || r.spec.spec.embed;
    spec.cache_salt = static_cast<uint64_t>(r.spec.spec.adapter + 1);
    spec.lane = r.lane;
    taken = batcher_.add(std::move(spec));
    r.known_to_batcher = taken.has_value();
  }
  RequestTrace& trace = traces_.at(r.spec.id);
  trace.state = "running";
  RequestTrace::Attempt attempt;
  for (const LaneHopAt& hop : lanes_.at(r.lane).way) {
    attempt.hops.emplace_back(membership_.member(hop.node).name, hop.layers);
  }
  attempt.routed = now_;
  attempt.from_token = tokens;
  trace.attempts.push_back(std::move(attempt));
  if (!taken) fail(r, taken.error().code(), taken.error().message());
  return true;
}

Coordinator::Way Coordinator::way_of(const Pipeline& pipeline) const {
  Way way;
  for (const Hop& hop : pipeline) {
    if (hop.node >= 0) way.push_back({NodeId(hop.node), hop.layers});
  }
  return way;
}

LaneId Coordinator::lane_for(const Pipeline& pipeline) {
  Way way = way_of(pipeline);
  if (const auto at = lane_of_way_.find(way); at != lane_of_way_.end()) {
    Lane& lane = lanes_.at(at->second);
    lane.pipeline = pipeline;
    lane.plan = plan_;
    return at->second;
  }
  std::vector<LanePool> pools;
  for (const LaneHopAt& hop : way) {
    const Node& node = nodes_[static_cast<size_t>(hop.node.value)];
    pools.push_back({node.pool, layers_salt(hop.layers, node.layers)});
  }
  const LaneId id = batcher_.open_lane(std::move(pools));
  lane_of_way_[way] = id;
  Lane& lane = lanes_[id];
  lane.way = std::move(way);
  lane.pipeline = pipeline;
  lane.plan = plan_;
  return id;
}

// A step is not in flight any more.
void Coordinator::land(Lane& lane, int64_t step) {
  lane.flights.erase(step);
  for (const LaneHopAt& hop : lane.way) {
    Node& node = nodes_[static_cast<size_t>(hop.node.value)];
    --node.outstanding;
    if (membership_.is_alive(hop.node)) {
      membership_.set_busy(now_, hop.node, node.outstanding > 0);
    }
  }
}

void Coordinator::lose_lane(LaneId id, const std::string& reason) {
  Lane& lane = lanes_.at(id);
  while (!lane.flights.empty()) {
    const auto flight = lane.flights.begin();
    batcher_.abort(flight->second.step);
    land(lane, flight->first);
  }
  report_ends();  // cancelled ones that were in flight
  for (const SeqId seq : batcher_.close_lane(id)) {
    Request& r = requests_.at(seq);
    free_slot(r);
    end_attempt(r, reason);
    give_back_route(r);
    r.lane = LaneId(-1);
    ++reroutes_;
    if (r.routes >= options_.most_routes) {
      fail(r, Code::kUnavailable, format("given up after {} ways; the last one: {}", r.routes,
                                         reason));
    } else {
      queue_.emplace(r.spec.priority, seq);
    }
  }
  for (const LaneHopAt& hop : lane.way) {
    Node& node = nodes_[static_cast<size_t>(hop.node.value)];
    if (lane.announced && node.sender) node.draft.closed.push_back(id);
  }
  lane_of_way_.erase(lane.way);
  lanes_.erase(id);
  retry_routes_ = true;
}

void Coordinator::give_back_route(Request& r) {
  for (const Hop& hop : r.booked) {
    if (hop.node >= 0) --nodes_[static_cast<size_t>(hop.node)].requests;
  }
  if (chooser_ && r.plan == plan_ && !r.booked.empty()) {
    chooser_->finish(r.booked, r.booked_tokens);
  }
  r.booked.clear();
  retry_routes_ = true;
}

void Coordinator::end_attempt(const Request& r, const std::string& outcome) {
  RequestTrace& trace = traces_.at(r.spec.id);
  if (trace.attempts.empty() || trace.attempts.back().ended.ns != 0) return;
  trace.attempts.back().ended = now_;
  trace.attempts.back().outcome = outcome;
}

void Coordinator::fail(Request& r, Code code, std::string reason) {
  if (r.failure) return;
  r.failure = std::move(reason);
  r.failure_code = code;
  if (r.known_to_batcher) {
    batcher_.cancel(r.seq);
  } else {
    doomed_.emplace_back(r.seq, EndReason::kFailed);
  }
}

void Coordinator::report_ends() {
  for (const Ended& ended : batcher_.take_ended()) {
    const auto at = requests_.find(ended.seq);
    CHECK(at != requests_.end(), ended.seq);
    report_end(at->second, ended.reason);
  }
  for (const auto& [seq, reason] : std::exchange(doomed_, {})) {
    if (const auto at = requests_.find(seq); at != requests_.end()) report_end(at->second, reason);
  }
}

void Coordinator::report_end(Request& r, EndReason reason) {
  RequestUpdate& update = update_of(r);
  update.finish = r.failure                          ? CoordinatorFinish::kError
                  : reason == EndReason::kStop      ? CoordinatorFinish::kStop
                  : reason == EndReason::kLength    ? CoordinatorFinish::kLength
                  : reason == EndReason::kCancelled ? CoordinatorFinish::kCancelled
                                                    : CoordinatorFinish::kError;
  if (update.finish == CoordinatorFinish::kError) {
    update.code = r.failure_code;
    update.error = r.failure.value_or("no token could be drawn");
  }
  free_slot(r);
  end_attempt(r, r.failure ? *r.failure : reason == EndReason::kCancelled ? "cancelled" : "finished");
  give_back_route(r);
  RequestTrace& trace = traces_.at(r.spec.id);
  trace.finished = now_;
  trace.state = "finished";
  trace.output_tokens = r.outputs;
  ended_traces_.push_back(r.spec.id);
  if (ended_traces_.size() > kTracesKept) {
    const auto oldest = traces_.find(ended_traces_.front());
    if (oldest != traces_.end() && oldest->second.state == "finished") traces_.erase(oldest);
    ended_traces_.pop_front();
  }
  queue_.erase({r.spec.priority, r.seq});
  by_id_.erase(r.spec.id);
  requests_.erase(r.seq);
}

}  // namespace towline::policy
