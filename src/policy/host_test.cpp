// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/host.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "base/for_seeds.hpp"

namespace towline::policy {
namespace {

using Kind = HostAction::Kind;

// `stages` x `width` nodes of two layers, completely joined, flow spread evenly.
HostPlan grid(int32_t stages, int32_t width, int64_t kv_capacity = 20'000) {
  HostPlan plan;
  int32_t next = 0;
  for (int32_t s = 0; s < stages; ++s) {
    for (int32_t w = 0; w < width; ++w) {
      plan.nodes.push_back({.layers = {2 * s, 2 * s + 2}, .kv_capacity = kv_capacity});
      const int32_t me = s * width + w;
      if (s == 0) plan.links.push_back({next++, kSourceNode, me, 1});
      for (int32_t v = 0; s > 0 && v < width; ++v) {
        plan.links.push_back({next++, (s - 1) * width + v, me, 1.0 / width});
      }
      if (s == stages - 1) plan.links.push_back({next++, me, kSinkNode, 1});
    }
  }
  return plan;
}

HostPlan without_node(HostPlan plan, int32_t node) {
  plan.nodes[node].layers = {};
  std::erase_if(plan.links, [&](const HostLink& l) { return l.from == node || l.to == node; });
  return plan;
}

HostOptions options_for(int32_t stages) {
  HostOptions options;
  options.total_layers = 2 * stages;
  options.batching = {.step_tokens = 64, .sequences = 1000, .chunk_tokens = 32,
                      .prefix_cache = false, .ahead = 3};
  return options;
}

Arrive request(int64_t id, int32_t prompt, int32_t output) {
  Arrive a;
  a.id = RequestId(id);
  a.prompt_length = prompt;
  a.max_tokens = output;
  return a;
}

// Carries out actions: steps go into `flying`, ends into `ended`.
struct Driver {
  Host host;
  std::vector<int32_t> flying;
  std::map<int64_t, Outcome> ended;
  std::map<int64_t, int64_t> sampled;
  std::vector<HostAction> actions;

