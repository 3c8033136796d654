// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/driver_group.hpp"

#include <algorithm>

#include "base/fmt.hpp"
#include "worker/executor_factory.hpp"
#include "worker/prepared_step.hpp"

namespace towline::worker {

Result<std::unique_ptr<DriverGroup>> DriverGroup::start(RankGroupOptions options) {
  std::unique_ptr<DriverGroup> self(new DriverGroup());
  options.team.first = 1;
  options.team.notify = {};
  self->local_.place.of = options.team.ranks;
  self->local_.place.node = options.team.node;
  self->local_.factory = options.team.factory;
  ASSIGN_OR_RETURN(options.team.collective_floats,
                   shared_floats(options.executor, options.team.ranks));
  ASSIGN_OR_RETURN(self->team_, RankTeam::start(options.team));
  self->local_.place.collective_fd = self->team_->collective_fd();
  const InitModel init{options.executor, options.limits};
  ASSIGN_OR_RETURN(const Json answers, self->call(Method::kInitModel, init.json()));
  ASSIGN_OR_RETURN(self->geometry_, Geometry::parse(answers[size_t{0}]));
  return self;
}

DriverGroup::~DriverGroup() = default;

// Until every other rank has acknowledged; the first failure is the answer.
Result<void> DriverGroup::await(uint64_t sequence, std::vector<RankReply>* replies) {
  net::RingWriter& ring = team_->steps();
  std::vector<std::string> texts(static_cast<size_t>(team_->readers()));
  std::optional<int> failed;
  const auto look = [&]() -> Result<void> {
    for (int r = 0; r < team_->readers(); ++r) {
      while (const auto bytes = ring.next_result(r)) {
        ASSIGN_OR_RETURN(RankReply reply, RankReply::parse(*bytes));
        texts[static_cast<size_t>(r)] = reply.text;
        if (replies != nullptr) replies->push_back(std::move(reply));
      }
      if (ring.take_failure(r)) failed = r;
    }
    return {};
  };
  for (;;) {
    const bool all = ring.all_acked(sequence);
    TRY(look());
    if (failed) {
      TRY(look());
      return errorf(Code::kInternal, "rank {}: {}", 1 + *failed, texts[static_cast<size_t>(*failed)]);
    }
    if (const auto death = team_->death()) return Error(Code::kUnavailable, *death);
    if (all) return {};
    if (!ring.wait_acks(sequence, kNever)) return Error(Code::kUnavailable, "the ring is closed");
  }
}

Result<std::vector<StepOutput>> DriverGroup::step(const policy::NodeStep& message,
                                                  std::span<const float> hidden) {
  policy::StepMirror& mirror = *local_.mirror;
  TRY(mirror.apply(message));
  if (!message.runs()) return std::vector<StepOutput>{};
  const policy::LaneStep step{message.lane, message.step};
  if (!mirror.tokens_ready(step)) {
    return errorf(Code::kInternal, "step {} of lane {} lacks tokens", step.step, step.lane);
  }
  rows_.clear();
  for (const policy::StepRow& row : *mirror.pending(step)) {
    rows_.push_back({row.slot, mirror.slot_at(row.slot), row.from, row.to(), row.logits_from(),
                     row.samples()});
  }
  items_.assign(1, RunItem{step, *mirror.lane(step.lane), rows_});
  uint64_t sequence = 0;
  if (team_->readers() > 0) {
    write_prepared(items_, prepared_);
    ASSIGN_OR_RETURN(sequence, team_->steps().publish(draft_.prepared(prepared_, hidden), kNever));
  }
  hidden_.resize(static_cast<size_t>(items_[0].row_count()) *
                 static_cast<size_t>(geometry_.hidden_width));
  std::copy_n(hidden.begin(), std::min(hidden.size(), hidden_.size()), hidden_.begin());
  results_.clear();
  Result<void> ran = local_.executor->run(items_, hidden_, results_);
  if (team_->readers() > 0) TRY(await(sequence, nullptr));
  TRY(std::move(ran));
  sampled_.clear();
  for (const RowResult& r : results_) {
    if (r.sampled) sampled_.push_back({r.slot, r.position, r.token.token});
  }
  TRY(mirror.feed(sampled_));
  mirror.retire(step);
  return outputs();
}

std::vector<StepOutput> DriverGroup::outputs() {
  std::vector<StepOutput> out(1);
  out[0].step = items_[0].step;
  if (items_[0].hop.samples()) {
    out[0].rows = std::move(results_);
  } else {
    out[0].hidden = hidden_;
    out[0].hidden_rows = static_cast<uint32_t>(items_[0].row_count());
  }
  return out;
}

Result<Json> DriverGroup::call(Method method, const Json& args) {
  const MethodRow* row = find_method(static_cast<uint16_t>(method));
  if (row == nullptr) {
    return errorf(Code::kUnsupported, "method {} is not known", static_cast<int>(method));
  }
  uint64_t sequence = 0;
  if (team_->readers() > 0) {
    ASSIGN_OR_RETURN(sequence, team_->steps().publish(
                                   draft_.call(1, static_cast<uint16_t>(method), args.dump()),
                                   kNever));
  }
  Result<Json> here = call_method(local_, static_cast<uint16_t>(method), args.dump());
  std::vector<RankReply> replies;
  if (team_->readers() > 0) TRY(await(sequence, &replies));
  Json answers = Json::array();
  if (!here) return std::move(here).error();
  answers.push(*here);
  for (const RankReply& reply : replies) {
    if (reply.head.code != 0) {
      return Error(static_cast<Code>(std::min<int>(reply.head.code - 1,
                                                   static_cast<int>(Code::kInternal))),
                   reply.text);
    }
    ASSIGN_OR_RETURN(Json answer, parse_json(reply.text, row->name));
    answers.push(std::move(answer));
  }
  if (row->reduction == Reduction::kEach) return answers;
  return *here;
}

}  // namespace towline::worker
