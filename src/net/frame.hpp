// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The frame: what lies on every line of every back end. Little endian, 32 bytes of header:
//
//    0  u32 magic     "TWLN"
//    4  u8  version   kWireVersion; another one is refused with a sentence
//    5  u8  type      FrameType
//    6  u16 kind      of the message (kData), else 0
//    8  u32 epoch     of the message (kData), else 0
//   12  u32 length    of the payload
//   16  u32 seq       kData, kBye: number of this frame, from 1, +1 each, wrapping; kGap: the first
//                     frame that is held beyond the gap; else 0
//   20  u32 ack       all frames up to this one have arrived
//   24  u32 consumed  all frames up to this one have been taken by the application (= credit)
//   28  u32 crc32c    over the payload, then header bytes 0 to 27
//
// Every frame carries ack and consumed, so a lost acknowledgement is healed by the next frame of
// any type. The layout is the same within one machine; the fuzz target is fuzz/net_frame_fuzz.cpp.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace towline::net {

inline constexpr size_t kHeaderBytes = 32;
inline constexpr uint8_t kWireVersion = 1;
inline constexpr uint32_t kMaxHelloBytes = 1024;      // payload of the first frame on a line
inline constexpr uint32_t kMaxFrameBytes = 1u << 30;  // no option goes beyond

enum class FrameType : uint8_t {
  kData = 0,     // numbered
  kAck = 1,      // no payload: ack and consumed; also the heartbeat
  kPing = 2,     // no payload: answer with kAck at once
  kGap = 3,      // frames (ack, seq) are missing here: send them again
  kHello = 4,    // first frame of the dialling side: Hello
  kWelcome = 5,  // its answer: Hello
  kRefuse = 6,   // ... or this, or later the end of a broken session: payload is the reason
  kBye = 7,      // numbered, the last one: payload is the reason
};

struct FrameHeader {
  FrameType type = FrameType::kAck;
  uint16_t kind = 0;
  uint32_t epoch = 0;
  uint32_t length = 0;
  uint32_t seq = 0;
  uint32_t ack = 0;
  uint32_t consumed = 0;
  uint32_t crc = 0;
};

// A whole frame, header and payload, immutable once made, shared by resend buffer and line queues.
using FrameBytes = std::shared_ptr<const std::vector<uint8_t>>;

// The buffer of a frame before it has its number: payload in place, header blank.
struct DraftFrame {
  std::vector<uint8_t> bytes;  // kHeaderBytes + payload
  uint32_t payload_crc = 0;
};
DraftFrame draft_frame(std::span<const std::span<const uint8_t>> parts);
DraftFrame draft_text(std::string_view text);  // cut at kMaxHelloBytes
// Fills the header (length and crc are computed).
FrameBytes finish_frame(DraftFrame draft, FrameHeader header);

// kDataCorrupt: not our magic, unknown type, longer than max_payload. kUnsupported: other version.
Result<FrameHeader> decode_header(std::span<const uint8_t, kHeaderBytes> bytes,
                                  uint32_t max_payload);

struct RawFrame {
  FrameHeader header;
  std::vector<uint8_t> payload;
};

// A frame that came as one message; its crc is checked.
Result<RawFrame> decode_frame(std::span<const uint8_t> message, uint32_t max_payload);

// Cuts a byte stream into frames. Payload memory grows as bytes arrive, so a header that promises
// much costs nothing; the first frame may not exceed kMaxHelloBytes.
class FrameParser {
 public:
  explicit FrameParser(uint32_t max_payload) : max_payload_(max_payload) {}
  // Takes bytes from the front of `bytes` (which is advanced) until one frame is whole or `bytes`
  // is empty. After an error the stream is of no further use.
  Result<std::optional<RawFrame>> next(std::span<const uint8_t>& bytes);
  bool in_frame() const { return header_fill_ > 0; }  // a stream that ends now is truncated

 private:
  uint32_t max_payload_;
  bool first_ = true;
  size_t header_fill_ = 0;
  uint8_t header_bytes_[kHeaderBytes] = {};
  uint32_t payload_crc_ = 0;
  RawFrame frame_;
};

// The payload of kHello and kWelcome.
struct Hello {
  std::string name;           // 1 to 64 printable ASCII characters
  uint64_t incarnation = 0;   // of the sender's Transport
  uint64_t session = 0;       // drawn by the dialling side; the answer repeats it
  bool resume = false;        // the session is known to the sender already
  bool bulk = false;          // a BulkPort's own channel, not for the Inbox
  uint32_t received = 0;      // all frames up to this one have arrived
  uint32_t max_frame = 0;     // limits of the sender as a receiver
  uint32_t window_frames = 0;
  uint64_t window_bytes = 0;
};
std::vector<uint8_t> encode_hello(const Hello& hello);
Result<Hello> decode_hello(std::span<const uint8_t> payload);
bool valid_identity(std::string_view name);

}  // namespace towline::net
