// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/churn.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "base/json.hpp"
#include "base/rng.hpp"
#include "spec/csv.hpp"
#include "spec/workload.hpp"

namespace towline::spec {
namespace {

constexpr double kLongest = 1e9;  // seconds
constexpr int64_t kLargestFile = int64_t{256} << 20;

// Collects changes in order of time; a first state is what holds at the first instant.
class Collector {
 public:
  Collector(std::string_view source, uint64_t seed) : source_(source), rng_(seed) {}

  Error fault(int64_t where, std::string_view what) const {
    return errorf(Code::kInvalidArgument, "{}: entry {}: {}", source_, where, what);
  }
  // Time goes on; false if backwards or absurd.
  bool at(double seconds) {
    if (!std::isfinite(seconds)) return false;
    if (!begin_) begin_ = seconds;
    const double since = seconds - *begin_;
    if (!(since >= trace_.seconds && since < kLongest)) return false;
    trace_.seconds = since;
    return true;
  }
  int32_t add_machine(bool up) {
    trace_.up_at_start.push_back(up);
    up_.push_back(up);
    if (up) present_.push_back(trace_.machines);
    return trace_.machines++;
  }
  bool full() const { return trace_.machines >= ChurnTrace::kMachines; }
  void set(int32_t machine, bool up) {
    if (up_[machine] == up) return;
    up_[machine] = up;
    const auto place = std::find(present_.begin(), present_.end(), machine);
    if (up) {
      present_.push_back(machine);
    } else {
      *place = present_.back();
      present_.pop_back();
    }
    if (trace_.seconds == 0) {
      trace_.up_at_start[machine] = up;
    } else {
      trace_.events.push_back({trace_.seconds, machine, up});
    }
  }
  // So many are there now.
  bool count(double machines) {
    if (!(machines >= 0 && machines <= ChurnTrace::kMachines)) return false;
    const auto wanted = static_cast<size_t>(machines);
    while (present_.size() > wanted) set(present_[rng_.below(present_.size())], false);
    while (present_.size() < wanted) {
      const auto absent = std::find(up_.begin(), up_.end(), false);
      const auto machine = absent == up_.end()
                               ? add_machine(false)
                               : static_cast<int32_t>(absent - up_.begin());
      set(machine, true);
    }
    return true;
  }
  Result<ChurnTrace> finish() {
    if (trace_.machines == 0) {
      return errorf(Code::kInvalidArgument, "{}: no machines in it", source_);
    }
    return std::move(trace_);
  }

 private:
  std::string source_;
  Rng rng_;
  std::optional<double> begin_;
  ChurnTrace trace_;
  std::vector<bool> up_;           // [machine]
  std::vector<int32_t> present_;   // those up, in any fixed order
};

Result<ChurnTrace> read_ticks(const Json& tree, Collector collector) {
  const Json& gap = tree["metadata"]["gap_seconds"];
  if (!gap.is_number() || !(gap.as_double() > 0) || !tree["data"].is_array()) {
    return collector.fault(0, "expected {\"metadata\": {\"gap_seconds\": ...}, \"data\": [...]}");
  }
  int64_t tick = 0;
  for (const Json& value : tree["data"].items()) {
    const bool good = value.is_number() &&
                      collector.at(gap.as_double() * static_cast<double>(tick)) &&
                      collector.count(value.as_double());
    if (!good) return collector.fault(tick, "not a number of machines from 0 to 100000");
    ++tick;
  }
  return collector.finish();
}

Result<ChurnTrace> read_faults(const Json& tree, Collector collector) {
  // Every machine that is ever named is there at the beginning.
  std::map<std::string, int32_t> machines;
  std::vector<int32_t> faults;
  collector.at(0);
  int64_t number = 0;
  for (const Json& event : tree.items()) {
    ++number;
    if (!event["node_id"].is_string()) return collector.fault(number, "needs a node_id");
    if (collector.full()) return collector.fault(number, "more than 100000 machines");
    const auto [at, is_new] = machines.try_emplace(event["node_id"].as_string(), 0);
    if (!is_new) continue;
    at->second = collector.add_machine(true);
    faults.push_back(0);
  }
  number = 0;
  for (const Json& event : tree.items()) {
    ++number;
    const Json& time = event["event_time"];
    if (!time.is_number() || !collector.at(time.as_double() * 86'400)) {
      return collector.fault(number, "event_time (days) is missing or before the one above it");
    }
    const int32_t machine = machines.at(event["node_id"].as_string());
    const std::string type = event["event_type"].is_string() ? event["event_type"].as_string() : "";
    if (type == "fault_start") {
      ++faults[machine];
    } else if (type == "fault_end") {
      faults[machine] = std::max(faults[machine] - 1, 0);
    } else {
      return collector.fault(number, "event_type is neither fault_start nor fault_end");
    }
    collector.set(machine, faults[machine] == 0);
  }
  return collector.finish();
}

Result<ChurnTrace> read_lines(std::string_view text, Collector collector) {
  std::map<std::string, int32_t, std::less<>> machines;
  Lines lines(text);
  for (std::string_view line; lines.next(line);) {
    const std::vector<std::string_view> cells = csv_cells(line);
    const bool dated = cells.size() == 3 && cells[0].find('-') != std::string_view::npos;
    std::optional<double> seconds;
    if (dated) {
      const auto ns = trace_clock(std::string(cells[0]) + " " + std::string(cells[1]));
      if (ns) seconds = static_cast<double>(*ns) * 1e-9;
    } else if (const auto ms = csv_number(cells[0])) {
      seconds = *ms * 1e-3;
    }
    if (!seconds || !collector.at(*seconds)) {
      return collector.fault(lines.number(), "its time is missing or before the one above it");
    }
    if (cells.size() == 2 || dated) {
      const std::optional<double> count = csv_number(cells.back());
      if (!count || !collector.count(*count)) {
        return collector.fault(lines.number(), "not a number of machines from 0 to 100000");
      }
      continue;
    }
    if (cells.size() != 3 || (cells[1] != "add" && cells[1] != "remove") || cells[2].empty()) {
      return collector.fault(lines.number(), "expected milliseconds,add|remove,name; or "
                                             "milliseconds,count; or date, time, count");
    }
    auto known = machines.find(cells[2]);
    if (known == machines.end()) {
      if (collector.full()) return collector.fault(lines.number(), "more than 100000 machines");
      known = machines.emplace(cells[2], collector.add_machine(false)).first;
    }
    collector.set(known->second, cells[1] == "add");
  }
  return collector.finish();
}

}  // namespace

Result<ChurnTrace> parse_churn(std::string_view text, std::string_view source, uint64_t seed) {
  const std::string_view body = trimmed(text);
  const Collector collector(source, seed);
  if (!body.starts_with('{') && !body.starts_with('[')) return read_lines(text, collector);
  ASSIGN_OR_RETURN(const Json tree, parse_json(body, source));
  return tree.is_array() ? read_faults(tree, collector) : read_ticks(tree, collector);
}

Result<ChurnTrace> load_churn(const std::string& path, uint64_t seed) {
  ASSIGN_OR_RETURN(const std::string text, read_file(path, kLargestFile));
  return parse_churn(text, path, seed);
}

}  // namespace towline::spec
