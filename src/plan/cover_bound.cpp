// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/cover_bound.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
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
    best_ = hand.price = 1e300;
    if (items_.empty()) return hand;
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

// The master programme and its pricing.
class CoverProgramme {
 public:
  CoverProgramme(std::span<const double> supply, std::span<const Holder> holders, double flow,
                 double layers, double shared)
      : holders_(holders), flow_(flow), limits_(supply.begin(), supply.end()) {
    limits_.push_back(layers - shared);  // the last row: layers that one node covers alone
    for (const Holder& h : holders) rates_.push_back(std::clamp(h.rate, kLeastRate * flow, flow));
    master_.emplace(limits_);
    add_first_hands();
  }

  bool proves_less_than(double layers) {
    for (int32_t generated = 0; generated < kMostHands; ++generated) {
      if (!master_->solve() || master_->value() >= layers * (1 - kSlack)) return false;
      const std::vector<double> prices = master_->prices();
      double supply_price = 0;
      for (size_t r = 0; r < limits_.size(); ++r) {
        supply_price += limits_[r] * std::max(0.0, prices[r]);
      }
      const Hand hand = cheapest_hand(prices);
      if (supply_price < layers * (1 - kSlack) * hand.price) return true;
      if (hand.price >= 1 - kSlack) return false;  // the optimum, and it is no proof
      add(hand.holders);
    }
    return false;
  }

 private:
  bool alone(size_t holder) const { return rates_[holder] >= flow_; }

  void add(const std::vector<int32_t>& hand) {
    std::vector<double> use(limits_.size(), 0);
    for (const int32_t h : hand) use[holders_[h].resource] += holders_[h].use;
    use.back() = hand.size() == 1 ? 1 : 0;
    master_->add_column(1, use);
  }

  // The best hands of one kind alone, one node and several.
  void add_first_hands() {
    for (size_t r = 0; r + 1 < limits_.size(); ++r) {
      std::vector<int32_t> one, several;
      double least_one = 1e300, least_several = 1e300;
      for (size_t h = 0; h < holders_.size(); ++h) {
        if (holders_[h].resource != static_cast<int32_t>(r)) continue;
        const double count = std::ceil(flow_ / rates_[h] * (1 - 1e-12));
        double& least = count <= 1 ? least_one : least_several;
        if (count * holders_[h].use >= least) continue;
        least = count * holders_[h].use;
        (count <= 1 ? one : several).assign(static_cast<size_t>(count), static_cast<int32_t>(h));
      }
      if (!one.empty()) add(one);
      if (!several.empty()) add(several);
    }
  }

  Hand cheapest_hand(const std::vector<double>& prices) const {
    std::vector<Item> items;  // that cannot cover a layer alone
    Hand single, cheapest_holder;
    single.price = cheapest_holder.price = 1e300;
    for (size_t h = 0; h < holders_.size(); ++h) {
      const double price = std::max(0.0, prices[holders_[h].resource]) * holders_[h].use;
      Hand hand{price, {static_cast<int32_t>(h)}};
      if (price < cheapest_holder.price) cheapest_holder = hand;
      if (!alone(h)) {
        items.push_back({price, rates_[h], h});
      } else if (price < single.price) {
        single = std::move(hand);
      }
    }
    Hand best = Knapsack(std::move(items), flow_).solve();
    if (single.holders.empty()) return best;
    // One that could do it alone and any other.
    if (single.price + cheapest_holder.price < best.price) {
      best = {single.price + cheapest_holder.price,
              {single.holders.front(), cheapest_holder.holders.front()}};
    }
    single.price += std::max(0.0, prices.back());
    return single.price < best.price ? single : best;
  }

  std::span<const Holder> holders_;
  double flow_;
  std::vector<double> limits_;
  std::vector<double> rates_;  // [holder]
  std::optional<Simplex> master_;
};

}  // namespace

bool can_cover(std::span<const double> supply, std::span<const Holder> holders, double flow,
               double layers, double shared) {
  if (holders.empty()) return false;
  if (supply.size() > kMostResources || holders.size() > kMostHolders) return true;
  return !CoverProgramme(supply, holders, flow, layers, shared).proves_less_than(layers);
}

}  // namespace towline::plan
