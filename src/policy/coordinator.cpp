// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/coordinator.hpp"

#include <algorithm>
#include <utility>

#include "base/fmt.hpp"

namespace towline::policy {
namespace {

// More than this many steps of one node in flight would pass what its mirror takes.
constexpr int32_t kPendingSteps = 256;

MirrorLimits mirror_limits(const CoordinatorOptions& options, LayerRange layers, int32_t blocks) {
  MirrorLimits limits;
  limits.slots = options.slots;
  limits.blocks = blocks;
  limits.context = options.context;
  limits.vocab = options.vocab;
  limits.step_rows = std::max(options.batch.step_tokens, 1);
  limits.pending = kPendingSteps;
  limits.layers = layers;
  return limits;
}

}  // namespace

Coordinator::Coordinator(const CoordinatorOptions& options)
    : options_(options), membership_(options.membership), batcher_(options.batch) {
  options_.slots = std::max(options_.slots, 2 * options_.batch.sequences + 2);
  for (const std::string& name : options_.nodes) membership_.know(name);
  nodes_.resize(static_cast<size_t>(membership_.size()));
}

void Coordinator::step(Instant now, const CoordinatorEvent& event, std::vector<CoordinatorAction>& out) {
  now_ = now;
  out_ = &out;
  std::visit([this](const auto& e) { on(e); }, event);
  for (const auto& [node, reason] : membership_.overdue(now)) {
    out.push_back(FenceNode{node, membership_.member(node).incarnation, reason});
    lose_node(node, reason);
  }
  if (plan_asked_) {
    plan_asked_ = false;
    ask_plan();
  }
  report_ends();
  route_waiting();
  form_steps();
  report_ends();
  flush_drafts();
  for (auto& [seq, update] : updates_) out.push_back(std::move(update));
  updates_.clear();
  out_ = nullptr;
}

Instant Coordinator::next_deadline() const {
  Instant next = membership_.next_deadline();
  for (const auto& [priority, seq] : queue_) {
    const Request& r = requests_.at(seq);
    if (r.stranded.ns >= 0) next = std::min(next, r.stranded + options_.wait_for_nodes);
  }
  return next;
}

void Coordinator::note(CoordinatorNote::Level level, std::string text) {
  out_->push_back(CoordinatorNote{level, std::move(text)});
}

Coordinator::Node* Coordinator::node_at(NodeId node) {
  if (node.value < 0 || node.value >= static_cast<int32_t>(nodes_.size())) return nullptr;
  return &nodes_[static_cast<size_t>(node.value)];
}

// --- nodes come and go --------------------------------------------------------------------------

void Coordinator::on(const NodeHello& hello) {
  const auto refuse = [&](std::string reason) {
    out_->push_back(RefuseNode{hello.caller, std::move(reason)});
  };
  if (hello.layers.empty() || hello.layers.begin < 0 ||
      hello.layers.end > options_.total_layers || hello.kv_blocks < 1) {
    return refuse(format("node {} offers layers [{}, {}) and {} KV blocks; the model has {} layers",
                         hello.name, hello.layers.begin, hello.layers.end, hello.kv_blocks,
                         options_.total_layers));
  }
  if (hello.max_rows < options_.batch.step_tokens) {
    return refuse(format("node {} takes {} rows a step, this cluster's steps have up to {}",
                         hello.name, hello.max_rows, options_.batch.step_tokens));
  }
  // An earlier incarnation must be lost before the name is given to the new one.
  const NodeId known = membership_.know(hello.name);
  nodes_.resize(static_cast<size_t>(membership_.size()));
  const bool same = membership_.is_current(known, hello.incarnation);
  if (membership_.is_alive(known) && !same) {
    out_->push_back(FenceNode{known, membership_.member(known).incarnation,
                              format("node {} was started again", hello.name)});
    lose_node(known, "it was started again");
  }
  const Membership::Hello answer = membership_.hello(now_, hello.name, hello.incarnation);
  if (answer.verdict == Membership::Verdict::kFenced) {
    return refuse(format("node {} was declared dead; it must start again", hello.name));
  }
  if (answer.verdict == Membership::Verdict::kAlreadyHere) {
    return refuse(format("node {} is here already", hello.name));
  }
  Node& node = nodes_[static_cast<size_t>(answer.node.value)];
  const int32_t pool = node.pool;
  node = Node{};
  node.layers = hello.layers;
  node.kv_blocks = hello.kv_blocks;
  node.max_rows = hello.max_rows;
  if (pool < 0) {
    node.pool = batcher_.add_pool(hello.kv_blocks);
  } else {
    node.pool = pool;
    batcher_.replace_pool(pool, hello.kv_blocks);
  }
  node.sender.emplace(mirror_limits(options_, hello.layers, hello.kv_blocks), options_.epoch,
                      options_.form);
  std::erase_if(broken_, [&](const auto& link) {
    return link.first == answer.node || link.second == answer.node;
  });
  out_->push_back(WelcomeNode{hello.caller, answer.node, options_.epoch});
  note(CoordinatorNote::kInfo, format("node {} joined with layers [{}, {}) and {} KV blocks", hello.name,
                               hello.layers.begin, hello.layers.end, hello.kv_blocks));
  need_plan(false);
}

void Coordinator::on(const NodeGone& gone) {
  if (membership_.is_current(gone.node, gone.incarnation)) lose_node(gone.node, gone.reason);
}

void Coordinator::on(const NodeBeat& beat) {
  membership_.beat(now_, beat.node, beat.incarnation, beat.runs);
}

void Coordinator::lose_node(NodeId id, const std::string& reason) {
  if (!membership_.declare_dead(id)) return;
  const std::string& name = membership_.member(id).name;
  note(CoordinatorNote::kWarn, format("node {} is lost: {}", name, reason));
  Node& node = nodes_[static_cast<size_t>(id.value)];
  node.sender.reset();
  node.draft = NodeStep{};
  std::vector<LaneId> through;
  for (const auto& [lane_id, lane] : lanes_) {
    if (std::ranges::find(lane.way, id, &LaneHopAt::node) != lane.way.end()) {
      through.push_back(lane_id);
    }
  }
  for (const LaneId lane : through) lose_lane(lane, format("node {} was lost: {}", name, reason));
  node.outstanding = 0;
  need_plan(true);
}

void Coordinator::need_plan(bool old_is_void) {
  plan_asked_ = awaiting_plan_ = true;
  if (old_is_void) chooser_.reset();
}

void Coordinator::on(const LinkBroken& broken) {
  if (!membership_.is_alive(broken.from) || !membership_.is_alive(broken.to)) return;
  if (!broken_.emplace(broken.from, broken.to).second) return;
  const std::string& from = membership_.member(broken.from).name;
  const std::string& to = membership_.member(broken.to).name;
  note(CoordinatorNote::kWarn, format("node {} cannot reach node {}: {}", from, to, broken.reason));
  std::vector<LaneId> over;
  for (const auto& [id, lane] : lanes_) {
    for (size_t i = 0; i + 1 < lane.way.size(); ++i) {
      if (lane.way[i].node == broken.from && lane.way[i + 1].node == broken.to) over.push_back(id);
    }
  }
  for (const LaneId lane : over) lose_lane(lane, format("node {} cannot reach node {}", from, to));
  need_plan(true);
}

void Coordinator::on(const DrainNode& drain) {
  Node* node = node_at(drain.node);
  if (node == nullptr || !membership_.is_alive(drain.node) || node->draining) return;
  node->draining = true;
  note(CoordinatorNote::kInfo, format("node {} takes no new requests", membership_.member(drain.node).name));
  need_plan(true);
}

void Coordinator::ask_plan() {
  AskPlan ask;
  ask.number = ++plans_asked_;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (nodes_[i].usable()) ask.nodes.emplace_back(NodeId(static_cast<int32_t>(i)), nodes_[i].layers);
  }
  ask.broken.assign(broken_.begin(), broken_.end());
  out_->push_back(std::move(ask));
}

