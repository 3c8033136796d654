// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// NodeLinks: a node's conversations with the other nodes, for activations and token feeds.
//
// The coordinator's roster says where the others are. A node that listens is dialled when there is
// something for it. One that does not (outbound only: behind NAT or a firewall) dials all others as
// soon as it knows them, and they answer on the channel that it opened; two of that kind cannot
// reach each other. A link that breaks stays broken until the other node is another incarnation:
// the coordinator routes around it.
//
// Rows are not copied here: they are most of what a node moves. Threading: the agent's thread.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/json.hpp"
#include "net/transport.hpp"
#include "protocol/messages.hpp"

namespace towline::worker {

class NodeLinks {
 public:
  // A frame: activations, with rows of a run's output that several may share, or a feed.
  struct Outgoing {
    protocol::MessageKind kind;
    std::vector<uint8_t> head;
    std::shared_ptr<const std::vector<float>> output;
    std::span<const float> rows;  // of `output`
  };

  explicit NodeLinks(net::Transport& transport);  // which outlives this

  // {"nodes": [{"id", "address", "incarnation"}]}: where the nodes are, this one among them.
  void on_roster(const Json& roster);
  // A channel was opened, by anybody.
  void on_opened(const std::shared_ptr<net::Channel>& channel);
  // A channel that is not the coordinator's has closed.
  void on_closed(net::ChannelId channel, const std::string& reason);

  // Drops what is for a node that cannot be reached: the coordinator knows, or will.
  void send(NodeId to, Outgoing frame);
  // Sends what waits. True if something could not be sent for want of credits.
  bool flush(Epoch epoch);

  // A link has broken since this was asked last.
  bool take_news() { return std::exchange(news_, false); }
  // [{"to", "incarnation", "reason", "both"}]; both: nothing comes back from there either.
  Json broken() const;

 private:
  struct Link {
    std::string address, incarnation;  // address: empty, if it only dials out
    std::shared_ptr<net::Channel> channel;
    std::deque<Outgoing> waiting;
    std::string broken;                // why it cannot be reached
  };
  void break_link(Link& link, const std::string& reason);
  void dial(Link& link);
  void adopt(Link& link);              // the channel that the other side has opened, if it has

  net::Transport& transport_;
  const bool outbound_only_;
  std::map<NodeId, Link> links_;
  std::map<std::string, std::shared_ptr<net::Channel>> callers_;  // opened by others, by incarnation
  bool news_ = false;
};

}  // namespace towline::worker
