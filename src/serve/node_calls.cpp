// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/node_calls.hpp"

#include <algorithm>

#include "base/fmt.hpp"

namespace towline::serve {

Duration NodeCalls::patience_of(protocol::Method method) {
  switch (method) {
    case protocol::Method::kStageAdapter:
    case protocol::Method::kWarmUp:
    case protocol::Method::kSleep:
    case protocol::Method::kWake:
      return seconds(600);
    default:
      return seconds(60);
  }
}

void NodeCalls::call(std::span<const int64_t> nodes, protocol::Method method, const Json& args,
                     Done done, Duration patience) {
  const uint64_t number = next_++;
  protocol::RpcRequest request;
  request.id = number;
  request.method = static_cast<uint16_t>(method);
  request.args = args.dump();
  Call& call = calls_[number];
  call.done = std::move(done);
  call.method = method;
  call.patience = patience > Duration(0) ? patience : patience_of(method);
  call.latest = now_ + call.patience;
  request.deadline_ms = static_cast<uint32_t>(
      std::clamp<int64_t>(call.patience.value / milliseconds(1).value, 1, UINT32_MAX));
  for (const int64_t node : nodes) call.waiting.insert(node);
  for (const int64_t node : nodes) {
    if (Result<void> sent = send_(node, request); !sent) {
      answer(number, node, std::move(sent).error());
    }
  }
  end_if_complete(number);
}

void NodeCalls::answer(uint64_t number, int64_t node, Result<Json> result) {
  const auto at = calls_.find(number);
  if (at == calls_.end() || at->second.waiting.erase(node) == 0) return;
  at->second.answers.emplace_back(node, std::move(result));
}

void NodeCalls::end_if_complete(uint64_t number) {
  const auto at = calls_.find(number);
  if (at == calls_.end() || !at->second.waiting.empty()) return;
  const Call call = std::move(calls_.extract(at).mapped());
  if (call.done) call.done(call.answers);
}

void NodeCalls::on_reply(int64_t node, const protocol::RpcReply& reply) {
  if (reply.ok) {
    answer(reply.id, node,
           parse_json(reply.result.empty() ? "{}" : reply.result, "a node's answer"));
  } else {
    answer(reply.id, node, Error(reply.code, reply.message));
  }
  end_if_complete(reply.id);
}

void NodeCalls::tick(Instant now) {
  now_ = now;
  std::vector<uint64_t> late;
  for (const auto& [number, call] : calls_) {
    if (now >= call.latest) late.push_back(number);
  }
  for (const uint64_t number : late) {
    const auto at = calls_.find(number);
    if (at == calls_.end()) continue;
    // `health` is answered beside a step that hangs, but not by a process that is stopped.
    const bool health = at->second.method == protocol::Method::kHealth;
    const std::string_view hint =
        health ? "one of its processes is stopped, or starved of its processor"
               : "a step may hang there; 'towline call health' says what its ranks are at";
    const Error why = errorf(Code::kDeadline, "no answer within {:g} s: {}",
                             to_seconds(at->second.patience), hint);
    const std::set<int64_t> waiting = at->second.waiting;
    for (const int64_t node : waiting) answer(number, node, why);
    end_if_complete(number);
  }
}

Instant NodeCalls::next_deadline() const {
  Instant next = kNever;
  for (const auto& [number, call] : calls_) next = std::min(next, call.latest);
  return next;
}

void NodeCalls::forgive(Duration time) {
  now_ = now_ + time;
  for (auto& [number, call] : calls_) call.latest = call.latest + time;
}

void NodeCalls::on_gone(int64_t node, const std::string& reason) {
  std::vector<uint64_t> numbers;
  for (const auto& [number, call] : calls_) numbers.push_back(number);
  for (const uint64_t number : numbers) {
    answer(number, node, Error(Code::kUnavailable, "the node has gone: " + reason));
    end_if_complete(number);
  }
}

}  // namespace towline::serve
