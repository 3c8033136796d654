// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// FakeCluster: policy::Coordinator and any number of policy::Peers over a network that delays every
// message at random (in order between any two), with nodes that die, stop for a while and come
// back, and links between nodes that break and heal, in virtual time. Test code only.
//
// The model is fake but honest: every layer writes a number for every row into the KV block that
// the coordinator named, and a row's value depends on the numbers of all rows before it, read
// through the block table. So a wrong block, a stale table, a lost or doubled row or a frame of a
// closed lane changes the tokens.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <set>
#include <string>
#include <vector>

#include "base/rng.hpp"
#include "policy/coordinator.hpp"
#include "policy/peer.hpp"

namespace towline::policy {

inline constexpr int32_t kFakeVocab = 97;

struct FakeModel {
  int32_t layers = 4;
  static uint64_t embed(int32_t token) { return mix64(static_cast<uint64_t>(token) + 11); }
  // `cells` of rows 0..p in this layer.
  static uint64_t layer(int32_t l, std::span<const uint64_t> cells) {
    uint64_t acc = static_cast<uint64_t>(l) + 1;
    for (const uint64_t c : cells) acc = mix64(acc ^ c);
    return acc;
  }
  static int32_t sample(uint64_t state, uint64_t seed, int32_t position) {
    return static_cast<int32_t>(random_at(seed ^ state, static_cast<uint64_t>(position)) %
                                kFakeVocab);
  }
  // What one process would generate.
  std::vector<int32_t> generate(std::vector<int32_t> tokens, uint64_t seed, int32_t max_tokens,
                                const std::vector<int32_t>& stops) const {
    std::vector<std::vector<uint64_t>> cells(static_cast<size_t>(layers));
    std::vector<int32_t> out;
    for (size_t p = 0; static_cast<int32_t>(out.size()) < max_tokens; ++p) {
      uint64_t h = embed(tokens[p]);
      for (int32_t l = 0; l < layers; ++l) {
        cells[static_cast<size_t>(l)].push_back(h);
        h = layer(l, cells[static_cast<size_t>(l)]);
      }
      if (p + 1 < tokens.size()) continue;
      out.push_back(sample(h, seed, static_cast<int32_t>(p) + 1));
      tokens.push_back(out.back());
      if (std::ranges::find(stops, out.back()) != stops.end()) break;
    }
    return out;
  }
};

class FakeCluster {
 public:
  struct NodeSpec {
    std::string name;
    LayerRange layers;
    int32_t blocks = 32;
    int32_t stages = 1;  // so many runs at a time
  };
  struct Options {
    CoordinatorOptions host;
    FakeModel model;
    std::vector<NodeSpec> nodes;
    Duration most_delay = milliseconds(20);
    Duration most_run = milliseconds(10);
    Duration beat = milliseconds(500);
    double lost_messages = 0;  // share of the coordinator's messages that vanish
  };
  struct Outcome {
    std::vector<int32_t> tokens;
    CoordinatorFinish finish = CoordinatorFinish::kNone;
    int ends = 0;
    std::string error;
  };

  FakeCluster(Options options, Rng& rng) : o_(std::move(options)), rng_(rng), host_(o_.host) {}

  void start_node(size_t i) {
    const auto node = std::make_shared<Node>();
    node->index = i;
    node->incarnation = ++incarnations_;
    node->spec = o_.nodes[i];
    node->cells.resize(static_cast<size_t>(node->spec.blocks) * kBlockTokens *
                       static_cast<size_t>(o_.model.layers));
    nodes_[i] = node;
    later(delay(), [this, node] {
      tell(NodeHello{static_cast<int64_t>(node->incarnation), node->spec.name, node->incarnation,
                     node->spec.layers, node->spec.blocks, o_.host.batch.step_tokens,
                     node->spec.stages});
    });
  }
  // The process is killed: nothing more comes out of it. The host learns it late, or only from the
  // end of its lease.
  void kill(size_t i, bool silent) {
    const std::shared_ptr<Node> node = nodes_[i];
    if (!node || node->dead) return;
    node->dead = true;
    if (!silent) {
      later(delay(), [this, node] {
        if (node->id.value >= 0) tell(NodeGone{node->id, node->incarnation, "killed"});
      });
    }
  }
  // SIGSTOP for a while: beats, answers and runs wait, then all come at once.
  void stop_for(size_t i, Duration time) {
    if (nodes_[i]) nodes_[i]->frozen_until = now_ + time;
  }
  // What node i sends to node j is lost for this long, and with `both` what j sends to i. Whoever
  // sends there notices a little later, drops from then on what it has for the other, and says so;
  // and a little after the end that the other can be reached again.
  void cut_link(size_t i, size_t j, Duration time, bool both) {
    if (i == j || !nodes_.contains(i) || !nodes_.contains(j)) return;
    cut_one_way(nodes_.at(i), nodes_.at(j), time, both);
    if (both) cut_one_way(nodes_.at(j), nodes_.at(i), time, both);
  }
  bool alive(size_t i) const { return nodes_.contains(i) && !nodes_.at(i)->dead; }

