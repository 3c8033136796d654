// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/node_links.hpp"

#include <utility>

#include "base/fmt.hpp"

namespace towline::worker {
namespace {

constexpr Duration kDialPatience = seconds(5);

std::string hex(uint64_t incarnation) { return format("{:016x}", incarnation); }

}  // namespace

NodeLinks::NodeLinks(net::Transport& transport)
    : transport_(transport), outbound_only_(transport.address().empty()) {}

void NodeLinks::on_roster(const Json& roster) {
  const std::string own = hex(transport_.self().incarnation);
  for (const Json& entry : roster["nodes"].items()) {
    Link& link = links_[NodeId(static_cast<int32_t>(entry["id"].as_int()))];
    const std::string address = entry["address"].as_string();
    const std::string incarnation = entry["incarnation"].as_string();
    if (link.address == address && link.incarnation == incarnation) continue;
    if (link.channel) link.channel->close("the node was started again");
    link = Link{};
    link.address = address;
    link.incarnation = incarnation;
    if (incarnation == own) continue;
    if (address.empty()) {
      if (outbound_only_) break_link(link, "neither of the two can be dialled: both only dial out");
      adopt(link);
    } else if (outbound_only_) {
      dial(link);
    }
  }
}

void NodeLinks::on_opened(const std::shared_ptr<net::Channel>& channel) {
  if (channel->dialed()) return;
  const std::string incarnation = hex(channel->peer().incarnation);
  callers_[incarnation] = channel;
  for (auto& [id, link] : links_) {
    if (link.incarnation == incarnation) adopt(link);
  }
}

void NodeLinks::adopt(Link& link) {
  const auto caller = callers_.find(link.incarnation);
  if (link.address.empty() && caller != callers_.end()) link.channel = caller->second;
}

void NodeLinks::on_closed(net::ChannelId channel, const std::string& reason) {
  std::erase_if(callers_, [&](const auto& caller) { return caller.second->id() == channel; });
  for (auto& [id, link] : links_) {
    if (link.channel && link.channel->id() == channel) break_link(link, reason);
  }
}

void NodeLinks::break_link(Link& link, const std::string& reason) {
  link.channel.reset();
  link.broken = reason;
  link.waiting.clear();
  news_ = true;
}

void NodeLinks::dial(Link& link) {
  auto dialed = transport_.dial(link.address, net::deadline_in(kDialPatience));
  if (dialed) {
    link.channel = std::move(dialed).value();
  } else {
    break_link(link, dialed.error().to_string());
  }
}

void NodeLinks::send(NodeId to, Outgoing frame) {
  Link& link = links_[to];
  if (link.broken.empty()) link.waiting.push_back(std::move(frame));
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
