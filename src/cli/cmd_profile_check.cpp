// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline profile check`: a profile against what workers really did, run by run.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/fmt.hpp"
#include "cli/commands.hpp"
#include "cli/run_traces.hpp"

namespace towline::cli {
namespace {

struct CheckOptions {
  RecordedProfile of;
  bool json = false;
};

OptionTable table(CheckOptions& o) {
  OptionTable t("profile check", "Compare a profile with the recorded runs of workers.");
  o.of.add_to(t);
  t.flag("json", &o.json, "print JSON");
  t.describe(
      "Each recorded run tells its layers, rows and context; the profile says what that should "
      "have taken. Printed by kind of run: time in all, measured and by the profile, the mean and "
      "the mean size of the single errors; and the median pause between two runs while sequences "
      "waited for their next token, which is what coordinator and network take between steps. "
      "With the traces of several workers of one machine also what a message between two "
      "takes (means, where nobody waited).");
  t.example("towline call profile --args '{\"on\": true}'   # load, then {\"on\": false}");
  t.example("towline profile check here.toml --trace w/towline-1-rank-0.trace.json");
  return t;
}

// Runs of one kind: sums of seconds.
struct Sum {
  std::string name;
  int64_t runs = 0;
  double measured = 0, predicted = 0, off = 0, size = 0;

  void add(double real, double model) {
    ++runs;
    measured += real;
    predicted += model;
    off += model / real - 1;
    size += std::abs(model / real - 1);
  }
  double of_all() const { return measured > 0 ? predicted / measured - 1 : 0; }
  Json json() const {
    const double n = static_cast<double>(std::max<int64_t>(runs, 1));
    return Json::object({{"kind", name},
                         {"runs", runs},
                         {"measured_seconds", measured},
                         {"predicted_seconds", predicted},
                         {"error", of_all()},
                         {"mean_error", off / n},
                         {"mean_absolute_error", size / n}});
  }
  std::string text() const {
    const double n = static_cast<double>(std::max<int64_t>(runs, 1));
    return format("{:<22}{:>7}{:>12.3f}{:>12.3f}{:>+9.1f} %{:>12.3f}{:>+9.1f} %{:>8.1f} %", name,
                  runs, measured, predicted, 100 * of_all(), 1e3 * measured / n, 100 * off / n,
                  100 * size / n);
  }
};

// Upper ends of the classes that decodes are told apart by.
constexpr int64_t kSizes[] = {1, 2, 4, 8, 16, 32, 64};

std::string kind_of(int64_t prompt, int64_t decodes) {
  if (prompt > 0) return decodes > 0 ? "prompts and decodes" : "prompts";
  for (const int64_t most : kSizes) {
    if (decodes <= most) return format("decodes, up to {}", most);
  }
  return "decodes, more";
}

class Check {
 public:
  Check(const spec::Profile& profile, const spec::DeviceProfile& device,
        const spec::MessageTimes& messages)
      : layers_(profile.model.layers), device_(device), messages_(messages) {
    sums_.push_back({"all"});
    for (const int64_t most : kSizes) sums_.push_back({kind_of(0, most)});
    sums_.push_back({kind_of(0, INT64_MAX)});
    sums_.push_back({kind_of(1, 0)});
    sums_.push_back({kind_of(1, 1)});
  }

  // The runs of one rank.
  void add(const std::vector<spec::RunRecord>& runs) {
    double last_end = -1;  // of a run that drew tokens; -1: the last one did not
    for (const spec::RunRecord& run : runs) {
      const bool decodes = run.batch.decodes > 0;
      if (last_end >= 0 && decodes && run.begin >= last_end) {
        pauses_.push_back(run.begin - last_end);
      }
      last_end = run.drawn > 0 ? run.end() : -1;
      if (run.layers.empty() || !(run.seconds > 0)) {
        ++left_out_;
        continue;
      }
      const double predicted = spec::run_seconds(device_, layers_, run);
      const std::string kind = kind_of(run.batch.prompt_tokens, run.batch.decodes);
      sums_.front().add(run.seconds, predicted);
      std::ranges::find(sums_, kind, &Sum::name)->add(run.seconds, predicted);
    }
  }

  void print(bool json) {
    const double pause = median_pause();
    if (!json) {
      std::puts(format("{:<22}{:>7}{:>12}{:>12}{:>11}{:>12}{:>11}{:>10}", "runs of", "runs",
                       "measured s", "profile s", "error", "mean ms", "mean", "size").c_str());
      for (const Sum& sum : sums_) {
        if (sum.runs > 0) std::puts(sum.text().c_str());
      }
      std::puts(format("pause between runs {:.3f} ms (median of {})", 1e3 * pause,
                       pauses_.size()).c_str());
      if (const std::string text = message_text(messages_); !text.empty()) std::puts(text.c_str());
      if (left_out_ > 0) {
        std::puts(format("left out: {} runs of steps through different layers", left_out_).c_str());
      }
      return;
    }
    Json kinds = Json::array();
    for (const Sum& sum : sums_) {
      if (sum.runs > 0) kinds.push(sum.json());
    }
    std::puts(Json::object({{"kinds", std::move(kinds)},
                            {"pause_seconds", pause},
                            {"pauses", static_cast<int64_t>(pauses_.size())},
                            {"between_workers_seconds", messages_.between},
                            {"between_workers", messages_.betweens},
                            {"over_coordinator_seconds", messages_.coordinator},
                            {"over_coordinator", messages_.coordinators},
                            {"left_out", left_out_}})
                  .dump(2)
                  .c_str());
  }

  int64_t runs() const { return sums_.front().runs; }

 private:
  double median_pause() {
    if (pauses_.empty()) return 0;
    const auto middle = pauses_.begin() + static_cast<int64_t>(pauses_.size()) / 2;
    std::ranges::nth_element(pauses_, middle);
    return *middle;
  }

  int32_t layers_;
  const spec::DeviceProfile& device_;
  spec::MessageTimes messages_;
  std::vector<Sum> sums_;        // the first is of all
  std::vector<double> pauses_;   // seconds
  int64_t left_out_ = 0;
};

Result<int> run(std::span<const std::string> args) {
  CheckOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  TRY(o.of.load());
  Check check(o.of.profile, *o.of.device,
              spec::message_times(o.of.ranks, o.of.profile.model.layers));
  for (const auto& runs : o.of.ranks) check.add(runs);
  if (check.runs() == 0) {
    return Error(Code::kInvalidArgument, "the traces tell of no run that could be compared");
  }
  check.print(o.json);
  return 0;
}

}  // namespace

const Command kProfileCheck = {"profile check", "compare a profile with recorded runs", run,
                               [](void (*sink)(const OptionTable&)) {
                                 CheckOptions o;
                                 sink(table(o));
                               }};

}  // namespace towline::cli