  void submit(CoordinatorRequest request) { later(delay(), [this, request] { tell(request); }); }
  void cancel(RequestId id) {
    later(delay(), [this, id] { tell(CancelRequest{id}); });
  }
  void drain(size_t i) { tell(DrainNode{nodes_.at(i)->id}); }

  // Handles events until `until`; false if nothing is left to happen before that.
  void run_until(Instant until) {
    while (!events_.empty() && events_.top().at <= until) {
      const Pending event = events_.top();
      events_.pop();
      now_ = event.at;
      (*event.task)();
    }
    now_ = until;
    tell(ClockTick{});
  }
  // Time goes on until every request has ended; false after `most` of virtual time.
  bool finish(Duration most) {
    const Instant end = now_ + most;
    while (!host_.idle() || unsubmitted()) {
      if (now_ > end) return false;
      run_until(now_ + milliseconds(200));
    }
    run_until(now_ + seconds(30));
    return true;
  }
  void schedule(Duration in, std::function<void()> task) { later(in, std::move(task)); }

  const std::map<RequestId, Outcome>& outcomes() const { return outcomes_; }
  const Coordinator& host() const { return host_; }
  int64_t peer_events() const { return peer_events_; }  // told to the nodes' machines
  int64_t feeds_passed_on() const { return feeds_passed_on_; }  // by the coordinator
  const Peer* peer(size_t i) const { return nodes_.at(i)->peer ? &*nodes_.at(i)->peer : nullptr; }
  size_t inputs_kept(size_t i) const { return nodes_.at(i)->inputs.size(); }
  Instant now() const { return now_; }
  const std::vector<std::string>& notes() const { return notes_; }
  int64_t expected = 0;  // requests given to submit()

 private:
  struct Node {
    size_t index = 0;
    NodeSpec spec;
    uint64_t incarnation = 0;
    NodeId id{-1};
    bool dead = false, fenced = false;
    Instant frozen_until{}, run_ends{};
    std::optional<Peer> peer;
    std::vector<uint64_t> cells;                     // [block][offset][layer]
    std::map<int64_t, std::vector<uint64_t>> inputs; // hidden rows by InputId
    int64_t next_input = 0;
    std::map<uint64_t, Instant> cut;                 // incarnation that frames do not reach: until
    std::map<uint64_t, bool> unreachable;            // incarnation that it knows of: both ways
  };
  struct Pending {
    Instant at;
    int64_t order = 0;
    std::shared_ptr<std::function<void()>> task;
    bool operator<(const Pending& other) const {
      return std::pair(other.at, other.order) < std::pair(at, order);
    }
  };

