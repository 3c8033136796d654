// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/plan_desc.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/fmt.hpp"
#include "spec/toml_text.hpp"

namespace towline::spec {
namespace {

constexpr int32_t kMaxLayers = 10'000;
constexpr double kMaxRate = 1e18;  // tokens/s

bool sane(double value) { return std::isfinite(value) && value >= 0 && value <= kMaxRate; }

Result<void> check_nodes(const PlanDesc& plan) {
  std::set<std::string_view> names;
  std::vector<bool> held(static_cast<size_t>(plan.layers));
  for (const PlannedNode& node : plan.nodes) {
    if (node.name.empty() || node.name == "source" || node.name == "sink" ||
        !names.insert(node.name).second) {
      return errorf(Code::kInvalidArgument,
                    "node '{}' needs a name of its own, and not source or sink; rename it",
                    node.name);
    }
    if (node.layers.begin < 0 || node.layers.end < node.layers.begin ||
        node.layers.end > plan.layers) {
      return errorf(Code::kInvalidArgument,
                    "node '{}' holds layers [{}, {}), which do not lie in the plan's {} layers; "
                    "correct begin and end",
                    node.name, node.layers.begin, node.layers.end, plan.layers);
    }
    if (!sane(node.flow.value)) {
      return errorf(Code::kInvalidArgument, "node '{}' has a flow of {} tokens/s; correct it",
                    node.name, node.flow.value);
    }
    for (int32_t layer = node.layers.begin; layer < node.layers.end; ++layer) held[layer] = true;
  }
  const auto hole = std::find(held.begin(), held.end(), false);
  if (hole != held.end()) {
    return errorf(Code::kInvalidArgument,
                  "no node holds layer {}; a plan must cover layers 0 to {}", hole - held.begin(),
                  plan.layers - 1);
  }
  return {};
}

Result<void> check_links(const PlanDesc& plan) {
  std::set<std::string_view> names;
  for (const PlannedNode& node : plan.nodes) names.insert(node.name);
  std::set<std::pair<std::string_view, std::string_view>> ends;
  for (const PlannedLink& link : plan.links) {
    const bool from_known = link.from == "source" || names.contains(link.from);
    const bool to_known = link.to == "sink" || names.contains(link.to);
    if (!from_known || !to_known || link.from == link.to ||
        !ends.insert({link.from, link.to}).second) {
      return errorf(Code::kInvalidArgument,
                    "the link from '{}' to '{}' has an unknown end, or is given twice; correct it",
                    link.from, link.to);
    }
    if (!sane(link.flow.value) || !sane(link.capacity.value) || !(link.share >= 0) ||
        link.share > 1 + 1e-9) {
      return errorf(Code::kInvalidArgument,
                    "the link from '{}' to '{}' has a flow of {}, a capacity of {} and a share of "
                    "{}; rates must be 0 or above and shares at most 1",
                    link.from, link.to, link.flow.value, link.capacity.value, link.share);
    }
  }
  return {};
}

int32_t small_int(const Json& value) {
  return static_cast<int32_t>(std::clamp<int64_t>(value.as_int(-1), -1, kMaxLayers + 1));
}

}  // namespace

const PlannedNode* PlanDesc::find(std::string_view name) const {
  const auto found = std::find_if(nodes.begin(), nodes.end(),
                                  [&](const PlannedNode& node) { return node.name == name; });
  return found == nodes.end() ? nullptr : &*found;
}

Result<void> validate(const PlanDesc& plan) {
  if (plan.layers < 1 || plan.layers > kMaxLayers) {
    return errorf(Code::kInvalidArgument, "a plan of {} layers; 1 to {} are possible", plan.layers,
                  kMaxLayers);
  }
  if (!sane(plan.max_flow.value) || !sane(plan.upper_bound.value)) {
    return errorf(Code::kInvalidArgument, "max_flow {} and upper_bound {} must be 0 or above",
                  plan.max_flow.value, plan.upper_bound.value);
  }
  TRY(check_nodes(plan));
  return check_links(plan);
}

Result<PlanDesc> parse_plan(const Json& tree, std::string_view source) {
  if (tree["schema"].as_int() != 1) {
    return errorf(Code::kInvalidArgument, "{}: schema must be 1 (this build reads no other)",
                  source);
  }
  PlanDesc plan;
  plan.method = tree["method"].as_string();
  plan.model = tree["model"].as_string();
  plan.layers = small_int(tree["layers"]);
  plan.max_flow = TokensPerSec(tree["max_flow"].as_double());
  plan.upper_bound = TokensPerSec(tree["upper_bound"].as_double());
  for (const Json& item : tree["nodes"].items()) {
    plan.nodes.push_back({item["name"].as_string(),
                          {small_int(item["begin"]), small_int(item["end"])},
                          TokensPerSec(item["flow"].as_double())});
  }
  for (const Json& item : tree["links"].items()) {
    plan.links.push_back({item["from"].as_string(), item["to"].as_string(),
                          TokensPerSec(item["flow"].as_double()),
                          TokensPerSec(item["capacity"].as_double()), item["share"].as_double()});
  }
  TRY(validate(plan).context(source));
  return plan;
}

Result<PlanDesc> load_plan(const std::string& path) {
  ASSIGN_OR_RETURN(const Json tree, load_json(path));
  return parse_plan(tree, path);
}

std::string print_plan(const PlanDesc& plan) {
  std::string text = format("schema = 1\nmethod = {}\n", toml_string(plan.method));
  if (!plan.model.empty()) text += format("model = {}\n", toml_string(plan.model));
  text += format("layers = {}\nmax_flow = {}  # tokens/s\nupper_bound = {}\n", plan.layers,
                 toml_number(plan.max_flow.value), toml_number(plan.upper_bound.value));
  for (const PlannedNode& node : plan.nodes) {
    text +=
        format("\n[[nodes]]\nname = {}\nbegin = {}\nend = {}\nflow = {}\n", toml_string(node.name),
               node.layers.begin, node.layers.end, toml_number(node.flow.value));
  }
  for (const PlannedLink& link : plan.links) {
    text += format("\n[[links]]\nfrom = {}\nto = {}\nflow = {}\ncapacity = {}\nshare = {}\n",
                   toml_string(link.from), toml_string(link.to), toml_number(link.flow.value),
                   toml_number(link.capacity.value), toml_number(link.share));
  }
  return text;
}

}  // namespace towline::spec
