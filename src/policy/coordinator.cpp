// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/coordinator.hpp"

#include <algorithm>
#include <utility>

#include "base/check.hpp"
#include "base/fmt.hpp"

namespace towline::policy {
namespace {

// More than this many steps of one node in flight would pass what its mirror takes.
constexpr int32_t kPendingSteps = 256;
constexpr Duration kHealEvery = seconds(1);
constexpr int64_t kHangRuns = 20;  // a node that ends none in the time of so many hangs

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

// Nobody is there at first.
Host make_host(const HostOptions& o) {
  Result<Host> host = Host::make(o, HostPlan{});
  CHECK(host.has_value(), host ? "" : host.error().message());
  return std::move(host).value();
}

}  // namespace

Coordinator::Coordinator(const CoordinatorOptions& options)
    : options_(options), membership_(options.membership), host_(make_host(host_options(options))) {
  options_.slots = std::max(options_.slots, 2 * options_.batch.sequences + 2);
  for (const std::string& name : options_.nodes) membership_.know(name);
  for (const auto& [name, incarnation] : options_.fenced) {
    membership_.fence(membership_.know(name), incarnation);
  }
  nodes_.resize(static_cast<size_t>(membership_.size()));
}

void Coordinator::step(Instant now, const CoordinatorEvent& event,
                       std::vector<CoordinatorAction>& out) {
  now_ = now;
  out_ = &out;
  std::visit([this](const auto& e) { on(e); }, event);
  heal_links();
  do {
    settle();
    if (host_.next_deadline() <= host_time(now)) tell(Tick{});
    flush_drafts();
  } while (plan_stale_);  // a node could not be told: each time there are fewer of them
  if (std::exchange(plan_asked_, false)) ask_plan();
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (!nodes_[i].sender) continue;
    const auto node = static_cast<int32_t>(i);
    membership_.set_busy(now_, NodeId(node), host_.steps_through(node) > 0);
  }
  for (auto& [seq, update] : updates_) out.push_back(std::move(update));
  updates_.clear();
  out_ = nullptr;
}

Instant Coordinator::next_deadline() const {
  const Instant heal = links_may_heal_ ? heal_at_ : kNever;
  const Instant host = host_.next_deadline();
  return std::min({membership_.next_deadline(), host == kNever ? host : host + stood_still_, heal});
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
    settle();
  }
  const Membership::Hello answer = membership_.hello(now_, hello.name, hello.incarnation);
  if (answer.verdict == Membership::Verdict::kFenced) {
    return refuse(format("node {} was declared dead; it must start again", hello.name));
  }
  if (answer.verdict == Membership::Verdict::kAlreadyHere) {
    return refuse(format("node {} is here already", hello.name));
  }
  membership_.set_hang(answer.node, hello.longest_run * kHangRuns);
  Node& node = nodes_[static_cast<size_t>(answer.node.value)];
  const int32_t incarnations = node.incarnations;
  node = Node{};
  node.incarnations = incarnations + 1;
  node.layers = hello.layers;
  node.kv_blocks = hello.kv_blocks;
  node.max_rows = hello.max_rows;
  node.stages = hello.stages;
  node.sender.emplace(mirror_limits(options_, hello.layers, hello.kv_blocks), options_.epoch,
                      options_.form);
  out_->push_back(WelcomeNode{hello.caller, answer.node, options_.epoch});
  note(CoordinatorNote::kInfo,
       format("node {} joined with layers [{}, {}) and {} KV blocks", hello.name,
              hello.layers.begin, hello.layers.end, hello.kv_blocks));
  need_plan();
}

void Coordinator::on(const ClockTick&) {
  for (const auto& [node, reason, silent] : membership_.overdue(now_)) {
    out_->push_back(FenceNode{node, membership_.member(node).incarnation, reason, silent});
    lose_node(node, reason);
  }
}

void Coordinator::on(const StoodStill& still) {
  membership_.forgive(still.time);
  stood_still_ += still.time;
}

void Coordinator::on(const NodeGone& gone) {
  if (membership_.is_current(gone.node, gone.incarnation)) lose_node(gone.node, gone.reason);
}

