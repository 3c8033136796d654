// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/journal_workload.hpp"

#include <algorithm>
#include <map>

#include "base/fmt.hpp"
#include "policy/host_journal.hpp"

namespace towline::sim {
namespace {

struct Recorded {
  size_t place = 0;       // in the workload
  int32_t most = 0, got = 0;
  bool ended = false;     // what was sampled ahead of its end does not count
};

class Reading {
 public:
  void take(int64_t now, const policy::HostEvent& event) {
    if (const auto* arrival = std::get_if<policy::Arrive>(&event)) {
      arrive(now, *arrival);
    } else if (const auto* done = std::get_if<policy::StepDone>(&event)) {
      for (const policy::Sampled& s : done->sampled) count(s);
    }
  }
  std::vector<spec::TraceRequest> finish() {
    for (const auto& [id, r] : open_) settle(r);
    return std::move(requests_);
  }

 private:
  void arrive(int64_t now, const policy::Arrive& arrival) {
    if (requests_.empty()) first_ = now;
    // A simulation uses ids again.
    if (const auto known = open_.find(arrival.id.value); known != open_.end()) {
      settle(known->second);
      open_.erase(known);
    }
    const auto input = static_cast<int32_t>(
        arrival.prompt.empty() ? static_cast<size_t>(arrival.prompt_length)
                               : arrival.prompt.size());
    open_[arrival.id.value] = {requests_.size(), std::max(arrival.max_tokens, 1)};
    requests_.push_back({std::max<int64_t>(now - first_, 0), input, 1});
  }
  void count(const policy::Sampled& s) {
    const auto at = open_.find(s.seq.value);
    if (at == open_.end() || at->second.ended) return;
    Recorded& r = at->second;
    r.got += s.failed ? 0 : 1;
    r.ended = s.failed || s.stop || r.got >= r.most;
  }
  void settle(const Recorded& r) { requests_[r.place].output = r.got > 0 ? r.got : r.most; }

  std::vector<spec::TraceRequest> requests_;
  std::map<int64_t, Recorded> open_;
  int64_t first_ = 0;
};

}  // namespace

Result<std::vector<spec::TraceRequest>> journal_workload(obs::JournalReader& journal,
                                                         uint16_t machine) {
  Reading reading;
  for (;;) {
    const int64_t offset = journal.offset();
    ASSIGN_OR_RETURN(const std::optional<obs::JournalRecord> record, journal.next());
    if (!record) break;
    if (record->machine != machine || record->kind != obs::RecordKind::kEvent) continue;
    Result<policy::DecodedEvent> decoded = policy::decode_event(record->payload);
    if (!decoded) return std::move(decoded).error().context(format("at byte {}", offset));
    if (record->now < 0) return errorf(Code::kDataCorrupt, "at byte {}: a negative time", offset);
    reading.take(record->now, decoded->event);
  }
  std::vector<spec::TraceRequest> requests = reading.finish();
  if (requests.empty()) {
    return Error(Code::kInvalidArgument, "the journal tells of no request");
  }
  for (size_t i = 1; i < requests.size(); ++i) {
    if (requests[i].arrival_ns < requests[i - 1].arrival_ns) {
      return Error(Code::kDataCorrupt, "the journal's clock goes backwards");
    }
  }
  return requests;
}

}  // namespace towline::sim
