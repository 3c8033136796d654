// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What `plan` and `replan` share around the search: stopping, progress, CPU time, writing files.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/result.hpp"
#include "plan/auto.hpp"
#include "plan/flow_report.hpp"
#include "plan/problem.hpp"

namespace towline::cli {

// CPU time of the process, all threads, user and system.
double cpu_seconds();

// While one lives, Ctrl-C and the deadline set flag() instead of ending the process. One at a time.
class StopOnSignal {
 public:
  explicit StopOnSignal(double seconds);  // 0: no deadline
  ~StopOnSignal();
  StopOnSignal(const StopOnSignal&) = delete;
  StopOnSignal& operator=(const StopOnSignal&) = delete;
  static const std::atomic<bool>* flag();

 private:
  void (*previous_)(int);
  std::mutex mutex_;
  std::condition_variable wake_;
  bool done_ = false;  // guarded by mutex_
  std::thread watchdog_;
};

// Progress of a search on stderr, a line a report: time, steps, incumbent, bound, gap, finder.
class SearchTable {
 public:
  explicit SearchTable(bool shown) : shown_(shown), start_(std::chrono::steady_clock::now()) {}
  void row(const plan::SearchProgress& progress);
  // A look at simulated plans: how many so far, the best one's tokens/s and seconds a token.
  void judged(int32_t simulations, double rate, double latency, bool in_full);

 private:
  bool shown_;
  int rows_ = 0;
  std::chrono::steady_clock::time_point start_;
};

struct OutputFile {
  std::string path;
  std::string text;
};

// plan.toml, sol.ini and simulator_cluster.ini in `folder`.
std::vector<OutputFile> cluster_plan_files(const std::string& folder,
                                           const plan::PlanProblem& problem,
                                           const plan::LinkedPlacement& linked,
                                           const plan::FlowReport& report);
// STEM.helix and plan.toml, STEM from the instance's file name.
std::vector<OutputFile> instance_plan_files(const std::string& folder,
                                            const std::string& instance_path,
                                            const plan::Placement& placement,
                                            const plan::FlowReport& report);

// Makes `folder` if it is not empty and missing. All files are written under other names first and
// renamed when all are there: on failure none of them has appeared or changed.
Result<void> write_files(const std::string& folder, const std::vector<OutputFile>& files);

}  // namespace towline::cli
