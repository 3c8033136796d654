// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/path_flow.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "base/for_seeds.hpp"
#include "base/rng.hpp"
#include "sim/helix_load.hpp"
#include "sim/stage_grid.hpp"

namespace towline::sim {
namespace {

// Flow into and out of every node; the last two: out of the coordinator, and back to it.
std::vector<std::pair<double, double>> balances(const HelixInput& input) {
  std::vector<std::pair<double, double>> sums(input.nodes.size() + 2);
  for (size_t i = 0; i < input.links.size(); ++i) {
    const HelixLink& link = input.links[i];
    (link.from < 0 ? sums[sums.size() - 2].second : sums[link.from].second) += input.flow[i];
    (link.to < 0 ? sums.back().first : sums[link.to].first) += input.flow[i];
  }
  return sums;
}

TEST(PathFlow, IsAFlowOfTheSameValueThroughTheSameNodes) {
  for_seeds(100, [](Rng& rng) {
    HelixInput input = grid(static_cast<int32_t>(rng.between(1, 5)),
                            static_cast<int32_t>(rng.between(1, 6)));
    for (HelixNode& node : input.nodes) node.rate = static_cast<double>(rng.between(1, 200));
    std::erase_if(input.links, [&](const HelixLink& l) {
      return l.from >= 0 && l.to >= 0 && rng.below(4) == 0;
    });
    plan_flow(input);
    const auto before = balances(input);
    keep_to_few_ways(input, {});
    const auto after = balances(input);
    for (size_t i = 0; i < before.size(); ++i) {
      ASSERT_NEAR(after[i].first, before[i].first, 1e-4 * (1 + before[i].first));
      ASSERT_NEAR(after[i].second, before[i].second, 1e-4 * (1 + before[i].second));
    }
    for (const double f : input.flow) ASSERT_GE(f, 0);
  });
}

// What the header says, by looking at every link of a node again for every way.
std::vector<double> by_plain_search(const HelixInput& input, const std::vector<double>& before) {
  std::vector<double> left(input.nodes.size(), 0), room(input.links.size()), flow(room.size(), 0);
  double wanted = 0, got = 0;
  for (size_t i = 0; i < input.links.size(); ++i) {
    const HelixLink& link = input.links[i];
    const bool outer = link.from < 0 || link.to < 0;
    room[i] = link.bandwidth / (input.token_bytes + (outer ? 0 : input.activation_bytes));
    (link.to >= 0 ? left[link.to] : wanted) += input.flow[i];
  }
  const auto width = [&](size_t i) {
    return input.links[i].to >= 0 ? std::min(room[i], left[input.links[i].to]) : room[i];
  };
  const double least = 1e-6 * wanted / static_cast<double>(left.size() + 1);
  while (wanted - got > 1e-6 * wanted) {
    std::vector<size_t> way;
    double amount = wanted - got;
    for (int32_t node = policy::kSourceNode; node != policy::kSinkNode;) {
      double most = 0;
      size_t best = room.size();
      for (size_t i = 0; i < room.size(); ++i) {
        if (input.links[i].from != node || width(i) <= least) continue;
        const double w = before.empty() || before[i] <= 0 ? width(i) : width(i) * 1.5;
        if (w > most) {
          most = w;
          best = i;
        }
      }
      if (best == room.size()) return input.flow;
      way.push_back(best);
      node = input.links[best].to;
      amount = std::min(amount, width(best));
    }
    for (const size_t i : way) {
      flow[i] += amount;
      room[i] -= amount;
      if (input.links[i].to >= 0) left[input.links[i].to] -= amount;
    }
    got += amount;
  }
  return flow;
}

TEST(PathFlow, IsThatOfAPlainSearch) {
  for_seeds(60, [](Rng& rng) {
    HelixInput input = grid(static_cast<int32_t>(rng.between(1, 4)),
                            static_cast<int32_t>(rng.between(1, 8)));
    std::vector<double> before;
    for (int plans = 0; plans < 3; ++plans) {  // few different rates, so that many are equal
      for (HelixNode& node : input.nodes) node.rate = static_cast<double>(rng.between(1, 4));
      plan_flow(input);
      const std::vector<double> expected = by_plain_search(input, before);
      keep_to_few_ways(input, before);
      ASSERT_EQ(input.flow, expected);
      before = input.flow;
    }
  });
}

TEST(PathFlow, EqualMachinesArePairedOffAndStayPaired) {
  HelixInput input = grid(5, 8);
  plan_flow(input);
  keep_to_few_ways(input, {});
  const auto used = [&] {
    std::set<size_t> links;
    for (size_t i = 0; i < input.links.size(); ++i) {
      if (input.flow[i] > 0) links.insert(i);
    }
    return links;
  };
  const std::set<size_t> first = used();
  EXPECT_EQ(first.size(), 8u * 6u);  // eight ways of six links
  // One machine less in the middle: most of the others' ways stay as they are.
  const std::vector<double> before = input.flow;
  HelixInput less = input;
  std::vector<double> carried;
  std::vector<size_t> original;
  less.links.clear();
  for (size_t i = 0; i < input.links.size(); ++i) {
    if (input.links[i].from == 19 || input.links[i].to == 19) continue;
    less.links.push_back(input.links[i]);
    carried.push_back(before[i]);
    original.push_back(i);
  }
  less.nodes[19].layers = {};
  plan_flow(less);
  keep_to_few_ways(less, carried);
  size_t kept = 0;
  for (size_t i = 0; i < less.links.size(); ++i) {
    kept += less.flow[i] > 0 && first.contains(original[i]);
  }
  EXPECT_GE(kept, 30u);
}

}  // namespace
}  // namespace towline::sim
