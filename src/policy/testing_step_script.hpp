// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// StepScript: a random coordinator of one node, for tests. It keeps the whole state of every
// sequence in the plainest way (the oracle of StepMirror) and drafts the next step: lanes open and
// close, sequences are admitted, cut into chunks, preempted, resumed, finished. "Sampled" tokens
// are a pure function of (sequence, position), so two runs of one script can be compared.
#pragma once

#include <algorithm>
#include <deque>
#include <map>
#include <vector>

#include "base/check.hpp"
#include "base/rng.hpp"
#include "policy/block_ledger.hpp"
#include "policy/step_delta.hpp"

namespace towline::policy {

struct StepScriptOptions {
  int32_t slots = 12, blocks = 48, vocab = 500;
  int32_t lanes = 2;
  int32_t longest_prompt = 70;
  int32_t adapters = 0;      // sequences choose one of these or none
  size_t in_flight = 1;      // steps, at most
  bool fed = false;          // sampled tokens come by feed(), else in the next message
  bool async = false;        // with fed: a sequence may be scheduled before its token is known
  bool embeds = true, samples = true;  // the node's place in every lane
};

class StepScript {
 public:
  struct Sample {
    SlotGen slot;
    int32_t position = 0, token = 0;
    friend bool operator==(const Sample&, const Sample&) = default;
  };

  StepScript(const StepScriptOptions& options, uint64_t seed) : o_(options), rng_(seed) {
    for (int32_t b = o_.blocks - 1; b >= 0; --b) free_blocks_.push_back(b);
    gens_.resize(static_cast<size_t>(o_.slots), 0);
    taken_.resize(static_cast<size_t>(o_.slots), false);
  }

  static int32_t token_at(SeqId seq, int64_t position, int32_t vocab) {
    const uint64_t bits = random_at(static_cast<uint64_t>(seq.value), static_cast<uint64_t>(position));
    return static_cast<int32_t>(bits % static_cast<uint64_t>(vocab));
  }

  MirrorLimits limits() const {
    MirrorLimits l;
    l.slots = o_.slots;
    l.blocks = o_.blocks;
    l.vocab = o_.vocab;
    l.context = 4096;
    return l;
  }

  NodeStep draft() {
    NodeStep step;
    change_lanes(step);
    end_or_preempt(step);
    resume_some(step);
    admit_some(step);
    if (steps_.size() < o_.in_flight && !lanes_.empty()) add_rows(step);
    return step;
  }

  const std::deque<LaneStep>& in_flight() const { return steps_; }

  // The oldest step in flight was evaluated: what it sampled.
  std::vector<Sample> complete() {
    CHECK(!steps_.empty());
    const LaneStep done = steps_.front();
    steps_.pop_front();
    std::vector<Sample> out;
    for (auto& [slot, s] : sequences_) {
      const auto row = std::ranges::find(s.rows, done, &Scheduled::step);
      if (row == s.rows.end()) continue;
      if (row->samples) {
        CHECK(row->to == static_cast<int32_t>(s.tokens.size()));
        s.tokens.push_back(token_at(s.spec.seq, row->to, o_.vocab));
        if (!o_.fed) s.unsent = true;
        out.push_back({slot, row->to, s.tokens.back()});
      }
      s.rows.erase(row);
    }
    return out;
  }

  // Empty if the mirror holds what the script meant, else what differs.
  std::string compare(const StepMirror& mirror) const {
    size_t live = 0;
    for (const SlotState& s : mirror.slots()) live += s.live ? 1 : 0;
    if (live != sequences_.size()) return "number of live slots";
    for (const auto& [slot, want] : sequences_) {
      const SlotState* got = mirror.slot(slot);
      if (got == nullptr) return "slot missing";
      if (got->lane != want.lane) return "lane";
      if (got->computed != want.computed) return "computed rows";
      if (got->blocks != want.blocks) return "block table";
      if (got->spec != want.spec) return "parameters";
      if (!o_.embeds && !o_.samples) {
        if (!got->tokens.empty()) return "tokens where none are kept";
        continue;
      }
      const size_t known = std::min(got->tokens.size(), want.tokens.size());
      if (known + (want.unsent || o_.fed ? 1 : 0) < want.tokens.size()) return "tokens missing";
      for (size_t i = 0; i < known; ++i) {
        if (got->tokens[i] != want.tokens[i] && got->tokens[i] != kUnknownToken) return "tokens";
      }
    }
    return {};
  }

