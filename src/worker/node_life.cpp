// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The life of a node: conversations, one after another.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>

#include "base/fmt.hpp"
#include "base/log.hpp"
#include "net/leadership.hpp"
#include "worker/node_session.hpp"

namespace towline::worker {
namespace {

constexpr Duration kPause = milliseconds(300);     // between two conversations
constexpr Duration kLongPause = seconds(2);        // after one that did not come to a welcome

net::Deadline patience_of(int32_t whole_seconds) {
  return whole_seconds > 0 ? net::deadline_in(seconds(whole_seconds)) : kNever;
}

// False if told to stop.
bool pause(Duration length, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any stopped;
  std::unique_lock lock(mutex);
  stopped.wait_for(lock, stop, std::chrono::nanoseconds(length.value), [] { return false; });
  return !stop.stop_requested();
}

bool may_be_better_later(const Error& error) {
  return error.code() == Code::kUnavailable || error.code() == Code::kDeadline;
}

// The coordinator's place: as given, or as the registry tells.
Result<NodePlace> find(const NodeAgentOptions& options, net::LeaderWatch* watch, int64_t epoch,
                       net::Deadline latest, const std::stop_token& stop) {
  NodePlace place;
  place.address = options.coordinator;
  place.latest = latest;
  if (watch == nullptr) return place;
  ASSIGN_OR_RETURN(const net::LeaderRecord leader, watch->wait(epoch, latest, stop));
  place.address = leader.address;
  place.epoch = leader.epoch;
  place.superseded = [watch](int64_t mine) { return watch->highest_epoch() > mine; };
  place.moved = [watch, holder = leader.holder] {
    const std::optional<net::LeaderRecord> now = watch->leader();
    return !now || now->holder != holder;
  };
  return place;
}

}  // namespace

Result<void> run_node(const NodeAgentOptions& options, const std::stop_token& stop) {
  std::unique_ptr<net::LeaderWatch> watch;
  if (!options.registry.empty()) {
    ASSIGN_OR_RETURN(watch, net::LeaderWatch::start(options.registry));
  }
  const bool again = watch || options.rejoin_seconds > 0;
  const int32_t patience = watch ? options.connect_seconds : options.rejoin_seconds;
  NodeHoldings kept;
  net::Deadline latest = patience_of(options.connect_seconds);
  Result<void> ended;                 // the last conversation that came to a welcome
  bool ever_welcomed = false;
  for (;;) {
    Result<NodePlace> place = find(options, watch.get(), kept.epoch, latest, stop);
    if (stop.stop_requested()) return {};
    if (!place) return ever_welcomed && ended ? Result<void>() : std::move(place.error());
    kept.welcomed = kept.may_go_on = false;
    const Result<void> over = run_session(options, *place, kept, stop);
    if (stop.stop_requested()) return {};
    if (!(again || kept.may_go_on) || (!over && !may_be_better_later(over.error()))) return over;
    if (kept.welcomed) {
      ended = over;
      ever_welcomed = true;
      latest = patience_of(again ? patience : options.connect_seconds);
    }
    if (net::steady_now() >= latest) return ever_welcomed && ended ? Result<void>() : over;
    log_info(
        "node", "looking for the coordinator again",
        {{"name", options.name}, {"why", over ? "the cluster ended" : over.error().to_string()}});
    const bool soon = kept.welcomed || (place->moved && place->moved());
    if (!pause(soon ? kPause : kLongPause, stop)) return {};
  }
}

}  // namespace towline::worker
