// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/helix_engine.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/fmt.hpp"
#include "sim/helix_state.hpp"

namespace towline::sim {
namespace {

using policy::kSinkNode;
using policy::kSourceNode;

// Host-side cost of gathering a stage's inputs: one concatenation and one copy to the device.
constexpr double kConcatBytesPerSecond = 4e9;
constexpr double kCopyBytesPerSecond = 5e9;

policy::RouteMap make_map(const HelixInput& input) {
  std::vector<LayerRange> layers;
  std::vector<policy::RouteLink> links;
  for (const HelixNode& node : input.nodes) layers.push_back(node.layers);
  for (const HelixLink& link : input.links) links.push_back({link.from, link.to});
  auto map = policy::RouteMap::make(input.total_layers, std::move(layers), std::move(links));
  return std::move(map).value();  // make() checked it
}

policy::KvLedger make_ledger(const HelixInput& input, const policy::KvEstimator& estimator) {
  std::vector<policy::KvLedger::Node> nodes;
  for (const HelixNode& node : input.nodes) nodes.push_back({node.layers, node.kv_capacity});
  return policy::KvLedger(std::move(nodes), input.total_layers, estimator);
}

// The percentile as the reference's analysis takes it: the element at
// int(p * n) of the sorted list.
LatencySummary summarise(std::vector<double>& latencies) {
  LatencySummary s;
  s.count = static_cast<int64_t>(latencies.size());
  if (latencies.empty()) return s;
  double sum = 0;
  for (const double x : latencies) sum += x;  // in order of finishing, before sorting
  s.mean = sum / static_cast<double>(s.count);
  std::sort(latencies.begin(), latencies.end());
  const auto at = [&](double p) {
    return latencies[static_cast<size_t>(p * static_cast<double>(latencies.size()))];
  };
  s.p5 = at(0.05);
  s.p50 = at(0.50);
  s.p95 = at(0.95);
  s.p99 = at(0.99);
  return s;
}

Result<void> check_input(const HelixInput& input, const HelixOptions& options) {
  const auto bad = [](std::string text) { return Error(Code::kInvalidArgument, std::move(text)); };
  if (input.nodes.empty()) return bad("the cluster has no compute node");
  std::vector<LayerRange> layers;
  std::vector<policy::RouteLink> links;
  for (const HelixNode& node : input.nodes) {
    layers.push_back(node.layers);
    if (node.layers.empty()) continue;
    if (!(node.disk > 0 && node.nic_in > 0 && node.nic_out > 0)) {
      return bad(format("node {}: disk and NIC speeds must be positive", node.name));
    }
  }
  for (const HelixLink& link : input.links) {
    links.push_back({link.from, link.to});
    if (!(link.bandwidth > 0) || !(link.latency >= 0)) {
      return bad(format("link {} to {}: bandwidth must be positive and latency not negative",
                        link.from, link.to));
    }
  }
  auto map = policy::RouteMap::make(input.total_layers, std::move(layers), std::move(links));
  if (!map) return std::move(map).error();
  for (int32_t node = -1; node < map->nodes(); ++node) {
    // The planned flow leads nobody into a dead end; the other routers would.
    if (node != kSourceNode && options.router == HelixRouter::kMaxFlow) break;
    const bool reached = node == kSourceNode ||
                         std::any_of(map->links.begin(), map->links.end(),
                                     [&](const policy::RouteLink& l) { return l.to == node; });
    if (reached && map->links_from(node).empty()) {
      return bad(format("node {} has no outgoing link: a request that comes there cannot go on",
                        node == kSourceNode ? "source" : input.nodes[node].name));
    }
  }
  if (options.router == HelixRouter::kMaxFlow && input.flow.size() != input.links.size()) {
    return bad("the max-flow router needs the planned flow of every link");
  }
  return {};
}

}  // namespace

HelixEngine::State::State(HelixInput in, HelixOptions opt, HelixTraffic work)
    : input(std::move(in)), options(opt), traffic(std::move(work)), map(make_map(input)),
      ledger(make_ledger(input, options.estimator)), random(options.seed) {
  senders.resize(input.nodes.size() + 1);
  for (size_t i = 0; i < senders.size(); ++i) {
    HelixSender& s = senders[i];
    s.links = map.out[i];
    s.nic = s.free = i == 0 ? input.coordinator_nic_out : input.nodes[i - 1].nic_out;
  }
  nodes.resize(input.nodes.size());
  for (size_t i = 0; i < nodes.size(); ++i) {
    nodes[i].queues.resize(static_cast<size_t>(input.nodes[i].layers.size()));
    nodes[i].nic_in_free = input.nodes[i].nic_in;
  }
  sink_free = input.coordinator_nic_in;
  links.resize(input.links.size());
  for (size_t i = 0; i < links.size(); ++i) links[i].free = input.links[i].bandwidth;
  if (options.router == HelixRouter::kMaxFlow) {
    std::vector<int32_t> longest;
    for (const HelixNode& node : input.nodes) longest.push_back(node.limits.prompt_tokens);
    flow_router.emplace(map, input.flow, std::move(longest));
    plan_bandwidth();
  } else if (options.router == HelixRouter::kSwarm) {
    swarm_router.emplace(map, policy::SwarmOptions{});
  }
}

Result<HelixEngine> HelixEngine::make(HelixInput input, HelixOptions options,
                                      HelixTraffic traffic) {
  TRY(check_input(input, options));
  if (traffic.lengths.empty()) {
    return Error(Code::kInvalidArgument, "the list of lengths is empty");
  }
  if (options.online && traffic.arrivals.empty()) {
    return Error(Code::kInvalidArgument, "online mode needs a list of arrivals");
  }
  return HelixEngine(
      std::make_unique<State>(std::move(input), std::move(options), std::move(traffic)));
}

HelixEngine::HelixEngine(std::unique_ptr<State> state) : state_(std::move(state)) {}
HelixEngine::HelixEngine(HelixEngine&&) noexcept = default;
HelixEngine& HelixEngine::operator=(HelixEngine&&) noexcept = default;
HelixEngine::~HelixEngine() = default;

Result<HelixReport> HelixEngine::run(const Watcher& watcher, const std::atomic<bool>* stop) {
  State& s = *state_;
  HelixReport& report = s.report;
  s.stop = stop;
  report.started = s.load_models();
  s.watcher = watcher ? &watcher : nullptr;  // loading is not shown
  report.window_begin = report.started + s.options.warm_up;
  report.window_end = report.window_begin + s.options.duration;
  bool complete = false;
  if (s.options.online) {
    s.generate_trace();
    complete = s.feed_online();
  } else {
    s.feed_initial();
    complete = s.simulate(report.started + (s.options.warm_up + s.options.duration));
  }
  if (s.fault) return *std::move(s.fault);
  report.interrupted = !complete;
  report.prompt = summarise(s.prompt_latencies);
  report.decode = summarise(s.decode_latencies);
  report.decode_tps = static_cast<double>(report.decode.count) / s.options.duration;
  report.active = static_cast<int64_t>(s.queries.size() - s.free_queries.size());
  if (report.last_finished > 0) {
    report.total_tps = static_cast<double>(report.total_tokens) / report.last_finished;
  }
  if (s.all_decodes > 0) {
    report.decode_compute = s.sum_compute / static_cast<double>(s.all_decodes);
    report.decode_network = s.sum_network / static_cast<double>(s.all_decodes);
  }
  return std::move(report);
}

// Every node loads its layers from its disk at time 0. Returns when serving starts: a full second
// after the last is ready.
double HelixEngine::State::load_models() {
  double longest = 0;
  for (int32_t i = 0; i < static_cast<int32_t>(input.nodes.size()); ++i) {
    const HelixNode& node = input.nodes[i];
    if (node.layers.empty()) continue;
    push(0, Kind::kLoadModel, i);
    longest = std::max(longest, input.layer_bytes * node.layers.size() / node.disk);
  }
  const double start = std::ceil(longest) + 1;
  simulate(start);
  return start;
}

// Runs all events before `until`; the clock then stands at `until` (or, without a limit, stays).
bool HelixEngine::State::simulate(double until) {
  int64_t steps = 0;
  while (!events.empty()) {
    const double next = events.next_time();
    if (next >= until) break;
    if (watcher != nullptr) look(next);
    handle(events.pop());
    if (fault) return false;
    if ((++steps & 0xfff) == 0 && stop != nullptr && stop->load(std::memory_order_relaxed)) {
      return false;
    }
  }
  if (std::isfinite(until)) events.advance(until);
  return true;
}

void HelixEngine::State::look(double next_event) {
  const double interval = options.watch_interval;
  const double now = events.now();
  if (!(interval > 0) || last_look == now) return;
  if (!(std::ceil(now / interval) * interval <= next_event)) return;
  last_look = now;
  (*watcher)(HelixView{now, next_event, active, report.finished_queries, input, ledger,
                       flow_router.has_value(), report.events.new_request > 0});
}

void HelixEngine::State::handle(const Event& event) {
  HelixEventCounts& count = report.events;
  switch (event.kind) {
    case Kind::kNewRequest:
      ++count.new_request;
      return new_request(event.query);
    case Kind::kLoadModel:
      ++count.load_model;
      return push_now(Kind::kStartLoading, event.where);
    case Kind::kStartLoading: {
      ++count.start_loading;
      const HelixNode& node = input.nodes[event.where];
      return push(events.now() + input.layer_bytes * node.layers.size() / node.disk,
                  Kind::kFinishLoading, event.where);
    }
    case Kind::kFinishLoading:
      ++count.finish_loading;
      return push_now(Kind::kStartExecution, event.where);
    case Kind::kStartTransmission:
      ++count.start_transmission;
      return start_transmission(event.where);
    case Kind::kFinishSending:
      ++count.finish_sending;
      return finish_sending(event.where, event.query);
    case Kind::kFinishTransmission:
      ++count.finish_transmission;
      return finish_transmission(event.where, event.query);
    case Kind::kGather:
      ++count.gather_finished;
      return gather();
    case Kind::kStartExecution:
      ++count.start_execution;
      return start_execution(event.where);
    case Kind::kFinishExecution:
      if (event.query != nodes[event.where].generation) return;  // it stopped earlier
      ++count.finish_execution;
      return finish_execution(event.where);
  }
}

void HelixEngine::State::new_request(uint32_t query) {
  HelixQuery& q = queries[query];
  if (flow_router) {
    if (!q.prompt()) {
      flow_router->charge_decode(q.route);
    } else if (!flow_router->route(q.input, ledger, q.route)) {
      const std::string_view reason = flow_router->last_refusal().main_reason();
      ++report.rejected;
      report.rejected_by_kv += reason == "kv";
      report.rejected_by_length += reason == "length";
      report.rejected_by_flow += reason == "flow";
      free_queries.push_back(query);
      return;
    }
  }
  ++active;
  enter_outbound(kSourceNode, query);
  if (!sends_ahead()) push_now(Kind::kStartTransmission, kSourceNode);
}

void HelixEngine::State::gather() {
  // Finishing one may issue others, but nothing reaches the sink meanwhile.
  for (const uint32_t query : at_sink) finish_iteration(query);
  at_sink.clear();
}

void HelixEngine::State::record(const HelixQuery& q) {
  const double now = events.now();
  const double latency = now - q.created;
  report.last_finished = now;
  report.total_tokens += q.tokens();
  if (!q.prompt()) {
    sum_compute += q.compute;
    sum_network += q.network;
    ++all_decodes;
  }
  if (report.window_begin <= now && now <= report.window_end) {
    (q.prompt() ? prompt_latencies : decode_latencies).push_back(latency);
  }
  if (static_cast<int64_t>(report.finished.size()) < options.finished_limit) {
    report.finished.push_back({q.request, q.uid, q.prompt(), q.tokens(), q.context, now, latency});
  }
}

void HelixEngine::State::finish_iteration(uint32_t query) {
  HelixQuery& q = queries[query];
  --active;
  record(q);
  const bool was_prompt = q.prompt();
  q.context += q.tokens();
  const bool finished = ++q.iteration > q.output;
  if (!finished) {
    q.request = next_request_uid++;
    q.stage = -1;
    q.created = q.moved = events.now();
    q.compute = q.network = 0;
    push_now(Kind::kNewRequest, kSourceNode, query);
  } else {
    ++report.finished_queries;
    if (flow_router) policy::FlowRouter::finish(q.route, q.input, ledger);
    for (const policy::Hop& hop : q.route) {
      if (hop.node == kSinkNode) continue;
      ledger.vacate(hop.node, int64_t{q.context} * hop.layers.size());
    }
    free_queries.push_back(query);
  }
  if (!options.online && (was_prompt || finished)) consider_feeding(was_prompt && !finished);
}

double HelixEngine::State::batch_seconds(int32_t node) {
  const HelixNode& spec = input.nodes[node];
  const LayerTimes& times = input.times[spec.machine];
  HelixNodeState& n = nodes[node];
  const auto prompts = static_cast<size_t>(n.batch.prompt_tokens);
  const auto decodes = static_cast<size_t>(n.batch.decodes);
  if (prompts >= times.prompt.size() || decodes >= times.decode.size()) {
    fault = errorf(Code::kInvalidArgument,
                   "a batch of {} prompt tokens and {} decodes on node {} is outside its profile "
                   "({} and {}); profile larger batches or lower the node's limits",
                   prompts, decodes, spec.name, times.prompt.size() - 1, times.decode.size() - 1);
    return 0;
  }
  double decode = times.decode[decodes];
  // The grid begins at an empty batch of zero cost, so interpolation halves the cost of one.
  if (decodes == 1) decode = decode * 2;
  double seconds = times.prompt[prompts] + decode;
  if (options.compute != 1) seconds *= options.compute;
  if (n.current == 0) {
    const double bytes = static_cast<double>(n.buffered_tokens) * input.activation_bytes;
    const double concat = bytes / kConcatBytesPerSecond;
    const double copy = bytes / kCopyBytesPerSecond;
    seconds += concat + copy;
    n.buffered_tokens = 0;
  }
  return seconds;
}

// Stage grain: the batch runs as far as nothing waits before the layer ahead, where it would be
// taken together with that; what it takes there and when is known now.
void HelixEngine::State::start_stage(int32_t node) {
  HelixNodeState& n = nodes[node];
  const bool goes_on = n.current > 0 && n.current == n.stop && n.ends == events.now();
  if (!goes_on) n.order = events.next_order();
  n.first = n.current;
  n.stop = n.current + 1;
  n.first_seconds = batch_seconds(node);  // with the copying of the inputs, at the first layer
  n.layer_seconds = n.first_seconds;
  n.began = events.now();
  n.causes = events.causes();
  const auto layers = static_cast<int32_t>(n.queues.size());
  // What the layers ahead hold is booked at their end. Near the capacity the moment counts.
  const int64_t tokens = n.batch.prompt_tokens + n.batch.decodes;
  const bool near_full =
      ledger.capacity(node) - ledger.real_used(node) < (layers - n.first) * tokens;
  if (n.stop < layers && n.queues[n.stop].empty() && !near_full) {
    n.current = n.stop;
    n.layer_seconds = batch_seconds(node);
    n.current = n.first;
    while (n.stop < layers && n.queues[n.stop].empty()) ++n.stop;
  }
  push_end_of_stage(node);
}

// Of the running stage; the sum is that of one layer after the other.
double HelixEngine::State::begin_of_layer(const HelixNodeState& n, int32_t layer) const {
  if (layer == n.first) return n.began;
  double when = n.began + n.first_seconds;
  for (int32_t l = n.first + 1; l < layer; ++l) when += n.layer_seconds;
  return when;
}

// The begin of its last layer and the causes of the event at its end. At the end of each layer the
// next is started by an event of its own.
HelixNodeState::LastLayer HelixEngine::State::last_layer(const HelixNodeState& n) const {
  HelixNodeState::LastLayer last{n.began, n.causes};
  for (int32_t layer = n.first + 1; layer < n.stop; ++layer) {
    last.begin += layer == n.first + 1 ? n.first_seconds : n.layer_seconds;
    last.causes = events.after(last.begin, events.after(last.begin, last.causes));
  }
  return last;
}

void HelixEngine::State::push_end_of_stage(int32_t node) {
  HelixNodeState& n = nodes[node];
  const HelixNodeState::LastLayer last = last_layer(n);
  n.ends = last.begin + (n.stop - 1 == n.first ? n.first_seconds : n.layer_seconds);
  const Event event{Kind::kFinishExecution, node, ++n.generation};
  if (last.begin < n.ends) {
    events.push_as_of(last.causes, n.order, n.ends, event);
  } else {
    events.push(n.ends, event);  // layers that take no time
  }
}

// Somebody comes to wait before `layer` while a batch that has yet to reach it is running:
// the batch stops there, so that they go on together.
void HelixEngine::State::stop_batch_before(int32_t node, int32_t layer) {
  HelixNodeState& n = nodes[node];
  if (!n.busy || layer <= n.first || layer >= n.stop) return;
  const double when = begin_of_layer(n, layer);
  if (when < events.now()) return;  // it is past
  n.stop = layer;
  if (when == events.now() && events.is_past(last_layer(n).causes)) {
    ++n.generation;  // it was there first
    finish_execution(node);
  } else {
    push_end_of_stage(node);
  }
}

// Moves to the next layer, in a ring, before which something waits.
static void march(HelixNodeState& n) {
  if (n.waiting == 0) return;
  const auto layers = static_cast<int32_t>(n.queues.size());
  int32_t layer = n.current;
  for (int32_t step = 1; step < layers; ++step) {
    if (++layer == layers) layer = 0;
    if (!n.queues[layer].empty()) {
      n.current = layer;
      return;
    }
  }
}

void HelixEngine::State::start_execution(int32_t node) {
  HelixNodeState& n = nodes[node];
  if (n.busy || n.waiting == 0) return;
  if (n.queues[n.current].empty()) march(n);
  if (!policy::take_stage_batch(n.queues[n.current], input.nodes[node].limits, n.batch)) {
    fault = errorf(Code::kInvalidArgument,
                   "a request waiting at node {} is longer than the node may run (prompt {} "
                   "tokens, decode context {} tokens)",
                   input.nodes[node].name, input.nodes[node].limits.prompt_tokens,
                   input.nodes[node].limits.decode_context);
    return;
  }
  n.waiting -= static_cast<int64_t>(n.batch.work.size());
  n.busy = true;
  if (options.stage_grain) return start_stage(node);
  push(events.now() + batch_seconds(node), Kind::kFinishExecution, node, ++n.generation);
}

void HelixEngine::State::finish_execution(int32_t node) {
  HelixNodeState& n = nodes[node];
  n.busy = false;
  const int32_t ran = options.stage_grain ? n.stop - n.first : 1;
  if (options.stage_grain) n.current = n.stop - 1;
  if (!ledger.occupy(node, ran * (n.batch.prompt_tokens + n.batch.decodes))) {
    fault = errorf(Code::kExhausted,
                   "the KV cache of node {} overflowed at {:.3f} s ({} layer-tokens); offer less "
                   "(--initial-queries, --feed-rate) or, with maxflow, raise --output-ratio or "
                   "lower --kv-high-water",
                   input.nodes[node].name, events.now(), ledger.capacity(node));
    return;
  }
  const size_t next = static_cast<size_t>(n.current) + 1;
  if (next == n.queues.size()) {
    for (const policy::StageWork& work : n.batch.work) enter_outbound(node, work.request);
    if (!sends_ahead()) push_now(Kind::kStartTransmission, node);
  } else {
    n.queues[next].insert(n.queues[next].end(), n.batch.work.begin(), n.batch.work.end());
    n.waiting += static_cast<int64_t>(n.batch.work.size());
  }
  march(n);
  push_now(Kind::kStartExecution, node);
}

}  // namespace towline::sim
