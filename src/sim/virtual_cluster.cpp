// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/virtual_cluster.hpp"

#include <algorithm>
#include <utility>

namespace towline::sim {
namespace {

using policy::kSinkNode;
using policy::kSourceNode;

// Messages up to this size take no part in the fair sharing of the network.
constexpr double kSmallMessage = 64 * 1024;

// NICs out of the coordinator and the nodes, NICs into them, then the links.
std::vector<double> network_resources(const HelixInput& input) {
  std::vector<double> capacities = {input.coordinator_nic_out};
  for (const HelixNode& node : input.nodes) capacities.push_back(node.nic_out);
  capacities.push_back(input.coordinator_nic_in);
  for (const HelixNode& node : input.nodes) capacities.push_back(node.nic_in);
  for (const HelixLink& link : input.links) capacities.push_back(link.bandwidth);
  return capacities;
}

}  // namespace

VirtualCluster::VirtualCluster(const HelixInput& input, StageCost cost, Options options)
    : input_(input), cost_(cost), options_(options), network_(network_resources(input)),
      nodes_(input.nodes.size()), links_(input.links.size()) {
  for (size_t i = 0; i < links_.size(); ++i) {
    const HelixLink& link = input.links[i];
    links_[i].bandwidth = link.bandwidth;
    links_[i].latency = ns(link.latency);
    links_[i].from = link.from;
    links_[i].to = link.to;
  }
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const int32_t machine = nodes_[i].machine = input.nodes[i].machine;
    nodes_[i].last_layer = input.nodes[i].layers.end;
    swaps_ |= input.nodes[i].swap_bandwidth > 0;
    nodes_[i].run_rows = input.nodes[i].run_rows;
    nodes_[i].limits = {cost_.most_prompt_tokens(machine),
                        std::min(cost_.most_decodes(machine), input.nodes[i].limits.decodes)};
  }
}

double VirtualCluster::load_seconds() const {
  double longest = 0;
  for (const HelixNode& node : input_.nodes) {
    if (node.layers.empty()) continue;
    longest = std::max(longest, input_.layer_bytes * node.layers.size() / node.disk);
  }
  return longest;
}

// --- parcels ------------------------------------------------------------------------------------

void VirtualCluster::send(int32_t ticket, const policy::Pipeline& way, const ParcelWork& work) {
  const uint32_t number = take_parcel();
  parcels_[number] = {.way = way.data(),
                      .ticket = ticket,
                      .via = -1,
                      .next_link = way.front().link,
                      .next = -1,
                      .there = 0,
                      .work = work,
                      .entry = 0};
  if (static_cast<size_t>(ticket) >= parcel_of_.size()) parcel_of_.resize(ticket + 1, -1);
  parcel_of_[ticket] = static_cast<int32_t>(number);
  enter_link(number);
}

void VirtualCluster::stream(int32_t link, int64_t bytes, uint32_t number) {
  ParcelWork work;
  work.prompt_context = bytes;
  work.prompt_tokens = static_cast<int32_t>(number);
  const uint32_t parcel = take_parcel();
  parcels_[parcel] = {.way = nullptr,
                      .ticket = 0,
                      .via = link,
                      .next_link = -1,
                      .next = -1,
                      .there = 0,
                      .work = work,
                      .entry = 0};
  enter_link(parcel);
}

uint32_t VirtualCluster::take_parcel() {
  if (free_parcels_.empty()) {
    parcels_.emplace_back();
    return static_cast<uint32_t>(parcels_.size() - 1);
  }
  const uint32_t number = free_parcels_.back();
  free_parcels_.pop_back();
  return number;
}

void VirtualCluster::drop(int32_t ticket) {
  const int32_t number = parcel_of_[ticket];
  if (number < 0) return;  // lost already
  // (Its way may be gone already.)
  const int32_t node = links_[parcels_[number].via].to;
  if (node >= 0 && nodes_[node].inbox.first == number) settle(node);
  parcels_[number].ticket = -1;
  parcel_of_[ticket] = -1;
}

void VirtualCluster::free_parcel(uint32_t number) {
  Parcel& p = parcels_[number];
  if (p.ticket >= 0 && !is_stream(p)) parcel_of_[p.ticket] = -1;
  p = {};
  free_parcels_.push_back(number);
}

