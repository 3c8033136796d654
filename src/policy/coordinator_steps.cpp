// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Coordinator: telling the nodes of a lane its steps, and taking their results.
#include <algorithm>
#include <utility>

#include "base/check.hpp"
#include "base/fmt.hpp"
#include "policy/coordinator.hpp"

namespace towline::policy {
// --- telling ------------------------------------------------------------------------------------

// The sequence's blocks were taken.
void Coordinator::drop_table(Request& r) {
  if (!r.slot) return;
  if (free_slots_.size() < static_cast<size_t>(options_.slots) / 4 &&
      slot_gens_.size() >= static_cast<size_t>(options_.slots)) {
    return free_slot(r);  // many preempted ones: the nodes need not remember all of them
  }
  for (const Way& hop : lanes_.at(r.lane).way) {
    Node& node = nodes_[static_cast<size_t>(hop.node.value)];
    if (node.sender) node.draft.preempted.push_back(*r.slot);
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
  for (const Way& hop : lanes_.at(r.lane).way) {
    Node& node = nodes_[static_cast<size_t>(hop.node.value)];
    if (!node.sender) continue;
    std::erase(node.draft.preempted, *r.slot);
    node.draft.finished.push_back(*r.slot);
  }
  free_slots_.push_back(r.slot->slot);
  r.slot.reset();
}

void Coordinator::announce(Lane& lane, LaneId id, std::vector<NodeStep>& drafts) {
  lane.wire = LaneId(next_wire_++);
  on_wire_[lane.wire] = id;
  for (size_t i = 0; i < lane.way.size(); ++i) {
    LaneHop hop;
    hop.lane = lane.wire;
    hop.layers = lane.way[i].layers;
    if (i > 0) hop.previous = lane.way[i - 1].node;
    if (i + 1 < lane.way.size()) hop.next = lane.way[i + 1].node;
    hop.first = lane.way.front().node;
    drafts[i].opened.push_back(hop);
  }
}

Coordinator::Lane* Coordinator::lane_on_wire(LaneStep step) {
  const auto at = on_wire_.find(step.lane);
  if (at == on_wire_.end()) return nullptr;  // closed since
  Lane& lane = lanes_.at(at->second);
  return lane.flights.contains(step.step) ? &lane : nullptr;
}

void Coordinator::dispatch(int32_t ticket, LaneId id) {
  Lane& lane = lanes_.at(id);
  const Step& step = host_.flight(ticket);
  const int64_t number = lane.next_step++;
  std::vector<NodeStep> drafts(lane.way.size());
  if (lane.wire.value < 0) announce(lane, id, drafts);
  for (NodeStep& draft : drafts) {
    draft.lane = lane.wire;
    draft.step = number;
  }
  Flight flight;
  flight.ticket = ticket;
  int64_t rows = 0;
  for (const StepEntry& entry : step.entries) {
    Request& r = requests_.at(entry.seq);
    add_entry(lane, entry, r, drafts);
    if (options_.iterations) note_iteration(r, entry, false);
    flight.slots.push_back(*r.slot);
    rows += entry.to - entry.from;
    if (r.first_step.ns < 0) {
      r.first_step = now_;
      r.cached = host_.batcher().cached_tokens(r.seq);
      traces_.at(r.spec.id).first_step = now_;
    }
  }
  lane.flights.emplace(number, std::move(flight));
  tickets_[ticket] = {id, number};
  for (size_t i = 0; i < lane.way.size(); ++i) {
    const NodeId at = lane.way[i].node;
    Node& node = nodes_[static_cast<size_t>(at.value)];
    node.rows += rows;
    // One that was lost just now is about to break the lane.
    if (node.sender && !send(at, std::move(drafts[i]))) {
      lose_node(at, "it could not be told about a step");
    }
  }
}

void Coordinator::add_entry(const Lane& lane, const StepEntry& entry, Request& r,
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
      draft.resumed.push_back({*r.slot, lane.wire, entry.from, 0, {}, std::move(blocks)});
    } else if (entry.fresh) {
      const std::span<const int32_t> tokens = host_.batcher().tokens(r.seq);
      draft.fresh.push_back({*r.slot, lane.wire, r.spec.spec, entry.from,
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
  if (!node.sender || (node.resync && !send_full(id))) return false;
  NodeStep sections = std::exchange(node.draft, NodeStep{});
  draft.closed = std::move(sections.closed);
  draft.finished = std::move(sections.finished);
  draft.preempted = std::move(sections.preempted);
  Result<NodeStep> message = node.sender->next(std::move(draft));
  if (!message) {
    note(CoordinatorNote::kError, format("a message for node {} could not be made: {}",
                                         name_of(id), message.error().to_string()));
    return false;
  }
  out_->push_back(SendStep{id, std::move(message).value()});
  return true;
}

// The full form, with the sections that wait for the node. (The lanes through it were closed: no
// rows are repeated but those sent since.)
bool Coordinator::send_full(NodeId id) {
  Node& node = nodes_[static_cast<size_t>(id.value)];
  node.resync = false;
  if (!node.sender->next(std::exchange(node.draft, NodeStep{}))) {
    node.sender->restart(options_.epoch);
  }
  Result<std::vector<NodeStep>> again = node.sender->resync();
  if (!again) {
    note(CoordinatorNote::kError, format("the full form for node {} could not be made: {}",
                                         name_of(id), again.error().to_string()));
    return false;
  }
  for (NodeStep& message : *again) out_->push_back(SendStep{id, std::move(message)});
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
  membership_.heard_of(now_, results.node);
  Lane* const known = lane_on_wire(results.step);
  if (known == nullptr || known->way.back().node != results.node) return;
  Lane& lane = *known;
  const Flight flight = lane.flights.at(results.step.step);
  const Step& step = host_.flight(flight.ticket);
  if (!host_.batcher().in_order(step)) {
    const std::string why = format("node {} answered step {} of a lane before an earlier one",
                                   name_of(results.node), results.step.step);
    note(CoordinatorNote::kError, why);
    return begin_again({on_wire_.at(lane.wire)}, {}, why);
  }
  lane.flights.erase(results.step.step);
  tickets_.erase(flight.ticket);
  for (const Way& hop : lane.way) {
    Node& node = nodes_[static_cast<size_t>(hop.node.value)];
    if (node.sender) node.sender->completed(results.step);
  }
  std::map<SlotGen, const RowResult*> by_slot;
  for (const RowResult& row : results.rows) by_slot[row.slot] = &row;
  std::vector<Sampled> sampled;
  SendFeed feed{lane.way.front().node, results.step, {}};
  for (size_t i = 0; i < step.entries.size(); ++i) {
    const StepEntry& entry = step.entries[i];
    Request& r = requests_.at(entry.seq);
    const auto result = by_slot.find(flight.slots[i]);
    const RowResult* row = result == by_slot.end() ? nullptr : result->second;
    note_prompt(r, entry, row);
    if (options_.iterations) note_iteration(r, entry, true);
    if (!entry.samples) continue;
    sampled.push_back(accept(r, entry, row));
    if (options_.batch.placeholders && !sampled.back().failed) {
      learn(lane, flight.slots[i], entry.to, sampled.back().token);
      feed.tokens.push_back({flight.slots[i], entry.to, sampled.back().token});
    }
  }
  if (feeds_break(lane) && !feed.tokens.empty()) out_->push_back(std::move(feed));
  ++steps_;
  last_rows_ = step.rows();
  tokens_ += last_rows_;
  tell(StepDone{flight.ticket, sampled});
}

// A token that the nodes fed to each other: the copies of what they know must have it too.
void Coordinator::learn(const Lane& lane, SlotGen slot, int32_t position, int32_t token) {
  for (const NodeId id : {lane.way.front().node, lane.way.back().node}) {
    Node& node = nodes_[static_cast<size_t>(id.value)];
    if (node.sender) (void)node.sender->learn(slot, position, token);
  }
}

// The lane's last node cannot feed its first.
bool Coordinator::feeds_break(const Lane& lane) const {
  return options_.batch.placeholders && lane.way.size() > 1 &&
         broken_.contains({lane.way.back().node, lane.way.front().node});
}

void Coordinator::note_iteration(Request& r, const StepEntry& entry, bool result) {
  if (entry.fresh && !result) r.known = host_.batcher().length(r.seq);
  IterationNote note{r.seq, result, entry.to <= r.known, 0, int64_t{r.known} + 1};
  if (!note.prompt) {
    note.context = entry.to;
    note.tokens = 1;
  } else if (result ? entry.to < r.known : !entry.fresh) {
    return;  // a piece of it
  }
  out_->push_back(note);
}

Sampled Coordinator::accept(Request& r, const StepEntry& entry, const RowResult* result) {
  Sampled sampled;
  sampled.seq = entry.seq;
  if (r.done || r.failure) return sampled;  // computed ahead of its end
  const bool valid = result != nullptr && result->extras->error.empty() && result->sampled &&
                     result->token.token >= 0 && result->token.token < options_.vocab;
  if (!valid) {
    r.done = true;
    r.failure = result == nullptr          ? "the last node of its way sent no result for it"
                : !result->extras->error.empty()   ? result->extras->error
                : !result->sampled         ? "the last node of its way drew no token"
                                           : "the last node of its way drew an impossible token";
    r.failure_code = Code::kInternal;
    sampled.failed = true;
    return sampled;
  }
  sampled.token = result->token.token;
  sampled.stop = std::ranges::find(r.spec.stop_tokens, sampled.token) != r.spec.stop_tokens.end();
  ++r.outputs;
  r.stopped = sampled.stop;
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
    for (size_t i = 0; i < result->extras->prompt.size(); ++i) {
      const int64_t position = int64_t{result->extras->prompt_from} + static_cast<int64_t>(i);
      if (position >= 1 && position < prompt) {
        r.prompt_scores[static_cast<size_t>(position)] = result->extras->prompt[i];
      }
    }
  }
  if (entry.to < prompt) return;
  r.prompt_reported = true;
  prompt_tokens_ += prompt;
  if (r.spec.spec.prompt_logprobs) {
    r.prompt_scores.resize(static_cast<size_t>(prompt));
    r.prompt_scores[0].token = host_.batcher().tokens(r.seq)[0];
    update_of(r).prompt_tokens = std::move(r.prompt_scores);
  }
  if (!r.spec.spec.embed || r.failure) return;
  if (result != nullptr && result->extras->pooled_rows == prompt) {
    update_of(r).embedding = result->extras->pooled;
  } else {
    r.failure = "the last node of its way did not pool the whole prompt";
    r.failure_code = Code::kInternal;
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
  membership_.heard_of(now_, failed.node);
  const Lane* lane = lane_on_wire(failed.step);
  if (lane == nullptr) return;
  const int32_t ticket = lane->flights.at(failed.step.step).ticket;
  const std::string name = node_at(failed.node) == nullptr ? "?" : name_of(failed.node);
  const std::string why = format("node {} could not evaluate a step: {}", name, failed.reason);
  note(CoordinatorNote::kError, why);
  std::vector<RequestId> members;
  for (const StepEntry& entry : host_.flight(ticket).entries) {
    members.push_back(RequestId(entry.seq.value));
    Request& r = requests_.at(entry.seq);
    if (r.failure) continue;
    r.failure = why;
    r.failure_code = Code::kInternal;
  }
  // Its hidden rows will never reach the nodes after it: the lane begins again.
  begin_again({on_wire_.at(lane->wire)}, std::move(members), why);
}

}  // namespace towline::policy
