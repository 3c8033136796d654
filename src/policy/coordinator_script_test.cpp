// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Coordinator against nodes that lie, and against its own journal: whatever nodes answer, it meets
// no bug of its own, loses no request, and a Host that is told the
// recorded events decides the same.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "base/for_seeds.hpp"
#include "policy/coordinator.hpp"
#include "policy/host_journal.hpp"

namespace towline::policy {
namespace {

constexpr int32_t kLayers = 4;

CoordinatorOptions random_options(Rng& rng) {
  CoordinatorOptions o;
  o.total_layers = kLayers;
  o.context = 200;
  o.vocab = 50;
  o.batch.step_tokens = static_cast<int32_t>(rng.between(4, 40));
  o.batch.chunk_tokens = o.batch.step_tokens;
  o.batch.sequences = static_cast<int32_t>(rng.between(1, 8));
  if (rng.below(2) == 0) {
    o.batch.ahead = 1;
    o.batch.placeholders = true;
  }
  o.slots = static_cast<int32_t>(rng.between(1, 20));
  o.router = static_cast<RouterKind>(rng.below(4));
  o.seed = rng();
  o.admission.waiting = rng.between(1, 20);
  o.wait_for_nodes = seconds(rng.between(0, 2));
  o.journal = o.iterations = true;
  return o;
}

// Nodes without any state: they remember what steps they were told of and answer as the dice say.
class Liars {
 public:
  Liars(const CoordinatorOptions& options, Rng& rng) : rng_(rng), coordinator_(options) {}

  void tell(const CoordinatorEvent& event) {
    ++events;
    std::vector<CoordinatorAction> actions;
    coordinator_.step(now, event, actions);
    for (CoordinatorAction& action : actions) std::visit([this](auto& a) { act(a); }, action);
    coordinator_.check_invariants();
    std::vector<CoordinatorEvent> answers = std::exchange(later_, {});
    for (const CoordinatorEvent& answer : answers) tell(answer);
  }
  void hello(int64_t which) {
    NodeHello hello;
    hello.caller = which;
    hello.name = "n" + std::to_string(which);
    hello.incarnation = static_cast<uint64_t>(rng_.between(1, 12));
    hello.layers.begin = static_cast<int32_t>(rng_.between(-1, kLayers - 1));
    hello.layers.end = static_cast<int32_t>(rng_.between(hello.layers.begin, kLayers + 1));
    if (which == 0) hello.layers = {0, kLayers};
    hello.kv_blocks = static_cast<int32_t>(rng_.between(0, 30));
    hello.max_rows = static_cast<int32_t>(rng_.between(30, 60));
    tell(hello);
  }
  void answer() {
    if (told_.empty()) return;
    const size_t which = rng_.below(3) == 0 ? rng_.below(told_.size()) : 0;
    const auto [node, message] = told_[which];
    if (rng_.below(8) != 0) told_.erase(told_.begin() + static_cast<long>(which));
    const LaneStep step{message.lane, message.step};
    if (rng_.below(30) == 0) return tell(StepFailed{anyone(), step, "it caught fire"});
    StepResults results{rng_.below(10) == 0 ? anyone() : node, step, {}};
    for (const SlotGen slot : slots_of(message)) {
      if (rng_.below(40) == 0) continue;
      RowResult row;
      row.slot = slot;
      if (rng_.below(40) == 0) ++row.slot.gen;
      row.sampled = rng_.below(60) != 0;
      row.token.token = static_cast<int32_t>(rng_.between(rng_.below(30) == 0 ? -5 : 0, 49));
      if (rng_.below(60) == 0) row.extras.edit().error = "no";
      for (uint64_t i = rng_.below(4); i > 0; --i) row.extras.edit().prompt.emplace_back();
      row.extras.edit().prompt_from = static_cast<int32_t>(rng_.between(-3, 80));
      row.extras.edit().pooled.assign(rng_.below(4), 0.5F);
      row.extras.edit().pooled_rows = static_cast<int32_t>(rng_.between(0, 60));
      results.rows.push_back(std::move(row));
    }
    tell(results);
  }
  // Of anybody's links, known and unknown ones; often of none.
  void report_links() {
    LinkReport report{anyone(), static_cast<uint64_t>(rng_.between(1, 12)), {}};
    for (uint64_t i = rng_.below(4); i > 0; --i) {
      report.broken.push_back({anyone(), static_cast<uint64_t>(rng_.between(1, 12)),
                               rng_.below(2) == 0, "cut"});
    }
    const auto& members = coordinator_.membership();
    const auto now_there = [&](NodeId node, uint64_t* incarnation) {
      if (members.is_alive(node)) *incarnation = members.member(node).incarnation;
    };
    if (rng_.below(4) != 0) {
      now_there(report.from, &report.incarnation);
      for (LinkReport::Broken& link : report.broken) now_there(link.to, &link.incarnation);
    }
    tell(report);
    for (const auto& [from, to] : coordinator_.broken_links()) {
      EXPECT_TRUE(from != to && members.is_alive(from) && members.is_alive(to));
    }
  }
  NodeId anyone() { return NodeId(static_cast<int32_t>(rng_.between(-2, 6))); }
  bool quiet() const { return told_.empty(); }

