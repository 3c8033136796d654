// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "policy/step_delta.hpp"

namespace towline::policy {
namespace {

constexpr size_t kLeastImplied = 2;  // fewer rows are not worth a bitmap

// The hop of a lane that is open, or that the draft opens.
const LaneHop* hop_of(const StepMirror& mirror, const NodeStep& draft, LaneId lane) {
  const auto opened = std::ranges::find(draft.opened, lane, &LaneHop::lane);
  return opened != draft.opened.end() ? &*opened : mirror.lane(lane);
}

}  // namespace

Result<NodeStep> StepSender::next(NodeStep draft) {
  strip_tokens(draft);
  if (form_ == DeltaForm::kFull && !mirror_.needs_full()) {
    // The same change, told as the whole: apply the sections, then write everything out.
    NodeStep sections = draft;
    sections.lane = LaneId(-1);
    sections.rows.clear();
    sections.new_blocks.clear();
    TRY(send(std::move(sections)));
    NodeStep whole = snapshot();
    whole.lane = draft.lane;
    whole.step = draft.step;
    whole.rows = std::move(draft.rows);
    whole.new_blocks = std::move(draft.new_blocks);
    return send(std::move(whole));
  }
  if (form_ == DeltaForm::kImplied) imply(draft);
  draft.full = draft.full || mirror_.needs_full();
  return send(std::move(draft));
}

Result<NodeStep> StepSender::send(NodeStep message) {
  message.epoch = epoch_;
  message.number = next_number_;
  message.base_hash = message.full ? 0 : mirror_.hash();
  TRY(mirror_.apply(message));
  ++next_number_;
  for (const LaneId lane : message.closed) {
    unrun_.erase(unrun_.lower_bound({lane, INT64_MIN}), unrun_.upper_bound({lane, INT64_MAX}));
  }
  if (message.runs()) {
    const LaneStep key{message.lane, message.step};
    Unrun unrun{message.number, {}, mirror_.take_pending(key)};
    unrun.gens.reserve(unrun.rows.size());
    for (const StepRow& row : unrun.rows) unrun.gens.push_back(mirror_.slot_at(row.slot)->gen);
    unrun_.insert_or_assign(key, std::move(unrun));
  }
  return message;
}

void StepSender::strip_tokens(NodeStep& draft) const {
  const auto keeps = [&](LaneId lane) {
    const LaneHop* hop = hop_of(mirror_, draft, lane);
    return hop == nullptr || hop->keeps_tokens();
  };
  for (FreshSlot& fresh : draft.fresh) {
    if (!keeps(fresh.lane)) fresh.tokens.clear();
  }
  for (ResumedSlot& resumed : draft.resumed) {
    if (!keeps(resumed.lane)) resumed.tokens.clear();
  }
  if (draft.runs() && !keeps(draft.lane)) {
    for (StepRow& row : draft.rows) {
      row.flags &= ~static_cast<uint32_t>(StepRow::kToken | StepRow::kFed);
      row.token = 0;
    }
  }
}

void StepSender::imply(NodeStep& draft) const {
  const auto it = mirror_.lanes_.find(draft.lane);
  if (!draft.runs() || draft.full || it == mirror_.lanes_.end()) return;
  const StepMirror::Lane& lane = it->second;
  const uint32_t flags =
      lane.hop.keeps_tokens() ? StepRow::kSamples | StepRow::kFed : StepRow::kSamples;
  // A slot whose generation or table changes in this very message is written out.
  std::vector<uint32_t> touched;
  for (const FreshSlot& fresh : draft.fresh) touched.push_back(fresh.slot.slot);
  for (const ResumedSlot& resumed : draft.resumed) touched.push_back(resumed.slot.slot);
  std::ranges::sort(touched);

  size_t best = kLeastImplied - 1;
  std::vector<uint32_t> bits;
  constexpr size_t kHistory = StepMirror::kImpliedHistory;
  for (size_t back = 0; back < kHistory && best < draft.rows.size(); ++back) {
    const auto& [step, slots] = lane.recent[(lane.newest + kHistory - back) % kHistory];
    if (step < 0) break;
    bits.assign((slots.size() + 31) / 32, 0);
    size_t matched = 0;
    for (size_t i = 0; i < slots.size() && matched < draft.rows.size(); ++i) {
      const StepRow& row = draft.rows[matched];
      if (row.count != 1 || row.flags != flags ||
          (!touched.empty() && std::ranges::binary_search(touched, row.slot))) {
        break;  // this row is written out, and so are all after it
      }
      const SlotState* s = mirror_.slot(slots[i]);
      if (slots[i].slot != row.slot || s == nullptr || s->computed != row.from) continue;
      bits[i / 32] |= 1u << (i % 32);
      ++matched;
    }
    if (matched <= best) continue;
    best = matched;
    draft.implied_step = step;
    draft.implied = bits;
  }
  if (draft.implied.empty()) return;
  while (draft.implied.back() == 0) draft.implied.pop_back();
  draft.rows.erase(draft.rows.begin(), draft.rows.begin() + static_cast<std::ptrdiff_t>(best));
}

NodeStep StepSender::snapshot() const {
  NodeStep out;
  out.epoch = epoch_;
  out.number = next_number_;
  out.full = true;
  for (const auto& [id, lane] : mirror_.lanes_) out.opened.push_back(lane.hop);
  for (uint32_t i = 0; i < mirror_.slots_.size(); ++i) {
    const SlotState& s = mirror_.slots_[i];
    if (!s.live) continue;
    // What is not known yet is announced again by the row that needs it.
    std::vector<int32_t> tokens = s.tokens.all();
    tokens.erase(std::ranges::find(tokens, kUnknownToken), tokens.end());
    out.fresh.push_back({{i, s.gen}, s.lane, s.spec, s.computed,
                         std::move(tokens), s.blocks});
  }
  return out;
}

Result<std::vector<NodeStep>> StepSender::resync() {
  std::vector<std::pair<LaneStep, Unrun>> again(unrun_.begin(), unrun_.end());
  std::ranges::sort(again, {}, [](const auto& entry) { return entry.second.number; });
  NodeStep full = snapshot();
  for (auto& [step, unrun] : again) {
    std::vector<StepRow> rows;
    for (size_t i = 0; i < unrun.rows.size(); ++i) {
      const SlotGen slot{unrun.rows[i].slot, unrun.gens[i]};
      const auto fresh = std::ranges::lower_bound(full.fresh, slot, {}, &FreshSlot::slot);
      if (fresh == full.fresh.end() || fresh->slot != slot) continue;
      StepRow row = unrun.rows[i];
      fresh->computed = std::min(fresh->computed, row.from);
      row.flags &= ~static_cast<uint32_t>(StepRow::kToken);  // the snapshot has it
      row.token = 0;
      rows.push_back(row);
    }
    unrun.rows = std::move(rows);
  }
  unrun_.clear();
  std::vector<NodeStep> messages;
  ASSIGN_OR_RETURN(full, send(std::move(full)));
  messages.push_back(std::move(full));
  for (auto& [step, unrun] : again) {
    if (unrun.rows.empty()) continue;
    NodeStep message;
    message.lane = step.lane;
    message.step = step.step;
    message.rows = std::move(unrun.rows);
    ASSIGN_OR_RETURN(message, send(std::move(message)));
    messages.push_back(std::move(message));
  }
  return messages;
}

void StepSender::restart(Epoch epoch) {
  epoch_ = epoch;
  next_number_ = 1;
  mirror_ = StepMirror(mirror_.limits());
  unrun_.clear();
}

}  // namespace towline::policy