 private:
  struct Scheduled {
    LaneStep step;
    int32_t to;
    bool samples;
  };
  struct Sequence {
    SlotSpec spec;
    LaneId lane{-1};
    std::vector<int32_t> tokens;   // known ones
    std::vector<int32_t> blocks;
    int32_t computed = 0;
    bool running = false;          // has its blocks
    bool unsent = false;           // the last token was not told to the node
    std::vector<Scheduled> rows;   // in flight, in order
    int32_t length() const {       // with tokens that are being sampled
      int32_t n = static_cast<int32_t>(tokens.size());
      for (const Scheduled& row : rows) n += row.samples ? 1 : 0;
      return n;
    }
  };

  bool chance(double p) { return rng_.unit() < p; }

  bool take_blocks(std::vector<int32_t>& into, int32_t rows) {
    const auto need = static_cast<size_t>((rows + kBlockTokens - 1) / kBlockTokens);
    if (need > into.size() + free_blocks_.size()) return false;
    while (into.size() < need) {
      into.push_back(free_blocks_.back());
      free_blocks_.pop_back();
    }
    return true;
  }
  void give_back(Sequence& s) {
    for (auto it = s.blocks.rbegin(); it != s.blocks.rend(); ++it) free_blocks_.push_back(*it);
    s.blocks.clear();
    s.computed = 0;
    s.running = false;
  }

  void change_lanes(NodeStep& step) {
    if (!lanes_.empty() && chance(0.01)) {
      const size_t i = rng_.below(lanes_.size());
      const LaneId lane = lanes_[i];
      lanes_.erase(lanes_.begin() + static_cast<std::ptrdiff_t>(i));
      step.closed.push_back(lane);
      std::erase_if(steps_, [&](const LaneStep& s) { return s.lane == lane; });
      for (auto& [slot, s] : sequences_) {
        if (s.lane != lane) continue;
        s.lane = LaneId(-1);
        if (!s.rows.empty()) {  // aborted: its KV is not trusted
          s.rows.clear();
          step.preempted.push_back(slot);
          give_back(s);
        }
      }
    }
    while (static_cast<int32_t>(lanes_.size()) < o_.lanes && (lanes_.empty() || chance(0.2))) {
      const LaneId lane(next_lane_++);
      step.opened.push_back({lane, {0, 4}, NodeId(o_.embeds ? -1 : 0), NodeId(o_.samples ? -1 : 2),
                             NodeId(o_.embeds ? 1 : 0)});
      lanes_.push_back(lane);
    }
  }

  void end_or_preempt(NodeStep& step) {
    for (auto it = sequences_.begin(); it != sequences_.end();) {
      Sequence& s = it->second;
      if (s.rows.empty() && chance(s.tokens.size() > 90 ? 0.5 : 0.02)) {
        step.finished.push_back(it->first);
        // A slot preempted in this same message (lane closed) may end in it as well.
        std::erase(step.preempted, it->first);
        taken_[it->first.slot] = false;
        give_back(s);
        it = sequences_.erase(it);
        continue;
      }
      if (s.rows.empty() && s.running && chance(0.03)) {
        step.preempted.push_back(it->first);
        give_back(s);
      }
      ++it;
    }
  }

