// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// StageEngine: KV caches on the network, from prompt nodes to decode nodes, and to replicas.
#include <algorithm>
#include <utility>

#include "sim/stage_state.hpp"

namespace towline::sim {

void StageEngine::State::find_kv_links() {
  report.link_kv_bytes.assign(input.links.size(), 0.0);
  for (size_t i = 0; i < input.links.size(); ++i) {
    const HelixLink& link = input.links[i];
    if (link.from >= 0 && link.to >= 0) kv_links.emplace(std::pair(link.from, link.to), i);
  }
  for (const HelixNode& node : input.nodes) {
    roles |= node.role != policy::NodeRole::kBoth;
    replicas |= node.replica >= 0;
  }
}

// What the nodes computed since the last look goes on its way.
void StageEngine::State::stages_done() {
  for (const VirtualCluster::StageDone& stage : std::exchange(cluster.stages(), {})) {
    if (stage.ticket < 0) continue;
    const double each = stage.layers.size() * input.kv_bytes;
    if (const int32_t replica = input.nodes[stage.node].replica; replica >= 0) {
      stream(kv_links.at({stage.node, replica}), stage.rows * each, 0, {-1, 0, cluster.now()});
    }
    if (!roles || !options.stream_layers) continue;
    const policy::Step& step = host->flight(stage.ticket);
    if (host->lane(step.lane).decodes) continue;
    for (const policy::StepEntry& entry : step.entries) {
      const LaneId decode = host->decode_lane(RequestId(entry.seq.value));
      if (decode.value < 0) continue;
      stream_rows(static_cast<uint32_t>(entry.seq.value), host->lane(decode).pipeline, stage.node,
                  stage.layers, entry.to - entry.from, stage.seconds);
    }
  }
}

// The rows' KV of these layers, computed in so many seconds, to each node that will decode on some.
void StageEngine::State::stream_rows(uint32_t slot, const policy::Pipeline& decode_way,
                                     int32_t node, LayerRange layers, int64_t rows,
                                     double seconds) {
  for (const policy::Hop& hop : decode_way) {
    const LayerRange both = {std::max(hop.layers.begin, layers.begin),
                             std::min(hop.layers.end, layers.end)};
    if (hop.node == policy::kSinkNode || both.empty()) continue;
    KvMove& move = moves[slot];
    ++move.streams;
    const double bytes = static_cast<double>(rows) * both.size() * input.kv_bytes;
    report.kv_moved_bytes += bytes;
    // All layers but the last could go while the next ones were computed.
    const double before = seconds * (layers.size() - 1) / layers.size();
    const int32_t link = kv_links.at({node, hop.node});
    const double hidden = std::min(before * input.links[link].bandwidth,
                                   bytes * (both.size() - 1) / both.size());
    stream(link, bytes, hidden, {static_cast<int32_t>(slot), move.attempt, cluster.now()});
  }
}

// `hidden`: bytes that have left already, behind the computing.
void StageEngine::State::stream(int32_t link, double bytes, double hidden, KvStream what) {
  uint32_t number;
  if (free_streams.empty()) {
    number = static_cast<uint32_t>(streams.size());
    streams.emplace_back();
  } else {
    number = free_streams.back();
    free_streams.pop_back();
  }
  streams[number] = what;
  cluster.count_bytes(link, hidden);
  report.link_kv_bytes[link] += bytes;
  if (what.slot < 0) report.replica_bytes += bytes;
  cluster.stream(link, static_cast<int64_t>(bytes - hidden), number);
}

void StageEngine::State::streamed(uint32_t number) {
  const KvStream what = streams[number];
  free_streams.push_back(number);
  if (what.slot < 0) return replica_lag.add(cluster.now() - what.since);
  KvMove& move = moves[static_cast<size_t>(what.slot)];
  if (move.attempt != what.attempt) return;
  --move.streams;
  if (move.streams == 0 && move.done_at >= 0) kv_there(static_cast<uint32_t>(what.slot));
}

// The host: the prompt is done.
void StageEngine::State::hand_over(uint32_t slot, LaneId lane) {
  KvMove& move = moves[slot];
  const policy::Pipeline& from = host->prompt_way(RequestId(slot));
  const policy::Pipeline& to = host->lane(lane).pipeline;
  move.prompt_way = from;
  move.done_at = cluster.now();
  ++report.kv_moves;
  if (!options.stream_layers) {
    const int64_t rows = counts[slot].input + counts[slot].produced - 1;
    for (const policy::Hop& hop : from) {
      if (hop.node != policy::kSinkNode) stream_rows(slot, to, hop.node, hop.layers, rows, 0);
    }
  }
  // Not from within the host's actions.
  if (move.streams == 0) call_at(cluster.now(), StageEvent::kKvThere, slot);
}

void StageEngine::State::kv_there(uint32_t slot) {
  KvMove& move = moves[slot];
  if (move.done_at < 0 || move.streams > 0) return;  // displaced meanwhile
  kv_waits.push_back(static_cast<double>(cluster.now() - move.done_at) * 1e-9);
  kv_void(slot);
  tell(policy::KvArrived{RequestId(slot), false});
}

// What is still on its way for this request does not count any more.
void StageEngine::State::kv_void(uint32_t slot) {
  if (slot >= moves.size()) return;
  KvMove& move = moves[slot];
  ++move.attempt;
  move.streams = 0;
  move.done_at = -1;
  move.prompt_way.clear();
}

// A prompt node is known to be lost, and the caches with it that had not left it.
void StageEngine::State::kv_lost_with(int32_t node) {
  for (size_t slot = 0; slot < moves.size(); ++slot) {
    const KvMove& move = moves[slot];
    const bool there = std::ranges::any_of(
        move.prompt_way, [&](const policy::Hop& hop) { return hop.node == node; });
    if (move.done_at < 0 || !there) continue;
    kv_void(static_cast<uint32_t>(slot));
    tell(policy::KvArrived{RequestId(static_cast<int64_t>(slot)), true});
  }
}

}  // namespace towline::sim
