// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What comes back of a lane step: plain data made by a node's output rank (worker/executor.hpp),
// carried by protocol/, consumed by the coordinator.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "policy/step_delta.hpp"

namespace towline::policy {

struct ScoredToken {
  int32_t token = 0;
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top;  // (token, logprob), best first
  friend bool operator==(const ScoredToken&, const ScoredToken&) = default;
};

// What few rows have besides a token.
struct RowExtras {
  std::vector<ScoredToken> prompt;  // scores of prompt tokens, with prompt_logprobs...
  int32_t prompt_from = 0;          // ... the first one's position
  // If embed, with the row that ends the prompt: the mean final state as a unit vector, the very
  // bits of one process, and over how many positions (all of the prompt, or it cannot be used).
  std::vector<float> pooled;
  int32_t pooled_rows = 0;
  std::string error;                // this sequence failed, the others did not
  friend bool operator==(const RowExtras&, const RowExtras&) = default;
};

// A value that is mostly the default one, which then takes a pointer and no more. Results are
// written and read for every row of every step, and the memory they touch is what they cost.
template <class T>
class Rarely {
 public:
  Rarely() = default;
  Rarely(const Rarely& other) : value_(other.value_ ? std::make_unique<T>(*other.value_) : nullptr) {}
  Rarely(Rarely&&) noexcept = default;
  Rarely& operator=(const Rarely& other) { return *this = Rarely(other); }
  Rarely& operator=(Rarely&&) noexcept = default;
  // False: it is the default, and was never edited.
  explicit operator bool() const { return value_ != nullptr; }
  const T& get() const {
    static const T kDefault;
    return value_ ? *value_ : kDefault;
  }
  const T* operator->() const { return &get(); }
  T& edit() {
    if (!value_) value_ = std::make_unique<T>();
    return *value_;
  }
  friend bool operator==(const Rarely& a, const Rarely& b) { return a.get() == b.get(); }

 private:
  std::unique_ptr<T> value_;
};

// What one row of a sampling hop produced. Nothing to report, no result.
struct RowResult {
  LaneStep step;
  SlotGen slot;
  int32_t position = 0;             // of the sampled token in its sequence
  bool sampled = false;
  ScoredToken token;                // if sampled
  Rarely<RowExtras> extras;
  friend bool operator==(const RowResult&, const RowResult&) = default;
};

}  // namespace towline::policy
