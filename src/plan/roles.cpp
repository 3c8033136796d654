// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/roles.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/fmt.hpp"
#include "plan/auto.hpp"
#include "plan/stage_ip.hpp"

namespace towline::plan {
namespace {

// `instance` with only the nodes whose flag is `wanted`.
Instance only(Instance instance, const std::vector<bool>& flags, bool wanted) {
  for (size_t i = 0; i < flags.size(); ++i) {
    if (flags[i] != wanted) instance.rates[i].clear();
  }
  return instance;
}

double stage_flow(const Instance& instance, const std::vector<bool>& flags, bool wanted) {
  std::vector<int32_t> nodes;
  for (int32_t i = 0; i < instance.nodes(); ++i) {
    if (flags[i] == wanted && instance.max_count(i) > 0) nodes.push_back(i);
  }
  return nodes.empty() ? 0 : best_stages(instance, nodes).flow;
}

class RoleSearch {
 public:
  RoleSearch(const PlanProblem& problem, const ServingModel& model, const RoleOptions& options)
      : problem_(problem),
        requests_(model.requests),
        options_(options),
        prompt_(prompt_instance(problem, model)),
        decode_(decode_instance(problem, model)) {
    std::vector<int32_t> nodes(prompt_.rates.size());
    std::iota(nodes.begin(), nodes.end(), 0);
    const std::vector<int32_t> types = node_types(prompt_, nodes);
    for (size_t i = 0; i < types.size(); ++i) {
      if (static_cast<size_t>(types[i]) >= by_type_.size()) by_type_.resize(types[i] + 1);
      by_type_[types[i]].push_back(static_cast<int32_t>(i));
    }
  }

  Result<RolePlan> run() {
    double splits = 1;
    for (const auto& nodes : by_type_) splits *= static_cast<double>(nodes.size() + 1);
    // Beyond the budget only every so many-th number of each type is tried.
    const double excess = std::max(1.0, splits / options_.most_splits);
    stride_ = static_cast<int32_t>(
        std::ceil(std::pow(excess, 1.0 / static_cast<double>(by_type_.size()))));
    std::vector<int32_t> counts(by_type_.size(), 0);
    try_from(counts, 0);
    if (best_rate_ <= 0) {
      return errorf(Code::kInvalidArgument,
                    "no split into prompt and decode nodes serves '{}': each side must hold all {} "
                    "layers; add machines, or plan without roles",
                    problem_.model.name, problem_.model.layers);
    }
    return polish();
  }

 private:
  std::vector<bool> flags_of(const std::vector<int32_t>& counts) const {
    std::vector<bool> decodes(prompt_.rates.size(), false);
    for (size_t t = 0; t < counts.size(); ++t) {
      for (int32_t i = 0; i < counts[t]; ++i) decodes[by_type_[t][i]] = true;
    }
    return decodes;
  }

  void try_from(std::vector<int32_t>& counts, size_t type) {
    if (type < counts.size()) {
      const auto most = static_cast<int32_t>(by_type_[type].size());
      for (int32_t n = 0; n <= most; n = n < most ? std::min(most, n + stride_) : n + 1) {
        counts[type] = n;
        try_from(counts, type + 1);
      }
      return;
    }
    const std::vector<bool> decodes = flags_of(counts);
    const double prompts = stage_flow(prompt_, decodes, false) / requests_.input;
    if (prompts <= best_rate_) return;
    const double rate = std::min(prompts, stage_flow(decode_, decodes, true) / requests_.output);
    if (rate <= best_rate_) return;
    best_rate_ = rate;
    best_ = decodes;
  }

  SearchResult search(const Instance& instance) const {
    SearchOptions options;
    options.seed = options_.seed;
    options.steps = options_.steps;
    options.threads = options_.threads;
    return search_placement(instance, options);
  }

  RolePlan polish() const {
    RolePlan plan;
    plan.decodes = best_;
    const SearchResult prompt = search(only(prompt_, best_, false));
    const SearchResult decode = search(only(decode_, best_, true));
    plan.prompt = prompt.placement;
    plan.decode = decode.placement;
    plan.prompt_flow = prompt.flow;
    plan.decode_flow = decode.flow;
    plan.requests = std::min(prompt.flow / requests_.input, decode.flow / requests_.output);
    plan.transfer = transfer_rate(plan);
    plan.requests = std::min(plan.requests, plan.transfer);
    return plan;
  }

  // Requests/s whose KV the links between holders of the same layers carry, all at once. A decode
  // node fetches its layers' part from whoever has it; the slowest decode node decides.
  double transfer_rate(const RolePlan& plan) const {
    if (options_.kv_bytes_per_token_layer <= 0) return kMaxRate;
    const double bytes = options_.kv_bytes_per_token_layer * requests_.input;
    std::vector<double> capacity(static_cast<size_t>(problem_.model.layers), 0);
    for (const PlanArc& arc : problem_.arcs) {
      if (arc.from < 0 || arc.to < 0) continue;
      const LayerRange from = plan.prompt.nodes[arc.from];
      const LayerRange to = plan.decode.nodes[arc.to];
      const LayerRange both = {std::max(from.begin, to.begin), std::min(from.end, to.end)};
      if (from.empty() || to.empty() || both.begin >= both.end) continue;
      // A link shares its bandwidth among the layers that it carries.
      for (int32_t l = both.begin; l < both.end; ++l) {
        capacity[l] += arc.bandwidth / (bytes * both.size());
      }
    }
    return *std::min_element(capacity.begin(), capacity.end());
  }

  const PlanProblem& problem_;
  const RequestShape requests_;
  const RoleOptions& options_;
  const Instance prompt_, decode_;
  std::vector<std::vector<int32_t>> by_type_;  // [type] nodes
  int32_t stride_ = 1;
  double best_rate_ = 0;
  std::vector<bool> best_;
};

}  // namespace

Instance prompt_instance(const PlanProblem& problem, const ServingModel& model) {
  Instance instance = to_instance(problem);
  for (int32_t i = 0; i < instance.nodes(); ++i) {
    for (int32_t k = 1; k <= instance.max_count(i); ++k) {
      instance.rates[i][k - 1] =
          model.requests.input / (k * std::max(1e-12, model.nodes[i].prompt_seconds));
    }
  }
  return instance;
}

Instance decode_instance(const PlanProblem& problem, const ServingModel& model) {
  Instance instance = to_instance(problem);
  const double context = model.requests.input + model.requests.output;
  for (int32_t i = 0; i < instance.nodes(); ++i) {
    const ServingNode& node = model.nodes[i];
    for (int32_t k = 1; k <= instance.max_count(i); ++k) {
      // Of the requests whose KV fits, the share that is here at a time: this node's of all layers.
      const double here = node.kv_tokens[k - 1] / context * k / model.layers;
      const size_t batch =
          std::min(static_cast<size_t>(std::max(1.0, here)), node.decode_seconds.size() - 1);
      instance.rates[i][k - 1] =
          static_cast<double>(batch) / (k * std::max(1e-12, node.decode_seconds[batch]));
    }
  }
  return instance;
}

Result<RolePlan> plan_roles(const PlanProblem& problem, const ServingModel& model,
                            const RoleOptions& options) {
  return RoleSearch(problem, model, options).run();
}

}  // namespace towline::plan
