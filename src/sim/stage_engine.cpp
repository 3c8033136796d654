// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/stage_engine.hpp"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "base/check.hpp"
#include "base/fmt.hpp"
#include "policy/host_journal.hpp"
#include "sim/stage_state.hpp"

namespace towline::sim {
namespace {

// Events of the host between two digests in the journal.
constexpr int64_t kDigestEvery = 64;

bool moves_kv(const HelixInput& input) {
  return std::ranges::any_of(input.nodes, [](const HelixNode& node) {
    return node.replica >= 0 || node.role != policy::NodeRole::kBoth;
  });
}

// Every stream has a link.
Result<void> check_kv(const HelixInput& input) {
  if (!moves_kv(input)) return {};
  if (!(input.kv_bytes > 0)) {
    return Error(Code::kInvalidArgument,
                 "the model's KV bytes are not known, so its caches cannot be moved");
  }
  std::set<std::pair<int32_t, int32_t>> links;
  for (const HelixLink& link : input.links) links.emplace(link.from, link.to);
  const auto nodes = static_cast<int32_t>(input.nodes.size());
  for (int32_t i = 0; i < nodes; ++i) {
    const HelixNode& from = input.nodes[i];
    for (int32_t k = 0; k < nodes; ++k) {
      const HelixNode& to = input.nodes[k];
      const bool hands_over =
          from.role == policy::NodeRole::kPrompt && to.role == policy::NodeRole::kDecode &&
          from.layers.begin < to.layers.end && to.layers.begin < from.layers.end;
      if ((hands_over || from.replica == k) && !links.contains({i, k})) {
        return errorf(Code::kInvalidArgument, "no link for the KV cache from {} to {}", from.name,
                      to.name);
      }
    }
    if (from.replica >= nodes || from.replica == i) {
      return errorf(Code::kInvalidArgument, "node {}: its replica is nowhere", from.name);
    }
  }
  return {};
}

}  // namespace

StageEngine::State::State(HelixInput in, StageOptions opt, Source from, Sink to)
    : input(std::move(in)), options(std::move(opt)), source(std::move(from)), sink(std::move(to)),
      cluster(input, StageCost(input, options.calibration),
              {.trace_limit = options.trace_limit, .stages = moves_kv(input)}),
      link_known_up(input.links.size(), true), node_known_up(input.nodes.size(), true),
      draining(input.nodes.size(), false), flow(input.links.size(), 0),
      incarnation(input.nodes.size(), 0) {
  if (options.host) {
    options.prompt_budget = options.host->batching.step_tokens;
    options.chunk_tokens = options.host->batching.chunk_tokens;
  }
  find_kv_links();
  // A chunk must fit the tables of every machine that it meets.
  for (const HelixNode& node : input.nodes) {
    if (node.layers.empty()) continue;
    options.chunk_tokens =
        std::min(options.chunk_tokens, cluster.cost().most_prompt_tokens(node.machine));
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
    const bool link = d.kind >= DisturbanceKind::kLinkDown;
    const size_t count = link ? input.links.size() : input.nodes.size();
    if (d.target < 0 || static_cast<size_t>(d.target) >= count || !(d.at >= 0) || !(d.at < 9e9) ||
        !(d.factor > 0 && d.factor < 1e9) || (i > 0 && d.at < options.disturbances[i - 1].at)) {
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
    const LayerTimes& times = input.times[node.machine];
    if (times.prompt.size() < 2 || times.decode.size() < 2) {
      return errorf(Code::kInvalidArgument, "node {}: its machine has no times", node.name);
    }
  }
  const bool roles = std::ranges::any_of(
      input.nodes, [](const HelixNode& n) { return n.role != policy::NodeRole::kBoth; });
  if (options.prefix_cache && roles) {
    return Error(Code::kUnsupported,
                 "a prefix cache is not simulated with prompt and decode machines; leave out one");
  }
  TRY(check_kv(input));
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

Result<void> StageEngine::State::start() {
  report.started = std::ceil(cluster.load_seconds()) + 1;
  cluster.advance(ns(report.started));
  last_count = cluster.now();
  window_begin = ns(report.started + options.window_begin);
  if (options.window_end > 0) window_end = ns(report.started + options.window_end);
  const policy::HostPlan first = plan();
  if (options.journal != nullptr) {
    TRY(options.journal->append({cluster.now(), 0, obs::RecordKind::kSetup,
                                 policy::host_setup_json(host_options()).dump()}));
    TRY(options.journal->append(
        {cluster.now(), 0, obs::RecordKind::kEvent, policy::encode_event(first)}));
  }
  ASSIGN_OR_RETURN(host, policy::Host::make(host_options(), first));
  if (!host->open()) {
    return Error(Code::kInvalidArgument, "no way leads through the cluster");
  }
  await_disturbances();
  if (options.sample_seconds > 0) call_at(cluster.now(), StageEvent::kSample);
  if (options.clients > 0) {
    owed = options.clients;
    serve_clients();
  } else {
    pull_arrival();
  }
  return {};
}

Result<StageReport> StageEngine::run(const std::atomic<bool>* stop) {
  State& s = *state_;
  TRY(s.start());
  const int64_t horizon = s.options.horizon > 0
                              ? State::ns(s.report.started + s.options.horizon)
                              : INT64_MAX;
  bool interrupted = false;
  uint32_t turns = 0;
  while (!s.fault && !s.cluster.quiet() && s.cluster.next_time() < horizon) {
    if (!s.pending && s.in_system == 0 && s.thinking == 0) break;
    const auto happening = s.cluster.step();
    if (!s.cluster.stages().empty()) s.stages_done();
    if (happening) s.handle(*happening);
    s.serve_clients();
    if ((++turns & 0xffff) == 0 && s.options.on_progress) {
      s.options.on_progress({s.seconds(), s.report.arrived, s.report.arrived - s.in_system});
    }
    if ((turns & 0xfff) == 0 && stop != nullptr &&
        stop->load(std::memory_order_relaxed)) {
      interrupted = true;
      break;
    }
  }
  if (s.fault) return *std::move(s.fault);
  if (!interrupted && s.cluster.quiet()) {
    // Nothing that could still happen would let those through who wait for a way.
    s.actions.clear();
    s.host->fail_waiting("no way through the cluster", s.actions);
    s.carry_out();
  }
  if (s.options.journal != nullptr) {
    TRY(s.options.journal->append({s.cluster.now(), 0, obs::RecordKind::kActions,
                                   obs::actions_payload(s.digest.value(), s.acted)}));
    TRY(s.options.journal->append({s.cluster.now(), 0, obs::RecordKind::kEnd, {}}));
    TRY(s.options.journal->flush());
  }
  return s.make_report(interrupted);
}

void StageEngine::State::handle(const VirtualCluster::Happening& h) {
  switch (h.kind) {
    case VirtualCluster::Happening::Kind::kReturned:
      return returned(h.ticket);
    case VirtualCluster::Happening::Kind::kReady:
      node_known_up[h.node] = true;
      draining[h.node] = false;
      ++incarnation[h.node];
      return replan();
    case VirtualCluster::Happening::Kind::kStreamed:
      return streamed(h.number);
    case VirtualCluster::Happening::Kind::kDriver:
      break;
  }
  switch (static_cast<StageEvent>(h.what)) {
    case StageEvent::kArrival:
      return arrive();
    case StageEvent::kDisturbance:
      if (next_disturbance == h.number + 1) await_disturbances();
      return disturb(options.disturbances[h.number], h.number);
    case StageEvent::kDetected:
      return detected(options.disturbances[h.number]);
    case StageEvent::kSample:
      return sample();
    case StageEvent::kClient:
      --thinking;
      ++owed;
      return;
    case StageEvent::kKvThere:
      return kv_there(h.number);
    case StageEvent::kTurn: {
      --thinking;
      free_turns.push_back(h.number);
      const FollowUp& turn = turns[h.number];
      return take_in({0, turn.input, turn.output});
    }
  }
}

// --- the host -----------------------------------------------------------------------------------

void StageEngine::State::tell(const policy::HostEvent& event) {
  actions.clear();
  const auto* const done = std::get_if<policy::StepDone>(&event);
  const auto go_on = [&] {
    const bool round = !actions.empty() && actions.front().again;
    if (done != nullptr && !round) catch_up(steps[done->ticket]);
    carry_out();
  };
  if (options.journal == nullptr) {
    host->step(Instant{cluster.now()}, event, actions);
    return go_on();
  }
  const auto write = [&](obs::RecordKind kind, std::string_view payload) {
    Result<void> written = options.journal->append({cluster.now(), 0, kind, payload});
    if (!written && !fault) fault = std::move(written).error();
  };
  write(obs::RecordKind::kEvent, policy::encode_event(event));
  host->step(Instant{cluster.now()}, event, actions);
  policy::digest_actions(*host, actions, digest);
  acted += static_cast<int64_t>(actions.size());
  if (++told % kDigestEvery == 0) {
    write(obs::RecordKind::kActions, obs::actions_payload(digest.value(), acted));
  }
  go_on();
}

void StageEngine::State::carry_out() {
  using Kind = policy::HostAction::Kind;
  for (const policy::HostAction& action : actions) {
    const auto slot = static_cast<uint32_t>(action.id.value);
    switch (action.kind) {
      case Kind::kLaunch:
        action.again ? launch_again(action.ticket) : launch(action.ticket);
        break;
      case Kind::kAbandon:
        catch_up(steps[action.ticket]);
        cluster.drop(action.ticket);
        break;
      case Kind::kPlaced: {
        RequestRecord& record = requests[slot].record;
        if (record.admitted >= 0) break;
        record.admitted = cluster.now();
        queueing.push_back(static_cast<double>(record.admitted - record.arrival) * 1e-9);
        break;
      }
      case Kind::kPreempted:
        ++report.evictions;
        ++report.restarts;
        ++requests[slot].record.restarts;
        break;
      case Kind::kDisplaced:
        kv_void(slot);
        ++report.restarts;
        ++requests[slot].record.restarts;
        break;
      case Kind::kHandOver:
        hand_over(slot, action.lane);
        break;
      case Kind::kEnded:
        kv_void(slot);
        end_request(slot, action.outcome, action.reason);
        break;
      case Kind::kLaneClosed:
        break;
    }
  }
}

void StageEngine::State::launch(int32_t ticket) {
  const policy::Step& step = host->flight(ticket);
  ++report.steps;
  ParcelWork work;
  for (const policy::StepEntry& entry : step.entries) {
    const int32_t rows = entry.to - entry.from;
    work.returned_tokens += entry.samples;
    if (rows == 1 && entry.samples && entry.from >= counts[entry.seq.value].input) {
      ++work.decodes;
      work.decode_context += entry.from;
    } else {
      work.prompt_tokens += rows;
      work.prompt_context += int64_t{rows} * (entry.from + entry.to - 1) / 2;
    }
  }
  if (static_cast<size_t>(ticket) >= steps.size()) steps.resize(ticket + 1);
  StepOnWay& on_way = steps[ticket];
  on_way.work = work;
  on_way.way = &host->lane(step.lane).pipeline;
  on_way.again = false;
  cluster.send(ticket, *on_way.way, work);
}

// The same decodes, each one token further.
void StageEngine::State::launch_again(int32_t ticket) {
  ++report.steps;
  ++report.forwarded;
  StepOnWay& step = steps[ticket];
  step.work.decode_context += step.work.decodes;
  step.again = true;
  cluster.send(ticket, *step.way, step.work);
}

void StageEngine::State::returned(int32_t ticket) {
  int64_t all;
  sampled.clear();
  if (StepOnWay& step = steps[ticket]; step.again) {
    all = static_cast<int64_t>(step.slots.size());
    ++step.rounds;
    itl.add(cluster.now() - std::exchange(step.returned, cluster.now()), all);
  } else {
    all = count_tokens(ticket);
  }
  report.output_tokens += all;
  sampled_output += all;
  if (in_window()) window_output += all;
  tell(policy::StepDone{ticket, sampled});
}

// Of a step that came back for the first time.
int64_t StageEngine::State::count_tokens(int32_t ticket) {
  StepOnWay& step = steps[ticket];
  step.slots.clear();
  step.returned = cluster.now();
  int64_t gap = 0, same = 0;  // the tokens of a step mostly follow the same gap
  for (const policy::StepEntry& entry : host->flight(ticket).entries) {
    if (!entry.samples) continue;
    const auto slot = static_cast<uint32_t>(entry.seq.value);
    step.slots.push_back(slot);
    TokenCount& count = counts[slot];
    if (options.prefix_cache) {
      sampled.push_back({.seq = entry.seq, .token = token_of(slot, count.produced)});
    }
    const int64_t since = cluster.now() - std::exchange(count.last, cluster.now());
    if (count.produced++ == 0) {
      first_token(slot);
    } else if (since == gap) {
      ++same;
    } else {
      itl.add(gap, std::exchange(same, 1));
      gap = since;
    }
  }
  itl.add(gap, same);
  return static_cast<int64_t>(step.slots.size());
}

// The counts of its sequences are needed.
void StageEngine::State::catch_up(StepOnWay& step) {
  const int32_t rounds = std::exchange(step.rounds, 0);
  if (rounds == 0) return;
  for (const uint32_t slot : step.slots) {
    counts[slot].last = step.returned;
    counts[slot].produced += rounds;
  }
}

// Output token `number` of a request: the trace's, else one that no other request has.
int32_t StageEngine::State::token_of(uint32_t slot, int32_t number) const {
  if (tokens[slot] == nullptr) return 0;
  const std::vector<int32_t>& known = tokens[slot]->output;
  const auto at = static_cast<size_t>(number);
  if (at < known.size()) return known[at];
  const auto id = static_cast<uint64_t>(requests[slot].record.id);
  return static_cast<int32_t>(mix64(mix64(id) + at) >> 33);
}

void StageEngine::State::first_token(uint32_t slot) {
  RequestRecord& record = requests[slot].record;
  record.first_token = cluster.now();
  first_tokens.push_back(static_cast<double>(record.first_token - record.arrival) * 1e-9);
  report.prompt_tokens += record.input;
  needed_rows -= host->batcher().cached_tokens(SeqId(slot));
  if (in_window()) window_prompt += record.input;
}

// --- requests -----------------------------------------------------------------------------------

void StageEngine::State::pull_arrival() {
  auto next = source();
  if (!next) {
    fault = std::move(next).error();
    return;
  }
  pending = *next;
  if (!pending) return;
  const int64_t at = ns(report.started) + pending->arrival_ns;
  call_at(std::max(at, cluster.now()), StageEvent::kArrival);
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
  const spec::TraceRequest request = *pending;
  pending.reset();
  take_in(request);
  if (options.clients == 0) pull_arrival();
}

void StageEngine::State::take_in(const spec::TraceRequest& request) {
  uint32_t slot;
  if (free_requests.empty()) {
    slot = static_cast<uint32_t>(requests.size());
    requests.emplace_back();
    counts.emplace_back();
    if (roles) moves.emplace_back();
    if (options.prefix_cache) tokens.emplace_back();
  } else {
    slot = free_requests.back();
    free_requests.pop_back();
  }
  StageRequest& r = requests[slot];
  r = {};
  r.record.id = next_id++;
  r.record.input = request.input;
  r.record.output = request.output;
  r.record.arrival = cluster.now();
  if (report.first_arrival < 0) report.first_arrival = seconds();
  r.used = true;
  counts[slot] = {.last = 0, .produced = 0, .input = r.record.input};
  count_time();
  ++in_system;
  ++report.arrived;
  if (options.most_unfinished > 0 && in_system > options.most_unfinished) {
    return end_request(slot, Outcome::kRejected, policy::kQueueFull);
  }
  policy::Arrive event;
  event.id = RequestId(slot);
  event.prompt_length = r.record.input;
  if (options.prefix_cache) {
    tokens[slot] = request.tokens;
    if (request.tokens != nullptr) event.prompt = request.tokens->prompt;
  }
  event.max_tokens = r.record.output;
  tell(event);
}

void StageEngine::State::end_request(uint32_t slot, Outcome outcome, std::string_view reason) {
  StageRequest& r = requests[slot];
  CHECK(r.used, slot);
  r.used = false;
  r.record.outcome = outcome;
  r.record.reason = reason;
  r.record.end = cluster.now();
  count_time();
  --in_system;
  if (outcome == Outcome::kFinished && options.follow_up) {
    if (const std::optional<FollowUp> next = options.follow_up(r.record)) {
      uint32_t number;
      if (free_turns.empty()) {
        number = static_cast<uint32_t>(turns.size());
        turns.emplace_back();
      } else {
        number = free_turns.back();
        free_turns.pop_back();
      }
      turns[number] = *next;
      ++thinking;
      call_at(cluster.now() + ns(next->think), StageEvent::kTurn, number);
    }
  }
  if (options.clients > 0 && outcome == Outcome::kFinished) {
    if (options.think_seconds > 0) {
      ++thinking;
      call_at(cluster.now() + ns(options.think_seconds), StageEvent::kClient);
    } else {
      ++owed;
    }
  }
  const int32_t produced = counts[slot].produced;
  if (produced > 0) needed_rows += r.record.input + produced - 1;
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

}  // namespace towline::sim
