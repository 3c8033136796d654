// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/admission.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/for_seeds.hpp"

namespace towline::policy {
namespace {

TEST(Admission, PlacesByPriorityThenArrival) {
  Admission a({.placed = 2});
  EXPECT_TRUE(a.arrive(RequestId(1), 5));
  EXPECT_TRUE(a.arrive(RequestId(2), 0));
  EXPECT_TRUE(a.arrive(RequestId(3), 0));
  EXPECT_EQ(a.next(), RequestId(2));
  a.place(RequestId(2));
  EXPECT_EQ(a.next(), RequestId(3));
  a.place(RequestId(3));
  EXPECT_EQ(a.next(), std::nullopt);  // both places are taken
  a.displace(RequestId(2));           // and comes before those that arrived later
  EXPECT_EQ(a.next(), RequestId(2));
  a.place(RequestId(2));
  a.end(RequestId(3));
  EXPECT_EQ(a.next(), RequestId(1));
}

TEST(Admission, TheFirstInLineWaitsForRoomAndNobodyPasses) {
  Admission a({});
  a.arrive(RequestId(1));
  a.place(*a.next());
  a.arrive(RequestId(2));
  a.arrive(RequestId(3));
  EXPECT_TRUE(a.refuse(*a.next()));
  EXPECT_EQ(a.next(), std::nullopt);
  a.arrive(RequestId(4), -1);  // more urgent: leads now
  EXPECT_EQ(a.next(), RequestId(4));
  a.withdraw(RequestId(4));
  a.end(RequestId(1));
  EXPECT_EQ(a.next(), RequestId(2));
  EXPECT_FALSE(a.refuse(RequestId(2)));  // nothing is under way: it can never fit
  EXPECT_EQ(a.next(), RequestId(3));
}

TEST(Admission, QueueLimitCountsThoseWithoutAFreePlace) {
  EXPECT_FALSE(queue_full({.waiting = 0, .placed = 2}, 1, 0));
  EXPECT_TRUE(queue_full({.waiting = 0, .placed = 2}, 2, 0));
  EXPECT_TRUE(queue_full({.waiting = 0, .placed = 2}, 0, 2));
  EXPECT_FALSE(queue_full({.waiting = 3, .placed = 2}, 2, 2));
  EXPECT_TRUE(queue_full({.waiting = 3}, 3, 100));
}

TEST(Admission, OfflineFeedsWhileThereIsRoom) {
  Admission a({.placed = 2, .feed_high_water = 0.5});
  EXPECT_TRUE(a.wants_more(0.5));
  EXPECT_FALSE(a.wants_more(0.51));
  a.arrive(RequestId(1));
  EXPECT_FALSE(a.wants_more(0));  // somebody waits already
  a.place(RequestId(1));
  EXPECT_TRUE(a.wants_more(0));
}

// Any script of events: every request that arrived leaves once; the order is that of rank.
TEST(Admission, LosesNobodyUnderAnyScript) {
  for_events(kMillionEvents, [](Rng& rng, int64_t& events) {
    AdmissionLimits limits{.waiting = rng.between(0, 20), .placed = rng.between(1, 20)};
    Admission a(limits);
    struct Entry {
      int64_t id;
      int32_t priority;
    };
    std::vector<Entry> waiting, placed;  // the oracle: a list in order of arrival
    int64_t next = 0, ended = 0, rejected = 0, withdrawn = 0;
    const auto best = [&] {
      return std::min_element(waiting.begin(), waiting.end(), [](const auto& x, const auto& y) {
        return std::pair(x.priority, x.id) < std::pair(y.priority, y.id);
      });
    };
    for (int i = 0; i < 500; ++i, ++events) {
      const uint64_t dice = rng.below(10);
      if (dice < 4) {
        const Entry e{next++, static_cast<int32_t>(rng.below(3))};
        const int64_t free = limits.placed - static_cast<int64_t>(placed.size());
        const bool full = static_cast<int64_t>(waiting.size()) - free >= limits.waiting;
        ASSERT_EQ(a.arrive(RequestId(e.id), e.priority), !full);
        full ? void(++rejected) : waiting.push_back(e);
      } else if (dice < 7) {
        if (const auto id = a.next()) {
          ASSERT_EQ(id->value, best()->id);
          if (rng.below(5) == 0) {
            const bool waits = a.refuse(*id);
            ASSERT_EQ(waits, !placed.empty());
            if (!waits) {
              ++rejected;
              waiting.erase(best());
            }
          } else {
            a.place(*id);
            placed.push_back(*best());
            waiting.erase(best());
          }
        }
      } else if (!placed.empty() && dice < 9) {
        const auto at = placed.begin() + static_cast<long>(rng.below(placed.size()));
        if (dice == 7) {
          a.end(RequestId(at->id));
          ++ended;
        } else {
          a.displace(RequestId(at->id));
          waiting.push_back(*at);
        }
        placed.erase(at);
      } else if (!waiting.empty()) {
        const auto at = waiting.begin() + static_cast<long>(rng.below(waiting.size()));
        a.withdraw(RequestId(at->id));
        waiting.erase(at);
        ++withdrawn;
      }
      ASSERT_EQ(a.waiting(), static_cast<int64_t>(waiting.size()));
      ASSERT_EQ(a.placed(), static_cast<int64_t>(placed.size()));
      ASSERT_EQ(next, ended + rejected + withdrawn + a.waiting() + a.placed());
    }
  });
}

}  // namespace
}  // namespace towline::policy
