// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/cover_bound.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "plan/simplex.hpp"

namespace towline::plan {
namespace {

constexpr double kSlack = 1e-9;        // relative: a "no" must not rest on rounding
constexpr int32_t kMostHands = 300;    // generated; then the question stays open
constexpr size_t kMostResources = 48;  // beyond these it is not asked
constexpr size_t kMostHolders = 3000;
constexpr double kLeastRate = 1e-3;    // of the flow; smaller ones are rounded up to it
constexpr int64_t kMostVisits = 5000;  // of the exact knapsack; then the grid
constexpr int32_t kGrid = 2000;        // steps of F of the other one

struct Item {
  double price = 0;
  double rate = 0;
  size_t holder = 0;
};

struct Hand {
  double price = 0;              // no hand is cheaper
  std::vector<int32_t> holders;  // by number, with repetition
};

// The cheapest multiset of items whose rates sum up to `flow`.
class Knapsack {
 public:
  Knapsack(std::vector<Item> items, double flow) : items_(std::move(items)), flow_(flow) {
    // An item that costs no less than one of at least its rate is never needed.
    std::sort(items_.begin(), items_.end(), [](const Item& a, const Item& b) {
      return a.price != b.price ? a.price < b.price : a.rate > b.rate;
    });
    double best_rate = 0;
    std::erase_if(items_, [&](const Item& item) {
      if (item.rate <= best_rate) return true;
      best_rate = item.rate;
      return false;
    });
    std::stable_sort(items_.begin(), items_.end(), [](const Item& a, const Item& b) {
      return a.price * b.rate < b.price * a.rate;
    });
  }

  Hand solve() {
    Hand hand;
    best_ = 1e300;
    descend(0, flow_, 0);
    if (visits_ > kMostVisits) return on_grid();
    hand.price = best_;
    hand.holders = best_hand_;
    return hand;
  }

 private:
  // Branch and bound: items in rising order of price a token.
  void descend(size_t at, double missing, double price) {
    if (++visits_ > kMostVisits) return;
    if (missing <= flow_ * 1e-12) {
      if (price < best_) {
        best_ = price;
        best_hand_ = chosen_;
      }
      return;
    }
    if (at == items_.size()) return;
    const Item& item = items_[at];
    if (price + missing * item.price / item.rate >= best_) return;
    const auto most = static_cast<int32_t>(std::ceil(missing / item.rate * (1 - 1e-12)));
    const size_t before = chosen_.size();
    chosen_.insert(chosen_.end(), static_cast<size_t>(most), static_cast<int32_t>(item.holder));
    for (int32_t count = most; count >= 0; --count) {
      descend(at + 1, missing - count * item.rate, price + count * item.price);
      if (count > 0) chosen_.pop_back();
    }
    chosen_.resize(before);
  }

  // Rates rounded up to F / kGrid: never dearer than the true optimum.
  Hand on_grid() const {
    std::vector<double> least(kGrid + 1, 1e300);  // [steps covered]
    std::vector<int32_t> last(kGrid + 1, -1);
    least[0] = 0;
    std::vector<int32_t> steps;
    for (const Item& item : items_) {
      const double exact = std::ceil(item.rate / flow_ * kGrid * (1 - 1e-12));
      steps.push_back(std::max(1, static_cast<int32_t>(std::min<double>(kGrid, exact))));
    }
    for (int32_t covered = 1; covered <= kGrid; ++covered) {
      for (size_t i = 0; i < items_.size(); ++i) {
        const double price = least[std::max(0, covered - steps[i])] + items_[i].price;
        if (price >= least[covered]) continue;
        least[covered] = price;
        last[covered] = static_cast<int32_t>(i);
      }
    }
    Hand hand;
    hand.price = least[kGrid];
    for (int32_t covered = kGrid; covered > 0; covered -= steps[last[covered]]) {
      hand.holders.push_back(static_cast<int32_t>(items_[last[covered]].holder));
    }
    return hand;
  }

  std::vector<Item> items_;
  double flow_;
  double best_ = 0;
  int64_t visits_ = 0;
  std::vector<int32_t> chosen_, best_hand_;
};

}  // namespace

bool can_cover(std::span<const double> supply, std::span<const Holder> holders, double flow,
               double layers) {
  if (holders.empty()) return false;
  if (supply.size() > kMostResources || holders.size() > kMostHolders) return true;
  const auto rate = [&](const Holder& h) { return std::clamp(h.rate, kLeastRate * flow, flow); };
  Simplex master{std::vector<double>(supply.begin(), supply.end())};
  std::vector<double> use(supply.size());
  const auto add = [&](const std::vector<int32_t>& hand) {
    std::fill(use.begin(), use.end(), 0);
    for (const int32_t h : hand) use[holders[h].resource] += holders[h].use;
    master.add_column(1, use);
  };
  for (size_t r = 0; r < supply.size(); ++r) {  // to start with, the best hand of each kind alone
    std::vector<int32_t> hand;
    double least = 1e300;
    for (size_t h = 0; h < holders.size(); ++h) {
      const double count = std::ceil(flow / rate(holders[h]) * (1 - 1e-12));
      if (holders[h].resource != static_cast<int32_t>(r) || count * holders[h].use >= least) continue;
      least = count * holders[h].use;
      hand.assign(static_cast<size_t>(count), static_cast<int32_t>(h));
    }
    if (!hand.empty()) add(hand);
  }
  for (int32_t generated = 0; generated < kMostHands; ++generated) {
    if (!master.solve() || master.value() >= layers * (1 - kSlack)) return true;
    const std::vector<double> prices = master.prices();
    double supply_price = 0;
    for (size_t r = 0; r < supply.size(); ++r) supply_price += supply[r] * std::max(0.0, prices[r]);
    std::vector<Item> items;
    for (size_t h = 0; h < holders.size(); ++h) {
      const double price = std::max(0.0, prices[holders[h].resource]) * holders[h].use;
      items.push_back({price, rate(holders[h]), h});
    }
    const Hand hand = Knapsack(std::move(items), flow).solve();
    if (supply_price < layers * (1 - kSlack) * hand.price) return false;
    if (hand.price >= 1 - kSlack) return true;  // the relaxation's optimum, and it is no proof
    add(hand.holders);
  }
  return true;
}

}  // namespace towline::plan
