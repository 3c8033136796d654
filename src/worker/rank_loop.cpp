// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/rank_loop.hpp"

#include <algorithm>
#include <cstring>

#include "base/fmt.hpp"
#include "protocol/messages.hpp"
#include "protocol/varint_codec.hpp"
#include "worker/prepared_step.hpp"

namespace towline::worker {
namespace {

template <class T>
void append(std::vector<uint8_t>& to, const T& item) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(&item);
  to.insert(to.end(), bytes, bytes + sizeof(T));
}

std::span<const uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

}  // namespace

RankLoop::RankLoop(RankRings rings, RankPlace place, ExecutorFactory factory,
                   std::function<void()> acked)
    : steps_(std::move(rings.steps)),
      calls_(std::move(rings.calls)),
      link_(std::move(rings.link)),
      acked_(std::move(acked)) {
  rank_.place = place;
  rank_.factory = std::move(factory);
}

void RankLoop::run() {
  while (!rank_.leave) {
    const Result<std::span<const uint8_t>> bytes = steps_->next(kNever);
    if (!bytes) return;  // closed, or the writer is gone
    handle(*bytes);
  }
}

void RankLoop::serve_calls() {
  FrameView frame;
  for (;;) {
    const Result<std::span<const uint8_t>> bytes = calls_->next(kNever);
    if (!bytes) return;
    if (frame.parse(*bytes)) handle_call(*calls_, frame.head, frame.args);
    calls_->ack({calls_->sequence(), 0, 0, 0});
    if (acked_) acked_();
  }
}

void RankLoop::abort() {
  if (rank_.ready.load(std::memory_order_acquire)) rank_.executor->abort();
}

void RankLoop::handle(std::span<const uint8_t> bytes) {
  RankProgress& progress = rank_.progress;
  progress.sequence.store(steps_->sequence(), std::memory_order_relaxed);
  if (const Result<void> parsed = frame_.parse(bytes); !parsed) {
    reply_failure({RankStatus::kFailed, parsed.error()});
    finish(RankStatus::kFailed);
    return;
  }
  switch (frame_.head.kind) {
    case FrameKind::kCall:
      progress.phase.store(RankProgress::kCall, std::memory_order_relaxed);
      handle_call(*steps_, frame_.head, frame_.args);
      finish(RankStatus::kOk);
      break;
    case FrameKind::kPrepared:
      handle_prepared({reinterpret_cast<const uint8_t*>(frame_.args.data()), frame_.args.size()});
      break;
    case FrameKind::kSteps:
      handle_steps();
      break;
  }
}

void RankLoop::handle_steps() {
  RankProgress& progress = rank_.progress;
  progress.phase.store(RankProgress::kApply, std::memory_order_relaxed);
  std::optional<Failure> failure = apply();
  if (!failure && frame_.head.runs > 0) {
    progress.phase.store(RankProgress::kCompute, std::memory_order_relaxed);
    failure = run_steps();
  }
  progress.phase.store(RankProgress::kReply, std::memory_order_relaxed);
  if (failure) {
    reply_failure(*failure);
  } else if (frame_.head.runs > 0 && rank_.place.rank == 0 && last_stage()) {
    reply_outputs();
  }
  finish(failure ? failure->status : RankStatus::kOk);
  // Told first: the stages after this one fail too, and that is not the reason.
  if (failure && frame_.head.runs > 0) link_.give_failure(steps_->sequence());
}

void RankLoop::finish(RankStatus status) {
  const uint64_t hash = rank_.mirror ? rank_.mirror->rank_hash() : 0;
  rank_.progress.hash.store(hash, std::memory_order_relaxed);
  steps_->ack({steps_->sequence(), static_cast<uint32_t>(status), hash, work_us_});
  work_us_ = 0;
  rank_.progress.phase.store(RankProgress::kIdle, std::memory_order_relaxed);
  if (acked_ && (status != RankStatus::kOk || steps_->all_acked(steps_->sequence()))) acked_();
}

// --- apply --------------------------------------------------------------------------------------

