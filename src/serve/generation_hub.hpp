// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// GenerationHub: hands the generator's events, which come on its own thread a step at a time, to
// whoever asked for the sequence, on the loop thread. One post per step, however many sequences.
//
// Order of life: Loop, hub, generator (made with hub.sink()), attach(). The generator must be
// destroyed before the hub. All calls on the loop thread; sink() may be called from anywhere.
#pragma once

#include <functional>
#include <unordered_map>

#include "base/loop.hpp"
#include "serve/generator.hpp"

namespace towline::serve {

class GenerationHub {
 public:
  // Called on the loop thread for each of the sequence's events, the last with a finish reason.
  using Listener = std::function<void(GenerationEvent&&)>;

  explicit GenerationHub(Loop& loop) : loop_(loop) {}
  EventSink sink();
  void attach(Generator* generator) { generator_ = generator; }
  Generator& generator() { return *generator_; }

  // Chooses request.id. After an error the listener is never called.
  Result<RequestId> submit(GenerationRequest request, Listener listener);
  // The listener is not called any more; the generator stops at its next step.
  void cancel(RequestId id);
  // Ends every sequence with this error, as if the generator had; it stops them at its next step.
  void end_all(const Error& error);
  // Sequences that the generator still holds, cancelled ones included until they end.
  int64_t live() const { return static_cast<int64_t>(listeners_.size()); }
  // Called after each of the generator's steps that had events.
  void on_step(std::function<void()> task) { on_step_ = std::move(task); }

 private:
  void deliver(std::vector<GenerationEvent>&& events);
  Loop& loop_;
  Generator* generator_ = nullptr;
  std::unordered_map<RequestId, Listener> listeners_;
  int64_t next_id_ = 1;
  std::function<void()> on_step_;
};

}  // namespace towline::serve
