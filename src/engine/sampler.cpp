// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/sampler.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "base/fmt.hpp"
#include "base/rng.hpp"

namespace towline::engine {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
using Candidate = SamplerScratch::Candidate;

bool likelier(const Candidate& a, const Candidate& b) {
  return a.p > b.p || (a.p == b.p && a.id < b.id);
}

Result<void> in_range(std::string_view name, float value, float low, float high) {
  if (value >= low && value <= high) return {};  // false for NaN
  return errorf(Code::kInvalidArgument, "{} is {}; it must be between {} and {}", name, value, low,
                high);
}

void apply_penalties(const SamplingParams& params, const TokenHistory& history,
                     std::span<float> logits) {
  for (const auto& [token, seen] : history.seen()) {
    if (token < 0 || token >= static_cast<int32_t>(logits.size())) continue;
    float& logit = logits[static_cast<size_t>(token)];
    logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    if (seen.output > 0) {
      logit -= params.presence_penalty + params.frequency_penalty * static_cast<float>(seen.output);
    }
  }
}

// A probability below which no candidate can survive top-k and top-p. One pass over the vocabulary
// fills buckets by the leading bits of the float (positive floats order like their bits), so that
// only the few candidates above the bound are gathered and sorted. `slack` covers rounding: sums
// here are in another order than those that decide.
float surviving_bound(const SamplingParams& params, std::span<const float> p) {
  constexpr int kShift = 32 - 12;  // exponent and three bits of the fraction
  constexpr double kSlack = 1e-6;
  std::array<int64_t, 4096> counts{};
  std::array<double, 4096> masses{};
  double all = 0;
  for (const float value : p) {
    const auto bucket = static_cast<size_t>(std::bit_cast<uint32_t>(value) >> kShift);
    ++counts[bucket];
    masses[bucket] += static_cast<double>(value);
    all += static_cast<double>(value);
  }
  int64_t count = 0;
  double mass = 0;
  for (size_t bucket = counts.size() / 2; bucket-- > 0;) {  // sign bit clear: the lower half
    count += counts[bucket];
    mass += masses[bucket];
    const bool enough_by_count = params.top_k > 0 && count >= params.top_k;
    const bool enough_by_mass = params.top_k <= 0 && params.top_p < 1.0f &&
                                mass >= static_cast<double>(params.top_p) * all + kSlack;
    if (enough_by_count || enough_by_mass) {
      return std::bit_cast<float>(static_cast<uint32_t>(bucket) << kShift);
    }
  }
  return 0;
}

// Keeps the candidates that top-k and top-p leave, likeliest first, and returns their mass.
// `all`: the mass that top-p is a part of when there is no top-k.
double truncate(const SamplingParams& params, double all, std::vector<Candidate>& c) {
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < c.size()) {
    std::nth_element(c.begin(), c.begin() + params.top_k - 1, c.end(), likelier);
    c.resize(static_cast<size_t>(params.top_k));
  }
  const bool whole = params.top_p >= 1.0f;
  double wanted = std::numeric_limits<double>::infinity();
  if (!whole) {
    if (params.top_k > 0) {
      std::sort(c.begin(), c.end(), likelier);  // a fixed order for the sum
      all = 0;
      for (const Candidate& candidate : c) all += static_cast<double>(candidate.p);
    }
    wanted = all * static_cast<double>(params.top_p);
  }
  // Sorts the head in growing pieces: a nucleus is usually a few hundred of 100,000 tokens.
  double mass = 0;
  size_t sorted = 0;
  for (size_t piece = 256; sorted < c.size(); piece *= 4) {
    const size_t end = std::min(c.size(), sorted + piece);
    const auto from = c.begin() + static_cast<int64_t>(sorted);
    const auto to = c.begin() + static_cast<int64_t>(end);
    if (to != c.end()) std::nth_element(from, to, c.end(), likelier);
    std::sort(from, to, likelier);
    for (; sorted < end; ++sorted) {
      mass += c[sorted].p;
      if (mass >= wanted) {
        c.resize(sorted + 1);
        return mass;
      }
    }
  }
  return mass;
}

int32_t draw(std::span<const Candidate> candidates, double mass, double unit) {
  const double target = unit * mass;
  double sum = 0;
  for (const Candidate& candidate : candidates) {
    sum += candidate.p;
    if (sum > target) return candidate.id;
  }
  return candidates.back().id;
}

// A draw over the whole vocabulary needs no sorting: any fixed order will do.
int32_t draw_in_order(std::span<const float> p, double unit) {
  double mass = 0;
  for (const float value : p) mass += static_cast<double>(value);
  const double target = unit * mass;
  double sum = 0;
  int32_t last = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    if (p[i] <= 0) continue;
    sum += static_cast<double>(p[i]);
    last = static_cast<int32_t>(i);
    if (sum > target) break;
  }
  return last;
}

Error broken_logits() {
  return Error(Code::kInternal,
               "the model computed no finite logits; its weights are damaged "
               "('towline model check' looks at every tensor)");
}

}  // namespace

