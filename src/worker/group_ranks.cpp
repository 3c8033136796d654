// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/group_ranks.hpp"

#include <algorithm>
#include <utility>

#include "base/fmt.hpp"
#include "worker/executor_factory.hpp"
#include "worker/solo_rank.hpp"

namespace towline::worker {
namespace {

// Messages without a run are sent on after so many, so that ranks do not fall behind.
constexpr size_t kMostWaiting = 16;

}  // namespace

Result<std::unique_ptr<NodeRanks>> start_ranks(NodeRanksOptions options) {
  if (options.ranks == 1 && options.stages == 1) {
    ASSIGN_OR_RETURN(std::unique_ptr<NodeRanks> solo, SoloRank::start(options, make_executor));
    return solo;
  }
  RankTeamOptions team;
  team.processes = options.ranks > 1;
  team.factory = make_executor;
  ASSIGN_OR_RETURN(std::unique_ptr<NodeRanks> group,
                   GroupRanks::start(std::move(options), std::move(team)));
  return group;
}

Result<std::unique_ptr<GroupRanks>> GroupRanks::start(NodeRanksOptions options,
                                                      RankTeamOptions team) {
  RankGroupOptions group;
  group.team = std::move(team);
  group.team.ranks = options.ranks;
  group.team.stages = options.stages;
  group.team.notify = std::move(options.wake);
  group.executor = std::move(options.executor);
  group.limits = options.limits;
  std::unique_ptr<GroupRanks> self(new GroupRanks());
  ASSIGN_OR_RETURN(self->group_, RankGroup::start(std::move(group)));
  return self;
}

// --- giving -------------------------------------------------------------------------------------

// The frame that takes what comes next. A message after a feed begins another one, because in one
// frame messages are applied first.
GroupRanks::Frame& GroupRanks::open_frame(bool for_message) {
  const bool fits = !waiting_.empty() && waiting_.back().open() &&
                    !(for_message && !waiting_.back().feeds.empty());
  if (!fits) waiting_.emplace_back();
  return waiting_.back();
}

void GroupRanks::step(policy::NodeStep message, std::vector<uint8_t> bytes) {
  Frame& frame = open_frame(true);
  frame.full = frame.full || message.full;
  frame.messages.push_back(std::move(bytes));
  if (frame.messages.size() >= kMostWaiting) send();
}

void GroupRanks::feed(std::vector<policy::FedToken> tokens) {
  std::vector<policy::FedToken>& feeds = open_frame(false).feeds;
  if (feeds.empty()) {
    feeds = std::move(tokens);
  } else {
    feeds.insert(feeds.end(), tokens.begin(), tokens.end());
  }
}

void GroupRanks::run(RankRun run) {
  open_frame(false).run = std::move(run);
  send();
}

void GroupRanks::call(uint64_t id, Method method, const Json& args) {
  const MethodRow* row = find_method(static_cast<uint16_t>(method));
  if (row != nullptr && row->band == Band::kOut) {
    const Result<uint64_t> sent = group_->call(method, args);
    if (sent) {
      calls_[*sent] = id;
    } else {
      events_.push_back(CallEnded{id, sent.error()});
    }
    return;
  }
  Frame frame;
  frame.call = Call{id, method, args};
  waiting_.push_back(std::move(frame));
  send();
}

Result<uint64_t> GroupRanks::submit(const Frame& frame) {
  if (frame.call) return group_->call(frame.call->method, frame.call->args);
  RankCommand command;
  for (const std::vector<uint8_t>& message : frame.messages) command.messages.push_back(message);
  command.feeds = frame.feeds;
  command.hidden_width = static_cast<uint32_t>(geometry().hidden_width);
  if (frame.run) {
    size_t at = 0;
    for (const policy::RunPiece& piece : frame.run->pieces) {
      const size_t floats =
          static_cast<size_t>(piece.row_count()) * static_cast<size_t>(command.hidden_width);
      const std::span<const float> rows(frame.run->hidden.data() + at, floats);
      command.runs.push_back(piece.step);
      command.hidden.push_back(piece.hop.embeds() ? std::span<const float>() : rows);
      at += floats;
    }
  }
  return group_->submit(command);
}

void GroupRanks::send() {
  while (!waiting_.empty() && !lost_) {
    Frame& frame = waiting_.front();
    // Tokens alone are for what comes next.
    if (waiting_.size() == 1 && frame.open() && frame.messages.empty()) return;
    const Result<uint64_t> sent = submit(frame);
    if (!sent) {
      const Code code = sent.error().code();
      if (code == Code::kExhausted || code == Code::kDeadline) return;  // again at the next take()
      if (!frame.call || !group_->usable()) return lose(sent.error().to_string());
      events_.push_back(CallEnded{frame.call->id, sent.error()});
    } else if (frame.call) {
      calls_[*sent] = frame.call->id;
    } else {
      if (frame.full) agree_from_ = *sent;
      steps_[*sent] = std::move(frame.run);
    }
    waiting_.pop_front();
  }
}

// --- taking -------------------------------------------------------------------------------------

void GroupRanks::lose(std::string reason) {
  if (std::exchange(lost_, true)) return;
  for (const auto& [sent, id] : calls_) {
    events_.push_back(CallEnded{id, Error(Code::kUnavailable, reason)});
  }
  calls_.clear();
  events_.push_back(RanksLost{std::move(reason)});
}

void GroupRanks::on_step(GroupEvent& event) {
  auto step = steps_.extract(event.id);
  if (step.empty()) return;
  // The agent's mirror took these messages: a rank that did not holds something else.
  const bool must_agree = agree_from_ && event.id >= *agree_from_;
  if (event.status == RankStatus::kNeedSync && must_agree) {
    return lose(format("rank {} holds another state than its node: {}", event.rank, event.error));
  }
  if (!event.ok() && !group_->usable()) return lose(group_->broken());
  if (!step.mapped()) {
    if (!event.ok() && must_agree) lose(format("rank {}: {}", event.rank, event.error));
    return;
  }
  RunEnded done;
  done.run = std::move(*step.mapped());
  if (!event.ok()) {
    done.error = errorf(Code::kUnavailable, "rank {}: {}", event.rank, event.error);
    done.state_lost = true;
    if (must_agree) agree_from_.reset();
  } else {
    const auto width = static_cast<size_t>(geometry().hidden_width);
    size_t at = 0;
    for (size_t i = 0; i < done.run.pieces.size() && i < event.outputs.size(); ++i) {
      StepOutput& output = event.outputs[i];
      std::ranges::copy(output.hidden, done.run.hidden.begin() + static_cast<ptrdiff_t>(at));
      std::ranges::move(output.rows, std::back_inserter(done.results));
      at += static_cast<size_t>(done.run.pieces[i].row_count()) * width;
    }
  }
  events_.push_back(std::move(done));
}

void GroupRanks::on_call(GroupEvent& event) {
  const auto call = calls_.extract(event.id);
  if (call.empty()) return;
  if (event.ok()) {
    events_.push_back(CallEnded{call.mapped(), std::move(event.answer)});
  } else {
    events_.push_back(CallEnded{call.mapped(), Error(event.code, event.error)});
  }
}

std::optional<RankEvent> GroupRanks::take() {
  while (!lost_) {
    std::optional<GroupEvent> event = group_->take();
    if (!event) break;
    event->kind == GroupEvent::Kind::kStep ? on_step(*event) : on_call(*event);
  }
  if (!lost_ && !group_->usable()) lose(group_->broken());
  send();
  if (events_.empty()) return std::nullopt;
  RankEvent event = std::move(events_.front());
  events_.pop_front();
  return event;
}

}  // namespace towline::worker
