// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/node_session.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/fmt.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "base/rng.hpp"
#include "net/transport.hpp"
#include "policy/peer.hpp"
#include "protocol/messages.hpp"
#include "worker/node_links.hpp"
#include "worker/node_ranks.hpp"

namespace towline::worker {
namespace {

using protocol::MessageKind;

constexpr const char* kBuild = "0.1.0";
constexpr Duration kBeat = milliseconds(500);
constexpr Duration kReachSlice = seconds(3);    // of one try to reach the coordinator
constexpr Duration kRunPatience = seconds(60);  // with a run that the conversation left behind
constexpr Duration kTellPatience = seconds(5);  // with a coordinator that takes nothing
constexpr Duration kRetry = milliseconds(2);  // when a channel took nothing for want of credits
constexpr double kLeastLease = 3, kMostLease = 3600;  // seconds of silence of a peer
constexpr int32_t kMostRanks = 64;
constexpr int32_t kMostSlots = 1 << 22;  // twice the most sequences of a scenario, and more
constexpr int kMeasures = 3;

class NodeAgent {
 public:
  NodeAgent(const NodeAgentOptions& options, const NodePlace& place, NodeHoldings& kept,
            const std::stop_token& stop)
      : o_(options), place_(place), kept_(kept), stop_(stop) {}

  Result<void> run() {
    const std::stop_callback wake(stop_, [this] { inbox_.wake(); });
    Result<void> ended = converse();
    // What ended it may lie unread behind what failed for it.
    while (std::optional<net::Inbox::Event> event = inbox_.wait(net::kNoWait)) {
      const bool last = coordinator_ && event->channel == coordinator_->id() &&
                        event->kind == net::Inbox::Event::kClosed;
      if (last) note_end(*event);
    }
    if (coordinator_) coordinator_->close(ended ? "the node leaves" : ended.error().message());
    hand_back_ranks();
    return ended;
  }

 private:
  Result<void> converse() {
    TRY(connect());
    net::Deadline next_beat = net::steady_now();
    for (;;) {
      if (stop_.stop_requested()) {
        coordinator_->close("the node was told to leave");
        return {};
      }
      if (net::steady_now() >= next_beat) {
        next_beat = net::deadline_in(kBeat);
        if (peer_) (void)beat();
        if (place_.superseded && place_.superseded(std::max(place_.epoch, epoch_.value))) {
          return Error(Code::kUnavailable, "a coordinator of a later epoch leads now");
        }
      }
      const bool stuck = links_->flush(epoch_);
      if (links_->news() && beat()) links_->told();
      links_->tick(net::steady_now());
      auto event = inbox_.wait(stuck ? net::deadline_in(kRetry)
                                     : std::min(next_beat, links_->next_deadline()));
      if (event) {
        ASSIGN_OR_RETURN(const bool ended, handle(*event));
        if (ended) return {};
      }
      TRY(take_from_ranks());
    }
  }

  // The ranks, with their weights, are for the next conversation. What is under way ends first: its
  // answer would be taken for one of the next.
  void hand_back_ranks() {
    const net::Deadline patience = net::deadline_in(kRunPatience);
    while (ranks_ && outstanding_ > 0 && !stop_.stop_requested()) {
      while (std::optional<RankEvent> event = ranks_->take()) {
        if (std::holds_alternative<RanksLost>(*event)) {
          ranks_.reset();
          break;
        }
        --outstanding_;
      }
      if (outstanding_ == 0 || !ranks_) break;
      if (net::steady_now() >= patience) {
        ranks_.reset();
        break;
      }
      (void)inbox_.wait(net::deadline_in(kBeat));
    }
    kept_.waker->set(nullptr);
    if (ranks_ && staged_ == 0 && !asleep_) kept_.ranks = std::move(ranks_);
  }

  // Activations as they came, and where the rows are: these are most of what a
  // node moves, and not copied here.
  struct Input {
    std::vector<uint8_t> payload;
    size_t offset = 0;
  };

