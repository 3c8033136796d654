// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Iwrr: interleaved weighted round-robin over the links of one node (Helix, ASPLOS'25, section 5.1).
// One Iwrr may hold the links of many nodes; the candidates of a choice are then named.
//
// Each candidate has a capacity (its planned flow, tokens/s) and a load (the seconds of work given
// to it so far). Work goes where it would be done first; ties go to the earlier candidate. In the
// long run every candidate's share of the work equals its share of the capacity (property-tested).
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <ranges>
#include <span>
#include <vector>

namespace towline::policy {

class Iwrr {
 public:
  Iwrr() = default;
  explicit Iwrr(std::span<const double> capacities) {
    shares_.reserve(capacities.size());
    for (const double capacity : capacities) shares_.push_back({capacity, 0});
  }

  size_t size() const { return shares_.size(); }
  double capacity(size_t candidate) const { return shares_[candidate].capacity; }
  double load(size_t candidate) const { return shares_[candidate].load; }

  // The candidate for `work` tokens among those of `open` (in ascending order) for which allowed(i)
  // holds (capacity > 0 is the caller's promise), and charges it; -1 if there is none.
  template <class Candidates, class Allowed>
  int32_t choose(double work, const Candidates& open, Allowed&& allowed) {
    int32_t best = -1;
    double best_load = std::numeric_limits<double>::infinity();
    for (const size_t i : open) {
      if (!allowed(i)) continue;
      const double load = shares_[i].load + work / shares_[i].capacity;
      if (load < best_load) {
        best = static_cast<int32_t>(i);
        best_load = load;
      }
    }
    if (best >= 0) charge(static_cast<size_t>(best), work);
    return best;
  }
  template <class Allowed>
  int32_t choose(double work, Allowed&& allowed) {
    return choose(work, std::views::iota(size_t{0}, size()), allowed);
  }

  // Work that must go to one candidate (a decode step follows its prompt's way).
  void charge(size_t candidate, double work) {
    Share& share = shares_[candidate];
    share.load += work / share.capacity;
  }
  // Takes back work that was given and then not done.
  void refund(size_t candidate, double work) {
    Share& share = shares_[candidate];
    share.load -= work / share.capacity;
  }

 private:
  struct Share {
    double capacity = 0, load = 0;
  };
  std::vector<Share> shares_;
};

}  // namespace towline::policy