void VirtualCluster::push(Queue& queue, uint32_t number) {
  parcels_[number].next = -1;
  if (queue.empty()) {
    queue.first = static_cast<int32_t>(number);
  } else {
    parcels_[queue.last].next = static_cast<int32_t>(number);
  }
  queue.last = static_cast<int32_t>(number);
}

uint32_t VirtualCluster::pop(Queue& queue) {
  const auto number = static_cast<uint32_t>(queue.first);
  queue.first = parcels_[number].next;
  return number;
}

// Into the inbox; of those that arrive at the same time, the one that was sent first comes first.
void VirtualCluster::insert(Node& n, uint32_t number, int64_t when) {
  parcels_[number].there = when;
  if (n.inbox.empty() || n.last_there <= when) {
    n.last_there = when;
    return push(n.inbox, number);
  }
  int32_t* at = &n.inbox.first;
  while (parcels_[*at].there <= when) at = &parcels_[*at].next;
  parcels_[number].next = std::exchange(*at, static_cast<int32_t>(number));
}

// What the event will touch; a large cluster does not fit the cache.
void VirtualCluster::prefetch(const Event& event) const {
  if (event.kind == Kind::kBatchDone || event.kind == Kind::kWake) {
    const Node& n = nodes_[event.where];
    __builtin_prefetch(&n);
    __builtin_prefetch(reinterpret_cast<const char*>(&n) + 64);
    __builtin_prefetch(&parcels_[event.parcel]);
    if (event.kind == Kind::kBatchDone) __builtin_prefetch(&links_[event.link]);
  } else if (event.kind == Kind::kReturned) {
    __builtin_prefetch(&parcels_[event.number]);
  }
}

std::optional<VirtualCluster::Happening> VirtualCluster::step() {
  ++handled_;
  std::optional<Happening> out;
  const Event event = events_.pop();
  events_.look_ahead([&](const Event& next) { prefetch(next); });
  switch (event.kind) {
    case Kind::kReturned: {
      const Parcel& p = parcels_[event.number];
      if (!p.dead() && p.there == links_[p.via].generation) {
        out = Happening{Happening::Kind::kReturned, p.ticket, 0, 0, 0};
      }
      free_parcel(event.number);
      break;
    }
    case Kind::kWake: {
      Node& n = nodes_[event.where];
      if (event.number != n.wake) break;
      n.wake_at = INT64_MAX;
      start_batch(event.where);
      break;
    }
    case Kind::kLinkFree:
      if (event.number != links_[event.where].generation) break;
      event.what == 0 ? sent(event.where) : send_next(event.where);
      break;
    case Kind::kFlows:
      if (event.number != network_generation_) break;
      planned_flow_end_ = INT64_MAX;
      tags_.clear();
      network_.finish(now(), tags_);
      for (const uint64_t tag : tags_) {
        const auto link = static_cast<int32_t>(tag >> 32);
        if (static_cast<uint32_t>(tag) == links_[link].generation) sent(link);
      }
      flows_changed();
      break;
    case Kind::kBatchDone:
      if (event.number != nodes_[event.where].generation) break;
      if (nodes_[event.where].planned) begin_planned(event.where);
      if (nodes_[event.where].hung) {
        nodes_[event.where].done_while_hung = true;
      } else {
        finish_batch(event.where);
      }
      break;
    case Kind::kLoaded:
      if (event.number != nodes_[event.where].generation) break;
      nodes_[event.where].loaded = true;
      start_batch(event.where);
      out = Happening{Happening::Kind::kReady, 0, event.where, 0, 0};
      break;
    case Kind::kStreamed: {
      const Parcel& p = parcels_[event.number];
      if (!p.dead() && p.there != links_[p.via].generation) {
        enter_link(event.number);  // again
        break;
      }
      if (!p.dead()) {
        out = Happening{Happening::Kind::kStreamed, 0, 0,
                        static_cast<uint32_t>(p.work.prompt_tokens), 0};
      }
      free_parcel(event.number);
      break;
    }
    case Kind::kDriver:
      out = Happening{Happening::Kind::kDriver, 0, 0, event.number, event.what};
      break;
  }
  return out;
}

// --- links --------------------------------------------------------------------------------------

