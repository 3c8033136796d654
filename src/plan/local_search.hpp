// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Annealer: simulated annealing over placements, guided by the minimum cut.
//
// A state gives every node a layer range. Its energy is
//   flow + a * mean over layers of min(capacity of the nodes that hold the layer, bound),
// where the second term leads out of the plateau of zero flow. A third of the moves are directed:
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

namespace towline::plan {

struct AnnealOptions {
  uint64_t seed = 1;
  int64_t steps = 100'000;
  double hot = 0.01;  // first and last temperature, as parts of the bound
  double cold = 0.0003;
  double surrogate = 1;  // a, the weight of the coverage term
  double bound = 0;      // an upper bound of the flow, > 0; reaching it ends the search
  const std::atomic<bool>* stop = nullptr;  // set by another thread or a signal: end now
};

struct AnnealResult {
  Placement placement;
  double flow = 0;
  int64_t steps = 0;        // proposed moves
  int64_t evaluations = 0;  // maximum flows computed
};

class Annealer {
 public:
  Annealer(const Instance& instance, bool partial, double least_link = 0);

  // The best state seen, at least as good as `start` (which must be valid).
  AnnealResult run(const Placement& start, const AnnealOptions& options);

 private:
  struct Change {
    int32_t node;
    LayerRange before;
  };

  // The proposal being built: set() notes what it changes so that undo() can restore it.
  void set(int32_t node, LayerRange range);
  void undo();
  bool repair_machines();
  double coverage() const;
  void note_state();

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
  bool fits(int32_t node, LayerRange range) const;

  const Instance& instance_;
  FlowEvaluator evaluator_;
  Rng rng_{1};
  double bound_ = 0;
  std::vector<LayerRange> state_;
  std::vector<double> cover_;       // [layer] sum of the rates of its holders
  std::vector<int32_t> bounds_at_;  // [boundary] how many ranges begin or end there
  std::vector<Change> changes_;
  std::vector<double> usage_;        // [node] flow / rate in the accepted state; 1 for cut nodes
  std::vector<int32_t> cut_;         // nodes in the accepted state's cut, or at its cut links
  std::vector<int32_t> machine_of_;  // [node], -1: its own
};

}  // namespace towline::plan
