// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline plan`: which layers go to which node, and how much that will serve.
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <mutex>
#include <thread>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "cli/commands.hpp"
#include "plan/auto.hpp"
#include "plan/bounds.hpp"
#include "plan/instance.hpp"
#include "plan/objective.hpp"

namespace towline::cli {
namespace {

struct PlanOptions {
  std::string instance;
  std::string method = "auto";
  int64_t seed = 1;
  int64_t steps = 0;
  double seconds = 0;
  int threads = 0;
  bool partial = false;
  std::string out;
  bool json = false;
  bool progress = false;
};

OptionTable table(PlanOptions& o) {
  OptionTable t("plan", "Place a model's layers on unequal machines, with a bound.");
  t.describe(
      "Finds the placement with the highest flow of tokens through the cluster, and an upper bound "
      "that no placement can exceed. Ctrl-C keeps the best placement found so far.");
  t.value("instance", &o.instance, "placement problem in the plain .inst format").metavar("FILE");
  t.value("method", &o.method, "how to place").one_of({"auto"});
  t.value("seed", &o.seed, "random seed; the same seed and steps give the same plan")
      .range(0, 9e18);
  t.value("steps", &o.steps, "search moves; 0 chooses by the kind and size of the cluster")
      .range(0, 1e15);
  t.value("seconds", &o.seconds, "stop searching after so many seconds; 0 sets no limit")
      .range(0, 1e9);
  t.value("threads", &o.threads,
          "search threads; 0 takes every core (the plan does not depend on "
          "it)")
      .range(0, 256);
  t.flag("partial", &o.partial, "partial inference: a node may take over inside its range");
  t.value("out", &o.out, "folder for the plan's files").metavar("DIR");
  t.flag("json", &o.json, "print JSON");
  t.flag("progress", &o.progress, "show progress even if stderr is not a terminal");
  t.example("towline plan --instance s24.inst --out plan --json");
  return t;
}

double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

std::atomic<bool> g_stop{false};  // set by Ctrl-C and by the deadline
static_assert(std::atomic<bool>::is_always_lock_free);

// While it lives, Ctrl-C and the deadline set g_stop instead of ending the process.
class StopOnSignal {
 public:
  explicit StopOnSignal(double seconds) : previous_(std::signal(SIGINT, handle)) {
    g_stop = false;
    if (seconds <= 0) return;
    watchdog_ = std::thread([this, seconds] {
      std::unique_lock lock(mutex_);
      if (!wake_.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return done_; })) {
        g_stop = true;
      }
    });
  }
  StopOnSignal(const StopOnSignal&) = delete;
  StopOnSignal& operator=(const StopOnSignal&) = delete;
  ~StopOnSignal() {
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

 private:
  static void handle(int) { g_stop = true; }
  void (*previous_)(int);
  std::mutex mutex_;
  std::condition_variable wake_;
  bool done_ = false;
  std::thread watchdog_;
};

// A line per change of the incumbent.
class ProgressTable {
 public:
  explicit ProgressTable(bool shown) : shown_(shown), start_(std::chrono::steady_clock::now()) {}
  void row(const plan::SearchProgress& progress) {
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

 private:
  bool shown_;
  int rows_ = 0;
  std::chrono::steady_clock::time_point start_;
};

Json report(const PlanOptions& o, const plan::Instance& instance,
            const plan::SearchResult& result) {
  Json json = Json::object({{"method", o.method},
                            {"max_flow", result.flow},
                            {"upper_bound", result.bound},
                            {"trivial_bound", plan::capacity_bound(instance)},
                            {"gap", result.bound > 0 ? 1 - result.flow / result.bound : 0},
                            {"optimal", result.optimal},
                            {"found_by", result.found_by},
                            {"partial", o.partial},
                            {"seed", o.seed},
                            {"steps", result.steps},
                            {"evaluations", result.evaluations},
                            {"cpu_seconds", cpu_seconds()}});
  Json nodes = Json::array();
  for (int32_t node = 0; node < instance.nodes(); ++node) {
    const LayerRange range = result.placement.nodes[node];
    nodes.push(Json::object({{"node", instance.name(node)},
                             {"begin", range.empty() ? 0 : range.begin},
                             {"end", range.empty() ? 0 : range.end}}));
  }
  json.set("nodes", std::move(nodes));
  return json;
}

Result<void> write_plan(const PlanOptions& o, const plan::SearchResult& result) {
  std::error_code failure;
  std::filesystem::create_directories(o.out, failure);
  if (failure) {
    return errorf(Code::kIo, "cannot create the folder '{}': {}", o.out, failure.message());
  }
  const std::string stem = std::filesystem::path(o.instance).stem().string();
  return write_file_atomic((std::filesystem::path(o.out) / (stem + ".helix")).string(),
                           plan::print_placement(result.placement));
}

Result<int> run(std::span<const std::string> args) {
  PlanOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  if (o.instance.empty()) {
    return Error(Code::kInvalidArgument, "nothing to plan: give --instance FILE");
  }
  ASSIGN_OR_RETURN(const plan::Instance instance, plan::load_instance(o.instance));

  ProgressTable progress(o.progress || (!o.json && isatty(STDERR_FILENO) != 0));
  plan::SearchOptions search;
  search.seed = static_cast<uint64_t>(o.seed);
  search.partial = o.partial;
  search.steps = o.steps;
  search.threads =
      o.threads > 0 ? o.threads : static_cast<int>(std::thread::hardware_concurrency());
  search.stop = &g_stop;
  search.progress = [&](const plan::SearchProgress& p) { progress.row(p); };
  plan::SearchResult result;
  {
    const StopOnSignal guard(o.seconds);
    result = plan::search_placement(instance, search);
  }
  if (result.flow <= 0) {
    return errorf(
        Code::kExhausted,
        "no placement of the {} layers passes any flow (upper bound {:.3f} tokens/s): the "
        "nodes are too small or too badly linked",
        instance.layers, result.bound);
  }
  if (!o.out.empty()) TRY(write_plan(o, result));
  if (o.json) {
    std::puts(report(o, instance, result).dump().c_str());
  } else {
    std::puts(format("flow {:.3f} tokens/s, bound {:.3f}{}", result.flow, result.bound,
                     result.optimal ? ", optimal" : "")
                  .c_str());
  }
  return 0;
}

}  // namespace

const Command kPlan = {"plan", "place a model's layers on unequal machines", run,
                       [](void (*sink)(const OptionTable&)) {
                         PlanOptions o;
                         sink(table(o));
                       }};

}  // namespace towline::cli
