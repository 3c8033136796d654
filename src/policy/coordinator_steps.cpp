// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Coordinator: forming steps, telling the nodes of a lane, and taking their results.
#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.hpp"
#include "base/fmt.hpp"
#include "policy/coordinator.hpp"

namespace towline::policy {
namespace {

constexpr int64_t kMostOutstanding = 240;  // steps of one node; below its mirror's limit

}  // namespace

// --- forming ------------------------------------------------------------------------------------

void Coordinator::form_steps() {
  std::vector<LaneId> ids;
  for (const auto& [id, lane] : lanes_) ids.push_back(id);
  for (const LaneId id : ids) {
    for (;;) {
      const auto at = lanes_.find(id);
      if (at == lanes_.end() || !form_step(id, at->second)) break;
    }
  }
}

bool Coordinator::form_step(LaneId id, Lane& lane) {
  if (batcher_.ready(id) + batcher_.waiting(id) == 0) return false;
  const auto hops = static_cast<int32_t>(lane.way.size());
  // One node has nothing to overlap with, and is fastest with everything in one step.
  const bool async = options_.batch.placeholders && options_.batch.ahead > 0;
  const int32_t depth = hops == 1 ? (async ? 2 : 1) : hops + std::max(options_.extra_steps, 0);
  if (lane.flights.size() >= static_cast<size_t>(depth)) return false;
  for (const LaneHopAt& hop : lane.way) {
    if (nodes_[static_cast<size_t>(hop.node.value)].outstanding >= kMostOutstanding) return false;
  }
  const int32_t members = std::min(batcher_.sequences_of(id), options_.batch.sequences);
  const int32_t parts = async ? hops : depth;  // a sequence that is in two steps counts in both
  Step step = batcher_.next_step(id, (members + parts - 1) / parts);
  drop_tables(step.dropped);
  if (step.empty()) return false;
  dispatch(id, lane, std::move(step));
  return true;
}

// Sequences whose blocks were taken. Those that ended are gone from requests_ already.
void Coordinator::drop_tables(std::span<const SeqId> dropped) {
  for (const SeqId seq : dropped) {
    const auto at = requests_.find(seq);
    if (at == requests_.end() || !at->second.slot) continue;
    Request& r = at->second;
    if (free_slots_.size() < static_cast<size_t>(options_.slots) / 4 &&
        slot_gens_.size() >= static_cast<size_t>(options_.slots)) {
      free_slot(r);  // many preempted ones: the nodes need not remember all of them
      continue;
    }
    for (const LaneHopAt& hop : lanes_.at(r.lane).way) {
      Node& node = nodes_[static_cast<size_t>(hop.node.value)];
      if (node.sender) node.draft.preempted.push_back(*r.slot);
    }
  }
}

SlotGen Coordinator::take_slot() {
  if (free_slots_.empty()) {
    CHECK(slot_gens_.size() < static_cast<size_t>(options_.slots), options_.slots);
    free_slots_.push_back(static_cast<uint32_t>(slot_gens_.size()));
    slot_gens_.push_back(0);
  }
  const uint32_t slot = free_slots_.back();
  free_slots_.pop_back();
  return {slot, ++slot_gens_[slot]};
}

// The nodes of its lane forget the sequence.
void Coordinator::free_slot(Request& r) {
  if (!r.slot) return;
  for (const LaneHopAt& hop : lanes_.at(r.lane).way) {
    Node& node = nodes_[static_cast<size_t>(hop.node.value)];
    if (!node.sender) continue;
    std::erase(node.draft.preempted, *r.slot);
    node.draft.finished.push_back(*r.slot);
  }
  free_slots_.push_back(r.slot->slot);
  r.slot.reset();
}

void Coordinator::dispatch(LaneId id, Lane& lane, Step step) {
  const int64_t number = lane.next_step++;
  std::vector<NodeStep> drafts(lane.way.size());
  for (size_t i = 0; i < lane.way.size(); ++i) {
    drafts[i].lane = id;
    drafts[i].step = number;
    if (lane.announced) continue;
    LaneHop hop;
    hop.lane = id;
    hop.layers = lane.way[i].layers;
    if (i > 0) hop.previous = lane.way[i - 1].node;
    if (i + 1 < lane.way.size()) hop.next = lane.way[i + 1].node;
    hop.first = lane.way.front().node;
    drafts[i].opened.push_back(hop);
  }
  lane.announced = true;
  Flight flight;
  flight.began = now_;
  int64_t rows = 0;
  for (const StepEntry& entry : step.entries) {
    Request& r = requests_.at(entry.seq);
    add_entry(lane, id, entry, r, drafts);
    flight.slots.push_back(*r.slot);
    rows += entry.to - entry.from;
    if (r.first_step.ns < 0) {
      r.first_step = now_;
      r.cached = batcher_.cached_tokens(r.seq);
      traces_.at(r.spec.id).first_step = now_;
    }
  }
  flight.step = std::move(step);
  lane.flights.emplace(number, std::move(flight));
  const Way way = lane.way;  // a node that cannot be told is lost, and the lane with it
  for (const LaneHopAt& hop : way) {
    Node& node = nodes_[static_cast<size_t>(hop.node.value)];
    ++node.outstanding;
    node.rows += rows;
    membership_.set_busy(now_, hop.node, true);
  }
  for (size_t i = 0; i < way.size(); ++i) {
    if (!send(way[i].node, std::move(drafts[i]))) {
      lose_node(way[i].node, "it could not be told about a step");
      return;
    }
  }
}

void Coordinator::add_entry(const Lane& lane, LaneId id, const StepEntry& entry, Request& r,
                     std::vector<NodeStep>& drafts) {
  const bool resumed = entry.fresh && r.slot.has_value();
  if (entry.fresh && !resumed) r.slot = take_slot();
  StepRow row;
  row.slot = r.slot->slot;
  row.from = entry.from;
  row.count = entry.to - entry.from;
  if (entry.samples) row.flags |= StepRow::kSamples;
  const bool every_row = r.spec.spec.prompt_logprobs || r.spec.spec.embed;
  if (every_row && entry.from < r.spec.spec.prompt_length) row.flags |= StepRow::kEveryRow;
  if (entry.to > r.spec.spec.prompt_length) {  // the nodes know the prompt
    const int32_t last = entry.tokens.back();
    row.flags |= last == kPlaceholder ? StepRow::kFed : StepRow::kToken;
    row.token = last == kPlaceholder ? 0 : last;
  }
  const size_t each = entry.blocks.size() / lane.way.size();
  for (size_t i = 0; i < drafts.size(); ++i) {
    NodeStep& draft = drafts[i];
    std::vector<int32_t> blocks;
    for (size_t k = i * each; k < (i + 1) * each; ++k) blocks.push_back(entry.blocks[k].value);
    if (resumed) {
      draft.resumed.push_back({*r.slot, id, entry.from, 0, {}, std::move(blocks)});
    } else if (entry.fresh) {
      const std::span<const int32_t> tokens = batcher_.tokens(r.seq);
      draft.fresh.push_back({*r.slot, id, r.spec.spec, entry.from,
                             {tokens.begin(), tokens.end()}, std::move(blocks)});
    } else {
      for (const int32_t block : blocks) {
        draft.new_blocks.push_back({static_cast<uint32_t>(draft.rows.size()), block});
      }
    }
    draft.rows.push_back(row);
  }
}

// Sends the draft together with the sections that wait for the node.
bool Coordinator::send(NodeId id, NodeStep draft) {
  Node& node = nodes_[static_cast<size_t>(id.value)];
  if (!node.sender) return false;
  NodeStep sections = std::exchange(node.draft, NodeStep{});
  draft.closed = std::move(sections.closed);
  draft.finished = std::move(sections.finished);
  draft.preempted = std::move(sections.preempted);
  Result<NodeStep> message = node.sender->next(std::move(draft));
  if (!message) {
    note(CoordinatorNote::kError, format("a message for node {} could not be made: {}",
                                  membership_.member(id).name, message.error().to_string()));
    return false;
  }
  out_->push_back(SendStep{id, std::move(message).value()});
  return true;
}

void Coordinator::flush_drafts() {
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const NodeStep& draft = nodes_[i].draft;
    if (draft.closed.empty() && draft.finished.empty() && draft.preempted.empty()) continue;
    const NodeId id(static_cast<int32_t>(i));
    if (!send(id, NodeStep{})) lose_node(id, "it could not be told what ended");
  }
}

