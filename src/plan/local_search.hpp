// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Annealer: simulated annealing over placements, guided by the minimum cut.
//
// A state gives every node a layer range. Its energy is
//   worth (as a rule the flow)
//     + a * mean over layers of min(capacity of the nodes that hold the layer, cap)
//     + b * mean over boundaries of min(capacity of the nodes and links that cross it, cap),
// where the last two terms lead out of the plateau of zero flow; the thinnest layer or boundary is
// also a bound of the flow that spares most evaluations. A third of the moves are directed:
// a node that is little used takes over, splits or overlaps the range of a node in the minimum cut.
// The others realign ranges to existing boundaries, swap and copy ranges, exchange neighbouring
// blocks of stages, and slide boundaries so that a chain stays contiguous. Metropolis acceptance
// under a geometric temperature (S. Kirkpatrick et al., Science 220, 1983).
//
// Everything is exact: flows come from FlowEvaluator. Deterministic for a seed and a number of
// steps; a step is one proposed move. One Annealer serves one thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "base/rng.hpp"
#include "plan/evaluator.hpp"
#include "plan/instance.hpp"
#include "plan/worth.hpp"

namespace towline::plan {

struct AnnealOptions {
  uint64_t seed = 1;
  int64_t steps = 100'000;
  double hot = 0.01;  // first and last temperature, as parts of the bound
  double cold = 0.0003;
  double cover_weight = 1;  // a
  double cross_weight = 1;  // b
  double bound = 0;         // an upper bound of the flow, > 0; temperatures are parts of it
  double enough = 0;        // a worth that ends the search; 0: the bound
  double cover_cap = 0;     // coverage above this (tokens/s) earns nothing; 0: the bound
  // Tokens/s that each layer costs which a node holds and did not hold in `home`; the best state is
  // then that of the highest flow less this cost. Needs home, which outlives the run.
  double move_price = 0;
  const Placement* home = nullptr;
  Worth worth = {};           // empty: the flow; in the energy it stands for the flow
  double worth_per_flow = 1;  // no placement's worth exceeds its flow times this
  bool spare_one = false;     // coverage counts without the strongest holder of each layer,
  double spare_cap = 0;       // and up to this; 0: cover_cap
  bool return_last = false;   // the last state accepted instead of the best
  const std::atomic<bool>* stop = nullptr;  // set by another thread or a signal: end now
};

struct AnnealResult {
  Placement placement;
  double flow = 0;
  double worth = 0;         // the flow, if no worth was given
  int64_t steps = 0;        // proposed moves
  int64_t evaluations = 0;  // maximum flows computed
};

class Annealer {
 public:
  Annealer(const Instance& instance, bool partial);

  // The best state seen, worth at least as much as `start` (which must be valid).
  AnnealResult run(const Placement& start, const AnnealOptions& options);

 private:
  struct Change {
    int32_t node;
    LayerRange before;
  };

  void begin(const Placement& start, const AnnealOptions& options);
  // The proposal being built: set() notes what it changes so that undo() can restore it.
  void set(int32_t node, LayerRange range);
  void undo();
  void add_range(int32_t node, LayerRange range, double sign);
  int64_t away_from_home(int32_t node, LayerRange range) const;
  bool repair_machines();
  double surrogate();
  void find_strongest();
  double crossing(int32_t boundary) const;
  void note_state(std::vector<double>& usage, std::vector<int32_t>& cut) const;

  bool propose();
  bool propose_directed();
  bool propose_aligned();
  bool propose_random();
  bool propose_slide();
  bool propose_swap();
  bool propose_copy();
  bool propose_exchange();
  bool take_aligned(int32_t node, int32_t begin);

  int32_t random_node() { return static_cast<int32_t>(rng_.below(state_.size())); }
  int32_t random_boundary();
  int32_t little_used_node();
  int32_t cut_node();
  bool is_boundary(int32_t at) const {
    return at == 0 || at == instance_.layers || !enders_[at].empty() || !beginners_[at].empty();
  }
  bool fits(int32_t node, LayerRange range) const;

  const Instance& instance_;
  const bool partial_;
  FlowEvaluator evaluator_;
  Rng rng_{1};
  double bound_ = 0;
  double cover_cap_ = 0;
  double cover_weight_ = 0, cross_weight_ = 0;
  bool spare_one_ = false;
  double layer_cap_ = 0;           // of the coverage of layers; cover_cap_ is that of boundaries
  std::vector<double> strongest_;  // [layer] the largest rate among its holders, if spare_one_
  std::vector<LayerRange> state_;
  std::vector<double> cover_;                             // [layer] sum of the rates of its holders
  std::vector<double> end_rate_, begin_rate_;             // [boundary] sum over the ranges there
  std::vector<std::vector<int32_t>> enders_, beginners_;  // [boundary]
  std::vector<double> cross_;   // [boundary] what can cross it, up to date unless dirty
  std::vector<int32_t> dirty_;  // boundaries where ranges begin or end since cross_ was updated
  std::vector<bool> is_dirty_;  // [boundary]
  double ceiling_ = 0;          // no flow exceeds this in the proposed state
  const Placement* home_ = nullptr;  // null: moves are free
  int64_t moved_ = 0;                // layers held that home_ does not hold at that node
  std::vector<Change> changes_;
  std::vector<double> usage_;       // [node] flow / rate in the accepted state; 1 for cut nodes
  std::vector<int32_t> cut_;        // nodes in the accepted state's cut, or at its cut links
  std::vector<double> next_usage_;  // of the proposal
  std::vector<int32_t> next_cut_;
  std::vector<int32_t> machine_of_;  // [node], -1: its own
};

}  // namespace towline::plan
