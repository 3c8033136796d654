// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Membership: which nodes are there. A node has a name (the plan's), which keeps its NodeId for
// ever, and an incarnation, which is drawn anew whenever its process starts.
//
//   hello     -> the name's NodeId; an older living incarnation of it is declared dead first
//   beat      -> its lease is renewed, as by anything else that is heard of it
//   silence longer than the lease, or work outstanding without any progress for `hang` -> dead
//   an incarnation that was declared dead stays dead: it is fenced, whatever it says later
//
// Silence and missing progress are separate because a stopped process (SIGSTOP) keeps its
// connections, and a hung one keeps its heartbeats.
//
// A pure machine: time is passed in; copyable.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.hpp"
#include "base/units.hpp"

namespace towline::policy {

struct MembershipLimits {
  Duration lease = seconds(3);
  Duration hang = seconds(60);
};

class Membership {
 public:
  struct Member {
    std::string name;
    uint64_t incarnation = 0;
    bool alive = false;
    Instant heard{};          // last sign of life
    int64_t runs = 0;         // as last told
    Instant progressed{};     // last change of `runs`, or when work began
    bool busy = false;        // has work outstanding
    Duration hang{};          // without progress
  };
  explicit Membership(MembershipLimits limits) : limits_(limits) {}

  // Gives the name a NodeId without anybody being there; plans name their nodes in order.
  NodeId know(const std::string& name);

  enum class Verdict { kWelcome, kAlreadyHere, kFenced };
  struct Hello {
    Verdict verdict;
    NodeId node;
    bool replaced = false;    // an earlier incarnation was alive until now
  };
  Hello hello(Instant now, const std::string& name, uint64_t incarnation);
  // False if that incarnation is not the living one.
  bool beat(Instant now, NodeId node, uint64_t incarnation, int64_t runs);
  // Any other sign of life of the living incarnation; not of progress.
  void heard_of(Instant now, NodeId node);
  // No less than the limits say; slow ones need more for a run.
  void set_hang(NodeId node, Duration hang);
  // Work was given, or all of it is done.
  void set_busy(Instant now, NodeId node, bool busy);
  // This incarnation is not to be let in: it belonged to an earlier life of the coordinator.
  void fence(NodeId node, uint64_t incarnation);
  // So much time does not count as anybody's silence.
  void forgive(Duration time);
  // False if it was not alive.
  bool declare_dead(NodeId node);
  struct Overdue {
    NodeId node;
    std::string reason;
    bool silent = false;      // its lease ran out; else it hangs
  };
  // The caller declares them dead.
  std::vector<Overdue> overdue(Instant now) const;
  Instant next_deadline() const;

  bool is_alive(NodeId node) const;
  bool is_current(NodeId node, uint64_t incarnation) const;
  const Member& member(NodeId node) const;
  int32_t size() const { return static_cast<int32_t>(members_.size()); }

 private:
  Member& at(NodeId node) { return members_[static_cast<size_t>(node.value)]; }
  bool known(NodeId node) const { return node.value >= 0 && node.value < size(); }
  MembershipLimits limits_;
  std::vector<Member> members_;                       // [NodeId]
  std::map<std::string, NodeId> by_name_;
  std::set<std::pair<int32_t, uint64_t>> fenced_;     // (node, incarnation)
};

}  // namespace towline::policy