// --- results ------------------------------------------------------------------------------------

void Coordinator::on(const StepResults& results) {
  const auto at = lanes_.find(results.step.lane);
  if (at == lanes_.end() || at->second.way.back().node != results.node) return;  // closed since
  Lane& lane = at->second;
  const auto found = lane.flights.find(results.step.step);
  if (found == lane.flights.end()) return;
  const Flight flight = std::move(found->second);
  land(lane, results.step.step);
  for (const LaneHopAt& hop : lane.way) {
    Node& node = nodes_[static_cast<size_t>(hop.node.value)];
    if (node.sender) node.sender->completed(results.step);
  }
  std::map<SlotGen, const RowResult*> by_slot;
  for (const RowResult& row : results.rows) by_slot[row.slot] = &row;
  std::vector<Sampled> sampled;
  int64_t decoded = 0;
  for (size_t i = 0; i < flight.step.entries.size(); ++i) {
    const StepEntry& entry = flight.step.entries[i];
    Request& r = requests_.at(entry.seq);
    const auto result = by_slot.find(flight.slots[i]);
    const RowResult* row = result == by_slot.end() ? nullptr : result->second;
    note_prompt(r, entry, row);
    if (!entry.samples) continue;
    sampled.push_back(accept(r, entry, row));
    if (options_.batch.placeholders && !sampled.back().failed) {
      learn(lane, flight.slots[i], entry.to, sampled.back().token);
    }
    ++decoded;
  }
  batcher_.complete(flight.step, sampled);
  ++steps_;
  last_rows_ = flight.step.rows();
  tokens_ += last_rows_;
  if (chooser_ && lane.plan == plan_) chooser_->stepped(lane.pipeline, decoded, now_ - flight.began);
}

