// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/plan_search.hpp"

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <ctime>
#include <filesystem>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "base/json.hpp"
#include "spec/helix_plan.hpp"

namespace towline::cli {
namespace {

std::atomic<bool> g_stop{false};  // set by Ctrl-C and by the deadline
static_assert(std::atomic<bool>::is_always_lock_free);

void on_interrupt(int) { g_stop = true; }

std::string inside(const std::string& folder, const std::string& name) {
  return (std::filesystem::path(folder) / name).string();
}

}  // namespace

double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

StopOnSignal::StopOnSignal(double seconds) : previous_(std::signal(SIGINT, on_interrupt)) {
  g_stop = false;
  if (seconds <= 0) return;
  watchdog_ = std::thread([this, seconds] {
    std::unique_lock lock(mutex_);
    if (!wake_.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return done_; })) {
      g_stop = true;
    }
  });
}

StopOnSignal::~StopOnSignal() {
  if (watchdog_.joinable()) {
    {
      const std::lock_guard lock(mutex_);
      done_ = true;
    }
    wake_.notify_one();
    watchdog_.join();
  }
  std::signal(SIGINT, previous_);
}

const std::atomic<bool>* StopOnSignal::flag() { return &g_stop; }

void SearchTable::row(const plan::SearchProgress& progress) {
  if (!shown_) return;
  if (rows_++ == 0) {
    std::fputs("    time s        steps     flow tok/s    bound tok/s    gap %  found by\n",
               stderr);
  }
  const double gap = progress.bound > 0 ? 100 * (1 - progress.flow / progress.bound) : 0;
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start_;
  std::fputs(format("{:>10.2f} {:>12} {:>14.3f} {:>14.3f} {:>8.3f}  {}\n", elapsed.count(),
                    progress.steps, progress.flow, progress.bound, gap, progress.method)
                 .c_str(),
             stderr);
}

void SearchTable::judged(int32_t simulations, double rate, double latency, bool in_full) {
  if (!shown_) return;
  if (rows_++ == 0) {
    std::fputs("    time s  simulations  decoded tok/s   s a token  window\n", stderr);
  }
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start_;
  std::fputs(format("{:>10.2f} {:>12} {:>14.1f} {:>11.3f}  {}\n", elapsed.count(), simulations,
                    rate, latency, in_full ? "full" : "short")
                 .c_str(),
             stderr);
}

std::vector<OutputFile> cluster_plan_files(const std::string& folder,
                                           const plan::PlanProblem& problem,
                                           const plan::LinkedPlacement& linked,
                                           const plan::FlowReport& report) {
  return {{inside(folder, "sol.ini"),
           spec::print_helix_solution(plan::to_helix_solution(linked.placement))},
          {inside(folder, "simulator_cluster.ini"),
           spec::print_helix_sim_cluster(plan::to_sim_cluster(problem, linked))},
          {inside(folder, "plan.toml"),
           spec::print_plan(plan::to_plan_desc(report, linked.method, problem.model.name))}};
}

std::vector<OutputFile> instance_plan_files(const std::string& folder,
                                            const std::string& instance_path,
                                            const plan::Placement& placement,
                                            const plan::FlowReport& report) {
  const std::string stem = std::filesystem::path(instance_path).stem().string();
  return {{inside(folder, stem + ".helix"), plan::print_placement(placement)},
          {inside(folder, "plan.toml"), spec::print_plan(plan::to_plan_desc(report, "auto", ""))}};
}

Result<void> write_files(const std::string& folder, const std::vector<OutputFile>& files) {
  bool made = false;
  if (!folder.empty()) {
    std::error_code failure;
    made = std::filesystem::create_directories(folder, failure);
    if (failure) {
      return errorf(Code::kIo, "cannot create the folder '{}': {}", folder, failure.message());
    }
  }
  const auto partial = [](const OutputFile& file) {
    return format("{}.part-{}", file.path, ::getpid());
  };
  const auto clean_up = [&] {
    std::error_code ignored;
    for (const OutputFile& file : files) std::filesystem::remove(partial(file), ignored);
    if (made) std::filesystem::remove(folder, ignored);  // only if it is empty
  };
  for (const OutputFile& file : files) {
    std::error_code ignored;
    const bool folder_there = std::filesystem::is_directory(file.path, ignored);
    Result<void> written = folder_there
                               ? errorf(Code::kIo, "cannot write '{}': it is a folder", file.path)
                               : write_file_atomic(partial(file), file.text);
    if (!written) {
      clean_up();
      return written;
    }
  }
  for (const OutputFile& file : files) {
    std::error_code failure;
    std::filesystem::rename(partial(file), file.path, failure);
    if (failure) {
      clean_up();
      return errorf(Code::kIo, "cannot write '{}': {}", file.path, failure.message());
    }
  }
  return {};
}

}  // namespace towline::cli