Result<void> check_sampling(const SamplingParams& p, int32_t vocab) {
  TRY(in_range("temperature", p.temperature, 0.0f, 100.0f));
  TRY(in_range("top_p", p.top_p, std::numeric_limits<float>::min(), 1.0f));
  TRY(in_range("min_p", p.min_p, 0.0f, 1.0f));
  TRY(in_range("repetition_penalty", p.repetition_penalty, 1e-3f, 1e3f));
  TRY(in_range("presence_penalty", p.presence_penalty, -100.0f, 100.0f));
  TRY(in_range("frequency_penalty", p.frequency_penalty, -100.0f, 100.0f));
  if (p.top_k < -1) {
    return errorf(Code::kInvalidArgument, "top_k is {}; it must be positive, or 0 for off",
                  p.top_k);
  }
  if (p.logprobs < -1 || p.logprobs > kMaxLogprobs) {
    return errorf(Code::kInvalidArgument, "logprobs is {}; at most {} alternatives are reported",
                  p.logprobs, kMaxLogprobs);
  }
  for (const auto& [token, bias] : p.logit_bias) {
    if (token < 0 || token >= vocab) {
      return errorf(Code::kInvalidArgument, "logit_bias names token {}; the model has 0 to {}",
                    token, vocab - 1);
    }
    TRY(in_range("logit_bias", bias, -100.0f, 100.0f));
  }
  return {};
}

void TokenHistory::follow(std::span<const int32_t> tokens, int32_t prompt) {
  if (tokens.size() < followed_) {
    seen_.clear();
    followed_ = 0;
  }
  for (; followed_ < tokens.size(); ++followed_) {
    const int32_t token = tokens[followed_];
    followed_ < static_cast<size_t>(prompt) ? add_prompt({&token, 1}) : add_output(token);
  }
}

bool uses_history(const SamplingParams& p) {
  return p.repetition_penalty != 1.0f || p.presence_penalty != 0.0f || p.frequency_penalty != 0.0f;
}

int32_t arg_max(std::span<const float> values) {
  // Two passes: the greatest value (in independent lanes: one chain of comparisons would wait for
  // each), then its first place.
  constexpr size_t kLanes = 16;
  float lanes[kLanes];
  std::fill(lanes, lanes + kLanes, kMinusInfinity);
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t l = 0; l < kLanes; ++l) {
      lanes[l] = values[i + l] > lanes[l] ? values[i + l] : lanes[l];
    }
  }
  for (; i < values.size(); ++i) lanes[0] = values[i] > lanes[0] ? values[i] : lanes[0];
  const float best = *std::max_element(lanes, lanes + kLanes);
  if (best == kMinusInfinity) return -1;
  const auto at = std::find(values.begin(), values.end(), best);
  return static_cast<int32_t>(at - values.begin());
}

SampledToken score_token(const KernelTable& kernels, std::span<const float> logits, int32_t token,
                         int32_t alternatives, SamplerScratch& scratch) {
  scratch.values.assign(logits.begin(), logits.end());
  const float normaliser =
      kernels.softmax(scratch.values.data(), static_cast<int64_t>(logits.size()));
  SampledToken scored;
  scored.token = token;
  scored.logprob = logits[static_cast<size_t>(token)] - normaliser;
  const auto wanted = static_cast<size_t>(std::clamp(alternatives, 0, kMaxLogprobs));
  auto& top = scored.top;  // logits for now, best first; ids ascend, so equals keep their order
  for (size_t i = 0; i < logits.size() && wanted > 0; ++i) {
    if (top.size() == wanted && !(logits[i] > top.back().second)) continue;
    if (top.size() == wanted) top.pop_back();
    const auto at = std::find_if(top.begin(), top.end(),
                                 [&](const auto& other) { return logits[i] > other.second; });
    top.insert(at, {static_cast<int32_t>(i), logits[i]});
  }
  for (auto& [id, value] : top) value -= normaliser;
  return scored;
}

Result<SampledToken> sample(const KernelTable& kernels, const SamplingParams& params,
                            int32_t choice, int32_t position, const TokenHistory& history,
                            std::span<const float> logits, SamplerScratch& scratch) {
  const int32_t raw_best = arg_max(logits);
  if (raw_best < 0 || !std::isfinite(logits[static_cast<size_t>(raw_best)])) return broken_logits();
  const auto finish = [&](int32_t token) {
    if (params.logprobs >= 0) return score_token(kernels, logits, token, params.logprobs, scratch);
    return SampledToken{token, 0, {}};
  };
  const bool greedy = params.temperature < kMinTemperature;
  const bool plain = params.logit_bias.empty() && !uses_history(params);
  if (greedy && plain) return finish(raw_best);

  std::vector<float>& values = scratch.values;
  values.assign(logits.begin(), logits.end());
  for (const auto& [token, bias] : params.logit_bias) values[static_cast<size_t>(token)] += bias;
  if (uses_history(params)) apply_penalties(params, history, values);
  const int32_t best = arg_max(values);
  if (best < 0) return broken_logits();
  if (greedy) return finish(best);

  const float most = values[static_cast<size_t>(best)];
  for (float& v : values) {
    v = v <= most ? (v - most) / params.temperature : kMinusInfinity;  // NaN out
  }
  kernels.softmax(values.data(), static_cast<int64_t>(values.size()));
  const double unit = to_unit(random_at(mix64(params.seed) + static_cast<uint32_t>(choice),
                                        static_cast<uint64_t>(position)));
  if (params.top_k <= 0 && params.top_p >= 1.0f && params.min_p <= 0) {
    return finish(draw_in_order(values, unit));
  }
  const float least = params.min_p * values[static_cast<size_t>(best)];
  double left = 0;  // of what min-p leaves, in the order of ids
  for (float& v : values) {
    if (v < least) v = 0;
    left += static_cast<double>(v);
  }
  const float bound = surviving_bound(params, values);
  scratch.candidates.clear();
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] > 0 && values[i] >= bound) {
      scratch.candidates.push_back({values[i], static_cast<int32_t>(i)});
    }
  }
  const double mass = truncate(params, left, scratch.candidates);
  return finish(draw(scratch.candidates, mass, unit));
}

}  // namespace towline::engine
