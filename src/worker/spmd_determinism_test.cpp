// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// C13: random steps (admit, chunk, preempt, resume, finish, lanes opened and closed, adapters), all
// ranks' hashes equal at every step, tokens as the oracle says. TOWLINE_SPMD_STEPS=1000000 for the
// whole of it; the default is scaled for CI.
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/fmt.hpp"
#include "base/for_seeds.hpp"
#include "policy/testing_step_script.hpp"
#include "worker/steady_load.hpp"

namespace towline::worker {
namespace {

int64_t steps_of_a_seed(uint64_t seeds) {
  const char* asked = std::getenv("TOWLINE_SPMD_STEPS");
  const int64_t steps = asked != nullptr ? std::strtoll(asked, nullptr, 10) : 4000;
  return steps / static_cast<int64_t>(seeds);
}

class ScriptRun {
 public:
  ScriptRun(Rng& rng, int32_t ranks, bool processes, int32_t stages = 1)
      : options_(choose(rng)),
        script_(options_, rng()),
        sender_(script_.limits(), Epoch(1), form(rng)) {
    NullExecutorOptions null;
    null.vocab = options_.vocab;
    RankGroupOptions group = null_group(ranks, processes, null, stages);
    group.limits = script_.limits();
    Result<std::unique_ptr<RankGroup>> started = RankGroup::start(std::move(group));
    EXPECT_TRUE(started) << started.error().to_string();
    group_ = std::move(*started);
    for (int32_t id = 0; id < options_.adapters; ++id) {
      EXPECT_TRUE(group_->load_adapter(id, "a"));
      EXPECT_TRUE(group_->wait(net::deadline_in(seconds(300)))->ok());
    }
  }

  void steps(int64_t count) {
    for (int64_t i = 0; i < count && !::testing::Test::HasFailure(); ++i) {
      Result<policy::NodeStep> message = sender_.next(script_.draft());
      ASSERT_TRUE(message) << message.error().to_string();
      ASSERT_TRUE(submit(*group_, *message));
      sent_.push_back(message->runs());
      while (sent_.size() > 2) take_event();
      while (script_.in_flight().size() >= options_.in_flight) complete();
      if (i % 200 == 199) check_states();
    }
    while (!sent_.empty()) take_event();
    check_states();
  }

 private:
  static policy::StepScriptOptions choose(Rng& rng) {
    policy::StepScriptOptions o;
    o.slots = static_cast<int32_t>(rng.between(4, 40));
    o.blocks = o.slots * 4;
    o.adapters = 3;
    o.in_flight = rng.below(2) + 1;
    o.fed = rng.below(3) != 0;
    o.async = o.fed && o.in_flight > 1;
    return o;
  }
  static policy::DeltaForm form(Rng& rng) {
    return rng.below(2) == 0 ? policy::DeltaForm::kImplied : policy::DeltaForm::kExplicit;
  }

  // The group compares all ranks' hashes before it calls a step well.
  void take_event() {
    const std::optional<GroupEvent> event = group_->wait(net::deadline_in(seconds(300)));
    ASSERT_TRUE(event.has_value());
    ASSERT_TRUE(event->ok()) << event->error;
    if (sent_.front()) {
      ASSERT_EQ(event->outputs.size(), 1u);
      results_[event->outputs[0].step] = event->outputs[0].rows;
    }
    sent_.pop_front();
  }

  void complete() {
    const policy::LaneStep step = script_.in_flight().front();
    while (!results_.contains(step) && !::testing::Test::HasFailure()) take_event();
    std::vector<policy::StepScript::Sample> got;
    for (const RowResult& r : results_[step]) got.push_back({r.slot, r.position, r.token.token});
    results_.erase(step);
    sender_.completed(step);
    std::vector<policy::StepScript::Sample> want = script_.complete();
    const auto by_slot = [](const auto& a, const auto& b) { return a.slot < b.slot; };
    std::sort(got.begin(), got.end(), by_slot);
    std::sort(want.begin(), want.end(), by_slot);
    ASSERT_EQ(got, want);
    for (const auto& s : want) ASSERT_TRUE(sender_.learn(s.slot, s.position, s.token));
  }

  // What every rank holds is what the coordinator's copy holds.
  void check_states() {
    while (!sent_.empty()) take_event();
    const Result<Json> states = group_->call_now(Method::kDumpState, Json::object(), seconds(300));
    ASSERT_TRUE(states) << states.error().to_string();
    for (const Json& rank : states->items()) {
      ASSERT_EQ(rank["hash"].as_string(), format("{:016x}", sender_.mirror().hash()));
      ASSERT_EQ(rank["number"].as_int(), sender_.mirror().number());
    }
  }

  policy::StepScriptOptions options_;
  policy::StepScript script_;
  policy::StepSender sender_;
  std::unique_ptr<RankGroup> group_;
  std::deque<bool> sent_;   // whether it ran anything
  std::map<policy::LaneStep, std::vector<RowResult>> results_;
};

TEST(SpmdDeterminism, RandomStepsOnThreads) {
  constexpr uint64_t kSeeds = 8;
  for_seeds(kSeeds, [](Rng& rng) {
    ScriptRun run(rng, static_cast<int32_t>(rng.between(2, 4)), false);
    run.steps(steps_of_a_seed(kSeeds) * 3 / 4);
  });
}

TEST(SpmdDeterminism, RandomStepsOnStages) {
  constexpr uint64_t kSeeds = 8;
  for_seeds(kSeeds, [](Rng& rng) {
    const auto stages = static_cast<int32_t>(rng.between(2, 4));
    ScriptRun run(rng, static_cast<int32_t>(rng.between(1, 2)), rng.below(4) == 0, stages);
    run.steps(steps_of_a_seed(kSeeds) * 3 / 4);
  });
}

TEST(SpmdDeterminism, RandomStepsOnProcesses) {
  constexpr uint64_t kSeeds = 2;
  for_seeds(kSeeds, [](Rng& rng) {
    ScriptRun run(rng, 2, true);
    run.steps(steps_of_a_seed(kSeeds) / 4);
  });
}

}  // namespace
}  // namespace towline::worker
