// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/admission.hpp"

#include <algorithm>

#include "base/check.hpp"

namespace towline::policy {

bool queue_full(const AdmissionLimits& limits, int64_t waiting, int64_t placed) {
  const int64_t free_places =
      limits.placed == std::numeric_limits<int64_t>::max() ? 0 : limits.placed - placed;
  return waiting - std::max<int64_t>(free_places, 0) >= limits.waiting;
}

const Admission::Rank& Admission::rank_of(RequestId id) const {
  const auto at = known_.find(id);
  CHECK(at != known_.end(), id);
  return at->second;
}

bool Admission::arrive(RequestId id, int32_t priority) {
  if (queue_full(limits_, waiting(), placed())) return false;
  const Rank rank{priority, next_arrival_++, id};
  CHECK(known_.emplace(id, rank).second, id);
  waiting_.insert(rank);
  if (*waiting_.begin() == rank) stuck_ = false;  // another one leads now
  return true;
}

bool Admission::wants_more(double pressure) const {
  return waiting_.empty() && placed() < limits_.placed && pressure <= limits_.feed_high_water;
}

std::optional<RequestId> Admission::next() const {
  if (stuck_ || waiting_.empty() || placed() >= limits_.placed) return std::nullopt;
  return waiting_.begin()->id;
}

void Admission::place(RequestId id) { CHECK(waiting_.erase(rank_of(id)) == 1, id); }

bool Admission::refuse(RequestId id) {
  if (placed() > 0) {
    stuck_ = true;
    return true;
  }
  withdraw(id);
  return false;
}

void Admission::end(RequestId id) {
  CHECK(!waiting_.contains(rank_of(id)), id);
  known_.erase(id);
  stuck_ = false;
}

void Admission::displace(RequestId id) {
  CHECK(waiting_.insert(rank_of(id)).second, id);
  stuck_ = false;
}

void Admission::withdraw(RequestId id) {
  CHECK(waiting_.erase(rank_of(id)) == 1, id);
  known_.erase(id);
  stuck_ = false;
}

}  // namespace towline::policy