double VirtualCluster::bytes_on(const Parcel& p) const {
  const Link& link = links_[p.via];
  if (is_stream(p)) return static_cast<double>(p.work.prompt_context);
  // What goes back to the coordinator is tokens, however long the prompt was.
  if (link.to == kSinkNode) return std::max(p.work.returned_tokens, 1) * input_.token_bytes;
  const double tokens = p.work.prompt_tokens + p.work.decodes;
  return tokens * (link.from == kSourceNode ? input_.token_bytes
                                            : input_.token_bytes + input_.activation_bytes);
}

void VirtualCluster::enter_link(uint32_t number) {
  Parcel& p = parcels_[number];
  if (!is_stream(p)) {
    p.via = p.next_link;
    const policy::Hop& hop = *p.way;
    p.entry = hop.layers.begin;
    if (hop.node >= 0) {
      p.next_link = p.way[1].link;
      __builtin_prefetch(&nodes_[hop.node]);
    }
  }
  const int32_t link = p.via;
  network_.prefetch(resource_of(link));
  Link& l = links_[link];
  if (!l.up) return is_stream(p) ? held_.push_back(number) : free_parcel(number);  // lost
  if (!l.busy) {
    const double bytes = bytes_on(p);
    if (bytes <= kSmallMessage) {  // its time is known at once
      l.bytes += bytes;
      l.free_at = std::max(l.free_at, now()) +
                  ns(bytes / l.bandwidth + cost_.calibration().hop_seconds);
      return leave_link(number, l.free_at);
    }
  }
  push(l.queue, number);
  if (!l.busy) begin_sending(link);
}

void VirtualCluster::begin_sending(int32_t link) {
  Link& l = links_[link];
  const double bytes = bytes_on(parcels_[l.queue.first]);
  l.busy = true;
  if (l.free_at > now()) {  // small messages before it
    events_.push(l.free_at, {Kind::kLinkFree, 1, link, l.generation});
    return;
  }
  l.bytes += bytes;
  if (bytes <= kSmallMessage) {
    l.free_at = now() + ns(bytes / l.bandwidth + cost_.calibration().hop_seconds);
    events_.push(l.free_at, {Kind::kLinkFree, 0, link, l.generation});
    return;
  }
  const auto places = static_cast<int32_t>(input_.nodes.size()) + 1;
  const int32_t nic_in = l.to == kSinkNode ? places : places + l.to + 1;
  network_.start(now(), bytes, {l.from + 1, resource_of(link), nic_in},
                 uint64_t{static_cast<uint32_t>(link)} << 32 | l.generation);
  flows_changed();
}

void VirtualCluster::leave_link(uint32_t number, int64_t when) {
  Parcel& p = parcels_[number];
  const Link& l = links_[p.via];
  when += l.latency;
  if (is_stream(p)) {
    p.there = l.generation;
    events_.push(when, {Kind::kStreamed, 0, 0, number});
    return;
  }
  if (l.to >= 0) return deliver(l.to, when, number);
  p.there = l.generation;
  events_.push(when, {Kind::kReturned, 0, 0, number});
}

void VirtualCluster::deliver(int32_t node, int64_t when, uint32_t parcel) {
  Node& n = nodes_[node];
  if (n.planned && begun(n)) begin_planned(node);
  insert(n, parcel, when);
  if (!n.loaded || n.busy) return;
  if (when < n.wake_at) {
    wake_at(node, parcel);
  } else if (n.planned && when == n.wake_at) {
    unplan(node);  // they will run together
  }
}

// The node is idle; `parcel` is the first in its inbox.
void VirtualCluster::wake_at(int32_t node, uint32_t parcel) {
  Node& n = nodes_[node];
  const Parcel& p = parcels_[parcel];
  ++n.wake;
  n.generation += std::exchange(n.planned, false);
  n.wake_at = p.there;
  const bool alone = p.next < 0 || parcels_[p.next].there > p.there;
  if (!alone || p.dead() || n.hung || p.there <= now()) {
    events_.push(p.there, {Kind::kWake, 0, node, n.wake, parcel});
    return;
  }
  n.planned = true;
  rows_.clear();
  add_rows(p);
  const int64_t end = p.there + batch_ns(node);
  n.planned_beyond = cost_.was_beyond();
  n.planned_end = events_.push_as_of(
      events_.after(p.there, events_.causes()), end,
      {Kind::kBatchDone, 0, node, ++n.generation, parcel, p.next_link});
}

