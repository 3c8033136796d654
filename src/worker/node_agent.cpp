// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/node_agent.hpp"

#include <chrono>
#include <cstring>
#include <deque>
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
#include "worker/emulated_executor.hpp"
#include "worker/solo_rank.hpp"
#include "worker/stage_executor.hpp"

namespace towline::worker {
namespace {

using protocol::MessageKind;

constexpr const char* kBuild = "0.1.0";
constexpr Duration kBeat = milliseconds(500);
constexpr Duration kRetry = milliseconds(2);  // when a channel took nothing for want of credits

Result<std::unique_ptr<Executor>> make_executor(const Json& description) {
  if (description["kind"].as_string() == "emulated") {
    ASSIGN_OR_RETURN(const auto options, EmulatedExecutorOptions::parse(description));
    ASSIGN_OR_RETURN(auto made, EmulatedExecutor::create(options, {}));
    return std::unique_ptr<Executor>(std::move(made));
  }
  ASSIGN_OR_RETURN(const auto options, StageExecutorOptions::parse(description));
  ASSIGN_OR_RETURN(auto made, StageExecutor::create(options, {}));
  return std::unique_ptr<Executor>(std::move(made));
}

// Rows a second through one layer, from a few runs of 16 rows: what the coordinator plans with when
// it has no profile of the machine. Leaves nothing behind but bytes in KV block 0.
double measure_rate(Executor& executor, int32_t total_layers) {
  constexpr int32_t kRows = 16;
  if (executor.max_rows() < kRows) return 0;
  policy::SlotState state;
  state.live = true;
  state.spec.prompt_length = kRows;
  state.tokens.assign(kRows, 0);
  state.blocks = {0};
  const std::vector<Row> rows = {{0, &state, 0, kRows, kRows, false}};
  RunItem item;
  item.hop.layers = executor.layers();
  if (executor.layers().begin > 0) item.hop.previous = NodeId(0);
  if (executor.layers().end < total_layers) item.hop.next = NodeId(0);
  item.rows = rows;
  std::vector<float> hidden(static_cast<size_t>(kRows) *
                            static_cast<size_t>(executor.hidden_width()));
  std::vector<RowResult> results;
  double best = 0;
  for (int i = 0; i < 3; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    if (!executor.run({&item, 1}, hidden, results)) return 0;
    const double taken =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    best = std::max(best, kRows * executor.layers().size() / std::max(taken, 1e-9));
  }
  return best;
}

class NodeAgent {
 public:
  NodeAgent(const NodeAgentOptions& options, const std::atomic<bool>& stop)
      : o_(options), stop_(stop) {}

  Result<void> run() {
    TRY(connect());
    net::Deadline next_beat = net::steady_now();
    for (;;) {
      if (stop_.load(std::memory_order_relaxed)) {
        coordinator_->close("the node was told to leave");
        return {};
      }
      if (net::steady_now() >= next_beat) {
        next_beat = net::deadline_in(kBeat);
        if (peer_) beat();
      }
      const bool stuck = flush_links();
      auto event = inbox_.wait(stuck ? net::deadline_in(kRetry) : next_beat);
      if (event) {
        ASSIGN_OR_RETURN(const bool ended, handle(*event));
        if (ended) return {};
      }
      finish_runs();
    }
  }

 private:
  struct Link {                       // to another node
    std::string address, incarnation;
    std::shared_ptr<net::Channel> channel;
    std::deque<std::vector<uint8_t>> waiting;  // frames, activations or feeds
    std::deque<MessageKind> kinds;
    std::string broken;               // why it cannot be reached
  };

