// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/cluster_engine.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <utility>

#include "base/fmt.hpp"
#include "base/log.hpp"
#include "base/rng.hpp"
#include "policy/serving_limits.hpp"
#include "serve/request_check.hpp"

namespace towline::serve {
namespace {

using protocol::MessageKind;

constexpr Duration kHelloPatience = seconds(10);
constexpr size_t kComplaintsKept = 32;
constexpr Duration kSendPatience = seconds(2);  // a node that takes nothing for so long is lost
constexpr double kMostRate = 1e12;              // rows/s through a layer that a node may claim
constexpr double kLongestRun = 3600;            // seconds, of what a node's speed is believed
constexpr Duration kLongestSleep = seconds(1);
constexpr Duration kStandstill = seconds(2);    // between two looks at the inbox: we were held up

FinishReason finish_reason(policy::CoordinatorFinish finish) {
  switch (finish) {
    case policy::CoordinatorFinish::kNone:
      return FinishReason::kNone;
    case policy::CoordinatorFinish::kStop:
      return FinishReason::kStop;
    case policy::CoordinatorFinish::kLength:
      return FinishReason::kLength;
    case policy::CoordinatorFinish::kCancelled:
      return FinishReason::kCancelled;
    case policy::CoordinatorFinish::kError:
      break;
  }
  return FinishReason::kError;
}

// As the roster has it; 0, which is nobody's, if it is none.
uint64_t incarnation_of(const std::string& hex) {
  uint64_t value = 0;
  (void)std::from_chars(hex.data(), hex.data() + hex.size(), value, 16);
  return value;
}

GeneratedToken generated(policy::ScoredToken&& token) {
  GeneratedToken out;
  out.token = token.token;
  out.logprob = token.logprob;
  for (const auto& [id, logprob] : token.top) out.top.push_back({id, logprob});
  return out;
}

}  // namespace

// --- starting and stopping ----------------------------------------------------------------------

Result<std::unique_ptr<ClusterEngine>> ClusterEngine::start(
    ClusterModel model, const ClusterOptions& options, EventSink sink) {
  std::unique_ptr<ClusterEngine> self(new ClusterEngine());
  self->model_ = std::move(model);
  const spec::ModelDesc& desc = self->model_.desc;
  const spec::ScenarioServing& serving = options.serving;
  if (serving.context > desc.context) {
    return errorf(Code::kInvalidArgument, "a context of {} tokens is asked, but {} has {}",
                  serving.context, desc.name, desc.context);
  }
  self->options_ = options;
  self->sink_ = std::move(sink);
  self->context_ = context_of(serving, desc);
  ASSIGN_OR_RETURN(policy::CoordinatorOptions host, policy::coordinator_options(serving));
  self->most_unfinished_ = host.admission.waiting;
  host.epoch = options.epoch;
  host.total_layers = desc.layers;
  host.context = self->context_;
  host.vocab = desc.vocab;
  host.membership.lease = options.lease;
  host.fenced = options.fenced;
  host.wait_for_nodes = options.wait_for_nodes;
  for (const ClusterNode& node : options.nodes) host.nodes.push_back(node.name);
  host.admission.offline = options.offline;
  if (options.offline) host.admission.waiting = policy::AdmissionLimits{}.waiting;
  Json names = Json::array();
  for (const ClusterNode& node : options.nodes) names.push(node.name);
  ASSIGN_OR_RETURN(self->records_,
                   ClusterRecords::open(options.records, self->started_,
                                        Json::object({{"model", desc.name}, {"nodes", names}})));
  host.journal = self->records_.has_journal();
  host.iterations = self->records_.has_log();
  self->host_ = std::make_unique<policy::Coordinator>(host);
  net::TransportOptions t;
  ASSIGN_OR_RETURN(t.kind, net::kind_of_address(options.listen));
  t.listen = options.listen;
  t.identity = kCoordinatorName;
  t.peer_faults = options.links.from(kCoordinatorName);
  t.key_file = options.key_file;
  t.insecure = options.insecure;
  t.peer_timeout = std::max(options.lease, t.heartbeat * 2);
  ASSIGN_OR_RETURN(self->transport_, net::Transport::open(std::move(t), self->inbox_));
  self->start_calls();
  for (const auto& [name, path] : options.adapters) TRY(self->adapters_->expect(name, path));
  self->publish_adapters();
  self->thread_ = std::thread([engine = self.get()] { engine->loop(); });
  return self;
}

ClusterEngine::~ClusterEngine() {
  if (thread_.joinable()) {
    stop_.store(true, std::memory_order_release);
    inbox_.wake();
    thread_.join();
  }
  transport_.reset();
}

std::vector<std::string> ClusterEngine::complaints() const {
  const std::lock_guard lock(mutex_);
  return complaints_;
}

// --- the caller's side --------------------------------------------------------------------------

bool ClusterEngine::post(std::function<void()> task) const {
  {
    const std::lock_guard lock(mutex_);
    if (ended_) return false;
    commands_.push_back(std::move(task));
  }
  inbox_.wake();
  return true;
}

Result<void> ClusterEngine::submit(GenerationRequest request) {
  TRY(check_request(request, model(), context_));
  const int32_t queued = unfinished_.load(std::memory_order_acquire);
  if (queued >= most_unfinished_) {
    return errorf(Code::kExhausted, "{} requests are running or waiting, which is the limit; "
                  "try again later", queued);
  }
  if (asleep_.load(std::memory_order_acquire)) {
    return Error(Code::kUnavailable, "the cluster sleeps; wake it first");
  }
  if (!request.adapter.empty()) {
    const std::lock_guard lock(mutex_);
    if (std::ranges::find(adapter_names_, request.adapter) == adapter_names_.end()) {
      return errorf(Code::kNotFound, "there is no adapter '{}'", request.adapter);
    }
  }
  policy::CoordinatorRequest r;
  r.id = request.id;
  const auto room = context_ - static_cast<int32_t>(request.prompt.size());
  r.max_tokens = request.embed ? 0 : std::min(request.max_tokens, room);
  r.prompt = std::move(request.prompt);
  r.spec.choice = request.choice;
  r.spec.prompt_logprobs = request.prompt_logprobs;
  r.spec.embed = request.embed;
  r.spec.sampling = std::move(request.sampling);
  r.stop_tokens = std::move(request.stop_tokens);
  r.priority = request.priority;
  unfinished_.fetch_add(1, std::memory_order_acq_rel);
  post([this, r = std::move(r), adapter = std::move(request.adapter)]() mutable {
    const Result<int32_t> id = use_adapter(r.id, adapter);
    if (!id) {
      policy::RequestUpdate end;
      end.id = r.id;
      end.finish = policy::CoordinatorFinish::kError;
      end.code = id.error().code();
      end.error = id.error().message();
      return act(end);
    }
    r.spec.adapter = *id;
    r.cache_salt = mix64(cache_generation_) + static_cast<uint64_t>(*id + 1);
    tell_host(r);
  });
  return {};
}

void ClusterEngine::cancel(RequestId id) {
  post([this, id] { tell_host(policy::CancelRequest{id}); });
}

GeneratorStats ClusterEngine::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

Result<Json> ClusterEngine::status() const {
  std::optional<Json> now = ask<Json>([this] { return status_now(); });
  if (!now) return busy();
  return *std::move(now);
}

Json ClusterEngine::explain(RequestId id) const {
  return ask<Json>([this, id] { return explain_now(id); }).value_or(Json());
}

Error ClusterEngine::busy() {
  return Error(Code::kUnavailable, "the coordinator is busy or ending; try again");
}

Result<void> ClusterEngine::drain_node(const std::string& name) {
  const auto refused = ask<std::optional<Error>>([this, name]() -> std::optional<Error> {
    std::string known;
    for (const policy::NodeView& view : host_->nodes()) {
      known += format("{}{}", known.empty() ? "" : ", ", view.name);
      if (view.name != name) continue;
      if (view.state == "draining" || view.state == "drained") return std::nullopt;
      if (view.state != "ready") {
        return errorf(Code::kUnavailable, "node {} cannot be drained: it is {}", name, view.state);
      }
      tell_host(policy::DrainNode{view.node});
      return std::nullopt;
    }
    return errorf(Code::kNotFound, "there is no node '{}'; there are {}", name, known);
  });
  if (!refused) return busy();
  return *refused ? Result<void>(**refused) : Result<void>();
}

// --- the coordinator's thread -------------------------------------------------------------------

void ClusterEngine::loop() {
  while (!stop_.load(std::memory_order_acquire)) {
    auto event = inbox_.wait(std::min(host_->next_deadline(), net::steady_now() + kLongestSleep));
    std::deque<std::function<void()>> commands;
    {
      const std::lock_guard lock(mutex_);
      commands = std::exchange(commands_, {});
    }
    if (!deposed_ && options_.may_act) {
      const Result<void> may = options_.may_act();
      if (!may) stand_down(may.error().message());
    }
    look();
    for (const auto& command : commands) command();
    const bool message = event && event->kind != net::Inbox::Event::kWake;
    if (message) on_event(*event);
    tick(message);
    if (std::exchange(roster_stale_, false)) send_roster();
    publish_stats();
    measure_flow();
    drop_silent();
    if (!events_.empty()) sink_(std::exchange(events_, {}));
  }
  std::deque<std::function<void()>> commands;
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    commands = std::exchange(commands_, {});
  }
  for (const auto& command : commands) command();
  for (auto& [caller, guest] : guests_) guest.channel->close(protocol::kClusterEnds);
  if (!events_.empty()) sink_(std::exchange(events_, {}));
  records_.end(host_->host_time(now_), host_->seen_so_far());
}

