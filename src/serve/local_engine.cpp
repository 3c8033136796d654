// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/local_engine.hpp"

#include <sched.h>

#include <algorithm>
#include <utility>

#include "base/check.hpp"
#include "base/fmt.hpp"
#include "serve/request_check.hpp"

namespace towline::serve {
namespace {

constexpr int32_t kDefaultContext = 8192;
constexpr int64_t kDefaultKvBytes = int64_t{1} << 30;
constexpr int32_t kMaxLogitRows = 64;

int allowed_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

FinishReason finish_reason(policy::EndReason reason) {
  switch (reason) {
    case policy::EndReason::kStop:
      return FinishReason::kStop;
    case policy::EndReason::kLength:
      return FinishReason::kLength;
    case policy::EndReason::kCancelled:
      return FinishReason::kCancelled;
    case policy::EndReason::kFailed:
      break;
  }
  return FinishReason::kError;
}

GeneratedToken generated(engine::EvaluatedToken&& evaluated) {
  const engine::SampledToken& token = evaluated.sampled;
  GeneratedToken out;
  out.token = token.token;
  out.is_stop = evaluated.is_stop;
  out.logprob = token.logprob;
  for (const auto& [id, logprob] : token.top) out.top.push_back({id, logprob});
  return out;
}

}  // namespace

// --- starting and stopping ----------------------------------------------------------------------

int64_t LocalEngine::choose_kv_tokens(const spec::ModelDesc& desc,
                                      const LocalEngineOptions& options, int32_t context) {
  if (options.kv_tokens > 0) return options.kv_tokens;
  const int64_t per_token = desc.layers * desc.kv_bytes_per_token_layer().value;
  const int64_t affordable = kDefaultKvBytes / std::max<int64_t>(per_token, 1);
  const int64_t useful = int64_t{options.sequences} * context;
  return std::max<int64_t>(context, std::min(affordable, useful));
}

Result<std::unique_ptr<LocalEngine>> LocalEngine::start(
    std::shared_ptr<const engine::ModelFile> file, const LocalEngineOptions& options,
    EventSink sink, const engine::LoadProgress& progress) {
  const spec::ModelDesc& desc = file->desc();
  if (options.context > desc.context) {
    return errorf(Code::kInvalidArgument, "a context of {} tokens is asked, but {} has {}",
                  options.context, desc.name, desc.context);
  }
  if (options.sequences < 1 || options.step_tokens < 1 || options.queue < 0) {
    return errorf(Code::kInvalidArgument,
                  "{} sequences, {} step tokens and a queue of {} cannot work", options.sequences,
                  options.step_tokens, options.queue);
  }
  std::unique_ptr<LocalEngine> self(new LocalEngine());
  self->sink_ = std::move(sink);
  ASSIGN_OR_RETURN(self->kernels_, engine::kernel_table(options.isa));
  const int threads = options.threads > 0 ? options.threads : allowed_processors();
  self->team_ = std::make_unique<engine::ComputeTeam>(threads);

  const int32_t context =
      options.context > 0 ? options.context : std::min(desc.context, kDefaultContext);
  const int64_t kv_tokens = choose_kv_tokens(desc, options, context);
  const int64_t blocks = (kv_tokens + policy::kBlockTokens - 1) / policy::kBlockTokens;
  if (blocks > INT32_MAX) {
    return errorf(Code::kInvalidArgument, "a KV cache of {} tokens is too large", kv_tokens);
  }
  self->context_ = static_cast<int32_t>(
      std::min<int64_t>(context, blocks * policy::kBlockTokens));
  engine::StageOptions stage_options;
  stage_options.kv_blocks = static_cast<int32_t>(blocks);
  stage_options.max_rows = options.step_tokens;
  stage_options.max_logit_rows = std::min(kMaxLogitRows, options.step_tokens);
  ASSIGN_OR_RETURN(engine::Stage stage, engine::Stage::load(file, stage_options, *self->kernels_,
                                                            *self->team_, progress));
  self->stage_ = std::make_unique<engine::Stage>(std::move(stage));
  self->evaluator_ =
      std::make_unique<engine::RowEvaluator>(*self->stage_, *self->kernels_, *self->team_);
  self->batcher_ = std::make_unique<policy::Batcher>(
      policy::BatcherLimits{.step_tokens = options.step_tokens,
                            .sequences = options.sequences,
                            .chunk_tokens = options.step_tokens,
                            .prefix_cache = options.prefix_cache},
      static_cast<int32_t>(blocks));
  self->hidden_.resize(static_cast<size_t>(options.step_tokens) * static_cast<size_t>(desc.hidden));
  self->admission_ = {.waiting = options.queue, .placed = options.sequences};
  // Room for every request's submission and cancellation, and to spare.
  self->inbox_ = std::make_unique<SpscRing<Command>>(
      static_cast<size_t>(options.sequences + options.queue) * 4 + 64);
  self->publish_stats(0);
  self->thread_ = std::thread([engine = self.get()] { engine->run(); });
  return self;
}

LocalEngine::~LocalEngine() {
  if (loader_.joinable()) loader_.join();
  if (!thread_.joinable()) return;
  stop_.store(true, std::memory_order_release);
  wake_.fetch_add(1, std::memory_order_release);
  wake_.notify_one();
  thread_.join();
}

// --- the caller's side --------------------------------------------------------------------------

Result<void> LocalEngine::submit(GenerationRequest request) {
  if (draining_.load(std::memory_order_relaxed)) {
    return Error(Code::kUnavailable, "the server is shutting down and takes no new requests");
  }
  TRY(check_request(request, model(), context_));
  // The batcher holds those that wait; here it matters only how many there are.
  const int32_t unfinished = unfinished_.load(std::memory_order_acquire);
  if (policy::queue_full(admission_, unfinished, 0)) {
    return errorf(Code::kExhausted, "{} requests are running or waiting, which is the limit ({}); "
                  "try again later", unfinished, policy::kQueueFull);
  }
  const auto room = context_ - static_cast<int32_t>(request.prompt.size());
  request.max_tokens = request.embed ? 0 : std::min(request.max_tokens, room);
  Command command{Command::Kind::kSubmit, std::move(request), {}};
  if (const std::string& name = command.request.adapter; !name.empty()) {
    const std::lock_guard lock(adapters_mutex_);
    const auto at = adapters_.find(name);
    if (at == adapters_.end()) {
      return errorf(Code::kNotFound, "there is no adapter '{}'", name);
    }
    command.adapter = at->second;
  }
  unfinished_.fetch_add(1, std::memory_order_acq_rel);
  push(std::move(command));
  return {};
}

Result<void> LocalEngine::load_adapter(const std::string& name, const std::string& path,
                                       AdapterDone done) {
  {
    const std::lock_guard lock(adapters_mutex_);
    if (name.empty()) return Error(Code::kInvalidArgument, "an adapter needs a name");
    if (adapters_.contains(name)) {
      return errorf(Code::kAlreadyExists, "an adapter '{}' is loaded; unload it first", name);
    }
    if (loading_) {
      return Error(Code::kUnavailable,
                   "another adapter is being loaded; try again when it is done");
    }
    loading_ = true;
  }
  if (loader_.joinable()) loader_.join();  // it has finished
  loader_ = std::thread([this, name, path, done = std::move(done)] {
    auto loaded = engine::LoraAdapter::load(path, model(), {0, model().layers});
    {
      const std::lock_guard lock(adapters_mutex_);
      if (loaded) adapters_[name] = {std::move(loaded).value(), next_salt_++};
      loading_ = false;
    }
    done(loaded ? Result<void>() : Result<void>(std::move(loaded).error()));
  });
  return {};
}

Result<void> LocalEngine::unload_adapter(const std::string& name) {
  const std::lock_guard lock(adapters_mutex_);
  if (adapters_.erase(name) > 0) return {};
  return errorf(Code::kNotFound, "there is no adapter '{}'", name);
}

std::vector<std::string> LocalEngine::adapters() const {
  const std::lock_guard lock(adapters_mutex_);
  std::vector<std::string> names;
  for (const auto& [name, adapter] : adapters_) names.push_back(name);
  return names;
}

void LocalEngine::cancel(RequestId id) {
  Command command;
  command.request.id = id;
  push(std::move(command));
}

void LocalEngine::push(Command command) {
  // Full only if the caller cancels unknown ids by the thousand; the engine empties it every step.
  while (!inbox_->try_push(command)) std::this_thread::yield();
  wake_.fetch_add(1, std::memory_order_release);
  wake_.notify_one();
}

GeneratorStats LocalEngine::stats() const {
  const auto get = [](const auto& value) { return value.load(std::memory_order_relaxed); };
  GeneratorStats s;
  s.running = get(shared_.running);
  s.waiting = get(shared_.waiting);
  s.kv_blocks_total = get(shared_.blocks_total);
  s.kv_blocks_used = get(shared_.blocks_used);
  s.prompt_tokens = get(shared_.prompt_tokens);
  s.generation_tokens = get(shared_.generation_tokens);
  s.prefix_queries = get(shared_.prefix_queries);
  s.prefix_hits = get(shared_.prefix_hits);
  s.preemptions = get(shared_.preemptions);
  s.steps = get(shared_.steps);
  s.last_step_tokens = get(shared_.last_step_tokens);
  return s;
}

// --- the engine thread --------------------------------------------------------------------------

void LocalEngine::run() {
  for (;;) {
    const uint32_t seen = wake_.load(std::memory_order_acquire);
    take_commands();
    if (stop_.load(std::memory_order_acquire)) break;
    if (batcher_->idle()) {
      publish_stats(0);
      flush_events();
      wake_.wait(seen, std::memory_order_acquire);
      continue;
    }
    run_step();
  }
  for (const auto& [id, seq] : std::map(live_)) batcher_->cancel(seq);
  report_ends();
  flush_events();
}

void LocalEngine::take_commands() {
  while (std::optional<Command> command = inbox_->try_pop()) {
    if (command->kind == Command::Kind::kSubmit) {
      take(std::move(command->request), std::move(command->adapter));
    } else if (const auto at = live_.find(command->request.id); at != live_.end()) {
      batcher_->cancel(at->second);
    }
  }
  report_ends();
}

void LocalEngine::take(GenerationRequest&& request, Adapter&& adapter) {
  const SeqId seq(next_seq_++);
  policy::SequenceSpec spec;
  spec.id = seq;
  spec.prompt = request.prompt;
  spec.max_tokens = request.max_tokens;
  spec.priority = request.priority;
  spec.cache_salt = adapter.salt;
  spec.every_row = request.prompt_logprobs || request.embed;
  Result<void> added = live_.contains(request.id)
                           ? errorf(Code::kAlreadyExists, "request {} is running", request.id)
                           : batcher_->add(std::move(spec));
  if (!added) {
    GenerationEvent event;
    event.id = request.id;
    event.finish = FinishReason::kError;
    event.error = std::move(added).error();
    events_.push_back(std::move(event));
    unfinished_.fetch_sub(1, std::memory_order_acq_rel);
    return;
  }
  live_[request.id] = seq;
  Session& session = sessions_[seq];
  session.tokens = std::move(request.prompt);
  session.prompt = static_cast<int32_t>(session.tokens.size());
  session.request = std::move(request);
  session.adapter = std::move(adapter.weights);
  session.taken = std::chrono::steady_clock::now();
}

void LocalEngine::run_step() {
  const policy::Step step = batcher_->next_step();
  apply_tables(step);
  const auto now = std::chrono::steady_clock::now();
  std::vector<engine::StepSpan> spans;
  spans.reserve(step.entries.size());
  for (const policy::StepEntry& entry : step.entries) {
    Session& session = sessions_.at(entry.seq);
    spans.push_back({entry.from, entry.to, entry.tokens, tables_.at(entry.seq),
                     session.adapter.get()});
    if (session.queued.value < 0) {
      session.queued = nanoseconds(
          std::chrono::duration_cast<std::chrono::nanoseconds>(now - session.taken).count());
    }
  }
  CHECK(stage_->run({spans}, hidden_), "a stage of one rank cannot fail");

  pool_rows(step);
  std::vector<policy::Sampled> sampled;
  evaluate_rows(step, sampled);
  report_prompts(step);
  batcher_->complete(step, sampled);
  ++steps_;
  report_ends();
  publish_stats(engine::StepView{spans}.rows());
  flush_events();
}

void LocalEngine::apply_tables(const policy::Step& step) {
  for (const SeqId seq : step.dropped) tables_.erase(seq);
  for (const policy::StepEntry& entry : step.entries) {
    std::vector<int32_t>& table = tables_[entry.seq];
    for (const BlockId block : entry.blocks) table.push_back(block.value);
  }
}

void LocalEngine::evaluate_rows(const policy::Step& step, std::vector<policy::Sampled>& sampled) {
  std::vector<engine::EvalRow> rows;
  std::vector<SeqId> who;
  int32_t first_row = 0;
  for (const policy::StepEntry& entry : step.entries) {
    Session& s = sessions_.at(entry.seq);
    for (int32_t p = entry.logits_from; p < entry.to; ++p) {
      const bool samples = entry.samples && p == entry.to - 1;
      const bool scores = s.request.prompt_logprobs && !s.prompt_reported && p + 1 < s.prompt;
      if (!samples && !scores) continue;
      rows.push_back({first_row + p - entry.from, p, samples,
                      {&s.request.sampling, s.request.choice, s.tokens, s.prompt,
                       s.request.stop_tokens, &s.history}});
      who.push_back(entry.seq);
    }
    first_row += entry.to - entry.from;
  }
  auto evaluated = evaluator_->evaluate(hidden_, rows);
  CHECK(evaluated, "a stage of one rank cannot fail");
  std::vector<engine::RowOutcome>& outcomes = *evaluated;
  for (size_t i = 0; i < rows.size(); ++i) {
    Session& session = sessions_.at(who[i]);
    if (rows[i].samples) {
      sampled.push_back(accept(who[i], session, std::move(outcomes[i])));
    } else {
      session.prompt_scores.resize(static_cast<size_t>(session.prompt));
      session.prompt_scores[static_cast<size_t>(rows[i].position) + 1] =
          generated(std::move(outcomes[i]).value());
    }
  }
}

policy::Sampled LocalEngine::accept(SeqId seq, Session& session, engine::RowOutcome&& outcome) {
  if (!outcome) {
    event_of(seq).error = std::move(outcome).error();
    return {seq, 0, false, true};
  }
  GeneratedToken token = generated(std::move(outcome).value());
  session.tokens.push_back(token.token);
  ++generation_tokens_;
  const policy::Sampled sampled{seq, token.token, token.is_stop, false};
  event_of(seq).tokens.push_back(std::move(token));
  return sampled;
}

void LocalEngine::pool_rows(const policy::Step& step) {
  int32_t first_row = 0;
  for (const policy::StepEntry& entry : step.entries) {
    Session& session = sessions_.at(entry.seq);
    const int32_t count = entry.to - entry.from;
    if (session.request.embed) session.pool.add(*stage_, hidden_, first_row, entry.from, count);
    first_row += count;
  }
}

// --- events -------------------------------------------------------------------------------------

GenerationEvent& LocalEngine::event_of(SeqId seq) {
  const auto [at, fresh] = event_index_.emplace(seq, events_.size());
  if (fresh) {
    Session& session = sessions_.at(seq);
    events_.emplace_back();
    events_.back().id = session.request.id;
    events_.back().cached_tokens = batcher_->cached_tokens(seq);
    events_.back().queued = std::max(session.queued, Duration(0));
  }
  return events_[at->second];
}

// What becomes known when the last prompt row of a request has been evaluated.
void LocalEngine::report_prompts(const policy::Step& step) {
  for (const policy::StepEntry& entry : step.entries) {
    Session& s = sessions_.at(entry.seq);
    if (s.prompt_reported || entry.to < s.prompt) continue;
    s.prompt_reported = true;
    prompt_tokens_ += s.prompt;
    GenerationEvent& event = event_of(entry.seq);
    if (s.request.prompt_logprobs) {
      s.prompt_scores.resize(static_cast<size_t>(s.prompt));
      s.prompt_scores[0].token = s.tokens[0];
      event.prompt_tokens = std::move(s.prompt_scores);
    }
    if (s.request.embed) event.embedding = s.pool.unit_vector();
  }
}

void LocalEngine::report_ends() {
  for (const policy::Ended& ended : batcher_->take_ended()) {
    const auto at = sessions_.find(ended.seq);
    // The batcher has forgotten the sequence: cached_tokens was reported with its first event.
    event_of(ended.seq).finish = finish_reason(ended.reason);
    live_.erase(at->second.request.id);
    sessions_.erase(at);
    unfinished_.fetch_sub(1, std::memory_order_acq_rel);
  }
}

void LocalEngine::flush_events() {
  event_index_.clear();
  if (events_.empty()) return;
  sink_(std::exchange(events_, {}));
}

void LocalEngine::publish_stats(int32_t step_rows) {
  const auto set = [](auto& to, auto value) { to.store(value, std::memory_order_relaxed); };
  const policy::Batcher::Counters& counters = batcher_->counters();
  set(shared_.running, batcher_->running());
  set(shared_.waiting, batcher_->waiting());
  set(shared_.blocks_total, int64_t{batcher_->ledger().total()});
  set(shared_.blocks_used, int64_t{batcher_->ledger().held()});
  set(shared_.prompt_tokens, prompt_tokens_);
  set(shared_.generation_tokens, generation_tokens_);
  set(shared_.prefix_queries, counters.prefix_queries);
  set(shared_.prefix_hits, counters.prefix_hits);
  set(shared_.preemptions, counters.preemptions);
  set(shared_.steps, steps_);
  if (step_rows > 0) set(shared_.last_step_tokens, int64_t{step_rows});
}

}  // namespace towline::serve
