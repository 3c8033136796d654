// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The placement problem as Helix's mixed-integer linear programme (Mei et al., ASPLOS'25, section
// 4), with its variable names, so that solutions of ours and of other solvers can be exchanged.
//
//   start_i                 first layer of node i
//   hold_i_k                1 if node i holds k layers; every node holds at least one
//   flow_a_b, switch_a_b    tokens/s over the link a -> b, and whether the link may be used; a is
//                           "source" or a node, b is "sink" or a node
//   before_a_b, after_a_b   partial inference only: start_b <= end_a, and end_a < end_b
//
// The relaxation is weak (big-M rows); auto.hpp is the method of choice. What this one is for: a
// second opinion that can prove optimality on small clusters, and comparison with Helix. The one
// valid inequality we add, sum of source flows <= truncated_capacity_bound(), makes the bound
// useful.
//
// milp.cpp knows the model and the files; milp_cbc.cpp alone knows the solver (CBC).
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "plan/instance.hpp"

namespace towline::plan {

struct MilpForm {
  bool partial = false;          // partial inference
  bool remove_redundant = true;  // keep only the rows that switch links off
  bool bound_row = true;         // the valid inequality above
};

struct MilpColumn {
  enum class Kind { kContinuous, kBinary, kInteger };
  std::string name;
  Kind kind = Kind::kContinuous;
  double lower = 0;
  double upper = 0;  // may be infinite
  double objective = 0;
};

struct MilpRow {
  enum class Sense { kLess, kEqual, kGreater };
  std::string name;
  Sense sense = Sense::kLess;
  double right = 0;
  std::vector<std::pair<int32_t, double>> terms;  // column, coefficient
};

// Maximise the objective.
struct MilpModel {
  MilpForm form;
  std::vector<MilpColumn> columns;
  std::vector<MilpRow> rows;
  std::vector<int32_t> start;              // [node] column
  std::vector<std::vector<int32_t>> hold;  // [node][k-1] column
  std::vector<int32_t> flow, open;         // [link] columns flow_ and switch_
  std::vector<int32_t> before, after;      // [link] columns, -1 if none

  size_t nonzeros() const;
};

// Fails if a node has no room for a layer (the programme makes every node hold one) or the instance
// has tensor-parallel groups, which the programme does not know.
Result<MilpModel> build_milp(const Instance& instance, const MilpForm& form);

// A placement as values of all columns, with the maximum flow on the links it opens. Idle nodes get
// layer 0, which costs nothing.
std::vector<double> milp_values(const MilpModel& model, const Instance& instance,
                                const Placement& placement);
// The reverse. Nodes without flow keep the layers they were given.
Placement placement_of(const MilpModel& model, const std::vector<double>& values);

// Helix's check of a solution: whole numbers within 1e-3, one hold a node, ranges inside the model,
// every row within 1e-3 (relative to its numbers). The error names the first row or column at
// fault.
Result<void> check_solution(const MilpModel& model, const std::vector<double>& values);

// CPLEX LP format, and "name value" solution files with '#' comments.
std::string print_lp(const MilpModel& model);
std::string print_sol(const MilpModel& model, const std::vector<double>& values);
// Reads the files of common solvers: a name and a value on a line, maybe after an index and before
// further numbers; lines without a known name are passed over; columns not named are 0.
Result<std::vector<double>> parse_sol(const MilpModel& model, std::string_view text,
                                      std::string_view source);

struct MilpOptions {
  MilpForm form;
  double seconds = 36'000;                  // stop after this long
  double early_stop_seconds = 100;          // or without progress for so long once the incumbent
  double early_stop_threshold = 0.95;       // has reached this share of the bound
  double good_enough = 0.995;               // or at once at this share
  std::optional<Placement> start;           // heuristic start
  const std::atomic<bool>* stop = nullptr;  // set by Ctrl-C: keep the incumbent
  struct Progress {
    double seconds = 0;
    double incumbent = 0;
    double bound = 0;
  };
  std::function<void(const Progress&)> progress;
};

struct MilpOutcome {
  Placement placement;
  double objective = 0;    // tokens/s of the incumbent, by the solver
  double bound = 0;        // no solution is better
  bool optimal = false;    // proven
  std::string stopped_by;  // "optimal", "time", "no progress", "good enough", "interrupt"
  double seconds = 0;
  std::vector<double> values;  // [column]
};

// Solves by branch and cut (CBC). Fails if no solution with flow was found. One call at a time.
Result<MilpOutcome> solve_milp(const MilpModel& model, const Instance& instance,
                               const MilpOptions& options);

}  // namespace towline::plan