  void event(const HostEvent& e) {
    actions.clear();
    host.step({}, e, actions);
    absorb();
  }
  void absorb() {
    for (const HostAction& a : actions) {
      if (a.kind == Kind::kLaunch) flying.push_back(a.ticket);
      if (a.kind == Kind::kAbandon) {
        ASSERT_EQ(std::erase(flying, a.ticket), 1u);
      }
      if (a.kind == Kind::kEnded) {
        ASSERT_TRUE(ended.emplace(a.id.value, a.outcome).second) << a.id.value;
      }
    }
  }
  void finish(size_t which) {
    const int32_t ticket = flying[which];
    flying.erase(flying.begin() + static_cast<long>(which));
    for (const StepEntry& entry : host.flight(ticket).entries) {
      sampled[entry.seq.value] += entry.samples;
    }
    event(StepDone{ticket, {}});
  }
};

Driver make(const HostOptions& options, const HostPlan& plan) {
  auto host = Host::make(options, plan);
  EXPECT_TRUE(host) << (host ? "" : host.error().to_string());
  return Driver{*std::move(host), {}, {}, {}, {}};
}

TEST(Host, OneRequestGoesThroughChunkByChunkAndTokenByToken) {
  Driver d = make(options_for(2), grid(2, 1));
  d.event(request(7, 100, 3));
  // Depth 2: two of the four chunks are on their way.
  ASSERT_EQ(d.flying.size(), 2u);
  const Step& first = d.host.flight(d.flying[0]);
  EXPECT_EQ(first.entries[0].to, 32);
  EXPECT_EQ(d.host.lane(first.lane).pipeline.size(), 3u);
  int steps = 0;
  for (; !d.flying.empty(); ++steps) d.finish(0);
  EXPECT_EQ(steps, 4 + 2);  // four chunks, the last of which samples; then two decodes
  EXPECT_EQ(d.ended.at(7), Outcome::kFinished);
  EXPECT_EQ(d.sampled.at(7), 3);
}

TEST(Host, AFullClusterQueuesAndWhatCanNeverFitIsRefused) {
  HostOptions options = options_for(1);
  options.admission.waiting = 2;
  Driver d = make(options, grid(1, 1, 2000));
  for (int64_t i = 0; i < 4; ++i) d.event(request(i, 300, 50));
  EXPECT_EQ(d.host.admission().waiting(), 2);
  EXPECT_EQ(d.ended.at(3), Outcome::kRejected);  // the queue is full
  while (!d.flying.empty()) d.finish(0);
  for (int64_t i = 0; i < 3; ++i) EXPECT_EQ(d.ended.at(i), Outcome::kFinished);
  d.event(request(9, 5000, 1));
  EXPECT_EQ(d.ended.at(9), Outcome::kRejected);
}

TEST(Host, ALostNodeDisplacesItsRequestsAndNoTokenComesTwice) {
  Driver d = make(options_for(2), grid(2, 2));
  for (int64_t i = 0; i < 8; ++i) d.event(request(i, 20, 10));
  for (int i = 0; i < 12; ++i) d.finish(0);
  d.event(without_node(grid(2, 2), 2));
  EXPECT_TRUE(std::ranges::any_of(
      d.actions, [](const HostAction& a) { return a.kind == Kind::kDisplaced; }));
  d.host.check_invariants();
  while (!d.flying.empty()) d.finish(0);
  ASSERT_EQ(d.ended.size(), 8u);
  for (int64_t i = 0; i < 8; ++i) {
    EXPECT_EQ(d.ended.at(i), Outcome::kFinished);
    EXPECT_EQ(d.sampled.at(i), 10);
  }
}

TEST(Host, WaitsWithoutAnyWayAndGoesOnWithOne) {
  Driver d = make(options_for(2), grid(2, 1));
  d.event(request(1, 20, 4));
  d.event(without_node(grid(2, 1), 1));
  EXPECT_TRUE(d.flying.empty());
  d.event(request(2, 20, 4));
  EXPECT_FALSE(d.host.open());
  HostPlan again = grid(2, 1);
  again.nodes[1].incarnation = 1;
  d.event(again);
  while (!d.flying.empty()) d.finish(0);
  EXPECT_EQ(d.ended.size(), 2u);
  d.event(without_node(grid(2, 1), 1));
  d.event(request(3, 20, 4));
  d.actions.clear();
  d.host.fail_waiting("the end", d.actions);
  d.absorb();
  EXPECT_EQ(d.ended.at(3), Outcome::kFailed);
}

TEST(Host, OfflineWorkIsFedUpToTheMark) {
  HostOptions options = options_for(1);
  options.estimator = {.high_water = 1.0, .usual_output = 50};
  options.admission.offline = true;
  options.admission.feed_high_water = 0.5;
  Driver d = make(options, grid(1, 1, 4000));  // 2000 tokens
  for (int64_t i = 0; i < 12; ++i) d.event(request(i, 150, 40));
  EXPECT_EQ(d.host.admission().placed(), 6);  // each is expected to hold 200; 5 are at the mark
  EXPECT_EQ(d.host.admission().waiting(), 6);
  while (!d.flying.empty()) {
    d.finish(0);
    EXPECT_LE(d.host.admission().placed(), 6);
  }
  EXPECT_EQ(d.ended.size(), 12u);
}

TEST(Host, ARequestAvoidsNodesThatAreTooSmallForIt) {
  for (const RouterKind router : {RouterKind::kFlow, RouterKind::kSwarm, RouterKind::kRandom,
                                  RouterKind::kShortestQueue}) {
    HostOptions options = options_for(2);
    options.router = router;
    options.estimator = {.high_water = 1.0, .usual_output = 1};
    HostPlan plan = grid(2, 2, 4000);
    plan.nodes[0].kv_capacity = plan.nodes[2].kv_capacity = 400;  // 200 tokens
    Driver d = make(options, plan);
    for (int64_t i = 0; i < 4; ++i) {
      d.event(request(i, 100, 150));
      ASSERT_FALSE(d.flying.empty()) << router_name(router) << i;
      const Step& step = d.host.flight(d.flying.front());
      for (const Hop& hop : d.host.lane(step.lane).pipeline) {
        EXPECT_TRUE(hop.node == kSinkNode || hop.node % 2 == 1) << hop.node;
      }
      while (!d.flying.empty()) d.finish(0);
      EXPECT_EQ(d.ended.at(i), Outcome::kFinished);
    }
    d.event(request(9, 1000, 1002));
    EXPECT_EQ(d.ended.at(9), Outcome::kRejected);
    EXPECT_EQ(d.actions.back().reason, kTooLarge);
  }
}

// Two lanes share a node that is full: the better-ranked one gets its block when the other's step
// has landed, though nobody ends and other lanes go on.
TEST(Host, ALaneThatWaitsForWhatIsInFlightIsTriedWhenItLands) {
  HostOptions options = options_for(2);
  options.estimator = {.high_water = 1.0, .usual_output = 0};
  options.batching.ahead = 0;
  HostPlan plan = grid(2, 2, 100'000);
  plan.nodes[2].kv_capacity = 2 * 16 * 6;  // 6 blocks: two sequences of 48 tokens fill it
  std::erase_if(plan.links, [](const HostLink& l) { return l.to == 3 || l.from == 3; });
  Driver d = make(options, plan);
  d.event(request(0, 30, 20));
  d.event(request(1, 30, 20));
  for (int i = 0; i < 2000 && !d.flying.empty(); ++i) {
    d.finish(0);
    d.host.check_invariants();
  }
  EXPECT_EQ(d.ended.size(), 2u);
  EXPECT_GT(d.host.batcher().counters().preemptions, 0);
}

// A node of several stages works at several steps, as several nodes would.
TEST(Host, StagesOfANodeCountAsNodes) {
  for (const int32_t stages : {1, 2, 3}) {
    HostPlan plan = grid(2, 1);
    plan.nodes[1].stages = stages;
    Driver d = make(options_for(2), plan);
    for (int64_t i = 0; i < 20; ++i) d.event(request(i, 8, 50));
    EXPECT_EQ(d.flying.size(), static_cast<size_t>(1 + stages));
  }
}

// Any script: requests end exactly once, finished ones with all their tokens, and another host told
// the same gives the same actions.
TEST(Host, LosesNobodyUnderAnyScript) {
  for_seeds(60, [](Rng& rng) {
    const auto stages = static_cast<int32_t>(rng.between(1, 3));
    const auto width = static_cast<int32_t>(rng.between(1, 3));
    const int64_t capacity = rng.between(400, 4000);
    HostOptions options = options_for(stages);
    options.depth = static_cast<int32_t>(rng.between(0, 3));
    options.estimator = {.high_water = 1.0, .usual_output = 5};
    options.batching.ahead = static_cast<int32_t>(rng.between(0, 3));
    options.admission.waiting = rng.between(1, 30);
    const HostPlan whole = grid(stages, width, capacity);
    Driver d = make(options, whole);
    Host twin = d.host;
    std::vector<HostAction> answers;
    const auto tell = [&](const HostEvent& e) {
      answers.clear();
      twin.step({}, e, answers);
      d.event(e);
      ASSERT_EQ(answers.size(), d.actions.size());
      for (size_t i = 0; i < answers.size(); ++i) {
        ASSERT_EQ(answers[i].kind, d.actions[i].kind);
        ASSERT_EQ(answers[i].id, d.actions[i].id);
        ASSERT_EQ(answers[i].ticket, d.actions[i].ticket);
        if (answers[i].kind == Kind::kLaunch) {
          ASSERT_EQ(twin.flight(answers[i].ticket), d.host.flight(answers[i].ticket));
        }
      }
    };
    int64_t next = 0, cancelled = 0;
    std::map<int64_t, int32_t> outputs;
    std::vector<int32_t> incarnations(whole.nodes.size(), 0);
    std::set<int32_t> down;
    const auto plan_now = [&] {
      HostPlan plan = whole;
      for (size_t i = 0; i < plan.nodes.size(); ++i) plan.nodes[i].incarnation = incarnations[i];
      for (const int32_t node : down) plan = without_node(plan, node);
      return plan;
    };
    for (int i = 0; i < 400; ++i) {
      const uint64_t dice = rng.below(100);
      if (dice < 25) {
        Arrive a = request(next++, static_cast<int32_t>(rng.between(1, 120)),
                           static_cast<int32_t>(rng.between(1, 25)));
        a.priority = static_cast<int32_t>(rng.below(3));
        outputs[a.id.value] = a.max_tokens;
        tell(a);
      } else if (dice < 28 && next > 0) {
        const int64_t id = rng.between(0, next - 1);
        cancelled += !d.ended.contains(id);
        tell(Cancel{RequestId(id)});
      } else if (dice < 31) {
        const auto node = static_cast<int32_t>(rng.below(whole.nodes.size()));
        if (!down.erase(node)) {
          down.insert(node);
        } else {
          ++incarnations[node];
        }
        tell(plan_now());
      } else if (!d.flying.empty()) {
        const size_t which = rng.below(d.flying.size());
        // Steps of one lane come back in the order they were sent.
        const LaneId lane = d.host.flight(d.flying[which]).lane;
        size_t oldest = 0;
        while (d.host.flight(d.flying[oldest]).lane != lane) ++oldest;
        const int32_t ticket = d.flying[oldest];
        d.flying.erase(d.flying.begin() + static_cast<long>(oldest));
        for (const StepEntry& entry : d.host.flight(ticket).entries) {
          d.sampled[entry.seq.value] += entry.samples;
        }
        tell(StepDone{ticket, {}});
      }
      d.host.check_invariants();
      ASSERT_EQ(next, static_cast<int64_t>(d.ended.size()) + d.host.unfinished());
    }
    down.clear();
    tell(plan_now());
    while (!d.flying.empty()) d.finish(0);
    d.host.check_invariants();
    EXPECT_EQ(d.host.unfinished(), 0);
    ASSERT_EQ(static_cast<int64_t>(d.ended.size()), next);
    for (const auto& [id, outcome] : d.ended) {
      if (outcome == Outcome::kFinished) {
        EXPECT_EQ(d.sampled[id], outputs[id]) << id;
      }
    }
  });
}

}  // namespace
}  // namespace towline::policy