  Result<void> connect() {
    net::TransportOptions t;
    ASSIGN_OR_RETURN(t.kind, net::kind_of_address(o_.coordinator));
    t.identity = o_.name;
    t.key_file = o_.key_file;
    t.insecure = o_.insecure;
    t.listen = o_.listen.empty() ? format("{}://127.0.0.1:0", net::kind_name(t.kind)) : o_.listen;
    ASSIGN_OR_RETURN(transport_, net::Transport::open(std::move(t), inbox_));
    Result<std::shared_ptr<net::Channel>> channel = transport_->connect(
        o_.coordinator, net::deadline_in(seconds(o_.connect_seconds)));
    if (!channel) {
      return std::move(channel.error()).context(format("reaching the coordinator at {}",
                                                       o_.coordinator));
    }
    coordinator_ = std::move(channel).value();
    mine_.role = "node";
    mine_.build = kBuild;
    mine_.name = o_.name;
    mine_.address = transport_->address();
    mine_.incarnation = transport_->self().incarnation;
    return tell(MessageKind::kHandshake, protocol::encode(mine_));
  }

  Result<void> tell(MessageKind kind, std::vector<uint8_t> bytes) {
    return coordinator_->send(static_cast<uint16_t>(kind), static_cast<uint32_t>(epoch_.value),
                              bytes, net::deadline_in(seconds(5)));
  }

  // True when the conversation with the coordinator has ended.
  Result<bool> handle(net::Inbox::Event& event) {
    using Event = net::Inbox::Event;
    const bool from_coordinator = coordinator_ && event.channel == coordinator_->id();
    switch (event.kind) {
      case Event::kClosed:
        if (from_coordinator) {
          if (event.reason.find("cluster ends") != std::string::npos) return true;
          return errorf(Code::kUnavailable, "the coordinator ended the conversation: {}",
                        event.reason);
        }
        for (auto& [id, link] : links_) {
          if (!link.channel || link.channel->id() != event.channel) continue;
          link.channel.reset();
          link.broken = event.reason;
          link.waiting.clear();
          link.kinds.clear();
          beat();
        }
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

  Result<void> on_coordinator(const net::Frame& frame) {
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
        peer_->on_message(std::move(step), actions);
        perform(actions);
        return {};
      }
      default:
        return {};
    }
  }

  Result<void> on_handshake(const net::Frame& frame) {
    protocol::Handshake theirs;
    TRY(protocol::decode(frame.payload, theirs));
    TRY(protocol::check_handshake(mine_, theirs));
    ASSIGN_OR_RETURN(const Json extra, parse_json(theirs.extra, "the coordinator's handshake"));
    if (!extra["assign"].is_null()) {
      TRY(emulate_links(extra["links"]));
      return load(extra["assign"], theirs);
    }
    node_ = theirs.node;
    epoch_ = Epoch(extra["epoch"].as_int());
    async_ = extra["async"].as_bool();
    policy::PeerLimits limits;
    limits.run_rows = mine_.max_rows;
    limits.mirror.slots = theirs.slots;
    limits.mirror.context = theirs.context;
    limits.mirror.vocab = theirs.vocab;
    limits.mirror.blocks = mine_.kv_blocks;
    limits.mirror.layers = mine_.layers;
    limits.mirror.step_rows = mine_.max_rows;
    peer_.emplace(limits);
    rank_ = std::make_unique<SoloRank>(std::move(executor_), limits.mirror,
                                       [this] { inbox_.wake(); });
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

  Result<void> load(const Json& assignment, const protocol::Handshake& theirs) {
    Json description = assignment;
    if (!o_.model.empty()) description.set("model", o_.model);
    if (o_.threads > 0) description.set("threads", o_.threads);
    if (description["kind"].as_string() == "stage") {
      ASSIGN_OR_RETURN(mine_.model_hash, model_fingerprint(description["model"].as_string()));
      TRY(protocol::check_handshake(mine_, theirs)
              .context(format("the model at {}", description["model"].as_string())));
    }
    ASSIGN_OR_RETURN(executor_, make_executor(description));
    mine_.layers = executor_->layers();
    mine_.kv_blocks = executor_->kv_blocks();
    mine_.hidden_width = executor_->hidden_width();
    mine_.max_rows = executor_->max_rows();
    const auto total = static_cast<int32_t>(extra_int(theirs, "layers"));
    mine_.extra = Json::object({{"layer_rows_per_s", measure_rate(*executor_, total)}}).dump();
    return tell(MessageKind::kHandshake, protocol::encode(mine_));
  }

  static int64_t extra_int(const protocol::Handshake& shake, std::string_view key) {
    const Result<Json> extra = parse_json(shake.extra, "handshake");
    return extra && (*extra)[key].is_int() ? (*extra)[key].as_int() : 0;
  }

  // {"nodes": [{"id", "address", "incarnation"}]}: where the others are.
  Result<void> on_roster(const net::Frame& frame) {
    const std::string_view text(reinterpret_cast<const char*>(frame.payload.data()),
                                frame.payload.size());
    ASSIGN_OR_RETURN(const Json roster, parse_json(text, "the roster"));
    for (size_t i = 0; i < roster["nodes"].size(); ++i) {
      const Json& entry = roster["nodes"][i];
      const NodeId id(static_cast<int32_t>(entry["id"].as_int()));
      Link& link = links_[id];
      const std::string address = entry["address"].as_string();
      const std::string incarnation = entry["incarnation"].as_string();
      if (link.address == address && link.incarnation == incarnation) continue;
      if (link.channel) link.channel->close("the node was started again");
      link = Link{};
      link.address = address;
      link.incarnation = incarnation;
    }
    return {};
  }

  void on_node(const net::Frame& frame) {
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
      inputs_[id.value].assign(rows.begin(), rows.end());
      peer_->on_input(head.step, head.rows, id, actions);
    } else if (static_cast<MessageKind>(frame.kind) == MessageKind::kTokenFeed) {
      protocol::TokenFeed feed;
      if (!protocol::decode(frame.payload, feed) || feed.epoch != epoch_) return;
      for (const policy::FedToken& token : feed.tokens) {
        peer_->on_feed(token.slot, token.position, token.token, actions);
      }
    }
    perform(actions);
  }

