// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ClusterRecords: what a running cluster writes down, for those who want it later:
//   a journal  everything the coordinator's Host was told, which `towline simulate --replay`
//              repeats (docs/formats.md). It holds the tokens of every request.
//   a log      events.txt and query_route.txt as Helix's prototype writes them, for
//              `towline report`
// Files are written by threads of their own. One that cannot be written any more is given up with
// one message; the cluster goes on serving.
//
// Threading: the coordinator's thread.
#pragma once

#include <memory>
#include <string>

#include "base/json.hpp"
#include "base/result.hpp"
#include "base/units.hpp"
#include "obs/background_file.hpp"
#include "obs/journal.hpp"
#include "policy/coordinator_events.hpp"

namespace towline::serve {

struct RecordFiles {
  std::string journal;    // a file; empty: none
  std::string helix_log;  // a folder, made if it is not there; empty: none
};

class ClusterRecords {
 public:
  ClusterRecords() = default;  // writes nothing
  // Fails if a file cannot be made. `begin`: the log's times count from here. `about` goes into the
  // journal as a note.
  static Result<ClusterRecords> open(const RecordFiles& files, Instant begin, const Json& about);

  bool has_journal() const { return journal_ != nullptr; }
  bool has_log() const { return events_ != nullptr; }

  void add(Instant now, const policy::HostRecord& record);
  void add(Instant now, const policy::IterationNote& note);
  void add(const policy::WayNote& note);
  // The run ends in order; `seen`: the digest of all actions.
  void end(Instant now, const policy::HostRecord& seen);

 private:
  using File = std::unique_ptr<obs::BackgroundFile>;
  void write(Instant now, obs::RecordKind kind, std::string_view payload);
  static void append(File& file, std::string_view bytes, std::string_view what);
  static void close(File& file, std::string_view what);

  Instant begin_{};
  File journal_, events_, routes_;
  std::string scratch_;
};

}  // namespace towline::serve