// What was planned has begun.
void VirtualCluster::begin_planned(int32_t node) {
  Node& n = nodes_[node];
  const uint32_t number = pop(n.inbox);
  Parcel& p = parcels_[number];
  p.next = -1;
  n.batch = static_cast<int32_t>(number);
  n.prompt_tokens = p.work.prompt_tokens;
  n.decodes = p.work.decodes;
  n.begin = std::exchange(n.wake_at, INT64_MAX);
  n.planned = false;
  n.busy = true;
  cost_.count(n.planned_beyond);
  ++handled_;  // the waking
}

// What was planned may be otherwise: it will be seen when it begins.
void VirtualCluster::unplan(int32_t node) {
  Node& n = nodes_[node];
  n.planned = false;
  ++n.generation;
  --handled_;  // the end that will not be
  events_.push_cause(n.planned_end, {Kind::kWake, 0, node, ++n.wake,
                                     static_cast<uint32_t>(n.inbox.first)});
}

void VirtualCluster::settle(int32_t node) {
  const Node& n = nodes_[node];
  if (n.planned) begun(n) ? begin_planned(node) : unplan(node);
}

// The first in the link's queue has left it.
void VirtualCluster::sent(int32_t link) {
  Link& l = links_[link];
  const uint32_t number = pop(l.queue);
  if (parcels_[number].dead()) {
    free_parcel(number);
  } else {
    leave_link(number, now());
  }
  send_next(link);
}

void VirtualCluster::send_next(int32_t link) {
  Link& l = links_[link];
  l.busy = false;
  while (!l.queue.empty() && parcels_[l.queue.first].dead()) free_parcel(pop(l.queue));
  if (!l.queue.empty()) begin_sending(link);
}

void VirtualCluster::flows_changed() {
  const int64_t end = network_.next_end();
  if (end == planned_flow_end_) return;
  planned_flow_end_ = end;
  ++network_generation_;
  if (end != INT64_MAX) {
    events_.push(std::max(end, now()), {Kind::kFlows, 0, 0, network_generation_});
  }
}

// --- nodes --------------------------------------------------------------------------------------

void VirtualCluster::start_batch(int32_t node) {
  Node& n = nodes_[node];
  if (n.busy || !n.loaded || n.hung) return;
  rows_.clear();
  const Queue taken = n.run_rows > 0 ? take_as_peer(n) : take_in_order(n);
  if (taken.empty()) {
    if (!n.inbox.empty()) wake_at(node, static_cast<uint32_t>(n.inbox.first));
    return;
  }
  n.batch = taken.first;
  n.busy = true;
  n.begin = now();
  const int64_t end = now() + batch_ns(node);
  cost_.count(cost_.was_beyond());
  events_.push(end, {Kind::kBatchDone, 0, node, n.generation, static_cast<uint32_t>(n.batch),
                     parcels_[n.batch].next_link});
}

VirtualCluster::Queue VirtualCluster::take_in_order(Node& n) {
  policy::NodeBatch batch(n.limits);
  Queue taken;
  while (!n.inbox.empty() && parcels_[n.inbox.first].there <= now()) {
    const auto number = static_cast<uint32_t>(n.inbox.first);
    const Parcel& p = parcels_[number];
    if (!p.dead() && !batch.take(p.work.prompt_tokens, p.work.decodes)) break;
    pop(n.inbox);
    if (p.dead()) {
      free_parcel(number);
    } else {
      push(taken, number);
      add_rows(p);
    }
  }
  n.prompt_tokens = batch.prompt_tokens();
  n.decodes = batch.decodes();
  return taken;
}