  Result<void> connect() {
    net::TransportOptions t;
    ASSIGN_OR_RETURN(t.kind, net::kind_of_address(place_.address));
    if (!o_.advertise.empty() &&
        !o_.advertise.starts_with(format("{}://", net::kind_name(t.kind)))) {
      return errorf(Code::kInvalidArgument,
                    "other nodes cannot dial '{}': this cluster's addresses begin with {}://",
                    o_.advertise, net::kind_name(t.kind));
    }
    t.identity = o_.name;
    t.key_file = o_.key_file;
    t.insecure = o_.insecure;
    t.listen = o_.listen;
    if (t.listen.empty() && o_.listen_towards) t.listen = o_.listen_towards(place_.address);
    if (o_.outbound_only) {
      t.listen.clear();
    } else if (t.listen.empty()) {
      // shm has names instead of ports.
      t.listen = t.kind == net::TransportKind::kShm
                     ? format("shm://towline-{}-{}", ::getpid(), o_.name)
                     : format("{}://127.0.0.1:0", net::kind_name(t.kind));
    }
    ASSIGN_OR_RETURN(transport_, net::Transport::open(std::move(t), inbox_));
    links_.emplace(*transport_);
    ASSIGN_OR_RETURN(coordinator_, reach());
    mine_.role = "node";
    mine_.build = kBuild;
    mine_.name = o_.name;
    mine_.address = o_.advertise.empty() ? transport_->address() : o_.advertise;
    mine_.incarnation = transport_->self().incarnation;
    return tell(MessageKind::kHandshake, protocol::encode(mine_));
  }

  // In short tries, so that a stop and another coordinator are noticed.
  Result<std::shared_ptr<net::Channel>> reach() {
    for (;;) {
      const net::Deadline now = net::steady_now();
      Result<std::shared_ptr<net::Channel>> channel =
          transport_->connect(place_.address, std::min(place_.latest, now + kReachSlice));
      if (channel) return channel;
      const Code code = channel.error().code();
      const bool later = code == Code::kUnavailable || code == Code::kDeadline;
      const bool other = place_.moved && place_.moved();
      if (!later || other || net::steady_now() >= place_.latest ||
          stop_.stop_requested()) {
        return std::move(channel.error())
            .context(format("reaching the coordinator at {}", place_.address));
      }
    }
  }

  Result<void> tell(MessageKind kind, std::vector<uint8_t> bytes) {
    Result<void> sent =
        coordinator_->send(static_cast<uint16_t>(kind), static_cast<uint32_t>(epoch_.value), bytes,
                           net::deadline_in(kTellPatience));
    if (!sent && sent.error().code() == Code::kExhausted) {
      // What it was not told it would wait for: another conversation.
      kept_.may_go_on = true;
      coordinator_->close("the coordinator takes nothing");
    }
    return sent;
  }

  // True when the conversation with the coordinator has ended.
  Result<bool> handle(net::Inbox::Event& event) {
    using Event = net::Inbox::Event;
    const bool from_coordinator = coordinator_ && event.channel == coordinator_->id();
    switch (event.kind) {
      case Event::kClosed:
        if (from_coordinator) {
          if (event.reason.find(protocol::kClusterEnds) != std::string::npos) return true;
          note_end(event);
          return errorf(Code::kUnavailable, "the coordinator ended the conversation: {}",
                        event.reason);
        }
        links_->on_closed(event.channel, event.reason);
        return false;
      case Event::kOpened:
        links_->on_opened(event.opened);
        return false;
      case Event::kFrame:
        if (from_coordinator) {
          TRY(on_coordinator(event.frame));
        } else {
          on_node(event.frame);
        }
        return false;
      default:
        return false;
    }
  }

  void note_end(const net::Inbox::Event& event) {
    kept_.may_go_on = kept_.may_go_on || event.end == net::ChannelEnd::kLost ||
                      event.reason.find(protocol::kFencedSilent) != std::string::npos;
  }