// The only reading of the clock that the host is given. Whoever was silent while we did not listen
// is not late for that: time in which this process was stopped is told before anything is judged by
// it, wherever in the loop the stop fell.
void ClusterEngine::look() {
  const Instant before = std::exchange(looked_, net::steady_now());
  now_ = looked_;
  const Duration gap = looked_ - before;
  if (before.ns == 0 || gap < kStandstill) return;
  log_warn("cluster", "this process stood still; silence meanwhile does not count",
           {{"seconds", format("{:.1f}", to_seconds(gap))}});
  for (auto& [caller, guest] : guests_) guest.since = guest.since + gap;
  calls_->forgive(gap);
  carry_out(policy::StoodStill{gap});
}

// What had come when a deadline passed is read before anybody is judged by it.
void ClusterEngine::tick(bool read_one) {
  if (looked_ < std::min(host_->next_deadline(), calls_->next_deadline())) {
    calls_->tick(looked_);
    unread_.reset();
    return;
  }
  if (!unread_) {
    unread_ = inbox_.size();
  } else if (read_one && *unread_ > 0) {
    --*unread_;
  }
  if (*unread_ > 0) return;
  unread_.reset();
  tell_host(policy::ClockTick{});
  calls_->tick(looked_);
}

void ClusterEngine::carry_out(const policy::CoordinatorEvent& event) {
  std::vector<policy::CoordinatorAction> actions;
  host_->step(now_, event, actions);
  for (policy::CoordinatorAction& action : actions) std::visit([this](auto& a) { act(a); }, action);
}

