// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/solo_rank.hpp"

#include <sched.h>

#include <utility>

#include "base/fmt.hpp"
#include "net/clock.hpp"

namespace towline::worker {

Result<std::unique_ptr<SoloRank>> SoloRank::start(const NodeRanksOptions& options,
                                                  ExecutorFactory factory) {
  std::unique_ptr<SoloRank> self(new SoloRank(options.wake));
  self->rank_.factory = std::move(factory);
  const InitModel init{options.executor, options.limits};
  ASSIGN_OR_RETURN(const Json answer,
                   call_method(self->rank_, static_cast<uint16_t>(Method::kInitModel),
                               init.json().dump()));
  ASSIGN_OR_RETURN(self->geometry_, Geometry::parse(answer));
  self->step_thread_ = std::thread([s = self.get()] { s->serve(s->steps_); });
  self->call_thread_ = std::thread([s = self.get()] { s->serve(s->calls_); });
  return self;
}

SoloRank::SoloRank(std::function<void()> wake)
    : wake_(std::move(wake)), steps_(net::yield_of({})), calls_(Duration(0)) {}

SoloRank::~SoloRank() {
  steps_.end();
  calls_.end();
  if (rank_.executor) rank_.executor->abort();
  if (step_thread_.joinable()) step_thread_.join();
  if (call_thread_.joinable()) call_thread_.join();
}

// --- what a thread has to do --------------------------------------------------------------------

void SoloRank::Queue::wake() {
  given_.fetch_add(1);
  given_.notify_one();
}

void SoloRank::Queue::give(Command command, bool wakes) {
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(command));
  }
  if (wakes) wake();
}

void SoloRank::Queue::end() {
  ended_ = true;
  wake();
}

bool SoloRank::Queue::take(std::vector<Command>& into) {
  into.clear();
  if (!there() && yields_.wanted()) {
    const Instant until = net::steady_now() + yields_.yield_for;
    Instant now{};
    do {
      ::sched_yield();
      now = net::steady_now();
    } while (!there() && now < until);
    yields_.learn(there() && now <= until + yields_.yield_for * 2);
  }
  while (!there()) given_.wait(taken_);
  taken_ = given_.load();
  const std::lock_guard lock(mutex_);
  into.swap(waiting_);
  return !ended_;
}

// --- giving and taking --------------------------------------------------------------------------

void SoloRank::step(policy::NodeStep message, std::vector<uint8_t>) {
  steps_.give(std::move(message), true);
}

void SoloRank::feed(std::vector<policy::FedToken> tokens) { steps_.give(std::move(tokens), false); }
void SoloRank::run(RankRun run) { steps_.give(std::move(run), true); }

void SoloRank::call(uint64_t id, Method method, const Json& args) {
  const MethodRow* row = find_method(static_cast<uint16_t>(method));
  const bool in_band = row == nullptr || row->band == Band::kIn;
  (in_band ? steps_ : calls_).give(Call{id, method, args.dump()}, true);
}

std::optional<RankEvent> SoloRank::take() {
  const std::lock_guard lock(mutex_);
  if (events_.empty()) return std::nullopt;
  RankEvent event = std::move(events_.front());
  events_.pop_front();
  return event;
}

void SoloRank::tell(RankEvent event) {
  {
    const std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
  }
  wake_();
}

void SoloRank::serve(Queue& from) {
  std::vector<Command> commands;
  while (from.take(commands)) {
    for (Command& command : commands) {
      if (from.ended()) return;
      perform(std::move(command));
    }
  }
}

void SoloRank::perform(Command command) {
  if (auto* call = std::get_if<Call>(&command)) {
    Result<Json> answer = call_method(rank_, static_cast<uint16_t>(call->method), call->args);
    const MethodRow* row = find_method(static_cast<uint16_t>(call->method));
    if (answer && row->reduction == Reduction::kEach) {
      Json each = Json::array();
      each.push(std::move(*answer));
      answer = std::move(each);
    }
    tell(CallEnded{call->id, std::move(answer)});
    return;
  }
  // The agent's mirror took it, so this one does: they hold the same.
  if (auto* step = std::get_if<policy::NodeStep>(&command)) {
    (void)rank_.mirror->apply(std::move(*step));
  } else if (const auto* fed = std::get_if<std::vector<policy::FedToken>>(&command)) {
    (void)rank_.mirror->feed(*fed);
  } else {
    rank_.progress.phase.store(RankProgress::kCompute, std::memory_order_relaxed);
    RunEnded done = evaluate(std::get<RankRun>(std::move(command)));
    rank_.progress.steps.fetch_add(static_cast<int64_t>(done.run.pieces.size()),
                                   std::memory_order_relaxed);
    rank_.progress.phase.store(RankProgress::kIdle, std::memory_order_relaxed);
    tell(std::move(done));
  }
  rank_.progress.sequence.fetch_add(1, std::memory_order_relaxed);
  rank_.progress.hash.store(rank_.mirror->rank_hash(), std::memory_order_relaxed);
}

RunEnded SoloRank::evaluate(RankRun run) {
  RunEnded done;
  rows_.resize(run.pieces.size());
  items_.clear();
  for (size_t i = 0; i < run.pieces.size(); ++i) {
    const policy::RunPiece& piece = run.pieces[i];
    rows_[i].clear();
    for (const policy::StepRow& row : piece.rows) {
      const policy::SlotState* state = rank_.mirror->slot_at(row.slot);
      if (state == nullptr) {
        done.error = errorf(Code::kInternal, "slot {} ended before its step ran", row.slot);
        done.run = std::move(run);
        return done;
      }
      rows_[i].push_back({row.slot, state, row.from, row.to(), row.logits_from(), row.samples()});
    }
    rank_.mirror->retire(piece.step);
    items_.push_back({piece.step, piece.hop, rows_[i]});
  }
  const Instant begin = net::steady_now();
  Result<void> ran = rank_.executor->run(items_, run.hidden, done.results);
  if (rank_.trace.recording()) rank_.trace.add(begin, net::steady_now(), items_, ran.has_value());
  if (ran) {
    sampled_.clear();
    for (const RowResult& r : done.results) {
      if (r.sampled) sampled_.push_back({r.slot, r.position, r.token.token});
    }
    ran = rank_.mirror->feed(sampled_);
  }
  if (!ran) done.error = std::move(ran).error();
  done.run = std::move(run);
  return done;
}

}  // namespace towline::worker
