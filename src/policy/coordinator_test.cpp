// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/coordinator.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <vector>

#include "base/for_seeds.hpp"
#include "policy/testing_cluster.hpp"

namespace towline::policy {
namespace {

struct Expected {
  CoordinatorRequest request;
  std::vector<int32_t> tokens;
  bool cancelled = false;
};

FakeCluster::Options options_for(Rng& rng) {
  FakeCluster::Options o;
  o.model.layers = static_cast<int32_t>(rng.between(1, 6));
  o.host.total_layers = o.model.layers;
  o.host.vocab = kFakeVocab;
  o.host.context = 160;
  o.host.batch.step_tokens = static_cast<int32_t>(rng.between(8, 40));
  o.host.batch.chunk_tokens = static_cast<int32_t>(rng.between(1, o.host.batch.step_tokens));
  o.host.batch.sequences = static_cast<int32_t>(rng.between(2, 12));
  o.host.batch.prefix_cache = rng.below(2) != 0;
  if (rng.below(3) == 0) {
    o.host.batch.ahead = 1;
    o.host.batch.placeholders = true;
  } else {
    o.host.batch.ahead = static_cast<int32_t>(rng.between(0, 4));  // chunks follow each other
  }
  o.host.extra_steps = static_cast<int32_t>(rng.between(0, 2));
  o.host.slots = 32;
  o.host.router = static_cast<RouterKind>(rng.below(4));
  o.host.form = static_cast<DeltaForm>(rng.below(2));
  o.host.seed = rng();
  o.host.kv.usual_output = static_cast<double>(rng.between(0, 30));
  return o;
}

void add_node(FakeCluster::Options& o, Rng& rng, int32_t begin, int32_t end) {
  o.nodes.push_back({"n" + std::to_string(o.nodes.size()), {begin, end},
                     static_cast<int32_t>(rng.between(11, 30)),
                     rng.below(3) == 0 ? static_cast<int32_t>(rng.between(2, 3)) : 1});
}

// A chain that covers the model, with overlaps, and some more nodes of any range.
void add_nodes(FakeCluster::Options& o, Rng& rng, int64_t most) {
  int32_t done = 0;
  while (done < o.model.layers) {
    const auto begin = static_cast<int32_t>(rng.between(std::max(0, done - 2), done));
    const auto end = static_cast<int32_t>(rng.between(done + 1, o.model.layers));
    add_node(o, rng, begin, end);
    done = end;
  }
  for (int64_t i = rng.between(0, most); i > 0; --i) {
    const auto begin = static_cast<int32_t>(rng.between(0, o.model.layers - 1));
    add_node(o, rng, begin, static_cast<int32_t>(rng.between(begin + 1, o.model.layers)));
  }
}

Expected make_request(int64_t id, const FakeModel& model, Rng& rng) {
  Expected e;
  e.request.id = RequestId(id);
  const int64_t length = rng.between(1, 70);
  for (int64_t i = 0; i < length; ++i) e.request.prompt.push_back(static_cast<int32_t>(i / 20));
  if (rng.below(2) != 0) e.request.prompt.back() = static_cast<int32_t>(rng.below(kFakeVocab));
  e.request.max_tokens = static_cast<int32_t>(rng.between(1, 40));
  if (rng.below(3) == 0) e.request.stop_tokens = {static_cast<int32_t>(rng.below(kFakeVocab))};
  e.request.priority = static_cast<int32_t>(rng.below(3));
  e.request.spec.sampling.seed = rng();
  e.tokens = model.generate(e.request.prompt, e.request.spec.sampling.seed, e.request.max_tokens,
                            e.request.stop_tokens);
  return e;
}

std::map<RequestId, Expected> submit_some(FakeCluster& cluster, const FakeModel& model, Rng& rng,
                                          int64_t count, Duration over) {
  std::map<RequestId, Expected> expected;
  for (int64_t i = 0; i < count; ++i) {
    const Expected e = make_request(i, model, rng);
    expected[e.request.id] = e;
    cluster.schedule(Duration(rng.between(0, over.value)), [&cluster, e] {
      cluster.submit(e.request);
    });
    if (rng.below(10) == 0) {
      expected[e.request.id].cancelled = true;
      cluster.schedule(Duration(rng.between(0, over.value * 2)), [&cluster, e] {
        cluster.cancel(e.request.id);
      });
    }
  }
  cluster.expected = count;
  return expected;
}

// Every request ended once; those that finished have the tokens of one process, and all that was
// reported of the others is the beginning of it. Returns how many failed.
int64_t check(const FakeCluster& cluster, const std::map<RequestId, Expected>& expected) {
  int64_t failed = 0;
  EXPECT_EQ(cluster.outcomes().size(), expected.size());
  for (const auto& [id, e] : expected) {
    const FakeCluster::Outcome& outcome = cluster.outcomes().at(id);
    EXPECT_EQ(outcome.ends, 1) << id.value;
    std::vector<int32_t> tokens = e.tokens;
    switch (outcome.finish) {
      case CoordinatorFinish::kStop:
      case CoordinatorFinish::kLength:
        break;
      case CoordinatorFinish::kCancelled:
        EXPECT_TRUE(e.cancelled);
        tokens.resize(std::min(tokens.size(), outcome.tokens.size()));
        break;
      case CoordinatorFinish::kError:
        ++failed;
        EXPECT_FALSE(outcome.error.empty());
        tokens.resize(std::min(tokens.size(), outcome.tokens.size()));
        break;
      case CoordinatorFinish::kNone:
        ADD_FAILURE() << "request " << id.value << " did not end";
    }
    EXPECT_EQ(outcome.tokens, tokens) << id.value;
    const RequestTrace* trace = cluster.host().trace(id);
    if (trace == nullptr) {
      ADD_FAILURE() << "request " << id.value << " left no trace";
      continue;
    }
    const bool bad = outcome.finish == CoordinatorFinish::kError;
    const bool cancelled = outcome.finish == CoordinatorFinish::kCancelled;
    EXPECT_EQ(trace->state, bad ? "failed" : cancelled ? "cancelled" : "finished");
    EXPECT_EQ(trace->failure, bad ? outcome.error : "");
    for (const auto& attempt : trace->attempts) EXPECT_FALSE(attempt.outcome.empty());
  }
  return failed;
}

void expect_nothing_left(const FakeCluster& cluster, size_t nodes, bool told = true) {
  EXPECT_TRUE(cluster.host().idle());
  for (const NodeView& view : cluster.host().nodes()) {
    EXPECT_EQ(view.kv_blocks_used, 0) << view.name;
    EXPECT_EQ(view.steps_in_flight, 0) << view.name;
    EXPECT_EQ(view.sequences, 0) << view.name;
  }
  for (size_t i = 0; told && i < nodes; ++i) {  // the last message may be lost as well
    if (!cluster.alive(i) || cluster.peer(i) == nullptr) continue;
    if (!cluster.host().membership().is_alive(NodeId(static_cast<int32_t>(i)))) continue;
    for (const SlotState& s : cluster.peer(i)->mirror().slots()) EXPECT_FALSE(s.live);
    EXPECT_TRUE(cluster.peer(i)->mirror().all_pending().empty());
    EXPECT_FALSE(cluster.peer(i)->busy());
  }
}

TEST(Coordinator, AnyClusterGivesTheTokensOfOneProcess) {
  for_seeds(60, [](Rng& rng) {
    FakeCluster::Options o = options_for(rng);
    add_nodes(o, rng, 3);
    for (size_t i = 0; i < o.nodes.size(); ++i) o.host.nodes.push_back(o.nodes[i].name);
    FakeCluster cluster(o, rng);
    for (size_t i = 0; i < o.nodes.size(); ++i) cluster.start_node(i);
    cluster.run_until(Instant{} + seconds(1));
    ASSERT_TRUE(cluster.host().can_route());
    const auto expected = submit_some(cluster, o.model, rng, 25, seconds(2));
    ASSERT_TRUE(cluster.finish(seconds(600))) << "a request hangs";
    EXPECT_EQ(check(cluster, expected), 0);
    expect_nothing_left(cluster, o.nodes.size());
    for (size_t i = 0; i < o.nodes.size(); ++i) EXPECT_EQ(cluster.inputs_kept(i), 0u);
  });
}

TEST(Coordinator, DeathsStopsAndReturnsChangeNoToken) {
  int64_t reroutes = 0, failures = 0, requests = 0;
  for_events(kMillionEvents, [&](Rng& rng, int64_t& events) {
    FakeCluster::Options o = options_for(rng);
    add_nodes(o, rng, 3);
    if (rng.below(2) != 0) add_nodes(o, rng, 2);
    for (size_t i = 0; i < o.nodes.size(); ++i) o.host.nodes.push_back(o.nodes[i].name);
    o.host.wait_for_nodes = rng.below(3) == 0 ? Duration(0) : seconds(60);
    o.host.membership.hang = seconds(30);
    o.lost_messages = rng.below(4) == 0 ? 0.003 : 0;
    FakeCluster cluster(o, rng);
    for (size_t i = 0; i < o.nodes.size(); ++i) {
      cluster.schedule(milliseconds(rng.between(0, 300)), [&cluster, i] { cluster.start_node(i); });
    }
    cluster.run_until(Instant{} + seconds(1));
    const auto expected = submit_some(cluster, o.model, rng, 20, seconds(3));
    for (int64_t i = rng.between(1, 6); i > 0; --i) {
      const size_t node = rng.below(o.nodes.size()), other = rng.below(o.nodes.size());
      const uint64_t what = rng.below(4);
      const Duration cut = milliseconds(rng.between(1, 3000));
      cluster.schedule(milliseconds(rng.between(0, 6000)), [&cluster, node, other, cut, what] {
        cluster.cut_link(node, other, cut, what == 0);
      });
      cluster.schedule(milliseconds(rng.between(0, 6000)), [&cluster, node, what] {
        if (what == 0) {
          cluster.stop_for(node, seconds(5));
        } else if (what == 1) {
          cluster.stop_for(node, milliseconds(800));
        } else {
          cluster.kill(node, what == 2);
        }
      });
      cluster.schedule(milliseconds(rng.between(0, 12000)), [&cluster, node] {
        cluster.kill(node, false);
        cluster.start_node(node);  // another incarnation, whether the old one lives or not
      });
    }
    ASSERT_TRUE(cluster.finish(seconds(900))) << "a request hangs";
    failures += check(cluster, expected);
    expect_nothing_left(cluster, o.nodes.size(), o.lost_messages == 0);
    reroutes += cluster.host().load().reroutes;
    requests += static_cast<int64_t>(expected.size());
    events += cluster.peer_events();
  });
  if (std::getenv("TOWLINE_SEED") == nullptr) {
    EXPECT_GT(reroutes, 500) << "the script kills too little";
    EXPECT_GT(failures, 0);
    EXPECT_LT(failures, requests / 3);
  }
}

// Nobody is lost for a link, nobody is waited for in vain, and what heals is used again.
TEST(Coordinator, LinksThatBreakAndHealChangeNoTokenAndLoseNobody) {
  int64_t reroutes = 0, healed = 0, passed_on = 0;
  for_seeds(120, [&](Rng& rng) {
    FakeCluster::Options o = options_for(rng);
    add_nodes(o, rng, 2);
    if (o.nodes.size() < 2) add_node(o, rng, 0, o.model.layers);
    o.host.wait_for_nodes = seconds(60);
    o.host.most_routes = 1000;
    FakeCluster cluster(o, rng);
    for (size_t i = 0; i < o.nodes.size(); ++i) cluster.start_node(i);
    cluster.run_until(Instant{} + seconds(1));
    const auto expected = submit_some(cluster, o.model, rng, 20, seconds(2));
    for (int64_t i = rng.between(1, 30); i > 0; --i) {
      const size_t from = rng.below(o.nodes.size()), to = rng.below(o.nodes.size());
      const Duration length = milliseconds(rng.between(1, rng.below(3) == 0 ? 4000 : 200));
      const bool both = rng.below(3) == 0;
      cluster.schedule(milliseconds(rng.between(0, 3000)), [&cluster, from, to, length, both] {
        cluster.cut_link(from, to, length, both);
      });
    }
    ASSERT_TRUE(cluster.finish(seconds(600))) << "a request hangs";
    EXPECT_EQ(check(cluster, expected), 0);
    expect_nothing_left(cluster, o.nodes.size());
    EXPECT_TRUE(cluster.host().broken_links().empty());
    EXPECT_TRUE(cluster.host().can_route());
    for (const std::string& note : cluster.notes()) {
      EXPECT_EQ(note.find("is lost"), std::string::npos) << note;
      healed += note.find(" again") != std::string::npos ? 1 : 0;
    }
    reroutes += cluster.host().load().reroutes;
    passed_on += cluster.feeds_passed_on();
  });
  if (std::getenv("TOWLINE_SEED") != nullptr) return;
  EXPECT_GT(reroutes, 500);
  EXPECT_GT(healed, 300);
  EXPECT_GT(passed_on, 100);
}

// Two nodes with half of the layers each, joined; and a request, not yet submitted.
struct OneWay {
  OneWay(uint64_t seed, Duration wait_for_nodes)
      : rng(seed), options(choose(rng, wait_for_nodes)), cluster(options, rng) {
    cluster.start_node(0);
    cluster.start_node(1);
    cluster.run_until(Instant{} + seconds(1));
    request = make_request(1, options.model, rng);
    cluster.expected = 1;
  }