void ClusterEngine::tell_host(const policy::CoordinatorEvent& event) {
  look();
  carry_out(event);
  // Answers that the host gets while it is being told something come after it.
  while (!later_.empty()) {
    const policy::CoordinatorEvent next = std::move(later_.front());
    later_.pop_front();
    tell_host(next);
  }
  const bool ready = host_->can_route();
  if (ready_.exchange(ready, std::memory_order_acq_rel) != ready && options_.on_ready) {
    options_.on_ready(ready);
  }
}

void ClusterEngine::on_event(net::Inbox::Event& event) {
  using Event = net::Inbox::Event;
  const auto caller = static_cast<int64_t>(event.channel.value);
  switch (event.kind) {
    case Event::kOpened:
      if (deposed_) {
        event.opened->close("another process is the coordinator");
        break;
      }
      guests_[caller].channel = event.opened;
      guests_[caller].since = looked_;
      break;
    case Event::kFrame:
      if (const auto at = guests_.find(caller); at != guests_.end()) {
        on_frame(at->second, caller, event.frame);
      }
      break;
    case Event::kClosed: {
      const auto at = guests_.find(caller);
      if (at == guests_.end()) break;
      const Guest guest = take(at);
      calls_->on_gone(caller, event.reason);
      if (guest.node.value >= 0) {
        roster_stale_ = true;
        tell_host(policy::NodeGone{guest.node, guest.theirs.incarnation, event.reason});
      } else if (guest.assigned != nullptr) {
        complain("a node left before it was ready", guest.theirs.name,
                 format("node {}: {}", guest.theirs.name, event.reason));
      }
      break;
    }
    default:
      break;
  }
}

