// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/plan_judge.hpp"

#include <mutex>

#include "base/fmt.hpp"
#include "plan/plan_cluster.hpp"
#include "sim/helix_load.hpp"
#include "sim/judge.hpp"

namespace towline::cli {
namespace {

// The short window with which most plans are looked at, simulated seconds; a tenth to a third of
// the work of the full one.
constexpr double kShortWarmUp = 40;
constexpr double kShortWindow = 160;
// Simulated rates may exceed the static flow by this: T(k) is a typical rate, not a limit.
constexpr double kStretch = 1.5;

Result<void> prepare_cost(const ObjectiveInputs& inputs, const ProblemAndProfile* loaded,
                          plan::Objective& objective) {
  if (loaded == nullptr) {
    return Error(Code::kInvalidArgument,
                 "--minimise cost needs prices; give --cluster, an instance has none");
  }
  if (!(inputs.target_rate > 0)) {
    return Error(Code::kInvalidArgument, "--minimise cost needs --target-rate above 0");
  }
  objective.target_rate = inputs.target_rate;
  for (int32_t unit = 0; unit < loaded->problem.size(); ++unit) {
    const spec::MachineType& type = loaded->problem.machine(unit);
    if (!(type.price > 0)) {
      return errorf(
          Code::kInvalidArgument,
          "machine type '{}' has no price; write price = 1.2 (an hour) into its [[types]]",
          type.name);
    }
    objective.prices.push_back(type.price * loaded->problem.units[unit].devices);
  }
  return {};
}

// Simulated prompts are longer than what many machines were profiled with. They are worked off in
// chunks, so that time grows in proportion.
spec::Profile with_long_prompts(spec::Profile profile) {
  for (spec::DeviceProfile& device : profile.devices) {
    if (device.prompt.size() < 2 || device.prompt.back().tokens >= spec::kMaxInput) continue;
    const spec::LayerTime last = device.prompt.back();
    const double longer = spec::kMaxInput / last.tokens;
    device.prompt.push_back({spec::kMaxInput, last.time * longer});
  }
  return profile;
}

}  // namespace

void ObjectiveInputs::add_to(OptionTable& table) {
  table
      .value(
          "objective", &objective,
          "what to maximise: the static flow; what KV capacity and latency let a full cluster "
          "serve; the same within --slo; the flow after the worst failure; requests/s with prompt "
          "and decode nodes apart")
      .one_of({"flow", "served", "goodput", "n1", "roles"});
  table
      .value("slo", &slo,
             "goals of the mean latency, as ttft=2,tpot=0.25 (seconds; either may be left out)")
      .metavar("GOALS");
  table
      .value("n1", &least_n1,
             "tokens/s that must remain when any one node fails; 0: no such demand")
      .range(0, 1e15);
  table
      .value("minimise", &minimise,
             "cost: the cheapest nodes that reach --target-rate; needs prices in the cluster file")
      .one_of({"", "cost"});
  table.value("target-rate", &target_rate, "tokens/s that --minimise cost must reach")
      .range(0, 1e15);
  table
      .value("replicas", &replicas,
             "further copies of the KV cache on other nodes; served and goodput count with the "
             "memory that is left")
      .range(0, 100);
  table
      .value("lengths", &lengths,
             "CSV of input_tokens,output_tokens that requests have; default: a chat service's")
      .metavar("FILE");
  table
      .value("judge", &finalists,
             "simulate plans at full load, climb from the best, simulate so many in full and take "
             "the one that decodes most; 0: do not simulate")
      .range(0, 1000);
  table.value("judge-rounds", &rounds, "rounds of eight variants that --judge tries")
      .range(0, 10'000);
}

Result<void> ObjectiveInputs::check() const {
  const auto refuse = [](const char* what) { return Error(Code::kInvalidArgument, what); };
  const bool judged = finalists > 0;
  const bool roles = objective == "roles";
  const bool serving = objective == "served" || objective == "goodput" || judged;
  if (roles && judged) {
    return refuse(
        "--judge: the simulator does not hand requests over from prompt to decode nodes; plan "
        "--objective roles without it");
  }
  if (roles && (least_n1 > 0 || !slo.empty())) {
    return refuse("--objective roles counts requests/s; --n1 and --slo do not go with it");
  }
  if (judged && objective == "n1") {
    return refuse("--judge ranks by what is decoded; ask for what must remain with --n1 TOKENS");
  }
  if (judged && replicas > 0) {
    return refuse(
        "--judge: the simulator keeps no copies of KV caches; use --replicas with --objective "
        "served or goodput");
  }
  if (!minimise.empty() && (judged || objective != "flow")) {
    return refuse("--minimise cost is an objective itself; leave --objective and --judge out");
  }
  if (minimise.empty() && target_rate > 0) {
    return refuse("--target-rate is what --minimise cost must reach; add --minimise cost");
  }
  if (!serving && !roles && (replicas > 0 || !lengths.empty())) {
    return refuse(
        "--replicas and --lengths count for the objectives served, goodput and roles (--lengths "
        "for --judge too); choose one");
  }
  return {};
}

Result<PreparedObjective> prepare_objective(const ObjectiveInputs& inputs,
                                            const ProblemAndProfile* loaded) {
  PreparedObjective prepared;
  plan::Objective& objective = prepared.objective;
  objective.least_n1 = inputs.least_n1;
  ASSIGN_OR_RETURN(prepared.goals, plan::parse_latency_goals(inputs.slo));
  const bool goals = prepared.goals.ttft > 0 || prepared.goals.tpot > 0;
  objective.goal = inputs.objective == "served"    ? plan::Goal::kServed
                   : inputs.objective == "goodput" ? plan::Goal::kGoodput
                   : inputs.minimise == "cost"     ? plan::Goal::kCost
                   : inputs.objective == "n1"      ? plan::Goal::kSurvival
                                                   : plan::Goal::kFlow;
  if (objective.goal == plan::Goal::kCost) TRY(prepare_cost(inputs, loaded, objective));
  if (inputs.objective == "goodput" && !goals) {
    return Error(Code::kInvalidArgument,
                 "--objective goodput needs goals; give --slo, as ttft=2,tpot=0.25");
  }
  if (goals && inputs.objective != "goodput" && inputs.finalists == 0) {
    return Error(Code::kInvalidArgument,
                 "--slo counts for --objective goodput and for --judge; give one of them");
  }
  if (inputs.finalists > 0) {
    objective.goal = goals ? plan::Goal::kGoodput : plan::Goal::kServed;
    objective.stretch = kStretch;
  }
  objective.latency = prepared.goals;
  const bool serving =
      objective.goal == plan::Goal::kServed || objective.goal == plan::Goal::kGoodput;
  if (!serving) return prepared;
  if (loaded == nullptr) {
    return Error(Code::kInvalidArgument,
                 "--judge and the objectives served and goodput need machines with memory and "
                 "links with latency; give --cluster, an instance has none");
  }
  if (!inputs.lengths.empty()) {
    ASSIGN_OR_RETURN(prepared.lengths, sim::load_lengths(inputs.lengths));
  } else {
    prepared.lengths = sim::typical_lengths();
  }
  prepared.model =
      plan::make_serving_model(loaded->problem, loaded->profile, plan::shape_of(prepared.lengths));
  if (inputs.replicas > 0) {
    if (loaded->kv_bytes <= 0) {
      return errorf(Code::kInvalidArgument,
                    "--replicas: how large the KV cache of '{}' is, is not known; give its file as "
                    "--model",
                    loaded->profile.model.name);
    }
    plan::replicate(*prepared.model, loaded->problem, inputs.replicas, loaded->kv_bytes);
  }
  return prepared;
}

plan::WorthMaker PreparedObjective::worth() const {
  plan::Objective complete = objective;
  if (model) complete.model = &*model;
  return plan::worth_of(complete);
}

Result<plan::JudgedResult> judge_placements(const ProblemAndProfile& loaded,
                                            const plan::Instance& instance,
                                            const ObjectiveInputs& inputs,
                                            const PreparedObjective& prepared,
                                            const std::vector<plan::Placement>& candidates,
                                            plan::JudgedOptions options) {
  const spec::Profile profile = with_long_prompts(loaded.profile);
  std::mutex mutex;
  std::string refusal;  // guarded by mutex
  options.finalists = inputs.finalists;
  options.rounds = inputs.rounds;
  options.goals = prepared.goals;
  options.worth = prepared.worth();
  options.worth_per_flow = prepared.objective.stretch;
  options.judge = [&](const plan::Placement& placement, bool in_full) -> plan::Verdict {
    sim::JudgeOptions judge;
    judge.lengths = prepared.lengths;
    if (!in_full) {
      judge.warm_up = kShortWarmUp;
      judge.duration = kShortWindow;
    }
    const Result<sim::Judgement> judged = sim::judge(
        loaded.problem, plan::link_all(loaded.problem, placement, options.partial, "auto"), profile,
        judge);
    if (!judged) {
      const std::lock_guard lock(mutex);
      refusal = judged.error().to_string();
      return {};
    }
    return {true, judged->decode_tps, judged->decode_latency, judged->prompt_latency};
  };
  plan::JudgedResult result = plan::judged_search(instance, candidates, options);
  if (result.finalists.empty()) {
    return errorf(Code::kExhausted, "none of the {} plans could be simulated: {}",
                  result.simulations, refusal);
  }
  return result;
}

}  // namespace towline::cli
