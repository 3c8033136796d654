// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Between a node's agent and its ranks (worker/ring_frame.hpp, prepared_step.hpp, rpc.hpp): frames,
// answers, prepared inputs and the arguments of calls. The first byte chooses; spans stay inside
// the bytes, and memory in proportion to them.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/check.hpp"
#include "worker/emulated_executor.hpp"
#include "worker/null_executor.hpp"
#include "worker/prepared_step.hpp"
#include "worker/ring_frame.hpp"
#include "worker/rpc.hpp"
#include "worker/stage_executor.hpp"

namespace {

using namespace towline;
using namespace towline::worker;

// As in a ring's slot: aligned for the widest part.
class Aligned {
 public:
  explicit Aligned(std::span<const uint8_t> bytes)
      : lines_(bytes.size() / 64 + 1), size_(bytes.size()) {
    if (size_ > 0) std::memcpy(lines_.data(), bytes.data(), size_);
  }
  std::span<const uint8_t> bytes() const {
    return {reinterpret_cast<const uint8_t*>(lines_.data()), size_};
  }

 private:
  struct alignas(64) Line {
    uint8_t bytes[64];
  };
  std::vector<Line> lines_;
  size_t size_;
};

template <class T>
void inside(std::span<const uint8_t> all, std::span<const T> part) {
  if (part.empty()) return;
  const auto* begin = reinterpret_cast<const uint8_t*>(part.data());
  CHECK(begin >= all.data() && begin + part.size_bytes() <= all.data() + all.size(), part.size());
}

void frame(std::span<const uint8_t> bytes) {
  FrameView view;
  if (!view.parse(bytes)) return;
  inside(bytes, view.feeds);
  inside(bytes, view.runs);
  inside(bytes, view.hidden);
  inside(bytes, std::span<const char>(view.args));
  for (const std::span<const uint8_t> message : view.messages) inside(bytes, message);
}

void prepared(std::span<const uint8_t> bytes) {
  std::vector<policy::SlotState> slots;
  std::vector<Row> rows;
  std::vector<RunItem> items;
  if (!read_prepared(bytes, slots, rows, items)) return;
  for (const Row& row : rows) {
    CHECK(row.state != nullptr && row.from >= 0 && row.from < row.to, row.from, row.to);
    CHECK(row.state->tokens.size() == static_cast<size_t>(row.to), row.to);
    CHECK(row.state->blocks.size() * 16 >= static_cast<size_t>(row.to), row.to);
    CHECK(row.state->tokens.size() <= 4 * bytes.size(), bytes.size());
  }
}

// What a coordinator tells a node to load; nothing is loaded here.
void descriptions(const Json& json) {
  if (const auto init = InitModel::parse(json)) CHECK(init->limits.slots >= 1, init->limits.slots);
  if (const auto args = AdapterArgs::parse(json)) CHECK(args->id >= 0, args->id);
  if (const auto stage = StageExecutorOptions::parse(json)) {
    CHECK(stage->max_rows >= 1 && stage->kv_blocks >= 1, stage->max_rows, stage->kv_blocks);
    const auto again = StageExecutorOptions::parse(stage->to_json());
    CHECK(again.has_value() && again->to_json() == stage->to_json());
  }
  if (const auto device = EmulatedExecutorOptions::parse(json)) {
    CHECK(device->max_rows >= 1 && device->kv_blocks >= 0, device->max_rows, device->kv_blocks);
  }
  (void)NullExecutorOptions::parse(json);
}

// Arguments as JSON, for every method but those that load or would touch files. The executor is a
// stand-in: it is the arguments that are looked at.
void call(std::string_view args) {
  RankContext rank;
  NullExecutorOptions options;
  options.compute_us = 0;
  auto executor = NullExecutor::create(options, rank.place);
  CHECK(executor.has_value());
  rank.executor = *std::move(executor);
  policy::MirrorLimits limits;
  limits.blocks = rank.executor->kv_blocks();
  limits.layers = rank.executor->layers();
  rank.mirror = std::make_unique<policy::StepMirror>(limits);
  rank.ready = true;
  for (const MethodRow& row : methods()) {
    if (row.method == Method::kProfile) continue;  // it writes to the temporary folder
    const auto answer = call_method(rank, static_cast<uint16_t>(row.method), args);
    CHECK(answer.has_value() || !answer.error().message().empty(), row.name);
  }
  if (const auto json = parse_json(args, "fuzz")) {
    (void)Geometry::parse(*json);
    descriptions(*json);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const Aligned copy({data + 1, size - 1});
  const std::span<const uint8_t> bytes = copy.bytes();
  switch (data[0]) {
    case 'f': frame(bytes); break;
    case 'r': (void)RankReply::parse(bytes); break;
    case 'p': prepared(bytes); break;
    case 'c': call({reinterpret_cast<const char*>(bytes.data()), bytes.size()}); break;
    default: break;
  }
  return 0;
}