void Coordinator::on(const PlanMade& plan) {
  if (plan.number != plans_asked_) return;
  // Requests on their way keep it, and are booked with the new plan's accounts.
  std::vector<LayerRange> layers(nodes_.size());
  std::vector<RouteChooser::Node> accounts(nodes_.size());
  for (size_t i = 0; i < nodes_.size(); ++i) {
    nodes_[i].planned_flow = 0;
    if (!nodes_[i].usable()) continue;
    layers[i] = nodes_[i].layers;
    accounts[i] = {nodes_[i].layers, int64_t{nodes_[i].kv_blocks} * kBlockTokens, options_.context};
  }
  const auto usable = [&](int32_t node) {
    return node < 0 || (node < static_cast<int32_t>(layers.size()) &&
                        !layers[static_cast<size_t>(node)].empty());
  };
  std::vector<RouteLink> links;
  std::vector<double> flow;
  for (size_t i = 0; i < plan.links.size(); ++i) {
    const RouteLink& link = plan.links[i];
    if (!usable(link.from) || !usable(link.to)) continue;
    if (broken_.contains({NodeId(link.from), NodeId(link.to)})) continue;
    links.push_back(link);
    flow.push_back(i < plan.flow.size() ? plan.flow[i] : 0);
    if (link.to >= 0) nodes_[static_cast<size_t>(link.to)].planned_flow += flow.back();
  }
  ++plan_;
  max_flow_ = plan.max_flow;
  links_ = links;
  chooser_.reset();
  Result<RouteMap> map = RouteMap::make(options_.total_layers, layers, links);
  if (!map) {
    note(CoordinatorNote::kError, format("the plan cannot be used: {}", map.error().to_string()));
  } else if (max_flow_ > 0) {
    chooser_.emplace(options_.router, std::move(map).value(), flow, accounts, options_.kv,
                     options_.seed + static_cast<uint64_t>(plan_));
  }
  awaiting_plan_ = false;
  for (auto& [seq, r] : requests_) {
    if (!chooser_ || r.booked.empty()) continue;
    r.plan = plan_;
    chooser_->book(r.booked, r.booked_tokens);
  }
  retry_routes_ = true;
}

