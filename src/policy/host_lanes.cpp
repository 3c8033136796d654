// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Host: lanes, the steps on their way in them, and plans.
#include <algorithm>
#include <utility>

#include "base/check.hpp"
#include "base/fmt.hpp"
#include "policy/host.hpp"

namespace towline::policy {
namespace {

HostAction about(HostAction::Kind kind, LaneId lane, RequestId id) {
  HostAction action;
  action.kind = kind;
  action.lane = lane;
  action.id = id;
  return action;
}

HostAction about_step(HostAction::Kind kind, LaneId lane, int32_t ticket) {
  HostAction action = about(kind, lane, RequestId());
  action.ticket = ticket;
  return action;
}

bool has_roles(const HostPlan& plan) {
  return std::ranges::any_of(plan.nodes, [](const HostNode& node) {
    return node.role != NodeRole::kBoth && !node.layers.empty();
  });
}

Result<void> check_nodes(const HostOptions& options, const HostPlan& plan) {
  const bool roles = has_roles(plan);
  for (const HostNode& node : plan.nodes) {
    if (roles && node.role == NodeRole::kBoth && !node.layers.empty()) {
      return Error(Code::kInvalidArgument,
                   "a plan gives some nodes a role and others none; give all prompt or decode");
    }
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
  return a.layers == b.layers && a.kv_capacity == b.kv_capacity &&
         a.incarnation == b.incarnation && a.role == b.role;
}

int32_t blocks_of(const HostNode& node) {
  if (node.layers.empty()) return 0;
  const int64_t tokens = node.kv_capacity / node.layers.size();
  return static_cast<int32_t>(
      std::clamp<int64_t>(tokens / kBlockTokens, 0, std::numeric_limits<int32_t>::max()));
}

// Of the first plan, that the second has not.
std::vector<int32_t> lost_links(const HostPlan& before, const HostPlan& after) {
  std::vector<int32_t> lost;
  auto at = after.links.begin();
  for (const HostLink& link : before.links) {
    while (at != after.links.end() && at->id < link.id) ++at;
    if (at == after.links.end() || at->id != link.id) lost.push_back(link.id);
  }
  return lost;
}

std::vector<int32_t> links_of(const Pipeline& pipeline) {
  std::vector<int32_t> links;
  for (const Hop& hop : pipeline) links.push_back(hop.link);
  return links;
}

}  // namespace

// --- making -------------------------------------------------------------------------------------

Host::Host(HostOptions options, const HostPlan& plan)
    : options_(options), admission_(options.admission), ledger_(make_ledger(options, plan)),
      batcher_(options.batching), hungry_(plan.nodes.size()), stalled_(plan.nodes.size()),
      outstanding_(plan.nodes.size(), 0), placed_at_(plan.nodes.size(), 0) {
  options_.batching.sequences = std::max(options_.batching.sequences, 1);
  for (const HostNode& node : plan.nodes) batcher_.add_pool(blocks_of(node));
}

Result<Host> Host::make(HostOptions options, HostPlan plan) {
  TRY(check_nodes(options, plan));
  Host host(options, plan);
  TRY(host.adopt(plan));
  return host;
}

Result<Host::Routes> Host::routes_of(const HostPlan& plan, int64_t epoch, NodeRole role) const {
  Routes routes;
  std::vector<LayerRange> layers;
  std::vector<RouteChooser::Node> nodes;
  std::vector<RouteLink> links;
  std::vector<double> flow;
  double out_of_source = 0, into_sink = 0;
  const auto takes_part = [&](int32_t place) {
    return place < 0 || plan.nodes[static_cast<size_t>(place)].role == role;
  };
  links.reserve(plan.links.size());
  flow.reserve(plan.links.size());
  routes.link_ids.reserve(plan.links.size());
  for (const HostNode& node : plan.nodes) {
    layers.push_back(node.role == role ? node.layers : LayerRange{});
    nodes.push_back({int64_t{blocks_of(node)} * kBlockTokens, node.longest_prompt});
  }
  for (const HostLink& link : plan.links) {
    if (link.closed || !takes_part(link.from) || !takes_part(link.to)) continue;
    links.push_back({link.from, link.to});
    flow.push_back(link.flow);
    routes.link_ids.push_back(link.id);
    if (link.from == kSourceNode) out_of_source += link.flow;
    if (link.to == kSinkNode) into_sink += link.flow;
  }
  if (!(out_of_source > 0 && into_sink > 0)) return routes;
  ASSIGN_OR_RETURN(RouteMap map, RouteMap::make(options_.total_layers, std::move(layers),
                                                std::move(links)));
  routes.chooser.emplace(options_.router, std::move(map), flow, nodes, options_.minimum_share,
                         options_.seed + static_cast<uint64_t>(epoch));
  return routes;
}

// The routes of a plan; those who hold a place under the old one are not touched.
Result<void> Host::adopt(const HostPlan& plan) {
  const bool roles = has_roles(plan);
  ASSIGN_OR_RETURN(routes_,
                   routes_of(plan, epoch_ + 1, roles ? NodeRole::kPrompt : NodeRole::kBoth));
  decode_routes_ = {};
  if (roles) {
    ASSIGN_OR_RETURN(decode_routes_, routes_of(plan, epoch_ + 1, NodeRole::kDecode));
    // Half a cluster serves nobody.
    if (!routes_.chooser || !decode_routes_.chooser) routes_ = decode_routes_ = {};
  }
  plan_ = plan;
  ++epoch_;
  return {};
}

Result<void> Host::check_plan(const HostPlan& plan) const {
  if (plan.nodes.size() < plan_.nodes.size()) {
    return errorf(Code::kInvalidArgument, "a plan of {} nodes for a cluster of {}",
                  plan.nodes.size(), plan_.nodes.size());
  }
  TRY(check_nodes(options_, plan));
  for (const NodeRole role : {NodeRole::kBoth, NodeRole::kPrompt, NodeRole::kDecode}) {
    if ((role == NodeRole::kBoth) == has_roles(plan)) continue;
    const auto routes = routes_of(plan, epoch_ + 1, role);
    if (!routes) return routes.error();
  }
  return {};
}

// --- lanes --------------------------------------------------------------------------------------

int32_t Host::depth_of(int32_t stages) const {
  if (options_.depth > 0) return options_.depth;
  const bool async = options_.batching.placeholders && options_.batching.ahead > 0;
  if (stages == 1) return async ? 2 : 1;
  return stages + std::max(options_.extra_steps, 0);
}

Host::Lane& Host::lane_for(const Pipeline& routed, const Routes& routes) {
  Pipeline pipeline = routed;
  for (Hop& hop : pipeline) hop.link = routes.link_ids[static_cast<size_t>(hop.link)];
  std::vector<int32_t> links = links_of(pipeline);
  if (const auto known = lane_of_links_.find(links); known != lane_of_links_.end()) {
    Lane& lane = lanes_.at(known->second);
    lane.routed = routed;
    lane.epoch = epoch_;
    return lane;
  }
  Lane lane;
  std::vector<LanePool> pools;
  int32_t stages = 0;
  for (const Hop& hop : pipeline) {
    if (hop.node == kSinkNode) continue;
    stages += plan_.nodes[static_cast<size_t>(hop.node)].stages;
    // Partial inference: what such a lane leaves in a block serves only lanes like it.
    const bool whole = hop.layers == plan_.nodes[static_cast<size_t>(hop.node)].layers;
    pools.push_back({hop.node, whole ? 0 : static_cast<uint64_t>(hop.layers.begin) + 1});
  }
  lane.pipeline = std::move(pipeline);
  lane.routed = routed;
  lane.epoch = epoch_;
  lane.decodes = &routes == &decode_routes_;
  lane.depth = depth_of(stages);
  // A sequence that may be in two steps counts in both.
  const bool async = options_.batching.placeholders && options_.batching.ahead > 0;
  lane.parts = async ? stages : lane.depth;
  lane.id = batcher_.open_lane(std::move(pools));
  lane_of_links_.emplace(std::move(links), lane.id);
  const LaneId id = lane.id;
  return lanes_.add(id, std::move(lane));
}

void Host::close_if_empty(LaneId id, Out& out) {
  const Lane& lane = lanes_.at(id);
  if (lane.in_flight > 0 || batcher_.sequences_of(id) > 0 || lane.awaited > 0) return;
  batcher_.close_lane(id);
  close(id, out);
}

// The batcher has closed it.
void Host::close(LaneId id, Out& out) {
  Lane& lane = lanes_.at(id);
  mark(lane, false);
  lane_of_links_.erase(links_of(lane.pipeline));
  lanes_.erase(id);
  out.push_back(about(HostAction::Kind::kLaneClosed, id, RequestId()));
}

// --- steps --------------------------------------------------------------------------------------

bool Host::has_turn(const Lane& lane) const {
  if (options_.most_outstanding == std::numeric_limits<int32_t>::max()) return true;
  return std::ranges::all_of(lane.pipeline, [&](const Hop& hop) {
    return hop.node == kSinkNode ||
           outstanding_[static_cast<size_t>(hop.node)] < options_.most_outstanding;
  });
}

// Sends what the lane can send.
void Host::pump(LaneId id, Out& out) {
  Lane& lane = lanes_.at(id);
  bool starved = false;
  while (lane.in_flight < lane.depth && !starved) {
    if (batcher_.ready(id) + batcher_.waiting(id) == 0) break;
    starved = !has_turn(lane);
    if (starved) break;
    Step step = batcher_.next_step(id, batcher_.most_entries(id, lane.parts));
    for (const SeqId seq : step.dropped) {
      // Those that ended are not known any more; the others lost their blocks to somebody.
      const RequestId request(seq.value);
      if (!requests_.contains(request) || std::ranges::find(displaced_, seq) != displaced_.end()) {
        continue;
      }
      out.push_back(about(HostAction::Kind::kPreempted, LaneId(-1), request));
    }
    displaced_.clear();
    dropped_.insert(dropped_.end(), step.dropped.begin(), step.dropped.end());
    starved = step.empty();
    if (!starved) launch(lane, std::move(step), out);
  }
  mark(lane, starved);
}

// Notes what the lane waits for, if it is starved.
void Host::mark(Lane& lane, bool starved) {
  const auto put = [&](std::set<LaneId>& set, bool in) {
    in ? void(set.insert(lane.id)) : void(set.erase(lane.id));
  };
  const auto put_at_nodes = [&](std::vector<std::set<LaneId>>& sets, bool in) {
    for (const Hop& hop : lane.pipeline) {
      if (hop.node != kSinkNode) put(sets[static_cast<size_t>(hop.node)], in);
    }
  };
  const bool stalled = starved && batcher_.may_take_room(lane.id);
  const bool placeless = starved && batcher_.running() >= options_.batching.sequences;
  if (std::exchange(lane.hungry, starved) != starved) put_at_nodes(hungry_, starved);
  if (std::exchange(lane.stalled, stalled) != stalled) {
    stalled_lanes_ += stalled ? 1 : -1;
    put_at_nodes(stalled_, stalled);
  }
  if (std::exchange(lane.placeless, placeless) != placeless) put(placeless_, placeless);
}

void Host::launch(Lane& lane, Step step, Out& out) {
  step.dropped = std::exchange(dropped_, {});
  int32_t ticket;
  if (free_tickets_.empty()) {
    ticket = static_cast<int32_t>(flights_.size());
    flights_.emplace_back();
  } else {
    ticket = free_tickets_.back();
    free_tickets_.pop_back();
  }
  flights_[static_cast<size_t>(ticket)] = {std::move(step), lane.id, now_};
  ++lane.in_flight;
  ++in_flight_;
  for (const Hop& hop : lane.pipeline) {
    if (hop.node != kSinkNode) ++outstanding_[static_cast<size_t>(hop.node)];
  }
  out.push_back(about_step(HostAction::Kind::kLaunch, lane.id, ticket));
}

// It is not on its way any more.
void Host::land(int32_t ticket) {
  Flight& flight = flights_[static_cast<size_t>(ticket)];
  Lane& lane = lanes_.at(flight.lane);
  flight.lane = LaneId(-1);
  free_tickets_.push_back(ticket);
  --lane.in_flight;
  --in_flight_;
  for (const Hop& hop : lane.pipeline) {
    if (hop.node != kSinkNode) --outstanding_[static_cast<size_t>(hop.node)];
  }
}

// Room was made in the pools along `freed`.
void Host::pump_hungry(const Pipeline& freed, Out& out) {
  const auto pump_all = [&](const std::set<LaneId>& hungry) {
    for (const LaneId id : std::vector(hungry.begin(), hungry.end())) {
      if (lanes_.contains(id)) pump(id, out);
    }
  };
  for (const Hop& hop : freed) {
    if (hop.node != kSinkNode) pump_all(hungry_[static_cast<size_t>(hop.node)]);
  }
  if (!placeless_.empty() && batcher_.running() < options_.batching.sequences) pump_all(placeless_);
  if (in_flight_ > 0) return;
  for (const std::set<LaneId>& at : std::vector(hungry_)) pump_all(at);  // lest everybody wait
}

// The sequences of a step that landed can be preempted: whoever waits for that comes before them.
void Host::pump_stalled(LaneId landed, Out& out) {
  if (stalled_lanes_ == 0) return;
  const Pipeline& pipeline = lanes_.at(landed).pipeline;
  for (const Hop& hop : pipeline) {
    if (hop.node == kSinkNode) break;
    const std::set<LaneId>& stalled = stalled_[static_cast<size_t>(hop.node)];
    if (stalled.empty()) continue;
    for (const LaneId id : std::vector(stalled.begin(), stalled.end())) {
      if (id != landed) pump(id, out);
    }
  }
}

// The step that is done is followed by the same one, if that is what all the rest would come to:
// nobody waits for what it leaves free, and its lane sends nothing else.
bool Host::go_round(const StepDone& event, Out& out) {
  Flight& flight = flights_[static_cast<size_t>(event.ticket)];
  if (!options_.fast_forward || !event.sampled.empty() || stalled_lanes_ > 0 || !dropped_.empty()) {
    return false;
  }
  const Lane& lane = lanes_.at(flight.lane);
  if (lane.hungry || lane.placeless || !has_turn(lane)) return false;
  if (!batcher_.advance(flight.step, lane.parts)) return false;
  displaced_.clear();
  if (open() && lane.epoch == epoch_) {
    chooser_of(lane).stepped(lane.routed, static_cast<int64_t>(flight.step.entries.size()),
                             now_ - flight.began);
  }
  flight.began = now_;
  out.push_back(about_step(HostAction::Kind::kLaunch, lane.id, event.ticket));
  out.back().again = true;
  return true;
}

void Host::step_done(const StepDone& event, Out& out) {
  CHECK(is_flying(event.ticket), event.ticket);
  if (go_round(event, out)) return;
  Flight& flight = flights_[static_cast<size_t>(event.ticket)];
  const LaneId id = flight.lane;
  const Step step = std::move(flight.step);
  Lane& lane = lanes_.at(id);
  const bool was_turn = has_turn(lane);
  const Duration taken = now_ - flight.began;
  land(event.ticket);
  std::span<const Sampled> sampled = event.sampled;
  if (sampled.empty()) {
    sampled_.clear();
    for (const StepEntry& entry : step.entries) {
      if (entry.samples) sampled_.push_back({.seq = entry.seq});
    }
    sampled = sampled_;
  }
  if (open() && lane.epoch == epoch_) {
    const auto decodes = std::ranges::count_if(
        step.entries, [](const StepEntry& e) { return e.samples && e.to - e.from == 1; });
    chooser_of(lane).stepped(lane.routed, decodes, taken);
  }
  if (split() && !lane.decodes) note_first_tokens(step, sampled);
  const size_t before = out.size();
  batcher_.complete(step, sampled);
  collect_ended(out);
  const bool ended = out.size() > before;
  pump_stalled(id, out);
  if (!ended && was_turn) return pump(id, out);
  const Pipeline freed = lane.pipeline;
  if (ended) admit(out);
  if (lanes_.contains(id)) pump(id, out);
  pump_hungry(freed, out);
}

// --- what breaks --------------------------------------------------------------------------------

// `lost`: links of the plan before that this one does not have, in ascending order.
bool Host::survives(const Lane& lane, const HostPlan& plan, std::span<const int32_t> lost) const {
  return std::ranges::all_of(lane.pipeline, [&](const Hop& hop) {
    if (std::ranges::binary_search(lost, hop.link)) return false;
    if (hop.node == kSinkNode) return true;
    const auto node = static_cast<size_t>(hop.node);
    return same_memory(plan.nodes[node], plan_.nodes[node]);
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
    const Flight& flight = flights_[static_cast<size_t>(ticket)];
    batcher_.abort(flight.step);
    out.push_back(about_step(HostAction::Kind::kAbandon, flight.lane, ticket));
    land(ticket);
  }
  collect_ended(out);  // those that were cancelled while in flight
}

// Its requests lose it and wait again, or have lost too many.
void Host::displace(LaneId id, Out& out) {
  for (const SeqId seq : batcher_.close_lane(id)) {
    const RequestId request(seq.value);
    const auto at = requests_.find(request);
    leave_decode_lane(at->second);
    leave_lane(at->second);
    displaced_.push_back(seq);
    out.push_back(about(HostAction::Kind::kDisplaced, id, request));
    if (at->second.routes >= options_.most_routes) {
      admission_.end(request);
      end(at, Outcome::kFailed, kManyRoutes, out);
    } else {
      admission_.displace(request);
    }
  }
  displace_awaited(id, out);
  close(id, out);
}

// Returns where room was made.
Pipeline Host::break_lanes(const std::set<LaneId>& broken, Out& out) {
  Pipeline freed;
  std::set<int32_t> nodes;
  for (const LaneId id : broken) {
    for (const Hop& hop : lanes_.at(id).pipeline) {
      if (hop.node != kSinkNode && nodes.insert(hop.node).second) freed.push_back(hop);
    }
  }
  abandon(broken, out);
  for (const LaneId id : broken) displace(id, out);
  return freed;
}

void Host::on_break(const BreakLanes& event, Out& out) {
  for (const RequestId id : event.failed) {
    const auto at = requests_.find(id);
    if (at == requests_.end() || at->second.lane.value < 0 || at->second.moving) continue;
    at->second.failing = kBadStep;
    batcher_.cancel(SeqId(id.value));  // now, or when its last step is abandoned or done
  }
  collect_ended(out);
  std::set<LaneId> broken;
  for (const LaneId id : event.lanes) {
    if (lanes_.contains(id)) broken.insert(id);
  }
  const Pipeline freed = break_lanes(broken, out);
  admit(out);
  pump_hungry(freed, out);
}

void Host::replan(const HostPlan& plan, Out& out) {
  CHECK(plan.nodes.size() >= plan_.nodes.size(), plan.nodes.size(), plan_.nodes.size());
  const size_t nodes = plan.nodes.size();
  while (static_cast<size_t>(batcher_.pools()) < nodes) batcher_.add_pool(0);
  plan_.nodes.resize(nodes);
  hungry_.resize(nodes);
  stalled_.resize(nodes);
  outstanding_.resize(nodes, 0);
  placed_at_.resize(nodes, 0);
  const std::vector<int32_t> lost = lost_links(plan_, plan);
  std::set<LaneId> broken;
  lanes_.for_each([&](LaneId id, const Lane& lane) {
    if (!survives(lane, plan, lost)) broken.insert(id);
  });
  const Pipeline freed = break_lanes(broken, out);
  for (size_t i = 0; i < nodes; ++i) {
    if (!same_memory(plan.nodes[i], plan_.nodes[i])) {
      batcher_.replace_pool(static_cast<int32_t>(i), blocks_of(plan.nodes[i]));
    }
  }
  const Result<void> adopted = adopt(plan);
  CHECK(adopted.has_value(), adopted ? "" : adopted.error().message());
  ledger_ = make_ledger(options_, plan_);
  for (auto& [id, r] : requests_) {
    if (r.decode_lane.value >= 0) ledger_.book(lanes_.at(r.decode_lane).routed, r.booked);
    if (r.lane.value >= 0) {
      ledger_.book(lanes_.at(r.lane).routed, r.booked);
    } else if (open()) {
      unstrand(id, r);
    } else if (!plan_.provisional) {
      strand(id, r);
    }
  }
  admission_.changed();
  admit(out);
  pump_hungry(freed, out);
}

}  // namespace towline::policy
