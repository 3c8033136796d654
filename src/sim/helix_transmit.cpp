// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Links of the Helix mode: which request goes over which link when, and at what bandwidth.
#include <algorithm>
#include <cmath>

#include "sim/cpython_set.hpp"
#include "sim/helix_state.hpp"

namespace towline::sim {
namespace {

using policy::kSinkNode;
using policy::kSourceNode;

constexpr double kSlowestLink = 10;  // bytes/s; a link with less to give is not free

// The reference numbers the source 0, the sink 1 and the compute nodes from 2 on.
int32_t uid_of(int32_t place) { return place == kSourceNode ? 0 : place + 2; }
int32_t place_of(int32_t uid) { return uid == 0 ? kSourceNode : uid - 2; }

}  // namespace

// Max flow: every transmission on a link gets the same bandwidth, by the planned flow's share of
// both NICs, in whole bytes/s.
void HelixEngine::State::plan_bandwidth() {
  const size_t count = input.links.size();
  std::vector<double> speed(count);
  std::vector<double> sum_out(senders.size(), 0.0), sum_in(nodes.size(), 0.0);
  double sum_sink = 0;
  for (size_t i = 0; i < count; ++i) {
    const HelixLink& link = input.links[i];
    const bool to_coordinator = link.from == kSourceNode || link.to == kSinkNode;
    const double token = to_coordinator ? input.token_bytes
                                        : input.token_bytes + input.activation_bytes;
    const double capacity = link.bandwidth / token;
    speed[i] = link.bandwidth * input.flow[i] / capacity;
    sum_out[link.from + 1] += speed[i];
    (link.to == kSinkNode ? sum_sink : sum_in[link.to]) += speed[i];
  }
  for (size_t i = 0; i < count; ++i) {
    const HelixLink& link = input.links[i];
    const bool sink = link.to == kSinkNode;
    const double out_share = speed[i] / sum_out[link.from + 1];
    const double in_share = speed[i] / (sink ? sum_sink : sum_in[link.to]);
    const double out_limit = senders[link.from + 1].nic * out_share;
    const double in_limit =
        in_share * (sink ? input.coordinator_nic_in : input.nodes[link.to].nic_in);
    links[i].planned = std::floor(std::min(link.bandwidth, std::min(out_limit, in_limit)));
  }
}

void HelixEngine::State::enter_outbound(int32_t place, uint32_t query) {
  HelixSender& s = sender(place);
  const HelixQuery& q = queries[query];
  const Waiting waiting{query, s.arrivals++};
  switch (options.router) {
    case HelixRouter::kMaxFlow:
      if (sends_ahead()) return send_planned(place, query);
      links[q.route[q.stage + 1].link].queue.push_back(waiting);
      return;
    case HelixRouter::kSwarm:
      s.unrouted.push_back(waiting);
      if (place != kSourceNode) s.unreported.push_back(waiting);
      return;
    case HelixRouter::kRandom:
    case HelixRouter::kShortestQueue:
      if (q.prompt()) {
        s.unrouted.push_back(waiting);
      } else {
        links[q.route[q.stage + 1].link].queue.push_back(waiting);
      }
      return;
  }
}

void HelixEngine::State::start_transmission(int32_t place) {
  switch (options.router) {
    case HelixRouter::kMaxFlow:
      return transmit_planned(place);
    case HelixRouter::kSwarm:
      return transmit_swarm(place);
    case HelixRouter::kRandom:
    case HelixRouter::kShortestQueue:
      return transmit_picked(place);
  }
}

void HelixEngine::State::transmit_planned(int32_t place) {
  const HelixSender& s = sender(place);
  chosen.clear();
  for (const int32_t link : s.links) {
    if (!links[link].busy && !links[link].queue.empty()) {
      chosen.push_back(links[link].queue.front());
    }
  }
  // They leave in the order in which they entered the buffer.
  std::sort(chosen.begin(), chosen.end(),
            [](const Waiting& a, const Waiting& b) { return a.order < b.order; });
  for (const Waiting& waiting : chosen) {
    const HelixQuery& q = queries[waiting.query];
    const int32_t link = q.route[q.stage + 1].link;
    links[link].queue.pop_front();
    links[link].busy = true;
    send(place, link, waiting.query, links[link].planned);
  }
}

void HelixEngine::State::find_free_links(const HelixSender& s) {
  free_links.clear();
  const auto count = static_cast<double>(s.links.size());
  for (const int32_t link : s.links) {
    const HelixLink& spec = input.links[link];
    const double fair = s.nic / count - (spec.bandwidth - links[link].free);
    const double available =
        std::min(fair, std::min(s.free, std::min(links[link].free, sink_or_node_nic(spec.to))));
    if (available > kSlowestLink) free_links.push_back({link, available, -1});
  }
}

// Gives the prompt the first usable free link in a random order.
void HelixEngine::State::pick_link(const Waiting& prompt, int32_t place) {
  usable.assign(free_links.size(), 0);
  for (size_t i = 0; i < free_links.size(); ++i) {
    usable[i] = free_links[i].query < 0 && shortest[free_links[i].link] != 0;
  }
  const int32_t pick = policy::pick_random(random, usable, order_scratch);
  if (pick < 0) return;
  free_links[pick].query = prompt.query;
  take_hop(queries[prompt.query], place, free_links[pick].link);
}

void HelixEngine::State::take_hop(HelixQuery& q, int32_t place, int32_t link) {
  const int32_t next = map.links[link].to;
  q.route.push_back({link, next, map.layers_after(place, next)});
}

void HelixEngine::State::transmit_picked(int32_t place) {
  HelixSender& s = sender(place);
  find_free_links(s);
  shortest.assign(links.size(), 1);
  if (options.router == HelixRouter::kShortestQueue) {
    queue_lengths.clear();
    for (const int32_t link : s.links) {
      const int32_t next = map.links[link].to;
      queue_lengths.push_back(
          next == kSinkNode ? -1 : static_cast<int64_t>(nodes[next].queues[0].size()));
    }
    usable.assign(s.links.size(), 0);
    policy::mark_shortest(queue_lengths, usable);
    for (size_t i = 0; i < s.links.size(); ++i) shortest[s.links[i]] = usable[i];
  }
  // In order of entry: a decode takes its own link if that is free, a prompt draws one. Of the
  // decodes of a link only the first can succeed.
  const auto settle_decodes = [&](uint64_t before) {
    for (FreeLink& free : free_links) {
      const auto& queue = links[free.link].queue;
      if (free.query < 0 && !queue.empty() && queue.front().order < before) {
        free.query = queue.front().query;
        links[free.link].queue.pop_front();
      }
    }
  };
  size_t kept = 0;
  for (const Waiting& prompt : s.unrouted) {
    settle_decodes(prompt.order);
    const size_t hops = queries[prompt.query].route.size();
    pick_link(prompt, place);
    if (queries[prompt.query].route.size() == hops) s.unrouted[kept++] = prompt;
  }
  s.unrouted.resize(kept);
  settle_decodes(UINT64_MAX);
  for (const FreeLink& free : free_links) {
    if (free.query >= 0) send(place, free.link, static_cast<uint32_t>(free.query), free.bandwidth);
  }
}

// Requests that came out of this node since the last round tell the nodes that sent them how long
// that took, over the link and through the node.
void HelixEngine::State::report_swarm(int32_t place) {
  HelixSender& s = sender(place);
  CPythonIntSet again;
  for (const Waiting& waiting : s.unreported) {
    const HelixQuery& q = queries[waiting.query];
    const int32_t link = q.route[q.stage].link;
    const int32_t previous = map.links[link].from;
    swarm_router->report(previous, link, events.now() - q.sent);
    again.insert(uid_of(previous));
  }
  s.unreported.clear();
  again.copy_to(retransmit);
}

void HelixEngine::State::transmit_swarm(int32_t place) {
  HelixSender& s = sender(place);
  retransmit.clear();
  if (place != kSourceNode) report_swarm(place);
  int64_t scheduled = 0;
  for (const int32_t link : s.links) scheduled += static_cast<int64_t>(links[link].queue.size());
  const int64_t room = swarm_router->room(place, scheduled);
  const auto count = std::min<size_t>(s.unrouted.size(), room > 0 ? static_cast<size_t>(room) : 0);
  for (size_t i = 0; i < count; ++i) {
    const Waiting& waiting = s.unrouted[i];
    const HelixQuery& q = queries[waiting.query];
    const int32_t link =
        q.prompt() ? swarm_router->choose(place) : q.route[q.stage + 1].link;
    links[link].queue.push_back(waiting);
  }
  s.unrouted.erase(s.unrouted.begin(), s.unrouted.begin() + static_cast<ptrdiff_t>(count));
  find_free_links(s);
  for (const FreeLink& free : free_links) {
    if (links[free.link].queue.empty()) continue;
    const uint32_t query = links[free.link].queue.front().query;
    links[free.link].queue.pop_front();
    if (queries[query].prompt()) take_hop(queries[query], place, free.link);
    swarm_router->sent(place);
    send(place, free.link, query, free.bandwidth);
  }
  for (const int32_t uid : retransmit) push_now(Kind::kStartTransmission, place_of(uid));
}

// With its latency.
double HelixEngine::State::seconds_on_link(int32_t place, const HelixLink& link,
                                           const HelixQuery& q, double bandwidth) const {
  double bytes = input.token_bytes * q.tokens();
  if (place != kSourceNode && link.to != kSinkNode) bytes += input.activation_bytes * q.tokens();
  double duration = link.latency;
  duration += bytes / bandwidth;
  if (options.hop_seconds > 0) duration += options.hop_seconds;
  return duration;
}

void HelixEngine::State::send(int32_t place, int32_t link, uint32_t query, double bandwidth) {
  const HelixLink& spec = input.links[link];
  HelixQuery& q = queries[query];
  const double now = events.now();
  ++q.stage;
  const double duration = seconds_on_link(place, spec, q, bandwidth);
  q.bandwidth = bandwidth;
  sender(place).free -= bandwidth;
  links[link].free -= bandwidth;
  sink_or_node_nic(spec.to) -= bandwidth;
  q.compute += now - q.moved;
  q.moved = q.sent = now;
  // Adding the latency and taking it off again is not the identity in floating point.
  push(now + duration - spec.latency, Kind::kFinishSending, link, query);
}

// Stage grain: what is queued on a link leaves in order, one at a time, at the planned
// bandwidth, so the time of its arrival is known when it is queued. The sums are those
// of send() and finish_sending().
void HelixEngine::State::send_planned(int32_t place, uint32_t query) {
  HelixQuery& q = queries[query];
  const int32_t link = q.route[++q.stage].link;
  const HelixLink& spec = input.links[link];
  HelixLinkState& l = links[link];
  const double begin = std::max(events.now(), l.free_at);
  l.free_at = begin + seconds_on_link(place, spec, q, l.planned) - spec.latency;
  q.compute += begin - q.moved;
  q.moved = q.sent = begin;
  const double there = l.free_at + spec.latency;
  // It is sent when it comes, or when the one before it has left.
  const auto sent = begin == events.now() ? events.causes() : events.after(begin, l.causes);
  l.causes = events.after(begin, sent);
  const Event event{Kind::kFinishTransmission, link, query};
  l.free_at < there ? void(events.push_as_of(events.after(l.free_at, l.causes), there, event))
                    : events.push(there, event);
}

void HelixEngine::State::finish_sending(int32_t link, uint32_t query) {
  const HelixLink& spec = input.links[link];
  const double bandwidth = queries[query].bandwidth;
  sender(spec.from).free += bandwidth;
  links[link].free += bandwidth;
  sink_or_node_nic(spec.to) += bandwidth;
  links[link].busy = false;
  push_now(Kind::kStartTransmission, spec.from);
  push(events.now() + spec.latency, Kind::kFinishTransmission, link, query);
}

void HelixEngine::State::finish_transmission(int32_t link, uint32_t query) {
  HelixQuery& q = queries[query];
  const double now = events.now();
  q.network += now - q.moved;
  q.moved = now;
  const int32_t place = input.links[link].to;
  if (place == kSinkNode) {
    at_sink.push_back(query);
    push_now(Kind::kGather, 0);
    return;
  }
  HelixNodeState& n = nodes[place];
  const int32_t layer = q.route[q.stage].layers.begin - input.nodes[place].layers.begin;
  if (options.stage_grain) stop_batch_before(place, layer);
  n.queues[layer].push_back({query, q.prompt() ? q.input : 0, q.context});
  ++n.waiting;
  n.buffered_tokens += q.tokens();
  if (options.stage_grain && n.busy && n.ends > now) return;  // it would find the node busy
  push_now(Kind::kStartExecution, place);
}

}  // namespace towline::sim
