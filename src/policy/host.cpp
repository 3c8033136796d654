// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Host: requests. Lanes, steps and plans are in host_lanes.cpp.
#include "policy/host.hpp"

#include <algorithm>
#include <utility>

#include "base/check.hpp"

namespace towline::policy {
namespace {

HostAction about(HostAction::Kind kind, RequestId id, LaneId lane = LaneId(-1)) {
  HostAction action;
  action.kind = kind;
  action.lane = lane;
  action.id = id;
  return action;
}

HostAction ended(RequestId id, Outcome outcome, std::string_view reason) {
  HostAction action = about(HostAction::Kind::kEnded, id);
  action.outcome = outcome;
  action.reason = reason;
  return action;
}

}  // namespace

void Host::step(Instant now, const HostEvent& event, Out& out) {
  now_ = now;
  if (const auto* done = std::get_if<StepDone>(&event)) {
    step_done(*done, out);
  } else if (const auto* arrival = std::get_if<Arrive>(&event)) {
    arrive(*arrival, out);
  } else if (const auto* cancelled = std::get_if<Cancel>(&event)) {
    cancel(cancelled->id, out);
  } else if (const auto* plan = std::get_if<HostPlan>(&event)) {
    replan(*plan, out);
  } else if (const auto* broken = std::get_if<BreakLanes>(&event)) {
    on_break(*broken, out);
  } else if (const auto* arrived = std::get_if<KvArrived>(&event)) {
    kv_arrived(*arrived, out);
  }
  give_up_stranded(out);
  for (const LaneId id : std::exchange(left_, {})) {
    if (lanes_.contains(id)) close_if_empty(id, out);
  }
}

Instant Host::next_deadline() const {
  return stranded_.empty() || plan_.provisional ? kNever : stranded_.begin()->first;
}

// --- coming and going ---------------------------------------------------------------------------

void Host::arrive(const Arrive& event, Out& out) {
  const auto [at, is_new] = requests_.try_emplace(event.id);
  CHECK(is_new, event.id);
  Request& r = at->second;
  r.spec = event;
  if (!event.prompt.empty()) r.spec.prompt_length = static_cast<int32_t>(event.prompt.size());
  if (!admission_.arrive(event.id, event.priority)) {
    requests_.erase(at);
    out.push_back(ended(event.id, Outcome::kRejected, kQueueFull));
    return;
  }
  if (open()) {
    admit(out);
  } else if (!plan_.provisional) {
    strand(event.id, r);
  }
}

void Host::cancel(RequestId id, Out& out) {
  const auto at = requests_.find(id);
  if (at == requests_.end()) return;
  if (!at->second.in_batcher) {
    if (at->second.moving) {
      stop_moving(at->second);
      admission_.end(id);
    } else {
      admission_.withdraw(id);
    }
    end(at, Outcome::kCancelled, {}, out);
    return admit(out);
  }
  const LaneId lane = at->second.lane;
  const Pipeline freed = lane.value >= 0 ? lanes_.at(lane).pipeline : Pipeline();
  batcher_.cancel(SeqId(id.value));  // now, or when its last step is done
  collect_ended(out);
  admit(out);
  pump_hungry(freed, out);
}

// Removes a request that has no place any more.
void Host::end(Requests::iterator at, Outcome outcome, std::string_view reason, Out& out) {
  const RequestId id = at->first;
  unstrand(id, at->second);
  if (at->second.in_batcher) {
    batcher_.cancel(SeqId(id.value));
    (void)batcher_.take_ended();
  }
  requests_.erase(at);
  out.push_back(ended(id, outcome, reason));
}

void Host::collect_ended(Out& out) {
  for (const Ended& one : batcher_.take_ended()) {
    const RequestId id(one.seq.value);
    const auto at = requests_.find(id);
    CHECK(at != requests_.end(), id);
    if (after_prompt(id, at->second, one.reason, out)) continue;
    leave_decode_lane(at->second);
    if (at->second.lane.value >= 0) {
      left_.push_back(at->second.lane);
      leave_lane(at->second);
      admission_.end(id);
    } else {
      admission_.withdraw(id);
      unstrand(id, at->second);
    }
    const std::string_view failing = at->second.failing;
    requests_.erase(at);
    if (!failing.empty()) {
      out.push_back(ended(id, Outcome::kFailed, failing));
    } else if (one.reason == EndReason::kFailed) {
      out.push_back(ended(id, Outcome::kFailed, kNoToken));
    } else {
      const bool cancelled = one.reason == EndReason::kCancelled;
      out.push_back(ended(id, cancelled ? Outcome::kCancelled : Outcome::kFinished, {}));
    }
  }
}

// --- places -------------------------------------------------------------------------------------

RouteChooser::Verdict Host::choose_route(const Request& r, int64_t tokens) {
  RouteChooser::Ask ask;
  ask.input_tokens = tokens;
  // The last output token is never evaluated, so it needs no place.
  ask.most_tokens = int64_t{r.spec.prompt_length} + std::max(r.spec.max_tokens - 1, 0);
  ask.queue = placed_at_;
  if (!split()) return choose_with(*routes_.chooser, ask, routed_);
  if (r.decoding) return choose_with(*decode_routes_.chooser, ask, routed_);
  const auto decode = choose_with(*decode_routes_.chooser, ask, decode_way_);
  if (decode != RouteChooser::Verdict::kRouted) return decode;
  ask.most_tokens = tokens;  // nodes that process prompts hold no outputs
  const auto prompt = choose_with(*routes_.chooser, ask, routed_);
  if (prompt != RouteChooser::Verdict::kRouted) ledger_.release(decode_way_, tokens);
  return prompt;
}

RouteChooser::Verdict Host::choose_with(RouteChooser& chooser, RouteChooser::Ask ask,
                                        Pipeline& way) {
  const auto verdict = chooser.choose(ask, ledger_, way);
  if (verdict != RouteChooser::Verdict::kWait || admission_.placed() > 0) return verdict;
  // Only an estimate is against it, and there is nobody to wait for.
  ask.alone = true;
  return chooser.choose(ask, ledger_, way);
}

void Host::admit(Out& out) {
  using Verdict = RouteChooser::Verdict;
  const AdmissionLimits& limits = options_.admission;
  while (open()) {
    const std::optional<RequestId> id = admission_.next();
    if (!id) return;
    if (limits.offline && admission_.placed() > 0 &&
        ledger_.expected_bottleneck() > limits.feed_high_water) {
      return;
    }
    const auto at = requests_.find(*id);
    Request& r = at->second;
    const int64_t tokens =
        r.in_batcher ? batcher_.length(SeqId(id->value)) : r.spec.prompt_length;
    const Verdict verdict = choose_route(r, tokens);
    const Outcome refused = r.in_batcher ? Outcome::kFailed : Outcome::kRejected;
    if (verdict == Verdict::kRouted) {
      r.booked = tokens;
      if (place(*id, r, out)) continue;
      ledger_.release(routed_, tokens);
      if (split() && !r.decoding) ledger_.release(decode_way_, tokens);
      admission_.withdraw(*id);
      end(at, refused, kTooLarge, out);
    } else if (verdict != Verdict::kWait) {
      admission_.withdraw(*id);
      end(at, refused, verdict == Verdict::kTooLarge ? kTooLarge : kNoWay, out);
    } else if (!admission_.refuse(*id)) {
      end(at, refused, kTooLarge, out);
    }
  }
}

bool Host::place(RequestId id, Request& r, Out& out) {
  Lane& lane = lane_for(routed_, split() && r.decoding ? decode_routes_ : routes_);
  const bool fits = r.in_batcher ? batcher_.move(SeqId(id.value), lane.id).has_value()
                                 : add_sequence(id, r, lane.id);
  if (!fits) {
    close_if_empty(lane.id, out);
    return false;
  }
  r.in_batcher = true;
  r.lane = lane.id;
  if (split() && !r.decoding) await_on_decode_lane(r);
  ++r.routes;
  for (const Hop& hop : lane.pipeline) {
    if (hop.node != kSinkNode) ++placed_at_[static_cast<size_t>(hop.node)];
  }
  admission_.place(id);
  out.push_back(about(HostAction::Kind::kPlaced, id, lane.id));
  pump(lane.id, out);
  return true;
}

void Host::leave_lane(Request& r) {
  if (r.lane.value < 0) return;
  const Lane& lane = lanes_.at(r.lane);
  ledger_.release(lane.routed, r.booked);
  for (const Hop& hop : lane.pipeline) {
    if (hop.node != kSinkNode) --placed_at_[static_cast<size_t>(hop.node)];
  }
  r.lane = LaneId(-1);
}

// --- waiting for a way --------------------------------------------------------------------------

void Host::strand(RequestId id, Request& r) {
  if (r.gives_up.ns >= 0 || options_.wait_for_way.value > kForever.value / 2) return;
  r.gives_up = now_ + options_.wait_for_way;
  stranded_.emplace(r.gives_up, id);
}

void Host::unstrand(RequestId id, Request& r) {
  if (r.gives_up.ns < 0) return;
  stranded_.erase({r.gives_up, id});
  r.gives_up = Instant{-1};
}

void Host::give_up_stranded(Out& out) {
  if (plan_.provisional) return;
  while (!stranded_.empty() && stranded_.begin()->first <= now_) {
    const RequestId id = stranded_.begin()->second;
    admission_.withdraw(id);
    end(requests_.find(id), Outcome::kFailed, kStranded, out);
  }
}

void Host::fail_waiting(std::string_view reason, Out& out) {
  admission_.changed();
  while (const std::optional<RequestId> id = admission_.next()) {
    admission_.withdraw(*id);
    end(requests_.find(*id), Outcome::kFailed, reason, out);
  }
}

// --- looking ------------------------------------------------------------------------------------

double Host::real_pressure() const {
  double most = 0;
  for (int32_t i = 0; i < batcher_.pools(); ++i) {
    const BlockLedger& pool = batcher_.ledger(i);
    if (pool.total() == 0) continue;
    most = std::max(most, static_cast<double>(pool.held()) / pool.total());
  }
  return most;
}

void Host::check_invariants() const {
  batcher_.check_invariants();
  int64_t placed = 0;
  std::map<LaneId, int32_t> flying;
  for (const auto& [id, r] : requests_) {
    placed += r.lane.value >= 0;
    CHECK(r.lane.value < 0 || lanes_.contains(r.lane), id);
  }
  CHECK(placed == admission_.placed(), placed, admission_.placed());
  CHECK(static_cast<int64_t>(requests_.size()) == placed + admission_.waiting(), placed);
  for (const Flight& flight : flights_) {
    if (flight.lane.value >= 0) ++flying[flight.lane];
  }
  int32_t total = 0;
  lanes_.for_each([&](LaneId id, const Lane& lane) {
    CHECK(lane.in_flight == flying[id], id, lane.in_flight, flying[id]);
    CHECK(lane.in_flight <= lane.depth, id, lane.in_flight);
    CHECK(lane.in_flight > 0 || batcher_.sequences_of(id) > 0 || lane.awaited > 0, id);
    total += lane.in_flight;
  });
  CHECK(total == in_flight_, total, in_flight_);
  int64_t moving = 0;
  std::map<LaneId, int32_t> awaited;
  for (const auto& [id, r] : requests_) {
    moving += r.moving;
    if (r.moving) ++awaited[r.lane];
    if (r.decode_lane.value >= 0) ++awaited[r.decode_lane];
  }
  lanes_.for_each([&](LaneId id, const Lane& lane) {
    CHECK(lane.awaited == awaited[id], id, lane.awaited);
  });
  CHECK(placed == 0 || in_flight_ + moving > 0, placed);
  std::vector<int64_t> placed_at(placed_at_.size(), 0);
  for (const auto& [id, r] : requests_) {
    CHECK((r.gives_up.ns >= 0) == stranded_.contains({r.gives_up, id}), id);
    CHECK(r.gives_up.ns < 0 || (r.lane.value < 0 && !open()), id);
    if (r.lane.value < 0) continue;
    for (const Hop& hop : lanes_.at(r.lane).pipeline) {
      if (hop.node != kSinkNode) ++placed_at[static_cast<size_t>(hop.node)];
    }
  }
  CHECK(placed_at == placed_at_, placed);
  std::vector<int32_t> outstanding(outstanding_.size(), 0);
  lanes_.for_each([&](LaneId, const Lane& lane) {
    for (const Hop& hop : lane.pipeline) {
      if (hop.node != kSinkNode) outstanding[static_cast<size_t>(hop.node)] += lane.in_flight;
    }
  });
  CHECK(outstanding == outstanding_, total);
  for (int32_t i = 0; i < ledger_.nodes(); ++i) {
    CHECK(placed > 0 || ledger_.expected_used(i) == 0, i);
  }
}

}  // namespace towline::policy