  void perform(std::vector<policy::PeerAction>& actions) {
    for (policy::PeerAction& action : actions) {
      if (auto* step = std::get_if<policy::ForwardStep>(&action)) {
        rank_->give(std::move(*step));
      } else if (auto* feed = std::get_if<policy::ForwardFeed>(&action)) {
        rank_->give(*feed);
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
    for (policy::RunPiece& piece : run.pieces) {
      const size_t floats = static_cast<size_t>(piece.row_count()) * width;
      const size_t at = job.hidden.size();
      job.hidden.resize(at + floats);
      if (piece.input.value >= 0) {
        const auto input = inputs_.find(piece.input.value);
        std::memcpy(job.hidden.data() + at, input->second.data(), floats * sizeof(float));
        inputs_.erase(input);
      }
      job.pieces.push_back(std::move(piece));
    }
    rank_->give(std::move(job));
  }

  void finish_runs() {
    if (!rank_) return;
    while (std::optional<RankDone> done = rank_->take()) {
      report(*done);
      std::vector<policy::PeerAction> actions;
      peer_->on_run_done(actions);
      perform(actions);
    }
  }

  void report(RankDone& done) {
    const auto width = static_cast<size_t>(mine_.hidden_width);
    size_t at = 0;
    for (const policy::RunPiece& piece : done.run.pieces) {
      const size_t floats = static_cast<size_t>(piece.row_count()) * width;
      const std::span<const float> rows(done.run.hidden.data() + at, floats);
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
        pass_on(piece, rows);
      }
    }
  }

  // The first node of the lane may be waiting for these tokens; the coordinator gets its copy as well.
  void feed_sampled(const policy::RunPiece& piece, const protocol::Results& results) {
    protocol::TokenFeed feed;
    feed.epoch = epoch_;
    feed.step = piece.step;
    std::vector<policy::PeerAction> actions;
    for (const policy::RowResult& row : results.rows) {
      if (!row.sampled) continue;
      feed.tokens.push_back({row.slot, row.position, row.token.token});
      peer_->on_feed(row.slot, row.position, row.token.token, actions);
    }
    perform(actions);
    if (piece.hop.first == node_ || feed.tokens.empty()) return;
    Link& link = links_[piece.hop.first];
    if (!link.broken.empty()) return;
    link.waiting.push_back(protocol::encode(feed));
    link.kinds.push_back(MessageKind::kTokenFeed);
  }

  void pass_on(const policy::RunPiece& piece, std::span<const float> rows) {
    protocol::ActivationsHead head;
    head.epoch = epoch_;
    head.step = piece.step;
    head.rows = piece.row_count();
    head.width = mine_.hidden_width;
    std::vector<uint8_t> bytes = protocol::encode(head);
    const auto* data = reinterpret_cast<const uint8_t*>(rows.data());
    bytes.insert(bytes.end(), data, data + rows.size_bytes());
    Link& link = links_[piece.hop.next];
    if (!link.broken.empty()) return;  // the coordinator knows
    link.waiting.push_back(std::move(bytes));
    link.kinds.push_back(MessageKind::kActivations);
  }

  // True if something could not be sent yet.
  bool flush_links() {
    bool stuck = false;
    for (auto& [id, link] : links_) {
      while (!link.waiting.empty() && link.broken.empty()) {
        if (!link.channel) {
          auto dialed = transport_->dial(link.address, net::deadline_in(seconds(5)));
          if (!dialed) {
            link.broken = dialed.error().to_string();
            beat();
            break;
          }
          link.channel = std::move(dialed).value();
        }
        if (link.channel->state() == net::ChannelState::kOpening) break;  // kOpened will wake us
        const Result<void> sent =
            link.channel->send(static_cast<uint16_t>(link.kinds.front()),
                               static_cast<uint32_t>(epoch_.value), link.waiting.front(),
                               net::kNoWait);
        if (!sent) {
          stuck = stuck || sent.error().code() == Code::kExhausted;
          break;
        }
        link.waiting.pop_front();
        link.kinds.pop_front();
      }
    }
    return stuck;
  }

  void beat() {
    protocol::Heartbeat beat;
    beat.epoch = epoch_;
    beat.node = node_;
    beat.incarnation = mine_.incarnation;
    beat.number = peer_ ? peer_->mirror().number() : -1;
    beat.steps = peer_ ? peer_->runs() : 0;
    beat.pending = peer_ ? static_cast<int32_t>(peer_->mirror().all_pending().size()) : 0;
    beat.sent_ns = net::steady_now().ns;
    Json broken = Json::array();
    for (const auto& [id, link] : links_) {
      if (link.broken.empty()) continue;
      broken.push(Json::object({{"to", static_cast<int64_t>(id.value)},
                                {"incarnation", link.incarnation},
                                {"reason", link.broken}}));
    }
    if (broken.size() > 0) beat.extra = Json::object({{"broken", broken}}).dump();
    (void)tell(MessageKind::kHeartbeat, protocol::encode(beat));
  }

  const NodeAgentOptions o_;
  const std::atomic<bool>& stop_;
  net::Inbox inbox_;
  std::unique_ptr<net::Transport> transport_;  // after the inbox: closes first
  std::shared_ptr<net::Channel> coordinator_;
  protocol::Handshake mine_;
  NodeId node_{-1};
  Epoch epoch_{0};
  std::unique_ptr<Executor> executor_;         // until the rank has it
  std::optional<policy::Peer> peer_;
  std::unique_ptr<SoloRank> rank_;
  std::map<NodeId, Link> links_;
  std::map<int64_t, std::vector<float>> inputs_;
  int64_t next_input_ = 0;
  bool async_ = false;
};

}  // namespace

Result<void> run_node(const NodeAgentOptions& options, const std::atomic<bool>& stop) {
  return std::make_unique<NodeAgent>(options, stop)->run();
}

}  // namespace towline::worker
