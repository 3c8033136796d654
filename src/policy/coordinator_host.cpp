// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Coordinator: what the Host is told, and what its answers mean for nodes and requests.
#include <algorithm>
#include <utility>

#include "base/check.hpp"
#include "base/fmt.hpp"
#include "policy/coordinator.hpp"
#include "policy/host_journal.hpp"
#include "policy/serving_limits.hpp"

namespace towline::policy {
namespace {

constexpr size_t kTracesKept = 512;     // of requests that ended
constexpr int64_t kDigestEvery = 64;    // events of the Host between two digests in the journal

}  // namespace

HostOptions Coordinator::host_options(const CoordinatorOptions& o) {
  return policy::host_options(o);
}

// --- telling ------------------------------------------------------------------------------------

int32_t Coordinator::link_id(int32_t from, int32_t to) {
  return link_ids_.emplace(std::pair(from, to), static_cast<int32_t>(link_ids_.size()))
      .first->second;
}

// The nodes that are here, the links for newcomers, and those that others go on using.
HostPlan Coordinator::host_plan() const {
  HostPlan plan;
  plan.provisional = awaiting_plan_;
  for (const Node& node : nodes_) {
    HostNode known;
    known.incarnation = node.incarnations;
    if (node.sender) {
      known.layers = node.layers;
      known.kv_capacity = int64_t{node.kv_blocks} * kBlockTokens * node.layers.size();
      known.longest_prompt = options_.context;
      known.stages = node.stages;
    }
    plan.nodes.push_back(known);
  }
  std::map<int32_t, HostLink> links;
  for (const HostLink& link : open_links_) links.emplace(link.id, link);
  const auto keep = [&](int32_t from, int32_t to) {
    if (from >= 0 && !nodes_[static_cast<size_t>(from)].sender) return;
    if (to >= 0 && !nodes_[static_cast<size_t>(to)].sender) return;
    if (broken_.contains({NodeId(from), NodeId(to)})) return;
    const int32_t id = link_ids_.at({from, to});
    links.emplace(id, HostLink{id, from, to, 0, true});
  };
  for (const auto& [id, lane] : lanes_) {
    int32_t from = kSourceNode;
    for (const Way& hop : lane.way) {
      keep(from, hop.node.value);
      from = hop.node.value;
    }
    keep(from, kSinkNode);
  }
  for (const auto& [id, link] : links) plan.links.push_back(link);
  return plan;
}

void Coordinator::settle() {
  while (std::exchange(plan_stale_, false)) tell(host_plan());
}

void Coordinator::tell(const HostEvent& event) {
  if (options_.journal) {
    if (told_++ == 0) {
      record(HostRecord::Kind::kSetup, host_setup_json(host_options(options_)).dump());
      record(HostRecord::Kind::kEvent, encode_event(HostPlan{}));
    }
    record(HostRecord::Kind::kEvent, encode_event(event));
  }
  std::vector<HostAction> actions;
  host_.step(host_time(now_), event, actions);
  if (options_.journal) {
    digest_actions(host_, actions, digest_);
    acted_ += static_cast<int64_t>(actions.size());
    if (told_ % kDigestEvery == 0) out_->push_back(seen_so_far());
  }
  for (const HostAction& action : actions) carry_out(action);
}

void Coordinator::record(HostRecord::Kind kind, std::string bytes) {
  out_->push_back(HostRecord{kind, std::move(bytes), 0, 0});
}

HostRecord Coordinator::seen_so_far() const {
  return HostRecord{HostRecord::Kind::kActions, {}, digest_.value(), acted_};
}

// Nothing that this does may tell the Host anything: its other answers are not carried out yet.
void Coordinator::carry_out(const HostAction& action) {
  using Kind = HostAction::Kind;
  switch (action.kind) {
    case Kind::kLaunch:
      return dispatch(action.ticket, action.lane);
    case Kind::kAbandon: {
      const auto at = tickets_.find(action.ticket);
      lanes_.at(at->second.lane).flights.erase(at->second.step);
      tickets_.erase(at);
      return;
    }
    case Kind::kPlaced:
      return placed(request_of(action.id), action.lane);
    case Kind::kDisplaced:
      return displaced(request_of(action.id));
    case Kind::kPreempted:
      return drop_table(request_of(action.id));
    case Kind::kEnded:
      return ended(request_of(action.id), action);
    case Kind::kHandOver:  // nodes of a running cluster have no roles
      break;
    case Kind::kLaneClosed:
      return lane_closed(action.lane);
  }
}

// Lanes begin again though all their nodes are there.
void Coordinator::begin_again(const std::vector<LaneId>& lanes, std::vector<RequestId> failed,
                              const std::string& reason) {
  break_reason_ = reason;
  tell(BreakLanes{lanes, std::move(failed)});
  break_reason_.clear();
}

// --- what became of requests --------------------------------------------------------------------

void Coordinator::placed(Request& r, LaneId id) {
  const auto [at, is_new] = lanes_.try_emplace(id);
  Lane& lane = at->second;
  if (is_new) {
    int32_t from = kSourceNode;
    for (const Hop& hop : host_.lane(id).pipeline) {
      if (hop.node >= 0) lane.way.push_back({NodeId(hop.node), hop.layers});
      CHECK(link_ids_.at({from, hop.node}) == hop.link, hop.link);
      from = hop.node;
    }
  }
  r.lane = id;
  if (options_.iterations) {
    WayNote note{r.seq, r.spec.spec.prompt_length, r.spec.max_tokens, {}};
    for (const Way& hop : lane.way) note.way.emplace_back(hop.node, hop.layers);
    out_->push_back(std::move(note));
  }
  RequestTrace& trace = traces_.at(r.spec.id);
  trace.state = "running";
  RequestTrace::Attempt attempt;
  for (const Way& hop : lane.way) attempt.hops.emplace_back(name_of(hop.node), hop.layers);
  attempt.routed = now_;
  attempt.from_token = r.spec.spec.prompt_length + r.outputs;
  trace.attempts.push_back(std::move(attempt));
}

void Coordinator::displaced(Request& r) {
  free_slot(r);
  end_attempt(r, why_broken(lanes_.at(r.lane)));
  traces_.at(r.spec.id).state = "waiting";
  r.lane = LaneId(-1);
  ++reroutes_;
}

std::string Coordinator::why_broken(const Lane& lane) const {
  for (const Way& hop : lane.way) {
    const Node& node = nodes_[static_cast<size_t>(hop.node.value)];
    if (!node.sender) return format("node {} was lost: {}", name_of(hop.node), node.lost);
  }
  for (size_t i = 0; i + 1 < lane.way.size(); ++i) {
    const NodeId from = lane.way[i].node, to = lane.way[i + 1].node;
    if (broken_.contains({from, to})) {
      return format("node {} cannot reach node {}", name_of(from), name_of(to));
    }
  }
  return break_reason_;
}

void Coordinator::lane_closed(LaneId id) {
  const auto at = lanes_.find(id);
  if (at == lanes_.end()) return;  // nobody was ever placed in it
  CHECK(at->second.flights.empty(), id);
  for (const Way& hop : at->second.way) {
    Node& node = nodes_[static_cast<size_t>(hop.node.value)];
    if (at->second.wire.value >= 0 && node.sender) node.draft.closed.push_back(at->second.wire);
  }
  on_wire_.erase(at->second.wire);
  lanes_.erase(at);
}

void Coordinator::end_attempt(const Request& r, const std::string& outcome) {
  RequestTrace& trace = traces_.at(r.spec.id);
  if (trace.attempts.empty() || trace.attempts.back().ended.ns != 0) return;
  trace.attempts.back().ended = now_;
  trace.attempts.back().outcome = outcome;
}

// The Host's reason, for people.
void Coordinator::explain_failure(Request& r, const HostAction& action) const {
  if (r.failure) return;
  const std::vector<RequestTrace::Attempt>& attempts = traces_.at(r.spec.id).attempts;
  const std::string last = attempts.empty() ? "" : attempts.back().outcome;
  r.failure_code = Code::kUnavailable;
  if (action.reason == kStranded) {
    r.failure = attempts.empty() ? "no set of nodes that are here holds all layers of the model"
                                 : format("no way is left: {}", last);
  } else if (action.reason == kManyRoutes) {
    r.failure = format("given up after {} ways; the last one: {}", attempts.size(), last);
  } else if (action.reason == kNoWay) {
    r.failure = "no way through the nodes that are here takes this request";
  } else if (action.reason == kTooLarge) {
    r.failure_code = action.outcome == Outcome::kRejected ? Code::kInvalidArgument
                                                          : Code::kUnavailable;
    r.failure = format("prompt ({}) and output ({}) need more KV cache than any way through the "
                       "nodes that are here has; shorten the request or give the nodes more memory",
                       r.spec.spec.prompt_length, r.spec.max_tokens);
  } else if (action.reason == kQueueFull) {
    r.failure_code = Code::kExhausted;
    r.failure = format("{} requests wait for room in the cluster already, which is the limit; try "
                       "again later", host_.admission().waiting());
  } else {
    r.failure_code = Code::kInternal;
    r.failure = std::string(action.reason);
  }
}

void Coordinator::ended(Request& r, const HostAction& action) {
  if (action.outcome == Outcome::kRejected || action.outcome == Outcome::kFailed) {
    explain_failure(r, action);
  }
  RequestUpdate& update = update_of(r);
  update.finish = r.failure                                ? CoordinatorFinish::kError
                  : action.outcome == Outcome::kCancelled ? CoordinatorFinish::kCancelled
                  : r.stopped                             ? CoordinatorFinish::kStop
                                                          : CoordinatorFinish::kLength;
  if (r.failure) {
    update.code = r.failure_code;
    update.error = *r.failure;
  }
  free_slot(r);
  const bool cancelled = action.outcome == Outcome::kCancelled;
  end_attempt(r, r.failure ? *r.failure : cancelled ? "cancelled" : "finished");
  RequestTrace& trace = traces_.at(r.spec.id);
  trace.finished = now_;
  trace.state = r.failure ? "failed" : cancelled ? "cancelled" : "finished";
  if (r.failure) trace.failure = *r.failure;
  trace.output_tokens = r.outputs;
  ended_traces_.push_back(r.spec.id);
  if (ended_traces_.size() > kTracesKept) {
    const auto oldest = traces_.find(ended_traces_.front());
    if (oldest != traces_.end() && oldest->second.finished.ns != 0) traces_.erase(oldest);
    ended_traces_.pop_front();
  }
  by_id_.erase(r.spec.id);
  requests_.erase(r.seq);
}

// --- looking ------------------------------------------------------------------------------------

void Coordinator::check_invariants() const {
  host_.check_invariants();
  CHECK(static_cast<int64_t>(requests_.size()) == host_.unfinished(), requests_.size());
  CHECK(by_id_.size() == requests_.size(), by_id_.size());
  size_t flying = 0;
  for (const auto& [id, lane] : lanes_) {
    CHECK(host_.has_lane(id), id);
    for (const auto& [number, flight] : lane.flights) {
      ++flying;
      CHECK(host_.is_flying(flight.ticket), id, number);
      const LaneStep at = tickets_.at(flight.ticket);
      CHECK(at.lane == id && at.step == number, id, number);
    }
  }
  CHECK(flying == tickets_.size() && flying == static_cast<size_t>(host_.in_flight()), flying);
  std::set<uint32_t> taken(free_slots_.begin(), free_slots_.end());
  CHECK(taken.size() == free_slots_.size(), taken.size());
  for (const auto& [seq, r] : requests_) {
    if (r.slot) CHECK(taken.insert(r.slot->slot).second, seq);
  }
  CHECK(taken.size() == slot_gens_.size(), taken.size());
}

}  // namespace towline::policy
