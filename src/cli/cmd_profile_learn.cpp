// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline profile learn`: a profile corrected by what workers did in serving.
#include <cstdio>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "cli/commands.hpp"
#include "cli/run_traces.hpp"
#include "spec/profile_learn.hpp"

namespace towline::cli {
namespace {

struct LearnOptions {
  RecordedProfile of;
  std::string out;
  bool json = false;
};

OptionTable table(LearnOptions& o) {
  OptionTable t("profile learn", "Correct a profile by the recorded runs of workers in serving.");
  o.of.add_to(t);
  t.value("out", &o.out, "write the profile here (.toml or .json); empty: only print");
  t.flag("json", &o.json, "print JSON");
  t.describe(
      "A machine that serves is not as fast as one that is measured alone: other processes run "
      "beside the worker, it waits between runs, the kernel puts its threads and memory elsewhere. "
      "Each row of the tables is set to what the runs near it took; rows with few runs near "
      "them move with all runs of their kind. Then `towline simulate` predicts other loads "
      "on the same machines. It prints how far the machine drifted while it was recorded, "
      "which no profile can know, and what messages took (for --hop-seconds), if the traces are "
      "of one machine and of all workers.");
  t.example("towline call profile --args '{\"on\": true}'  # a minute of load, then false");
  t.example(
      "towline profile learn here.toml --trace w/towline-1-rank-0.trace.json --out live.toml");
  t.example("towline simulate --policy towline --scenario site.toml --profile live.toml --rate 3");
  return t;
}

Json rows_json(const std::vector<spec::LearnedRow>& rows) {
  Json list = Json::array();
  for (const spec::LearnedRow& row : rows) {
    list.push(Json::object({{"rows", row.rows},
                            {"before_seconds_per_layer", row.before},
                            {"seconds_per_layer", row.after},
                            {"runs", row.runs},
                            {"seconds", row.seconds}}));
  }
  return list;
}

void print_rows(const char* kind, const std::vector<spec::LearnedRow>& rows) {
  for (const spec::LearnedRow& row : rows) {
    std::puts(format("{:<8}{:>7.0f}{:>12.4f}{:>12.4f}{:>+9.1f} %{:>9.1f}{:>11.3f}", kind, row.rows,
                     1e3 * row.before, 1e3 * row.after, 100 * (row.after / row.before - 1),
                     row.runs, row.seconds)
                  .c_str());
  }
}

void print(const spec::LearnedTimes& learned, const spec::MessageTimes& messages) {
  std::puts(format("{:<8}{:>7}{:>12}{:>12}{:>11}{:>9}{:>11}", "kind", "rows", "ms before",
                   "ms/layer", "change", "runs", "seconds")
                .c_str());
  print_rows("decode", learned.decode);
  print_rows("prompt", learned.prompt);
  std::puts(
      format("{} runs took {:.3f} times what the profile had; slowest tenth of the record {:+.1f} "
             "% over the fastest",
             learned.runs, learned.factor, 100 * (learned.drift - 1))
          .c_str());
  if (const std::string text = message_text(messages); !text.empty()) std::puts(text.c_str());
  if (learned.left_out > 0) {
    std::puts(
        format("left out: {} runs of steps through different layers", learned.left_out).c_str());
  }
}

Result<int> run(std::span<const std::string> args) {
  LearnOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  TRY(o.of.load());
  spec::Profile& profile = o.of.profile;
  std::vector<spec::RunRecord> runs;
  for (const auto& of_rank : o.of.ranks) runs.insert(runs.end(), of_rank.begin(), of_rank.end());
  ASSIGN_OR_RETURN(const spec::LearnedTimes learned,
                   spec::learn_times(*o.of.device, profile.model.layers, runs));
  const spec::MessageTimes messages = spec::message_times(o.of.ranks, profile.model.layers);
  *o.of.device = learned.device;
  if (!o.out.empty()) {
    TRY(write_file_atomic(o.out, o.out.ends_with(".toml")
                                     ? spec::profile_to_toml(profile)
                                     : spec::profile_to_json(profile).dump(1) + "\n"));
  }
  if (!o.json) {
    print(learned, messages);
    return 0;
  }
  std::puts(Json::object({{"decode", rows_json(learned.decode)},
                          {"prompt", rows_json(learned.prompt)},
                          {"runs", learned.runs},
                          {"left_out", learned.left_out},
                          {"factor", learned.factor},
                          {"slowest_tenth_over_fastest", learned.drift},
                          {"message_seconds",
                           messages.mean(static_cast<int32_t>(o.of.ranks.size()))},
                          {"between_workers_seconds", messages.between},
                          {"between_workers", messages.betweens},
                          {"over_coordinator_seconds", messages.coordinator},
                          {"over_coordinator", messages.coordinators}})
                .dump(2)
                .c_str());
  return 0;
}

}  // namespace

const Command kProfileLearn = {"profile learn", "correct a profile by runs recorded in serving",
                               run, [](void (*sink)(const OptionTable&)) {
                                 LearnOptions o;
                                 sink(table(o));
                               }};

}  // namespace towline::cli
