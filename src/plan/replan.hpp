// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// replan: a new placement for a cluster that changed under a running plan, and the way there.
//
// The best value is sought first, from what is left of the running plan (nodes that are gone are
// idle, nodes that joined are empty) and from fresh plans. Then placements near the running one, by
// annealing flow - price * layers that nodes must load; of all placements within `keep` of the best
// value the one that moves least is taken, after nodes of one type have exchanged their ranges and
// changes that the flow does not need have been taken back. If the running plan's remains already
// reach `hysteresis` of the best value, nothing moves at all. Anytime: the stop flag ends the
// search with the incumbent.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "base/units.hpp"
#include "plan/auto.hpp"
#include "plan/instance.hpp"

namespace towline::plan {

struct ReplanOptions {
  SearchOptions search;      // seed, steps (0: a short search), threads, partial, stop, progress
  double hysteresis = 0.98;  // stay if the old plan still reaches this part of the best value found
  double keep = 0.97;        // of the best value, what is kept to move less
};

struct ReplanResult {
  Placement placement;
  double flow = 0;                // tokens/s of the new placement
  double flow_before = 0;         // tokens/s of what is left of the running plan
  double best_flow = 0;           // of the best placement found, whatever it would move
  double bound = 0;               // no placement of the changed cluster does better
  bool stays = false;             // the running plan is kept
  int64_t moved_layers = 0;       // layers that nodes have to load
  int64_t best_moved_layers = 0;  // the same for the best placement
};

// `instance` is the changed cluster and `running` the old placement in its numbering: idle for
// nodes that joined. Ranges that no longer fit are taken as lost.
ReplanResult replan(const Instance& instance, const Placement& running,
                    const ReplanOptions& options);

// Layers of `next` that `node` does not hold in `now`, as at most two ranges.
std::vector<LayerRange> layers_to_load(LayerRange now, LayerRange next);
int64_t moved_layers(const Placement& now, const Placement& next);

// What a node has to do, and how long it takes.
struct Transition {
  int32_t node = 0;
  LayerRange load;    // layers to load
  int32_t from = -1;  // a node that holds them all and has the widest link; -1: from disk
  Bytes bytes;
  double seconds = 0;  // bytes over the link, or over the disk
};

struct TransferCosts {
  Bytes layer_bytes;
  std::vector<double> disk;  // [node] bytes/s, 0: none; empty: no disks
  // [from * nodes + to] bytes/s, 0: no link; empty: weights come from disk
  std::vector<double> links;
};

// In order of nodes. Each transfer is timed alone; those that share a link take longer.
std::vector<Transition> transitions(const Placement& now, const Placement& next,
                                    const TransferCosts& costs);

}  // namespace towline::plan
