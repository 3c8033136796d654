// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>
#include <random>

#include "base/fmt.hpp"
#include "net/leadership.hpp"

namespace towline::net {
namespace {

constexpr std::string_view kFolder = "coordinator/";
constexpr const char* kLeaderKey = "coordinator/leader";
constexpr const char* kEpochKey = "coordinator/epoch";
constexpr const char* kNodesKey = "nodes";
constexpr int64_t kEpochEnd = int64_t{1} << 32;
constexpr size_t kLongestText = 512;  // of a record's member

std::string draw_holder() {
  std::random_device device;
  return format("{:08x}{:08x}", device(), device());
}

}  // namespace

std::string LeaderRecord::dump() const {
  return Json::object({{"name", name},
                       {"address", address},
                       {"url", url},
                       {"epoch", epoch},
                       {"holder", holder}})
      .dump();
}

Result<LeaderRecord> LeaderRecord::parse(std::string_view text) {
  const auto bad = [](std::string_view why) {
    return errorf(Code::kDataCorrupt, "the registry's record of the coordinator {}", why);
  };
  const Result<Json> json = parse_json(text, "the record");
  if (!json) return bad("is no JSON");
  LeaderRecord record;
  for (const auto& [key, field] : {std::pair{"name", &record.name}, {"address", &record.address},
                                   {"url", &record.url}, {"holder", &record.holder}}) {
    const Json& value = (*json)[key];
    if (!value.is_string() || value.as_string().size() > kLongestText) {
      return bad(format("has no proper '{}'", key));
    }
    *field = value.as_string();
  }
  record.epoch = (*json)["epoch"].is_int() ? (*json)["epoch"].as_int() : 0;
  if (record.epoch < 1 || record.epoch >= kEpochEnd || record.holder.empty()) {
    return bad("has no proper epoch or holder");
  }
  return record;
}

LeaderSeat::LeaderSeat(Registry& registry, std::string name, Duration lease, int64_t floor)
    : registry_(registry), lease_time_(lease), highest_(floor) {
  mine_.name = name.substr(0, kLongestText);
  mine_.holder = draw_holder();
}

Result<LeaderSeat::View> LeaderSeat::look(Deadline deadline) {
  ASSIGN_OR_RETURN(const std::vector<RegistryEntry> entries, registry_.list(kFolder, deadline));
  View view;
  for (const RegistryEntry& entry : entries) {
    if (entry.key == kLeaderKey) {
      ASSIGN_OR_RETURN(view.leader, LeaderRecord::parse(entry.value));
      view.leader_version = entry.version;
    } else if (entry.key == kEpochKey) {
      const char* end = entry.value.data() + entry.value.size();
      const auto [at, failed] = std::from_chars(entry.value.data(), end, view.epoch);
      if (failed != std::errc() || at != end || view.epoch < 0 || view.epoch >= kEpochEnd) {
        return errorf(Code::kDataCorrupt, "the registry's key {} is no epoch", kEpochKey);
      }
      view.epoch_version = entry.version;
    }
  }
  if (view.leader) view.epoch = std::max(view.epoch, view.leader->epoch);
  highest_ = std::max(highest_, view.epoch);
  return view;
}

// A lease that lives, new or renewed.
Result<void> LeaderSeat::hold_lease(Deadline deadline) {
  const Instant before = registry_now();
  if (lease_ != kNoLease) {
    const Result<Registry::Lease> renewed = registry_.renew(lease_, deadline);
    if (renewed) {
      held_until_ = before + renewed->time;
      return {};
    }
    if (renewed.error().code() != Code::kNotFound) return renewed.error();
    lease_ = kNoLease;
  }
  ASSIGN_OR_RETURN(const Registry::Lease granted, registry_.grant(lease_time_, deadline));
  lease_ = granted.id;
  held_until_ = before + granted.time;
  return {};
}

Result<bool> LeaderSeat::sit(const View& view, int64_t epoch, Deadline deadline) {
  TRY(hold_lease(deadline));
  LeaderRecord record = mine_;
  record.epoch = epoch;
  RegistryChange change;
  change.only_if = {{kLeaderKey, view.leader_version}, {kEpochKey, view.epoch_version}};
  change.puts = {{kLeaderKey, record.dump(), lease_}, {kEpochKey, std::to_string(epoch), kNoLease}};
  ASSIGN_OR_RETURN(const bool done, registry_.commit(change, deadline));
  if (done) mine_ = std::move(record);
  return done;
}

Result<bool> LeaderSeat::campaign(Deadline deadline) {
  ASSIGN_OR_RETURN(const View view, look(deadline));
  other_.reset();
  if (view.leader && view.leader->holder != mine_.holder) {
    other_ = view.leader;
    return false;
  }
  if (view.leader) {  // an earlier commit of ours whose answer was lost
    const LeaseId before = lease_;
    TRY(hold_lease(deadline));
    if (lease_ != before) return false;  // and the lease is lost too; again
    mine_.epoch = view.leader->epoch;
    return true;
  }
  if (highest_ + 1 >= kEpochEnd) {
    return Error(Code::kExhausted, "the registry's epochs are used up");
  }
  return sit(view, highest_ + 1, deadline);
}

Result<bool> LeaderSeat::renew(Deadline deadline) {
  const LeaseId before = lease_;
  TRY(hold_lease(deadline));
  ASSIGN_OR_RETURN(const View view, look(deadline));
  const bool sits = view.leader && view.leader->holder == mine_.holder;
  if (view.epoch > mine_.epoch) {
    other_ = sits ? std::nullopt : view.leader;
    reason_ = other_ ? format("{} leads now, with epoch {}", other_->name, other_->epoch)
                     : format("another led meanwhile, with epoch {}", view.epoch);
    return false;
  }
  if (sits && lease_ == before) return true;
  // The lease had ended and nobody came; or the registry has forgotten, and whoever sits there has
  // an older epoch, which nodes refuse.
  ASSIGN_OR_RETURN(const bool again, sit(view, mine_.epoch, deadline));
  if (again) return true;
  return Error(Code::kUnavailable, "the registry changed while it was read");
}

Result<bool> LeaderSeat::publish(const std::string& address, const std::string& url,
                                 const std::string& nodes, Deadline deadline) {
  ASSIGN_OR_RETURN(const View view, look(deadline));
  if (!view.leader || view.leader->holder != mine_.holder) return false;
  mine_.address = address;
  mine_.url = url;
  RegistryChange change;
  change.only_if = {{kLeaderKey, view.leader_version}};
  change.puts = {{kLeaderKey, mine_.dump(), lease_}, {kNodesKey, nodes, lease_}};
  return registry_.commit(change, deadline);
}

void LeaderSeat::resign(Deadline deadline) {
  if (lease_ != kNoLease) (void)registry_.revoke(lease_, deadline);
  lease_ = kNoLease;
  held_until_ = Instant{};
}

}  // namespace towline::net
