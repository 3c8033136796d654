// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "net/frame.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.hpp"
#include "base/crc32c.hpp"
#include "base/fmt.hpp"

namespace towline::net {
namespace {

static_assert(std::endian::native == std::endian::little,
              "the wire is little endian; a big-endian machine needs swaps in put() and get()");

constexpr uint32_t kMagic = 0x4e4c5754;  // "TWLN"
constexpr size_t kCrcAt = 28;

template <class T>
void put(uint8_t* at, T value) {
  std::memcpy(at, &value, sizeof value);
}
template <class T>
T get(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

uint32_t crc_of(std::span<const uint8_t> bytes, uint32_t before) {
  return crc32c(std::as_bytes(bytes), before);
}

Error bad_crc(const FrameHeader& h) {
  return errorf(Code::kDataCorrupt,
                "a frame of {} bytes arrived damaged (crc32c mismatch): the line "
                "or its peer is faulty",
                h.length);
}

}  // namespace

DraftFrame draft_frame(std::span<const std::span<const uint8_t>> parts) {
  size_t total = 0;
  for (const auto part : parts) total += part.size();
  DraftFrame draft;
  draft.bytes.reserve(kHeaderBytes + total);
  draft.bytes.resize(kHeaderBytes);
  for (const auto part : parts) {
    draft.bytes.insert(draft.bytes.end(), part.begin(), part.end());
    draft.payload_crc = crc_of(part, draft.payload_crc);
  }
  return draft;
}

DraftFrame draft_text(std::string_view text) {
  text = text.substr(0, kMaxHelloBytes);
  const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(text.data()), text.size());
  return draft_frame({&bytes, 1});
}

FrameBytes finish_frame(DraftFrame draft, FrameHeader header) {
  CHECK(draft.bytes.size() >= kHeaderBytes && draft.bytes.size() <= kHeaderBytes + kMaxFrameBytes,
        draft.bytes.size());
  uint8_t* at = draft.bytes.data();
  put(at, kMagic);
  put(at + 4, kWireVersion);
  put(at + 5, static_cast<uint8_t>(header.type));
  put(at + 6, header.kind);
  put(at + 8, header.epoch);
  put(at + 12, static_cast<uint32_t>(draft.bytes.size() - kHeaderBytes));
  put(at + 16, header.seq);
  put(at + 20, header.ack);
  put(at + 24, header.consumed);
  put(at + kCrcAt, crc_of({at, kCrcAt}, draft.payload_crc));
  return std::make_shared<const std::vector<uint8_t>>(std::move(draft.bytes));
}

Result<FrameHeader> decode_header(std::span<const uint8_t, kHeaderBytes> bytes,
                                  uint32_t max_payload) {
  const uint8_t* at = bytes.data();
  if (get<uint32_t>(at) != kMagic) {
    return Error(Code::kDataCorrupt,
                 "the peer does not speak Towline's frames (wrong magic); is the address right?");
  }
  if (at[4] != kWireVersion) {
    return errorf(Code::kUnsupported,
                  "the peer speaks wire version {}, this build speaks {}; run the same release on "
                  "all machines", at[4], kWireVersion);
  }
  if (at[5] > static_cast<uint8_t>(FrameType::kBye)) {
    return errorf(Code::kDataCorrupt, "frame type {} does not exist", at[5]);
  }
  FrameHeader h;
  h.type = static_cast<FrameType>(at[5]);
  h.kind = get<uint16_t>(at + 6);
  h.epoch = get<uint32_t>(at + 8);
  h.length = get<uint32_t>(at + 12);
  h.seq = get<uint32_t>(at + 16);
  h.ack = get<uint32_t>(at + 20);
  h.consumed = get<uint32_t>(at + 24);
  h.crc = get<uint32_t>(at + kCrcAt);
  if (h.length > max_payload) {
    return errorf(Code::kDataCorrupt,
                  "a frame of {} bytes is announced; at most {} are accepted here", h.length,
                  max_payload);
  }
  return h;
}

Result<RawFrame> decode_frame(std::span<const uint8_t> message, uint32_t max_payload) {
  if (message.size() < kHeaderBytes) {
    return errorf(Code::kDataCorrupt, "a message of {} bytes is too short for a frame's header",
                  message.size());
  }
  RawFrame frame;
  ASSIGN_OR_RETURN(frame.header, decode_header(message.first<kHeaderBytes>(), max_payload));
  const auto payload = message.subspan(kHeaderBytes);
  if (payload.size() != frame.header.length) {
    return errorf(Code::kDataCorrupt, "a frame says {} bytes but carries {}", frame.header.length,
                  payload.size());
  }
  if (crc_of(message.first(kCrcAt), crc_of(payload, 0)) != frame.header.crc) {
    return bad_crc(frame.header);
  }
  frame.payload.assign(payload.begin(), payload.end());
  return frame;
}

Result<std::optional<RawFrame>> FrameParser::next(std::span<const uint8_t>& bytes) {
  if (header_fill_ < kHeaderBytes) {
    const size_t take = std::min(bytes.size(), kHeaderBytes - header_fill_);
    std::copy_n(bytes.begin(), take, header_bytes_ + header_fill_);
    header_fill_ += take;
    bytes = bytes.subspan(take);
    if (header_fill_ < kHeaderBytes) return std::optional<RawFrame>();
    const uint32_t cap = first_ ? std::min(kMaxHelloBytes, max_payload_) : max_payload_;
    ASSIGN_OR_RETURN(frame_.header, decode_header(header_bytes_, cap));
    first_ = false;
  }
  const size_t take = std::min<size_t>(bytes.size(), frame_.header.length - frame_.payload.size());
  payload_crc_ = crc_of(bytes.first(take), payload_crc_);
  frame_.payload.insert(frame_.payload.end(), bytes.begin(), bytes.begin() + take);
  bytes = bytes.subspan(take);
  if (frame_.payload.size() < frame_.header.length) return std::optional<RawFrame>();
  if (crc_of({header_bytes_, kCrcAt}, payload_crc_) != frame_.header.crc) {
    return bad_crc(frame_.header);
  }
  header_fill_ = 0;
  payload_crc_ = 0;
  std::optional<RawFrame> whole(std::move(frame_));
  frame_ = {};
  return whole;
}

// Layout: u64 incarnation, u64 session, u64 window_bytes, u32 received, max_frame, window_frames,
// u8 flags (1 resume, 2 bulk), u8 name length, name. Longer payloads are later minor versions: the
// rest is skipped.
std::vector<uint8_t> encode_hello(const Hello& hello) {
  CHECK(valid_identity(hello.name), hello.name);
  std::vector<uint8_t> out(38 + hello.name.size());
  put(&out[0], hello.incarnation);
  put(&out[8], hello.session);
  put(&out[16], hello.window_bytes);
  put(&out[24], hello.received);
  put(&out[28], hello.max_frame);
  put(&out[32], hello.window_frames);
  out[36] = static_cast<uint8_t>((hello.resume ? 1 : 0) | (hello.bulk ? 2 : 0));
  out[37] = static_cast<uint8_t>(hello.name.size());
  std::copy(hello.name.begin(), hello.name.end(), out.begin() + 38);
  return out;
}

Result<Hello> decode_hello(std::span<const uint8_t> payload) {
  if (payload.size() < 38 || payload.size() < 38u + payload[37]) {
    return errorf(Code::kDataCorrupt, "a greeting of {} bytes is truncated", payload.size());
  }
  Hello hello;
  hello.incarnation = get<uint64_t>(&payload[0]);
  hello.session = get<uint64_t>(&payload[8]);
  hello.window_bytes = get<uint64_t>(&payload[16]);
  hello.received = get<uint32_t>(&payload[24]);
  hello.max_frame = get<uint32_t>(&payload[28]);
  hello.window_frames = get<uint32_t>(&payload[32]);
  hello.resume = (payload[36] & 1) != 0;
  hello.bulk = (payload[36] & 2) != 0;
  hello.name.assign(payload.begin() + 38, payload.begin() + 38 + payload[37]);
  if (!valid_identity(hello.name) || hello.window_frames == 0 || hello.session == 0) {
    return Error(Code::kDataCorrupt, "a greeting has no name, no window or no session");
  }
  return hello;
}

bool valid_identity(std::string_view name) {
  return !name.empty() && name.size() <= 64 &&
         std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c < 127; });
}

}  // namespace towline::net
