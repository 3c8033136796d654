// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/solo_rank.hpp"

#include <utility>

namespace towline::worker {

SoloRank::SoloRank(std::unique_ptr<Executor> executor, const policy::MirrorLimits& limits,
                   std::function<void()> wake)
    : executor_(std::move(executor)), mirror_(limits), wake_(std::move(wake)) {
  thread_ = std::thread([this] { loop(); });
}

SoloRank::~SoloRank() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  ready_.notify_one();
  executor_->abort();
  thread_.join();
}

void SoloRank::give(Command command) {
  {
    const std::lock_guard lock(mutex_);
    commands_.push_back(std::move(command));
  }
  ready_.notify_one();
}

std::optional<RankDone> SoloRank::take() {
  const std::lock_guard lock(mutex_);
  if (done_.empty()) return std::nullopt;
  RankDone done = std::move(done_.front());
  done_.pop_front();
  return done;
}

void SoloRank::loop() {
  for (;;) {
    std::optional<Command> command;
    {
      std::unique_lock lock(mutex_);
      ready_.wait(lock, [this] { return stop_ || !commands_.empty(); });
      if (stop_) return;
      command = std::move(commands_.front());
      commands_.pop_front();
    }
    if (const auto* step = std::get_if<policy::ForwardStep>(&*command)) {
      // The agent's mirror took it, so this one does: they hold the same.
      (void)mirror_.apply(step->message);
    } else if (const auto* feed = std::get_if<policy::ForwardFeed>(&*command)) {
      (void)mirror_.feed(feed->slot, feed->position, feed->token);
    } else {
      RankDone done = evaluate(std::get<RankRun>(std::move(*command)));
      {
        const std::lock_guard lock(mutex_);
        done_.push_back(std::move(done));
      }
      wake_();
    }
  }
}

RankDone SoloRank::evaluate(RankRun run) {
  RankDone done;
  std::vector<std::vector<Row>> rows(run.pieces.size());
  std::vector<RunItem> items;
  for (size_t i = 0; i < run.pieces.size(); ++i) {
    const policy::RunPiece& piece = run.pieces[i];
    for (const policy::StepRow& row : piece.rows) {
      const policy::SlotState* state = mirror_.slot_at(row.slot);
      if (state == nullptr) {
        done.error.emplace(Code::kInternal, "a row names a slot that is not live");
        done.run = std::move(run);
        return done;
      }
      rows[i].push_back({row.slot, state, row.from, row.to(), row.logits_from(), row.samples()});
    }
    mirror_.retire(piece.step);
    items.push_back({piece.step, piece.hop, rows[i]});
  }
  const Result<void> ran = executor_->run(items, run.hidden, done.results);
  if (!ran) done.error.emplace(ran.error());
  done.run = std::move(run);
  return done;
}

}  // namespace towline::worker