  Duration delay() { return Duration(rng_.between(1000, o_.most_delay.value)); }
  void later(Duration in, std::function<void()> task) {
    at(now_ + in, std::move(task));
  }
  void at(Instant when, std::function<void()> task) {
    events_.push({when, order_++, std::make_shared<std::function<void()>>(std::move(task))});
  }
  // In order between two ends.
  void transmit(int64_t from, int64_t to, std::function<void()> task) {
    Instant& last = line_[{from, to}];
    last = std::max(last, now_ + delay());
    at(last, std::move(task));
  }
  void cut_one_way(const std::shared_ptr<Node>& from, const std::shared_ptr<Node>& to, Duration time,
                   bool both) {
    Instant& until = from->cut[to->incarnation];
    until = std::max(until, now_ + time);
    later(delay(), [this, from, to, both] {
      awake(from, [this, from, to, both] {
        if (!from->cut.contains(to->incarnation)) return;  // known to be over
        from->unreachable[to->incarnation] = both;
        report(from);
      });
    });
    later(time + milliseconds(20) + delay(), [this, from, to] {
      awake(from, [this, from, to] {
        const auto cut = from->cut.find(to->incarnation);
        if (cut == from->cut.end() || cut->second > now_) return;
        from->cut.erase(cut);
        from->unreachable.erase(to->incarnation);
        report(from);
      });
    });
  }
  void report(const std::shared_ptr<Node>& node) {
    LinkReport report{node->id, node->incarnation, {}};
    for (const auto& [incarnation, both] : node->unreachable) {
      for (const auto& [i, other] : nodes_) {
        if (other->incarnation != incarnation) continue;
        report.broken.push_back({other->id, incarnation, both, "cut"});
      }
    }
    transmit(node->id.value, -1, [this, node, report] {
      if (!node->fenced) tell(report);
    });
  }
  // Between nodes, over a link that may be cut.
  void transmit_over(const std::shared_ptr<Node>& from, const std::shared_ptr<Node>& to,
                     std::function<void()> task) {
    if (from->unreachable.contains(to->incarnation)) return;
    transmit(from->id.value, to->id.value, [from, to, task = std::move(task)] {
      if (!from->cut.contains(to->incarnation)) task();
    });
  }
  bool unsubmitted() const { return static_cast<int64_t>(outcomes_.size()) < expected; }