  Result<void> on_coordinator(net::Frame& frame) {
    switch (static_cast<MessageKind>(frame.kind)) {
      case MessageKind::kHandshake:
        return on_handshake(frame);
      case MessageKind::kRoster:
        return on_roster(frame);
      case MessageKind::kStep: {
        policy::NodeStep step;
        TRY(protocol::decode(frame.payload, step));
        if (!peer_) return Error(Code::kDataCorrupt, "a step came before the welcome");
        std::vector<policy::PeerAction> actions;
        message_ = frame.payload;
        peer_->on_message(std::move(step), actions);
        perform(actions);
        return {};
      }
      case MessageKind::kRpcRequest:
        return on_call(frame);
      case MessageKind::kTokenFeed:  // of a lane whose last node cannot reach this one
        on_node(frame);
        return {};
      default:
        return {};
    }
  }

  Result<void> on_handshake(const net::Frame& frame) {
    protocol::Handshake theirs;
    TRY(protocol::decode(frame.payload, theirs));
    TRY(protocol::check_handshake(mine_, theirs));
    ASSIGN_OR_RETURN(const Json extra, parse_json(theirs.extra, "the coordinator's handshake"));
    const int64_t epoch = extra["epoch"].as_int();
    if (epoch < kept_.epoch) {
      return errorf(Code::kUnavailable,
                    "the coordinator at {} has epoch {}, this node knows one of epoch {}: "
                    "it is an old one",
                    place_.address, epoch, kept_.epoch);
    }
    if (!extra["assign"].is_null()) {
      if (!extra["assign"].is_object()) {
        return Error(Code::kDataCorrupt,
                     "the coordinator's handshake assigns no layers but something else");
      }
      TRY(emulate_links(extra["links"]));
      // A lease is as long on both sides, and between nodes.
      const double lease = std::clamp(extra["lease_s"].as_double(0), kLeastLease, kMostLease);
      transport_->set_peer_timeout(Duration(static_cast<int64_t>(lease * 1e9)));
      return load(extra["assign"], theirs);
    }
    if (!ranks_) return Error(Code::kDataCorrupt, "the welcome came before any layers");
    node_ = theirs.node;
    epoch_ = Epoch(epoch);
    kept_.epoch = epoch;
    kept_.welcomed = true;
    async_ = extra["async"].as_bool();
    policy::PeerLimits limits;
    limits.run_rows = mine_.max_rows;
    limits.runs = stages_;
    limits.mirror = mirror_limits(theirs);
    limits.mirror.blocks = mine_.kv_blocks;
    limits.mirror.layers = mine_.layers;
    peer_.emplace(limits);
    log_info("node", "ready", {{"name", o_.name}, {"node", node_}, {"layers", layers_text()},
                               {"kv_blocks", mine_.kv_blocks}});
    return {};
  }

  // {"peer": "delay=50ms,...", ...}: what this node sends there suffers so.
  Result<void> emulate_links(const Json& links) {
    if (!links.is_object()) return {};
    for (const auto& [peer, text] : links.members()) {
      ASSIGN_OR_RETURN(const net::Faults faults, net::parse_faults(text.as_string()));
      transport_->set_faults(peer, faults);
    }
    return {};
  }

  std::string layers_text() const {
    return format("[{}, {})", mine_.layers.begin, mine_.layers.end);
  }

  // What the coordinator may claim in a message; blocks and layers are the ranks'.
  policy::MirrorLimits mirror_limits(const protocol::Handshake& theirs) const {
    policy::MirrorLimits limits;
    limits.slots = std::clamp(theirs.slots, 1, kMostSlots);
    limits.context = std::max(theirs.context, 1);
    limits.vocab = std::max(theirs.vocab, 1);
    limits.step_rows = mine_.max_rows;
    return limits;
  }

