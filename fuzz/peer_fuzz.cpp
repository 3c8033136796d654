// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// A node's decisions (policy/peer.hpp) under whatever the coordinator and other nodes send. The
// input is a list of records: a byte for the kind, two for the size, and the payload.
//   0  a step message as bytes of the wire       1  rows from another node: lane, step, count
//   2  a sampled token: slot, generation, position, token        3  the run under way ended
//   4  what the ranks hold was lost              5  a step in which the fuzzer chooses the numbers
// Every input that is handed in comes back once, with a run or dropped; a run's rows are as many as
// its input brought.
#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <vector>

#include "base/check.hpp"
#include "policy/peer.hpp"
#include "protocol/messages.hpp"

namespace {

using namespace towline;
using namespace towline::policy;

class Bytes {
 public:
  explicit Bytes(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  bool empty() const { return bytes_.empty(); }
  uint8_t byte() {
    if (bytes_.empty()) return 0;
    const uint8_t value = bytes_.front();
    bytes_ = bytes_.subspan(1);
    return value;
  }
  std::span<const uint8_t> take(size_t n) {
    const auto piece = bytes_.first(std::min(n, bytes_.size()));
    bytes_ = bytes_.subspan(piece.size());
    return piece;
  }
  // Mostly small, sometimes at the ends of its type.
  template <class Int>
  Int number() {
    const uint8_t b = byte();
    if (b == 255) return std::numeric_limits<Int>::max();
    if (b == 254) return std::numeric_limits<Int>::min();
    return static_cast<Int>(static_cast<int>(b) - 3);
  }

 private:
  std::span<const uint8_t> bytes_;
};

NodeStep made_step(Bytes& in, const StepMirror& mirror) {
  NodeStep m;
  const uint8_t flags = in.byte();
  m.full = (flags & 1) != 0;
  m.epoch = (flags & 2) != 0 ? Epoch(in.number<int64_t>()) : mirror.epoch();
  m.number = (flags & 4) != 0 ? in.number<int64_t>()
                              : static_cast<int64_t>(static_cast<uint64_t>(mirror.number()) + 1);
  if ((flags & 8) != 0) {
    const auto previous = NodeId(in.number<int32_t>());
    m.opened = {{LaneId(in.number<int32_t>()), {in.number<int32_t>(), in.number<int32_t>()},
                 previous, NodeId(in.number<int32_t>()), NodeId(in.number<int32_t>())}};
  }
  if ((flags & 16) != 0) {
    FreshSlot fresh;
    fresh.slot = {in.number<uint32_t>(), static_cast<uint16_t>(in.byte())};
    fresh.lane = LaneId(in.number<int32_t>());
    fresh.spec.prompt_length = in.number<int32_t>();
    for (uint8_t n = in.byte() % 40; n > 0; --n) fresh.tokens.push_back(in.byte());
    for (uint8_t n = in.byte() % 4; n > 0; --n) fresh.blocks.push_back(in.number<int32_t>());
    m.fresh.push_back(std::move(fresh));
  }
  if ((flags & 32) != 0) m.closed = {LaneId(in.number<int32_t>())};
  if ((flags & 64) != 0) m.finished = {{in.number<uint32_t>(), static_cast<uint16_t>(in.byte())}};
  if ((flags & 128) != 0) {
    m.lane = LaneId(in.number<int32_t>());
    m.step = in.number<int64_t>();
    for (uint8_t n = in.byte() % 4; n > 0; --n) {
      m.rows.push_back({in.number<uint32_t>(), in.number<int32_t>(), in.number<int32_t>(),
                        in.byte() % 32u, in.number<int32_t>()});
    }
  }
  return m;
}

class Driver {
 public:
  Driver() : peer_(limits()) {}

  void record(uint8_t kind, Bytes in) {
    std::vector<PeerAction> actions;
    switch (kind % 6) {
      case 0: {
        NodeStep step;
        if (protocol::decode(in.take(SIZE_MAX), step)) peer_.on_message(std::move(step), actions);
        break;
      }
      case 1: {
        const LaneStep step{LaneId(in.number<int32_t>()), in.number<int64_t>()};
        const InputId id(next_input_++);
        held_.insert(id.value);
        rows_.push_back(in.byte());
        peer_.on_input(step, rows_.back(), id, actions);
        break;
      }
      case 2: {
        const SlotGen slot{in.number<uint32_t>(), static_cast<uint16_t>(in.byte())};
        const auto position = in.number<int32_t>();
        peer_.on_feed({{slot, position, in.number<int32_t>()}}, actions);
        break;
      }
      case 3:
        if (peer_.busy()) peer_.on_run_done(actions);
        break;
      case 4: peer_.on_state_lost("fuzz", actions); break;
      default: peer_.on_message(made_step(in, peer_.mirror()), actions); break;
    }
    perform(actions);
  }

 private:
  static PeerLimits limits() {
    PeerLimits l;
    l.mirror.slots = 64;
    l.mirror.blocks = 128;
    l.mirror.context = 256;
    l.mirror.vocab = 250;
    l.mirror.step_rows = 64;
    l.mirror.pending = 16;
    l.mirror.layers = {0, 16};
    l.run_rows = 32;
    l.held_inputs = 8;
    return l;
  }
  void release(InputId id) { CHECK(held_.erase(id.value) == 1, id.value); }
  void perform(const std::vector<PeerAction>& actions) {
    for (const PeerAction& action : actions) {
      if (const auto* drop = std::get_if<DropInput>(&action)) release(drop->input);
      if (const auto* run = std::get_if<RunSteps>(&action)) {
        CHECK(!run->pieces.empty());
        for (const RunPiece& piece : run->pieces) {
          CHECK(piece.row_count() >= 1, piece.row_count());
          CHECK(piece.hop.embeds() || piece.input.value >= 0, piece.step.step);
          if (piece.input.value < 0) continue;
          release(piece.input);
          CHECK(piece.row_count() == rows_[static_cast<size_t>(piece.input.value)]);
        }
      }
    }
    CHECK(held_.size() == peer_.held(), held_.size(), peer_.held());
    CHECK(peer_.held() <= 8, peer_.held());
  }

  Peer peer_;
  std::set<int64_t> held_;
  std::vector<int32_t> rows_;  // [input]
  int64_t next_input_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Driver driver;
  Bytes bytes({data, size});
  while (!bytes.empty()) {
    const uint8_t kind = bytes.byte();
    const size_t length = bytes.byte() + size_t{256} * bytes.byte();
    driver.record(kind, Bytes(bytes.take(length)));
  }
  return 0;
}
