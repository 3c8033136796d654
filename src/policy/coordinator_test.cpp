// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/coordinator.hpp"

#include <gtest/gtest.h>

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
                     static_cast<int32_t>(rng.between(11, 30))});
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
    EXPECT_EQ(trace->state, "finished");
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
      const size_t node = rng.below(o.nodes.size());
      const uint64_t what = rng.below(4);
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

TEST(Coordinator, WithoutAWayARequestFailsAndSaysWhy) {
  Rng rng(5);
  FakeCluster::Options o = options_for(rng);
  o.model.layers = o.host.total_layers = 4;
  o.host.wait_for_nodes = seconds(2);
  add_node(o, rng, 0, 2);
  add_node(o, rng, 2, 4);
  FakeCluster cluster(o, rng);
  cluster.start_node(0);
  cluster.start_node(1);
  cluster.run_until(Instant{} + seconds(1));
  Expected e = make_request(1, o.model, rng);
  e.request.max_tokens = 80;
  e.request.stop_tokens.clear();
  cluster.expected = 1;
  cluster.submit(e.request);
  cluster.schedule(milliseconds(200), [&] { cluster.kill(1, false); });
  ASSERT_TRUE(cluster.finish(seconds(60)));
  const FakeCluster::Outcome& outcome = cluster.outcomes().at(RequestId(1));
  EXPECT_EQ(outcome.finish, CoordinatorFinish::kError);
  EXPECT_EQ(outcome.error, "no way is left: node n1 was lost: killed");
}

TEST(Coordinator, ADrainedNodeGetsNoNewRequestAndFinishesItsOwn) {
  Rng rng(7);
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
  EXPECT_EQ(cluster.host().nodes()[0].state, "drained");
  for (const auto& [id, e] : expected) {
    if (e.cancelled) continue;
    EXPECT_EQ(cluster.outcomes().at(id).tokens, e.tokens);
  }
}

}  // namespace
}  // namespace towline::policy
