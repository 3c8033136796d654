// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// NodeLinks: a node's conversations with the other nodes, for activations and token feeds.
//
// The coordinator's roster says where the others are. A node that listens is dialled when there is
// something for it. One that does not (outbound only: behind NAT or a firewall) dials all others as
// soon as it knows them, and they answer on the channel that it opened; two of that kind cannot
// reach each other.
//
// A link that breaks loses what was on it, and the coordinator routes around it. Whoever can dial
// tries again: after 0.3 s, then twice as long each time, up to 5 s; a link that stood for 10 s
// begins anew. The link is whole when a channel to the same incarnation is open again, on the side
// that cannot dial when the other one has dialled. It is whole only after its breaking was told
// (news(), told()): the coordinator must close what was cut before anything new comes this way.
//
// Nothing here waits. Rows are not copied: they are most of what a node moves.
// Threading: the agent's thread.
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

  // `transport` outlives this. `patience`: of one dialling.
  explicit NodeLinks(net::Transport& transport, Duration patience = seconds(5));

  // {"nodes": [{"id", "address", "incarnation"}]}: where the nodes are, this one among them. One
  // that is not named is not there any more.
  void on_roster(const Json& roster);
  // A channel was opened, by anybody.
  void on_opened(const std::shared_ptr<net::Channel>& channel);
  // A channel that is not the coordinator's has closed.
  void on_closed(net::ChannelId channel, const std::string& reason);

  // Drops what is for a node that cannot be reached: the coordinator knows, or will.
  void send(NodeId to, Outgoing frame);
  // Sends what waits. True if something could not be sent for want of credits.
  bool flush(Epoch epoch);

  // Dials what is due, and takes links that are whole again into use.
  void tick(Instant now);
  Instant next_deadline() const;

  // broken() has changed since it was told() last.
  bool news() const { return news_; }
  void told() { news_ = false; }
  // [{"to", "incarnation", "reason", "both"}]; both: nothing comes back from there either.
  Json broken() const;

 private:
  struct Link {
    std::string address, incarnation;  // address: empty, if it only dials out
    // While the link is broken, the one that may make it whole.
    std::shared_ptr<net::Channel> channel;
    std::deque<Outgoing> waiting;
    std::string broken;                // why it cannot be reached
    Instant dial_at = kNever;          // while it is broken
    Duration pause = kFirstPause;      // before it is dialled the next time
    Instant whole_since = kNever;      // while it is not
  };
  static constexpr Duration kFirstPause = milliseconds(300);
  void break_link(Link& link, const std::string& reason);
  void dial(Link& link);
  // The channel that the other side has opened, if it has.
  std::shared_ptr<net::Channel> opened_by(const Link& link) const;
  void try_to_heal(Link& link, Instant now);

  net::Transport& transport_;
  const bool outbound_only_;
  std::map<NodeId, Link> links_;
  const std::string own_;              // incarnation
  const Duration patience_;
  std::vector<std::shared_ptr<net::Channel>> callers_;  // opened by others, in that order
  bool news_ = false;
};

}  // namespace towline::worker
