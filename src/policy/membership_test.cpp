// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/membership.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <set>
#include <string>

#include "base/for_seeds.hpp"

namespace towline::policy {
namespace {

Instant at(int64_t s) { return Instant{} + seconds(s); }

TEST(Membership, ANameKeepsItsIdOverIncarnations) {
  Membership m({.lease = seconds(3), .hang = seconds(60)});
  const NodeId planned = m.know("b");
  const auto a = m.hello(at(0), "a", 1), b = m.hello(at(0), "b", 2);
  EXPECT_EQ(b.node, planned);
  EXPECT_NE(a.node, b.node);
  const auto again = m.hello(at(1), "a", 3);
  EXPECT_EQ(again.node, a.node);
  EXPECT_TRUE(again.replaced);
  EXPECT_FALSE(m.is_current(a.node, 1));
  EXPECT_TRUE(m.is_current(a.node, 3));
  EXPECT_EQ(m.hello(at(1), "a", 1).verdict, Membership::Verdict::kFenced) << "stale incarnation";
  EXPECT_EQ(m.hello(at(1), "a", 3).verdict, Membership::Verdict::kAlreadyHere);
}

TEST(Membership, IncarnationsOfEarlierEpochsStayOut) {
  Membership m({seconds(3), seconds(60)});
  const NodeId a = m.know("a");
  m.fence(a, 7);
  m.fence(NodeId(5), 7);  // nobody
  EXPECT_EQ(m.hello(Instant{1}, "a", 7).verdict, Membership::Verdict::kFenced);
  EXPECT_EQ(m.hello(Instant{1}, "a", 8).verdict, Membership::Verdict::kWelcome);
  m.fence(a, 8);  // it is here: nothing to refuse
  EXPECT_TRUE(m.is_current(a, 8));
}

TEST(Membership, SilenceEndsTheLeaseAndABeatRenewsIt) {
  Membership m({.lease = seconds(3), .hang = seconds(60)});
  const NodeId a = m.hello(at(0), "a", 1).node;
  EXPECT_EQ(m.next_deadline(), at(3));
  EXPECT_TRUE(m.beat(at(2), a, 1, 0));
  EXPECT_TRUE(m.overdue(at(4)).empty());
  ASSERT_EQ(m.overdue(at(5)).size(), 1u);
  EXPECT_TRUE(m.overdue(at(5))[0].silent);
  EXPECT_TRUE(m.declare_dead(a));
  EXPECT_FALSE(m.beat(at(5), a, 1, 0)) << "the dead stay dead";
  EXPECT_EQ(m.hello(at(5), "a", 1).verdict, Membership::Verdict::kFenced);
  EXPECT_EQ(m.next_deadline(), kNever);
}

TEST(Membership, TimeInWhichNobodyListenedIsNobodysSilence) {
  Membership m({.lease = seconds(3), .hang = seconds(60)});
  const NodeId a = m.hello(at(0), "a", 1).node;
  m.set_busy(at(0), a, true);
  m.forgive(seconds(100));  // the driver was stopped from 1 to 101
  EXPECT_TRUE(m.overdue(at(102)).empty());
  EXPECT_EQ(m.next_deadline(), at(103));
  ASSERT_EQ(m.overdue(at(103)).size(), 1u)
      << "silent for 2 s before or after, and 1 s on the other side";
  EXPECT_TRUE(m.beat(at(103), a, 1, 0));
  EXPECT_EQ(m.next_deadline(), at(106));
}

TEST(Membership, AHungNodeBeatsButMakesNoProgress) {
  Membership m({.lease = seconds(3), .hang = seconds(10)});
  const NodeId a = m.hello(at(0), "a", 1).node;
  for (int64_t t = 1; t <= 20; ++t) m.beat(at(t), a, 1, 0);
  EXPECT_TRUE(m.overdue(at(20)).empty()) << "nothing to do is no hang";
  m.set_busy(at(20), a, true);
  for (int64_t t = 21; t <= 29; ++t) m.beat(at(t), a, 1, t == 25 ? 1 : t > 25 ? 1 : 0);
  EXPECT_TRUE(m.overdue(at(30)).empty()) << "a run ended at 25";
  for (int64_t t = 30; t <= 35; ++t) m.beat(at(t), a, 1, 1);
  ASSERT_EQ(m.overdue(at(35)).size(), 1u);
  EXPECT_FALSE(m.overdue(at(35))[0].silent);
  m.set_hang(a, seconds(11));  // a slow one
  EXPECT_TRUE(m.overdue(at(35)).empty());
  m.set_hang(a, seconds(1));  // never less than the limit
  EXPECT_EQ(m.overdue(at(35)).size(), 1u);
  m.set_busy(at(35), a, false);
  EXPECT_TRUE(m.overdue(at(35)).empty());
}

// All that was ever told of one name, and what follows from it by the words of the header.
struct History {
  enum class What { kHello, kBeat, kProgress, kWork };
  std::vector<std::pair<Instant, What>> told;  // of the living incarnation; forgiven time added
  std::optional<uint64_t> living;
  std::set<uint64_t> fenced;
  int64_t runs = 0;
  bool busy = false;