// Another process is the coordinator: what this one still sent would be refused, so it says goodbye
// and fails what it has.
void ClusterEngine::stand_down(const std::string& reason) {
  deposed_ = true;
  const std::map<int64_t, Guest> guests = std::exchange(guests_, {});
  for (const auto& [caller, guest] : guests) guest.channel->close(reason);
  for (const auto& [caller, guest] : guests) {
    calls_->on_gone(caller, reason);
    if (guest.node.value < 0) continue;
    tell_host(policy::NodeGone{guest.node, guest.theirs.incarnation, reason});
  }
  if (options_.on_deposed) options_.on_deposed(reason);
}

// Who dials again and again fills neither the log nor the memory.
void ClusterEngine::complain(std::string_view what, const std::string& node,
                             const std::string& why) {
  if (complaint_log_.spend(net::steady_now())) {
    log_warn("cluster", what, {{"node", node}, {"why", why},
                               {"unwritten_before", complaint_log_.unwritten()}});
  }
  remember_complaint(why);
}

void ClusterEngine::remember_complaint(const std::string& why) {
  const std::lock_guard lock(mutex_);
  std::erase(complaints_, why);  // said again and again it is still one
  if (complaints_.size() == kComplaintsKept) complaints_.erase(complaints_.begin());
  complaints_.push_back(why);
}

// Out of those that are there. Calls under way will still tell its name.
ClusterEngine::Guest ClusterEngine::take(std::map<int64_t, Guest>::iterator at) {
  if (calls_->under_way() == 0) departed_.clear();
  departed_[at->first] = at->second.theirs.name;
  return std::move(guests_.extract(at).mapped());
}

// A channel that says nothing holds a place: it is closed.
void ClusterEngine::drop_silent() {
  std::vector<int64_t> silent;
  for (const auto& [caller, guest] : guests_) {
    if (guest.assigned == nullptr && looked_ >= guest.since + kHelloPatience) {
      silent.push_back(caller);
    }
  }
  if (silent.empty() || inbox_.size() > 0) return;  // what it said may lie there
  for (const int64_t caller : silent) {
    drop(caller, format("{}: it connected, but said nothing", protocol::kFencedSilent));
  }
}

void ClusterEngine::drop(int64_t caller, const std::string& reason) {
  const auto at = guests_.find(caller);
  if (at == guests_.end()) return;
  complain("conversation ended", at->second.channel->peer().name, reason);
  const Guest guest = take(at);
  guest.channel->close(reason);
  calls_->on_gone(caller, reason);
  if (guest.node.value >= 0) {
    roster_stale_ = true;
    tell_host(policy::NodeGone{guest.node, guest.theirs.incarnation, reason});
  }
}