  void resume_some(NodeStep& step) {
    for (auto& [slot, s] : sequences_) {
      if ((s.running && s.lane.value >= 0) || lanes_.empty() || chance(0.5)) continue;
      if (!s.running && !take_blocks(s.blocks, static_cast<int32_t>(s.tokens.size()))) continue;
      s.running = true;
      s.lane = lanes_[rng_.below(lanes_.size())];
      ResumedSlot resumed{slot, s.lane, s.computed, s.spec.prompt_length, {}, s.blocks};
      // What was sampled since may be missing on the node: tell it all.
      resumed.tokens.assign(s.tokens.begin() + s.spec.prompt_length, s.tokens.end());
      s.unsent = false;
      step.resumed.push_back(std::move(resumed));
    }
  }

  void admit_some(NodeStep& step) {
    while (!lanes_.empty() && chance(0.3)) {
      const auto place = std::ranges::find(taken_, false);
      if (place == taken_.end()) return;
      const auto index = static_cast<uint32_t>(place - taken_.begin());
      if (std::ranges::find(step.finished, index, &SlotGen::slot) != step.finished.end()) return;
      Sequence s;
      s.spec.seq = SeqId(next_seq_++);
      s.spec.prompt_length = static_cast<int32_t>(rng_.between(1, o_.longest_prompt));
      s.spec.sampling.seed = rng_();
      if (o_.adapters > 0) s.spec.adapter = static_cast<int32_t>(rng_.between(-1, o_.adapters - 1));
      for (int32_t p = 0; p < s.spec.prompt_length; ++p) {
        s.tokens.push_back(token_at(s.spec.seq, p, o_.vocab));
      }
      if (!take_blocks(s.blocks, s.spec.prompt_length)) return;
      if (chance(0.2)) s.computed = (s.spec.prompt_length - 1) / kBlockTokens * kBlockTokens;
      s.running = true;
      s.lane = lanes_[rng_.below(lanes_.size())];
      const SlotGen slot{index, ++gens_[index]};
      taken_[index] = true;
      step.fresh.push_back({slot, s.lane, s.spec, s.computed, s.tokens, s.blocks});
      sequences_.emplace(slot, std::move(s));
    }
  }

  void add_rows(NodeStep& step) {
    step.lane = lanes_[rng_.below(lanes_.size())];
    step.step = next_step_;
    for (auto& [slot, s] : sequences_) {
      if (s.lane != step.lane || !s.running || s.rows.size() >= (o_.async ? 2u : 1u)) continue;
      if (!s.rows.empty() && !s.rows.back().samples) continue;
      const int32_t length = s.length();
      if (s.computed >= length || chance(0.1)) continue;
      int32_t to = length;
      if (to - s.computed > 4 && chance(0.4)) {
        to = s.computed + static_cast<int32_t>(rng_.between(1, 4));
      }
      const size_t had = s.blocks.size();
      if (!take_blocks(s.blocks, to)) continue;
      StepRow row{slot.slot, s.computed, to - s.computed, 0, 0};
      if (to == length) row.flags |= StepRow::kSamples;
      if (to == length && to > s.spec.prompt_length) {
        if (o_.fed) {
          row.flags |= StepRow::kFed;
        } else if (s.unsent) {
          row.flags |= StepRow::kToken;
          row.token = s.tokens.back();
          s.unsent = false;
        }
      }
      for (size_t b = had; b < s.blocks.size(); ++b) {
        step.new_blocks.push_back({static_cast<uint32_t>(step.rows.size()), s.blocks[b]});
      }
      s.computed = to;
      s.rows.push_back({{step.lane, step.step}, to, row.samples()});
      step.rows.push_back(row);
    }
    if (step.rows.empty()) {
      step.lane = LaneId(-1);
      step.step = -1;
      return;
    }
    ++next_step_;
    steps_.push_back({step.lane, step.step});
  }

  StepScriptOptions o_;
  Rng rng_;
  std::vector<LaneId> lanes_;
  std::map<SlotGen, Sequence> sequences_;
  std::vector<int32_t> free_blocks_;
  std::vector<uint16_t> gens_;
  std::vector<bool> taken_;
  std::deque<LaneStep> steps_;
  int32_t next_lane_ = 0;
  int64_t next_seq_ = 1, next_step_ = 0;
};

}  // namespace towline::policy