  Instant last(std::initializer_list<What> kinds) const {
    Instant at{};
    for (const auto& [when, what] : told) {
      if (std::ranges::find(kinds, what) != kinds.end()) at = std::max(at, when);
    }
    return at;
  }
  Instant deadline(const MembershipLimits& limits) const {
    if (!living) return kNever;
    const Instant silence = last({What::kHello, What::kBeat}) + limits.lease;
    const Instant hang = last({What::kHello, What::kProgress, What::kWork}) + limits.hang;
    return busy ? std::min(silence, hang) : silence;
  }
  void die() {
    if (living) fenced.insert(*living);
    living.reset();
    told.clear();
    busy = false;
  }
};

// A Membership and the histories beside it.
struct MembershipScript {
  using What = History::What;
  explicit MembershipScript(Rng& dice) : rng(dice), names(1 + dice.below(4)) {
    for (size_t i = 0; i < names.size(); ++i) m.know("n" + std::to_string(i));
  }

  void hello(size_t who, uint64_t incarnation) {
    History& h = names[who];
    const auto got = m.hello(now, "n" + std::to_string(who), incarnation);
    ASSERT_EQ(got.node, NodeId(static_cast<int32_t>(who)));
    const bool fenced = h.fenced.contains(incarnation), here = h.living == incarnation;
    ASSERT_EQ(got.verdict, fenced ? Membership::Verdict::kFenced
                           : here ? Membership::Verdict::kAlreadyHere
                                  : Membership::Verdict::kWelcome);
    ASSERT_EQ(got.replaced, !fenced && !here && h.living.has_value());
    if (fenced || here) return;
    h.die();
    h.living = incarnation;
    h.runs = 0;
    h.told.emplace_back(now, What::kHello);
  }
  void beat(size_t who, uint64_t incarnation) {
    History& h = names[who];
    const int64_t runs = h.runs + static_cast<int64_t>(rng.below(2));
    const bool counts = h.living == incarnation;
    ASSERT_EQ(m.beat(now, NodeId(static_cast<int32_t>(who)), incarnation, runs), counts);
    if (!counts) return;
    h.told.emplace_back(now, What::kBeat);
    if (runs != h.runs) h.told.emplace_back(now, What::kProgress);
    h.runs = runs;
  }
  void forgive(Duration time) {
    now = now + time;
    m.forgive(time);
    for (History& h : names) {
      for (auto& [when, what] : h.told) when = when + time;
    }
  }
  void one_event() {
    now = now + milliseconds(rng.between(0, 800));
    const size_t who = rng.below(names.size());
    const NodeId node(static_cast<int32_t>(who));
    const uint64_t any = 1 + rng.below(6);
    History& h = names[who];
    const uint64_t dice = rng.below(20);
    if (dice < 3) {
      hello(who, any);
    } else if (dice < 12) {
      beat(who, rng.below(4) == 0 ? any : h.living.value_or(any));
    } else if (dice < 15 && h.living) {
      const bool busy = rng.below(2) != 0;
      m.set_busy(now, node, busy);
      if (busy && !h.busy) h.told.emplace_back(now, What::kWork);
      h.busy = busy;
    } else if (dice == 15) {
      m.fence(node, any);
      if (h.living != any) h.fenced.insert(any);
    } else if (dice == 16) {
      forgive(milliseconds(rng.between(0, 3000)));
    } else if (dice == 17) {
      ASSERT_EQ(m.declare_dead(node), h.living.has_value());
      h.die();
    }
  }
  void compare() {
    Instant next = kNever;
    std::vector<NodeId> late, told;
    for (size_t i = 0; i < names.size(); ++i) {
      const NodeId node(static_cast<int32_t>(i));
      const Instant deadline = names[i].deadline(limits);
      next = std::min(next, deadline);
      if (deadline <= now) late.push_back(node);
      ASSERT_EQ(m.is_alive(node), names[i].living.has_value());
    }
    for (const auto& found : m.overdue(now)) told.push_back(found.node);
    ASSERT_EQ(told, late);
    ASSERT_EQ(m.next_deadline(), next);
  }

  Rng& rng;
  std::vector<History> names;
  MembershipLimits limits{.lease = seconds(rng.between(1, 5)), .hang = seconds(rng.between(2, 20))};
  Membership m{limits};
  Instant now = at(1);
};

TEST(Membership, FollowsAnyScript) {
  for_events(kMillionEvents, [](Rng& rng, int64_t& events) {
    MembershipScript script(rng);
    for (int i = 0; i < 200 && !::testing::Test::HasFatalFailure(); ++i, ++events) {
      script.one_event();
      script.compare();
    }
  });
}

}  // namespace
}  // namespace towline::policy
