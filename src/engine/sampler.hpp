// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Sampling: from a row of logits to the next token.
//
// Order: logit bias, penalties, (greedy: arg max, done), temperature, min-p, top-k, top-p, draw.
//   - bias and penalties change the logits: repetition divides positive and multiplies negative
//   ones
//     of every token seen; presence and frequency subtract for tokens in the output.
//   - min-p keeps p >= min_p * max p; top-k the k likeliest; top-p the shortest beginning of the
//     likeliest that holds top_p of what is left. "Likeliest" orders by (p, then lower id), so that
//     ties do not depend on anything but the numbers.
//   - the draw uses one number, a pure function of (seed, choice, output position). So a token is a
//     pure function of the request and the logits, whatever batch, machine or restart computed
//     them.
// Log-probabilities are those of the raw logits, before all of the above.
//
// Free functions over data that the caller owns; different sequences may be sampled on different
// threads, each with its own SamplerScratch.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "engine/kernel/kernel_table.hpp"
#include "engine/sampling_params.hpp"

namespace towline::engine {

// At most this many alternatives a token (OpenAI's own limit).
inline constexpr int32_t kMaxLogprobs = 20;
// Below this temperature sampling is greedy: the quotients would overflow.
inline constexpr float kMinTemperature = 1e-5f;

// Refuses NaN, values out of range, unknown token ids; names the field and the value.
Result<void> check_sampling(const SamplingParams& params, int32_t vocab);

// What the penalties need to know of a sequence; a function of its tokens.
class TokenHistory {
 public:
  struct Seen {
    int32_t output = 0;  // times in the output
    bool prompt = false;
  };
  void add_prompt(std::span<const int32_t> tokens) {
    for (const int32_t token : tokens) seen_[token].prompt = true;
  }
  void add_output(int32_t token) { ++seen_[token].output; }
  // Makes this the history of `tokens`, the first `prompt` of which are the prompt. Counts only
  // what is new if they continue the tokens of the last call, and anew if they are fewer.
  void follow(std::span<const int32_t> tokens, int32_t prompt);
  const std::map<int32_t, Seen>& seen() const { return seen_; }

 private:
  std::map<int32_t, Seen> seen_;
  size_t followed_ = 0;  // tokens of the last follow()
};
// Whether sample() looks at the history at all.
bool uses_history(const SamplingParams& params);

struct SampledToken {
  int32_t token = 0;
  float logprob = 0;                            // valid if logprobs were asked
  std::vector<std::pair<int32_t, float>> top;   // (token, logprob), best first
};

struct SamplerScratch {
  struct Candidate {
    float p;
    int32_t id;
  };
  std::vector<float> values;
  std::vector<Candidate> candidates;
};

// The token at output position `position` of choice `choice`. kInternal if no logit is a finite
// number (broken weights).
Result<SampledToken> sample(const KernelTable& kernels, const SamplingParams& params,
                            int32_t choice, int32_t position, const TokenHistory& history,
                            std::span<const float> logits, SamplerScratch& scratch);

// The log-probability of a given token, and the `alternatives` best (prompt logprobs).
SampledToken score_token(const KernelTable& kernels, std::span<const float> logits, int32_t token,
                         int32_t alternatives, SamplerScratch& scratch);

// The index of the greatest value, the lowest among equals; NaN never wins. -1 if none is above
// minus infinity.
int32_t arg_max(std::span<const float> values);

}  // namespace towline::engine