void Coordinator::on(const NodeBeat& beat) {
  membership_.beat(now_, beat.node, beat.incarnation, beat.runs);
}

// The Host learns of it when the event at hand has been carried out.
void Coordinator::lose_node(NodeId id, const std::string& reason) {
  if (!membership_.declare_dead(id)) return;
  note(CoordinatorNote::kWarn, format("node {} is lost: {}", name_of(id), reason));
  Node& node = nodes_[static_cast<size_t>(id.value)];
  node.lost = reason;
  node.sender.reset();
  node.draft = NodeStep{};
  forget_links(id);
  need_plan();
  open_links_.clear();
}

void Coordinator::need_plan() { plan_asked_ = awaiting_plan_ = plan_stale_ = true; }

// --- links --------------------------------------------------------------------------------------

void Coordinator::on(const LinkReport& report) {
  if (!membership_.is_current(report.from, report.incarnation)) return;
  Links named, fresh;
  const auto take = [&](NodeId from, NodeId to, const std::string& reason) {
    named.emplace(from, to);
    if (!broken_.emplace(from, to).second) return;
    fresh.emplace(from, to);
    note(CoordinatorNote::kWarn,
         format("node {} cannot reach node {}: {}", name_of(from), name_of(to), reason));
  };
  for (const LinkReport::Broken& link : report.broken) {
    if (link.to == report.from || !membership_.is_current(link.to, link.incarnation)) continue;
    take(report.from, link.to, link.reason);
    if (link.both) take(link.to, report.from, link.reason);
  }
  links_may_heal_ = true;
  if (named.empty()) {
    named_broken_.erase(report.from);
  } else {
    named_broken_[report.from] = std::move(named);
  }
  if (!fresh.empty()) links_broke(fresh);
}

void Coordinator::links_broke(const Links& links) {
  need_plan();
  open_links_.clear();
  settle();  // lanes with a hop over one of them are closed
  // Tokens that were on the way to the first node of a lane are lost.
  std::vector<LaneId> fed;
  for (const auto& [id, lane] : lanes_) {
    if (lane.way.empty() || !links.contains({lane.way.back().node, lane.way.front().node})) {
      continue;
    }
    if (feeds_break(lane)) fed.push_back(id);
  }
  if (!fed.empty()) begin_again(fed, {}, "sampled tokens did not reach its first node");
}

void Coordinator::heal_links() {
  if (!links_may_heal_ || now_ < heal_at_) return;
  links_may_heal_ = false;
  const size_t healed = std::erase_if(broken_, [&](const auto& link) {
    for (const auto& [node, links] : named_broken_) {
      if (links.contains(link)) return false;
    }
    note(CoordinatorNote::kInfo, format("node {} reaches node {} again", name_of(link.first),
                                        name_of(link.second)));
    return true;
  });
  if (healed == 0) return;
  heal_at_ = now_ + kHealEvery;
  need_plan();
}

// What was said of a node or by it ends with its incarnation.
void Coordinator::forget_links(NodeId node) {
  const auto touches = [&](const auto& link) { return link.first == node || link.second == node; };
  std::erase_if(broken_, touches);
  named_broken_.erase(node);
  for (auto& [other, links] : named_broken_) std::erase_if(links, touches);
  std::erase_if(named_broken_, [](const auto& entry) { return entry.second.empty(); });
}

// --- plans --------------------------------------------------------------------------------------

void Coordinator::on(const DrainNode& drain) {
  Node* node = node_at(drain.node);
  if (node == nullptr || !membership_.is_alive(drain.node) || node->draining) return;
  node->draining = true;
  note(CoordinatorNote::kInfo, format("node {} takes no new requests", name_of(drain.node)));
  need_plan();
  open_links_.clear();
}

void Coordinator::ask_plan() {
  AskPlan ask;
  ask.number = ++plans_asked_;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (nodes_[i].usable()) {
      ask.nodes.emplace_back(NodeId(static_cast<int32_t>(i)), nodes_[i].layers);
    }
  }
  ask.broken.assign(broken_.begin(), broken_.end());
  out_->push_back(std::move(ask));
}

