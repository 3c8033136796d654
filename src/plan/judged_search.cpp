// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/judged_search.hpp"

#include <algorithm>
#include <thread>

#include "base/fmt.hpp"
#include "plan/local_search.hpp"

namespace towline::plan {
namespace {

constexpr size_t kBeam = 4;        // placements that variants are made of
constexpr size_t kScreened = 24;   // candidates simulated at the start
constexpr int64_t kVariantSteps = 250;
constexpr double kVariantHeat = 0.006;  // of the bound

double overrun(const Verdict& verdict, const LatencyGoals& goals) {
  double over = 0;
  if (goals.tpot > 0) over = std::max(over, verdict.decode_latency / goals.tpot);
  if (goals.ttft > 0) over = std::max(over, verdict.prompt_latency / goals.ttft);
  return std::max(over, 1.0);
}

class Climb {
 public:
  Climb(const Instance& instance, const JudgedOptions& options)
      : instance_(instance), options_(options) {}

  JudgedResult run(const std::vector<Placement>& candidates) {
    std::vector<JudgedPlacement> batch;
    for (size_t i = 0; i < candidates.size() && batch.size() < kScreened; ++i) {
      add(batch, candidates[i], format("candidate {}", i + 1));
    }
    judge(batch, false);
    for (int32_t round = 1; round <= options_.rounds && !stopped() && !known_.empty(); ++round) {
      batch.clear();
      for (int32_t i = 0; i < kJudgedPerRound; ++i) {
        add(batch, variant(round, i), format("round {}", round));
      }
      judge(batch, false);
    }
    return finals();
  }

 private:
  bool stopped() const { return options_.stop != nullptr && options_.stop->load(); }

  void add(std::vector<JudgedPlacement>& batch, Placement placement, std::string origin) {
    const auto same = [&](const Placement& seen) { return seen == placement; };
    if (std::any_of(seen_.begin(), seen_.end(), same)) return;
    seen_.push_back(placement);
    batch.push_back({std::move(placement), {}, std::move(origin)});
  }

  // A sound placement near one of the beam.
  Placement variant(int32_t round, int32_t number) const {
    const size_t parent = static_cast<size_t>(number) % std::min(kBeam, known_.size());
    AnnealOptions anneal;
    anneal.seed = mix64(options_.seed) ^ mix64(static_cast<uint64_t>(round * 1000 + number));
    anneal.steps = kVariantSteps << (number % 4);
    anneal.hot = anneal.cold = kVariantHeat / (1 + number % 3);
    anneal.bound = options_.bound;
    anneal.worth = options_.worth ? options_.worth() : Worth();
    anneal.worth_per_flow = options_.worth_per_flow;
    anneal.return_last = true;
    return Annealer(instance_, options_.partial).run(known_[parent].placement, anneal).placement;
  }

  void judge(std::vector<JudgedPlacement>& batch, bool in_full) {
    const auto threads =
        std::clamp<size_t>(static_cast<size_t>(std::max(1, options_.threads)), 1, 16);
    std::vector<std::thread> crew;
    const auto work = [&](size_t first) {
      for (size_t i = first; i < batch.size(); i += threads) {
        batch[i].verdict = options_.judge(batch[i].placement, in_full);
      }
    };
    for (size_t t = 1; t < threads; ++t) crew.emplace_back(work, t);
    work(0);
    for (std::thread& member : crew) member.join();
    simulations_ += static_cast<int32_t>(batch.size());
    std::vector<JudgedPlacement>& list = in_full ? finals_ : known_;
    for (JudgedPlacement& judged : batch) {
      if (judged.verdict.served) list.push_back(std::move(judged));
    }
    std::stable_sort(list.begin(), list.end(),
                     [&](const JudgedPlacement& a, const JudgedPlacement& b) {
                       return better(a.verdict, b.verdict, options_.goals);
                     });
    if (options_.progress && !list.empty()) {
      options_.progress({simulations_, list[0].verdict, in_full});
    }
  }

  JudgedResult finals() {
    std::vector<JudgedPlacement> batch = known_;
    if (batch.size() > static_cast<size_t>(std::max(1, options_.finalists))) {
      batch.resize(static_cast<size_t>(std::max(1, options_.finalists)));
    }
    judge(batch, true);
    return {std::move(finals_), simulations_};
  }

  const Instance& instance_;
  const JudgedOptions& options_;
  std::vector<Placement> seen_;
  std::vector<JudgedPlacement> known_;   // by the short window, best first
  std::vector<JudgedPlacement> finals_;  // by the full one
  int32_t simulations_ = 0;
};

}  // namespace

bool better(const Verdict& a, const Verdict& b, const LatencyGoals& goals) {
  if (a.served != b.served) return a.served;
  const double over_a = overrun(a, goals);
  const double over_b = overrun(b, goals);
  return over_a != over_b ? over_a < over_b : a.decode_tps > b.decode_tps;
}

JudgedResult judged_search(const Instance& instance, const std::vector<Placement>& candidates,
                           const JudgedOptions& options) {
  return Climb(instance, options).run(candidates);
}

}  // namespace towline::plan
