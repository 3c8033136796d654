// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline profile check`: a profile against what workers really did, run by run.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/fmt.hpp"
#include "cli/commands.hpp"
#include "spec/profile.hpp"

namespace towline::cli {
namespace {

struct CheckOptions {
  std::string profile, type;
  std::vector<std::string> traces;
  bool json = false;
};

OptionTable table(CheckOptions& o) {
  OptionTable t("profile check", "Compare a profile with the recorded runs of workers.");
  t.positional("profile", &o.profile, "what `towline profile` wrote").required();
  t.value("trace", &o.traces, "what `towline call profile` had a rank write; several").required();
  t.value("type", &o.type, "machine type in the profile; empty: its only one");
  t.flag("json", &o.json, "print JSON");
  t.describe(
      "Each recorded run tells its layers, rows and context; the profile says what that should have "
      "taken. Printed by kind of run: time in all, measured and by the profile, the mean and the mean "
      "size of the single errors; and the median pause between two runs while sequences waited for their "
      "next token, which is what coordinator and network take between steps.");
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
    return format("{:<22}{:>7}{:>12.3f}{:>12.3f}{:>+9.1f} %{:>12.3f}{:>+9.1f} %{:>8.1f} %", name, runs,
                  measured, predicted, 100 * of_all(), 1e3 * measured / n, 100 * off / n,
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
  Check(const spec::Profile& profile, const spec::DeviceProfile& device)
      : layers_(profile.model.layers), device_(device) {
    sums_.push_back({"all"});
    for (const int64_t most : kSizes) sums_.push_back({kind_of(0, most)});
    sums_.push_back({kind_of(0, INT64_MAX)});
    sums_.push_back({kind_of(1, 0)});
    sums_.push_back({kind_of(1, 1)});
  }

  Result<void> add(const Json& trace, const std::string& path) {
    double last_end = -1;  // of a run that drew tokens; -1: the last one did not
    for (const Json& event : trace["traceEvents"].items()) {
      if (event["ph"].as_string() != "X" || event["name"].as_string() != "run") continue;
      const Json& args = event["args"];
      const Json& layers = args["layers"];
      if (layers.size() != 2) {
        return errorf(Code::kInvalidArgument,
                      "{}: its runs do not tell their layers; record it with this build", path);
      }
      const double begin = event["ts"].as_double() * 1e-6;
      const double took = event["dur"].as_double() * 1e-6;
      const auto decodes = static_cast<int32_t>(args["decodes"].as_int());
      if (last_end >= 0 && decodes > 0 && begin >= last_end) pauses_.push_back(begin - last_end);
      last_end = args["drawn"].as_int() > 0 ? begin + took : -1;
      const auto first = static_cast<int32_t>(layers[size_t{0}].as_int());
      const auto end = static_cast<int32_t>(layers[size_t{1}].as_int());
      if (end <= first || !(took > 0)) {
        ++left_out_;
        continue;
      }
      spec::LayerBatch batch;
      batch.decodes = decodes;
      batch.prompt_tokens = static_cast<int32_t>(args["rows"].as_int()) - decodes;
      batch.prompt_context = args["prompt_context"].as_int();
      batch.decode_context = args["decode_context"].as_int();
      double predicted = (end - first) * spec::layer_time(device_, batch).value;
      if (end == layers_) {
        predicted += spec::head_time(device_, static_cast<int32_t>(args["drawn"].as_int())).value;
      }
      const std::string kind = kind_of(batch.prompt_tokens, decodes);
      sums_.front().add(took, predicted);
      std::ranges::find(sums_, kind, &Sum::name)->add(took, predicted);
    }
    return {};
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
  std::vector<Sum> sums_;        // the first is of all
  std::vector<double> pauses_;   // seconds
  int64_t left_out_ = 0;
};

Result<int> run(std::span<const std::string> args) {
  CheckOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  ASSIGN_OR_RETURN(const spec::Profile profile, spec::load_profile(o.profile));
  const spec::DeviceProfile* device =
      o.type.empty() && profile.devices.size() == 1 ? &profile.devices.front()
                                                    : profile.find(o.type);
  if (device == nullptr || device->prompt.empty() || device->decode.empty()) {
    return errorf(Code::kInvalidArgument,
                  "{}: no times of layers for a machine type '{}'; name one with --type", o.profile,
                  o.type);
  }
  Check check(profile, *device);
  for (const std::string& path : o.traces) {
    ASSIGN_OR_RETURN(const Json trace, load_json(path));
    TRY(check.add(trace, path));
  }
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