  // What the journal says, told to a fresh Host.
  void replay() const {
    ASSERT_GE(records_.size(), 2u);
    ASSERT_EQ(records_[0].second.kind, HostRecord::Kind::kSetup);
    const auto setup = parse_host_setup(*parse_json(records_[0].second.bytes, "setup"));
    ASSERT_TRUE(setup) << setup.error().to_string();
    auto host = Host::make(*setup, std::get<HostPlan>(
                                       decode_event(records_[1].second.bytes)->event));
    ASSERT_TRUE(host);
    Digest digest;
    int64_t actions = 0;
    for (size_t i = 2; i < records_.size(); ++i) {
      const auto& [when, record] = records_[i];
      if (record.kind == HostRecord::Kind::kActions) {
        ASSERT_EQ(record.digest, digest.value());
        ASSERT_EQ(record.actions, actions);
        continue;
      }
      const auto decoded = decode_event(record.bytes);
      ASSERT_TRUE(decoded);
      ASSERT_TRUE(check_event(*host, decoded->event));
      std::vector<HostAction> out;
      host->step(when, decoded->event, out);
      digest_actions(*host, out, digest);
      actions += static_cast<int64_t>(out.size());
    }
    ASSERT_EQ(coordinator_.seen_so_far().digest, digest.value());
  }

  Instant now{};
  std::map<int64_t, int> ends;
  int64_t iterations = 0;
  int64_t events = 0;
  const Coordinator& coordinator() const { return coordinator_; }

 private:
  static std::vector<SlotGen> slots_of(const NodeStep& message) {
    std::vector<SlotGen> slots;
    for (const FreshSlot& fresh : message.fresh) slots.push_back(fresh.slot);
    for (const ResumedSlot& resumed : message.resumed) slots.push_back(resumed.slot);
    for (const StepRow& row : message.rows) {
      for (uint16_t gen = 1; gen < 4; ++gen) slots.push_back({row.slot, gen});
    }
    return slots;
  }
  void act(SendStep& send) {
    if (send.message.runs()) told_.emplace_back(send.node, send.message);
  }
  void act(AskPlan& ask) {
    PlanMade plan;
    plan.number = ask.number + (rng_.below(10) == 0 ? 1 : 0);
    for (const auto& [node, layers] : ask.nodes) {
      if (layers.begin == 0) plan.links.push_back({kSourceNode, node.value});
      if (layers.end == kLayers) plan.links.push_back({node.value, kSinkNode});
      for (const auto& [other, theirs] : ask.nodes) {
        if (theirs.begin <= layers.end && theirs.end > layers.end) {
          plan.links.push_back({node.value, other.value});
        }
      }
    }
    if (rng_.below(20) == 0) plan.links.push_back({3, 0});  // a plan that cannot be
    plan.flow.assign(plan.links.size(), 1.0);
    plan.max_flow = static_cast<double>(plan.links.size());
    later_.emplace_back(std::move(plan));
    // A planner that answers another number answers again.
    AskPlan again = ask;
    if (std::get<PlanMade>(later_.back()).number != ask.number) act(again);
  }
  void act(RequestUpdate& update) {
    if (update.finish != CoordinatorFinish::kNone) ++ends[update.id.value];
    EXPECT_EQ(update.error.empty(), update.finish != CoordinatorFinish::kError);
  }
  void act(HostRecord& record) { records_.emplace_back(coordinator_.host_time(now), record); }
  void act(IterationNote&) { ++iterations; }
  void act(SendFeed& feed) { EXPECT_FALSE(feed.tokens.empty()); }
  void act(WelcomeNode&) {}
  void act(RefuseNode&) {}
  void act(FenceNode&) {}
  void act(WayNote&) {}
  void act(CoordinatorNote&) {}