  Result<void> load(const Json& assignment, const protocol::Handshake& theirs) {
    if (ranks_) return Error(Code::kDataCorrupt, "the coordinator assigned layers twice");
    Json description = assignment;
    if (!o_.model.empty()) description.set("model", o_.model);
    if (o_.threads > 0) description.set("threads", o_.threads);
    if (description["kind"].as_string() == "stage") {
      ASSIGN_OR_RETURN(mine_.model_hash, model_fingerprint(description["model"].as_string()));
      TRY(protocol::check_handshake(mine_, theirs)
              .context(format("the model at {}", description["model"].as_string())));
    }
    const int64_t assigned = description["tensor_parallel"].as_int(1);
    const int64_t ranks = o_.tensor_parallel > 0 ? o_.tensor_parallel : assigned;
    const int64_t stages = o_.stages > 0 ? o_.stages : description["stages"].as_int(1);
    if (ranks < 1 || stages < 1 || stages > kMostRanks || ranks > kMostRanks / stages) {
      return errorf(Code::kInvalidArgument,
                    "a node of {} stages of {} ranks is not possible; 1 to {} ranks in all are",
                    stages, ranks, kMostRanks);
    }
    NodeRanksOptions options;
    options.ranks = static_cast<int32_t>(ranks);
    options.stages = stages_ = static_cast<int32_t>(stages);
    mine_.max_rows = static_cast<int32_t>(description["max_rows"].as_int(512));
    options.limits = mirror_limits(theirs);
    kept_.waker->set(&inbox_);
    options.wake = [waker = kept_.waker] { waker->wake(); };
    // What was loaded in an earlier conversation and fits this one stays.
    const std::string what =
        format("{} x{}x{} {:016x} slots {} context {} vocabulary {}", description.dump(), stages,
               ranks, mine_.model_hash, theirs.slots, theirs.context, theirs.vocab);
    const bool fits = kept_.ranks && kept_.what == what;
    options.executor = std::move(description);
    if (fits) {
      ranks_ = std::move(kept_.ranks);
      TRY(call_now(Method::kForget, Json::object()));
      log_info("node", "the weights stay", {{"name", o_.name}});
    } else {
      kept_.ranks.reset();
      ASSIGN_OR_RETURN(ranks_, start_ranks(std::move(options)));
      kept_.what = what;
      kept_.rate = 0;
    }
    const Geometry& geometry = ranks_->geometry();
    mine_.layers = geometry.layers;
    mine_.kv_blocks = geometry.kv_blocks;
    mine_.hidden_width = geometry.hidden_width;
    mine_.max_rows = geometry.max_rows;
    double rate = assignment["rate"].as_double(kept_.rate);
    if (rate <= 0) {
      ASSIGN_OR_RETURN(rate, measure_rate());
    }
    kept_.rate = rate;
    char host[256] = "";
    ::gethostname(host, sizeof(host) - 1);
    mine_.extra = Json::object({{"layer_rows_per_s", rate},
                                {"ranks", ranks * stages},
                                {"stages", stages},
                                {"pid", int64_t{::getpid()}},
                                {"host", std::string(host)}})
                      .dump();
    return tell(MessageKind::kHandshake, protocol::encode(mine_));
  }

  // Rows a second through one layer, from a few runs of 16 rows: what the coordinator plans with
  // when it has no profile of the machine. Leaves nothing behind but bytes in KV block 0.
  Result<double> measure_rate() {
    double best = 0;
    for (int i = 0; i < kMeasures; ++i) {
      ASSIGN_OR_RETURN(const Json answers,
                       call_now(Method::kDummyBatch, Json::object({{"rows", 16}})));
      double slowest = 0;
      for (const Json& answer : answers.items()) {
        slowest = std::max(slowest, answer["seconds"].as_double());
      }
      const double rows = answers[size_t{0}]["rows"].as_double();
      best = std::max(best, rows * mine_.layers.size() / std::max(slowest, 1e-9));
    }
    return best;
  }