std::optional<RankLoop::Failure> RankLoop::apply() {
  if (!rank_.mirror) {
    return Failure{RankStatus::kFailed, Error(Code::kUnavailable, "a step before the model")};
  }
  const bool varint = frame_.head.method == static_cast<uint16_t>(StepCodec::kVarint);
  for (const auto bytes : frame_.messages) {
    Result<void> applied = varint ? protocol::decode_varint(bytes, message_)
                                  : protocol::decode(bytes, message_);
    const bool full = applied && message_.full;
    if (applied) applied = rank_.mirror->apply(std::move(message_));
    if (applied && full) link_.forget_tokens_before(steps_->sequence());
    if (applied || applied.error().code() == Code::kAlreadyExists) continue;
    return Failure{RankStatus::kNeedSync, std::move(applied).error()};
  }
  Result<void> fed = rank_.mirror->feed(frame_.feeds);
  if (!fed) return Failure{RankStatus::kFailed, std::move(fed).error()};
  return std::nullopt;
}

// --- compute ------------------------------------------------------------------------------------

// The part of a lane's way through the node that is this stage's. A lane may leave out layers at
// either end; a stage that has none of its layers only hands its rows on.
policy::LaneHop RankLoop::hop_of_stage(const policy::LaneHop& hop) const {
  if (rank_.place.stages == 1) return hop;
  const NodeId here(rank_.place.node);
  const LayerRange held = rank_.executor->layers();
  policy::LaneHop mine = hop;
  mine.layers.begin = std::clamp(hop.layers.begin, held.begin, held.end);
  mine.layers.end = std::clamp(hop.layers.end, mine.layers.begin, held.end);
  if (!first_stage()) mine.previous = here;
  if (!last_stage()) mine.next = here;
  return mine;
}

// Tokens that the last stage sampled for the steps of this frame, if this is the first.
Result<void> RankLoop::learn_tokens() {
  if (!link_.joined() || !first_stage()) return {};
  embedded_.clear();
  for (const RunHead& run : frame_.runs) {
    const policy::LaneHop* hop = rank_.mirror->lane(LaneId(run.lane));
    if (hop != nullptr && hop->embeds()) embedded_.push_back({LaneId(run.lane), run.step});
  }
  return link_.learn_tokens(*rank_.mirror, steps_->sequence(), embedded_);
}

Result<void> RankLoop::gather_runs() {
  TRY(learn_tokens());
  const policy::StepMirror& mirror = *rank_.mirror;
  rows_.clear();
  items_.clear();
  size_t total = 0;
  for (const RunHead& run : frame_.runs) {
    const policy::LaneStep step{LaneId(run.lane), run.step};
    const std::vector<policy::StepRow>* rows = mirror.pending(step);
    const policy::LaneHop* lane = mirror.lane(step.lane);
    if (rows == nullptr || lane == nullptr) {
      return errorf(Code::kUnavailable, "step {} of lane {} is not known here", run.step, run.lane);
    }
    const policy::LaneHop hop = hop_of_stage(*lane);
    int32_t count = 0;
    const bool tokens = hop.keeps_tokens();
    rows_.reserve(rows_.size() + rows->size());
    for (const policy::StepRow& row : *rows) {
      const policy::SlotState* const state = mirror.slot_at(row.slot);
      if (state == nullptr) {
        return errorf(Code::kInternal, "slot {} ended before its step ran", row.slot);
      }
      if (tokens && !policy::StepMirror::tokens_known(*state, row)) {
        return errorf(Code::kInternal, "step {} of lane {} lacks tokens of slot {}", run.step,
                      run.lane, row.slot);
      }
      rows_.push_back({row.slot, state, row.from, row.to(), row.logits_from(), row.samples()});
      count += row.count;
    }
    if (first_stage() && !hop.embeds() && static_cast<int32_t>(run.hidden_rows) != count) {
      return errorf(Code::kInvalidArgument, "step {} of lane {} has {} rows and input of {}",
                    run.step, run.lane, count, run.hidden_rows);
    }
    items_.push_back({step, hop, {}});
    total += static_cast<size_t>(count);
  }
  // Spans only now: rows_ has stopped growing.
  size_t first = 0;
  for (RunItem& item : items_) {
    const size_t n = mirror.pending(item.step)->size();
    item.rows = std::span(rows_).subspan(first, n);
    first += n;
  }
  hidden_.resize(total * static_cast<size_t>(rank_.executor->hidden_width()));
  return {};
}

