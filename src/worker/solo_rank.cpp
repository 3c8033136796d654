// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/solo_rank.hpp"

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

SoloRank::~SoloRank() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  ready_.notify_all();
  if (rank_.executor) rank_.executor->abort();
  if (step_thread_.joinable()) step_thread_.join();
  if (call_thread_.joinable()) call_thread_.join();
}

void SoloRank::give(std::deque<Command>& to, Command command) {
  {
    const std::lock_guard lock(mutex_);
    to.push_back(std::move(command));
  }
  ready_.notify_all();
}

void SoloRank::step(policy::NodeStep message, std::vector<uint8_t>) {
  give(steps_, std::move(message));
}

void SoloRank::feed(const policy::FedToken& token) { give(steps_, token); }
void SoloRank::run(RankRun run) { give(steps_, std::move(run)); }

void SoloRank::call(uint64_t id, Method method, const Json& args) {
  const MethodRow* row = find_method(static_cast<uint16_t>(method));
  const bool in_band = row == nullptr || row->band == Band::kIn;
  give(in_band ? steps_ : calls_, Call{id, method, args.dump()});
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

void SoloRank::serve(std::deque<Command>& from) {
  for (;;) {
    std::optional<Command> command;
    {
      std::unique_lock lock(mutex_);
      ready_.wait(lock, [&] { return stop_ || !from.empty(); });
      if (stop_) return;
      command = std::move(from.front());
      from.pop_front();
    }
    perform(std::move(*command));
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
  if (const auto* step = std::get_if<policy::NodeStep>(&command)) {
    (void)rank_.mirror->apply(*step);
  } else if (const auto* fed = std::get_if<policy::FedToken>(&command)) {
    (void)rank_.mirror->feed(fed->slot, fed->position, fed->token);
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
  std::vector<std::vector<Row>> rows(run.pieces.size());
  std::vector<RunItem> items;
  for (size_t i = 0; i < run.pieces.size(); ++i) {
    const policy::RunPiece& piece = run.pieces[i];
    for (const policy::StepRow& row : piece.rows) {
      const policy::SlotState* state = rank_.mirror->slot_at(row.slot);
      if (state == nullptr) {
        done.error = errorf(Code::kInternal, "slot {} ended before its step ran", row.slot);
        done.run = std::move(run);
        return done;
      }
      rows[i].push_back({row.slot, state, row.from, row.to(), row.logits_from(), row.samples()});
    }
    rank_.mirror->retire(piece.step);
    items.push_back({piece.step, piece.hop, rows[i]});
  }
  const Instant begin = net::steady_now();
  Result<void> ran = rank_.executor->run(items, run.hidden, done.results);
  if (rank_.trace.recording()) rank_.trace.add(begin, net::steady_now(), items, ran.has_value());
  if (!ran) done.error = std::move(ran).error();
  done.run = std::move(run);
  return done;
}

}  // namespace towline::worker
