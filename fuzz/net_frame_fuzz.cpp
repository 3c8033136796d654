// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Whatever bytes a peer sends, the frame parser, the greeting and the session end with a frame, a
// wait for more, or an error; and what parses means the same in one piece and in two.
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "net/frame.hpp"
#include "net/session.hpp"

namespace {

using namespace towline;
using namespace towline::net;

constexpr uint32_t kMaxPayload = 1 << 16;

std::vector<RawFrame> parse(std::span<const uint8_t> bytes, size_t cut, bool* failed) {
  FrameParser parser(kMaxPayload);
  std::vector<RawFrame> frames;
  *failed = false;
  for (std::span<const uint8_t> piece : {bytes.first(cut), bytes.subspan(cut)}) {
    while (!piece.empty()) {
      Result<std::optional<RawFrame>> frame = parser.next(piece);
      if (!frame) {
        *failed = true;
        return frames;
      }
      if (*frame) frames.push_back(std::move(**frame));
    }
  }
  return frames;
}

// Fills in magic, version and checksum, so that the fuzzer gets past them: each record is a type, a
// length and header words taken from the input.
void feed_session(std::span<const uint8_t> bytes) {
  SessionOptions options;
  options.window_frames = 8;
  options.window_bytes = 4096;
  options.max_frame = 1024;
  Session session(options);
  Hello peer;
  peer.name = "peer";
  peer.max_frame = 1024;
  peer.window_frames = 4;
  peer.window_bytes = 2048;
  Instant now{1'000'000'000};
  session.line_up(now, peer);
  size_t delivered = 0;
  while (bytes.size() >= 8) {
    RawFrame frame;
    frame.header.type = static_cast<FrameType>(bytes[0] % 8);
    frame.header.seq = static_cast<uint32_t>(static_cast<int8_t>(bytes[1]));
    frame.header.ack = static_cast<uint32_t>(static_cast<int8_t>(bytes[2]));
    frame.header.consumed = static_cast<uint32_t>(static_cast<int8_t>(bytes[3]));
    const size_t length = std::min<size_t>(bytes[4], bytes.size() - 8);
    now = now + milliseconds(bytes[5]);
    const uint8_t action = bytes[6];
    frame.payload.assign(bytes.begin() + 8, bytes.begin() + 8 + static_cast<long>(length));
    bytes = bytes.subspan(8 + length);
    if ((action & 1) != 0 && session.has_credit(16) &&
        (session.state() == ChannelState::kOpen || session.state() == ChannelState::kInterrupted)) {
      const std::vector<uint8_t> payload(16);
      const std::span<const uint8_t> part(payload);
      session.send(now, draft_frame({&part, 1}), 1, 1);
    }
    if ((action & 2) != 0) session.line_down(now, "fuzz");
    if ((action & 4) != 0) session.line_up(now, peer);
    if ((action & 8) != 0) session.consumed(now, 1);
    session.on_frame(now, std::move(frame));
    session.tick(now);
    delivered += session.output.delivered.size();
    session.output = {};
  }
  if (delivered > session.received()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const uint8_t> bytes(data, size);
  bool failed_whole = false, failed_cut = false;
  const std::vector<RawFrame> whole = parse(bytes, 0, &failed_whole);
  const std::vector<RawFrame> cut = parse(bytes, size / 2, &failed_cut);
  if (failed_whole != failed_cut || whole.size() != cut.size()) std::abort();
  for (size_t i = 0; i < whole.size(); ++i) {
    if (whole[i].payload != cut[i].payload) std::abort();
    (void)decode_hello(whole[i].payload);
  }
  (void)decode_frame(bytes, kMaxPayload);
  if (const Result<Hello> hello = decode_hello(bytes)) {
    if (!decode_hello(encode_hello(*hello))) std::abort();
  }
  feed_session(bytes);
  return 0;
}