  Rng& rng_;
  Coordinator coordinator_;
  std::vector<CoordinatorEvent> later_;
  std::vector<std::pair<NodeId, NodeStep>> told_;
  std::vector<std::pair<Instant, HostRecord>> records_;
};

void one_event(Liars& world, Rng& rng, int64_t& next) {
  const uint64_t dice = rng.below(100);
  if (dice < 12) {
    CoordinatorRequest request;
    request.id = RequestId(next++);
    request.prompt.assign(static_cast<size_t>(rng.between(1, 60)), 7);
    request.max_tokens = static_cast<int32_t>(rng.between(0, 20));
    request.spec.prompt_logprobs = rng.below(4) == 0;
    request.spec.embed = rng.below(6) == 0;
    if (request.spec.embed) request.max_tokens = 0;
    request.stop_tokens = {3};
    world.tell(request);
  } else if (dice < 15) {
    world.tell(CancelRequest{RequestId(rng.between(0, next))});
  } else if (dice < 18) {
    world.hello(rng.between(0, 4));
  } else if (dice == 18) {
    world.tell(NodeGone{world.anyone(), static_cast<uint64_t>(rng.between(1, 12)), "it left"});
  } else if (dice == 19) {
    world.report_links();
  } else if (dice == 20) {
    world.tell(SyncNeeded{world.anyone()});
  } else if (dice == 21 && rng.below(4) == 0) {
    world.tell(DrainNode{world.anyone()});
  } else if (dice == 22) {
    world.tell(ClockTick{});
  } else if (dice == 23 && rng.below(8) == 0) {
    const Duration stop = seconds(rng.between(1, 100));
    world.now = world.now + stop;
    world.tell(StoodStill{stop});
  } else if (dice < 40) {
    for (int32_t i = 0; i < 5; ++i) {
      for (uint64_t inc = 1; inc <= 12; ++inc) {
        world.tell(NodeBeat{NodeId(i), inc, rng.between(0, 1000)});
      }
    }
  } else {
    world.answer();
  }
}

TEST(CoordinatorScript, NodesThatLieLoseNobodyAndTheJournalRepeatsIt) {
  int64_t finished = 0, iterations = 0;
  for_events(kMillionEvents, [&](Rng& rng, int64_t& events) {
    Liars world(random_options(rng), rng);
    int64_t next = 0;
    world.hello(0);
    for (int i = 0; i < 400 && !::testing::Test::HasFailure(); ++i) {
      world.now = world.now + milliseconds(rng.between(0, 60));
      one_event(world, rng, next);
    }
    // The end: nobody answers any more, nodes are lost, and what waits gives up.
    for (int i = 0; i < 40; ++i) {
      world.now = world.now + seconds(2);
      world.tell(ClockTick{});
    }
    events += world.events;
    EXPECT_TRUE(world.coordinator().idle());
    EXPECT_EQ(static_cast<int64_t>(world.ends.size()), next);
    for (const auto& [id, ends] : world.ends) EXPECT_EQ(ends, 1) << id;
    world.replay();
    finished += world.coordinator().load().tokens;
    iterations += world.iterations;
  });
  if (std::getenv("TOWLINE_SEED") != nullptr) return;
  EXPECT_GT(finished, 20'000);
  EXPECT_GT(iterations, 5'000);
}

}  // namespace
}  // namespace towline::policy