void ClusterEngine::on_frame(Guest& guest, int64_t caller, const net::Frame& frame) {
  switch (static_cast<MessageKind>(frame.kind)) {
    case MessageKind::kHandshake: {
      const Result<void> fine = on_handshake(guest, caller, frame);
      if (!fine) drop(caller, fine.error().to_string());
      return;
    }
    case MessageKind::kHeartbeat:
      return on_beat(guest, frame);
    case MessageKind::kResults:
      return on_results(guest, frame);
    case MessageKind::kAck: {
      protocol::Ack ack;
      if (guest.node.value < 0 || !protocol::decode(frame.payload, ack)) return;
      if (ack.status == protocol::Ack::Status::kNeedSync) tell_host(policy::SyncNeeded{guest.node});
      if (ack.status == protocol::Ack::Status::kFailed) drop(caller, ack.detail);
      return;
    }
    case MessageKind::kRpcReply: {
      protocol::RpcReply reply;
      if (protocol::decode(frame.payload, reply)) calls_->on_reply(caller, reply);
      return;
    }
    default:
      return;
  }
}

protocol::Handshake ClusterEngine::my_handshake() const {
  protocol::Handshake mine;
  mine.role = "coordinator";
  mine.build = "0.1.0";
  mine.name = "coordinator";
  mine.incarnation = transport_->self().incarnation;
  mine.model_hash = options_.model_hash;
  mine.vocab = model().vocab;
  mine.context = context_;
  mine.slots = std::max(4096, 2 * options_.serving.sequences + 2);
  return mine;
}

const ClusterNode* ClusterEngine::assignment_of(const std::string& name) const {
  for (const ClusterNode& node : options_.nodes) {
    if (node.name == name) return &node;
  }
  std::vector<const ClusterNode*> held;
  for (const auto& [caller, guest] : guests_) {
    if (guest.assigned != nullptr) held.push_back(guest.assigned);
  }
  return range_to_fill(options_.nodes, held);
}

int32_t ClusterEngine::kv_blocks_of(const ClusterNode& node) const {
  const int64_t tokens = kv_tokens_of(node, model(), options_.serving);
  return static_cast<int32_t>(std::clamp<int64_t>(
      (tokens + policy::kBlockTokens - 1) / policy::kBlockTokens, 1, INT32_MAX));
}

// The node's hello is answered with what it shall load; its second handshake says what it did.
Result<void> ClusterEngine::on_handshake(Guest& guest, int64_t caller, const net::Frame& frame) {
  protocol::Handshake theirs;
  TRY(protocol::decode(frame.payload, theirs));
  TRY(protocol::check_handshake(my_handshake(), theirs));
  guest.theirs = theirs;
  if (guest.assigned == nullptr) {
    const ClusterNode* node = assignment_of(theirs.name);
    if (node == nullptr) return Error(Code::kUnavailable, "this cluster has no nodes in its plan");
    guest.assigned = node;
    Json assign = node->executor.is_null() ? Json::object({{"kind", "stage"}}) : node->executor;
    assign.set("model", model_.path);
    assign.set("layers", layers_json(node->layers));
    const bool emulated = !node->executor.is_null();
    // An emulated device has the KV memory that its profile says, and takes together what is there.
    assign.set("kv_blocks", emulated && node->kv_tokens <= 0 ? 0 : int64_t{kv_blocks_of(*node)});
    assign.set("max_rows", int64_t{run_rows_of(options_.serving, emulated)});
    assign.set("threads", int64_t{node->threads});
    assign.set("tensor_parallel", int64_t{node->tensor_parallel});
    assign.set("stages", int64_t{node->stages});
    if (node->rate > 0) assign.set("rate", node->rate);
    protocol::Handshake mine = my_handshake();
    mine.extra =
        Json::object({{"assign", assign},
                      {"layers", int64_t{model().layers}},
                      {"epoch", options_.epoch.value},
                      {"lease_s", to_seconds(options_.lease)},
                      {"links", EmulatedLinks::to_json(options_.links.from(theirs.name))}})
            .dump();
    return guest.channel->send(static_cast<uint16_t>(MessageKind::kHandshake), 0,
                               protocol::encode(mine), net::deadline_in(kSendPatience));
  }
  ASSIGN_OR_RETURN(const Json extra, parse_json(theirs.extra.empty() ? "{}" : theirs.extra,
                                                "a node's handshake"));
  guest.rate = std::clamp(extra["layer_rows_per_s"].as_double(), 0.0, kMostRate);
  guest.pid = extra["pid"].as_int(0);
  guest.host = extra["host"].as_string();
  policy::NodeHello hello;
  hello.caller = caller;
  hello.name = theirs.name;
  hello.incarnation = theirs.incarnation;
  hello.layers = theirs.layers;
  hello.kv_blocks = theirs.kv_blocks;
  hello.max_rows = theirs.max_rows;
  hello.stages = static_cast<int32_t>(std::clamp<int64_t>(extra["stages"].as_int(1), 1, 64));
  if (guest.rate > 0) {
    const double run =
        static_cast<double>(theirs.max_rows) * theirs.layers.size() * hello.stages / guest.rate;
    hello.longest_run = Duration(static_cast<int64_t>(std::min(run, kLongestRun) * 1e9));
  }
  adapters_->admit(caller, [this, hello, caller](const Result<void>& fine) {
    if (!fine) return drop(caller, fine.error().to_string());
    if (guests_.contains(caller)) tell_host(hello);
  });
  return {};
}

