// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Prompt and decode nodes, by hand. host_script_test.cpp has the random scripts.
#include <gtest/gtest.h>

#include "policy/host.hpp"
#include "policy/host_journal.hpp"

namespace towline::policy {
namespace {

using Kind = HostAction::Kind;

HostOptions options() {
  HostOptions o;
  o.total_layers = 4;
  o.batching = {.step_tokens = 64, .sequences = 8, .chunk_tokens = 64};
  return o;
}

// Node 0 processes prompts, nodes 1 and 2 decode.
HostPlan plan() {
  HostPlan p;
  p.nodes.assign(3, {.layers = {0, 4}, .kv_capacity = 4 * 1600});
  p.nodes[0].role = NodeRole::kPrompt;
  p.nodes[1].role = p.nodes[2].role = NodeRole::kDecode;
  p.nodes[1].layers = {0, 2};
  p.nodes[2].layers = {2, 4};
  p.links = {{0, kSourceNode, 0, 1}, {1, 0, kSinkNode, 1},  {2, kSourceNode, 1, 1},
             {3, 1, 2, 1},           {4, 2, kSinkNode, 1}};
  return p;
}

struct Driver {
  explicit Driver(const HostPlan& p) : host(*Host::make(options(), p)) {}

  Host host;
  std::vector<HostAction> actions;
  std::vector<int32_t> flying;