  // Before the welcome, when nothing else goes on.
  Result<Json> call_now(Method method, const Json& args) {
    const uint64_t id = next_call_++;
    give_call(id, method, args);
    for (;;) {
      auto event = inbox_.wait(net::deadline_in(kBeat));
      if (event && event->kind != net::Inbox::Event::kWake) {
        ASSIGN_OR_RETURN(const bool ended, handle(*event));
        if (ended) return Error(Code::kCancelled, "the cluster ended while this node loaded");
      }
      if (stop_.stop_requested()) {
        return Error(Code::kCancelled, "the node was told to leave");
      }
      while (std::optional<RankEvent> from_ranks = ranks_->take()) {
        if (const auto* lost = std::get_if<RanksLost>(&*from_ranks)) {
          const std::string reason = lost->reason;
          ranks_.reset();
          return Error(Code::kUnavailable, reason);
        }
        --outstanding_;
        auto* call = std::get_if<CallEnded>(&*from_ranks);
        if (call != nullptr && call->id == id) return std::move(call->answer);
      }
    }
  }

  // {"nodes": [{"id", "address", "incarnation"}]}: where the others are.
  Result<void> on_roster(const net::Frame& frame) {
    const std::string_view text(reinterpret_cast<const char*>(frame.payload.data()),
                                frame.payload.size());
    ASSIGN_OR_RETURN(const Json roster, parse_json(text, "the roster"));
    links_->on_roster(roster);
    return {};
  }

  void on_node(net::Frame& frame) {
    if (!peer_) return;
    std::vector<policy::PeerAction> actions;
    if (static_cast<MessageKind>(frame.kind) == MessageKind::kActivations) {
      protocol::ActivationsHead head;
      std::span<const float> rows;
      const Result<void> read = protocol::decode(frame.payload, head, rows);
      if (!read || head.epoch != epoch_ || head.width != mine_.hidden_width) {
        log_warn("node", "activations refused",
                 {{"why", read ? "another epoch or width" : read.error().to_string()}});
        return;
      }
      const policy::InputId id(next_input_++);
      const auto* at = reinterpret_cast<const uint8_t*>(rows.data());
      const auto offset = static_cast<size_t>(at - frame.payload.data());
      inputs_[id.value] = {std::move(frame.payload), offset};
      peer_->on_input(head.step, head.rows, id, actions);
    } else if (static_cast<MessageKind>(frame.kind) == MessageKind::kTokenFeed) {
      protocol::TokenFeed feed;
      if (!protocol::decode(frame.payload, feed) || feed.epoch != epoch_) return;
      peer_->on_feed(std::move(feed.tokens), actions);
    }
    perform(actions);
  }

  void perform(std::vector<policy::PeerAction>& actions) {
    for (policy::PeerAction& action : actions) {
      if (auto* step = std::get_if<policy::ForwardStep>(&action)) {
        ranks_->step(std::move(step->message), std::move(message_));
      } else if (auto* feed = std::get_if<policy::ForwardFeed>(&action)) {
        ranks_->feed(std::move(feed->tokens));
      } else if (auto* drop = std::get_if<policy::DropInput>(&action)) {
        inputs_.erase(drop->input.value);
      } else if (auto* run = std::get_if<policy::RunSteps>(&action)) {
        start_run(std::move(*run));
      } else if (auto* ask = std::get_if<policy::AskFullForm>(&action)) {
        protocol::Ack ack;
        ack.epoch = epoch_;
        ack.number = peer_->mirror().number();
        ack.status = protocol::Ack::Status::kNeedSync;
        ack.detail = ask->reason;
        (void)tell(MessageKind::kAck, protocol::encode(ack));
      }
    }
  }

