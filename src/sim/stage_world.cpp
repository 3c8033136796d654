// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// StageEngine: planning on what is left of the cluster, disturbances, and the report.
#include <algorithm>
#include <limits>

#include "base/check.hpp"
#include "sim/helix_load.hpp"
#include "sim/stage_state.hpp"

namespace towline::sim {

using policy::kSinkNode;
using policy::kSourceNode;

constexpr double kMinimumShare = 1e-6;  // of a node's flow: less is rounding

// Maximum flow over the nodes and links that are known to be up. Requests under way keep their
// pipelines; only new ones follow the new weights.
void StageEngine::State::plan() {
  HelixInput left = input;
  left.links.clear();
  planned_links.clear();
  const auto usable = [&](int32_t place) {
    return place < 0 || (node_known_up[place] && !input.nodes[place].layers.empty());
  };
  for (size_t i = 0; i < input.nodes.size(); ++i) {
    if (!node_known_up[i]) left.nodes[i].layers = {};
  }
  for (size_t i = 0; i < input.links.size(); ++i) {
    const HelixLink& link = input.links[i];
    if (!link_known_up[i] || !usable(link.from) || !usable(link.to)) continue;
    left.links.push_back(link);
    planned_links.push_back(static_cast<int32_t>(i));
  }
  plan_flow(left);
  max_flow = left.max_flow;
  ++epoch;
  ++report.replans;
  router.reset();
  if (!(left.max_flow > 0)) return;
  std::vector<LayerRange> layers;
  std::vector<policy::RouteLink> links;
  for (const HelixNode& node : left.nodes) layers.push_back(node.layers);
  for (const HelixLink& link : left.links) links.push_back({link.from, link.to});
  auto map = policy::RouteMap::make(input.total_layers, std::move(layers), std::move(links));
  if (!map) {
    fault = std::move(map).error();
    return;
  }
  // Prompts are cut into chunks, so no node refuses one for its length. Helix never uses links of
  // less than 5 % of their origin's flow; with more than 20 links that could be all of them.
  router.emplace(std::move(map).value(), left.flow,
                 std::vector<int32_t>(input.nodes.size(), std::numeric_limits<int32_t>::max()),
                 kMinimumShare);
}

void StageEngine::State::disturb(const Disturbance& d) {
  const auto number = static_cast<uint32_t>(&d - options.disturbances.data());
  const auto notice_later = [&] {
    events.push(events.now() + ns(options.detect_seconds), {Kind::kDetected, d.target, number});
  };
  switch (d.kind) {
    case DisturbanceKind::kSlow:
      nodes[d.target].slowness = d.factor;
      return;
    case DisturbanceKind::kCrash: {
      StageNode& n = nodes[d.target];
      if (!n.up) return;
      if (n.busy) n.busy_ns += events.now() - n.batch_begin;
      n.up = n.ready = n.busy = false;
      ++n.generation;
      n.decodes.clear();
      n.prompts.clear();
      n.batch.clear();
      return notice_later();
    }
    case DisturbanceKind::kRejoin: {
      StageNode& n = nodes[d.target];
      if (n.up) return;
      if (node_known_up[d.target]) detected({d.at, DisturbanceKind::kCrash, d.target, 1});
      n.up = true;
      const HelixNode& spec = input.nodes[d.target];
      const double load = input.layer_bytes * spec.layers.size() / spec.disk;
      events.push(events.now() + ns(load), {Kind::kReady, d.target, n.generation});
      return;
    }
    case DisturbanceKind::kLinkDown:
      if (!link_up[d.target]) return;
      link_up[d.target] = false;
      ++link_generation[d.target];
      return notice_later();
    case DisturbanceKind::kLinkUp:
      if (link_up[d.target]) return;
      if (link_known_up[d.target]) detected({d.at, DisturbanceKind::kLinkDown, d.target, 1});
      link_up[d.target] = link_known_up[d.target] = true;
      plan();
      return admit_waiting();
  }
}

void StageEngine::State::detected(const Disturbance& d) {
  const bool link = d.kind == DisturbanceKind::kLinkDown;
  std::vector<bool>& known = link ? link_known_up : node_known_up;
  // Already noticed, or back again before it was (then the return noticed it).
  if (!known[d.target] || (link ? link_up[d.target] : nodes[d.target].up)) return;
  known[d.target] = false;
  std::vector<uint32_t> hit;
  for (uint32_t slot = 0; slot < requests.size(); ++slot) {
    const StageRequest& r = requests[slot];
    if (!r.used || !r.admitted) continue;
    const bool through = std::any_of(r.pipeline.begin(), r.pipeline.end(), [&](const auto& hop) {
      return link ? hop.link == d.target : hop.node == d.target;
    });
    if (through) hit.push_back(slot);
  }
  // restart() puts each at the head of the queue: the youngest first, so that the oldest leads.
  std::sort(hit.begin(), hit.end(), [&](uint32_t a, uint32_t b) {
    return requests[a].record.id > requests[b].record.id;
  });
  for (const uint32_t slot : hit) restart(slot);
  plan();
  admit_waiting();
}

void StageEngine::State::node_ready(int32_t node) {
  nodes[node].ready = true;
  node_known_up[node] = true;
  plan();
  admit_waiting();
}

void StageEngine::State::count_time() {
  system_time += static_cast<double>(in_system) * static_cast<double>(events.now() - last_count);
  last_count = events.now();
}

void StageEngine::State::sample() {
  report.samples.push_back({seconds(), active, static_cast<int64_t>(waiting.size()),
                            static_cast<double>(sampled_output) / options.sample_seconds,
                            ledger.real_bottleneck()});
  sampled_output = 0;
  if (events.empty()) return;  // nothing else will ever happen
  events.push(events.now() + ns(options.sample_seconds), {Kind::kSample, 0, 0});
}

// Conservation: every request ended once or is still here, and nobody holds KV for nobody.
void StageEngine::State::check_books() const {
  CHECK(report.arrived == report.finished + report.rejected + report.failed + in_system,
        report.arrived, report.finished, report.rejected, report.failed, in_system);
  std::vector<int64_t> held(input.nodes.size(), 0);
  int64_t output = 0;
  for (const StageRequest& r : requests) {
    if (!r.used) continue;
    output += r.produced;
    if (!r.admitted) continue;
    for (size_t h = 0; h < r.pipeline.size(); ++h) {
      if (r.pipeline[h].node == kSinkNode) continue;
      held[r.pipeline[h].node] += int64_t{r.kv[h]} * r.pipeline[h].layers.size();
    }
  }
  for (size_t i = 0; i < held.size(); ++i) {
    const int64_t used = ledger.real_used(static_cast<int32_t>(i));
    CHECK(used == held[i], i, used, held[i]);
    CHECK(in_system > 0 || ledger.expected_used(static_cast<int32_t>(i)) == 0, i);
  }
  CHECK(output <= report.output_tokens, output, report.output_tokens);
}

StageReport StageEngine::State::make_report(bool interrupted) {
  count_time();
  check_books();
  report.interrupted = interrupted;
  report.ended = seconds();
  report.max_flow = max_flow;
  report.unfinished = in_system;
  const double begin = report.started + options.window_begin;
  const double end = options.window_end > 0
                         ? std::min(report.started + options.window_end, report.ended)
                         : report.ended;
  if (end > begin) {
    report.output_tps = static_cast<double>(window_output) / (end - begin);
    report.prompt_tps = static_cast<double>(window_prompt) / (end - begin);
  }
  const double total = report.ended - report.started;
  if (total > 0) {
    report.goodput = static_cast<double>(within_goals) / total;
    report.mean_in_system = system_time * 1e-9 / total;
  }
  if (report.finished > 0) {
    report.attainment = static_cast<double>(within_goals) / static_cast<double>(report.finished);
  }
  report.ttft = percentiles_of(ttft);
  report.tpot = percentiles_of(tpot);
  report.e2e = percentiles_of(e2e);
  report.queueing = percentiles_of(queueing);
  report.itl = itl.percentiles();
  for (const StageNode& n : nodes) {
    report.node_busy.push_back(total > 0 ? static_cast<double>(n.busy_ns) * 1e-9 / total : 0);
  }
  return std::move(report);
}

}  // namespace towline::sim
