// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "net/frame.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/for_seeds.hpp"
#include "net/faults.hpp"

namespace towline::net {
namespace {

std::vector<uint8_t> random_bytes(Rng& rng, size_t n) {
  std::vector<uint8_t> bytes(n);
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(rng());
  return bytes;
}

FrameBytes make_frame(std::span<const uint8_t> payload, uint32_t seq) {
  FrameHeader header;
  header.type = FrameType::kData;
  header.kind = 77;
  header.epoch = 5;
  header.seq = seq;
  header.ack = 9;
  header.consumed = 8;
  return finish_frame(draft_frame({&payload, 1}), header);
}

TEST(Frame, StreamInAnyPiecesGivesTheFramesBack) {
  for_seeds(100, [](Rng& rng) {
    std::vector<std::vector<uint8_t>> payloads;
    std::vector<uint8_t> stream;
    for (uint32_t i = 0; i < 6; ++i) {
      payloads.push_back(random_bytes(rng, rng.below(i == 0 ? 1000 : 5000)));
      const FrameBytes frame = make_frame(payloads.back(), i);
      stream.insert(stream.end(), frame->begin(), frame->end());
    }
    FrameParser parser(5000);
    size_t at = 0, seen = 0;
    while (at < stream.size()) {
      const size_t n = std::min<size_t>(stream.size() - at, 1 + rng.below(3000));
      std::span<const uint8_t> piece(stream.data() + at, n);
      at += n;
      while (!piece.empty()) {
        Result<std::optional<RawFrame>> frame = parser.next(piece);
        ASSERT_TRUE(frame) << frame.error().message();
        if (!*frame) continue;
        EXPECT_EQ((*frame)->payload, payloads[seen]);
        EXPECT_EQ((*frame)->header.seq, seen);
        EXPECT_EQ((*frame)->header.kind, 77);
        ++seen;
      }
    }
    EXPECT_EQ(seen, payloads.size());
    EXPECT_FALSE(parser.in_frame());
  });
}

TEST(Frame, AnyFlippedBitIsFound) {
  for_seeds(300, [](Rng& rng) {
    std::vector<uint8_t> bytes = *make_frame(random_bytes(rng, rng.below(200)), 3);
    const uint64_t bit = rng.below(bytes.size() * 8);
    bytes[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
    EXPECT_FALSE(decode_frame(bytes, 1 << 20));
  });
}

TEST(Frame, TruncatedGiantAndForeignAreRefused) {
  const std::vector<uint8_t> bytes = *make_frame(std::vector<uint8_t>(100), 1);
  for (size_t n = 0; n < bytes.size(); ++n) {
    EXPECT_FALSE(decode_frame(std::span(bytes).first(n), 1 << 20)) << n;
  }
  EXPECT_TRUE(decode_frame(bytes, 100));
  EXPECT_FALSE(decode_frame(bytes, 99));
  FrameParser parser(1u << 30);
  std::vector<uint8_t> first = *make_frame(std::vector<uint8_t>(kMaxHelloBytes + 1), 1);
  std::span<const uint8_t> span(first);
  EXPECT_FALSE(parser.next(span));  // before a greeting nothing large is read
  std::vector<uint8_t> version = bytes;
  version[4] = 9;
  EXPECT_EQ(decode_frame(version, 1000).error().code(), Code::kUnsupported);
  const std::string http = "GET / HTTP/1.1\r\nHost: example\r\nAccept: */*\r\n\r\n";
  const std::vector<uint8_t> foreign(http.begin(), http.end());
  EXPECT_EQ(decode_frame(foreign, 1000).error().code(), Code::kDataCorrupt);
}

// The bytes of version 1, so that a change of layout cannot pass unnoticed.
TEST(Frame, GoldenBytes) {
  const std::vector<uint8_t> payload = {0xde, 0xad};
  const std::vector<uint8_t> expected = {
      0x54, 0x57, 0x4c, 0x4e, 1, 0, 77, 0, 5, 0, 0, 0, 2, 0, 0, 0,
      1,    0,    0,    0,    9, 0, 0,  0, 8, 0, 0, 0};
  const std::vector<uint8_t> bytes = *make_frame(payload, 1);
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), bytes.begin()));
  EXPECT_EQ(bytes.size(), 34u);
}

TEST(Hello, RoundTripAndTruncation) {
  Hello hello{.name = "node-7",
              .incarnation = 1ull << 60,
              .session = 42,
              .resume = true,
              .bulk = false,
              .received = 17,
              .max_frame = 1000,
              .window_frames = 64,
              .window_bytes = 1ull << 33};
  const std::vector<uint8_t> bytes = encode_hello(hello);
  const Result<Hello> back = decode_hello(bytes);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->name, hello.name);
  EXPECT_EQ(back->incarnation, hello.incarnation);
  EXPECT_EQ(back->session, hello.session);
  EXPECT_TRUE(back->resume);
  EXPECT_EQ(back->received, hello.received);
  EXPECT_EQ(back->window_bytes, hello.window_bytes);
  for (size_t n = 0; n < bytes.size(); ++n) EXPECT_FALSE(decode_hello(std::span(bytes).first(n)));
}

TEST(Faults, TextRoundTrip) {
  const Result<Faults> f =
      parse_faults("delay=50ms,jitter=0.5ms,rate=100Mbit,loss=0.01,reorder=0.5,cut=1,seed=9");
  ASSERT_TRUE(f);
  EXPECT_EQ(f->delay, milliseconds(50));
  EXPECT_EQ(f->bytes_per_second, 12.5e6);
  EXPECT_EQ(*parse_faults(to_string(*f)), *f);
  for (const char* bad :
       {"delay=50", "loss=2", "loss=-1", "rate=fast", "speed=1", "seed=x", "cut", "loss=nan"}) {
    EXPECT_FALSE(parse_faults(bad)) << bad;
  }
}

TEST(Faults, FateDependsOnSeedAndOrderAlone) {
  const Faults f = *parse_faults("delay=5ms,jitter=5ms,loss=0.3,duplicate=0.3,corrupt=0.3");
  FaultyEgress one(f, "peer"), two(f, "peer");
  for (int i = 0; i < 1000; ++i) {
    const auto a = one.next(Instant{i * 1000}, 100), b = two.next(Instant{i * 1000}, 100);
    EXPECT_EQ(a.copies, b.copies);
    EXPECT_EQ(a.due[0], b.due[0]);
    EXPECT_EQ(a.flip_bit, b.flip_bit);
  }
}

TEST(Faults, BandwidthAndDelayAddUp) {
  FaultyEgress line(*parse_faults("delay=10ms,rate=1MB"), "peer");
  EXPECT_EQ(line.next(Instant{0}, 1000).due[0], Instant{0} + milliseconds(11));
  EXPECT_EQ(line.next(Instant{0}, 2000).due[0], Instant{0} + milliseconds(13));  // queues behind
  EXPECT_EQ(line.next(Instant{0} + seconds(1), 1000).due[0], Instant{0} + milliseconds(1011));
}

}  // namespace
}  // namespace towline::net
