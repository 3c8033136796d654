// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/cluster_records.hpp"

#include <filesystem>
#include <system_error>
#include <utility>

#include "base/fmt.hpp"
#include "base/log.hpp"
#include "spec/helix_log.hpp"

namespace towline::serve {
namespace {

constexpr uint16_t kHostMachine = 0;  // of the journal
constexpr std::string_view kJournal = "the journal";
constexpr std::string_view kLog = "the log of iterations";

obs::RecordKind kind_of(policy::HostRecord::Kind kind) {
  switch (kind) {
    case policy::HostRecord::Kind::kSetup:
      return obs::RecordKind::kSetup;
    case policy::HostRecord::Kind::kEvent:
      return obs::RecordKind::kEvent;
    case policy::HostRecord::Kind::kActions:
      break;
  }
  return obs::RecordKind::kActions;
}

}  // namespace

Result<ClusterRecords> ClusterRecords::open(const RecordFiles& files, Instant begin,
                                            const Json& about) {
  ClusterRecords records;
  records.begin_ = begin;
  if (!files.journal.empty()) {
    auto journal = obs::BackgroundFile::create(files.journal);
    if (!journal) return std::move(journal).error().context("opening the journal");
    records.journal_ = *std::move(journal);
    append(records.journal_, obs::kJournalMagic, kJournal);
    records.write(begin, obs::RecordKind::kNote, about.dump());
  }
  if (!files.helix_log.empty()) {
    std::error_code fault;
    std::filesystem::create_directories(files.helix_log, fault);
    if (fault) {
      return errorf(Code::kIo, "cannot make the folder '{}' of the log: {}", files.helix_log,
                    fault.message());
    }
    ASSIGN_OR_RETURN(records.events_, obs::BackgroundFile::create(files.helix_log + "/events.txt"));
    ASSIGN_OR_RETURN(records.routes_,
                     obs::BackgroundFile::create(files.helix_log + "/query_route.txt"));
  }
  return records;
}

// The first failure is the last thing that is said of a file.
void ClusterRecords::append(File& file, std::string_view bytes, std::string_view what) {
  if (!file || file->append(bytes)) return;
  if (const std::optional<Error> why = file->take_failure()) {
    log_error("cluster", format("{} ends here; the cluster goes on without it", what),
              {{"why", why->to_string()}});
  }
  file.reset();
}

void ClusterRecords::close(File& file, std::string_view what) {
  if (!file) return;
  if (const Result<void> closed = file->close(); !closed) {
    log_error("cluster", format("{} is incomplete", what), {{"why", closed.error().to_string()}});
  }
  file.reset();
}

void ClusterRecords::write(Instant now, obs::RecordKind kind, std::string_view payload) {
  if (!journal_) return;
  scratch_.clear();
  const Result<void> encoded = obs::encode_record({now.ns, kHostMachine, kind, payload}, scratch_);
  if (encoded) return append(journal_, scratch_, kJournal);
  log_error("cluster", "the journal ends here; the cluster goes on without it",
            {{"why", encoded.error().to_string()}});
  journal_.reset();
}

void ClusterRecords::add(Instant now, const policy::HostRecord& record) {
  if (record.kind == policy::HostRecord::Kind::kActions) {
    write(now, obs::RecordKind::kActions, obs::actions_payload(record.digest, record.actions));
  } else {
    write(now, kind_of(record.kind), record.bytes);
  }
}

void ClusterRecords::add(Instant now, const policy::IterationNote& note) {
  append(events_,
         spec::print_helix_event({to_seconds(now - begin_), note.request.value, note.result,
                                  note.prompt, note.context, note.tokens}),
         kLog);
}

void ClusterRecords::add(const policy::WayNote& note) {
  spec::HelixRoute route{note.request.value, note.input, note.output, {}};
  // Machine 0 is the coordinator.
  for (const auto& [node, layers] : note.way) route.stops.push_back({node.value + 1, layers});
  append(routes_, spec::print_helix_route(route), kLog);
}

void ClusterRecords::end(Instant now, const policy::HostRecord& seen) {
  add(now, seen);
  write(now, obs::RecordKind::kEnd, {});
  close(journal_, kJournal);
  close(events_, kLog);
  close(routes_, kLog);
}

}  // namespace towline::serve
