// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/membership.hpp"

#include <gtest/gtest.h>

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
  ASSERT_EQ(m.overdue(at(103)).size(), 1u) << "silent for 2 s before or after, and 1 s on the other side";
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
  m.set_busy(at(35), a, false);
  EXPECT_TRUE(m.overdue(at(35)).empty());
}

}  // namespace
}  // namespace towline::policy
