// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// NodeCalls: collective calls under way to the nodes of a cluster (worker/rpc.hpp has the methods).
// A call goes to several nodes and ends once, when each has answered, has gone, or had its time:
// a rank that hangs does in-band calls only when it goes on. An answer that comes later is dropped.
//
// A node does in-band calls in the order of the steps it is sent, because both travel on one
// channel; so a step that follows a call finds it done.
//
// Not thread-safe: the coordinator's thread. `done` is called from within on_reply(), on_gone(),
// tick() or call() itself, and may call again.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"
#include "base/units.hpp"
#include "protocol/messages.hpp"
#include "protocol/methods.hpp"

namespace towline::serve {

class NodeCalls {
 public:
  // Nodes are named by their conversation.
  using Answers = std::vector<std::pair<int64_t, Result<Json>>>;
  using Done = std::function<void(Answers answers)>;
  using Send = std::function<Result<void>(int64_t node, const protocol::RpcRequest& request)>;

  explicit NodeCalls(Send send) : send_(std::move(send)) {}

  // `patience` 0: patience_of(method).
  void call(std::span<const int64_t> nodes, protocol::Method method, const Json& args, Done done,
            Duration patience = {});
  // Ten minutes for what reads files or gives and takes memory, one for the rest.
  static Duration patience_of(protocol::Method method);
  void on_reply(int64_t node, const protocol::RpcReply& reply);
  void on_gone(int64_t node, const std::string& reason);
  // The time, after all answers that had come were told. Calls count from the last one.
  void tick(Instant now);
  Instant next_deadline() const;
  // So much time does not count: nobody listened.
  void forgive(Duration time);
  size_t under_way() const { return calls_.size(); }

 private:
  struct Call {
    std::set<int64_t> waiting;           // nodes
    Answers answers;
    Done done;
    protocol::Method method{};
    Duration patience;
    Instant latest;
  };
  void answer(uint64_t number, int64_t node, Result<Json> result);
  void end_if_complete(uint64_t number);

  Send send_;
  Instant now_{};
  uint64_t next_ = 1;
  std::map<uint64_t, Call> calls_;        // the number is the id on the wire
};

}  // namespace towline::serve