std::optional<RankLoop::Failure> RankLoop::run_steps() {
  if (Result<void> gathered = gather_runs(); !gathered) {
    return Failure{RankStatus::kFailed, std::move(gathered).error()};
  }
  const auto width = static_cast<size_t>(rank_.executor->hidden_width());
  float* to = hidden_.data();
  Result<std::span<const float>> given = input_rows();
  if (!given) return Failure{RankStatus::kFailed, std::move(given).error()};
  std::span<const float> input = *given;
  for (const RunItem& item : items_) {
    const size_t floats = static_cast<size_t>(item.row_count()) * width;
    if (!item.hop.embeds()) {
      if (input.size() < floats) {
        return Failure{RankStatus::kFailed, errorf(Code::kInvalidArgument, "{} floats of input for "
                                                   "rows of {}", input.size(), floats)};
      }
      std::copy_n(input.data(), floats, to);
      input = input.subspan(floats);
    }
    to += floats;
  }
  results_.clear();
  Result<void> ran = compute();
  if (!ran) return Failure{RankStatus::kFailed, std::move(ran).error()};
  sampled_.clear();
  for (const RowResult& r : results_) {
    if (r.sampled) sampled_.push_back({r.slot, r.position, r.token.token});
  }
  if (Result<void> given_on = hand_on(); !given_on) {
    return Failure{RankStatus::kFailed, std::move(given_on).error()};
  }
  Result<void> fed = rank_.mirror->feed(sampled_);
  if (!fed) return Failure{RankStatus::kFailed, std::move(fed).error()};
  for (const RunItem& item : items_) rank_.mirror->retire(item.step);
  rank_.progress.steps.fetch_add(static_cast<int64_t>(items_.size()), std::memory_order_relaxed);
  return std::nullopt;
}

// Hidden rows of the frame's runs, one after the other: from the stage before, or with the frame.
Result<std::span<const float>> RankLoop::input_rows() {
  if (first_stage()) return frame_.hidden;
  return link_.rows_of(steps_->sequence());
}

// To the next stage, or from the last one to the first.
Result<void> RankLoop::hand_on() {
  const uint64_t sequence = steps_->sequence();
  return last_stage() ? link_.give_tokens(sequence, sampled_) : link_.give_rows(sequence, hidden_);
}

// Items that have no layers in this stage are left out.
Result<void> RankLoop::evaluate() {
  const auto width = static_cast<size_t>(rank_.executor->hidden_width());
  std::span<const RunItem> items = items_;
  std::span<float> hidden = hidden_;
  while (!items.empty()) {
    const bool idle = rank_.place.stages > 1 && items.front().hop.layers.empty();
    size_t n = 0, floats = 0;
    for (; n < items.size() && idle == (rank_.place.stages > 1 && items[n].hop.layers.empty()); ++n) {
      floats += static_cast<size_t>(items[n].row_count()) * width;
    }
    if (!idle) TRY(rank_.executor->run(items.first(n), hidden.first(floats), results_));
    items = items.subspan(n);
    hidden = hidden.subspan(floats);
  }
  return {};
}

Result<void> RankLoop::compute() {
  const Instant begin = net::steady_now();
  Result<void> ran = evaluate();
  const Instant end = net::steady_now();
  rank_.trace.add(begin, end, items_, ran.has_value());
  const int64_t us = (end - begin).value / 1000;
  work_us_ = static_cast<uint32_t>(std::clamp<int64_t>(us, 0, UINT32_MAX));
  return ran;
}

// --- answers ------------------------------------------------------------------------------------

