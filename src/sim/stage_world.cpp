// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// StageEngine: planning on what is left of the cluster, disturbances, and the report.
#include <algorithm>
#include <utility>

#include "base/check.hpp"
#include "sim/helix_load.hpp"
#include "sim/path_flow.hpp"
#include "sim/stage_state.hpp"

namespace towline::sim {

policy::HostOptions StageEngine::State::host_options() const {
  if (options.host) {
    policy::HostOptions given = *options.host;
    given.total_layers = input.total_layers;
    given.seed = options.seed;
    given.fast_forward = options.fast_forward;
    given.batching.chunk_tokens = options.chunk_tokens;
    given.batching.prefix_cache = options.prefix_cache;
    return given;
  }
  policy::HostOptions o;
  o.total_layers = input.total_layers;
  o.router = options.router;
  o.seed = options.seed;
  o.estimator = options.estimator;
  o.admission.waiting = options.queue_limit;
  if (options.places > 0) o.admission.placed = options.places;
  o.depth = options.depth;
  o.fast_forward = options.fast_forward;
  o.batching.step_tokens = options.prompt_budget;
  o.batching.chunk_tokens = options.chunk_tokens;
  o.batching.sequences =
      options.sequences > 0 ? options.sequences : std::numeric_limits<int32_t>::max();
  o.batching.prefix_cache = options.prefix_cache;
  o.batching.spare_blocks = options.spare_blocks;
  // The chunks of a prompt follow each other through the pipeline.
  o.batching.ahead = std::max(input.total_layers, options.depth);
  return o;
}

// Maximum flow over the nodes and links that are known to be up; those that are drained carry none,
// but who is on them may go on.
policy::HostPlan StageEngine::State::plan() {
  if (left.nodes.empty()) left = input;
  left.links.clear();
  std::vector<int32_t> ids, closed;
  std::vector<double> before;
  ids.reserve(input.links.size());
  before.reserve(input.links.size());
  const auto drained = [&](int32_t place) { return place >= 0 && draining[place]; };
  const auto usable = [&](int32_t place) {
    return place < 0 || (node_known_up[place] && !input.nodes[place].layers.empty());
  };
  for (size_t i = 0; i < input.links.size(); ++i) {
    const HelixLink& link = input.links[i];
    if (link.kv_only || !link_known_up[i] || !usable(link.from) || !usable(link.to)) continue;
    if (drained(link.from) || drained(link.to)) {
      closed.push_back(static_cast<int32_t>(i));
      continue;
    }
    left.links.push_back(link);
    ids.push_back(static_cast<int32_t>(i));
    before.push_back(flow[i]);
  }
  for (size_t i = 0; i < input.nodes.size(); ++i) {
    left.nodes[i].layers = node_known_up[i] ? input.nodes[i].layers : LayerRange();
  }
  if (roles) {
    plan_roles();
  } else {
    plan_flow(left);
    if (options.few_ways) keep_to_few_ways(left, before);
  }
  max_flow = left.max_flow;
  ++report.replans;
  policy::HostPlan plan;
  plan.links.resize(left.links.size());
  for (size_t i = 0; i < left.nodes.size(); ++i) {
    // Prompts are cut into chunks, so no node refuses one for its length.
    policy::HostNode node;
    node.layers = left.nodes[i].layers;
    node.kv_capacity = left.nodes[i].kv_capacity;
    node.incarnation = incarnation[i];
    node.role = left.nodes[i].role;
    plan.nodes.push_back(node);
  }
  std::fill(flow.begin(), flow.end(), 0.0);
  for (size_t i = 0; i < left.links.size(); ++i) {
    plan.links[i] = {ids[i], left.links[i].from, left.links[i].to, left.flow[i], false};
    flow[ids[i]] = left.flow[i];
  }
  for (const int32_t i : closed) {
    plan.links.push_back({i, input.links[i].from, input.links[i].to, 0, true});
  }
  if (!closed.empty()) std::ranges::sort(plan.links, {}, &policy::HostLink::id);
  return plan;
}

// Prompts and decodes flow apart; the flow that counts is that of outputs.
void StageEngine::State::plan_roles() {
  left.flow.assign(left.links.size(), 0.0);
  for (const policy::NodeRole role : {policy::NodeRole::kPrompt, policy::NodeRole::kDecode}) {
    HelixInput side = left;
    side.links.clear();
    std::vector<size_t> which;
    const auto belongs = [&](int32_t place) { return place < 0 || left.nodes[place].role == role; };
    for (HelixNode& node : side.nodes) {
      if (node.role != role) node.layers = {};
    }
    for (size_t i = 0; i < left.links.size(); ++i) {
      if (!belongs(left.links[i].from) || !belongs(left.links[i].to)) continue;
      side.links.push_back(left.links[i]);
      which.push_back(i);
    }
    plan_flow(side);
    for (size_t i = 0; i < which.size(); ++i) left.flow[which[i]] = side.flow[i];
    left.max_flow = side.max_flow;
  }
}

void StageEngine::State::replan() { tell(plan()); }

// They come before whatever else happens at their instant. Of those after the start only one is in
// the queue at a time, which is the shorter for it.
void StageEngine::State::await_disturbances() {
  const int64_t start = ns(report.started);
  while (next_disturbance < options.disturbances.size()) {
    const size_t number = next_disturbance++;
    const int64_t when = ns(report.started + options.disturbances[number].at);
    if (when > start) {
      return cluster.call_at_as_of(start, when, static_cast<uint8_t>(StageEvent::kDisturbance),
                                   static_cast<uint32_t>(number));
    }
    call_at(when, StageEvent::kDisturbance, number);
  }
}

void StageEngine::State::disturb(const Disturbance& d, uint32_t number) {
  const auto notice_later = [&] {
    call_at(cluster.now() + ns(options.detect_seconds), StageEvent::kDetected, number);
  };
  switch (d.kind) {
    case DisturbanceKind::kSlow:
      return cluster.set_slowness(d.target, d.factor);
    case DisturbanceKind::kCrash:
      if (!cluster.is_up(d.target)) return;
      cluster.node_down(d.target);
      return notice_later();
    case DisturbanceKind::kReclaim:
      if (!cluster.is_up(d.target)) return;
      cluster.node_down(d.target);
      return detected(d);
    case DisturbanceKind::kDrain:
      if (!node_known_up[d.target] || draining[d.target]) return;
      draining[d.target] = true;
      return replan();
    case DisturbanceKind::kHang:
      if (!cluster.is_up(d.target) || cluster.is_hung(d.target)) return;
      cluster.hang(d.target);
      return notice_later();
    case DisturbanceKind::kResume:
      if (!cluster.is_hung(d.target)) return;
      cluster.go_on(d.target);
      if (node_known_up[d.target]) return;  // before anybody noticed
      node_known_up[d.target] = true;
      ++incarnation[d.target];
      return replan();
    case DisturbanceKind::kBandwidth:
      return cluster.set_bandwidth(d.target, input.links[d.target].bandwidth * d.factor);
    case DisturbanceKind::kLatency:
      return cluster.set_latency(d.target, input.links[d.target].latency * d.factor);
    case DisturbanceKind::kRejoin:
      if (cluster.is_up(d.target)) return;
      if (node_known_up[d.target]) detected({d.at, DisturbanceKind::kCrash, d.target, 1});
      return cluster.node_up(d.target);
    case DisturbanceKind::kLinkDown:
      if (!cluster.is_link_up(d.target)) return;
      cluster.link_down(d.target);
      return notice_later();
    case DisturbanceKind::kLinkUp:
      if (cluster.is_link_up(d.target)) return;
      if (link_known_up[d.target]) detected({d.at, DisturbanceKind::kLinkDown, d.target, 1});
      cluster.link_up(d.target);
      link_known_up[d.target] = true;
      return replan();
  }
}

void StageEngine::State::detected(const Disturbance& d) {
  const bool link = d.kind == DisturbanceKind::kLinkDown;
  std::vector<bool>& known = link ? link_known_up : node_known_up;
  // Already noticed, or back again before it was (then the return noticed it).
  const bool up = link ? cluster.is_link_up(d.target)
                       : cluster.is_up(d.target) && !cluster.is_hung(d.target);
  if (!known[d.target] || up) return;
  known[d.target] = false;
  replan();
  if (!link && roles) kv_lost_with(d.target);
}

void StageEngine::State::count_time() {
  system_time += static_cast<double>(in_system) * static_cast<double>(cluster.now() - last_count);
  last_count = cluster.now();
}

void StageEngine::State::sample_nodes() {
  const bool first = sampled_busy.empty();
  sampled_busy.resize(input.nodes.size(), 0);
  std::vector<float> busy, kv;
  for (size_t i = 0; i < input.nodes.size(); ++i) {
    const int64_t now = cluster.times(static_cast<int32_t>(i)).busy_ns;
    const int64_t did = now - std::exchange(sampled_busy[i], now);
    busy.push_back(static_cast<float>(static_cast<double>(did) * 1e-9 / options.sample_seconds));
    const policy::BlockLedger& pool = host->batcher().ledger(static_cast<int32_t>(i));
    kv.push_back(
        pool.total() > 0 ? static_cast<float>(pool.held()) / static_cast<float>(pool.total()) : 0);
  }
  if (!first) report.timeline.add(seconds(), options.sample_seconds, busy, kv);
}

void StageEngine::State::sample() {
  report.samples.push_back({seconds(), host->admission().placed(), host->admission().waiting(),
                            static_cast<double>(sampled_output) / options.sample_seconds,
                            host->real_pressure()});
  sampled_output = 0;
  sample_nodes();
  if (options.on_sample) options.on_sample({seconds(), input, cluster, *host});
  if (cluster.quiet()) return;  // nothing else will ever happen
  call_at(cluster.now() + ns(options.sample_seconds), StageEvent::kSample);
}

// Conservation: every request ended once or is still here, and nobody holds KV for nobody.
void StageEngine::State::check_books() const {
  CHECK(report.arrived == report.finished + report.rejected + report.failed + in_system,
        report.arrived, report.finished, report.rejected, report.failed, in_system);
  CHECK(host->unfinished() == in_system, host->unfinished(), in_system);
  host->check_invariants();
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
  report.first_token = percentiles_of(first_tokens);
  report.tpot = percentiles_of(tpot);
  report.e2e = percentiles_of(e2e);
  report.queueing = percentiles_of(queueing);
  report.ttft_curve = quantile_curve(ttft);
  report.tpot_curve = quantile_curve(tpot);
  report.e2e_curve = quantile_curve(e2e);
  report.kv_wait = percentiles_of(kv_waits);
  report.replica_lag = replica_lag.percentiles();
  report.itl = itl.percentiles();
  report.batches = cluster.batches();
  report.events = cluster.events();
  report.out_of_profile = cluster.cost().out_of_profile();
  report.digest = digest.value();
  for (StepOnWay& step : steps) catch_up(step);
  int64_t needed = needed_rows;
  for (size_t slot = 0; slot < requests.size(); ++slot) {
    const TokenCount& count = counts[slot];
    if (requests[slot].used && count.produced > 0) needed += count.input + count.produced - 1;
  }
  report.cached_tokens = host->batcher().counters().prefix_hits;
  report.recomputed_tokens =
      std::max<int64_t>(host->batcher().counters().evaluated - needed, 0);
  for (size_t i = 0; i < input.nodes.size(); ++i) {
    const double busy = static_cast<double>(cluster.times(static_cast<int32_t>(i)).busy_ns) * 1e-9;
    report.node_busy.push_back(total > 0 ? busy / total : 0);
    const double away = static_cast<double>(cluster.times(static_cast<int32_t>(i)).away_ns) * 1e-9;
    report.machine_cost += input.nodes[i].price * std::max(total - away, 0.0) / 3600;
  }
  for (size_t i = 0; i < input.links.size(); ++i) {
    const double bytes = cluster.link_bytes(static_cast<int32_t>(i));
    report.link_bytes.push_back(bytes);
    report.egress_cost += input.links[i].price * bytes * 1e-9;
  }
  return std::move(report);
}

}  // namespace towline::sim
