// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/run_record.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "base/fmt.hpp"

namespace towline::spec {
namespace {

constexpr int64_t kMostRows = 1 << 24;        // of a run
constexpr int64_t kMostContext = 1LL << 44;
constexpr double kMostMicroseconds = 1e15;    // thirty years

// One span; `where` names it in errors.
Result<RunRecord> parse_run(const Json& event, const std::string& where) {
  const Json& args = event["args"];
  const Json& layers = args["layers"];
  if (layers.size() != 2 || !args["rows"].is_int()) {
    return errorf(Code::kInvalidArgument,
                  "{} does not tell its layers and rows; record it with this build", where);
  }
  std::optional<std::string> wrong;
  const auto number = [&](const Json& value, std::string_view name, int64_t least, int64_t most,
                          int64_t fallback) {
    const int64_t n = value.as_int(fallback);
    if (n < least || n > most) {
      wrong =
          format("{}: its {} are {}, and must lie between {} and {}", where, name, n, least, most);
    }
    return n;
  };
  const auto small = [&](const Json& value, std::string_view name, int64_t least = 0) {
    return static_cast<int32_t>(number(value, name, least, kMostRows, 0));
  };
  RunRecord run;
  run.lane = small(args["lane"], "lane", -1);
  run.step = number(args["step"], "step", -1, kMostContext, -1);
  run.steps = static_cast<int32_t>(number(args["steps"], "steps", 0, kMostRows, 1));
  run.layers = {small(layers[size_t{0}], "layers"), small(layers[size_t{1}], "layers")};
  const int32_t rows = small(args["rows"], "rows");
  run.batch.decodes = small(args["decodes"], "decodes");
  run.batch.prompt_tokens = rows - run.batch.decodes;
  run.batch.prompt_context = number(args["prompt_context"], "prompt_context", 0, kMostContext, 0);
  run.batch.decode_context = number(args["decode_context"], "decode_context", 0, kMostContext, 0);
  run.drawn = small(args["drawn"], "drawn");
  const double begin = event["ts"].as_double(-1), took = event["dur"].as_double(-1);
  if (!(begin >= 0 && begin <= kMostMicroseconds && took >= 0 && took <= kMostMicroseconds)) {
    wrong = format("{}: its time is not a number of microseconds", where);
  }
  if (run.batch.prompt_tokens < 0) wrong = format("{} has fewer rows than decodes", where);
  if (wrong) return Error(Code::kInvalidArgument, *wrong);
  run.begin = begin * 1e-6;
  run.seconds = took * 1e-6;
  return run;
}

// One step of generated tokens alone.
bool is_plain(const RunRecord& run) {
  return run.steps == 1 && run.step >= 0 && run.batch.prompt_tokens == 0 && !run.layers.empty();
}

// Whether the rank was idle from `since` until its run `at` began.
bool was_idle(const std::vector<RunRecord>& runs, size_t at, double since) {
  return at > 0 && runs[at - 1].end() <= since;
}

}  // namespace

Result<std::vector<RunRecord>> parse_runs(const Json& trace, std::string_view source) {
  if (!trace["traceEvents"].is_array()) {
    return errorf(Code::kInvalidArgument, "{} is no trace: it has no list 'traceEvents'", source);
  }
  std::vector<RunRecord> runs;
  for (const Json& event : trace["traceEvents"].items()) {
    if (event["ph"].as_string() != "X" || event["name"].as_string() != "run") continue;
    ASSIGN_OR_RETURN(RunRecord run,
                     parse_run(event, format("{}, run {}", source, runs.size() + 1)));
    runs.push_back(run);
  }
  return runs;
}

double run_seconds(const DeviceProfile& device, int32_t model_layers, const RunRecord& run) {
  const double layers = run.layers.size() * layer_time(device, run.batch).value;
  return run.layers.end == model_layers ? layers + head_time(device, run.drawn).value : layers;
}

double MessageTimes::mean(int32_t workers) const {
  // A way of which nothing is known takes what the others take.
  const double each = betweens > 0 ? between : coordinator / 2;
  const double both = coordinators > 0 ? coordinator : 2 * each;
  return ((workers - 1) * each + both) / (workers + 1);
}

MessageTimes message_times(std::span<const std::vector<RunRecord>> ranks, int32_t model_layers) {
  struct Place {
    size_t rank, run;
  };
  // Where the plain steps of the lanes ran, by the first layer there.
  std::map<std::pair<int32_t, int64_t>, std::map<int32_t, Place>> steps;
  for (size_t r = 0; r < ranks.size(); ++r) {
    for (size_t i = 0; i < ranks[r].size(); ++i) {
      const RunRecord& run = ranks[r][i];
      if (is_plain(run)) steps[{run.lane, run.step}].try_emplace(run.layers.begin, Place{r, i});
    }
  }
  MessageTimes times;
  const auto gap = [&](const RunRecord& before, int32_t lane, int64_t step, int32_t first_layer,
                       double& sum, int64_t& count) {
    const auto next = steps.find({lane, step});
    if (next == steps.end()) return;
    const auto at = next->second.find(first_layer);
    if (at == next->second.end()) return;
    const std::vector<RunRecord>& runs = ranks[at->second.rank];
    const double begin = runs[at->second.run].begin;
    if (begin >= before.end() && was_idle(runs, at->second.run, before.end())) {
      sum += begin - before.end();
      ++count;
    }
  };
  for (const auto& [id, places] : steps) {
    for (const auto& [layer, place] : places) {
      const RunRecord& run = ranks[place.rank][place.run];
      if (run.layers.end == model_layers) {
        gap(run, id.first, id.second + 1, 0, times.coordinator, times.coordinators);
      } else {
        gap(run, id.first, id.second, run.layers.end, times.between, times.betweens);
      }
    }
  }
  times.between /= static_cast<double>(std::max<int64_t>(times.betweens, 1));
  times.coordinator /= static_cast<double>(std::max<int64_t>(times.coordinators, 1));
  return times;
}

}  // namespace towline::spec