  void tell(const CoordinatorEvent& event) {
    std::vector<CoordinatorAction> actions;
    host_.step(now_, event, actions);
    if (++told_ % 16 == 0) host_.check_invariants();
    for (CoordinatorAction& action : actions) std::visit([this](auto& a) { act(a); }, action);
  }
  std::shared_ptr<Node> current(NodeId id) {
    for (auto& [i, node] : nodes_) {
      if (node->id == id && !node->dead && !node->fenced) return node;
    }
    return nullptr;
  }
  void act(WelcomeNode& welcome) {
    for (auto& [i, node] : nodes_) {
      if (static_cast<int64_t>(node->incarnation) != welcome.caller) continue;
      node->id = welcome.node;
      PeerLimits limits;
      limits.run_rows = o_.host.batch.step_tokens;
      limits.runs = node->spec.stages;
      limits.mirror.slots = std::max(o_.host.slots, 2 * o_.host.batch.sequences + 2);
      limits.mirror.blocks = node->spec.blocks;
      limits.mirror.layers = node->spec.layers;
      limits.mirror.context = o_.host.context;
      limits.mirror.vocab = o_.host.vocab;
      node->peer.emplace(limits);
      beat(node);
    }
  }
  void beat(const std::shared_ptr<Node>& node) {
    if (node->dead || node->fenced) return;
    if (now_ >= node->frozen_until) {
      transmit(node->id.value, -1, [this, node] {
        if (!node->fenced) tell(NodeBeat{node->id, node->incarnation, node->peer->runs()});
      });
      report(node);
    }
    later(o_.beat, [this, node] { beat(node); });
  }
  void act(RefuseNode&) {}
  void act(HostRecord&) {}
  void act(IterationNote&) {}
  void act(WayNote&) {}
  void act(FenceNode& fence) {
    for (auto& [i, node] : nodes_) {
      if (node->incarnation == fence.incarnation) node->fenced = true;
    }
  }
  void act(CoordinatorNote& note) { notes_.push_back(note.text); }
  void act(AskPlan& ask) {
    // Every link that can be on a way from the first layer to the last.
    PlanMade plan;
    plan.number = ask.number;
    std::set<NodeId> reached, leads;
    const auto broken = [&](NodeId a, NodeId b) {
      return std::ranges::find(ask.broken, std::pair(a, b)) != ask.broken.end();
    };
    const auto joins = [&](const auto& a, const auto& b) {
      return a.first != b.first && b.second.begin <= a.second.end && b.second.end > a.second.end &&
             !broken(a.first, b.first);
    };
    for (size_t round = 0; round <= ask.nodes.size(); ++round) {
      for (const auto& a : ask.nodes) {
        if (a.second.begin == 0) reached.insert(a.first);
        if (a.second.end == o_.model.layers) leads.insert(a.first);
        for (const auto& b : ask.nodes) {
          if (!joins(a, b)) continue;
          if (reached.contains(a.first)) reached.insert(b.first);
          if (leads.contains(b.first)) leads.insert(a.first);
        }
      }
    }
    const auto good = [&](NodeId n) { return reached.contains(n) && leads.contains(n); };
    for (const auto& a : ask.nodes) {
      if (!good(a.first)) continue;
      if (a.second.begin == 0) plan.links.push_back({kSourceNode, a.first.value});
      if (a.second.end == o_.model.layers) plan.links.push_back({a.first.value, kSinkNode});
      for (const auto& b : ask.nodes) {
        if (good(b.first) && joins(a, b)) plan.links.push_back({a.first.value, b.first.value});
      }
    }
    for (size_t i = 0; i < plan.links.size(); ++i) {
      plan.flow.push_back(static_cast<double>(rng_.between(5, 20)));
      plan.max_flow += plan.links[i].from == kSourceNode ? plan.flow.back() : 0;
    }
    later(delay(), [this, plan] { tell(plan); });
  }
  void act(RequestUpdate& update) {
    Outcome& outcome = outcomes_[update.id];
    for (const ScoredToken& token : update.tokens) outcome.tokens.push_back(token.token);
    if (update.finish == CoordinatorFinish::kNone) return;
    ++outcome.ends;
    outcome.finish = update.finish;
    outcome.error = update.error;
  }
  void act(SendStep& send) {
    const std::shared_ptr<Node> node = current(send.node);
    if (!node || rng_.unit() < o_.lost_messages) return;
    transmit(-1, send.node.value, [this, node, message = send.message] {
      awake(node, [this, node, message] {
        std::vector<PeerAction> actions;
        ++peer_events_;
        node->peer->on_message(message, actions);
        perform(node, actions);
      });
    });
  }
  void act(SendFeed& send) {
    const std::shared_ptr<Node> node = current(send.node);
    if (!node) return;
    ++feeds_passed_on_;
    transmit(-1, send.node.value, [this, node, tokens = send.tokens] { take_feed(node, tokens); });
  }
  void take_feed(const std::shared_ptr<Node>& node, const std::vector<FedToken>& tokens) {
    awake(node, [this, node, tokens] {
      std::vector<PeerAction> actions;
      ++peer_events_;
      node->peer->on_feed(tokens, actions);
      perform(node, actions);
    });
  }
  // Runs the task when the node is not stopped; in order.
  void awake(const std::shared_ptr<Node>& node, std::function<void()> task) {
    if (node->dead || node->fenced) return;
    if (now_ >= node->frozen_until) return task();
    at(node->frozen_until, [this, node, task] { awake(node, task); });
  }
  void perform(const std::shared_ptr<Node>& node, std::vector<PeerAction>& actions) {
    for (PeerAction& action : actions) {
      if (const auto* drop = std::get_if<DropInput>(&action)) {
        node->inputs.erase(drop->input.value);
      } else if (std::get_if<AskFullForm>(&action) != nullptr) {
        transmit(node->id.value, -1, [this, node] {
          if (!node->fenced) tell(SyncNeeded{node->id});
        });
      } else if (const auto* run = std::get_if<RunSteps>(&action)) {
        // In order, however long each takes.
        const Instant end = now_ + Duration(rng_.between(1000, o_.most_run.value));
        node->run_ends = std::max(node->run_ends, end);
        at(node->run_ends, [this, node, run = *run] {
          awake(node, [this, node, run] { execute(node, run); });
        });
      }
    }
  }
  uint64_t& cell(Node& node, const SlotState& s, int32_t p, int32_t layer) {
    const auto block = static_cast<size_t>(s.blocks.at(static_cast<size_t>(p / kBlockTokens)));
    const size_t row = block * kBlockTokens + static_cast<size_t>(p % kBlockTokens);
    return node.cells.at(row * static_cast<size_t>(o_.model.layers) + static_cast<size_t>(layer));
  }
  void execute(const std::shared_ptr<Node>& node, const RunSteps& run) {
    for (const RunPiece& piece : run.pieces) {
      std::vector<uint64_t> hidden;
      if (piece.input.value >= 0) {
        hidden = std::move(node->inputs.at(piece.input.value));
        node->inputs.erase(piece.input.value);
      }
      // Meanwhile the lane may have been closed and the slots given away: a real node computes
      // all the same, with what its ranks knew; nobody wants the result.
      if (!node->peer->wanted(piece.step.lane)) continue;
      StepResults results{node->id, piece.step, {}};
      size_t at = 0;
      hidden.resize(static_cast<size_t>(piece.row_count()));
      for (const StepRow& row : piece.rows) {
        const SlotState& s = *node->peer->mirror().slot_at(row.slot);
        for (int32_t p = row.from; p < row.to(); ++p, ++at) {
          uint64_t h = piece.hop.embeds()
                           ? FakeModel::embed(s.tokens[static_cast<size_t>(p)])
                           : hidden.at(at);
          for (int32_t l = piece.hop.layers.begin; l < piece.hop.layers.end; ++l) {
            cell(*node, s, p, l) = h;
            std::vector<uint64_t> before;
            for (int32_t q = 0; q <= p; ++q) before.push_back(cell(*node, s, q, l));
            h = FakeModel::layer(l, before);
          }
          hidden[at] = h;
        }
        if (!piece.hop.samples() || !row.samples()) continue;
        RowResult result;
        result.slot = {row.slot, s.gen};
        result.sampled = true;
        result.token.token = FakeModel::sample(hidden[at - 1], s.spec.sampling.seed, row.to());
        results.rows.push_back(result);
        feed(node, piece.hop, result.slot, row.to(), result.token.token);
      }
      if (piece.hop.samples()) {
        transmit(node->id.value, -1, [this, node, results] {
          if (!node->fenced) tell(results);
        });
      } else {
        pass_on(node, piece, std::move(hidden));
      }
    }
    std::vector<PeerAction> actions;
    ++peer_events_;
    node->peer->on_run_done(actions);
    perform(node, actions);
  }
  void feed(const std::shared_ptr<Node>& node, const LaneHop& hop, SlotGen slot, int32_t position,
            int32_t token) {
    if (!o_.host.batch.placeholders) return;
    std::vector<PeerAction> own;
    ++peer_events_;
    node->peer->on_feed({{slot, position, token}}, own);
    perform(node, own);
    if (hop.first == node->id) return;
    const std::shared_ptr<Node> first = current(hop.first);
    if (!first) return;
    transmit_over(node, first, [this, first, slot, position, token] {
      take_feed(first, {{slot, position, token}});
    });
  }
  void pass_on(const std::shared_ptr<Node>& node, const RunPiece& piece,
               std::vector<uint64_t> hidden) {
    const std::shared_ptr<Node> next = current(piece.hop.next);
    if (!next) return;
    transmit_over(node, next, [this, next, step = piece.step, hidden = std::move(hidden)] {
      awake(next, [this, next, step, hidden] {
        const InputId id(next->next_input++);
        next->inputs[id.value] = hidden;
        std::vector<PeerAction> actions;
        ++peer_events_;
        next->peer->on_input(step, static_cast<int32_t>(hidden.size()), id, actions);
        perform(next, actions);
      });
    });
  }

  Options o_;
  Rng& rng_;
  Coordinator host_;
  Instant now_{};
  int64_t order_ = 0, told_ = 0, peer_events_ = 0, feeds_passed_on_ = 0;
  uint64_t incarnations_ = 0;
  std::priority_queue<Pending> events_;
  std::map<std::pair<int64_t, int64_t>, Instant> line_;
  std::map<size_t, std::shared_ptr<Node>> nodes_;
  std::map<RequestId, Outcome> outcomes_;
  std::vector<std::string> notes_;
};

}  // namespace towline::policy