void Coordinator::on(const PlanMade& plan) {
  if (plan.number != plans_asked_) return;
  const auto usable = [&](int32_t node) {
    return node < 0 || (node < static_cast<int32_t>(nodes_.size()) &&
                        nodes_[static_cast<size_t>(node)].usable());
  };
  for (Node& node : nodes_) node.planned_flow = 0;
  std::map<int32_t, HostLink> links;
  for (size_t i = 0; i < plan.links.size(); ++i) {
    const auto [from, to] = plan.links[i];
    if (!usable(from) || !usable(to) || broken_.contains({NodeId(from), NodeId(to)})) continue;
    const double flow = i < plan.flow.size() ? plan.flow[i] : 0;
    const int32_t id = link_id(from, to);
    links.insert_or_assign(id, HostLink{id, from, to, flow});
    if (to >= 0) nodes_[static_cast<size_t>(to)].planned_flow += flow;
  }
  max_flow_ = plan.max_flow;
  awaiting_plan_ = false;
  plan_stale_ = true;
  open_links_.clear();
  if (!(max_flow_ > 0)) return;
  for (const auto& [id, link] : links) open_links_.push_back(link);
  const Result<void> fine = host_.check_plan(host_plan());
  if (fine) return;
  note(CoordinatorNote::kError, format("the plan cannot be used: {}", fine.error().to_string()));
  open_links_.clear();
}

void Coordinator::on(const SyncNeeded& sync) {
  Node* node = node_at(sync.node);
  if (node == nullptr || !node->sender) return;
  membership_.heard_of(now_, sync.node);
  note(CoordinatorNote::kWarn, format("node {} needs the full form", name_of(sync.node)));
  // What is in flight there cannot be told apart from what it lost: those lanes begin again.
  std::vector<LaneId> through;
  for (const auto& [id, lane] : lanes_) {
    if (std::ranges::find(lane.way, sync.node, &Way::node) != lane.way.end()) {
      through.push_back(id);
    }
  }
  node->resync = true;  // whatever it is told next comes after the full form
  begin_again(through, {}, format("node {} lost the thread", name_of(sync.node)));
  if (node->sender && node->resync && !send_full(sync.node)) {
    lose_node(sync.node, "it could not be told the full form");
  }
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
  RequestTrace& trace = traces_[spec.id];
  trace = RequestTrace{};
  trace.id = spec.id;
  trace.submitted = now_;
  trace.prompt_tokens = r.spec.spec.prompt_length;
  trace.state = "waiting";
  Arrive arrive;
  arrive.id = RequestId(seq.value);
  arrive.prompt = std::move(r.spec.prompt);  // from here on the Host keeps its tokens
  arrive.max_tokens = spec.max_tokens;
  arrive.priority = spec.priority;
  arrive.every_row = spec.spec.prompt_logprobs || spec.spec.embed;
  arrive.cache_salt = spec.cache_salt;
  tell(arrive);
}

void Coordinator::on(const CancelRequest& cancel) {
  const auto at = by_id_.find(cancel.id);
  if (at != by_id_.end()) tell(Cancel{RequestId(at->second.value)});
}

const RequestTrace* Coordinator::trace(RequestId id) const {
  const auto at = traces_.find(id);
  return at == traces_.end() ? nullptr : &at->second;
}

Coordinator::Load Coordinator::load() const {
  Load load;
  load.running = host_.batcher().running();
  load.waiting = static_cast<int64_t>(requests_.size()) - load.running;
  for (int32_t i = 0; i < host_.nodes(); ++i) {
    if (!nodes_[static_cast<size_t>(i)].sender) continue;
    const BlockLedger& ledger = host_.batcher().ledger(i);
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
    view.layers = node.layers;
    view.kv_blocks = node.kv_blocks;
    if (const int32_t at = view.node.value; at < host_.nodes()) {
      if (node.sender) view.kv_blocks_used = host_.batcher().ledger(at).held();
      view.sequences = host_.placed_at(at);
      view.steps_in_flight = host_.steps_through(at);
    }
    if (node.sender && node.draining && view.sequences == 0) view.state = "drained";
    view.runs = member.runs;
    view.tokens = node.rows;
    view.planned_flow = node.planned_flow;
    views.push_back(std::move(view));
  }
  return views;
}

}  // namespace towline::policy
