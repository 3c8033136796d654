// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/generation_hub.hpp"

#include <utility>
#include <vector>

namespace towline::serve {

EventSink GenerationHub::sink() {
  return [this](std::vector<GenerationEvent>&& events) {
    loop_.post([this, events = std::move(events)]() mutable { deliver(std::move(events)); });
  };
}

Result<RequestId> GenerationHub::submit(GenerationRequest request, Listener listener) {
  const RequestId id(next_id_++);
  request.id = id;
  TRY(generator_->submit(std::move(request)));
  listeners_.emplace(id, std::move(listener));
  return id;
}

void GenerationHub::cancel(RequestId id) {
  const auto at = listeners_.find(id);
  if (at == listeners_.end() || !at->second) return;
  at->second = nullptr;
  generator_->cancel(id);
}

void GenerationHub::end_all(const Error& error) {
  std::vector<std::pair<RequestId, Listener>> all;
  for (auto& [id, listener] : listeners_) {
    if (listener) all.emplace_back(id, std::exchange(listener, nullptr));
  }
  for (const auto& [id, listener] : all) {
    generator_->cancel(id);
    GenerationEvent event;
    event.id = id;
    event.finish = FinishReason::kError;
    event.error = error;
    listener(std::move(event));
  }
}

void GenerationHub::deliver(std::vector<GenerationEvent>&& events) {
  for (GenerationEvent& event : events) {
    const auto at = listeners_.find(event.id);
    if (at == listeners_.end()) continue;
    // A copy: the listener may cancel or submit sequences, which changes the map.
    const Listener listener = at->second;
    if (event.finish != FinishReason::kNone) listeners_.erase(at);
    if (listener) listener(std::move(event));
  }
  if (on_step_) on_step_();
}

}  // namespace towline::serve