  void start_run(policy::RunSteps run) {
    const auto width = static_cast<size_t>(mine_.hidden_width);
    RankRun job;
    size_t total = 0;
    for (const policy::RunPiece& piece : run.pieces) {
      total += static_cast<size_t>(piece.row_count()) * width;
    }
    job.hidden.reserve(total);
    for (policy::RunPiece& piece : run.pieces) {
      const size_t floats = static_cast<size_t>(piece.row_count()) * width;
      if (piece.input.value >= 0) {
        const auto input = inputs_.extract(piece.input.value);
        const auto* rows = reinterpret_cast<const float*>(input.mapped().payload.data() +
                                                          input.mapped().offset);
        job.hidden.insert(job.hidden.end(), rows, rows + floats);
      } else {
        job.hidden.resize(job.hidden.size() + floats);
      }
      job.pieces.push_back(std::move(piece));
    }
    ++outstanding_;
    ranks_->run(std::move(job));
  }

  Result<void> take_from_ranks() {
    if (!ranks_) return {};
    while (std::optional<RankEvent> event = ranks_->take()) {
      if (auto* lost = std::get_if<RanksLost>(&*event)) {
        // A node is all of its ranks: the requests that run here are routed elsewhere.
        const std::string reason = lost->reason;
        ranks_.reset();
        return Error(Code::kUnavailable, reason);
      }
      --outstanding_;
      if (auto* call = std::get_if<CallEnded>(&*event)) {
        reply(*call);
        continue;
      }
      auto& done = std::get<RunEnded>(*event);
      report(done);
      std::vector<policy::PeerAction> actions;
      if (done.state_lost) peer_->on_state_lost(done.error->to_string(), actions);
      peer_->on_run_done(actions);
      perform(actions);
    }
    return {};
  }

  // A collective call of the coordinator: on all ranks of this node, one answer back.
  Result<void> on_call(const net::Frame& frame) {
    protocol::RpcRequest request;
    TRY(protocol::decode(frame.payload, request));
    const MethodRow* row = find_method(request.method);
    Result<Json> args =
        parse_json(request.args.empty() ? "{}" : request.args, "a call's arguments");
    // How a node's life begins, begins anew and ends is its own business.
    const bool own = row != nullptr && (row->method == Method::kInitModel ||
                                        row->method == Method::kShutdown ||
                                        row->method == Method::kForget);
    if (row == nullptr || own || !ranks_ || !args) {
      CallEnded refused{next_call_++, Error(Code::kUnsupported,
                                            format("method {} cannot be called here",
                                                   request.method))};
      if (row != nullptr && !own && !args) refused.answer = std::move(args);
      calls_[refused.id] = request.id;
      reply(refused);
      return {};
    }
    const uint64_t id = next_call_++;
    calls_[id] = request.id;
    // What kForget does not undo.
    if (row->method == Method::kStageAdapter) ++staged_;
    if (row->method == Method::kCommitAdapter || row->method == Method::kDiscardAdapter) --staged_;
    if (row->method == Method::kSleep || row->method == Method::kWake) {
      asleep_ = row->method == Method::kSleep;
    }
    give_call(id, row->method, *args);
    return {};
  }

  void give_call(uint64_t id, Method method, const Json& args) {
    ++outstanding_;
    ranks_->call(id, method, args);
  }

  void reply(CallEnded& call) {
    const auto asked = calls_.extract(call.id);
    if (asked.empty()) return;
    protocol::RpcReply reply;
    reply.id = asked.mapped();
    reply.ok = call.answer.has_value();
    if (call.answer) {
      reply.result = call.answer->dump();
    } else {
      reply.code = call.answer.error().code();
      reply.message = call.answer.error().to_string();
    }
    (void)tell(MessageKind::kRpcReply, protocol::encode(reply));
  }

  void report(RunEnded& done) {
    const auto width = static_cast<size_t>(mine_.hidden_width);
    const auto output = std::make_shared<const std::vector<float>>(std::move(done.run.hidden));
    size_t at = 0;
    for (const policy::RunPiece& piece : done.run.pieces) {
      const size_t floats = static_cast<size_t>(piece.row_count()) * width;
      const std::span<const float> rows(output->data() + at, floats);
      at += floats;
      if (!peer_->wanted(piece.step.lane)) continue;
      if (done.error || piece.hop.samples()) {
        protocol::Results results;
        results.epoch = epoch_;
        results.step = piece.step;
        if (done.error) results.error = done.error->to_string();
        for (policy::RowResult& row : done.results) {
          if (row.step == piece.step) results.rows.push_back(std::move(row));
        }
        if (async_ && !done.error) feed_sampled(piece, results);
        (void)tell(MessageKind::kResults, protocol::encode(results));
      } else {
        pass_on(piece, output, rows);
      }
    }
  }

