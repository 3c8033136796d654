// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What `towline bench spmd` measures: the control plane of SPMD ranks on the null model, against
// driver mode, and with the ways of telling a step that deltas replace. Ranks are processes, started
// from this very program.
//
// A cell is one group of ranks under a steady load of `batch` generating sequences. A step's time is
// from before its message is encoded to having its results decoded.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/units.hpp"
#include "worker/rank_team.hpp"

namespace towline::cli {

enum class SpmdArm { kDriver, kFullVarint, kFullFlat, kExplicit, kImplied };
const char* arm_name(SpmdArm arm);

struct SpmdCell {
  SpmdArm arm = SpmdArm::kImplied;
  int ranks = 2;
  int stages = 1;          // nodes that follow each other
  int batch = 256;
  int context = 1024;
  int64_t compute_us = 0;  // of a step, on each rank
  int64_t schedule_us = 0; // burnt by the scheduler for each step
  bool ahead = false;      // a step is sent before the results of the one before are there
  bool scheduler = false;    // a policy::Batcher decides every step (always so with two nodes)
  bool solo_thread = false;  // one rank alone is a thread, as in a worker, not a process
};

struct SpmdMeasured {
  double p50_us = 0, p99_us = 0;  // of a step, submit to results
  // The same less what the slowest rank's executor took in that very step. (The null model is asleep
  // longer than it was told: the kernel's timer is late, and that is no part of the control plane.)
  double control_p50_us = 0, control_p99_us = 0;
  double step_us = 0;             // wall time a step, scheduling included
  double cpu_us = 0;              // processor time a step, all processes, less schedule_us
  double bytes = 0;               // of a step message, mean
  int again = 0;                  // times its round was made before, while other programs ran
  bool disturbed = false;         // other programs ran this time too
};

// One arm of a cell with its ranks alive and its sequences admitted, so that arms can take turns.
class SpmdRun {
 public:
  virtual ~SpmdRun() = default;
  // `untimed` steps, then `steps` that count. As much is in flight when the clock starts as when it
  // stops, so neither filling nor draining a pipeline counts; nothing is in flight afterwards.
  virtual Result<SpmdMeasured> run(int untimed, int steps) = 0;
  // Of the ranks that are processes.
  virtual std::vector<pid_t> pids() const = 0;
};
Result<std::unique_ptr<SpmdRun>> start_run(const SpmdCell& cell);
// Pipelines of several nodes (cell.stages): wall time a step alone, two lanes in turn.
Result<std::unique_ptr<SpmdRun>> start_pipeline(const SpmdCell& cell);

// Runs of cells in turns, forwards and backwards: what changes slowly on the machine favours none.
// [cell][round]. What was measured while other programs took more than a tenth of a core is thrown
// away, its whole round made again, twice at most.
using SpmdTurns = std::vector<std::vector<SpmdMeasured>>;
Result<SpmdTurns> take_turns(std::span<const SpmdCell> cells, int untimed, int steps, int rounds);

// The processes of a group's ranks.
std::vector<pid_t> pids_of(const worker::RankTeam& team);

struct SpmdFaults {
  double failed_rank_us = 0;   // C9: submit of a step that rank 1 fails, to the event
  double killed_rank_us = 0;   // C10: SIGKILL to the event
  double new_group_ms = 0;     // C10: start of another group
  double resync_us = 0;        // C12: full form encoded, applied by all ranks, answered
  double resync_bytes = 0;
};
Result<SpmdFaults> measure_faults(int batch, int context);

// What this machine takes to wake `readers` processes that slept, one futex word for all, and to be
// woken by the last of them after they slept `work` each: the time beyond the longest sleep. There is
// nothing in it but two wake-ups. To compare C2 and C5 with, not a bound: it has the machine's noise
// as they have, and an end that yields before it sleeps may be faster.
struct WakeFloor {
  double p50_us = 0, p99_us = 0;
};
Result<WakeFloor> measure_wake_floor(int readers, Duration work, int rounds);

// C6: share of one core used by a group of two ranks and its owner while nothing happens.
Result<double> measure_idle(Duration time);

}  // namespace towline::cli
