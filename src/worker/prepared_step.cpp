// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/prepared_step.hpp"

#include <cstring>

#include "base/fmt.hpp"

namespace towline::worker {
namespace {

struct ItemHead {
  policy::LaneHop hop;
  int64_t step;
  uint32_t rows;
  uint32_t unused;
};

struct RowHead {
  uint32_t slot;
  uint32_t gen;
  int64_t seq;
  uint64_t seed;
  float temperature;
  int32_t adapter;
  int32_t prompt_length;
  int32_t from, to, logits_from;
  uint32_t samples;
  uint32_t blocks;  // table entries that follow, after to - from tokens
};

constexpr int32_t kLongestSequence = 1 << 26;

void put(std::vector<uint8_t>& out, const void* data, size_t bytes) {
  const auto* from = static_cast<const uint8_t*>(data);
  out.insert(out.end(), from, from + bytes);
}

}  // namespace

void write_prepared(std::span<const RunItem> items, std::vector<uint8_t>& out) {
  out.clear();
  const uint64_t count = items.size();
  put(out, &count, sizeof(count));
  for (const RunItem& item : items) {
    const ItemHead head{item.hop, item.step.step, static_cast<uint32_t>(item.rows.size()), 0};
    put(out, &head, sizeof(head));
    for (const Row& row : item.rows) {
      const policy::SlotState& s = *row.state;
      const auto blocks = static_cast<uint32_t>((row.to + 15) / 16);
      const RowHead r{row.slot, s.gen, s.spec.seq.value, s.spec.sampling.seed,
                      s.spec.sampling.temperature, s.spec.adapter, s.spec.prompt_length, row.from,
                      row.to, row.logits_from, row.samples ? 1u : 0u, blocks};
      put(out, &r, sizeof(r));
      for (int32_t p = row.from; p < row.to; ++p) {
        const int32_t token = s.tokens[static_cast<size_t>(p)];
        put(out, &token, sizeof(token));
      }
      put(out, s.blocks.data(), blocks * sizeof(int32_t));
    }
  }
}

Result<void> read_prepared(std::span<const uint8_t> bytes, std::vector<policy::SlotState>& slots,
                           std::vector<Row>& rows, std::vector<RunItem>& items) {
  const auto take = [&](void* to, size_t n) {
    if (n > bytes.size()) return false;
    if (n > 0) std::memcpy(to, bytes.data(), n);
    bytes = bytes.subspan(n);
    return true;
  };
  const Error cut_short(Code::kDataCorrupt, "prepared inputs are cut short");
  uint64_t count = 0;
  if (!take(&count, sizeof(count)) || count > bytes.size() / sizeof(ItemHead)) return cut_short;
  rows.clear();
  items.clear();
  std::vector<size_t> sizes;
  for (uint64_t i = 0; i < count; ++i) {
    ItemHead head;
    if (!take(&head, sizeof(head)) || head.rows > bytes.size() / sizeof(RowHead)) return cut_short;
    items.push_back({{head.hop.lane, head.step}, head.hop, {}});
    sizes.push_back(head.rows);
    for (uint32_t k = 0; k < head.rows; ++k) {
      RowHead r;
      // The block table reaches to the last row, so that `to` cannot claim more than a few bytes
      // for each one that came.
      if (!take(&r, sizeof(r)) || r.from < 0 || r.to <= r.from || r.to > kLongestSequence ||
          r.blocks != static_cast<uint32_t>((r.to + 15) / 16) ||
          r.blocks > bytes.size() / sizeof(int32_t)) {
        return cut_short;
      }
      if (slots.size() <= rows.size()) slots.resize(rows.size() * 2 + 64);
      policy::SlotState& s = slots[rows.size()];
      s.live = true;
      s.gen = static_cast<uint16_t>(r.gen);
      s.serial = static_cast<uint64_t>(r.seq) + 1;
      s.spec.seq = SeqId(r.seq);
      s.spec.adapter = r.adapter;
      s.spec.prompt_length = r.prompt_length;
      s.spec.sampling.seed = r.seed;
      s.spec.sampling.temperature = r.temperature;
      s.tokens.resize(static_cast<size_t>(r.to));
      s.blocks.resize(r.blocks);
      for (int32_t p = r.from; p < r.to; ++p) {
        int32_t token = 0;
        if (!take(&token, sizeof(token))) return cut_short;
        s.tokens.set(static_cast<size_t>(p), token);
      }
      if (!take(s.blocks.data(), r.blocks * sizeof(int32_t))) return cut_short;
      rows.push_back({r.slot, nullptr, r.from, r.to, r.logits_from, r.samples != 0});
    }
  }
  size_t first = 0;
  for (size_t i = 0; i < rows.size(); ++i) rows[i].state = &slots[i];
  for (size_t i = 0; i < items.size(); ++i) {
    items[i].rows = std::span(rows).subspan(first, sizes[i]);
    first += sizes[i];
  }
  return {};
}

}  // namespace towline::worker
