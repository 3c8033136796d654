// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// One conversation of a node with a coordinator, and what the node keeps from one to the next.
// Every conversation has a transport of its own, hence an incarnation of its own: what is still on
// its way from an earlier one finds nobody.
//
// Threading: the agent's thread, but for the waker.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "net/inbox.hpp"
#include "worker/node_agent.hpp"
#include "worker/node_ranks.hpp"

namespace towline::worker {

// Wakes the agent that talks now, if one does. Any thread.
class AgentWaker {
 public:
  void set(net::Inbox* inbox) {
    const std::lock_guard lock(mutex_);
    inbox_ = inbox;
  }
  void wake() {
    const std::lock_guard lock(mutex_);
    if (inbox_ != nullptr) inbox_->wake();
  }

 private:
  std::mutex mutex_;
  net::Inbox* inbox_ = nullptr;  // guarded by mutex_
};

struct NodeHoldings {
  std::unique_ptr<NodeRanks> ranks;  // with their weights; null: none
  std::string what;                  // they were made from: assignment, model, limits
  double rate = 0;                   // rows a second through one layer, as measured; 0: not yet
  int64_t epoch = 0;                 // the greatest of a coordinator that welcomed this node
  bool welcomed = false;             // by the coordinator of the last conversation
  // It was lost, or gave this node up for its silence: the coordinator may live, and then takes
  // this node as another incarnation.
  bool may_go_on = false;
  std::shared_ptr<AgentWaker> waker = std::make_shared<AgentWaker>();
};

struct NodePlace {                   // where the coordinator is
  std::string address;
  int64_t epoch = 0;                 // as the registry tells; 0: not known
  net::Deadline latest = kNever;     // for reaching it
  std::function<bool(int64_t epoch)> superseded;  // one of a later epoch is ready; may be empty
  std::function<bool()> moved;       // it is not the one to reach any more; may be empty
};

// kUnavailable, kDeadline: the coordinator was not reached, or ended the conversation; another one
// may do. Other errors: this node cannot be of use as it is.
Result<void> run_session(const NodeAgentOptions& options, const NodePlace& place,
                         NodeHoldings& kept, const std::stop_token& stop);

}  // namespace towline::worker
