// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/node_links.hpp"

#include <algorithm>
#include <utility>

#include "base/fmt.hpp"

namespace towline::worker {
namespace {

constexpr Duration kLongestPause = seconds(5);
constexpr Duration kStands = seconds(10);  // a link that is whole for so long

std::string hex(uint64_t incarnation) { return format("{:016x}", incarnation); }

bool is_open(const std::shared_ptr<net::Channel>& channel) {
  return channel->state() == net::ChannelState::kOpen;
}

}  // namespace

NodeLinks::NodeLinks(net::Transport& transport, Duration patience)
    : transport_(transport),
      outbound_only_(transport.address().empty()),
      own_(hex(transport.self().incarnation)),
      patience_(patience) {}

void NodeLinks::on_roster(const Json& roster) {
  std::map<NodeId, Link> known = std::exchange(links_, {});
  for (const Json& entry : roster["nodes"].items()) {
    const NodeId id(static_cast<int32_t>(entry["id"].as_int()));
    const std::string address = entry["address"].as_string();
    const std::string incarnation = entry["incarnation"].as_string();
    const auto before = known.find(id);
    if (before != known.end() && before->second.address == address &&
        before->second.incarnation == incarnation) {
      links_.insert(known.extract(before));
      continue;
    }
    Link& link = links_[id];
    link.address = address;
    link.incarnation = incarnation;
    if (incarnation == own_) continue;
    if (address.empty()) {
      if (outbound_only_) break_link(link, "neither of the two can be dialled: both only dial out");
      link.channel = opened_by(link);
    } else if (outbound_only_) {
      dial(link);
    }
  }
  for (auto& [id, link] : known) {
    if (link.channel) link.channel->close("the node has gone or was started again");
  }
}

void NodeLinks::on_opened(const std::shared_ptr<net::Channel>& channel) {
  if (channel->dialed()) return;
  callers_.push_back(channel);
  for (auto& [id, link] : links_) {
    if (!link.address.empty() || opened_by(link) != channel) continue;
    if (!link.channel) {
      link.channel = channel;
    } else if (link.broken.empty()) {
      break_link(link, "the node dialled again");  // for it the old one has ended
    }
  }
}

std::shared_ptr<net::Channel> NodeLinks::opened_by(const Link& link) const {
  for (auto caller = callers_.rbegin(); caller != callers_.rend(); ++caller) {
    if (hex((*caller)->peer().incarnation) == link.incarnation) return *caller;
  }
  return nullptr;
}

void NodeLinks::on_closed(net::ChannelId channel, const std::string& reason) {
  std::erase_if(callers_, [&](const auto& caller) { return caller->id() == channel; });
  for (auto& [id, link] : links_) {
    if (link.channel && link.channel->id() == channel) break_link(link, reason);
  }
}

// Or it could not be made whole.
void NodeLinks::break_link(Link& link, const std::string& reason) {
  news_ = news_ || link.broken.empty();
  link.channel.reset();
  link.broken = reason.empty() ? "it broke" : reason;
  link.waiting.clear();
  link.dial_at = kNever;
  link.whole_since = kNever;
}

void NodeLinks::dial(Link& link) {
  auto dialed = transport_.dial(link.address, net::deadline_in(patience_));
  if (dialed) {
    link.channel = std::move(dialed).value();
  } else {
    break_link(link, dialed.error().to_string());
  }
}

void NodeLinks::tick(Instant now) {
  if (news_) return;
  for (auto& [id, link] : links_) {
    if (!link.broken.empty()) {
      try_to_heal(link, now);
    } else if (link.pause > kFirstPause) {
      if (link.whole_since == kNever) link.whole_since = now;
      if (now >= link.whole_since + kStands) link.pause = kFirstPause;
    }
  }
}

void NodeLinks::try_to_heal(Link& link, Instant now) {
  if (link.address.empty()) link.channel = opened_by(link);
  if (link.channel) {
    if (!is_open(link.channel)) return;  // on_closed() tells if it will not be
    if (hex(link.channel->peer().incarnation) == link.incarnation) {
      link.broken.clear();
      news_ = true;
      return;
    }
    link.channel->close("another node was looked for here");
    break_link(link, "another node answers at its address");
  }
  if (link.address.empty()) return;  // it will dial, or nobody can
  if (link.dial_at == kNever) {
    link.dial_at = now + link.pause;
    link.pause = std::min(link.pause * 2, kLongestPause);
  } else if (now >= link.dial_at) {
    link.dial_at = kNever;
    dial(link);
  }
}

Instant NodeLinks::next_deadline() const {
  if (news_) return net::kNoWait;
  Instant next = kNever;
  for (const auto& [id, link] : links_) next = std::min(next, link.dial_at);
  return next;
}

void NodeLinks::send(NodeId to, Outgoing frame) {
  const auto at = links_.find(to);
  if (at != links_.end() && at->second.broken.empty()) {
    at->second.waiting.push_back(std::move(frame));
  }
}

bool NodeLinks::flush(Epoch epoch) {
  bool stuck = false;
  for (auto& [id, link] : links_) {
    while (!link.waiting.empty()) {
      if (!link.channel && !link.address.empty()) dial(link);
      if (!link.channel) break;  // broken, or the other side will dial
      if (link.channel->state() == net::ChannelState::kOpening) break;  // kOpened will wake us
      const Outgoing& next = link.waiting.front();
      const std::span<const uint8_t> parts[] = {
          next.head,
          {reinterpret_cast<const uint8_t*>(next.rows.data()), next.rows.size_bytes()}};
      const Result<void> sent =
          link.channel->send(static_cast<uint16_t>(next.kind), static_cast<uint32_t>(epoch.value),
                             parts, net::kNoWait);
      if (!sent) {
        stuck = stuck || sent.error().code() == Code::kExhausted;
        break;
      }
      link.waiting.pop_front();
    }
  }
  return stuck;
}

Json NodeLinks::broken() const {
  Json out = Json::array();
  for (const auto& [id, link] : links_) {
    if (link.broken.empty()) continue;
    out.push(Json::object({{"to", static_cast<int64_t>(id.value)},
                           {"incarnation", link.incarnation},
                           {"reason", link.broken},
                           {"both", outbound_only_ || link.address.empty()}}));
  }
  return out;
}

}  // namespace towline::worker