void ClusterEngine::on_beat(const Guest& guest, const net::Frame& frame) {
  protocol::Heartbeat beat;
  if (guest.node.value < 0 || !protocol::decode(frame.payload, beat)) return;
  policy::LinkReport report{guest.node, guest.theirs.incarnation, {}};
  tell_host(policy::NodeBeat{report.from, report.incarnation, beat.steps});
  if (!beat.extra.empty()) {
    const Result<Json> extra = parse_json(beat.extra, "a heartbeat");
    if (!extra) return;
    for (const Json& link : (*extra)["broken"].items()) {
      report.broken.push_back({NodeId(static_cast<int32_t>(link["to"].as_int(-1))),
                               incarnation_of(link["incarnation"].as_string()),
                               link["both"].as_bool(), link["reason"].as_string()});
    }
  }
  tell_host(report);
}

void ClusterEngine::on_results(const Guest& guest, const net::Frame& frame) {
  protocol::Results results;
  if (guest.node.value < 0) return;
  const Result<void> read = protocol::decode(frame.payload, results);
  if (!read) {
    log_warn("cluster", "results refused", {{"why", read.error().to_string()}});
    return;
  }
  if (results.epoch != host_->epoch()) return;
  if (!results.error.empty()) {
    tell_host(policy::StepFailed{guest.node, results.step, results.error});
  } else {
    tell_host(policy::StepResults{guest.node, results.step, std::move(results.rows)});
  }
}

// --- what the host decides ----------------------------------------------------------------------

ClusterEngine::Guest* ClusterEngine::guest_of(NodeId node) {
  for (auto& [caller, guest] : guests_) {
    if (guest.node == node) return &guest;
  }
  return nullptr;
}

void ClusterEngine::act(policy::WelcomeNode& action) {
  const auto at = guests_.find(action.caller);
  if (at == guests_.end()) return;
  Guest& guest = at->second;
  guest.node = action.node;
  protocol::Handshake mine = my_handshake();
  mine.node = action.node;
  mine.extra =
      Json::object({{"epoch", action.epoch.value}, {"async", options_.serving.async}}).dump();
  send(guest, MessageKind::kHandshake, protocol::encode(mine));
  send_roster();
}

// A node that takes nothing for too long is given up; if it lives, it may come again.
void ClusterEngine::send(Guest& guest, MessageKind kind, std::span<const uint8_t> bytes) {
  const Result<void> sent =
      guest.channel->send(static_cast<uint16_t>(kind), static_cast<uint32_t>(host_->epoch().value),
                          bytes, net::deadline_in(kSendPatience));
  if (sent) return;
  later_.push_back(
      policy::NodeGone{guest.node, guest.theirs.incarnation, sent.error().to_string()});
  guest.channel->close(format("{}: it takes no messages", protocol::kFencedSilent));
}

