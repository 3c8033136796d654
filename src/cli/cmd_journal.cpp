// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline journal`: what a journal holds, and the workload of the run as a trace.
#include <array>
#include <cstdio>
#include <optional>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "base/json.hpp"
#include "base/units.hpp"
#include "cli/commands.hpp"
#include "obs/journal.hpp"
#include "policy/host_journal.hpp"
#include "sim/journal_workload.hpp"

namespace towline::cli {
namespace {

struct JournalOptions {
  std::string journal, trace;
  bool json = false;
};

OptionTable table(JournalOptions& o) {
  OptionTable t("journal", "Tell what the journal of a run holds; write its workload as a trace.");
  t.describe(
      "Journals are written by up, serve --cluster and simulate with --journal. 'simulate "
      "--replay' repeats their decisions; 'simulate --trace' simulates what --trace writes here: "
      "the same requests at the same times, on other machines, with another plan or router.");
  t.positional("journal", &o.journal, "the journal's file").required();
  t.value("trace", &o.trace,
          "write when each request came, its prompt tokens and those it was given")
      .metavar("FILE.csv");
  t.flag("json", &o.json, "print JSON");
  t.example("towline journal run.journal --trace run.csv");
  return t;
}

// In the order of policy::HostEvent.
constexpr std::array<std::string_view, std::variant_size_v<policy::HostEvent>> kEvents = {
    "arrivals", "cancellations", "steps", "plans", "broken", "ticks", "kv_arrivals"};

struct Contents {
  std::array<int64_t, kEvents.size()> events{};
  int64_t digests = 0, sampled = 0;
  std::optional<int64_t> first;
  int64_t last = 0;
  std::string note, setup;
  bool ended = false, torn = false;
};

Result<Contents> look_through(const std::string& path) {
  ASSIGN_OR_RETURN(obs::JournalReader journal, obs::JournalReader::open(path));
  Contents c;
  for (;;) {
    const int64_t offset = journal.offset();
    ASSIGN_OR_RETURN(const std::optional<obs::JournalRecord> record, journal.next());
    if (!record) break;
    if (!c.first) c.first = record->now;
    c.last = record->now;
    switch (record->kind) {
      case obs::RecordKind::kEvent: {
        Result<policy::DecodedEvent> event = policy::decode_event(record->payload);
        if (!event) return std::move(event).error().context(format("at byte {}", offset));
        ++c.events[event->event.index()];
        c.sampled += static_cast<int64_t>(event->sampled.size());
        break;
      }
      case obs::RecordKind::kSetup:
        if (c.setup.empty()) c.setup = record->payload;
        break;
      case obs::RecordKind::kActions:
        ++c.digests;
        break;
      case obs::RecordKind::kNote:
        if (c.note.empty()) c.note = record->payload;
        break;
      case obs::RecordKind::kEnd:
        c.ended = true;
        break;
      default:
        break;
    }
  }
  c.torn = journal.torn();
  return c;
}

// Vidur's columns, which the trace readers know.
Result<int64_t> write_trace(const std::string& journal, const std::string& path) {
  ASSIGN_OR_RETURN(obs::JournalReader reader, obs::JournalReader::open(journal));
  ASSIGN_OR_RETURN(const std::vector<spec::TraceRequest> requests, sim::journal_workload(reader));
  std::string csv = "arrived_at,num_prefill_tokens,num_decode_tokens\n";
  for (const spec::TraceRequest& r : requests) {
    csv += format("{}.{:09},{},{}\n", r.arrival_ns / 1'000'000'000, r.arrival_ns % 1'000'000'000,
                  r.input, r.output);
  }
  TRY(write_file_atomic(path, csv));
  return static_cast<int64_t>(requests.size());
}

Json json_of(const Contents& c, double seconds) {
  Json json = Json::object({{"seconds", seconds},
                            {"output_tokens", c.sampled},
                            {"digests", c.digests},
                            {"ended", c.ended},
                            {"torn", c.torn}});
  for (size_t i = 0; i < kEvents.size(); ++i) json.set(std::string(kEvents[i]), c.events[i]);
  const Result<Json> about = parse_json(c.note.empty() ? "null" : c.note, "the journal's note");
  json.set("about", about ? *about : Json(c.note));
  const Result<Json> setup = parse_json(c.setup.empty() ? "null" : c.setup, "the journal's setup");
  json.set("setup", setup ? *setup : Json(c.setup));
  return json;
}

Result<int> run(std::span<const std::string> args) {
  JournalOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  ASSIGN_OR_RETURN(const Contents c, look_through(o.journal));
  const double seconds = to_seconds(Duration(c.last - c.first.value_or(c.last)));
  int64_t written = 0;
  if (!o.trace.empty()) {
    ASSIGN_OR_RETURN(written, write_trace(o.journal, o.trace));
  }
  if (o.json) {
    std::puts(json_of(c, seconds).dump(2).c_str());
    return 0;
  }
  std::string counts;
  for (size_t i = 0; i < kEvents.size(); ++i) {
    if (c.events[i] == 0) continue;
    counts += format("{}{} {}", counts.empty() ? "" : ", ", c.events[i], kEvents[i]);
  }
  std::puts(format("{:.3f} s: {}; {} tokens drawn, {} digests", seconds,
                   counts.empty() ? "no events" : counts, c.sampled, c.digests).c_str());
  if (!c.note.empty()) std::puts(("about: " + c.note).c_str());
  if (c.torn) std::puts("the journal stops in the middle of a record (the run was cut off)");
  if (!c.ended && !c.torn) std::puts("the run did not end in order");
  if (!o.trace.empty()) std::puts(format("{} requests written to {}", written, o.trace).c_str());
  return 0;
}

}  // namespace

const Command kJournal = {"journal", "tell what the journal of a run holds", run,
                          [](void (*sink)(const OptionTable&)) {
                            JournalOptions o;
                            sink(table(o));
                          }};

}  // namespace towline::cli
