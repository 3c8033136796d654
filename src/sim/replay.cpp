// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/replay.hpp"

#include <optional>
#include <vector>

#include "base/fmt.hpp"
#include "policy/host_journal.hpp"

namespace towline::sim {
namespace {

constexpr int64_t kLatest = int64_t{1} << 62;  // ns: no sum of an instant and a wait passes the end

class Replay {
 public:
  Result<void> take(const obs::JournalRecord& record, ReplayReport& report) {
    switch (record.kind) {
      case obs::RecordKind::kSetup: {
        if (setup_) return Error(Code::kDataCorrupt, "the journal has two setups");
        ASSIGN_OR_RETURN(const Json json, parse_json(record.payload, "the journal's setup"));
        ASSIGN_OR_RETURN(setup_, policy::parse_host_setup(json));
        return {};
      }
      case obs::RecordKind::kEvent:
        return event(record, report);
      case obs::RecordKind::kActions: {
        const auto seen = obs::parse_actions(record.payload);
        if (!seen) return Error(Code::kDataCorrupt, "a digest of the journal has no 16 bytes");
        ++report.compared;
        const obs::ActionsSeen mine{digest_.value(), report.actions};
        if (*seen == mine || !report.equal) return {};
        report.equal = false;
        report.difference_at = record.now;
        return {};
      }
      case obs::RecordKind::kEnd:
        report.ended = true;
        return {};
      default:
        ++report.other_records;
        return {};
    }
  }
  uint64_t digest() const { return digest_.value(); }

 private:
  Result<void> event(const obs::JournalRecord& record, ReplayReport& report) {
    ASSIGN_OR_RETURN(const policy::DecodedEvent decoded, policy::decode_event(record.payload));
    if (!host_) {
      const auto* plan = std::get_if<policy::HostPlan>(&decoded.event);
      if (!setup_ || plan == nullptr) {
        return Error(Code::kDataCorrupt, "the journal does not begin with a setup and a plan");
      }
      ASSIGN_OR_RETURN(host_, policy::Host::make(*setup_, *plan));
      return {};
    }
    TRY(policy::check_event(*host_, decoded.event));
    if (record.now < now_ || record.now > kLatest) {
      return errorf(Code::kDataCorrupt, "the journal's clock goes from {} to {} ns", now_,
                    record.now);
    }
    now_ = record.now;
    actions_.clear();
    host_->step(Instant{record.now}, decoded.event, actions_);
    policy::digest_actions(*host_, actions_, digest_);
    ++report.events;
    report.actions += static_cast<int64_t>(actions_.size());
    return {};
  }

  std::optional<policy::HostOptions> setup_;
  std::optional<policy::Host> host_;
  std::vector<policy::HostAction> actions_;
  Digest digest_;
  int64_t now_ = 0;
};

}  // namespace

Result<ReplayReport> replay(obs::JournalReader& journal, uint16_t machine,
                            const std::atomic<bool>* stop) {
  ReplayReport report;
  Replay replay;
  std::optional<int64_t> first;
  for (;;) {
    const int64_t offset = journal.offset();
    ASSIGN_OR_RETURN(const std::optional<obs::JournalRecord> record, journal.next());
    if (!record) break;
    if (record->machine != machine) {
      ++report.other_records;
      continue;
    }
    if (!first) first = record->now;
    report.span_ns = record->now < *first ? 0 : record->now - *first;
    TRY(replay.take(*record, report).context(format("at byte {}", offset)));
    if ((report.events & 0xff) == 0 && stop != nullptr && stop->load(std::memory_order_relaxed)) {
      report.interrupted = true;
      break;
    }
  }
  report.torn = journal.torn();
  report.digest = replay.digest();
  return report;
}

}  // namespace towline::sim
