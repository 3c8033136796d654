// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Towline's own simulator: by hand on small clusters, against queueing theory,
// and under any mix of disturbances.
#include "sim/stage_engine.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <map>

#include "base/for_seeds.hpp"
#include "sim/fair_network.hpp"
#include "sim/stage_grid.hpp"
#include "sim/stage_report.hpp"
#include "sim/testing_trial.hpp"

namespace towline::sim {
namespace {

TEST(StageEngine, OneRequestTakesWhatItsPartsTake) {
  const Trial r = run(grid(2, 1), {}, list_source({{0, 100, 3}}));
  ASSERT_EQ(r.records.size(), 1u);
  const double host = 100 * 1000 * (1 / 4e9 + 1 / 5e9);
  const double first = 2 * (2 * 0.1 + host) + 3 * 0.001 + 200 / 1e9 + 100'200 / 1e9 + 2 / 1e9;
  EXPECT_NEAR(r.report.ttft.mean, first, 1e-6);
  const double step = 2 * (2 * 0.001 + 1000 * (1 / 4e9 + 1 / 5e9)) + 0.003 + 1002 / 1e9 + 4 / 1e9;
  EXPECT_NEAR(r.report.tpot.mean, step, 1e-6);
  EXPECT_EQ(r.report.output_tokens, 3);
  EXPECT_EQ(r.report.finished, 1);
}

TEST(StageEngine, LongPromptsAreCutSoThatDecodesGoOn) {
  // A prompt of 2000 tokens (4 s of work) comes while another request produces tokens.
  const std::vector<spec::TraceRequest> list = {{0, 10, 40}, {50'000'000, 2000, 1}};
  StageOptions options;
  const Trial whole = run(grid(1, 1), options, list_source(list));
  EXPECT_GT(whole.report.itl.max, 3.9);
  options.chunk_tokens = options.prompt_budget = 100;  // 0.2 s each
  const Trial cut = run(grid(1, 1), options, list_source(list));
  EXPECT_LT(cut.report.itl.max, 0.45);
  EXPECT_EQ(cut.report.finished, 2);
}

TEST(StageEngine, EqualPromptsAreComputedOnceIfThereIsAPrefixCache) {
  spec::TraceTokens known;
  known.prompt.assign(330, 5);
  const auto tokens = std::make_shared<const spec::TraceTokens>(known);
  const std::vector<spec::TraceRequest> list = {{0, 330, 3, tokens},
                                                {60'000'000'000, 330, 3, tokens}};
  StageOptions options;
  const Trial without = run(grid(1, 1), options, list_source(list));
  EXPECT_EQ(without.report.cached_tokens, 0);
  options.prefix_cache = true;
  const Trial with = run(grid(1, 1), options, list_source(list));
  EXPECT_EQ(with.report.cached_tokens, 320);  // all whole blocks before the last token
  EXPECT_EQ(with.report.recomputed_tokens, 0);
  ASSERT_EQ(with.records.size(), 2u);
  const auto waited = [](const Trial& t, size_t i) {
    return t.records[i].first_token - t.records[i].arrival;
  };
  EXPECT_EQ(waited(with, 0), waited(without, 0));
  EXPECT_LT(10 * waited(with, 1), waited(without, 1));
}

// As a worker's policy::Peer does: two steps of one lane never run together,
// and small ones go first.
TEST(StageEngine, GathersRunsAsAPeerDoes) {
  const std::vector<spec::TraceRequest> list(40, {0, 10, 30});
  StageOptions options;
  options.trace_limit = 100'000;
  options.host.emplace();
  options.host->batching = {.step_tokens = 512, .sequences = 40, .chunk_tokens = 512, .ahead = 64};
  options.host->extra_steps = 2;  // four in flight, of ten sequences each
  HelixInput input = grid(2, 1);
  input.times.push_back(input.times[0]);  // steps queue up before the second node
  for (double& t : input.times[1].decode) t *= 5;
  input.machines.resize(2);
  input.nodes[1].machine = 1;
  const auto widest = [&](int32_t run_rows) {
    for (HelixNode& node : input.nodes) node.run_rows = run_rows;
    const Trial trial = run(input, options, list_source(list));
    EXPECT_EQ(trial.report.finished, 40);
    EXPECT_EQ(trial.report.output_tokens, 40 * 30);
    int32_t most = 0;
    for (const BatchTrace& batch : trial.report.batches) most = std::max(most, batch.decodes);
    return most;
  };
  EXPECT_GT(widest(0), 10);
  EXPECT_EQ(widest(512), 10);
  EXPECT_EQ(widest(1), 10);  // one step always fits
}

// A coordinator's limits, whole: its steps in flight, and the API's refusal beyond what may wait.
TEST(StageEngine, TakesTheLimitsOfACoordinator) {
  std::vector<spec::TraceRequest> list(40, {0, 10, 30});
  StageOptions options;
  options.host.emplace();
  options.host->batching = {.step_tokens = 512, .sequences = 40, .chunk_tokens = 512, .ahead = 64};
  const Trial none = run(grid(2, 1), options, list_source(list));
  options.host->extra_steps = 2;
  const Trial two = run(grid(2, 1), options, list_source(list));
  EXPECT_EQ(none.report.finished, 40);
  EXPECT_EQ(two.report.finished, 40);
  EXPECT_GT(two.report.steps, none.report.steps) << "the sequences are divided over more steps";
  options.most_unfinished = 8;
  const Trial few = run(grid(2, 1), options, list_source(list));
  EXPECT_EQ(few.report.finished, 8);
  EXPECT_EQ(few.report.rejected, 32);
}

// Poisson arrivals, one server, equal work: the time in the system is Pollaczek and Khinchine's for
// M/D/1, and Little's law holds.
TEST(StageEngine, WaitsAsLongAsQueueingTheorySays) {
  HelixInput input = grid(1, 1);
  input.nodes[0].kv_capacity = 1'000'000'000;
  input.nodes[0].layers = {0, 1};
  input.total_layers = 1;
  for (HelixLink& link : input.links) link.latency = 0;
  StageOptions options;
  options.prompt_budget = options.chunk_tokens = 100;  // one request a batch
  const double service = 0.1 + 100 * 1000 * (1 / 4e9 + 1 / 5e9);
  for (const double load : {0.3, 0.7, 0.9}) {
    const double rate = load / service;
    spec::ArrivalClock clock({.rate = rate}, 11);
    std::vector<spec::TraceRequest> list;
    for (int i = 0; i < 100'000; ++i) list.push_back({clock.next(), 100, 1});
    const Trial r = run(input, options, list_source(list));
    EXPECT_EQ(r.report.finished, 100'000);
    const double theory = service + load * service / (2 * (1 - load));
    EXPECT_NEAR(r.report.e2e.mean, theory, 0.05 * theory) << "load " << load;
    const double span = r.report.ended - r.report.started;
    EXPECT_NEAR(r.report.mean_in_system, 100'000 / span * r.report.e2e.mean,
                1e-6 * r.report.mean_in_system);
    EXPECT_NEAR(r.report.node_busy[0], load, 0.02);
  }
}

// Prompts of random lengths, one server, one at a time: Pollaczek and Khinchine's mean for M/G/1,
// of which exponential lengths (M/M/1) are a case.
TEST(StageEngine, WaitsAsTheoryForAnyDistributionOfWork) {
  HelixInput input = grid(1, 1);
  input.nodes[0].kv_capacity = 1'000'000'000;
  input.nodes[0].layers = {0, 1};
  input.total_layers = 1;
  input.activation_bytes = 0;
  for (HelixLink& link : input.links) {
    link.latency = 0;
    link.bandwidth = 1e15;
  }
  StageOptions options;
  options.places = 1;
  options.prompt_budget = options.chunk_tokens = 4096;
  for (const bool exponential : {true, false}) {
    Rng rng(5);
    const double rate = 0.7 / 0.1;  // mean work 100 tokens of 1 ms
    spec::ArrivalClock clock({.rate = rate}, 12);
    std::vector<spec::TraceRequest> list;
    double sum = 0, squares = 0;
    for (int i = 0; i < 150'000; ++i) {
      const double drawn = exponential ? -100 * std::log(1 - rng.unit())
                                       : (rng.below(10) == 0 ? 550.0 : 50.0);
      const auto tokens = static_cast<int32_t>(std::clamp(std::round(drawn), 1.0, 4000.0));
      list.push_back({clock.next(), tokens, 1});
      sum += 0.001 * tokens;
      squares += 1e-6 * tokens * tokens;
    }
    const double mean = sum / 150'000, square = squares / 150'000, load = rate * mean;
    const double theory = mean + rate * square / (2 * (1 - load));
    if (exponential) {
      EXPECT_NEAR(theory, mean / (1 - load), 0.02 * theory);  // M/M/1
    }
    const Trial r = run(input, options, list_source(list));
    EXPECT_EQ(r.report.finished, 150'000);
    EXPECT_NEAR(r.report.e2e.mean, theory, 0.05 * theory) << exponential;
    const double span = r.report.ended - r.report.started;
    EXPECT_NEAR(r.report.mean_in_system, 150'000 / span * r.report.e2e.mean,
                1e-6 * r.report.mean_in_system);
  }
}

// p stages of equal time, m microbatches that follow each other: m + p - 1 stage times, of which
// each stage idles p - 1 (the bubble of a pipeline).
TEST(StageEngine, HasThePipelineBubbleOfTheClosedForm) {
  for (const int stages : {2, 4, 7}) {
    for (const int chunks : {1, 3, 10}) {
      HelixInput input = grid(stages, 1);
      input.activation_bytes = 1;
      input.times[0].prompt.resize(101);  // a node takes one chunk at a time
      for (HelixLink& link : input.links) {
        link.latency = 0;
        link.bandwidth = 1e15;
      }
      StageOptions options;
      options.prompt_budget = options.chunk_tokens = 100;
      options.depth = 100;
      const Trial r = run(input, options, list_source({{0, 100 * chunks, 1}}));
      const double stage = 2 * 0.1;  // two layers, 100 tokens
      EXPECT_NEAR(r.report.e2e.mean, (chunks + stages - 1) * stage, 1e-5);
      const double busy = static_cast<double>(chunks) / (chunks + stages - 1);
      for (const double share : r.report.node_busy) EXPECT_NEAR(share, busy, 1e-4);
    }
  }
}

// What each token looks back on costs time where the tables say so.
TEST(StageEngine, ContextCostsWhatTheTablesSay) {
  HelixInput input = grid(1, 1);
  input.activation_bytes = 0;
  const Trial flat = run(input, {}, list_source({{0, 100, 21}}));
  input.times[0].decode_context_seconds = 1e-5;
  const Trial deep = run(input, {}, list_source({{0, 100, 21}}));
  // 20 decodes after 100, 101, ... 119 tokens, in two layers each.
  EXPECT_NEAR(deep.report.e2e.mean - flat.report.e2e.mean, 2 * 1e-5 * (20 * 100 + 190), 1e-6);
}

TEST(StageEngine, CountsBatchesBeyondTheProfile) {
  HelixInput input = grid(1, 1);
  input.times[0].decode.resize(3);  // up to two decodes
  std::vector<spec::TraceRequest> list(8, {0, 10, 5});
  StageOptions options;
  options.depth = 1;
  const Trial r = run(input, options, list_source(list));
  EXPECT_EQ(r.report.finished, 8);
  EXPECT_GT(r.report.out_of_profile, 0);
  const Trial within = run(grid(1, 1), options, list_source(list));
  EXPECT_EQ(within.report.out_of_profile, 0);
}

TEST(StageEngine, AClientThinksBeforeItAsksAgain) {
  StageOptions options;
  options.clients = 1;
  options.think_seconds = 2;
  const Trial r = run(grid(1, 1), options, list_source({{0, 10, 2}, {0, 10, 2}, {0, 10, 2}}));
  ASSERT_EQ(r.records.size(), 3u);
  for (size_t i = 1; i < 3; ++i) {
    EXPECT_EQ(r.records[i].arrival - r.records[i - 1].end, 2'000'000'000);
  }
}

TEST(StageEngine, RefusesOnlyWhatCanNeverFitOrWhenTheQueueIsFull) {
  StageOptions options;
  options.queue_limit = 2;
  HelixInput input = grid(1, 1);
  input.nodes[0].kv_capacity = 2'000;
  // 2 layers x (300 + 240) tokens each: one at a time; 5000 tokens never fit.
  const Trial r = run(input, options,
                    list_source({{0, 300, 50}, {1, 300, 50}, {2, 300, 50}, {3, 300, 50},
                                 {100'000'000'000, 5000, 5}}));
  std::map<std::string, int> outcomes;
  for (const RequestRecord& record : r.records) ++outcomes[std::string(record.reason)];
  EXPECT_EQ(outcomes[""], 3);
  EXPECT_EQ(outcomes["queue full"], 1);
  EXPECT_EQ(outcomes["larger than the KV cache"], 1);
}

TEST(StageEngine, ACrashLosesTimeButNoToken) {
  HelixInput input = grid(2, 2);
  std::vector<spec::TraceRequest> list;
  for (int i = 0; i < 200; ++i) list.push_back({i * 50'000'000ll, 50, 40});
  StageOptions options;
  const Trial calm = run(input, options, list_source(list));
  options.disturbances = {{2, DisturbanceKind::kCrash, 3, 1},
                          {6, DisturbanceKind::kRejoin, 3, 1},
                          {7, DisturbanceKind::kLinkDown, 2, 1},
                          {8, DisturbanceKind::kLinkUp, 2, 1}};
  const Trial rough = run(input, options, list_source(list));
  EXPECT_EQ(calm.report.restarts, 0);
  EXPECT_GT(rough.report.restarts, 0);
  EXPECT_EQ(rough.report.finished, 200);
  EXPECT_EQ(rough.report.output_tokens, 200 * 40);  // each token once
  EXPECT_GT(rough.report.e2e.mean, calm.report.e2e.mean);
  EXPECT_EQ(rough.report.replans, 5);
}

TEST(StageEngine, WithoutAWayRequestsFailAtTheEndOrWaitForOne) {
  StageOptions options;
  options.disturbances = {{1, DisturbanceKind::kCrash, 0, 1}};
  const std::vector<spec::TraceRequest> list = {{0, 2000, 10}, {3'000'000'000, 10, 10}};
  const Trial lost = run(grid(2, 1), options, list_source(list));
  EXPECT_EQ(lost.report.failed, 2);
  options.disturbances.push_back({20, DisturbanceKind::kRejoin, 0, 1});
  const Trial saved = run(grid(2, 1), options, list_source(list));
  EXPECT_EQ(saved.report.finished, 2);
}

// Any load, any disturbances: every request ends exactly once, the engine's own books balance (it
// CHECKs them), and the same input gives the same output to the last byte,
// with fast-forward and without.
TEST(StageEngine, SurvivesAnyScript) {
  int64_t forwarded = 0;
  for_seeds(60, [&](Rng& rng) {
    HelixInput input = grid(1 + static_cast<int32_t>(rng.below(3)),
                            1 + static_cast<int32_t>(rng.below(3)));
    for (HelixNode& node : input.nodes) node.kv_capacity = rng.between(1'000, 30'000);
    for (HelixLink& link : input.links) link.bandwidth = rng.below(2) == 0 ? 1e9 : 1e6;
    StageOptions options;
    options.estimator.output_ratio = 0.1 * static_cast<double>(rng.below(12));
    options.chunk_tokens = static_cast<int32_t>(rng.between(1, 600));
    options.prompt_budget = static_cast<int32_t>(rng.between(options.chunk_tokens, 2000));
    options.depth = static_cast<int32_t>(rng.below(5));
    options.queue_limit = rng.between(5, 200);
    options.clients = rng.below(3) == 0 ? rng.between(1, 30) : 0;
    options.sample_seconds = rng.below(2) == 0 ? 0.5 : 0;
    double at = 0;
    for (uint64_t i = rng.below(12); i > 0; --i) {
      at += 3 * rng.unit();
      const auto kind = static_cast<DisturbanceKind>(rng.below(11));
      const bool link = kind >= DisturbanceKind::kLinkDown;
      const size_t targets = link ? input.links.size() : input.nodes.size();
      options.disturbances.push_back(
          {at, kind, static_cast<int32_t>(rng.below(targets)), 0.5 + rng.unit()});
    }
    std::vector<spec::TraceRequest> list;
    int64_t when = 0;
    for (int i = 0; i < 150; ++i) {
      when += rng.between(0, 200'000'000);
      list.push_back({when, static_cast<int32_t>(rng.between(1, 900)),
                      static_cast<int32_t>(rng.between(1, 60))});
    }
    const Trial first = run(input, options, list_source(list));
    std::map<int64_t, int> ends;
    int64_t output = 0;
    for (const RequestRecord& r : first.records) {
      ++ends[r.id];
      if (r.outcome == Outcome::kFinished) output += r.output;
      ASSERT_GE(r.end, r.arrival);
    }
    ASSERT_EQ(static_cast<int64_t>(ends.size()), first.report.arrived);
    ASSERT_EQ(first.report.unfinished, 0);
    for (const auto& [id, count] : ends) ASSERT_EQ(count, 1) << id;
    ASSERT_LE(output, first.report.output_tokens);
    forwarded += first.report.forwarded;
    options.fast_forward = false;
    Trial second = run(input, options, list_source(list));
    ASSERT_EQ(second.report.forwarded, 0);
    second.report.forwarded = first.report.forwarded;
    ASSERT_EQ(stage_summary(input, first.report).dump(),
              stage_summary(input, second.report).dump());
    ASSERT_EQ(first.records.size(), second.records.size());
    for (size_t i = 0; i < first.records.size(); ++i) {
      ASSERT_EQ(request_csv_row(first.records[i]), request_csv_row(second.records[i]));
    }
  });
  if (std::getenv("TOWLINE_SEED") != nullptr) return;
  EXPECT_GT(forwarded, 1000);
}

// Everything twice as fast, arrivals twice as dense: the same run in half the time.
TEST(StageEngine, ScalesWithTime) {
  HelixInput fast = grid(2, 2);
  fast.layer_bytes = 0;
  HelixInput slow = fast;
  for (auto* table : {&slow.times[0].prompt, &slow.times[0].decode}) {
    for (double& t : *table) t *= 2;
  }
  slow.activation_bytes = fast.activation_bytes = 0;
  std::vector<spec::TraceRequest> quick, lazy;
  for (int i = 0; i < 100; ++i) {
    quick.push_back({i * 10'000'000ll, 20 + i % 7, 5 + i % 11});
    lazy.push_back({i * 20'000'000ll, 20 + i % 7, 5 + i % 11});
  }
  for (HelixLink& link : slow.links) {
    link.latency *= 2;
    link.bandwidth /= 2;
  }
  const Trial a = run(fast, {}, list_source(quick)), b = run(slow, {}, list_source(lazy));
  EXPECT_EQ(a.report.events, b.report.events);
  EXPECT_NEAR(2 * a.report.e2e.mean, b.report.e2e.mean, 1e-5);
  EXPECT_NEAR(2 * a.report.ttft.p99, b.report.ttft.p99, 1e-5);
}

TEST(FairNetwork, SharesByProgressiveFilling) {
  // Resource 0 carries 10, resource 1 carries 4: the flow over both gets 2, its neighbour on 1 gets
  // 2, the others on 0 share what is left.
  FairNetwork network({10, 4});
  network.start(0, 100, {0, 1, FairNetwork::kNone}, 0);
  network.start(0, 100, {1, FairNetwork::kNone, FairNetwork::kNone}, 1);
  network.start(0, 100, {0, FairNetwork::kNone, FairNetwork::kNone}, 2);
  EXPECT_NEAR(network.rate(0), 2, 1e-9);
  EXPECT_NEAR(network.rate(1), 2, 1e-9);
  EXPECT_NEAR(network.rate(2), 8, 1e-9);
}

// Max-min by its definition: no resource is overdrawn, and every flow crosses a full resource on
// which nobody is faster. All bytes arrive.
TEST(FairNetwork, IsMaxMinFairAndCarriesEverything) {
  for_seeds(200, [](Rng& rng) {
    std::vector<double> capacities;
    for (int i = 0; i < 6; ++i) capacities.push_back(1e6 * static_cast<double>(rng.between(1, 50)));
    FairNetwork network(capacities);
    std::vector<std::array<int32_t, 3>> paths;
    const size_t flows = 1 + rng.below(10);
    double bytes = 0;
    for (size_t i = 0; i < flows; ++i) {
      const auto a = static_cast<int32_t>(rng.below(6));
      const auto b = static_cast<int32_t>((a + 1 + rng.below(5)) % 6);
      paths.push_back({a, rng.below(2) == 0 ? b : FairNetwork::kNone, FairNetwork::kNone});
      const auto size = static_cast<double>(rng.between(1'000, 5'000'000));
      bytes += size;
      network.start(0, size, paths.back(), i);
    }
    std::vector<double> used(6);
    for (size_t i = 0; i < flows; ++i) {
      for (const int32_t r : paths[i]) {
        if (r >= 0) used[r] += network.rate(i);
      }
    }
    for (int r = 0; r < 6; ++r) EXPECT_LE(used[r], capacities[r] * (1 + 1e-9));
    for (size_t i = 0; i < flows; ++i) {
      bool held = false;
      for (const int32_t r : paths[i]) {
        if (r < 0 || used[r] < capacities[r] * (1 - 1e-9)) continue;
        bool fastest = true;
        for (size_t j = 0; j < flows; ++j) {
          const bool shares = paths[j][0] == r || paths[j][1] == r;
          fastest = fastest && (!shares || network.rate(j) <= network.rate(i) * (1 + 1e-9));
        }
        held = held || fastest;
      }
      EXPECT_TRUE(held) << "flow " << i;
    }
    std::vector<uint64_t> ended;
    int64_t now = 0;
    while (!network.idle()) {
      ASSERT_NE(network.next_end(), INT64_MAX);
      ASSERT_GE(network.next_end(), now);
      now = network.next_end();
      network.finish(now, ended);
    }
    EXPECT_EQ(ended.size(), flows);
    EXPECT_GE(static_cast<double>(now) * 1e-9 * 50e6 * 6, bytes);
  });
}

}  // namespace
}  // namespace towline::sim
