// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What befalls the machines and links of a VirtualCluster.
#include <utility>

#include "sim/virtual_cluster.hpp"

namespace towline::sim {

void VirtualCluster::lose_inbox(int32_t node, int32_t link) {
  Queue& inbox = nodes_[node].inbox;
  Queue kept;
  for (int32_t at = inbox.first; at >= 0;) {
    const auto number = static_cast<uint32_t>(at);
    const Parcel& p = parcels_[number];
    at = p.next;
    const bool here = p.there <= now();
    const bool lost = link < 0 ? here : !here && p.via == link;
    if (lost) {
      free_parcel(number);
    } else {
      nodes_[node].last_there = p.there;
      push(kept, number);
    }
  }
  inbox = kept;
}

void VirtualCluster::node_down(int32_t node) {
  Node& n = nodes_[node];
  if (!n.up) return;
  settle(node);
  if (n.busy) n.times.busy_ns += now() - n.begin;
  n.up = n.loaded = n.busy = n.hung = n.done_while_hung = false;
  n.down_at = now();
  ++n.generation;
  ++n.wake;
  n.wake_at = INT64_MAX;
  lose_inbox(node, -1);
  for (int32_t at = std::exchange(n.batch, -1); at >= 0;) {
    const auto number = static_cast<uint32_t>(at);
    at = parcels_[number].next;
    free_parcel(number);
  }
  for (Parcel& p : parcels_) {  // a stream's place is freed when it is come across
    if (is_stream(p) && p.via >= 0 && links_[p.via].from == node) p.ticket = -1;
  }
}

void VirtualCluster::node_up(int32_t node) {
  Node& n = nodes_[node];
  if (n.up) return;
  lose_inbox(node, -1);  // what came while it was away
  n.up = true;
  n.times.away_ns += now() - n.down_at;
  const HelixNode& spec = input_.nodes[node];
  events_.push(now() + ns(input_.layer_bytes * spec.layers.size() / spec.disk),
               {Kind::kLoaded, 0, node, n.generation});
}

void VirtualCluster::hang(int32_t node) {
  if (!nodes_[node].up) return;
  settle(node);
  nodes_[node].hung = true;
}

void VirtualCluster::go_on(int32_t node) {
  Node& n = nodes_[node];
  if (!n.hung) return;
  n.hung = false;
  if (std::exchange(n.done_while_hung, false)) {
    finish_batch(node);
  } else {
    start_batch(node);
  }
}

void VirtualCluster::link_down(int32_t link) {
  Link& l = links_[link];
  if (!l.up) return;
  l.up = l.busy = false;
  l.free_at = 0;
  ++l.generation;  // what is on it, or under way behind it, is lost
  for (int32_t at = l.queue.first; at >= 0;) {
    const auto number = static_cast<uint32_t>(at);
    at = parcels_[number].next;
    is_stream(parcels_[number]) ? held_.push_back(number) : free_parcel(number);
  }
  l.queue = {};
  if (l.to < 0) return;
  settle(l.to);
  lose_inbox(l.to, link);
}

void VirtualCluster::link_up(int32_t link) {
  links_[link].up = true;
  for (const uint32_t number : std::exchange(held_, {})) {
    if (parcels_[number].dead()) {
      free_parcel(number);
    } else if (parcels_[number].via == link) {
      enter_link(number);
    } else {
      held_.push_back(number);
    }
  }
}

void VirtualCluster::set_bandwidth(int32_t link, double bytes_per_second) {
  links_[link].bandwidth = bytes_per_second;
  network_.set_capacity(now(), resource_of(link), bytes_per_second);
  flows_changed();
}

}  // namespace towline::sim
