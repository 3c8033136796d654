// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/virtual_cluster.hpp"

#include <algorithm>

#include "policy/node_batch.hpp"

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
  for (size_t i = 0; i < links_.size(); ++i) links_[i].bandwidth = input.links[i].bandwidth;
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
  uint32_t number;
  if (free_parcels_.empty()) {
    number = static_cast<uint32_t>(parcels_.size());
    parcels_.emplace_back();
  } else {
    number = free_parcels_.back();
    free_parcels_.pop_back();
  }
  parcels_[number] = {&way, ticket, 0, 0, false, -1, work};
  if (static_cast<size_t>(ticket) >= parcel_of_.size()) parcel_of_.resize(ticket + 1, -1);
  parcel_of_[ticket] = static_cast<int32_t>(number);
  enter_link(number);
}

void VirtualCluster::drop(int32_t ticket) {
  const int32_t number = parcel_of_[ticket];
  if (number < 0) return;  // lost already
  parcels_[number].dead = true;
  parcels_[number].ticket = -1;
  parcel_of_[ticket] = -1;
}

void VirtualCluster::free_parcel(uint32_t number) {
  Parcel& p = parcels_[number];
  if (p.ticket >= 0) parcel_of_[p.ticket] = -1;
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

void VirtualCluster::lose(Queue& queue) {
  while (!queue.empty()) free_parcel(pop(queue));
}

std::optional<VirtualCluster::Happening> VirtualCluster::step() {
  ++handled_;
  std::optional<Happening> out;
  const Event event = events_.pop();
  switch (event.kind) {
    case Kind::kArrived:
      arrived(event.number, out);
      break;
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
      if (event.number == nodes_[event.where].generation) finish_batch(event.where);
      break;
    case Kind::kLoaded:
      if (event.number != nodes_[event.where].generation) break;
      nodes_[event.where].loaded = true;
      out = Happening{Happening::Kind::kReady, 0, event.where, 0, 0};
      break;
    case Kind::kDriver:
      out = Happening{Happening::Kind::kDriver, 0, 0, event.number, event.what};
      break;
  }
  return out;
}

// --- links --------------------------------------------------------------------------------------

double VirtualCluster::bytes_on(const Parcel& p) const {
  const HelixLink& link = input_.links[hop_of(p).link];
  // What goes back to the coordinator is tokens, however long the prompt was.
  if (link.to == kSinkNode) return std::max(p.work.returned_tokens, 1) * input_.token_bytes;
  const double tokens = p.work.prompt_tokens + p.work.decodes;
  return tokens * (link.from == kSourceNode ? input_.token_bytes
                                            : input_.token_bytes + input_.activation_bytes);
}

void VirtualCluster::enter_link(uint32_t number) {
  const int32_t link = hop_of(parcels_[number]).link;
  Link& l = links_[link];
  if (!l.up) return free_parcel(number);  // lost
  if (!l.busy) {
    const double bytes = bytes_on(parcels_[number]);
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
  const HelixLink& spec = input_.links[link];
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
  const int32_t nic_in = spec.to == kSinkNode ? places : places + spec.to + 1;
  network_.start(now(), bytes, {spec.from + 1, 2 * places + link, nic_in},
                 uint64_t{static_cast<uint32_t>(link)} << 32 | l.generation);
  flows_changed();
}

void VirtualCluster::leave_link(uint32_t number, int64_t when) {
  Parcel& p = parcels_[number];
  const int32_t link = hop_of(p).link;
  p.link_generation = links_[link].generation;
  events_.push(when + ns(input_.links[link].latency), {Kind::kArrived, 0, 0, number});
}

// The first in the link's queue has left it.
void VirtualCluster::sent(int32_t link) {
  Link& l = links_[link];
  const uint32_t number = pop(l.queue);
  if (parcels_[number].dead) {
    free_parcel(number);
  } else {
    leave_link(number, now());
  }
  send_next(link);
}

void VirtualCluster::send_next(int32_t link) {
  Link& l = links_[link];
  l.busy = false;
  while (!l.queue.empty() && parcels_[l.queue.first].dead) free_parcel(pop(l.queue));
  if (!l.queue.empty()) begin_sending(link);
}

void VirtualCluster::flows_changed() {
  const int64_t end = network_.next_end();
  if (end == planned_flow_end_) return;
  planned_flow_end_ = end;
  ++network_generation_;
  if (end != INT64_MAX) events_.push(std::max(end, now()), {Kind::kFlows, 0, 0, network_generation_});
}

void VirtualCluster::arrived(uint32_t number, std::optional<Happening>& out) {
  const Parcel& p = parcels_[number];
  if (p.dead) return free_parcel(number);  // its way may be gone as well
  const policy::Hop& hop = hop_of(p);
  if (p.link_generation != links_[hop.link].generation) return free_parcel(number);
  if (hop.node == kSinkNode) {
    out = Happening{Happening::Kind::kReturned, p.ticket, 0, 0, 0};
    return free_parcel(number);
  }
  Node& n = nodes_[hop.node];
  if (!n.up) return free_parcel(number);
  push(n.ready, number);
  start_batch(hop.node);
}

// --- nodes --------------------------------------------------------------------------------------

void VirtualCluster::start_batch(int32_t node) {
  Node& n = nodes_[node];
  if (n.busy || !n.loaded) return;
  const int32_t machine = input_.nodes[node].machine;
  policy::NodeBatch batch({cost_.most_prompt_tokens(machine),
                           std::min(cost_.most_decodes(machine), input_.nodes[node].limits.decodes)});
  n.batch.clear();
  while (!n.ready.empty()) {
    const Parcel& p = parcels_[n.ready.first];
    if (p.dead) {
      free_parcel(pop(n.ready));
    } else if (batch.take(p.work.prompt_tokens, p.work.decodes)) {
      n.batch.push_back(pop(n.ready));
    } else {
      break;
    }
  }
  if (n.batch.empty()) return;
  n.prompt_tokens = batch.prompt_tokens();
  n.decodes = batch.decodes();
  n.busy = true;
  n.begin = now();
  events_.push(now() + batch_ns(node), {Kind::kBatchDone, 0, node, n.generation});
}

int64_t VirtualCluster::batch_ns(int32_t node) {
  const Node& n = nodes_[node];
  rows_.clear();
  for (const uint32_t number : n.batch) {
    const Parcel& p = parcels_[number];
    const int32_t entry = hop_of(p).layers.begin;
    auto row = std::find_if(rows_.begin(), rows_.end(),
                            [&](const CostRows& r) { return r.entry == entry; });
    if (row == rows_.end()) row = rows_.insert(row, {.entry = entry});
    row->prompt_tokens += p.work.prompt_tokens;
    row->decodes += p.work.decodes;
    row->prompt_context += p.work.prompt_context;
    row->decode_context += p.work.decode_context;
  }
  return std::max<int64_t>(ns(cost_.batch_seconds(node, rows_) * n.slowness), 1);
}

void VirtualCluster::finish_batch(int32_t node) {
  Node& n = nodes_[node];
  n.busy = false;
  n.times.busy_ns += now() - n.begin;
  ++n.times.batches;
  if (static_cast<int64_t>(batches_.size()) < options_.trace_limit) {
    batches_.push_back({node, n.begin, now(), n.prompt_tokens, n.decodes});
  }
  for (const uint32_t number : n.batch) {
    if (parcels_[number].dead) {
      free_parcel(number);
      continue;
    }
    ++parcels_[number].hop;
    enter_link(number);
  }
  start_batch(node);
}

// --- faults -------------------------------------------------------------------------------------

void VirtualCluster::node_down(int32_t node) {
  Node& n = nodes_[node];
  if (!n.up) return;
  if (n.busy) n.times.busy_ns += now() - n.begin;
  n.up = n.loaded = n.busy = false;
  ++n.generation;
  lose(n.ready);
  for (const uint32_t number : n.batch) free_parcel(number);
  n.batch.clear();
}

void VirtualCluster::node_up(int32_t node) {
  Node& n = nodes_[node];
  if (n.up) return;
  n.up = true;
  const HelixNode& spec = input_.nodes[node];
  events_.push(now() + ns(input_.layer_bytes * spec.layers.size() / spec.disk),
               {Kind::kLoaded, 0, node, n.generation});
}

void VirtualCluster::link_down(int32_t link) {
  Link& l = links_[link];
  if (!l.up) return;
  l.up = l.busy = false;
  l.free_at = 0;
  ++l.generation;  // what is on it, or under way behind it, is lost
  lose(l.queue);
}

void VirtualCluster::set_bandwidth(int32_t link, double bytes_per_second) {
  links_[link].bandwidth = bytes_per_second;
  const auto places = static_cast<int32_t>(input_.nodes.size()) + 1;
  network_.set_capacity(now(), 2 * places + link, bytes_per_second);
  flows_changed();
}

}  // namespace towline::sim
