// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/stage_engine.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.hpp"
#include "base/fmt.hpp"
#include "sim/stage_state.hpp"

namespace towline::sim {
namespace {

using policy::kSinkNode;
using policy::kSourceNode;

// Messages up to this size take no part in the fair sharing of the network.
constexpr double kSmallMessage = 64 * 1024;
// Host-side cost of gathering a batch's inputs, as in the Helix mode.
constexpr double kConcatBytesPerSecond = 4e9;
constexpr double kCopyBytesPerSecond = 5e9;

// NICs out of the coordinator and the nodes, NICs into them, then the links.
std::vector<double> network_resources(const HelixInput& input) {
  std::vector<double> capacities = {input.coordinator_nic_out};
  for (const HelixNode& node : input.nodes) capacities.push_back(node.nic_out);
  capacities.push_back(input.coordinator_nic_in);
  for (const HelixNode& node : input.nodes) capacities.push_back(node.nic_in);
  for (const HelixLink& link : input.links) capacities.push_back(link.bandwidth);
  return capacities;
}

policy::KvLedger make_ledger(const HelixInput& input, const policy::KvEstimator& estimator) {
  std::vector<policy::KvLedger::Node> accounts;
  for (const HelixNode& node : input.nodes) accounts.push_back({node.layers, node.kv_capacity});
  return policy::KvLedger(std::move(accounts), input.total_layers, estimator);
}

}  // namespace

StageEngine::State::State(HelixInput in, StageOptions opt, Source from, Sink to)
    : input(std::move(in)), options(std::move(opt)), source(std::move(from)), sink(std::move(to)),
      ledger(make_ledger(input, options.estimator)), nodes(input.nodes.size()),
      link_up(input.links.size(), true), link_known_up(input.links.size(), true),
      node_known_up(input.nodes.size(), true), link_generation(input.links.size(), 0),
      network(network_resources(input)), outbox(input.links.size()) {
  for (const LayerTimes& times : input.times) {
    options.chunk_tokens =
        std::min(options.chunk_tokens, static_cast<int32_t>(times.prompt.size()) - 1);
  }
  options.chunk_tokens = std::min(options.chunk_tokens, options.prompt_budget);
}

Result<StageEngine> StageEngine::make(HelixInput input, StageOptions options, Source source,
                                      Sink sink) {
  if (options.prompt_budget < 1 || options.chunk_tokens < 1) {
    return Error(Code::kInvalidArgument, "prompt budget and chunk must be at least one token");
  }
  for (size_t i = 0; i < options.disturbances.size(); ++i) {
    const Disturbance& d = options.disturbances[i];
    const bool link = d.kind == DisturbanceKind::kLinkDown || d.kind == DisturbanceKind::kLinkUp;
    const size_t count = link ? input.links.size() : input.nodes.size();
    if (d.target < 0 || static_cast<size_t>(d.target) >= count || !(d.at >= 0) || !(d.at < 9e9) ||
        !(d.factor > 0) || (i > 0 && d.at < options.disturbances[i - 1].at)) {
      return errorf(Code::kInvalidArgument,
                    "disturbance {}: unknown target {}, a time of {} s that is not in order, or a "
                    "factor of {}", i, d.target, d.at, d.factor);
    }
  }
  for (const HelixNode& node : input.nodes) {
    if (node.layers.empty()) continue;
    if (!(node.disk > 0 && node.nic_in > 0 && node.nic_out > 0) || node.limits.decodes < 1) {
      return errorf(Code::kInvalidArgument, "node {}: disk, NICs and limits must be positive",
                    node.name);
    }
    if (input.times[node.machine].prompt.size() < 2 || input.times[node.machine].decode.size() < 2) {
      return errorf(Code::kInvalidArgument, "node {}: its profile is empty", node.name);
    }
  }
  for (const HelixLink& link : input.links) {
    if (!(link.bandwidth > 0) || !(link.latency >= 0) || !(link.latency < 1e6)) {
      return Error(Code::kInvalidArgument, "a link's bandwidth or latency is out of range");
    }
  }
  return StageEngine(std::make_unique<State>(std::move(input), std::move(options),
                                             std::move(source), std::move(sink)));
}

StageEngine::StageEngine(std::unique_ptr<State> state) : state_(std::move(state)) {}
StageEngine::StageEngine(StageEngine&&) noexcept = default;
StageEngine& StageEngine::operator=(StageEngine&&) noexcept = default;
StageEngine::~StageEngine() = default;

Result<StageReport> StageEngine::run(const std::atomic<bool>* stop) {
  State& s = *state_;
  double longest = 0;
  for (size_t i = 0; i < s.nodes.size(); ++i) {
    const HelixNode& node = s.input.nodes[i];
    if (node.layers.empty()) continue;
    s.nodes[i].ready = true;
    longest = std::max(longest, s.input.layer_bytes * node.layers.size() / node.disk);
  }
  s.report.started = std::ceil(longest) + 1;
  s.events.advance(State::ns(s.report.started));
  s.last_count = s.events.now();
  s.plan();
  if (!s.router) return Error(Code::kInvalidArgument, "no way leads through the cluster");
  for (size_t i = 0; i < s.options.disturbances.size(); ++i) {
    const int64_t at = State::ns(s.report.started + s.options.disturbances[i].at);
    s.events.push(at, {State::Kind::kDisturbance, 0, static_cast<uint32_t>(i)});
  }
  if (s.options.sample_seconds > 0) s.events.push(s.events.now(), {State::Kind::kSample, 0, 0});
  if (s.options.clients > 0) {
    s.owed = s.options.clients;
    s.serve_clients();
  } else {
    s.pull_arrival();
  }
  const int64_t horizon = s.options.horizon > 0
                              ? State::ns(s.report.started + s.options.horizon)
                              : INT64_MAX;
  bool interrupted = false;
  while (!s.fault && !s.events.empty() && s.events.next_time() < horizon) {
    if (!s.pending && s.in_system == 0) break;
    s.handle(s.events.pop());
    s.serve_clients();
    if ((++s.report.events & 0xfff) == 0 && stop != nullptr &&
        stop->load(std::memory_order_relaxed)) {
      interrupted = true;
      break;
    }
  }
  if (s.fault) return *std::move(s.fault);
  if (!interrupted && s.events.empty()) {
    while (!s.waiting.empty()) {  // and nothing that could still happen would let them through
      const uint32_t slot = s.waiting.front();
      s.waiting.pop_front();
      s.end_request(slot, Outcome::kFailed, "no way through the cluster");
    }
  }
  return s.make_report(interrupted);
}

void StageEngine::State::handle(const Event& event) {
  switch (event.kind) {
    case Kind::kArrival:
      return arrive();
    case Kind::kMessage:
      return deliver(event.number);
    case Kind::kNetwork:
      if (event.number != network_generation) return;
      tags.clear();
      network.finish(events.now(), tags);
      for (const uint64_t tag : tags) {
        const StageMessage& message = messages[tag];
        events.push(events.now() + ns(input.links[message.link].latency),
                    {Kind::kMessage, 0, static_cast<uint32_t>(tag)});
      }
      return network_changed();
    case Kind::kBatchDone:
      if (event.number == nodes[event.where].generation) finish_batch(event.where);
      return;
    case Kind::kDisturbance:
      return disturb(options.disturbances[event.number]);
    case Kind::kDetected:
      return detected(options.disturbances[event.number]);
    case Kind::kReady:
      if (event.number == nodes[event.where].generation) node_ready(event.where);
      return;
    case Kind::kSample:
      return sample();
  }
}

void StageEngine::State::pull_arrival() {
  auto next = source();
  if (!next) {
    fault = std::move(next).error();
    return;
  }
  pending = *next;
  if (!pending) return;
  const int64_t at = ns(report.started) + pending->arrival_ns;
  events.push(std::max(at, events.now()), {Kind::kArrival, 0, 0});
}

// Closed loop: a client whose request has ended sends the next.
void StageEngine::State::serve_clients() {
  while (owed > 0 && !fault) {
    --owed;
    auto next = source();
    if (!next) {
      fault = std::move(next).error();
      return;
    }
    pending = *next;
    if (!pending) {
      owed = 0;
      options.clients = 0;  // the workload is over
      return;
    }
    arrive();
  }
}

void StageEngine::State::arrive() {
  uint32_t slot;
  if (free_requests.empty()) {
    slot = static_cast<uint32_t>(requests.size());
    requests.emplace_back();
  } else {
    slot = free_requests.back();
    free_requests.pop_back();
  }
  StageRequest& r = requests[slot];
  r.record = {};
  r.record.id = next_id++;
  r.record.input = pending->input;
  r.record.output = pending->output;
  r.record.arrival = events.now();
  r.used = true;
  r.admitted = false;
  r.prompt = pending->input;
  r.produced = 0;
  count_time();
  ++in_system;
  ++report.arrived;
  pending.reset();
  if (static_cast<int64_t>(waiting.size()) >= options.queue_limit) {
    end_request(slot, Outcome::kRejected, "queue full");
  } else {
    waiting.push_back(slot);
    admit_waiting();
  }
  if (options.clients == 0) pull_arrival();
}

void StageEngine::State::admit_waiting() {
  while (router && !waiting.empty()) {
    const uint32_t slot = waiting.front();
    if (!try_admit(slot)) {
      // The first in line waits for room; if nobody is there to make any, it can never fit.
      if (active > 0) return;
      waiting.pop_front();
      end_request(slot, requests[slot].record.restarts > 0 ? Outcome::kFailed : Outcome::kRejected,
                  router->last_refusal().by_kv > 0 ? "larger than the KV cache"
                                                   : "no way through the cluster");
      continue;
    }
    waiting.pop_front();
    send_prompt(slot);
  }
}

bool StageEngine::State::try_admit(uint32_t slot) {
  StageRequest& r = requests[slot];
  if (!router->route(r.prompt, ledger, r.routed)) return false;
  r.pipeline = r.routed;
  for (policy::Hop& hop : r.pipeline) hop.link = planned_links[hop.link];
  r.epoch = epoch;
  r.admitted = true;
  r.kv.assign(r.pipeline.size(), 0);
  if (r.record.admitted < 0) {
    r.record.admitted = events.now();
    queueing.push_back(static_cast<double>(r.record.admitted - r.record.arrival) * 1e-9);
  }
  ++active;
  return true;
}

void StageEngine::State::send_prompt(uint32_t slot) {
  const StageRequest& r = requests[slot];
  std::vector<StageItem> items;
  for (int32_t left = r.prompt; left > 0;) {
    const int32_t tokens = std::min(left, options.chunk_tokens);
    left -= tokens;
    items.push_back({slot, r.generation, 0, tokens, left == 0});
  }
  send(r.pipeline[0].link, std::move(items));
}

// Gives back what the request holds; it is then as if it had never been admitted.
void StageEngine::State::release(StageRequest& r) {
  if (!r.admitted) return;
  policy::FlowRouter::finish(r.pipeline, r.prompt, ledger);
  for (size_t h = 0; h < r.pipeline.size(); ++h) {
    if (r.kv[h] == 0) continue;
    ledger.vacate(r.pipeline[h].node, int64_t{r.kv[h]} * r.pipeline[h].layers.size());
  }
  r.admitted = false;
  --active;
}

void StageEngine::State::end_request(uint32_t slot, Outcome outcome, std::string_view reason) {
  StageRequest& r = requests[slot];
  release(r);
  ++r.generation;
  r.used = false;
  r.record.outcome = outcome;
  r.record.reason = reason;
  r.record.end = events.now();
  count_time();
  --in_system;
  owed += options.clients > 0 && outcome == Outcome::kFinished;
  if (outcome == Outcome::kFinished) {
    ++report.finished;
    const double first = static_cast<double>(r.record.first_token - r.record.arrival) * 1e-9;
    const double each = r.record.output > 1
                            ? static_cast<double>(r.record.end - r.record.first_token) * 1e-9 /
                                  (r.record.output - 1)
                            : 0;
    ttft.push_back(first);
    if (r.record.output > 1) tpot.push_back(each);
    e2e.push_back(static_cast<double>(r.record.end - r.record.arrival) * 1e-9);
    within_goals += (options.slo_ttft <= 0 || first <= options.slo_ttft) &&
                    (options.slo_tpot <= 0 || each <= options.slo_tpot);
  } else if (outcome == Outcome::kRejected) {
    ++report.rejected;
  } else {
    ++report.failed;
  }
  if (sink) sink(r.record);
  free_requests.push_back(slot);
}

// Its KV is gone or must go: back to the head of the queue, to be computed from its tokens.
void StageEngine::State::restart(uint32_t slot) {
  StageRequest& r = requests[slot];
  release(r);
  ++r.generation;
  ++r.record.restarts;
  ++report.restarts;
  r.prompt = r.record.input + r.produced;
  report.recomputed_tokens += r.prompt;
  waiting.push_front(slot);
}

void StageEngine::State::token_done(uint32_t slot) {
  StageRequest& r = requests[slot];
  const int64_t now = events.now();
  if (r.produced++ == 0) {
    r.record.first_token = now;
    report.prompt_tokens += r.record.input;
    if (in_window()) window_prompt += r.record.input;
  } else {
    itl.add(static_cast<double>(now - r.last_token) * 1e-9);
  }
  r.last_token = now;
  ++report.output_tokens;
  ++sampled_output;
  if (in_window()) ++window_output;
  if (r.produced >= r.record.output) return end_request(slot, Outcome::kFinished, {});
  if (r.epoch == epoch) router->charge_decode(r.routed);
  post(r.pipeline[0].link, {slot, r.generation, 0, 0, true});
}

void StageEngine::State::send(int32_t link, std::vector<StageItem>&& items) {
  if (!link_up[link]) return;  // lost; its requests restart when the failure is noticed
  uint32_t number;
  if (free_messages.empty()) {
    number = static_cast<uint32_t>(messages.size());
    messages.emplace_back();
  } else {
    number = free_messages.back();
    free_messages.pop_back();
  }
  const HelixLink& spec = input.links[link];
  const bool ends = spec.from == kSourceNode || spec.to == kSinkNode;
  int64_t tokens = 0;
  for (const StageItem& item : items) {
    // What goes back to the coordinator is one token, however long the prompt was.
    tokens += spec.to == kSinkNode ? 1 : std::max(item.tokens, 1);
  }
  const double bytes = static_cast<double>(tokens) *
                       (ends ? input.token_bytes : input.token_bytes + input.activation_bytes);
  StageMessage& message = messages[number];
  message.items = std::move(items);
  message.link = link;
  message.link_generation = link_generation[link];
  if (bytes <= kSmallMessage) {
    events.push(events.now() + ns(spec.latency + bytes / spec.bandwidth),
                {Kind::kMessage, 0, number});
    return;
  }
  const auto places = static_cast<int32_t>(input.nodes.size()) + 1;
  const int32_t nic_in = spec.to == kSinkNode ? places : places + spec.to + 1;
  network.start(events.now(), bytes, {spec.from + 1, 2 * places + link, nic_in}, number);
  network_changed();
}

void StageEngine::State::network_changed() {
  ++network_generation;
  if (network.idle() || network.next_end() == INT64_MAX) return;
  events.push(std::max(network.next_end(), events.now()),
              {Kind::kNetwork, 0, network_generation});
}

void StageEngine::State::deliver(uint32_t number) {
  StageMessage& message = messages[number];
  std::vector<StageItem> items = std::move(message.items);
  const int32_t link = message.link;
  const bool lost = message.link_generation != link_generation[link];
  free_messages.push_back(number);
  if (lost) return;
  const int32_t to = input.links[link].to;
  if (to == kSinkNode) {
    const int64_t ended = report.finished;
    for (const StageItem& item : items) {
      if (!stale(item)) token_done(item.request);
    }
    send_posted();
    if (report.finished != ended) admit_waiting();
    return;
  }
  StageNode& n = nodes[to];
  if (!n.up) return;
  for (const StageItem& item : items) {
    if (!stale(item)) (item.tokens > 0 ? n.prompts : n.decodes).push_back(item);
  }
  start_batch(to);
}

void StageEngine::State::post(int32_t link, const StageItem& item) {
  if (outbox[link].empty()) posted.push_back(link);
  outbox[link].push_back(item);
}

// Sends what was posted: one message a link.
void StageEngine::State::send_posted() {
  for (const int32_t link : posted) {
    std::vector<StageItem> items;
    items.swap(outbox[link]);
    send(link, std::move(items));
  }
  posted.clear();
}

// Decodes first, so that nobody who reads a stream waits for somebody else's prompt.
void StageEngine::State::take_batch(StageNode& n, const HelixNode& spec) {
  const LayerTimes& times = input.times[spec.machine];
  int32_t most = std::min(spec.limits.decodes, static_cast<int32_t>(times.decode.size()) - 1);
  if (options.microbatch > 0) most = std::min(most, options.microbatch);
  n.batch.clear();
  n.batch_decodes = n.batch_prompt_tokens = 0;
  while (!n.decodes.empty() && n.batch_decodes < most) {
    const StageItem item = n.decodes.front();
    n.decodes.pop_front();
    if (stale(item)) continue;
    n.batch.push_back(item);
    ++n.batch_decodes;
  }
  const int32_t budget =
      std::min(options.prompt_budget, static_cast<int32_t>(times.prompt.size()) - 1);
  while (!n.prompts.empty()) {
    const StageItem item = n.prompts.front();
    if (!stale(item)) {
      if (n.batch_prompt_tokens + item.tokens > budget) break;
      n.batch.push_back(item);
      n.batch_prompt_tokens += item.tokens;
    }
    n.prompts.pop_front();
  }
}

int64_t StageEngine::State::batch_ns(int32_t node) {
  const StageNode& n = nodes[node];
  const HelixNode& spec = input.nodes[node];
  const LayerTimes& times = input.times[spec.machine];
  const auto cost = [&](int32_t prompt_tokens, int32_t decodes) {
    const double decode = times.decode[decodes];
    // The tables begin with an empty batch of no cost, so interpolation halves the cost of one.
    return times.prompt[prompt_tokens] + (decodes == 1 ? 2 * decode : decode);
  };
  const auto entry = [&](const StageItem& item) {
    return requests[item.request].pipeline[item.hop].layers.begin;
  };
  double seconds = 0;
  const bool together = std::all_of(n.batch.begin(), n.batch.end(), [&](const StageItem& item) {
    return entry(item) == spec.layers.begin;
  });
  if (together) {
    seconds = spec.layers.size() * cost(n.batch_prompt_tokens, n.batch_decodes);
  } else {  // partial inference: some join at a later layer
    for (int32_t layer = spec.layers.begin; layer < spec.layers.end; ++layer) {
      int32_t prompt_tokens = 0, decodes = 0;
      for (const StageItem& item : n.batch) {
        if (entry(item) > layer) continue;
        prompt_tokens += item.tokens;
        decodes += item.tokens == 0;
      }
      if (prompt_tokens + decodes > 0) seconds += cost(prompt_tokens, decodes);
    }
  }
  const double bytes = (n.batch_prompt_tokens + n.batch_decodes) * input.activation_bytes;
  seconds += bytes / kConcatBytesPerSecond + bytes / kCopyBytesPerSecond;
  return std::max<int64_t>(ns(seconds * n.slowness), 1);
}

void StageEngine::State::start_batch(int32_t node) {
  StageNode& n = nodes[node];
  if (n.busy || !n.ready) return;
  take_batch(n, input.nodes[node]);
  if (n.batch.empty()) return;
  n.busy = true;
  n.batch_begin = events.now();
  events.push(events.now() + batch_ns(node), {Kind::kBatchDone, node, n.generation});
}

// False if the node has no room: the request is then started again later.
bool StageEngine::State::grow_kv(const StageItem& item, int32_t node) {
  StageRequest& r = requests[item.request];
  const int32_t tokens = std::max(item.tokens, 1);
  if (!ledger.occupy(node, int64_t{tokens} * r.pipeline[item.hop].layers.size())) {
    ++report.evictions;
    restart(item.request);
    return false;
  }
  r.kv[item.hop] += tokens;
  return true;
}

void StageEngine::State::finish_batch(int32_t node) {
  StageNode& n = nodes[node];
  n.busy = false;
  n.busy_ns += events.now() - n.batch_begin;
  if (static_cast<int64_t>(report.batches.size()) < options.trace_limit) {
    report.batches.push_back(
        {node, n.batch_begin, events.now(), n.batch_prompt_tokens, n.batch_decodes});
  }
  const int64_t evicted = report.evictions;
  for (StageItem item : n.batch) {
    if (stale(item) || !grow_kv(item, node)) continue;
    const policy::Hop& next = requests[item.request].pipeline[++item.hop];
    if (next.node == kSinkNode && !item.last) continue;  // a chunk that yields no token
    post(next.link, item);
  }
  send_posted();
  start_batch(node);
  if (report.evictions != evicted) admit_waiting();
}

}  // namespace towline::sim