void ClusterEngine::send_roster() {
  Json nodes = Json::array();
  for (const auto& [caller, guest] : guests_) {
    if (guest.node.value < 0) continue;
    nodes.push(Json::object({{"id", int64_t{guest.node.value}},
                             {"address", guest.theirs.address},
                             {"incarnation", format("{:016x}", guest.theirs.incarnation)}}));
  }
  const std::string text = Json::object({{"nodes", nodes}}).dump();
  const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(text.data()), text.size());
  for (auto& [caller, guest] : guests_) {
    if (guest.node.value >= 0) send(guest, MessageKind::kRoster, bytes);
  }
}

void ClusterEngine::act(policy::RefuseNode& action) {
  const auto at = guests_.find(action.caller);
  if (at == guests_.end()) return;
  const Guest guest = take(at);
  guest.channel->close(action.reason);
  calls_->on_gone(action.caller, action.reason);
  complain("node refused", guest.channel->peer().name, action.reason);
}

void ClusterEngine::act(policy::FenceNode& action) {
  for (auto at = guests_.begin(); at != guests_.end(); ++at) {
    if (at->second.node != action.node || at->second.theirs.incarnation != action.incarnation) {
      continue;
    }
    const int64_t caller = at->first;
    const Guest guest = take(at);
    roster_stale_ = true;
    guest.channel->close(format(
        "{}: {}", action.silent ? protocol::kFencedSilent : protocol::kFenced, action.reason));
    calls_->on_gone(caller, action.reason);
    return;
  }
}

void ClusterEngine::act(policy::AskPlan& ask) {
  if (options_.on_nodes) options_.on_nodes(host_->nodes());
  std::map<NodeId, NodeRate> rates;
  for (const auto& [node, layers] : ask.nodes) {
    if (const Guest* guest = guest_of(node)) rates[node] = {guest->theirs.name, guest->rate};
  }
  ClusterPlan plan = plan_cluster(ask, rates, model().layers, options_.planned_links);
  report_ = std::move(plan.report);
  later_.push_back(std::move(plan.made));
}

plan::FlowReport ClusterEngine::plan_report() const {
  return ask<plan::FlowReport>([this] { return report_; }).value_or(plan::FlowReport());
}

void ClusterEngine::act(policy::SendStep& action) {
  Guest* guest = guest_of(action.node);
  if (guest != nullptr) send(*guest, MessageKind::kStep, protocol::encode(action.message));
}

void ClusterEngine::act(policy::SendFeed& action) {
  Guest* guest = guest_of(action.node);
  if (guest == nullptr) return;
  protocol::TokenFeed feed;
  feed.epoch = host_->epoch();
  feed.step = action.step;
  feed.tokens = std::move(action.tokens);
  send(*guest, MessageKind::kTokenFeed, protocol::encode(feed));
}

void ClusterEngine::act(policy::RequestUpdate& update) {
  GenerationEvent event;
  event.id = update.id;
  for (policy::ScoredToken& token : update.tokens) {
    event.tokens.push_back(generated(std::move(token)));
  }
  generation_tokens_ += static_cast<int64_t>(event.tokens.size());
  if (update.last_is_stop && !event.tokens.empty()) event.tokens.back().is_stop = true;
  for (policy::ScoredToken& token : update.prompt_tokens) {
    event.prompt_tokens.push_back(generated(std::move(token)));
  }
  event.embedding = std::move(update.embedding);
  event.cached_tokens = update.cached_tokens;
  event.queued = update.queued;
  event.finish = finish_reason(update.finish);
  if (event.finish == FinishReason::kError) event.error = Error(update.code, update.error);
  if (event.finish != FinishReason::kNone) release_adapter(update.id);
  if (event.finish != FinishReason::kNone) unfinished_.fetch_sub(1, std::memory_order_acq_rel);
  events_.push_back(std::move(event));
}

void ClusterEngine::act(policy::CoordinatorNote& action) {
  if (action.level == policy::CoordinatorNote::kInfo) {
    log_info("cluster", action.text);
  } else {
    log_warn("cluster", action.text);
    remember_complaint(action.text);
  }
}

}  // namespace towline::serve
