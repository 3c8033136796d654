// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "protocol/varint_codec.hpp"

#include <bit>

namespace towline::protocol {
namespace {

using policy::FreshSlot;
using policy::LaneHop;
using policy::NodeStep;
using policy::ResumedSlot;
using policy::SlotGen;
using policy::StepRow;

class Writer {
 public:
  void raw(uint64_t v) {
    for (; v >= 0x80; v >>= 7) out_.push_back(static_cast<uint8_t>(v | 0x80));
    out_.push_back(static_cast<uint8_t>(v));
  }
  void number(int64_t v) { raw((static_cast<uint64_t>(v) << 1) ^ static_cast<uint64_t>(v >> 63)); }
  template <class Items, class Put>
  void list(const Items& items, Put&& put) {
    raw(items.size());
    for (const auto& item : items) {
      Writer record;  // its length goes before it
      put(record, item);
      raw(record.out_.size());
      out_.insert(out_.end(), record.out_.begin(), record.out_.end());
    }
  }
  void packed(const std::vector<int32_t>& values) {
    raw(values.size());
    for (const int32_t v : values) number(v);
  }
  std::vector<uint8_t> take() { return std::move(out_); }

 private:
  std::vector<uint8_t> out_;
};

class Reader {
 public:
  explicit Reader(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  bool ok() const { return ok_; }
  uint64_t raw() {
    uint64_t v = 0;
    for (int shift = 0; shift < 64 && !bytes_.empty(); shift += 7) {
      const uint8_t b = bytes_.front();
      bytes_ = bytes_.subspan(1);
      v |= static_cast<uint64_t>(b & 0x7f) << shift;
      if (b < 0x80) return v;
    }
    ok_ = false;
    return 0;
  }
  int64_t number() {
    const uint64_t v = raw();
    return static_cast<int64_t>(v >> 1) ^ -static_cast<int64_t>(v & 1);
  }
  int32_t i32() { return static_cast<int32_t>(number()); }
  // Every item takes a byte at least, so a count cannot ask for more memory than that.
  size_t count() {
    const uint64_t n = raw();
    if (n > bytes_.size()) ok_ = false;
    return ok_ ? static_cast<size_t>(n) : 0;
  }
  template <class Item, class Get>
  void list(std::vector<Item>& items, Get&& get) {
    items.resize(count());
    for (Item& item : items) {
      const size_t length = count();
      if (!ok_) return;
      Reader record(bytes_.first(length));
      get(record, item);
      ok_ = ok_ && record.ok_;
      bytes_ = bytes_.subspan(length);
    }
  }
  void packed(std::vector<int32_t>& values) {
    values.resize(count());
    for (int32_t& v : values) v = i32();
  }

 private:
  std::span<const uint8_t> bytes_;
  bool ok_ = true;
};

void put_slot(Writer& w, const SlotGen& s) {
  w.raw(s.slot);
  w.raw(s.gen);
}
void get_slot(Reader& r, SlotGen& s) {
  s.slot = static_cast<uint32_t>(r.raw());
  s.gen = static_cast<uint16_t>(r.raw());
}

}  // namespace

std::vector<uint8_t> encode_varint(const NodeStep& m) {
  Writer w;
  w.number(m.epoch.value);
  w.number(m.number);
  w.raw(m.base_hash);
  w.raw(m.full ? 1 : 0);
  w.list(m.closed, [](Writer& r, LaneId lane) { r.number(lane.value); });
  w.list(m.finished, put_slot);
  w.list(m.preempted, put_slot);
  w.list(m.opened, [](Writer& r, const LaneHop& h) {
    for (const int32_t v : {h.lane.value, h.layers.begin, h.layers.end, h.previous.value,
                            h.next.value, h.first.value}) {
      r.number(v);
    }
  });
  w.list(m.fresh, [](Writer& r, const FreshSlot& f) {
    put_slot(r, f.slot);
    for (const int64_t v : {int64_t{f.lane.value}, f.spec.seq.value, int64_t{f.spec.choice},
                            int64_t{f.spec.prompt_length}, int64_t{f.spec.adapter},
                            int64_t{f.spec.prompt_logprobs}, int64_t{f.spec.embed},
                            int64_t{f.computed}}) {
      r.number(v);
    }
    r.raw(std::bit_cast<uint32_t>(f.spec.sampling.temperature));
    r.raw(f.spec.sampling.seed);
    r.packed(f.tokens);
    r.packed(f.blocks);
  });
  w.list(m.resumed, [](Writer& r, const ResumedSlot& s) {
    put_slot(r, s.slot);
    for (const int32_t v : {s.lane.value, s.computed, s.tokens_from}) r.number(v);
    r.packed(s.tokens);
    r.packed(s.blocks);
  });
  w.number(m.lane.value);
  w.number(m.step);
  w.number(m.implied_step);
  w.list(m.implied, [](Writer& r, uint32_t bits) { r.raw(bits); });
  w.list(m.rows, [](Writer& r, const StepRow& row) {
    r.raw(row.slot);
    r.number(row.from);
    r.number(row.count);
    r.raw(row.flags);
    r.number(row.token);
  });
  w.list(m.new_blocks, [](Writer& r, const policy::NewBlock& n) {
    r.raw(n.row);
    r.number(n.block);
  });
  return w.take();
}

Result<void> decode_varint(std::span<const uint8_t> bytes, NodeStep& out) {
  Reader r(bytes);
  out.epoch = Epoch(r.number());
  out.number = r.number();
  out.base_hash = r.raw();
  out.full = r.raw() != 0;
  r.list(out.closed, [](Reader& i, LaneId& lane) { lane = LaneId(i.i32()); });
  r.list(out.finished, get_slot);
  r.list(out.preempted, get_slot);
  r.list(out.opened, [](Reader& i, LaneHop& h) {
    h.lane = LaneId(i.i32());
    h.layers.begin = i.i32();
    h.layers.end = i.i32();
    h.previous = NodeId(i.i32());
    h.next = NodeId(i.i32());
    h.first = NodeId(i.i32());
  });
  r.list(out.fresh, [](Reader& i, FreshSlot& f) {
    get_slot(i, f.slot);
    f.lane = LaneId(i.i32());
    f.spec.seq = SeqId(i.number());
    f.spec.choice = i.i32();
    f.spec.prompt_length = i.i32();
    f.spec.adapter = i.i32();
    f.spec.prompt_logprobs = i.number() != 0;
    f.spec.embed = i.number() != 0;
    f.computed = i.i32();
    f.spec.sampling = {};
    f.spec.sampling.temperature = std::bit_cast<float>(static_cast<uint32_t>(i.raw()));
    f.spec.sampling.seed = i.raw();
    i.packed(f.tokens);
    i.packed(f.blocks);
  });
  r.list(out.resumed, [](Reader& i, ResumedSlot& s) {
    get_slot(i, s.slot);
    s.lane = LaneId(i.i32());
    s.computed = i.i32();
    s.tokens_from = i.i32();
    i.packed(s.tokens);
    i.packed(s.blocks);
  });
  out.lane = LaneId(r.i32());
  out.step = r.number();
  out.implied_step = r.number();
  r.list(out.implied, [](Reader& i, uint32_t& bits) { bits = static_cast<uint32_t>(i.raw()); });
  r.list(out.rows, [](Reader& i, StepRow& row) {
    row.slot = static_cast<uint32_t>(i.raw());
    row.from = i.i32();
    row.count = i.i32();
    row.flags = static_cast<uint32_t>(i.raw());
    row.token = i.i32();
  });
  r.list(out.new_blocks, [](Reader& i, policy::NewBlock& n) {
    n.row = static_cast<uint32_t>(i.raw());
    n.block = i.i32();
  });
  if (!r.ok()) return Error(Code::kDataCorrupt, "a varint step message is cut short");
  return {};
}

}  // namespace towline::protocol