void Coordinator::on(const SyncNeeded& sync) {
  Node* node = node_at(sync.node);
  if (node == nullptr || !node->sender) return;
  note(CoordinatorNote::kWarn, format("node {} needs the full form",
                               membership_.member(sync.node).name));
  // What is in flight there cannot be told apart from what it lost: those lanes begin again.
  std::vector<LaneId> through;
  for (const auto& [id, lane] : lanes_) {
    if (std::ranges::find(lane.way, sync.node, &LaneHopAt::node) != lane.way.end()) {
      through.push_back(id);
    }
  }
  for (const LaneId lane : through) {
    lose_lane(lane, format("node {} lost the thread", membership_.member(sync.node).name));
  }
  NodeStep draft = std::exchange(node->draft, NodeStep{});
  if (!node->sender->next(std::move(draft))) node->sender->restart(options_.epoch);
  Result<std::vector<NodeStep>> again = node->sender->resync();
  if (!again) return lose_node(sync.node, again.error().to_string());
  for (NodeStep& message : *again) out_->push_back(SendStep{sync.node, std::move(message)});
}

// --- requests -----------------------------------------------------------------------------------

void Coordinator::on(const CoordinatorRequest& spec) {
  const auto refuse = [&](Code code, std::string why) {
    RequestUpdate update;
    update.id = spec.id;
    update.finish = CoordinatorFinish::kError;
    update.code = code;
    update.error = std::move(why);
    out_->push_back(std::move(update));
  };
  if (by_id_.contains(spec.id)) {
    return refuse(Code::kAlreadyExists, format("request {} is running", spec.id));
  }
  if (spec.prompt.empty() || spec.max_tokens < 0) {
    return refuse(Code::kInvalidArgument, "the prompt is empty or max_tokens is negative");
  }
  const SeqId seq(next_seq_++);
  Request& r = requests_[seq];
  r.spec = spec;
  r.seq = seq;
  r.spec.spec.seq = seq;
  r.spec.spec.prompt_length = static_cast<int32_t>(spec.prompt.size());
  r.submitted = now_;
  by_id_[spec.id] = seq;
  queue_.emplace(spec.priority, seq);
  RequestTrace& trace = traces_[spec.id];
  trace = RequestTrace{};
  trace.id = spec.id;
  trace.submitted = now_;
  trace.prompt_tokens = r.spec.spec.prompt_length;
  trace.state = "waiting";
  retry_routes_ = true;
}

void Coordinator::on(const CancelRequest& cancel) {
  const auto at = by_id_.find(cancel.id);
  if (at == by_id_.end()) return;
  Request& r = requests_.at(at->second);
  if (r.known_to_batcher) {
    batcher_.cancel(r.seq);
  } else {
    doomed_.emplace_back(r.seq, EndReason::kCancelled);
  }
}

const RequestTrace* Coordinator::trace(RequestId id) const {
  const auto at = traces_.find(id);
  return at == traces_.end() ? nullptr : &at->second;
}

Coordinator::Load Coordinator::load() const {
  Load load;
  load.running = batcher_.running();
  load.waiting = static_cast<int64_t>(requests_.size()) - load.running;
  for (const Node& node : nodes_) {
    if (!node.sender) continue;
    const BlockLedger& ledger = batcher_.ledger(node.pool);
    const int64_t total = ledger.total(), used = ledger.held();
    if (load.kv_blocks == 0 || used * load.kv_blocks >= load.kv_blocks_used * total) {
      load.kv_blocks = total;
      load.kv_blocks_used = used;
    }
  }
  load.steps = steps_;
  load.tokens = tokens_;
  load.prompt_tokens = prompt_tokens_;
  load.last_step_rows = last_rows_;
  load.reroutes = reroutes_;
  return load;
}

std::vector<NodeView> Coordinator::nodes() const {
  std::vector<NodeView> views;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Node& node = nodes_[i];
    NodeView view;
    view.node = NodeId(static_cast<int32_t>(i));
    const Membership::Member& member = membership_.member(view.node);
    view.name = member.name;
    view.incarnation = member.incarnation;
    view.state = node.sender ? (node.draining ? "draining" : "ready")
                 : member.incarnation != 0 ? "gone" : "never seen";
    if (node.draining && node.requests == 0) view.state = "drained";
    view.layers = node.layers;
    view.kv_blocks = node.kv_blocks;
    if (node.sender) view.kv_blocks_used = batcher_.ledger(node.pool).held();
    view.sequences = node.requests;
    view.steps_in_flight = node.outstanding;
    view.runs = member.runs;
    view.tokens = node.rows;
    view.planned_flow = node.planned_flow;
    views.push_back(std::move(view));
  }
  return views;
}

}  // namespace towline::policy
