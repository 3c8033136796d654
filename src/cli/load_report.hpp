// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What `towline bench URL` says of the requests it sent: summary, table, CSV row, HTML page.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/json.hpp"
#include "serve/load_client.hpp"
#include "sim/stage_engine.hpp"

namespace towline::cli {

struct LoadGoals {
  double ttft = 0, tpot = 0;  // seconds; 0: no such goal
};

// Latencies are of the requests that were answered to their end. Of a run that is cut short those
// are the short and early ones; so the gaps between tokens (itl), and the time to the first one
// under the name of first_token, are of all tokens that came. What was stopped before its end is no
// failure, and neither for nor against the goals.
class LoadReport {
 public:
  explicit LoadReport(LoadGoals goals) : goals_(goals) {}
  void add(const serve::LoadResult& result);
  // `sent`, `most` in flight; `interrupted`: stopped before its end.
  void finish(int64_t sent, int64_t most, bool interrupted);

  Json json() const;
  std::string table() const;
  // One file without references: percentiles and distributions as inline SVG.
  std::string html(const std::string& title) const;
  bool all_answered() const { return failed_ == 0 && cut_ == 0; }

  static std::string csv_header();
  static std::string csv_row(const serve::LoadResult& result);

 private:
  LoadGoals goals_;
  std::vector<double> ttft_, first_, tpot_, itl_, e2e_, lag_;  // seconds
  sim::Percentiles ttft_p_, first_p_, tpot_p_, itl_p_, e2e_p_, lag_p_;
  std::map<std::string, int64_t> errors_;
  int64_t answered_ = 0, failed_ = 0, cut_ = 0, met_ = 0, input_ = 0, output_ = 0, sent_ = 0;
  int64_t most_ = 0;
  double begin_ = -1, end_ = 0;
  bool interrupted_ = false;
};

}  // namespace towline::cli
