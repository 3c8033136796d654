// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What lies in one message of a node's broadcast ring, and in one result of a rank.
//
//   frame  = head | feeds | runs | message lengths | args | step messages | hidden rows
//   reply  = head | text | outputs (head, encoded results, hidden rows)
//
// The coordinator's step messages are passed on as they came, byte for byte, so that a rank decodes
// what the coordinator encoded. The rest is plain memory: writer and readers are one binary.
// Lengths are checked all the same, because a frame is also what a bug would overwrite.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "policy/step_delta.hpp"
#include "policy/step_result.hpp"

namespace towline::worker {

enum class FrameKind : uint16_t {
  kSteps = 1,     // apply messages and feeds, run the runs
  kCall = 2,      // a registered method (worker/rpc.hpp)
  kPrepared = 3,  // driver mode: inputs that rank 0 prepared (worker/driver_group.hpp)
};

struct RunHead {
  int32_t lane = 0;
  uint32_t hidden_rows = 0;   // rows of input that come with it; 0 where tokens are embedded
  int64_t step = 0;
};

// What the node's agent asks of its ranks. The spans must live until submit() returns.
enum class StepCodec : uint16_t { kFlat = 0, kVarint = 1 };  // kVarint: the ablation's
struct RankCommand {
  StepCodec codec = StepCodec::kFlat;
  std::vector<std::span<const uint8_t>> messages;  // encoded NodeSteps, in order
  std::vector<policy::FedToken> feeds;             // applied after the messages
  std::vector<policy::LaneStep> runs;              // evaluated together, in this order
  std::vector<std::span<const float>> hidden;      // [runs] rows of input, empty if it embeds
  uint32_t hidden_width = 0;
};

struct FrameHead {
  uint32_t magic = 0;
  FrameKind kind = FrameKind::kSteps;
  uint16_t method = 0;  // of a call; a StepCodec otherwise
  uint32_t messages = 0, feeds = 0, runs = 0, args_bytes = 0;
  uint64_t call = 0;
  uint64_t floats = 0;
};

// A frame being sent: parts for RingWriter::publish(). Used again, it allocates nothing.
class FrameDraft {
 public:
  std::span<const std::span<const uint8_t>> steps(const RankCommand& command);
  std::span<const std::span<const uint8_t>> call(uint64_t call, uint16_t method,
                                                 std::string_view args);
  // `hidden`: rows of input, none where tokens are embedded.
  std::span<const std::span<const uint8_t>> prepared(std::span<const uint8_t> bytes,
                                                     std::span<const float> hidden);

 private:
  void add(std::span<const uint8_t> bytes, size_t alignment);
  std::vector<uint8_t> fixed_;
  std::vector<std::span<const uint8_t>> parts_;
  size_t size_ = 0;
};

struct FrameView {
  FrameHead head;
  std::vector<std::span<const uint8_t>> messages;
  std::span<const policy::FedToken> feeds;
  std::span<const RunHead> runs;
  std::string_view args;
  std::span<const float> hidden;   // of all runs that bring some, one after the other

  // In place: valid as long as the bytes. The vector keeps its capacity.
  Result<void> parse(std::span<const uint8_t> bytes);
};

enum class RankStatus : uint32_t {
  kOk = 0,
  kNeedSync = 1,  // a message did not fit the mirror; nothing was run
  kFailed = 2,    // the executor (or a message's content) failed
};

inline constexpr uint32_t kReplyMagic = 0x6c705254;  // "TRpl"

struct ReplyHead {
  uint32_t magic = 0;
  FrameKind kind = FrameKind::kSteps;
  uint16_t code = 0;               // of a call: 0 well, else 1 + Code
  uint64_t sequence = 0;           // of the frame answered
  uint64_t call = 0;
  uint32_t text_bytes = 0;         // error or JSON
  uint32_t outputs = 0;
};

struct OutputHead {
  int32_t lane = 0;
  uint32_t hidden_rows = 0;
  int64_t step = 0;
  uint64_t results_bytes = 0;
  uint64_t floats = 0;
};

// What one lane step of a run left: hidden rows for the next node, or results.
struct StepOutput {
  policy::LaneStep step;
  std::vector<float> hidden;                // [hidden_rows][width]
  uint32_t hidden_rows = 0;
  std::vector<policy::RowResult> rows;      // where tokens are sampled
};

struct RankReply {
  ReplyHead head;
  std::string text;
  std::vector<StepOutput> outputs;
  static Result<RankReply> parse(std::span<const uint8_t> bytes);
};

}  // namespace towline::worker
