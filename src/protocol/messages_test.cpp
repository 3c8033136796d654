// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "protocol/messages.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "base/for_seeds.hpp"
#include "policy/testing_step_script.hpp"
#include "protocol/flat.hpp"
#include "protocol/testing_samples.hpp"
#include "protocol/varint_codec.hpp"

namespace towline::protocol {
namespace {

using Bytes = std::vector<uint8_t>;

template <class Message>
void expect_round_trip(const Message& message) {
  Message back;
  const Bytes bytes = encode(message);
  const Result<void> decoded = decode(bytes, back);
  ASSERT_TRUE(decoded) << decoded.error().to_string();
  EXPECT_EQ(back, message);
}

TEST(Messages, EveryKindComesBack) {
  expect_round_trip(testing::sample_step());
  expect_round_trip(testing::sample_results());
  expect_round_trip(testing::sample_feed());
  expect_round_trip(testing::sample_ack());
  expect_round_trip(testing::sample_heartbeat());
  expect_round_trip(testing::sample_request());
  expect_round_trip(testing::sample_reply());
  expect_round_trip(testing::sample_handshake());
  expect_round_trip(policy::NodeStep{});
  expect_round_trip(Results{});
  expect_round_trip(Handshake{});
}

TEST(Messages, StepsOfRandomScriptsComeBack) {
  for_seeds(40, [](Rng& rng) {
    policy::StepScriptOptions options;
    options.fed = rng.below(2) == 0;
    options.adapters = 2;
    policy::StepScript script(options, rng());
    policy::StepSender sender(script.limits(), Epoch(1));
    policy::NodeStep back;  // used again, as a rank does
    for (int i = 0; i < 60; ++i) {
      Result<policy::NodeStep> step = sender.next(script.draft());
      ASSERT_TRUE(step);
      ASSERT_TRUE(decode(encode(*step), back));
      ASSERT_EQ(back, *step);
      while (!script.in_flight().empty()) {
        for (const auto& s : script.complete()) {
          ASSERT_TRUE(sender.learn(s.slot, s.position, s.token));
        }
      }
    }
    ASSERT_TRUE(decode(encode(sender.snapshot()), back));
    EXPECT_EQ(back, sender.snapshot());
  });
}

// The ablation's codec says the same (but for sampling parameters that it leaves out).
TEST(Messages, VarintFormComesBack) {
  policy::NodeStep step = testing::sample_step();
  step.fresh[0].spec.sampling.logit_bias.clear();
  const Bytes bytes = encode_varint(step);
  policy::NodeStep back;
  ASSERT_TRUE(decode_varint(bytes, back));
  EXPECT_EQ(back, step);
  for (size_t n = 0; n < bytes.size(); ++n) {
    EXPECT_FALSE(decode_varint(std::span(bytes).first(n), back));
  }
}

TEST(Messages, ActivationsCarryTheirRows) {
  const ActivationsHead head = testing::sample_head();
  Bytes bytes = encode(head);
  EXPECT_EQ(bytes.size() % 64, 0u);
  const std::vector<float> rows = {1, 2, 3, 4, 5, 6};
  const size_t at = bytes.size();
  bytes.resize(at + rows.size() * sizeof(float));
  std::memcpy(bytes.data() + at, rows.data(), rows.size() * sizeof(float));
  ActivationsHead back;
  std::span<const float> got;
  ASSERT_TRUE(decode(bytes, back, got));
  EXPECT_EQ(back, head);
  EXPECT_EQ(std::vector<float>(got.begin(), got.end()), rows);
  bytes.pop_back();
  EXPECT_EQ(decode(bytes, back, got).error().code(), Code::kDataCorrupt);
  for (size_t n = 0; n < bytes.size(); ++n) {
    EXPECT_FALSE(decode(std::span(bytes).first(n), back, got));
  }
}

// --- sizes: what the whole design is for --------------------------------------------------------

// A node that embeds and samples, `batch` sequences of `context` tokens, each generating.
struct Steady {
  Steady(int32_t batch, int32_t context, policy::DeltaForm form, bool fed)
      : sender(policy::MirrorLimits{}, Epoch(1), form), batch_(batch), fed_(fed) {
    policy::NodeStep step;
    step.opened.push_back({LaneId(0), {0, 4}, NodeId(-1), NodeId(-1), NodeId(0)});
    for (int32_t i = 0; i < batch; ++i) {
      policy::FreshSlot f;
      f.slot = {static_cast<uint32_t>(i), 1};
      f.lane = LaneId(0);
      f.spec.seq = SeqId(i);
      f.spec.prompt_length = context;
      f.tokens.assign(static_cast<size_t>(context), 100000);
      // Rows differ in their place within a block, as they do in life.
      f.computed = context - 1 - i % 16;
      for (int32_t b = 0; b * 16 < f.computed; ++b) f.blocks.push_back(b);
      f.tokens.resize(static_cast<size_t>(f.computed));
      f.spec.prompt_length = f.computed;
      step.fresh.push_back(f);
    }
    EXPECT_TRUE(sender.next(step));
    (void)next();  // implied rows need a step to refer to
  }
  Bytes next() {
    policy::NodeStep step;
    step.lane = LaneId(0);
    step.step = step_++;
    for (int32_t i = 0; i < batch_; ++i) {
      const policy::SlotState& s = sender.mirror().slots()[static_cast<size_t>(i)];
      const uint32_t how = fed_ ? policy::StepRow::kFed : policy::StepRow::kToken;
      if (s.computed % 16 == 0) step.new_blocks.push_back({static_cast<uint32_t>(i), 7});
      step.rows.push_back({static_cast<uint32_t>(i), s.computed, 1,
                           policy::StepRow::kSamples | how, fed_ ? 0 : 100000});
    }
    Result<policy::NodeStep> message = sender.next(step);
    EXPECT_TRUE(message);
    for (int32_t i = 0; fed_ && i < batch_; ++i) {
      const policy::SlotState& s = sender.mirror().slots()[static_cast<size_t>(i)];
      EXPECT_TRUE(sender.learn({static_cast<uint32_t>(i), 1}, s.computed - 1, 100000));
    }
    return encode(*message);
  }
  policy::StepSender sender;
  int32_t batch_;
  bool fed_;
  int64_t step_ = 0;
};

TEST(Messages, DeltaBytesAreFlatInContextAndSmallPerRequest) {
  for (const bool fed : {false, true}) {
    const auto form = fed ? policy::DeltaForm::kImplied : policy::DeltaForm::kExplicit;
    const size_t one = Steady(1, 1024, form, fed).next().size();
    Steady short_context(256, 128, form, fed);
    Steady long_context(256, 8192, form, fed);
    for (int i = 0; i < 20; ++i) {
      const size_t bytes = short_context.next().size();
      EXPECT_EQ(bytes, long_context.next().size());
      // C4: a continuing request, its block included.
      EXPECT_LE(bytes - one, fed ? 256u : 256u * 20);
    }
  }
  const size_t full = Steady(256, 1024, policy::DeltaForm::kFull, false).next().size();
  EXPECT_GT(full, 256u * 1024 * 4);
}

// --- golden bytes: version 2 is what these files say --------------------------------------------

std::string hex(const Bytes& bytes) {
  std::string out;
  for (size_t i = 0; i < bytes.size(); ++i) {
    out += format("{:02x}", bytes[i]);
    if (i % 32 == 31) out += '\n';
  }
  if (out.empty() || out.back() != '\n') out += '\n';
  return out;
}

Bytes unhex(const std::string& text) {
  Bytes out;
  for (size_t i = 0; i + 1 < text.size();) {
    if (text[i] == '\n') {
      ++i;
      continue;
    }
    out.push_back(static_cast<uint8_t>(std::stoi(text.substr(i, 2), nullptr, 16)));
    i += 2;
  }
  return out;
}

// The stored bytes decode to the sample, and the sample encodes to the stored bytes. With
// TOWLINE_WRITE_GOLDEN=1 the files are written instead, and the fuzzing seeds with them: only when
// a new wire version has been decided.
template <class Message>
void check_golden(const std::string& name, MessageKind kind, const Message& message) {
  const std::string path = "src/protocol/golden/v2/" + name + ".hex";
  const Bytes bytes = encode(message);
  if (std::getenv("TOWLINE_WRITE_GOLDEN") != nullptr) {
    ASSERT_TRUE(write_file_atomic(path, hex(bytes)));
    std::string seed(1, static_cast<char>(kind));
    seed.append(bytes.begin(), bytes.end());
    ASSERT_TRUE(write_file_atomic("fuzz/corpus/step_frame/" + name, seed));
  }
  Result<std::string> stored = read_file(path);
  ASSERT_TRUE(stored) << stored.error().to_string();
  EXPECT_EQ(hex(bytes), *stored) << name;
  if constexpr (!std::is_same_v<Message, ActivationsHead>) {
    Message back;
    ASSERT_TRUE(decode(unhex(*stored), back)) << name;
    EXPECT_EQ(back, message);
  }
}

TEST(Messages, GoldenBytesOfVersion2) {
  check_golden("step", MessageKind::kStep, testing::sample_step());
  check_golden("results", MessageKind::kResults, testing::sample_results());
  check_golden("token_feed", MessageKind::kTokenFeed, testing::sample_feed());
  check_golden("activations", MessageKind::kActivations, testing::sample_head());
  check_golden("ack", MessageKind::kAck, testing::sample_ack());
  check_golden("heartbeat", MessageKind::kHeartbeat, testing::sample_heartbeat());
  check_golden("rpc_request", MessageKind::kRpcRequest, testing::sample_request());
  check_golden("rpc_reply", MessageKind::kRpcReply, testing::sample_reply());
  check_golden("handshake", MessageKind::kHandshake, testing::sample_handshake());
}

// --- bad input ----------------------------------------------------------------------------------

TEST(Messages, TruncatedAndFlippedBytesAreRefusedOrRead) {
  const Bytes good = encode(testing::sample_step());
  policy::NodeStep step;
  for (size_t n = 0; n < good.size(); ++n) (void)decode(std::span(good).first(n), step);
  size_t refused = 0;
  for_seeds(3000, [&](Rng& rng) {
    Bytes bad = good;
    for (uint64_t k = rng.below(4) + 1; k > 0; --k) {
      bad[rng.below(bad.size())] = static_cast<uint8_t>(rng());
    }
    policy::NodeStep out;
    refused += decode(bad, out) ? 0 : 1;
    policy::StepMirror mirror(policy::MirrorLimits{});
    (void)mirror.apply(out);
  });
  EXPECT_GT(refused, 100u);
  EXPECT_EQ(decode({}, step).error().code(), Code::kDataCorrupt);
}

TEST(Messages, SharedOffsetsCannotUnfoldIntoMuchMemory) {
  flatbuffers::FlatBufferBuilder b;
  const auto tokens = b.CreateVector(std::vector<int32_t>(20'000, 1));
  const auto one = wire::CreateFresh(b, 1, 1, 0, 0, 0, 1, -1, false, false, 0, 0, tokens, tokens);
  const auto many = b.CreateVector(std::vector<flatbuffers::Offset<wire::Fresh>>(20'000, one));
  wire::NodeStepBuilder step(b);
  step.add_fresh(many);
  const Bytes bytes = finish(b, step.Finish());
  EXPECT_LT(bytes.size(), 200'000u);  // which would become 3 GB
  policy::NodeStep out;
  const Result<void> decoded = decode(bytes, out);
  ASSERT_FALSE(decoded);
  EXPECT_NE(decoded.error().message().find("unfolds"), std::string::npos);
}

TEST(Messages, WhatMustBeUnderstoodIsRefused) {
  flatbuffers::FlatBufferBuilder b;
  wire::NodeStepBuilder step(b);
  step.add_must_understand(4);
  const Bytes bytes = finish(b, step.Finish());
  policy::NodeStep out;
  EXPECT_EQ(decode(bytes, out).error().code(), Code::kUnsupported);
}

TEST(Messages, UnalignedBytesAreRead) {
  const Bytes good = encode(testing::sample_step());
  Bytes shifted(good.size() + 1);
  std::memcpy(shifted.data() + 1, good.data(), good.size());
  policy::NodeStep out;
  ASSERT_TRUE(decode(std::span(shifted).subspan(1), out));
  EXPECT_EQ(out, testing::sample_step());
}

// --- handshake ----------------------------------------------------------------------------------

TEST(Handshake, SaysEveryDifferenceInOneSentence) {
  Handshake mine = testing::sample_handshake();
  mine.role = "coordinator";
  mine.name = "main";
  Handshake theirs = testing::sample_handshake();
  EXPECT_TRUE(check_handshake(mine, theirs));
  theirs.minor = 9;           // may know more
  theirs.layers = {0, 2};     // their own business
  theirs.model_hash = 0;      // not loaded yet
  EXPECT_TRUE(check_handshake(mine, theirs));
  theirs.major = 3;
  theirs.model_hash = 0xcc;
  theirs.hidden_width = 4096;
  const Result<void> refused = check_handshake(mine, theirs);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kPermissionDenied);
  EXPECT_EQ(refused.error().message(),
            "node 'left' does not fit coordinator 'main': wire version 2.0 (build 0.1.0) here, "
            "3.9 (build 0.1.0) there; model 000000000000aaaa here, 00000000000000cc there; "
            "hidden width 2048 here, 4096 there");
}

}  // namespace
}  // namespace towline::protocol
