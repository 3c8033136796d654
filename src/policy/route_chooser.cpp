// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/route_chooser.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/fmt.hpp"

namespace towline::policy {

std::string_view router_name(RouterKind kind) {
  switch (kind) {
    case RouterKind::kFlow:
      return "flow";
    case RouterKind::kSwarm:
      return "swarm";
    case RouterKind::kRandom:
      return "random";
    case RouterKind::kShortestQueue:
      break;
  }
  return "shortest-queue";
}

Result<RouterKind> router_named(std::string_view given) {
  std::string name(given);
  std::ranges::replace(name, '_', '-');
  if (name == "iwrr" || name == "maxflow") name = "flow";
  for (const RouterKind kind : {RouterKind::kFlow, RouterKind::kSwarm, RouterKind::kRandom,
                                RouterKind::kShortestQueue}) {
    if (name == router_name(kind)) return kind;
  }
  return errorf(Code::kInvalidArgument,
                "there is no router '{}'; there are flow, swarm, random and shortest-queue", given);
}

RouteChooser::RouteChooser(RouterKind kind, RouteMap map, std::span<const double> flow,
                           const std::vector<Node>& nodes, double minimum_share, uint64_t seed)
    : kind_(kind), map_(std::move(map)), nodes_(nodes), random_{Rng(seed)} {
  leads_on_ = leading_on(0);
  least_room_ = std::numeric_limits<int64_t>::max();
  std::vector<int32_t> longest;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    longest.push_back(nodes_[i].longest_prompt);
    if (leads_on_[i] != 0) least_room_ = std::min(least_room_, nodes_[i].room);
  }
  if (kind_ == RouterKind::kFlow) flow_.emplace(map_, flow, std::move(longest), minimum_share);
  if (kind_ == RouterKind::kSwarm) swarm_.emplace(map_, SwarmOptions{});
}

std::vector<uint8_t> RouteChooser::leading_on(int64_t room) const {
  std::vector<uint8_t> leads(map_.layers.size(), 0);
  std::vector<int32_t> order;
  for (int32_t i = 0; i < map_.nodes(); ++i) order.push_back(i);
  // Links lead to higher layers: whoever ends later is settled first.
  std::ranges::sort(order, [&](int32_t a, int32_t b) {
    return std::pair(-map_.layers[static_cast<size_t>(a)].end, a) <
           std::pair(-map_.layers[static_cast<size_t>(b)].end, b);
  });
  for (const int32_t node : order) {
    if (nodes_[static_cast<size_t>(node)].room < room) continue;
    leads[static_cast<size_t>(node)] = std::ranges::any_of(
        map_.links_from(node), [&](int32_t link) {
          const int32_t to = map_.links[static_cast<size_t>(link)].to;
          return to == kSinkNode || leads[static_cast<size_t>(to)] != 0;
        });
  }
  return leads;
}

RouteChooser::Verdict RouteChooser::choose(const Ask& ask, KvLedger& ledger, Pipeline& pipeline) {
  std::vector<uint8_t> roomy;  // empty: all are
  if (ask.most_tokens > least_room_) roomy = leading_on(ask.most_tokens);
  const auto leads = [&](int32_t link) {
    const int32_t to = map_.links[static_cast<size_t>(link)].to;
    return to == kSinkNode || roomy[static_cast<size_t>(to)] != 0;
  };
  if (!roomy.empty() && std::ranges::none_of(map_.links_from(kSourceNode), leads)) {
    pipeline.clear();
    return Verdict::kTooLarge;
  }
  if (!flow_) return choose_hop_by_hop(ask, roomy, ledger, pipeline);
  if (flow_->route(ask.input_tokens, ledger, pipeline, {ask.alone, roomy})) return Verdict::kRouted;
  const RouteRefusal& why = flow_->last_refusal();
  return why.by_kv > 0 ? Verdict::kWait : why.by_rule > 0 ? Verdict::kTooLarge : Verdict::kNever;
}

RouteChooser::Verdict RouteChooser::choose_hop_by_hop(const Ask& ask,
                                                      std::span<const uint8_t> roomy,
                                                      KvLedger& ledger, Pipeline& pipeline) {
  pipeline.clear();
  const std::span<const uint8_t> good = roomy.empty() ? std::span<const uint8_t>(leads_on_) : roomy;
  bool by_kv = false;
  int32_t node = kSourceNode;
  do {
    const std::vector<int32_t>& links = map_.links_from(node);
    std::vector<uint8_t> usable(links.size(), 0);
    for (size_t i = 0; i < links.size(); ++i) {
      const int32_t to = map_.links[static_cast<size_t>(links[i])].to;
      if (to != kSinkNode) {
        if (good[static_cast<size_t>(to)] == 0) continue;
        if (ask.input_tokens > nodes_[static_cast<size_t>(to)].longest_prompt) continue;
        if (!ask.alone && !ledger.fits(to, ask.input_tokens)) {
          by_kv = true;
          continue;
        }
      }
      usable[i] = 1;
    }
    const int32_t chosen = pick(node, links, ask.queue, usable);
    if (chosen < 0) {
      pipeline.clear();
      return by_kv ? Verdict::kWait : Verdict::kNever;
    }
    const int32_t link = links[static_cast<size_t>(chosen)];
    const int32_t next = map_.links[static_cast<size_t>(link)].to;
    pipeline.push_back({link, next, map_.layers_after(node, next)});
    node = next;
  } while (node != kSinkNode);
  ledger.book(pipeline, ask.input_tokens);
  return Verdict::kRouted;
}

int32_t RouteChooser::pick(int32_t node, std::span<const int32_t> links,
                           std::span<const int64_t> queue, std::span<const uint8_t> usable) {
  std::vector<int32_t> scratch;
  if (std::ranges::none_of(usable, [](uint8_t u) { return u != 0; })) return -1;
  if (kind_ == RouterKind::kSwarm) {
    // Its queue of links may name one that cannot be used now; it is passed over.
    for (size_t tries = 0; tries < links.size() * 8; ++tries) {
      const int32_t link = swarm_->choose(node);
      const auto at = std::ranges::find(links, link) - links.begin();
      if (usable[static_cast<size_t>(at)] != 0) return static_cast<int32_t>(at);
    }
  }
  if (kind_ == RouterKind::kShortestQueue) {
    std::vector<int64_t> lengths;
    std::vector<int32_t> which;
    for (size_t i = 0; i < links.size(); ++i) {
      if (usable[i] == 0) continue;
      const int32_t to = map_.links[static_cast<size_t>(links[i])].to;
      lengths.push_back(to == kSinkNode ? -1 : queue[static_cast<size_t>(to)]);
      which.push_back(static_cast<int32_t>(i));
    }
    std::vector<uint8_t> marks(lengths.size());
    mark_shortest(lengths, marks);
    return which[static_cast<size_t>(pick_random(random_, marks, scratch))];
  }
  return pick_random(random_, usable, scratch);
}

void RouteChooser::stepped(const Pipeline& pipeline, int64_t decodes, Duration taken) {
  if (flow_ && decodes > 0) flow_->charge_decode(pipeline, static_cast<double>(decodes));
  if (swarm_) {
    const double each = to_seconds(taken) / static_cast<double>(pipeline.size());
    for (const Hop& hop : pipeline) {
      swarm_->report(map_.links[static_cast<size_t>(hop.link)].from, hop.link, each);
    }
  }
}

}  // namespace towline::policy