// The rule of policy::Peer. Parcels of one lane are at the same hop here.
VirtualCluster::Queue VirtualCluster::take_as_peer(Node& n) {
  waiting_.clear();
  chosen_.clear();
  while (!n.inbox.empty() && parcels_[n.inbox.first].there <= now()) {
    const uint32_t number = pop(n.inbox);
    const Parcel& p = parcels_[number];
    if (p.dead()) {
      free_parcel(number);
      continue;
    }
    const bool first = std::ranges::none_of(
        chosen_, [&](uint32_t other) { return parcels_[other].way == p.way; });
    (first ? chosen_ : waiting_).push_back(number);
  }
  const auto rows_of = [&](uint32_t number) {
    return parcels_[number].work.prompt_tokens + parcels_[number].work.decodes;
  };
  std::ranges::stable_sort(chosen_, {}, rows_of);
  Queue taken;
  n.prompt_tokens = n.decodes = 0;
  bool full = false;
  for (const uint32_t number : chosen_) {
    full = full || (!taken.empty() &&
                    n.prompt_tokens + n.decodes + rows_of(number) > n.run_rows);
    if (full) {
      waiting_.push_back(number);
      continue;
    }
    const Parcel& p = parcels_[number];
    push(taken, number);
    add_rows(p);
    n.prompt_tokens += p.work.prompt_tokens;
    n.decodes += p.work.decodes;
  }
  // Back to the front of the inbox, in the order of coming.
  std::ranges::stable_sort(waiting_, {}, [&](uint32_t number) { return parcels_[number].there; });
  const Queue later = n.inbox;
  n.inbox = {};
  for (const uint32_t number : waiting_) push(n.inbox, number);
  if (n.inbox.empty()) {
    n.inbox = later;
  } else if (later.empty()) {
    n.last_there = parcels_[n.inbox.last].there;
  } else {
    parcels_[n.inbox.last].next = later.first;
    n.inbox.last = later.last;
  }
  return taken;
}

// Of a batch of rows_.
int64_t VirtualCluster::batch_ns(int32_t node) {
  const Node& n = nodes_[node];
  double seconds = cost_.batch_seconds(n.machine, n.last_layer, rows_);
  if (swaps_) seconds = std::max(seconds, fetch_seconds(node));
  return std::max<int64_t>(ns(seconds * n.slowness), 1);
}

// Of the KV of the batch's decodes, if it is in the host's memory. It comes while the batch before
// is computed, so the longer of the two times counts.
double VirtualCluster::fetch_seconds(int32_t node) const {
  const HelixNode& spec = input_.nodes[node];
  if (!(spec.swap_bandwidth > 0)) return 0;
  double layer_tokens = 0;
  for (const CostRows& rows : rows_) {
    layer_tokens += static_cast<double>(rows.decode_context) * (spec.layers.end - rows.entry);
  }
  return layer_tokens * input_.kv_bytes / spec.swap_bandwidth;
}

// To the rows of the batch that enter at the same layer.
void VirtualCluster::add_rows(const Parcel& p) {
  auto row = std::find_if(rows_.begin(), rows_.end(),
                          [&](const CostRows& r) { return r.entry == p.entry; });
  if (row == rows_.end()) row = rows_.insert(row, {.entry = p.entry});
  row->prompt_tokens += p.work.prompt_tokens;
  row->decodes += p.work.decodes;
  row->prompt_context += p.work.prompt_context;
  row->decode_context += p.work.decode_context;
  row->drawn += p.work.returned_tokens;
}

void VirtualCluster::finish_batch(int32_t node) {
  Node& n = nodes_[node];
  n.busy = false;
  const int32_t batch = std::exchange(n.batch, -1);
  n.times.busy_ns += now() - n.begin;
  ++n.times.batches;
  if (static_cast<int64_t>(batches_.size()) < options_.trace_limit) {
    batches_.push_back({node, n.begin, now(), n.prompt_tokens, n.decodes});
  }
  if (options_.stages) {
    for (int32_t number = batch; number >= 0; number = parcels_[number].next) {
      const Parcel& p = parcels_[number];
      stages_.push_back({node, p.ticket, p.dead() ? LayerRange{} : p.way->layers,
                         p.work.prompt_tokens + p.work.decodes,
                         static_cast<double>(now() - n.begin) * 1e-9});
    }
  }
  for (int32_t at = batch; at >= 0;) {
    const auto number = static_cast<uint32_t>(at);
    Parcel& p = parcels_[number];
    at = p.next;
    if (p.dead()) {
      free_parcel(number);
    } else {
      ++p.way;
      enter_link(number);
    }
  }
  start_batch(node);
}

}  // namespace towline::sim