  void tell(const HostEvent& event) {
    actions.clear();
    host.step(Instant{}, event, actions);
    host.check_invariants();
    for (const HostAction& a : actions) {
      if (a.kind == Kind::kLaunch) flying.push_back(a.ticket);
      if (a.kind == Kind::kAbandon) std::erase(flying, a.ticket);
    }
  }
  void arrive(int32_t prompt, int32_t tokens, bool known = false) {
    Arrive a;
    a.id = RequestId(7);
    a.prompt_length = prompt;
    if (known) a.prompt.assign(static_cast<size_t>(prompt), 3);
    a.max_tokens = tokens;
    tell(a);
  }
  // The oldest step is done; every entry that samples gives `token`.
  void finish(int32_t token = 5) {
    const int32_t ticket = flying.front();
    flying.erase(flying.begin());
    std::vector<Sampled> sampled;
    for (const StepEntry& e : host.flight(ticket).entries) {
      if (e.samples) sampled.push_back({e.seq, token});
    }
    tell(StepDone{ticket, sampled});
  }
  const HostAction* find(Kind kind) const {
    for (const HostAction& a : actions) {
      if (a.kind == kind) return &a;
    }
    return nullptr;
  }
  const Step& step() const { return host.flight(flying.front()); }
};

TEST(HostRoles, APromptsKvGoesWhereTheRequestDecodes) {
  Driver d(plan());
  d.arrive(100, 3, true);
  ASSERT_EQ(d.flying.size(), 1u);
  EXPECT_EQ(d.host.lane(d.step().lane).pipeline[0].node, 0);
  EXPECT_EQ(d.host.lane(d.host.decode_lane(RequestId(7))).pipeline[0].node, 1);
  d.finish();  // 64 rows
  d.finish();  // 36, and the first token
  const HostAction* const over = d.find(Kind::kHandOver);
  ASSERT_NE(over, nullptr);
  EXPECT_EQ(d.host.prompt_way(RequestId(7))[0].node, 0);
  EXPECT_EQ(d.host.batcher().ledger(0).held(), 0) << "the prompt node has its blocks back";
  EXPECT_TRUE(d.flying.empty());
  d.tell(KvArrived{RequestId(7), false});
  ASSERT_EQ(d.flying.size(), 1u);
  const Step& step = d.step();
  EXPECT_EQ(d.host.lane(step.lane).pipeline.size(), 3u);
  ASSERT_EQ(step.entries.size(), 1u);
  EXPECT_EQ(step.entries[0].from, 100) << "no row of the prompt is evaluated again";
  EXPECT_EQ(step.entries[0].to, 101);
  EXPECT_EQ(step.entries[0].tokens, std::vector<int32_t>{5}) << "the token that the prompt gave";
  EXPECT_EQ(step.entries[0].blocks.size(), 2u * 7) << "for 101 tokens on both nodes";
  d.finish();
  d.finish();
  const HostAction* const ended = d.find(Kind::kEnded);
  ASSERT_NE(ended, nullptr);
  EXPECT_EQ(ended->outcome, Outcome::kFinished);
  EXPECT_EQ(d.host.unfinished(), 0);
  EXPECT_EQ(d.host.batcher().counters().evaluated, 102);
}

TEST(HostRoles, OneTokenNeedsNoMove) {
  Driver d(plan());
  d.arrive(10, 1);
  d.finish();
  EXPECT_EQ(d.find(Kind::kHandOver), nullptr);
  ASSERT_NE(d.find(Kind::kEnded), nullptr);
  EXPECT_EQ(d.find(Kind::kEnded)->outcome, Outcome::kFinished);
}

TEST(HostRoles, WhoLosesItsDecodeNodesWhileMovingBeginsAgain) {
  Driver d(plan());
  d.arrive(10, 4);
  d.finish();
  ASSERT_NE(d.find(Kind::kHandOver), nullptr);
  HostPlan other = plan();
  ++other.nodes[2].incarnation;  // it came back with nothing
  d.tell(other);
  EXPECT_NE(d.find(Kind::kDisplaced), nullptr);
  ASSERT_EQ(d.flying.size(), 1u);
  EXPECT_EQ(d.step().entries[0].to, 11) << "the prompt and the token that was given already";
  d.tell(KvArrived{RequestId(7), false});
  EXPECT_TRUE(d.actions.empty()) << "what arrives late is not wanted any more";
  d.finish();
  d.tell(KvArrived{RequestId(7), false});
  d.finish();
  d.finish();
  ASSERT_NE(d.find(Kind::kEnded), nullptr) << "four tokens in all";
  EXPECT_EQ(d.host.unfinished(), 0);
}

TEST(HostRoles, AKvCacheThatIsLostOnTheWayIsComputedAgain) {
  Driver d(plan());
  d.arrive(10, 2);
  d.finish();
  d.tell(KvArrived{RequestId(7), true});
  EXPECT_NE(d.find(Kind::kDisplaced), nullptr);
  ASSERT_EQ(d.flying.size(), 1u);
  EXPECT_EQ(d.step().entries[0].to, 11);
  d.finish();
  ASSERT_NE(d.find(Kind::kEnded), nullptr) << "both tokens were given by prompt nodes";
}

TEST(HostRoles, CancellingWhileMovingEndsItOnce) {
  Driver d(plan());
  d.arrive(10, 4);
  d.finish();
  d.tell(Cancel{RequestId(7)});
  ASSERT_NE(d.find(Kind::kEnded), nullptr);
  EXPECT_EQ(d.find(Kind::kEnded)->outcome, Outcome::kCancelled);
  d.tell(KvArrived{RequestId(7), false});
  EXPECT_TRUE(d.actions.empty());
  EXPECT_EQ(d.host.unfinished(), 0);
}

TEST(HostRoles, AllNodesHaveARoleOrNone) {
  HostPlan p = plan();
  p.nodes[2].role = NodeRole::kBoth;
  EXPECT_FALSE(Host::make(options(), p));
  // Without a side there is no way.
  p = plan();
  p.nodes[1].role = p.nodes[2].role = NodeRole::kPrompt;
  const auto host = Host::make(options(), p);
  ASSERT_TRUE(host);
  EXPECT_FALSE(host->open());
}

TEST(HostRoles, PlansWithoutRolesAreEncodedAsBefore) {
  HostPlan p = plan();
  const size_t with = encode_event(p).size();
  const auto back = decode_event(encode_event(p));
  ASSERT_TRUE(back);
  EXPECT_EQ(std::get<HostPlan>(back->event), p);
  for (HostNode& node : p.nodes) node.role = NodeRole::kBoth;
  EXPECT_EQ(encode_event(p).size(), with - p.nodes.size());
}

}  // namespace
}  // namespace towline::policy
