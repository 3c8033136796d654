// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/host.hpp"

#include <algorithm>
#include <utility>

#include "base/check.hpp"
#include "base/fmt.hpp"

namespace towline::policy {
namespace {

constexpr std::string_view kTooLarge = "larger than the KV cache";
constexpr std::string_view kNoWay = "no way through the cluster";
constexpr std::string_view kNoToken = "no token could be drawn";

HostAction about(HostAction::Kind kind, RequestId id) {
  HostAction action;
  action.kind = kind;
  action.id = id;
  return action;
}

HostAction about_step(HostAction::Kind kind, int32_t ticket) {
  HostAction action;
  action.kind = kind;
  action.ticket = ticket;
  return action;
}

HostAction ended(RequestId id, Outcome outcome, std::string_view reason) {
  HostAction action = about(HostAction::Kind::kEnded, id);
  action.outcome = outcome;
  action.reason = reason;
  return action;
}

Result<void> check_nodes(const HostOptions& options, const HostPlan& plan) {
  for (const HostNode& node : plan.nodes) {
    if (node.layers.begin >= 0 && node.layers.end <= options.total_layers &&
        node.kv_capacity >= 0) {
      continue;
    }
    return errorf(Code::kInvalidArgument, "a plan gives a node layers {} to {} of {}",
                  node.layers.begin, node.layers.end - 1, options.total_layers);
  }
  return {};
}

KvLedger make_ledger(const HostOptions& options, const HostPlan& plan) {
  std::vector<KvLedger::Node> accounts;
  for (const HostNode& node : plan.nodes) accounts.push_back({node.layers, node.kv_capacity});
  return KvLedger(std::move(accounts), options.total_layers, options.estimator);
}

// Whether what a node held is still there, and its pool what it was.
bool same_memory(const HostNode& a, const HostNode& b) {
  return a.layers == b.layers && a.kv_capacity == b.kv_capacity && a.incarnation == b.incarnation;
}

int32_t blocks_of(const HostNode& node) {
  if (node.layers.empty()) return 0;
  const int64_t tokens = node.kv_capacity / node.layers.size();
  return static_cast<int32_t>(
      std::clamp<int64_t>(tokens / kBlockTokens, 0, std::numeric_limits<int32_t>::max()));
}

}  // namespace

Host::Host(HostOptions options, const HostPlan& plan)
    : options_(options), admission_(options.admission), ledger_(make_ledger(options, plan)),
      batcher_(options.batching), hungry_(plan.nodes.size()) {
  for (const HostNode& node : plan.nodes) batcher_.add_pool(blocks_of(node));
}

Result<Host> Host::make(HostOptions options, HostPlan plan) {
  TRY(check_nodes(options, plan));
  Host host(options, plan);
  TRY(host.adopt(plan));
  if (!host.open()) return Error(Code::kInvalidArgument, "no way leads through the cluster");
  return host;
}

Result<std::optional<FlowRouter>> Host::router_of(const HostOptions& options,
                                                  const HostPlan& plan) {
  std::vector<LayerRange> layers;
  std::vector<RouteLink> links;
  std::vector<double> flow;
  std::vector<int32_t> longest;
  double out_of_source = 0, into_sink = 0;
  for (const HostNode& node : plan.nodes) {
    layers.push_back(node.layers);
    longest.push_back(node.longest_prompt);
  }
  for (const HostLink& link : plan.links) {
    links.push_back({link.from, link.to});
    flow.push_back(link.flow);
    if (link.from == kSourceNode) out_of_source += link.flow;
    if (link.to == kSinkNode) into_sink += link.flow;
  }
  if (!(out_of_source > 0 && into_sink > 0)) return std::optional<FlowRouter>();
  ASSIGN_OR_RETURN(RouteMap map,
                   RouteMap::make(options.total_layers, std::move(layers), std::move(links)));
  return std::optional(
      FlowRouter(std::move(map), flow, std::move(longest), options.minimum_share));
}

// The routes of a plan; those who hold a place under the old one are not touched.
Result<void> Host::adopt(const HostPlan& plan) {
  ASSIGN_OR_RETURN(router_, router_of(options_, plan));
  plan_ = plan;
  ++epoch_;
  return {};
}

Result<void> Host::check_plan(const HostPlan& plan) const {
  if (plan.nodes.size() != plan_.nodes.size()) {
    return errorf(Code::kInvalidArgument, "a plan of {} nodes for a cluster of {}",
                  plan.nodes.size(), plan_.nodes.size());
  }
  TRY(check_nodes(options_, plan));
  const auto router = router_of(options_, plan);
  return router ? Result<void>() : Result<void>(router.error());
}

void Host::step(Instant, const HostEvent& event, Out& out) {
  if (const auto* done = std::get_if<StepDone>(&event)) {
    step_done(*done, out);
  } else if (const auto* arrival = std::get_if<Arrive>(&event)) {
    arrive(*arrival, out);
  } else if (const auto* cancelled = std::get_if<Cancel>(&event)) {
    cancel(cancelled->id, out);
  } else {
    replan(std::get<HostPlan>(event), out);
  }
  for (const LaneId id : std::exchange(left_, {})) {
    if (lanes_.contains(id)) close_if_empty(id);
  }
}

// --- requests -----------------------------------------------------------------------------------

void Host::arrive(const Arrive& event, Out& out) {
  const auto [at, is_new] = requests_.try_emplace(event.id);
  CHECK(is_new, event.id);
  at->second.spec = event;
  if (!event.prompt.empty()) {
    at->second.spec.prompt_length = static_cast<int32_t>(event.prompt.size());
  }
  if (!admission_.arrive(event.id, event.priority)) {
    requests_.erase(at);
    out.push_back(ended(event.id, Outcome::kRejected, kQueueFull));
    return;
  }
  admit(out);
}

void Host::cancel(RequestId id, Out& out) {
  const auto at = requests_.find(id);
  if (at == requests_.end()) return;
  if (!at->second.in_batcher) {
    admission_.withdraw(id);
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

void Host::admit(Out& out) {
  while (router_) {
    const std::optional<RequestId> id = admission_.next();
    if (!id) return;
    const auto at = requests_.find(*id);
    Request& r = at->second;
    const int64_t tokens =
        r.in_batcher ? batcher_.length(SeqId(id->value)) : r.spec.prompt_length;
    if (router_->route(tokens, ledger_, routed_)) {
      r.booked = tokens;
      if (place(*id, r, out)) continue;
      ledger_.release(routed_, tokens);  // larger than a node's memory, even alone
      admission_.withdraw(*id);
      end(at, r.in_batcher ? Outcome::kFailed : Outcome::kRejected, kTooLarge, out);
    } else if (!admission_.refuse(*id)) {
      const std::string_view why = router_->last_refusal().by_kv > 0 ? kTooLarge : kNoWay;
      end(at, r.in_batcher ? Outcome::kFailed : Outcome::kRejected, why, out);
    }
  }
}

bool Host::place(RequestId id, Request& r, Out& out) {
  Lane& lane = lane_for(routed_);
  const SeqId seq(id.value);
  bool fits;
  if (r.in_batcher) {
    fits = batcher_.move(seq, lane.id).has_value();
  } else {
    SequenceSpec spec;
    spec.id = seq;
    spec.prompt = std::move(r.spec.prompt);
    spec.prompt_length = r.spec.prompt_length;
    spec.max_tokens = r.spec.max_tokens;
    spec.priority = r.spec.priority;
    spec.cache_salt = r.spec.cache_salt;
    spec.lane = lane.id;
    fits = batcher_.add(std::move(spec)).has_value();
  }
  if (!fits) {
    close_if_empty(lane.id);
    return false;
  }
  r.in_batcher = true;
  r.lane = lane.id;
  admission_.place(id);
  out.push_back(about(HostAction::Kind::kPlaced, id));
  pump(lane.id, out);
  return true;
}

// Removes a request that has no place any more.
void Host::end(std::map<RequestId, Request>::iterator at, Outcome outcome, std::string_view reason,
               Out& out) {
  const RequestId id = at->first;
  if (at->second.in_batcher) {
    batcher_.cancel(SeqId(id.value));
    (void)batcher_.take_ended();
  }
  requests_.erase(at);
  out.push_back(ended(id, outcome, reason));
}

void Host::fail_waiting(std::string_view reason, Out& out) {
  admission_.changed();
  while (const std::optional<RequestId> id = admission_.next()) {
    admission_.withdraw(*id);
    end(requests_.find(*id), Outcome::kFailed, reason, out);
  }
}

// --- lanes --------------------------------------------------------------------------------------

Host::Lane& Host::lane_for(const Pipeline& routed) {
  std::vector<int32_t> links;
  for (const Hop& hop : routed) links.push_back(plan_.links[hop.link].id);
  if (const auto known = lane_of_links_.find(links); known != lane_of_links_.end()) {
    Lane& lane = lanes_.at(known->second);
    lane.routed = routed;
    lane.epoch = epoch_;
    return lane;
  }
  Lane lane;
  std::vector<LanePool> pools;
  for (const Hop& hop : routed) {
    lane.pipeline.push_back({plan_.links[hop.link].id, hop.node, hop.layers});
    if (hop.node == kSinkNode) continue;
    // Partial inference: what such a lane leaves in a block serves only lanes like it.
    const bool whole = hop.layers == plan_.nodes[hop.node].layers;
    pools.push_back({hop.node, whole ? 0 : static_cast<uint64_t>(hop.layers.begin) + 1});
  }
  lane.routed = routed;
  lane.epoch = epoch_;
  lane.depth = options_.depth > 0 ? options_.depth : static_cast<int32_t>(pools.size());
  lane.id = batcher_.open_lane(std::move(pools));
  lane_of_links_.emplace(std::move(links), lane.id);
  return lanes_.emplace(lane.id, std::move(lane)).first->second;
}

void Host::close_if_empty(LaneId id) {
  Lane& lane = lanes_.at(id);
  if (lane.in_flight > 0 || batcher_.sequences_of(id) > 0) return;
  std::vector<int32_t> links;
  for (const Hop& hop : lane.pipeline) {
    links.push_back(hop.link);
    if (hop.node != kSinkNode) hungry_[hop.node].erase(id);
  }
  batcher_.close_lane(id);
  lane_of_links_.erase(links);
  lanes_.erase(id);
}

// Sends what the lane can send.
void Host::pump(LaneId id, Out& out) {
  Lane& lane = lanes_.at(id);
  bool starved = false;
  while (lane.in_flight < lane.depth && !starved) {
    if (batcher_.ready(id) + batcher_.waiting(id) == 0) break;
    const int32_t share = (batcher_.sequences_of(id) + lane.depth - 1) / lane.depth;
    Step step = batcher_.next_step(id, share);
    for (const SeqId seq : step.dropped) {
      // Those that ended are not known any more; the others lost their blocks to somebody.
      if (!requests_.contains(RequestId(seq.value))) continue;
      out.push_back(about(HostAction::Kind::kPreempted, RequestId(seq.value)));
    }
    dropped_.insert(dropped_.end(), step.dropped.begin(), step.dropped.end());
    if (step.empty()) {
      starved = true;
      break;
    }
    step.dropped = std::exchange(dropped_, {});
    int32_t ticket;
    if (free_tickets_.empty()) {
      ticket = static_cast<int32_t>(flights_.size());
      flights_.emplace_back();
    } else {
      ticket = free_tickets_.back();
      free_tickets_.pop_back();
    }
    flights_[ticket] = {std::move(step), id};
    ++lane.in_flight;
    ++in_flight_;
    out.push_back(about_step(HostAction::Kind::kLaunch, ticket));
  }
  for (const Hop& hop : lane.pipeline) {
    if (hop.node == kSinkNode) break;
    starved ? void(hungry_[hop.node].insert(id)) : void(hungry_[hop.node].erase(id));
  }
}

// Room was made in the pools along `freed`.
void Host::pump_hungry(const Pipeline& freed, Out& out) {
  for (const Hop& hop : freed) {
    if (hop.node == kSinkNode) break;
    const std::vector<LaneId> lanes(hungry_[hop.node].begin(), hungry_[hop.node].end());
    for (const LaneId id : lanes) {
      if (lanes_.contains(id)) pump(id, out);
    }
  }
  if (in_flight_ > 0) return;
  for (const std::set<LaneId>& at : std::vector(hungry_)) {  // lest everybody wait for nobody
    for (const LaneId id : at) {
      if (lanes_.contains(id)) pump(id, out);
    }
  }
}

void Host::step_done(const StepDone& event, Out& out) {
  CHECK(event.ticket >= 0 && event.ticket < static_cast<int32_t>(flights_.size()) &&
            flights_[event.ticket].lane.value >= 0,
        event.ticket);
  const LaneId id = flights_[event.ticket].lane;
  const Step step = std::move(flights_[event.ticket].step);
  flights_[event.ticket].lane = LaneId(-1);
  free_tickets_.push_back(event.ticket);
  std::span<const Sampled> sampled = event.sampled;
  if (sampled.empty()) {
    sampled_.clear();
    for (const StepEntry& entry : step.entries) {
      if (entry.samples) sampled_.push_back({.seq = entry.seq});
    }
    sampled = sampled_;
  }
  Lane& lane = lanes_.at(id);
  --lane.in_flight;
  --in_flight_;
  if (router_ && lane.epoch == epoch_) {
    const auto decodes = std::ranges::count_if(
        step.entries, [](const StepEntry& e) { return e.samples && e.to - e.from == 1; });
    if (decodes > 0) router_->charge_decode(lane.routed, static_cast<double>(decodes));
  }
  const size_t before = out.size();
  batcher_.complete(step, sampled);
  collect_ended(out);
  const bool freed = out.size() > before;
  if (freed) admit(out);
  pump(id, out);
  if (freed) pump_hungry(Pipeline(lanes_.at(id).pipeline), out);
}

void Host::leave_lane(Request& r) {
  if (r.lane.value < 0) return;
  ledger_.release(lanes_.at(r.lane).routed, r.booked);
  r.lane = LaneId(-1);
}

void Host::collect_ended(Out& out) {
  for (const Ended& one : batcher_.take_ended()) {
    const RequestId id(one.seq.value);
    const auto at = requests_.find(id);
    CHECK(at != requests_.end(), id);
    if (at->second.lane.value >= 0) {
      left_.push_back(at->second.lane);
      leave_lane(at->second);
      admission_.end(id);
    } else {
      admission_.withdraw(id);
    }
    requests_.erase(at);
    const Outcome outcome = one.reason == EndReason::kCancelled ? Outcome::kCancelled
                            : one.reason == EndReason::kFailed  ? Outcome::kFailed
                                                                  : Outcome::kFinished;
    out.push_back(ended(id, outcome, outcome == Outcome::kFailed ? kNoToken : ""));
  }
}

// --- plans --------------------------------------------------------------------------------------

bool Host::survives(const Lane& lane, const HostPlan& plan) const {
  return std::ranges::all_of(lane.pipeline, [&](const Hop& hop) {
    const auto link = std::ranges::lower_bound(plan.links, hop.link, {}, &HostLink::id);
    if (link == plan.links.end() || link->id != hop.link) return false;
    return hop.node == kSinkNode || same_memory(plan.nodes[hop.node], plan_.nodes[hop.node]);
  });
}

// The steps on their way through broken lanes, oldest first, lest a later chunk of a sequence be
// aborted before an earlier one.
void Host::abandon(const std::set<LaneId>& broken, Out& out) {
  std::vector<std::pair<StepNo, int32_t>> lost;
  for (size_t i = 0; i < flights_.size(); ++i) {
    if (flights_[i].lane.value < 0 || !broken.contains(flights_[i].lane)) continue;
    lost.emplace_back(flights_[i].step.number, static_cast<int32_t>(i));
  }
  std::ranges::sort(lost);
  for (const auto& [number, ticket] : lost) {
    Flight& flight = flights_[ticket];
    batcher_.abort(flight.step);
    --lanes_.at(flight.lane).in_flight;
    --in_flight_;
    flight.lane = LaneId(-1);
    free_tickets_.push_back(ticket);
    out.push_back(about_step(HostAction::Kind::kAbandon, ticket));
  }
  collect_ended(out);  // those that were cancelled while in flight
}

void Host::break_lane(LaneId id, Out& out) {
  for (const SeqId seq : batcher_.close_lane(id)) {
    const RequestId request(seq.value);
    leave_lane(requests_.at(request));
    admission_.displace(request);
    out.push_back(about(HostAction::Kind::kDisplaced, request));
  }
  std::vector<int32_t> links;
  for (const Hop& hop : lanes_.at(id).pipeline) {
    links.push_back(hop.link);
    if (hop.node != kSinkNode) hungry_[hop.node].erase(id);
  }
  lane_of_links_.erase(links);
  lanes_.erase(id);
}

void Host::replan(const HostPlan& plan, Out& out) {
  CHECK(plan.nodes.size() == plan_.nodes.size(), plan.nodes.size(), plan_.nodes.size());
  std::set<LaneId> broken;
  for (const auto& [id, lane] : lanes_) {
    if (!survives(lane, plan)) broken.insert(id);
  }
  abandon(broken, out);
  for (const LaneId id : broken) break_lane(id, out);
  for (size_t i = 0; i < plan.nodes.size(); ++i) {
    if (!same_memory(plan.nodes[i], plan_.nodes[i])) {
      batcher_.replace_pool(static_cast<int32_t>(i), blocks_of(plan.nodes[i]));
    }
  }
  const Result<void> adopted = adopt(plan);
  CHECK(adopted.has_value(), adopted ? "" : adopted.error().message());
  ledger_ = make_ledger(options_, plan_);
  for (const auto& [id, r] : requests_) {
    if (r.lane.value >= 0) ledger_.book(lanes_.at(r.lane).routed, r.booked);
  }
  admission_.changed();
  admit(out);
  pump_hungry({}, out);
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
  for (const auto& [id, lane] : lanes_) {
    CHECK(lane.in_flight == flying[id], id, lane.in_flight, flying[id]);
    CHECK(lane.in_flight <= lane.depth, id, lane.in_flight);
    CHECK(lane.in_flight > 0 || batcher_.sequences_of(id) > 0, id);
    total += lane.in_flight;
  }
  CHECK(total == in_flight_, total, in_flight_);
  CHECK(placed == 0 || in_flight_ > 0, placed);
  for (int32_t i = 0; i < ledger_.nodes(); ++i) {
    CHECK(placed > 0 || ledger_.expected_used(i) == 0, i);
  }
}

}  // namespace towline::policy
