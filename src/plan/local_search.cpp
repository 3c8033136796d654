// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/local_search.hpp"

#include <algorithm>
#include <cmath>

namespace towline::plan {

Annealer::Annealer(const Instance& instance, bool partial)
    : instance_(instance), partial_(partial), evaluator_(instance, partial) {
  machine_of_.assign(instance.nodes(), -1);
  for (size_t m = 0; m < instance.machines.size(); ++m) {
    for (const int32_t node : instance.machines[m].nodes) {
      machine_of_[node] = static_cast<int32_t>(m);
    }
  }
}

// Adds (sign 1) or removes (sign -1) a node's range from the sums by layer and by boundary.
void Annealer::add_range(int32_t node, LayerRange range, double sign) {
  if (range.empty()) return;
  const double rate = sign * instance_.rate(node, range.size());
  for (int32_t l = range.begin; l < range.end; ++l) cover_[l] += rate;
  begin_rate_[range.begin] += rate;
  end_rate_[range.end] += rate;
  const auto update = [&](std::vector<int32_t>& list) {
    if (sign > 0) {
      list.push_back(node);
    } else {
      *std::find(list.begin(), list.end(), node) = list.back();
      list.pop_back();
    }
  };
  update(beginners_[range.begin]);
  update(enders_[range.end]);
  for (const int32_t boundary : {range.begin, range.end}) {
    if (is_dirty_[boundary]) continue;
    is_dirty_[boundary] = true;
    dirty_.push_back(boundary);
  }
}

int64_t Annealer::away_from_home(int32_t node, LayerRange range) const {
  const LayerRange home = home_->nodes[node];
  const int32_t kept = std::min(range.end, home.end) - std::max(range.begin, home.begin);
  return range.empty() ? 0 : range.size() - std::max(kept, 0);
}

void Annealer::set(int32_t node, LayerRange range) {
  const LayerRange before = state_[node];
  changes_.push_back({node, before});
  add_range(node, before, -1);
  add_range(node, range, 1);
  if (home_ != nullptr) moved_ += away_from_home(node, range) - away_from_home(node, before);
  state_[node] = range;
}

// Tokens/s that ranges ending at `boundary` can hand over to ranges that go on from it.
double Annealer::crossing(int32_t boundary) const {
  const std::vector<int32_t>& enders = enders_[boundary];
  const std::vector<int32_t>& beginners = beginners_[boundary];
  double links = 0;
  if (boundary == 0 || boundary == instance_.layers) {
    for (const int32_t node : boundary == 0 ? beginners : enders) {
      links +=
          std::min(evaluator_.link(boundary == 0 ? kSource : node, boundary == 0 ? node : kSink),
                   instance_.rate(node, state_[node].size()));
    }
    return links;
  }
  for (const int32_t from : enders) {
    const double rate = instance_.rate(from, state_[from].size());
    double out = 0;
    for (const int32_t to : beginners) out += evaluator_.link(from, to);
    if (partial_) {
      for (int32_t to = 0; to < instance_.nodes(); ++to) {
        if (state_[to].begin < boundary && boundary < state_[to].end) {
          out += evaluator_.link(from, to);
        }
      }
    }
    links += std::min(out, rate);
  }
  return partial_ ? links : std::min(links, begin_rate_[boundary]);
}

void Annealer::find_strongest() {
  std::fill(strongest_.begin(), strongest_.end(), 0);
  for (int32_t node = 0; node < instance_.nodes(); ++node) {
    const LayerRange range = state_[node];
    if (range.empty()) continue;
    const double rate = instance_.rate(node, range.size());
    for (int32_t l = range.begin; l < range.end; ++l) {
      strongest_[l] = std::max(strongest_[l], rate);
    }
  }
}

// The energy's terms beside the flow; also sets ceiling_.
double Annealer::surrogate() {
  for (const int32_t boundary : dirty_) {
    cross_[boundary] = crossing(boundary);
    is_dirty_[boundary] = false;
  }
  dirty_.clear();
  const int32_t layers = instance_.layers;
  double covered = 0;
  double crossed = std::min(cross_[0], cover_cap_) + std::min(cross_[layers], cover_cap_);
  ceiling_ = std::min(cross_[0], cross_[layers]);
  if (spare_one_) find_strongest();
  for (int32_t l = 0; l < layers; ++l) {
    ceiling_ = std::min(ceiling_, cover_[l]);
    covered += std::min(spare_one_ ? cover_[l] - strongest_[l] : cover_[l], layer_cap_);
    if (l == 0) continue;
    // Ranges on both sides of the boundary, and what is handed over at it.
    const double crosses = cover_[l - 1] - end_rate_[l] + cross_[l];
    ceiling_ = std::min(ceiling_, crosses);
    crossed += std::min(crosses, cover_cap_);
  }
  return cover_weight_ * covered / layers + cross_weight_ * crossed / (layers + 1);
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
    if (b == begin || (!is_boundary(b))) continue;
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
      while (begin > wanted.begin && !is_boundary(begin)) --begin;
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

// Moves all boundaries in [from, to) by one or two layers; ranges stretch,
// shrink or shift with them.
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

// After an evaluation of the state: what is little used, what binds.
void Annealer::note_state(std::vector<double>& usage, std::vector<int32_t>& cut) const {
  cut.clear();
  const int32_t nodes = instance_.nodes();
  for (int32_t node = 0; node < nodes; ++node) {
    if (state_[node].empty()) {
      usage[node] = 0;
      continue;
    }
    const double rate = instance_.rate(node, state_[node].size());
    usage[node] = rate > 0 ? evaluator_.node_flow(node) / rate : 0;
    if (evaluator_.in_cut(node)) cut.push_back(node);
  }
  if (!cut.empty()) return;
  // Only links bind, or there is no path at all: the frontier of what the source reaches.
  for (int32_t node = 0; node < nodes; ++node) {
    if (!state_[node].empty() && evaluator_.output_reached(node)) cut.push_back(node);
  }
}

// The state is `start`, with nothing left of an earlier run.
void Annealer::begin(const Placement& start, const AnnealOptions& options) {
  rng_ = Rng(mix64(options.seed));
  bound_ = options.bound;
  cover_cap_ = options.cover_cap > 0 ? options.cover_cap : options.bound;
  cover_weight_ = options.cover_weight;
  cross_weight_ = options.cross_weight;
  const auto boundaries = static_cast<size_t>(instance_.layers) + 1;
  state_.assign(instance_.nodes(), {});
  cover_.assign(instance_.layers, 0);
  begin_rate_.assign(boundaries, 0);
  end_rate_.assign(boundaries, 0);
  cross_.assign(boundaries, 0);
  beginners_.assign(boundaries, {});
  enders_.assign(boundaries, {});
  is_dirty_.assign(boundaries, false);
  dirty_.clear();
  usage_.assign(instance_.nodes(), 0);
  next_usage_.assign(instance_.nodes(), 0);
  changes_.clear();
  spare_one_ = options.spare_one;
  layer_cap_ = spare_one_ && options.spare_cap > 0 ? options.spare_cap : cover_cap_;
  strongest_.assign(instance_.layers, 0);
  home_ = options.move_price > 0 ? options.home : nullptr;
  moved_ = 0;
  for (int32_t node = 0; node < instance_.nodes(); ++node) set(node, start.nodes[node]);
  changes_.clear();
}

AnnealResult Annealer::run(const Placement& start, const AnnealOptions& options) {
  begin(start, options);
  AnnealResult best;
  const auto worth_of = [&](double flow) {
    if (!options.worth) return flow;
    return flow > 0 ? options.worth(evaluator_, state_, flow) : 0.0;
  };
  double flow = evaluator_.flow(state_);
  note_state(usage_, cut_);  // before worth_of(), which may compute other flows
  double worth = worth_of(flow);
  double energy = worth + surrogate() - options.move_price * static_cast<double>(moved_);
  best.placement.nodes = state_;
  best.flow = flow;
  best.worth = worth;
  best.evaluations = 1;
  double best_worth = worth - options.move_price * static_cast<double>(moved_);
  const double ratio = options.cold / options.hot;
  double temperature = options.hot * bound_;
  const double tolerance = 1e-9 * bound_;
  const double goal = (options.enough > 0 ? options.enough : bound_) * (1 - 1e-9);
  for (int64_t step = 0; step < options.steps && (options.worth || best_worth < goal); ++step) {
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
    const double extra = surrogate() - options.move_price * static_cast<double>(moved_);
    if (extra + ceiling_ * options.worth_per_flow < needed) {
      undo();
      continue;
    }
    double next_flow = 0;
    double next = 0;
    if (ceiling_ > tolerance ||
        extra >= needed) {  // an uncovered layer: only if it is accepted anyway
      next_flow = evaluator_.flow(state_);
      ++best.evaluations;
      if (next_flow * options.worth_per_flow + extra >= needed) {
        if (options.worth) note_state(next_usage_, next_cut_);  // worth may compute other flows
        next = worth_of(next_flow);
      }
    }
    if (next + extra < needed) {
      undo();
      continue;
    }
    changes_.clear();
    flow = next_flow;
    worth = next;
    energy = next + extra;
    if (options.worth) {
      usage_.swap(next_usage_);
      cut_.swap(next_cut_);
    } else {
      note_state(usage_, cut_);
    }
    const double priced = worth - options.move_price * static_cast<double>(moved_);
    if (priced > best_worth) {
      best_worth = priced;
      best.flow = flow;
      best.worth = worth;
      best.placement.nodes = state_;
    }
  }
  if (options.return_last) {
    best.flow = flow;
    best.worth = worth;
    best.placement.nodes = state_;
  }
  return best;
}

}  // namespace towline::plan
