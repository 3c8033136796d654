// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/route_chooser.hpp"

#include <algorithm>

#include "base/fmt.hpp"

namespace towline::policy {
namespace {

std::vector<KvLedger::Node> accounts(const std::vector<RouteChooser::Node>& nodes) {
  std::vector<KvLedger::Node> out;
  for (const RouteChooser::Node& n : nodes) {
    out.push_back({n.layers, n.kv_tokens * std::max(n.layers.size(), 0)});
  }
  return out;
}

std::vector<int32_t> prompts(const std::vector<RouteChooser::Node>& nodes) {
  std::vector<int32_t> out;
  for (const RouteChooser::Node& n : nodes) out.push_back(n.longest_prompt);
  return out;
}

}  // namespace

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

Result<RouterKind> router_named(std::string_view name) {
  for (const RouterKind kind : {RouterKind::kFlow, RouterKind::kSwarm, RouterKind::kRandom,
                                RouterKind::kShortestQueue}) {
    if (name == router_name(kind)) return kind;
  }
  return errorf(Code::kInvalidArgument,
                "there is no router '{}'; there are flow, swarm, random and shortest-queue", name);
}

RouteChooser::RouteChooser(RouterKind kind, RouteMap map, std::span<const double> flow,
                           const std::vector<Node>& nodes, KvEstimator estimator, uint64_t seed)
    : kind_(kind),
      map_(std::move(map)),
      ledger_(accounts(nodes), map_.total_layers, estimator),
      longest_prompt_(prompts(nodes)),
      random_{Rng(seed)} {
  leads_on_.assign(map_.layers.size(), 0);
  // Links lead to higher layers, so as many rounds as there are nodes are enough.
  for (bool changed = true; changed;) {
    changed = false;
    for (const RouteLink& link : map_.links) {
      if (link.from == kSourceNode || leads_on_[static_cast<size_t>(link.from)] != 0) continue;
      if (link.to != kSinkNode && leads_on_[static_cast<size_t>(link.to)] == 0) continue;
      leads_on_[static_cast<size_t>(link.from)] = 1;
      changed = true;
    }
  }
  if (kind_ == RouterKind::kFlow) flow_.emplace(map_, flow, longest_prompt_);
  if (kind_ == RouterKind::kSwarm) swarm_.emplace(map_, SwarmOptions{});
}

RouteChooser::Verdict RouteChooser::choose(int64_t input_tokens, std::span<const int64_t> queue,
                                           Pipeline& pipeline) {
  if (!flow_) return choose_hop_by_hop(input_tokens, queue, false, pipeline);
  if (flow_->route(input_tokens, ledger_, pipeline)) return Verdict::kRouted;
  return flow_->last_refusal().by_kv > 0 ? Verdict::kWait : Verdict::kNever;
}

RouteChooser::Verdict RouteChooser::choose_alone(int64_t input_tokens,
                                                 std::span<const int64_t> queue,
                                                 Pipeline& pipeline) {
  if (!flow_) return choose_hop_by_hop(input_tokens, queue, true, pipeline);
  // A ledger of boundless nodes answers yes; what it books is booked in the real one instead.
  std::vector<KvLedger::Node> boundless;
  for (const LayerRange& layers : map_.layers) boundless.push_back({layers, int64_t{1} << 60});
  KvLedger open(std::move(boundless), map_.total_layers, {});
  if (!flow_->route(input_tokens, open, pipeline)) return Verdict::kNever;
  ledger_.book(pipeline, input_tokens);
  return Verdict::kRouted;
}

RouteChooser::Verdict RouteChooser::choose_hop_by_hop(int64_t input_tokens,
                                                      std::span<const int64_t> queue, bool alone,
                                                      Pipeline& pipeline) {
  pipeline.clear();
  bool by_kv = false;
  int32_t node = kSourceNode;
  do {
    const std::vector<int32_t>& links = map_.links_from(node);
    std::vector<uint8_t> usable(links.size(), 0);
    for (size_t i = 0; i < links.size(); ++i) {
      const int32_t to = map_.links[static_cast<size_t>(links[i])].to;
      if (to != kSinkNode) {
        if (leads_on_[static_cast<size_t>(to)] == 0) continue;
        if (input_tokens > longest_prompt_[static_cast<size_t>(to)]) continue;
        if (!alone && !ledger_.fits(to, input_tokens)) {
          by_kv = true;
          continue;
        }
      }
      usable[i] = 1;
    }
    const int32_t chosen = pick(node, links, queue, usable);
    if (chosen < 0) {
      pipeline.clear();
      return by_kv ? Verdict::kWait : Verdict::kNever;
    }
    const int32_t link = links[static_cast<size_t>(chosen)];
    const int32_t next = map_.links[static_cast<size_t>(link)].to;
    pipeline.push_back({link, next, map_.layers_after(node, next)});
    node = next;
  } while (node != kSinkNode);
  ledger_.book(pipeline, input_tokens);
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

void RouteChooser::stepped(const Pipeline& pipeline, int64_t tokens, Duration taken) {
  if (flow_) {
    for (int64_t i = 0; i < tokens; ++i) flow_->charge_decode(pipeline);
  }
  if (swarm_) {
    const double each = to_seconds(taken) / static_cast<double>(pipeline.size());
    for (const Hop& hop : pipeline) {
      swarm_->report(map_.links[static_cast<size_t>(hop.link)].from, hop.link, each);
    }
  }
}

}  // namespace towline::policy