  // The first node of the lane may be waiting for these tokens; the
  // coordinator gets its copy as well.
  void feed_sampled(const policy::RunPiece& piece, const protocol::Results& results) {
    protocol::TokenFeed feed;
    feed.epoch = epoch_;
    feed.step = piece.step;
    for (const policy::RowResult& row : results.rows) {
      if (row.sampled) feed.tokens.push_back({row.slot, row.position, row.token.token});
    }
    if (feed.tokens.empty()) return;
    // The first node waits for them, this one does not.
    if (piece.hop.first != node_) {
      links_->send(piece.hop.first, {MessageKind::kTokenFeed, protocol::encode(feed), nullptr, {}});
    }
    std::vector<policy::PeerAction> actions;
    peer_->on_feed(std::move(feed.tokens), actions);
    std::erase_if(actions, [](const policy::PeerAction& action) {  // the ranks know
      return std::holds_alternative<policy::ForwardFeed>(action);
    });
    perform(actions);
  }

  void pass_on(const policy::RunPiece& piece,
               const std::shared_ptr<const std::vector<float>>& output,
               std::span<const float> rows) {
    protocol::ActivationsHead head;
    head.epoch = epoch_;
    head.step = piece.step;
    head.rows = piece.row_count();
    head.width = mine_.hidden_width;
    links_->send(piece.hop.next, {MessageKind::kActivations, protocol::encode(head), output, rows});
  }

  Result<void> beat() {
    protocol::Heartbeat beat;
    beat.epoch = epoch_;
    beat.node = node_;
    beat.incarnation = mine_.incarnation;
    beat.number = peer_ ? peer_->mirror().number() : -1;
    beat.steps = peer_ ? peer_->runs() : 0;
    beat.pending = peer_ ? static_cast<int32_t>(peer_->mirror().all_pending().size()) : 0;
    beat.sent_ns = net::steady_now().ns;
    const Json broken = links_->broken();
    if (broken.size() > 0) beat.extra = Json::object({{"broken", broken}}).dump();
    return tell(MessageKind::kHeartbeat, protocol::encode(beat));
  }

  const NodeAgentOptions o_;
  const NodePlace place_;
  NodeHoldings& kept_;
  const std::stop_token& stop_;
  net::Inbox inbox_;
  std::unique_ptr<net::Transport> transport_;  // after the inbox: closes first
  std::optional<NodeLinks> links_;             // from the transport's opening on
  std::shared_ptr<net::Channel> coordinator_;
  protocol::Handshake mine_;
  NodeId node_{-1};
  Epoch epoch_{0};
  std::optional<policy::Peer> peer_;           // from the welcome on
  std::unique_ptr<NodeRanks> ranks_;           // from the assignment on
  int64_t outstanding_ = 0;                    // runs and calls given to them
  int64_t staged_ = 0;                         // adapters, not committed
  bool asleep_ = false;
  std::vector<uint8_t> message_;               // the step message being applied, as it came
  std::map<uint64_t, uint64_t> calls_;         // ours -> the coordinator's
  uint64_t next_call_ = 1;
  std::map<int64_t, Input> inputs_;
  int64_t next_input_ = 0;
  bool async_ = false;
  int32_t stages_ = 1;
};

}  // namespace

Result<void> run_session(const NodeAgentOptions& options, const NodePlace& place,
                         NodeHoldings& kept, const std::stop_token& stop) {
  return std::make_unique<NodeAgent>(options, place, kept, stop)->run();
}

}  // namespace towline::worker
