// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Who is the coordinator, by a registry (net/registry.hpp). Two keys:
//
//   coordinator/leader   the LeaderRecord of the one that leads; vanishes with its lease
//   coordinator/epoch    the number of the last epoch; only grows; no lease
//
// Taking the seat writes both in one commit, under the condition that nobody sits there and that
// the epoch is as read. So there is at most one leader of an epoch, and a later one has a greater.
//
// Three rules keep an outage of the registry from touching requests, and an old leader from doing
// harm:
//   1. A leader whose registry does not answer goes on. Nobody else can take the seat meanwhile
//      unless the registry answers them; then rule 3 holds.
//   2. A leader that has not been confirmed for a lease's time (its process was stopped) sends
//      nothing before it has asked the registry. If another sits there, or did, it has lost for
//      good. If its lease ended and nobody came, it takes the same seat and epoch again.
//   3. Nodes follow the greatest epoch that they have heard of, and refuse smaller ones. A node is
//      in one conversation at a time, so what an old leader sends after all reaches nobody.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>

#include "base/json.hpp"
#include "net/registry.hpp"

namespace towline::net {

struct LeaderRecord {
  std::string name;     // of the process, for people
  std::string address;  // for nodes, e.g. tcp://10.0.0.7:7100; empty: not ready yet
  std::string url;      // of its API
  std::string holder;   // drawn by the process: tells it from others of its name
  int64_t epoch = 0;    // at least 1, below 2^32 (frames carry it in 32 bits)

  std::string dump() const;  // one line of JSON
  static Result<LeaderRecord> parse(std::string_view text);
};

// The seat as one process sees it. Every call asks the registry; none waits for others to leave.
// Threading: one thread.
class LeaderSeat {
 public:
  // Epochs taken will be greater than `floor`.
  LeaderSeat(Registry& registry, std::string name, Duration lease, int64_t floor);

  // True: this process leads now. False: another does, see other().
  Result<bool> campaign(Deadline deadline);
  // For the leader. True: it still leads, or again under the same epoch. False: lost, see reason().
  // Errors: the registry did not answer.
  Result<bool> renew(Deadline deadline);
  // For the leader: what nodes and people read. False: another leads.
  Result<bool> publish(const std::string& address, const std::string& url, const std::string& nodes,
                       Deadline deadline);
  void resign(Deadline deadline);

  int64_t epoch() const { return mine_.epoch; }
  // Until then the lease is certain, on registry_now()'s clock.
  Instant held_until() const { return held_until_; }
  const std::optional<LeaderRecord>& other() const { return other_; }
  const std::string& reason() const { return reason_; }

 private:
  struct View {
    std::optional<LeaderRecord> leader;
    int64_t leader_version = 0, epoch = 0, epoch_version = 0;
  };
  Result<View> look(Deadline deadline);
  Result<void> hold_lease(Deadline deadline);
  Result<bool> sit(const View& view, int64_t epoch, Deadline deadline);

  Registry& registry_;
  const Duration lease_time_;
  LeaderRecord mine_;
  int64_t highest_;                  // epoch seen
  LeaseId lease_ = kNoLease;
  Instant held_until_{};             // end of lease_
  std::optional<LeaderRecord> other_;
  std::string reason_;
};

struct LeadershipOptions {
  std::string registry;              // URL
  std::string name;                  // of this process, for people
  Duration lease = seconds(5);
  int64_t floor = 0;                 // the epoch will be greater
};

// The lead of this process, kept by a thread of its own from take() until it is lost or given up.
// Threading: any, but for take() and the destructor.
class Leadership {
 public:
  // Waits for the seat. After each look at the registry (several a lease, one a second at least)
  // `go_on` is asked, with the one that leads if there is one; false, or a stop, ends the waiting
  // with kCancelled. An outage of the registry is waited for as well.
  static Result<std::unique_ptr<Leadership>> take(
      const LeadershipOptions& options,
      const std::function<bool(const std::optional<LeaderRecord>& other)>& go_on,
      const std::stop_token& stop = {});
  ~Leadership();                     // gives the seat up, if the registry answers at once

  int64_t epoch() const { return epoch_; }
  // What nodes and people shall read; written soon.
  void publish(std::string address, std::string url, const Json& nodes);
  // May this process act as the coordinator now? Nearly always known, and then this takes no time;
  // after a pause of the process it asks the registry, for half a lease at most. An error
  // (kUnavailable) is for good, and names who leads.
  Result<void> check();
  // Called once if the lead is lost, on the keeper's thread; at once if it is already.
  void on_lost(std::function<void(const std::string& reason)> tell);
  // {"registry", "name", "epoch", "state": "held" | "unanswered" | "lost", "since_s"}
  Json status() const;

 private:
  Leadership(const LeadershipOptions& options, std::unique_ptr<Registry> registry,
             std::unique_ptr<LeaderSeat> seat);
  void keep();
  void keep_once();
  void lose(const std::string& reason);

  const LeadershipOptions options_;
  std::unique_ptr<Registry> registry_;      // the keeper's
  std::unique_ptr<LeaderSeat> seat_;        // the keeper's
  const int64_t epoch_;
  std::atomic<int64_t> trusted_until_ns_;   // registry_now()'s clock

  mutable std::mutex mutex_;                // guards the rest
  std::condition_variable changed_;
  bool stop_ = false, asked_ = false, dirty_ = false, lost_ = false;
  std::optional<Instant> silent_since_, complained_;
  std::string reason_, address_, url_, nodes_;
  std::function<void(const std::string&)> tell_;
  std::thread thread_;
};

// Where the coordinator is, for nodes: a thread that reads the registry about once a second. An
// outage changes nothing in what is known.
// Threading: any.
class LeaderWatch {
 public:
  static Result<std::unique_ptr<LeaderWatch>> start(const std::string& registry);
  ~LeaderWatch();

  // The leader's record as last read; none while nobody leads or it has no address yet.
  std::optional<LeaderRecord> leader() const;
  // The greatest epoch of a leader ready for nodes that was ever read here.
  int64_t highest_epoch() const { return highest_.load(std::memory_order_relaxed); }
  // Waits for a leader of at least `epoch`. kDeadline: there was none, or why the registry does not
  // answer. kCancelled: a stop was requested.
  Result<LeaderRecord> wait(int64_t epoch, Deadline deadline, const std::stop_token& stop = {});

 private:
  explicit LeaderWatch(std::unique_ptr<Registry> registry) : registry_(std::move(registry)) {}
  void watch();
  void look();

  std::unique_ptr<Registry> registry_;      // the thread's
  std::atomic<int64_t> highest_{0};
  mutable std::mutex mutex_;                // guards the rest
  std::condition_variable_any changed_;
  bool stop_ = false;
  int waiting_ = 0;
  std::optional<LeaderRecord> leader_;
  std::optional<Error> failure_;            // of the last reading
  std::optional<Instant> silent_since_, complained_;
  std::thread thread_;
};

}  // namespace towline::net
