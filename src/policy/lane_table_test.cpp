// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/lane_table.hpp"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "base/for_seeds.hpp"

namespace towline::policy {
namespace {

TEST(LaneTable, IsAMapWhoseReferencesStay) {
  for_seeds(30, [](Rng& rng) {
    LaneTable<std::string> table;
    std::map<LaneId, std::string> oracle;
    std::map<LaneId, const std::string*> where;
    int32_t next = 0;
    for (int step = 0; step < 2'000; ++step) {
      const LaneId id(static_cast<int32_t>(rng.between(-1, next + 2)));
      if (rng.below(3) == 0) {
        next += static_cast<int32_t>(rng.below(3));
        const std::string text(rng.below(40), 'a');
        where[LaneId(next)] = &table.add(LaneId(next), text);
        oracle[LaneId(next++)] = text;
      } else if (oracle.contains(id) && rng.below(2) == 0) {
        table.erase(id);
        oracle.erase(id);
      }
      ASSERT_EQ(table.size(), oracle.size());
      ASSERT_EQ(table.contains(id), oracle.contains(id)) << id.value;
      ASSERT_EQ(table.find(id) == nullptr, !oracle.contains(id));
    }
    const LaneTable<std::string> copy = table;
    size_t seen = 0;
    copy.for_each([&](LaneId id, const std::string& text) {
      ++seen;
      EXPECT_EQ(oracle.at(id), text);
      EXPECT_EQ(&table.at(id), where.at(id));
      EXPECT_NE(&copy.at(id), where.at(id));
    });
    EXPECT_EQ(seen, oracle.size());
  });
}

}  // namespace
}  // namespace towline::policy