// What lies in the return ring is gathered from where it is: no copy but the ring's.
void RankLoop::reply_outputs() {
  ReplyHead head;
  head.magic = kReplyMagic;
  head.sequence = steps_->sequence();
  head.outputs = static_cast<uint32_t>(items_.size());
  output_heads_.clear();
  output_heads_.reserve(items_.size());
  encoded_.clear();
  encoded_.reserve(items_.size());
  parts_.clear();
  parts_.push_back({reinterpret_cast<const uint8_t*>(&head), sizeof(head)});
  const auto width = static_cast<size_t>(rank_.executor->hidden_width());
  const float* rows = hidden_.data();
  std::span<const RowResult> results = results_;
  for (const RunItem& item : items_) {
    const auto count = static_cast<size_t>(item.row_count());
    OutputHead& out = output_heads_.emplace_back();
    out.lane = item.step.lane.value;
    out.step = item.step.step;
    std::span<const uint8_t> body;
    if (item.hop.samples()) {
      size_t n = 0;
      while (n < results.size() && results[n].step == item.step) ++n;
      body = encoded_.emplace_back(
          protocol::encode_results(rank_.mirror->epoch(), item.step, results.first(n)));
      results = results.subspan(n);
      out.results_bytes = body.size();
    } else {
      out.hidden_rows = static_cast<uint32_t>(count);
      out.floats = count * width;
      body = {reinterpret_cast<const uint8_t*>(rows), out.floats * sizeof(float)};
    }
    parts_.push_back({reinterpret_cast<const uint8_t*>(&out), sizeof(out)});
    parts_.push_back(body);
    rows += count * width;
  }
  (void)steps_->put_result(parts_, kNever);  // closed: nobody wants it any more
}

void RankLoop::reply_failure(const Failure& failure) {
  const std::string text = failure.error.to_string();
  ReplyHead head;
  head.magic = kReplyMagic;
  head.code = static_cast<uint16_t>(1 + static_cast<int>(failure.error.code()));
  head.sequence = steps_->sequence();
  head.text_bytes = static_cast<uint32_t>(text.size());
  reply_.clear();
  append(reply_, head);
  const std::span<const uint8_t> parts[] = {reply_, bytes_of(text)};
  (void)steps_->put_result(parts, kNever);
}

void RankLoop::handle_call(net::RingReader& ring, const FrameHead& frame, std::string_view args) {
  const Result<Json> answer = call_method(rank_, frame.method, args);
  const std::string text = answer ? answer->dump() : answer.error().to_string();
  ReplyHead head;
  head.magic = kReplyMagic;
  head.kind = FrameKind::kCall;
  if (!answer) head.code = static_cast<uint16_t>(1 + static_cast<int>(answer.error().code()));
  head.sequence = ring.sequence();
  head.call = frame.call;
  head.text_bytes = static_cast<uint32_t>(text.size());
  std::vector<uint8_t> bytes;
  append(bytes, head);
  const std::span<const uint8_t> parts[] = {bytes, bytes_of(text)};
  (void)ring.put_result(parts, kNever);
}

// --- driver mode --------------------------------------------------------------------------------

void RankLoop::handle_prepared(std::span<const uint8_t> bytes) {
  rank_.progress.phase.store(RankProgress::kCompute, std::memory_order_relaxed);
  std::optional<Failure> failure;
  if (!rank_.ready) {
    failure = Failure{RankStatus::kFailed, Error(Code::kUnavailable, "a step before the model")};
  } else if (Result<void> read = read_prepared(bytes, prepared_slots_, rows_, items_); !read) {
    failure = Failure{RankStatus::kFailed, std::move(read).error()};
  } else {
    size_t total = 0;
    for (const RunItem& item : items_) total += static_cast<size_t>(item.row_count());
    hidden_.resize(total * static_cast<size_t>(rank_.executor->hidden_width()));
    std::copy_n(frame_.hidden.data(), std::min(frame_.hidden.size(), hidden_.size()),
                hidden_.data());
    results_.clear();
    Result<void> ran = compute();
    if (!ran) failure = Failure{RankStatus::kFailed, std::move(ran).error()};
  }
  if (failure) reply_failure(*failure);
  finish(failure ? failure->status : RankStatus::kOk);
}

}  // namespace towline::worker
