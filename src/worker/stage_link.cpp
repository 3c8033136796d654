// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/stage_link.hpp"

#include <algorithm>
#include <cstring>

#include "base/fmt.hpp"

namespace towline::worker {

struct StageLink::Head {
  uint64_t frame = 0;
  uint64_t items = 0;      // floats or tokens
  uint32_t failed = 0;
  uint32_t padding[11]{};  // what follows lies on a cache line of its own
};

namespace {

template <class T>
Result<std::span<const T>> body_of(std::span<const uint8_t> message, size_t head, uint64_t items) {
  if (items > (message.size() - head) / sizeof(T)) {
    return errorf(Code::kDataCorrupt, "a stage gave {} items in {} bytes", items, message.size());
  }
  return std::span(reinterpret_cast<const T*>(message.data() + head), items);
}

template <class T>
std::span<const uint8_t> bytes_of(std::span<const T> items) {
  return {reinterpret_cast<const uint8_t*>(items.data()), items.size_bytes()};
}

}  // namespace

// True: a message is held. The one held before has been used, and its room is let go.
Result<bool> StageLink::look(net::Deadline deadline) {
  if (!held_.empty()) return true;
  Result<std::span<const uint8_t>> next = input_->next(deadline);
  if (!next && deadline == net::kNoWait && next.error().code() == Code::kDeadline) return false;
  if (!next) return std::move(next).error();
  if (next->size() < sizeof(Head)) {
    return errorf(Code::kDataCorrupt, "a stage gave {} bytes", next->size());
  }
  held_ = *next;
  std::memcpy(&held_frame_, held_.data(), sizeof(held_frame_));
  return true;
}

Result<std::span<const float>> StageLink::rows_of(uint64_t sequence) {
  do {  // those of frames that this stage failed before it read them
    held_ = {};
    TRY(look(kNever));
  } while (held_frame_ < sequence);
  if (held_frame_ > sequence) {
    return errorf(Code::kInternal, "the stage before gave frame {}, not {}", held_frame_, sequence);
  }
  Head head;
  std::memcpy(&head, held_.data(), sizeof(head));
  if (head.failed != 0) {
    return errorf(Code::kUnavailable, "the stage before failed frame {}", sequence);
  }
  return body_of<float>(held_, sizeof(head), head.items);
}

Result<void> StageLink::feed_held(policy::StepMirror& mirror) {
  Head head;
  std::memcpy(&head, held_.data(), sizeof(head));
  ASSIGN_OR_RETURN(const auto tokens, body_of<policy::FedToken>(held_, sizeof(head), head.items));
  held_ = {};
  last_learnt_ = head.frame;
  if (head.frame < first_valid_) return {};
  return mirror.feed(tokens);
}

Result<void> StageLink::learn_tokens(policy::StepMirror& mirror, uint64_t sequence,
                                     std::span<const policy::LaneStep> steps) {
  for (;;) {
    ASSIGN_OR_RETURN(const bool held, look(net::kNoWait));
    if (!held || held_frame_ + in_flight_ > sequence) break;
    TRY(feed_held(mirror));
  }
  const auto known = [&] {
    return std::ranges::all_of(steps, [&](policy::LaneStep s) { return mirror.tokens_ready(s); });
  };
  while (!known() && last_learnt_ < last_run_) {
    TRY(look(kNever));
    TRY(feed_held(mirror));
  }
  last_run_ = sequence;
  return {};
}

Result<void> StageLink::give(Head head, std::span<const uint8_t> body) {
  if (output_ == nullptr || given_ >= head.frame) return {};
  const std::span<const uint8_t> parts[] = {
      {reinterpret_cast<const uint8_t*>(&head), sizeof(head)}, body};
  TRY(output_->publish(parts, kNever));
  given_ = head.frame;
  return {};
}

Result<void> StageLink::give_rows(uint64_t sequence, std::span<const float> rows) {
  return give({sequence, rows.size(), 0, {}}, bytes_of(rows));
}

Result<void> StageLink::give_tokens(uint64_t sequence, std::span<const policy::FedToken> tokens) {
  return give({sequence, tokens.size(), 0, {}}, bytes_of(tokens));
}

void StageLink::give_failure(uint64_t sequence) {
  (void)give({sequence, 0, 1, {}}, {});  // closed: nobody waits for it
}

}  // namespace towline::worker
