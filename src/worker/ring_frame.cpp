// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/ring_frame.hpp"

#include <array>
#include <cstring>

#include "base/fmt.hpp"
#include "protocol/messages.hpp"

namespace towline::worker {
namespace {

constexpr uint32_t kFrameMagic = 0x6d724654;  // "TFrm"

constexpr size_t kMessageAlignment = 16;
constexpr size_t kFloatAlignment = 64;
constexpr std::array<uint8_t, 64> kZeros{};

constexpr size_t aligned(size_t n, size_t to) { return (n + to - 1) / to * to; }

template <class T>
void append(std::vector<uint8_t>& to, std::span<const T> items) {
  static_assert(std::is_trivially_copyable_v<T>);
  const auto* bytes = reinterpret_cast<const uint8_t*>(items.data());
  to.insert(to.end(), bytes, bytes + items.size_bytes());
}

// Takes pieces from the front of a frame.
class Cutter {
 public:
  explicit Cutter(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  bool ok() const { return ok_; }
  std::span<const uint8_t> take(uint64_t n, size_t alignment = 1) {
    at_ = aligned(at_, alignment);
    if (!ok_ || at_ > bytes_.size() || n > bytes_.size() - at_) {
      ok_ = false;
      return {};
    }
    const auto piece = bytes_.subspan(at_, n);
    at_ += n;
    return piece;
  }
  template <class T>
  std::span<const T> items(uint64_t n, size_t alignment = alignof(T)) {
    if (n > bytes_.size() / sizeof(T)) {
      ok_ = false;
      return {};
    }
    const auto piece = take(n * sizeof(T), alignment);
    return {reinterpret_cast<const T*>(piece.data()), piece.size() / sizeof(T)};
  }

 private:
  std::span<const uint8_t> bytes_;
  size_t at_ = 0;
  bool ok_ = true;
};

}  // namespace

void FrameDraft::add(std::span<const uint8_t> bytes, size_t alignment) {
  if (const size_t gap = aligned(size_, alignment) - size_; gap > 0) {
    parts_.push_back(std::span(kZeros).first(gap));
    size_ += gap;
  }
  parts_.push_back(bytes);
  size_ += bytes.size();
}

std::span<const std::span<const uint8_t>> FrameDraft::steps(const RankCommand& c) {
  FrameHead head;
  head.magic = kFrameMagic;
  head.method = static_cast<uint16_t>(c.codec);
  head.messages = static_cast<uint32_t>(c.messages.size());
  head.feeds = static_cast<uint32_t>(c.feeds.size());
  head.runs = static_cast<uint32_t>(c.runs.size());
  for (const auto rows : c.hidden) head.floats += rows.size();
  fixed_.clear();
  parts_.clear();
  size_ = 0;
  append(fixed_, std::span<const FrameHead>(&head, 1));
  for (const policy::FedToken& fed : c.feeds) append(fixed_, std::span(&fed, 1));
  for (size_t i = 0; i < c.runs.size(); ++i) {
    const size_t floats = i < c.hidden.size() ? c.hidden[i].size() : 0;
    const RunHead run{c.runs[i].lane.value,
                      static_cast<uint32_t>(c.hidden_width > 0 ? floats / c.hidden_width : 0),
                      c.runs[i].step};
    append(fixed_, std::span(&run, 1));
  }
  for (const auto message : c.messages) {
    const uint64_t length = message.size();
    append(fixed_, std::span(&length, 1));
  }
  add(fixed_, 1);
  for (const auto message : c.messages) add(message, kMessageAlignment);
  bool first = true;
  for (const auto rows : c.hidden) {
    if (rows.empty()) continue;
    add({reinterpret_cast<const uint8_t*>(rows.data()), rows.size_bytes()},
        first ? kFloatAlignment : 1);
    first = false;
  }
  return parts_;
}

std::span<const std::span<const uint8_t>> FrameDraft::call(uint64_t call, uint16_t method,
                                                           std::string_view args) {
  FrameHead head;
  head.magic = kFrameMagic;
  head.kind = FrameKind::kCall;
  head.method = method;
  head.call = call;
  head.args_bytes = static_cast<uint32_t>(args.size());
  fixed_.clear();
  parts_.clear();
  size_ = 0;
  append(fixed_, std::span<const FrameHead>(&head, 1));
  append(fixed_, std::span<const char>(args));
  add(fixed_, 1);
  return parts_;
}

std::span<const std::span<const uint8_t>> FrameDraft::prepared(std::span<const uint8_t> bytes,
                                                               std::span<const float> hidden) {
  FrameHead head;
  head.magic = kFrameMagic;
  head.kind = FrameKind::kPrepared;
  head.args_bytes = static_cast<uint32_t>(bytes.size());
  head.floats = hidden.size();
  fixed_.clear();
  parts_.clear();
  size_ = 0;
  append(fixed_, std::span<const FrameHead>(&head, 1));
  add(fixed_, 1);
  add(bytes, 1);
  if (!hidden.empty()) {
    add({reinterpret_cast<const uint8_t*>(hidden.data()), hidden.size_bytes()}, kFloatAlignment);
  }
  return parts_;
}

Result<void> FrameView::parse(std::span<const uint8_t> bytes) {
  Cutter cut(bytes);
  const auto heads = cut.items<FrameHead>(1);
  if (!cut.ok() || heads[0].magic != kFrameMagic) {
    return errorf(Code::kDataCorrupt, "a ring frame of {} bytes has no head", bytes.size());
  }
  head = heads[0];
  feeds = cut.items<policy::FedToken>(head.feeds);
  runs = cut.items<RunHead>(head.runs);
  const auto lengths = cut.items<uint64_t>(head.messages);
  const auto text = cut.take(head.args_bytes);
  args = {reinterpret_cast<const char*>(text.data()), text.size()};
  messages.clear();
  for (const uint64_t length : lengths) messages.push_back(cut.take(length, kMessageAlignment));
  hidden = head.floats > 0 ? cut.items<float>(head.floats, kFloatAlignment)
                           : std::span<const float>{};
  if (!cut.ok()) {
    return errorf(Code::kDataCorrupt, "a ring frame of {} bytes is cut short", bytes.size());
  }
  return {};
}

Result<RankReply> RankReply::parse(std::span<const uint8_t> bytes) {
  RankReply reply;
  Cutter cut(bytes);
  const auto head = cut.take(sizeof(ReplyHead));
  if (cut.ok()) std::memcpy(&reply.head, head.data(), sizeof(ReplyHead));
  if (!cut.ok() || reply.head.magic != kReplyMagic) {
    return errorf(Code::kDataCorrupt, "a rank's answer of {} bytes has no head", bytes.size());
  }
  const auto text = cut.take(reply.head.text_bytes);
  reply.text.assign(text.begin(), text.end());
  for (uint32_t i = 0; i < reply.head.outputs && cut.ok(); ++i) {
    OutputHead out;
    const auto piece = cut.take(sizeof(OutputHead));
    if (!cut.ok()) break;
    std::memcpy(&out, piece.data(), sizeof(OutputHead));
    StepOutput& output = reply.outputs.emplace_back();
    output.step = {LaneId(out.lane), out.step};
    output.hidden_rows = out.hidden_rows;
    const auto results = cut.take(out.results_bytes);
    if (out.floats > bytes.size() / sizeof(float)) break;
    const auto floats = cut.take(out.floats * sizeof(float));
    if (!cut.ok()) break;
    output.hidden.resize(out.floats);
    if (!floats.empty()) std::memcpy(output.hidden.data(), floats.data(), floats.size());
    if (!results.empty()) {
      protocol::Results decoded;
      TRY(protocol::decode(results, decoded));
      output.rows = std::move(decoded.rows);
    }
  }
  if (!cut.ok() || reply.outputs.size() != reply.head.outputs) {
    return errorf(Code::kDataCorrupt, "a rank's answer of {} bytes is cut short", bytes.size());
  }
  return reply;
}

}  // namespace towline::worker
