// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/peer.hpp"

#include <algorithm>
#include <utility>

namespace towline::policy {

void Peer::on_message(NodeStep message, std::vector<PeerAction>& out) {
  if (asked_ && !message.full) return;  // nothing makes sense before the full form
  const Result<void> applied = mirror_.apply(message);
  if (!applied) {
    if (applied.error().code() == Code::kAlreadyExists) return;
    asked_ = true;
    out.push_back(AskFullForm{applied.error().to_string()});
    return;
  }
  asked_ = false;
  halted_ = false;
  for (const LaneHop& hop : message.opened) latest_lane_ = std::max(latest_lane_, hop.lane.value);
  if (message.full) {  // steps are told again, and may have been taken before
    lanes_.clear();
  }
  for (const LaneId lane : message.closed) lanes_.erase(lane);
  if (message.runs()) lanes_[message.lane].waiting.push_back(message.step);
  const bool sweep = message.full || !message.closed.empty() || !message.opened.empty();
  out.push_back(ForwardStep{std::move(message)});
  if (sweep) drop_stale_inputs(out);
  run_next(out);
}

bool Peer::has_gone(LaneId lane) const {
  return mirror_.lane(lane) == nullptr && lane.value <= latest_lane_;
}

void Peer::drop_stale_inputs(std::vector<PeerAction>& out) {
  std::erase_if(inputs_, [&](const auto& entry) {
    if (!has_gone(entry.first.lane)) return false;
    out.push_back(DropInput{entry.second.input});
    return true;
  });
}

void Peer::on_input(LaneStep step, int32_t rows, InputId input, std::vector<PeerAction>& out) {
  const auto lane = lanes_.find(step.lane);
  const bool done = lane != lanes_.end() && step.step <= lane->second.taken;
  if (has_gone(step.lane) || done || inputs_.contains(step)) {
    out.push_back(DropInput{input});
    return;
  }
  if (inputs_.size() >= static_cast<size_t>(std::max(limits_.held_inputs, 1))) {
    const auto oldest =
        std::ranges::min_element(inputs_, {}, [](const auto& e) { return e.second.order; });
    out.push_back(DropInput{oldest->second.input});
    inputs_.erase(oldest);
    begin_anew("more hidden rows wait for their messages than are kept", out);
  }
  inputs_[step] = {input, rows, next_order_++};
  run_next(out);
}

void Peer::on_feed(std::vector<FedToken> tokens, std::vector<PeerAction>& out) {
  const Result<void> fed = mirror_.feed(tokens);
  if (!fed) {
    asked_ = true;
    out.push_back(AskFullForm{fed.error().to_string()});
    return;
  }
  out.push_back(ForwardFeed{std::move(tokens)});
  run_next(out);
}

void Peer::on_run_done(std::vector<PeerAction>& out) {
  running_ = std::max(running_ - 1, 0);
  ++runs_;
  run_next(out);
}

void Peer::on_state_lost(const std::string& reason, std::vector<PeerAction>& out) {
  halted_ = true;
  asked_ = true;
  out.push_back(AskFullForm{reason});
}

// The lane of an input that was dropped would wait for it for ever: before a full form is sent, the
// lanes through this node are closed.
void Peer::begin_anew(const std::string& reason, std::vector<PeerAction>& out) {
  if (asked_) return;
  asked_ = true;
  out.push_back(AskFullForm{reason});
}

bool Peer::is_ready(LaneStep step) const {
  const std::vector<StepRow>* rows = mirror_.pending(step);
  const LaneHop* hop = mirror_.lane(step.lane);
  if (rows == nullptr || hop == nullptr) return false;
  return mirror_.tokens_ready(step) && (hop->embeds() || inputs_.contains(step));
}

void Peer::run_next(std::vector<PeerAction>& out) {
  while (running_ < std::max(limits_.runs, 1) && !halted_ && start_run(out)) ++running_;
}

bool Peer::start_run(std::vector<PeerAction>& out) {
  struct Candidate {
    int32_t rows;
    LaneStep step;
  };
  std::vector<Candidate> candidates;
  for (const auto& [id, lane] : lanes_) {
    if (lane.waiting.empty()) continue;
    const LaneStep first{id, lane.waiting.front()};
    if (!is_ready(first)) continue;
    int32_t rows = 0;
    for (const StepRow& row : *mirror_.pending(first)) rows += row.count;
    candidates.push_back({rows, first});
  }
  std::ranges::stable_sort(candidates, {}, &Candidate::rows);
  RunSteps run;
  int32_t rows = 0;
  for (const Candidate& c : candidates) {
    if (!run.pieces.empty() && rows + c.rows > limits_.run_rows) break;
    rows += c.rows;
    RunPiece piece{c.step, *mirror_.lane(c.step.lane), *mirror_.pending(c.step), InputId(-1)};
    if (const auto input = inputs_.find(c.step); input != inputs_.end()) {
      // A previous node that sent another number of rows is broken; the step is not run with them.
      if (input->second.rows != c.rows) {
        out.push_back(DropInput{input->second.input});
        inputs_.erase(input);
        rows -= c.rows;
        begin_anew("hidden rows came in another number than their step has", out);
        continue;
      }
      piece.input = input->second.input;
      inputs_.erase(input);
    }
    mirror_.retire(c.step);
    Lane& lane = lanes_.at(c.step.lane);
    lane.taken = c.step.step;
    lane.waiting.pop_front();
    run.pieces.push_back(std::move(piece));
  }
  if (run.pieces.empty()) return false;
  out.push_back(std::move(run));
  return true;
}

}  // namespace towline::policy
