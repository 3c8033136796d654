// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/sampler.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <vector>

#include "base/for_seeds.hpp"

namespace towline::engine {
namespace {

const KernelTable& kernels() { return *generic_table(); }

std::vector<float> random_logits(Rng& rng, size_t size, bool with_ties) {
  std::vector<float> logits(size);
  for (float& v : logits) {
    v = static_cast<float>(rng.unit() * 12 - 6);
    if (with_ties) v = std::round(v);
  }
  return logits;
}

// The obvious sampler: everything in double, everything sorted. Gives the probability of each token
// that may be drawn, likeliest first.
std::vector<std::pair<double, int32_t>> oracle(const SamplingParams& p, const TokenHistory& history,
                                               const std::vector<float>& logits) {
  std::vector<double> x(logits.begin(), logits.end());
  for (const auto& [token, bias] : p.logit_bias) x[static_cast<size_t>(token)] += bias;
  for (const auto& [token, seen] : history.seen()) {
    double& v = x[static_cast<size_t>(token)];
    v = v > 0 ? v / p.repetition_penalty : v * p.repetition_penalty;
    if (seen.output > 0) {
      v -= double{p.presence_penalty} + double{p.frequency_penalty} * seen.output;
    }
  }
  const double most = *std::ranges::max_element(x);
  std::vector<std::pair<double, int32_t>> all;
  double sum = 0;
  for (const double v : x) sum += std::exp((v - most) / p.temperature);
  for (size_t i = 0; i < x.size(); ++i) {
    all.emplace_back(std::exp((x[i] - most) / p.temperature) / sum, static_cast<int32_t>(i));
  }
  std::ranges::sort(all, [](const auto& a, const auto& b) {
    return a.first > b.first || (a.first == b.first && a.second < b.second);
  });
  const double least = p.min_p * all[0].first;
  std::erase_if(all, [&](const auto& c) { return c.first < least; });
  if (p.top_k > 0 && static_cast<size_t>(p.top_k) < all.size()) {
    all.resize(static_cast<size_t>(p.top_k));
  }
  double left = 0;
  for (const auto& c : all) left += c.first;
  double mass = 0;
  size_t keep = 0;
  while (keep < all.size() && (p.top_p >= 1 || mass < p.top_p * left)) mass += all[keep++].first;
  all.resize(keep);
  for (auto& c : all) c.first /= mass;
  return all;
}

TEST(Sampler, GreedyTakesTheFirstOfTheBest) {
  SamplingParams greedy;
  greedy.temperature = 0;
  SamplerScratch scratch;
  const std::vector<float> logits = {1, 5, 3, 5, 5};
  EXPECT_EQ(sample(kernels(), greedy, 0, 0, {}, logits, scratch)->token, 1);
  greedy.logit_bias = {{2, 2.5f}};
  EXPECT_EQ(sample(kernels(), greedy, 0, 0, {}, logits, scratch)->token, 2);
  greedy.logit_bias = {{1, -1.0f}};
  EXPECT_EQ(sample(kernels(), greedy, 0, 0, {}, logits, scratch)->token, 3);
}

TEST(Sampler, ArgMaxIsTheObviousOne) {
  for_seeds(50, [](Rng& rng) {
    std::vector<float> v = random_logits(rng, rng.below(100) + 1, true);
    for (float& x : v) {
      if (rng.below(10) == 0) x = std::nanf("");
      if (rng.below(10) == 0) x = -std::numeric_limits<float>::infinity();
    }
    int32_t expected = -1;
    for (size_t i = 0; i < v.size(); ++i) {
      if (v[i] > (expected < 0 ? -std::numeric_limits<float>::infinity()
                               : v[static_cast<size_t>(expected)])) {
        expected = static_cast<int32_t>(i);
      }
    }
    EXPECT_EQ(arg_max(v), expected);
  });
}

// Draws only what the oracle allows, and about as often as it says.
TEST(Sampler, MatchesTheOracleDistribution) {
  for_seeds(60, [](Rng& rng) {
    const std::vector<float> logits = random_logits(rng, rng.below(60) + 2, rng.below(2) == 0);
    SamplingParams p;
    p.temperature = static_cast<float>(0.3 + rng.unit() * 2);
    if (rng.below(2) != 0) p.top_k = static_cast<int32_t>(rng.between(1, 20));
    if (rng.below(2) != 0) p.top_p = static_cast<float>(0.05 + rng.unit() * 0.9);
    if (rng.below(3) == 0) p.min_p = static_cast<float>(rng.unit() * 0.5);
    TokenHistory history;
    if (rng.below(2) != 0) {
      p.repetition_penalty = 1.3f;
      p.presence_penalty = 0.5f;
      p.frequency_penalty = 0.25f;
      for (int i = 0; i < 10; ++i) {
        const auto token = static_cast<int32_t>(rng.below(logits.size()));
        rng.below(2) != 0 ? history.add_output(token) : history.add_prompt({&token, 1});
      }
      p.logit_bias = {{0, 1.5f}};
    }
    p.seed = rng();
    const auto expected = oracle(p, history, logits);
    std::vector<int> drawn(logits.size());
    constexpr int kDraws = 2000;
    SamplerScratch scratch;
    for (int i = 0; i < kDraws; ++i) {
      const auto token = sample(kernels(), p, 0, i, history, logits, scratch);
      ASSERT_TRUE(token);
      ++drawn[static_cast<size_t>(token->token)];
    }
    int allowed = 0;
    for (const auto& [probability, token] : expected) {
      const double sigma = std::sqrt(kDraws * probability * (1 - probability)) + 1;
      EXPECT_NEAR(drawn[static_cast<size_t>(token)], kDraws * probability, 6 * sigma) << token;
      allowed += drawn[static_cast<size_t>(token)];
    }
    // A token on the very edge of the nucleus may fall either way between float and double.
    EXPECT_GE(allowed, kDraws - kDraws / 100);
  });
}

TEST(Sampler, TheDrawIsAFunctionOfSeedChoiceAndPosition) {
  Rng rng(9);
  const std::vector<float> logits(1000, 0.0f);
  SamplingParams p;
  p.seed = 42;
  SamplerScratch a, b;
  std::set<int32_t> distinct;
  for (int32_t i = 0; i < 50; ++i) {
    const int32_t token = sample(kernels(), p, 0, i, {}, logits, a)->token;
    EXPECT_EQ(token, sample(kernels(), p, 0, i, {}, logits, b)->token);
    distinct.insert(token);
    distinct.insert(sample(kernels(), p, 1, i, {}, logits, a)->token);
  }
  EXPECT_GT(distinct.size(), 80u);
}

TEST(Sampler, TiesGoToTheLowerId) {
  SamplingParams p;
  p.top_k = 2;
  SamplerScratch scratch;
  const std::vector<float> logits(50, 1.0f);
  for (int32_t i = 0; i < 100; ++i) {
    EXPECT_LT(sample(kernels(), p, 0, i, {}, logits, scratch)->token, 2);
  }
}

TEST(Sampler, LogprobsAreThoseOfTheRawLogits) {
  for_seeds(40, [](Rng& rng) {
    const std::vector<float> logits = random_logits(rng, rng.below(300) + 1, rng.below(2) == 0);
    SamplingParams p;
    p.temperature = 0.5f;
    p.logit_bias = {{0, 50.0f}};
    p.logprobs = static_cast<int32_t>(rng.below(6));
    SamplerScratch scratch;
    const auto token = sample(kernels(), p, 0, 0, {}, logits, scratch);
    ASSERT_TRUE(token);
    EXPECT_EQ(token->token, 0);
    double sum = 0;
    for (const float v : logits) sum += std::exp(static_cast<double>(v));
    EXPECT_NEAR(token->logprob, logits[0] - std::log(sum), 1e-4);
    std::vector<int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, [&](int32_t x, int32_t y) {
      return logits[static_cast<size_t>(x)] > logits[static_cast<size_t>(y)];
    });
    ASSERT_EQ(token->top.size(), std::min(logits.size(), static_cast<size_t>(p.logprobs)));
    for (size_t i = 0; i < token->top.size(); ++i) {
      EXPECT_EQ(token->top[i].first, order[i]);
      EXPECT_NEAR(token->top[i].second,
                  logits[static_cast<size_t>(order[i])] - std::log(sum), 1e-4);
    }
  });
}

TEST(Sampler, ALargeVocabularyGivesTheSameNucleusInPieces) {
  Rng rng(4);
  const std::vector<float> logits = random_logits(rng, 5000, true);
  SamplingParams p;
  p.top_p = 0.9f;
  const auto expected = oracle(p, {}, logits);
  std::set<int32_t> allowed;
  for (const auto& [probability, token] : expected) allowed.insert(token);
  SamplerScratch scratch;
  int outside = 0;
  for (int32_t i = 0; i < 500; ++i) {
    outside += allowed.contains(sample(kernels(), p, 0, i, {}, logits, scratch)->token) ? 0 : 1;
  }
  EXPECT_LE(outside, 1);
}

// The bucket bound must never cut what top-k or top-p would keep: for flat, peaked and tied
// distributions the drawn set over many seeds is inside, and reaches the last of, the oracle's.
TEST(Sampler, ManyDrawsReachTheWholeNucleusAndNothingElse) {
  for_seeds(30, [](Rng& rng) {
    std::vector<float> logits = random_logits(rng, 400, rng.below(2) == 0);
    const auto scale = static_cast<float>(rng.unit() * 2);
    for (float& v : logits) v *= scale;
    SamplingParams p;
    rng.below(2) != 0 ? void(p.top_k = 5) : void(p.top_p = 0.05f);
    const auto expected = oracle(p, {}, logits);
    std::set<int32_t> allowed, drawn;
    for (const auto& [probability, token] : expected) allowed.insert(token);
    SamplerScratch scratch;
    for (int32_t i = 0; i < 3000; ++i) {
      drawn.insert(sample(kernels(), p, 0, i, {}, logits, scratch)->token);
    }
    size_t outside = 0;
    for (const int32_t token : drawn) outside += allowed.contains(token) ? 0 : 1;
    EXPECT_LE(outside, 1u) << "an edge token may round either way";
    if (expected.back().first > 0.01) {
      EXPECT_GE(drawn.size() + 1, allowed.size());
    }
  });
}

TEST(Sampler, BrokenLogitsAreAnError) {
  SamplerScratch scratch;
  const float nan = std::nanf("");
  const float inf = std::numeric_limits<float>::infinity();
  for (const std::vector<float>& logits :
       {std::vector<float>{nan, nan}, {-inf, -inf}, {1.0f, inf}}) {
    for (const float temperature : {0.0f, 1.0f}) {
      SamplingParams p;
      p.temperature = temperature;
      EXPECT_FALSE(sample(kernels(), p, 0, 0, {}, logits, scratch));
    }
  }
  const SamplingParams p;  // one NaN among numbers is never drawn
  for (int32_t i = 0; i < 50; ++i) {
    EXPECT_NE(sample(kernels(), p, 0, i, {}, std::vector<float>{1, nan, 2}, scratch)->token, 1);
  }
}

TEST(Sampler, RefusesParametersOutOfRange) {
  EXPECT_TRUE(check_sampling({}, 10));
  const auto refuses = [](auto change) {
    SamplingParams p;
    change(p);
    const auto result = check_sampling(p, 10);
    return !result && result.error().code() == Code::kInvalidArgument;
  };
  EXPECT_TRUE(refuses([](auto& p) { p.temperature = -0.1f; }));
  EXPECT_TRUE(refuses([](auto& p) { p.temperature = std::nanf(""); }));
  EXPECT_TRUE(refuses([](auto& p) { p.top_p = 0; }));
  EXPECT_TRUE(refuses([](auto& p) { p.top_p = 1.5f; }));
  EXPECT_TRUE(refuses([](auto& p) { p.min_p = -1; }));
  EXPECT_TRUE(refuses([](auto& p) { p.top_k = -2; }));
  EXPECT_TRUE(refuses([](auto& p) { p.repetition_penalty = 0; }));
  EXPECT_TRUE(refuses([](auto& p) { p.frequency_penalty = std::nanf(""); }));
  EXPECT_TRUE(refuses([](auto& p) { p.logprobs = 21; }));
  EXPECT_TRUE(refuses([](auto& p) { p.logit_bias = {{10, 1.0f}}; }));
  EXPECT_TRUE(refuses([](auto& p) { p.logit_bias = {{1, 101.0f}}; }));
}

}  // namespace
}  // namespace towline::engine