// A token that the nodes fed to each other: the copies of what they know must have it too.
void Coordinator::learn(const Lane& lane, SlotGen slot, int32_t position, int32_t token) {
  for (const NodeId id : {lane.way.front().node, lane.way.back().node}) {
    Node& node = nodes_[static_cast<size_t>(id.value)];
    if (node.sender) (void)node.sender->learn(slot, position, token);
  }
}

Sampled Coordinator::accept(Request& r, const StepEntry& entry, const RowResult* result) {
  Sampled sampled;
  sampled.seq = entry.seq;
  if (r.done || r.failure) return sampled;  // computed ahead of its end
  const bool valid = result != nullptr && result->error.empty() && result->sampled &&
                     result->token.token >= 0 && result->token.token < options_.vocab;
  if (!valid) {
    r.done = true;
    r.failure = result == nullptr          ? "the last node of its way sent no result for it"
                : !result->error.empty()   ? result->error
                : !result->sampled         ? "the last node of its way drew no token"
                                           : "the last node of its way drew an impossible token";
    r.failure_code = Code::kInternal;
    sampled.failed = true;
    return sampled;
  }
  sampled.token = result->token.token;
  sampled.stop = std::ranges::find(r.spec.stop_tokens, sampled.token) != r.spec.stop_tokens.end();
  ++r.outputs;
  r.done = sampled.stop || r.outputs == r.spec.max_tokens;
  RequestUpdate& update = update_of(r);
  update.tokens.push_back(result->token);
  update.last_is_stop = sampled.stop;
  RequestTrace& trace = traces_.at(r.spec.id);
  if (r.outputs == 1) trace.first_token = now_;
  trace.output_tokens = r.outputs;
  return sampled;
}

void Coordinator::note_prompt(Request& r, const StepEntry& entry, const RowResult* result) {
  const int32_t prompt = r.spec.spec.prompt_length;
  if (r.prompt_reported) return;
  if (result != nullptr && r.spec.spec.prompt_logprobs) {
    r.prompt_scores.resize(static_cast<size_t>(prompt));
    for (size_t i = 0; i < result->prompt.size(); ++i) {
      const int64_t position = int64_t{result->prompt_from} + static_cast<int64_t>(i);
      if (position >= 1 && position < prompt) {
        r.prompt_scores[static_cast<size_t>(position)] = result->prompt[i];
      }
    }
  }
  if (result != nullptr && r.spec.spec.embed) {
    if (entry.from == 0) {
      r.pooled.assign(result->pooled.size(), 0.0);
      r.pooled_rows = 0;
    }
    if (entry.from == r.pooled_rows && result->pooled.size() == r.pooled.size()) {
      for (size_t i = 0; i < r.pooled.size(); ++i) {
        r.pooled[i] += static_cast<double>(result->pooled[i]);
      }
      r.pooled_rows = entry.to;
    }
  }
  if (entry.to < prompt) return;
  r.prompt_reported = true;
  prompt_tokens_ += prompt;
  report_prompt(r);
}

void Coordinator::report_prompt(Request& r) {
  if (r.spec.spec.prompt_logprobs) {
    r.prompt_scores[0].token = batcher_.tokens(r.seq)[0];
    update_of(r).prompt_tokens = std::move(r.prompt_scores);
  }
  if (r.spec.spec.embed) {
    double square = 0;
    for (const double v : r.pooled) square += v * v;
    const double norm = square > 0 ? std::sqrt(square) : 1.0;
    RequestUpdate& update = update_of(r);
    for (const double v : r.pooled) update.embedding.push_back(static_cast<float>(v / norm));
  }
}

RequestUpdate& Coordinator::update_of(const Request& r) {
  RequestUpdate& update = updates_[r.seq];
  update.id = r.spec.id;
  update.cached_tokens = r.cached;
  update.queued = r.first_step.ns < 0 ? Duration(0) : r.first_step - r.submitted;
  return update;
}

void Coordinator::on(const StepFailed& failed) {
  const auto at = lanes_.find(failed.step.lane);
  if (at == lanes_.end()) return;
  const auto flight = at->second.flights.find(failed.step.step);
  if (flight == at->second.flights.end()) return;
  const std::string name =
      node_at(failed.node) == nullptr ? "?" : membership_.member(failed.node).name;
  const std::string why = format("node {} could not evaluate a step: {}", name, failed.reason);
  note(CoordinatorNote::kError, why);
  std::vector<SeqId> members;
  for (const StepEntry& entry : flight->second.step.entries) members.push_back(entry.seq);
  for (const SeqId seq : members) fail(requests_.at(seq), Code::kInternal, why);
  // Its hidden rows will never reach the nodes after it: the lane begins again.
  lose_lane(failed.step.lane, why);
}

}  // namespace towline::policy
