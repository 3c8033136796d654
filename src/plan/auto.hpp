// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// search_placement: the `auto` method. Bounds, then the stage programme, then a portfolio of
// annealing runs, until the bound is met, the budget of steps is used or the caller says stop.
//
// The portfolio is a fixed sequence of runs, each with its own seed, start, temperature and weight,
// worked off in rounds of kRunsPerRound; the incumbent changes only between rounds, in the order of
// the runs. So the result depends on the seed and the steps, never on the number of threads.
//
// The result is never worse, under the objective, than the given starts, the stage
// plan, or the best single node.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "plan/instance.hpp"
#include "plan/worth.hpp"

namespace towline::plan {

struct SearchProgress {
  int64_t steps = 0;
  double flow = 0;     // incumbent, tokens/s (its worth, if another objective is given)
  double bound = 0;    // tokens/s
  std::string method;  // what found the incumbent
};

struct SearchOptions {
  uint64_t seed = 1;
  bool partial = false;           // partial inference
  int64_t steps = 0;              // proposed moves in all; 0: by the kind and size of the instance
  int32_t threads = 1;            // at most kRunsPerRound are of use
  std::vector<Placement> starts;  // valid placements that must not be undercut
  WorthMaker worth;               // the objective; empty: the static flow
  double worth_per_flow = 1;      // nothing's worth exceeds its flow times this
  bool spare_one = false;         // the objective wants layers to outlive their strongest holder,
  double spare_cap = 0;           // with so many tokens/s; 0: as many as possible
  const std::atomic<bool>* stop = nullptr;              // set: return the incumbent soon
  std::function<void(const SearchProgress&)> progress;  // from the calling thread, between rounds
};

struct SearchResult {
  Placement placement;
  double flow = 0;       // tokens/s, by static_flow()
  double worth = 0;      // under the objective; the flow if there is none
  double bound = 0;      // tokens/s, no placement can do better
  bool optimal = false;  // the worth meets the bound
  std::string found_by;  // "single node", "start 2", "stages", "annealing run 5"
  // The incumbent, then other placements that were met: starts and the ends of runs, most worth
  // first.
  std::vector<Placement> best;
  int64_t steps = 0;
  int64_t evaluations = 0;
};

inline constexpr int32_t kRunsPerRound = 4;

// `instance` must be valid. A flow of 0 means that no placement with any flow was found.
SearchResult search_placement(const Instance& instance, const SearchOptions& options);

}  // namespace towline::plan
