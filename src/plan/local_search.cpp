// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/local_search.hpp"

#include <algorithm>
#include <cmath>

namespace towline::plan {

Annealer::Annealer(const Instance& instance, bool partial, double least_link)
    : instance_(instance), evaluator_(instance, partial, least_link) {
  machine_of_.assign(instance.nodes(), -1);
  for (size_t m = 0; m < instance.machines.size(); ++m) {
    for (const int32_t node : instance.machines[m].nodes) {
      machine_of_[node] = static_cast<int32_t>(m);
    }
  }
}

void Annealer::set(int32_t node, LayerRange range) {
  const LayerRange before = state_[node];
  changes_.push_back({node, before});
  if (!before.empty()) {
    const double rate = instance_.rate(node, before.size());
    for (int32_t l = before.begin; l < before.end; ++l) cover_[l] -= rate;
    --bounds_at_[before.begin];
    --bounds_at_[before.end];
  }
  if (!range.empty()) {
    const double rate = instance_.rate(node, range.size());
    for (int32_t l = range.begin; l < range.end; ++l) cover_[l] += rate;
    ++bounds_at_[range.begin];
    ++bounds_at_[range.end];
  }
  state_[node] = range;
}

void Annealer::undo() {
  std::vector<Change> changes;
  changes.swap(changes_);
  for (size_t c = changes.size(); c-- > 0;) set(changes[c].node, changes[c].before);
  changes_ = std::move(changes);
  changes_.clear();
}

bool Annealer::fits(int32_t node, LayerRange range) const {
  return range.begin >= 0 && range.end <= instance_.layers && range.size() >= 1 &&
         range.size() <= instance_.max_count(node);
}

double Annealer::coverage() const {
  double sum = 0;
  for (const double cover : cover_) sum += std::min(cover, bound_);
  return sum / static_cast<double>(cover_.size());
}

// A random boundary that ranges have, weighted by how many have it.
int32_t Annealer::random_boundary() {
  const LayerRange range = state_[random_node()];
  if (range.empty()) return rng_.below(2) == 0 ? 0 : instance_.layers;
  return rng_.below(2) == 0 ? range.begin : range.end;
}

// The least used of four random nodes.
int32_t Annealer::little_used_node() {
  int32_t best = random_node();
  for (int i = 0; i < 3; ++i) {
    const int32_t other = random_node();
    if (usage_[other] < usage_[best]) best = other;
  }
  return best;
}

int32_t Annealer::cut_node() {
  return cut_.empty() ? random_node() : cut_[rng_.below(cut_.size())];
}

// Gives `node` a range from `begin` (an existing boundary) to, or from, another existing boundary.
bool Annealer::take_aligned(int32_t node, int32_t begin) {
  const int32_t reach = instance_.max_count(node);
  const int32_t low = std::max(0, begin - reach);
  const int32_t high = std::min(instance_.layers, begin + reach);
  int32_t seen = 0;
  int32_t chosen = -1;
  for (int32_t b = low; b <= high; ++b) {
    if (b == begin || (bounds_at_[b] == 0 && b != 0 && b != instance_.layers)) continue;
    if (rng_.below(static_cast<uint64_t>(++seen)) == 0) chosen = b;
  }
  if (chosen < 0) return false;
  set(node, {std::min(begin, chosen), std::max(begin, chosen)});
  return true;
}

bool Annealer::propose_directed() {
  const int32_t node = little_used_node();
  const int32_t target = cut_node();
  const LayerRange wanted = state_[target];
  if (node == target || wanted.empty()) return false;
  switch (rng_.below(3)) {
    case 0: {  // share the load
      if (!fits(node, wanted) || state_[node] == wanted) return false;
      set(node, wanted);
      return true;
    }
    case 1: {  // take over a part, which leaves the other with fewer layers
      if (wanted.size() < 2) return false;
      const auto middle = static_cast<int32_t>(rng_.between(wanted.begin + 1, wanted.end - 1));
      LayerRange first = {wanted.begin, middle};
      LayerRange second = {middle, wanted.end};
      if (rng_.below(2) == 0) std::swap(first, second);
      if (!fits(node, first)) return false;
      set(node, first);
      set(target, second);
      return true;
    }
    default: {  // any aligned range that overlaps
      const auto within = static_cast<int32_t>(rng_.between(wanted.begin, wanted.end));
      int32_t begin = within;
      while (begin > wanted.begin && bounds_at_[begin] == 0) --begin;
      return take_aligned(node, begin);
    }
  }
}

bool Annealer::propose_aligned() { return take_aligned(random_node(), random_boundary()); }

bool Annealer::propose_random() {
  const int32_t node = random_node();
  if (instance_.max_count(node) == 0) return false;
  const auto size = static_cast<int32_t>(rng_.between(1, instance_.max_count(node)));
  const auto begin = static_cast<int32_t>(rng_.between(0, instance_.layers - size));
  set(node, {begin, begin + size});
  return true;
}

// Moves all boundaries in [from, to) by one or two layers; ranges stretch, shrink or shift with
// them.
bool Annealer::propose_slide() {
  int32_t from = random_boundary();
  int32_t to = from + 1;
  if (rng_.below(2) == 0) {
    to = random_boundary();
    if (to < from) std::swap(from, to);
    if (from == to) ++to;
  }
  int32_t by = rng_.below(4) == 0 ? 2 : 1;
  if (rng_.below(2) == 0) by = -by;
  const auto moved = [&](int32_t boundary) {
    const bool fixed = boundary == 0 || boundary == instance_.layers;
    return !fixed && boundary >= from && boundary < to ? boundary + by : boundary;
  };
  for (int32_t node = 0; node < instance_.nodes(); ++node) {
    const LayerRange range = state_[node];
    if (range.empty()) continue;
    const LayerRange next = {moved(range.begin), moved(range.end)};
    if (next == range) continue;
    if (!fits(node, next)) return false;
    set(node, next);
  }
  return !changes_.empty();
}

bool Annealer::propose_swap() {
  const int32_t a = random_node();
  const int32_t b = random_node();
  const LayerRange of_a = state_[a];
  const LayerRange of_b = state_[b];
  if (of_a == of_b) return false;
  if ((!of_b.empty() && !fits(a, of_b)) || (!of_a.empty() && !fits(b, of_a))) return false;
  set(a, of_b);
  set(b, of_a);
  return true;
}

bool Annealer::propose_copy() {
  const int32_t a = random_node();
  const LayerRange range = state_[random_node()];
  if (range == state_[a] || !fits(a, range)) return false;
  set(a, range);
  return true;
}

// Exchanges the blocks [a, b) and [b, c) of the pipeline; nothing may straddle their borders.
bool Annealer::propose_exchange() {
  int32_t at[3] = {random_boundary(), random_boundary(), random_boundary()};
  std::sort(at, at + 3);
  const auto [a, b, c] = at;
  if (a == b || b == c) return false;
  for (int32_t node = 0; node < instance_.nodes(); ++node) {
    const LayerRange range = state_[node];
    if (range.empty() || range.end <= a || range.begin >= c) continue;
    if (range.begin <= a && range.end >= c) continue;
    if (range.begin >= a && range.end <= b) {
      set(node, {range.begin + (c - b), range.end + (c - b)});
    } else if (range.begin >= b && range.end <= c) {
      set(node, {range.begin - (b - a), range.end - (b - a)});
    } else {
      return false;
    }
  }
  return true;
}

bool Annealer::propose() {
  if (rng_.below(100) < 35) return propose_directed();
  const uint64_t pick = rng_.below(110);
  if (pick < 20) return propose_aligned();
  if (pick < 28) return propose_random();
  if (pick < 58) return propose_slide();
  if (pick < 80) return propose_swap();
  if (pick < 95) return propose_copy();
  return propose_exchange();
}

// Idles other parts of a machine that the proposal overdraws.
bool Annealer::repair_machines() {
  const size_t proposed = changes_.size();
  for (size_t c = 0; c < proposed; ++c) {
    const int32_t m = machine_of_[changes_[c].node];
    if (m < 0) continue;
    const SharedMachine& machine = instance_.machines[m];
    int64_t used = 0;
    for (size_t i = 0; i < machine.nodes.size(); ++i) {
      if (!state_[machine.nodes[i]].empty()) used += machine.node_devices[i];
    }
    for (size_t i = 0; i < machine.nodes.size() && used > machine.devices; ++i) {
      const int32_t node = machine.nodes[i];
      if (node == changes_[c].node || state_[node].empty()) continue;
      set(node, {});
      used -= machine.node_devices[i];
    }
    if (used > machine.devices) return false;
  }
  return true;
}

// After an evaluation of the state that is now accepted: what is little used, what binds.
void Annealer::note_state() {
  cut_.clear();
  const int32_t nodes = instance_.nodes();
  for (int32_t node = 0; node < nodes; ++node) {
    if (state_[node].empty()) {
      usage_[node] = 0;
      continue;
    }
    const double rate = instance_.rate(node, state_[node].size());
    usage_[node] = rate > 0 ? evaluator_.node_flow(node) / rate : 0;
    if (evaluator_.in_cut(node)) cut_.push_back(node);
  }
  if (!cut_.empty()) return;
  // Only links bind, or there is no path at all: the frontier of what the source reaches.
  for (int32_t node = 0; node < nodes; ++node) {
    if (!state_[node].empty() && evaluator_.output_reached(node)) cut_.push_back(node);
  }
}

AnnealResult Annealer::run(const Placement& start, const AnnealOptions& options) {
  rng_ = Rng(mix64(options.seed));
  bound_ = options.bound;
  state_.assign(instance_.nodes(), {});
  cover_.assign(instance_.layers, 0);
  bounds_at_.assign(instance_.layers + 1, 0);
  usage_.assign(instance_.nodes(), 0);
  changes_.clear();
  for (int32_t node = 0; node < instance_.nodes(); ++node) set(node, start.nodes[node]);
  changes_.clear();

  AnnealResult best;
  double flow = evaluator_.flow(state_);
  double energy = flow + options.surrogate * coverage();
  note_state();
  best.placement.nodes = state_;
  best.flow = flow;
  best.evaluations = 1;
  const double ratio = options.cold / options.hot;
  double temperature = options.hot * bound_;
  const double goal = bound_ * (1 - 1e-9);
  for (int64_t step = 0; step < options.steps && best.flow < goal; ++step) {
    ++best.steps;
    if ((step & 255) == 0) {
      temperature = options.hot * bound_ *
                    std::pow(ratio, static_cast<double>(step) / static_cast<double>(options.steps));
      if (options.stop != nullptr && options.stop->load(std::memory_order_relaxed)) break;
    }
    bool sound = propose();
    while (sound && rng_.below(10) < 3) sound = propose();
    if (!sound || changes_.empty() || !repair_machines()) {
      undo();
      continue;
    }
    // The lowest energy that would be accepted; a flow can be no more than the thinnest layer.
    const double needed = energy + temperature * std::log(1 - rng_.unit());
    const double surrogate = options.surrogate * coverage();
    const double ceiling = *std::min_element(cover_.begin(), cover_.end());
    if (surrogate + ceiling < needed) {
      undo();
      continue;
    }
    double next = 0;
    if (ceiling > 0 || surrogate >= needed) {  // an uncovered layer: only if it is accepted anyway
      next = evaluator_.flow(state_);
      ++best.evaluations;
    }
    if (next + surrogate < needed) {
      undo();
      continue;
    }
    changes_.clear();
    flow = next;
    energy = next + surrogate;
    note_state();
    if (flow > best.flow) {
      best.flow = flow;
      best.placement.nodes = state_;
    }
  }
  return best;
}

}  // namespace towline::plan
