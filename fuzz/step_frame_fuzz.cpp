// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Bytes of a peer: every message kind is decoded; a step is applied to a mirror, alone and after a
// good full form; what decodes must encode to something that decodes to the same.
#include <cstdint>
#include <span>

#include "base/check.hpp"
#include "protocol/messages.hpp"

using namespace towline;
using protocol::MessageKind;

namespace {

// NaN is not equal to itself, so the encodings are compared.
template <class Message>
void read(std::span<const uint8_t> bytes) {
  Message message;
  if (!protocol::decode(bytes, message)) return;
  const std::vector<uint8_t> again = protocol::encode(message);
  Message back;
  CHECK(protocol::decode(again, back).has_value());
  CHECK(protocol::encode(back) == again);
}

void apply(std::span<const uint8_t> bytes) {
  policy::NodeStep step;
  if (!protocol::decode(bytes, step)) return;
  policy::MirrorLimits limits;
  limits.slots = 64;
  limits.blocks = 256;
  limits.context = 512;
  limits.vocab = 2000;
  limits.layers = {0, 16};
  policy::StepMirror fresh(limits);
  (void)fresh.apply(step);
  // After a state in which most of the sample step is possible.
  policy::StepMirror mirror(limits);
  policy::NodeStep full;
  full.epoch = step.epoch;
  full.number = step.number == INT64_MIN ? step.number : step.number - 1;
  full.full = true;
  full.opened = {{LaneId(3), {0, 4}, NodeId(-1), NodeId(-1), NodeId(0)}};
  for (const uint32_t slot : {4u, 5u, 9u}) {
    policy::FreshSlot f;
    f.slot = {slot, static_cast<uint16_t>(slot == 9 ? 2 : slot == 5 ? 65535 : 1)};
    f.lane = LaneId(3);
    f.spec.prompt_length = 5;
    f.tokens = {1, 2, 3, 4, 5};
    f.blocks = {1};
    full.fresh.push_back(f);
  }
  if (!mirror.apply(full)) return;
  step.base_hash = 0;
  const uint64_t before = mirror.hash();
  if (!mirror.apply(step)) CHECK(mirror.needs_full() || mirror.hash() == before);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::span<const uint8_t> bytes(data + 1, size - 1);
  switch (static_cast<MessageKind>(data[0])) {
    case MessageKind::kHandshake:
      read<protocol::Handshake>(bytes);
      break;
    case MessageKind::kStep:
      read<policy::NodeStep>(bytes);
      apply(bytes);
      break;
    case MessageKind::kActivations: {
      protocol::ActivationsHead head;
      std::span<const float> rows;
      (void)protocol::decode(bytes, head, rows);
      break;
    }
    case MessageKind::kResults:
      read<protocol::Results>(bytes);
      break;
    case MessageKind::kTokenFeed:
      read<protocol::TokenFeed>(bytes);
      break;
    case MessageKind::kAck:
      read<protocol::Ack>(bytes);
      break;
    case MessageKind::kRpcRequest:
      read<protocol::RpcRequest>(bytes);
      break;
    case MessageKind::kRpcReply:
      read<protocol::RpcReply>(bytes);
      break;
    case MessageKind::kHeartbeat:
      read<protocol::Heartbeat>(bytes);
      break;
    case MessageKind::kRoster:  // JSON: json_fuzz
      break;
  }
  return 0;
}
