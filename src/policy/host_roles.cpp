// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Host: requests whose prompt runs on other nodes than their decoding.
#include <algorithm>
#include <utility>

#include "policy/host.hpp"

namespace towline::policy {

// With roles the batcher is told of the prompt and one token; the tokens
// stay here for the next part.
bool Host::add_sequence(RequestId id, Request& r, LaneId lane) {
  const bool prompting = split() && !r.decoding && r.spec.max_tokens > 1;
  SequenceSpec spec;
  spec.id = SeqId(id.value);
  spec.prompt = prompting ? r.spec.prompt : std::move(r.spec.prompt);
  spec.prompt_length = r.spec.prompt_length;
  spec.max_tokens = prompting ? 1 : r.spec.max_tokens;
  spec.priority = r.spec.priority;
  spec.every_row = r.spec.every_row && !r.moving;
  spec.cache_salt = r.spec.cache_salt;
  spec.lane = lane;
  spec.present = r.moving ? r.spec.prompt_length - 1 : 0;
  if (!batcher_.add(std::move(spec))) return false;
  r.prompting = prompting;
  return true;
}

// decode_way_ is booked for it.
void Host::await_on_decode_lane(Request& r) {
  Lane& lane = lane_for(decode_way_, decode_routes_);
  ++lane.awaited;
  r.decode_lane = lane.id;
}

void Host::leave_decode_lane(Request& r) {
  if (r.decode_lane.value < 0) return;
  Lane& lane = lanes_.at(r.decode_lane);
  --lane.awaited;
  ledger_.release(lane.routed, r.booked);
  left_.push_back(std::exchange(r.decode_lane, LaneId(-1)));
}

void Host::stop_moving(Request& r) {
  r.moving = false;
  r.prompt_way.clear();
  --lanes_.at(r.lane).awaited;
  left_.push_back(r.lane);
  leave_lane(r);
}

// The batcher forgets the tokens of a sequence that ends, and a prompt ends here.
void Host::note_first_tokens(const Step& step, std::span<const Sampled> sampled) {
  size_t next = 0;
  for (const StepEntry& entry : step.entries) {
    if (!entry.samples) continue;
    const Sampled& s = sampled[next++];
    const auto at = requests_.find(RequestId(s.seq.value));
    if (at == requests_.end() || at->second.spec.prompt.empty()) continue;
    at->second.spec.prompt.push_back(s.token);
  }
}

// True if it goes on: its prompt and a token of several are done.
bool Host::after_prompt(RequestId id, Request& r, EndReason reason, Out& out) {
  if (!r.prompting || reason != EndReason::kLength || !r.failing.empty()) return false;
  r.prompting = r.in_batcher = false;
  displaced_.push_back(SeqId(id.value));  // its blocks are dropped, but it was not preempted
  ++r.spec.prompt_length;
  --r.spec.max_tokens;
  HostAction action;
  action.id = id;
  if (r.lane.value < 0) {  // it was displaced while its last step was on its way
    leave_decode_lane(r);
    return true;
  }
  r.prompt_way = lanes_.at(r.lane).pipeline;
  left_.push_back(r.lane);
  leave_lane(r);
  if (r.decode_lane.value < 0) {  // the nodes it was to decode on are lost
    r.prompt_way.clear();
    admission_.displace(id);
    action.kind = HostAction::Kind::kDisplaced;
    out.push_back(action);
    return true;
  }
  r.lane = std::exchange(r.decode_lane, LaneId(-1));
  r.moving = true;
  for (const Hop& hop : lanes_.at(r.lane).pipeline) {
    if (hop.node != kSinkNode) ++placed_at_[static_cast<size_t>(hop.node)];
  }
  action.kind = HostAction::Kind::kHandOver;
  action.lane = r.lane;
  out.push_back(action);
  return true;
}

void Host::kv_arrived(const KvArrived& event, Out& out) {
  const auto at = requests_.find(event.id);
  if (at == requests_.end() || !at->second.moving) return;
  Request& r = at->second;
  const LaneId lane = r.lane;
  if (event.lost) {
    stop_moving(r);
    HostAction action;
    action.kind = HostAction::Kind::kDisplaced;
    action.id = event.id;
    action.lane = lane;
    out.push_back(action);
    admission_.displace(event.id);
    return admit(out);
  }
  r.decoding = true;
  if (!add_sequence(event.id, r, lane)) {  // cannot be: its way was chosen for its size
    stop_moving(r);
    admission_.end(event.id);
    end(at, Outcome::kFailed, kTooLarge, out);
    return admit(out);
  }
  r.in_batcher = true;
  r.moving = false;
  r.prompt_way.clear();
  --lanes_.at(lane).awaited;
  pump(lane, out);
}

// The lane is about to close: whoever was to come with its KV cache will not.
void Host::displace_awaited(LaneId id, Out& out) {
  if (lanes_.at(id).awaited == 0) return;
  for (auto& [request, r] : requests_) {
    if (r.decode_lane == id) leave_decode_lane(r);  // another is found when its prompt is done
    if (!r.moving || r.lane != id) continue;
    stop_moving(r);
    HostAction action;
    action.kind = HostAction::Kind::kDisplaced;
    action.id = request;
    action.lane = id;
    out.push_back(action);
    admission_.displace(request);
  }
}

}  // namespace towline::policy