  static FakeCluster::Options choose(Rng& rng, Duration wait_for_nodes) {
    FakeCluster::Options o = options_for(rng);
    o.model.layers = o.host.total_layers = 4;
    o.host.wait_for_nodes = wait_for_nodes;
    add_node(o, rng, 0, 2);
    add_node(o, rng, 2, 4);
    return o;
  }

  Rng rng;
  const FakeCluster::Options options;
  FakeCluster cluster;
  Expected request;
};

TEST(Coordinator, TheOnlyWayWaitsForItsLink) {
  OneWay way(11, seconds(100));
  FakeCluster& cluster = way.cluster;
  cluster.cut_link(0, 1, seconds(20), false);
  cluster.run_until(cluster.now() + seconds(1));
  EXPECT_FALSE(cluster.host().can_route());
  EXPECT_EQ(cluster.host().broken_links().size(), 1u);
  cluster.submit(way.request.request);
  cluster.run_until(cluster.now() + seconds(18));
  EXPECT_TRUE(!cluster.host().idle() && cluster.outcomes().empty());
  ASSERT_TRUE(cluster.finish(seconds(60)));
  EXPECT_EQ(cluster.outcomes().at(RequestId(1)).tokens, way.request.tokens);
}

TEST(Coordinator, WhileTheDriverStandsStillNobodyWaitsInVain) {
  CoordinatorOptions o;
  o.total_layers = 2;
  o.wait_for_nodes = seconds(10);
  Coordinator host(o);
  std::vector<CoordinatorAction> actions;
  Instant now{1'000'000'000};
  const auto ends = [&](const CoordinatorEvent& event) {
    actions.clear();
    host.step(now, event, actions);
    return std::ranges::count_if(actions, [](const CoordinatorAction& action) {
      return std::holds_alternative<RequestUpdate>(action);
    });
  };
  EXPECT_EQ(ends(CoordinatorRequest{RequestId(1), {1, 2, 3}, {}, 4, {}, 0, 0}), 0);
  now = now + seconds(9);
  EXPECT_EQ(ends(ClockTick{}), 0);
  now = now + seconds(100);
  EXPECT_EQ(ends(StoodStill{seconds(100)}), 0);
  EXPECT_EQ(ends(ClockTick{}), 0);
  EXPECT_EQ(host.next_deadline(), now + seconds(1));
  now = host.next_deadline();
  EXPECT_EQ(ends(ClockTick{}), 1);
}

// A link that comes and goes ten times a second makes two plans a second, not twenty.
TEST(Coordinator, AFlappingLinkDoesNotMakePlansAllTheTime) {
  CoordinatorOptions o;
  o.total_layers = 2;
  o.batch.step_tokens = 8;
  o.membership.lease = seconds(1000);
  Coordinator host(o);
  std::vector<CoordinatorAction> actions;
  Instant now{};
  int64_t plans = 0;
  const auto tell = [&](const CoordinatorEvent& event) {
    actions.clear();
    host.step(now, event, actions);
    for (const CoordinatorAction& action : actions) {
      const auto* ask = std::get_if<AskPlan>(&action);
      if (ask == nullptr) continue;
      ++plans;
      EXPECT_EQ(ask->broken.empty(), host.broken_links().empty());
    }
  };
  tell(NodeHello{1, "a", 7, {0, 1}, 8, 8});
  tell(NodeHello{2, "b", 8, {1, 2}, 8, 8});
  LinkReport broken{NodeId(0), 7, {{NodeId(1), 8, false, "cut"}}}, fine{NodeId(0), 7, {}};
  plans = 0;
  for (int i = 0; i < 100; ++i) {
    now = now + milliseconds(50);
    tell(broken);
    EXPECT_EQ(host.broken_links().size(), 1u);
    now = now + milliseconds(50);
    tell(fine);
  }
  EXPECT_GE(plans, 10);
  EXPECT_LE(plans, 22);
  // In the end it heals without another word, when the machine asked to be woken.
  if (!host.broken_links().empty()) {
    EXPECT_LE(host.next_deadline(), now + seconds(1));
    now = host.next_deadline();
    tell(ClockTick{});
  }
  EXPECT_TRUE(host.broken_links().empty());
  // Both ends name both directions: it is whole when neither does. Another incarnation is whole.
  const LinkReport a{NodeId(0), 7, {{NodeId(1), 8, true, "cut"}}};
  const LinkReport b{NodeId(1), 8, {{NodeId(0), 7, true, "cut"}}};
  tell(a);
  tell(b);
  EXPECT_EQ(host.broken_links().size(), 2u);
  now = now + seconds(2);
  tell(fine);
  EXPECT_EQ(host.broken_links().size(), 2u);
  tell(LinkReport{NodeId(1), 8, {}});
  EXPECT_EQ(host.broken_links().size(), 0u);
  tell(a);
  tell(NodeHello{3, "b", 9, {1, 2}, 8, 8});
  EXPECT_EQ(host.broken_links().size(), 0u);
  tell(a);
  EXPECT_EQ(host.broken_links().size(), 0u);
}

TEST(Coordinator, WithoutAWayARequestFailsAndSaysWhy) {
  OneWay way(5, seconds(2));
  FakeCluster& cluster = way.cluster;
  way.request.request.max_tokens = 80;
  way.request.request.stop_tokens.clear();
  cluster.submit(way.request.request);
  cluster.schedule(milliseconds(200), [&] { cluster.kill(1, false); });
  ASSERT_TRUE(cluster.finish(seconds(60)));
  const FakeCluster::Outcome& outcome = cluster.outcomes().at(RequestId(1));
  EXPECT_EQ(outcome.finish, CoordinatorFinish::kError);
  EXPECT_EQ(outcome.error, "no way is left: node n1 was lost: killed");
}

TEST(Coordinator, ADrainedNodeGetsNoNewRequestAndFinishesItsOwn) {
  for_seeds(20, [](Rng& rng) {
    FakeCluster::Options o = options_for(rng);
    o.model.layers = o.host.total_layers = 4;
    add_node(o, rng, 0, 4);
    add_node(o, rng, 0, 4);
    FakeCluster cluster(o, rng);
    cluster.start_node(0);
    cluster.start_node(1);
    cluster.run_until(Instant{} + seconds(1));
    const auto expected = submit_some(cluster, o.model, rng, 10, milliseconds(100));
    cluster.run_until(cluster.now() + milliseconds(300));
    cluster.drain(0);
    cluster.expected += 1;
    Expected late = make_request(100, o.model, rng);
    cluster.submit(late.request);
    ASSERT_TRUE(cluster.finish(seconds(100)));
    const RequestTrace* trace = cluster.host().trace(RequestId(100));
    ASSERT_TRUE(trace != nullptr && trace->attempts.size() == 1);
    EXPECT_EQ(trace->attempts[0].hops[0].first, "n1");
    EXPECT_EQ(cluster.outcomes().at(RequestId(100)).tokens, late.tokens);
    for (const NodeView& node : cluster.host().nodes()) {  // numbered as they came
      EXPECT_EQ(node.state, node.name == "n0" ? "drained" : "ready");
    }
    // Lost, it is gone, whatever it was told before.
    cluster.kill(0, false);
    cluster.run_until(cluster.now() + seconds(30));
    for (const NodeView& node : cluster.host().nodes()) {
      EXPECT_EQ(node.state, node.name == "n0" ? "gone" : "ready");
    }
    for (const auto& [id, e] : expected) {
      if (e.cancelled) continue;
      EXPECT_EQ(cluster.outcomes().at(id).tokens, e.tokens);
    }
  });
}

}  // namespace
}  // namespace towline::policy
