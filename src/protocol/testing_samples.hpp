// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// One message of each kind with every field set, for golden bytes and fuzzing seeds.
#pragma once

#include "protocol/messages.hpp"

namespace towline::protocol::testing {

inline policy::NodeStep sample_step() {
  policy::NodeStep m;
  m.epoch = Epoch(7);
  m.number = 42;
  m.base_hash = 0x0123456789abcdef;
  m.closed = {LaneId(3)};
  m.finished = {{9, 2}};
  m.preempted = {{4, 1}, {5, 65535}};
  m.opened = {{LaneId(11), {4, 9}, NodeId(2), NodeId(-1), NodeId(0)}};
  policy::FreshSlot fresh{{12, 3}, LaneId(11), {}, 16, {}, {100, 101}};
  fresh.spec = {SeqId(77), 1, 18, 2, true, false, {}};
  fresh.spec.sampling.temperature = 0.5f;
  fresh.spec.sampling.seed = 99;
  fresh.spec.sampling.logit_bias = {{5, -1.5f}};
  for (int32_t t = 0; t < 18; ++t) fresh.tokens.push_back(1000 + t);
  m.fresh = {fresh};
  m.resumed = {{{4, 1}, LaneId(11), 0, 5, {6, 7}, {8, 9}}};
  m.lane = LaneId(11);
  m.step = 5;
  m.implied_step = 4;
  m.implied = {5, 1};
  m.rows = {{12, 16, 2, policy::StepRow::kSamples | policy::StepRow::kEveryRow, 0},
            {4, 0, 7, policy::StepRow::kSamples | policy::StepRow::kToken, 31}};
  m.new_blocks = {{0, 55}, {1, 56}};
  return m;
}

inline Results sample_results() {
  Results m;
  m.epoch = Epoch(7);
  m.step = {LaneId(11), 5};
  policy::RowResult plain{m.step, {12, 3}, 18, true, {40, 0, {}}, {}};
  policy::RowResult full{m.step, {4, 1}, 7, true, {41, -0.5f, {{41, -0.5f}, {2, -1.0f}}}, {}};
  full.extras.edit() = {{{3, -2.0f, {}}}, 1, {0.25f, -4}, 2, {}};
  policy::RowResult failed{m.step, {5, 9}, 0, false, {}, {}};
  failed.extras.edit().error = "no finite logit";
  m.rows = {plain, full, failed};
  return m;
}

inline TokenFeed sample_feed() {
  return {Epoch(7), {LaneId(11), 5}, {{{12, 3}, 18, 40}, {{4, 1}, 7, 41}}};
}
inline ActivationsHead sample_head() { return {Epoch(7), {LaneId(11), 5}, 2, 3}; }
inline Ack sample_ack() {
  return {Epoch(7), 42, Ack::Status::kNeedSync, 0xfedcba9876543210, "message 44 came after 42"};
}
inline Heartbeat sample_heartbeat() {
  return {Epoch(7), NodeId(3), 123456789, 42, 1000, 2, 17, 5'000'000'000, "{}"};
}
inline RpcRequest sample_request() { return {5, 12, 2000, R"({"id":3})"}; }
inline RpcReply sample_reply() {
  return {5, 1, false, Code::kNotFound, "adapter 3 is not there", "{}"};
}
inline Handshake sample_handshake() {
  Handshake m;
  m.build = "0.1.0";
  m.role = "node";
  m.name = "left";
  m.address = "tcp://127.0.0.1:4000";
  m.incarnation = 987654321;
  m.node = NodeId(2);
  m.model_hash = 0xaaaa;
  m.config_hash = 0xbbbb;
  m.layers = {4, 9};
  m.kv_blocks = 512;
  m.hidden_width = 2048;
  m.vocab = 32000;
  m.context = 8192;
  m.slots = 4096;
  m.max_rows = 512;
  m.features = 1;
  return m;
}

}  // namespace towline::protocol::testing
