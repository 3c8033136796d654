// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/stage_ip.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include "plan/simplex.hpp"

namespace towline::plan {
namespace {

// A kind of node: its table and how many there are.
struct NodeType {
  const std::vector<double>* rates;
  int32_t count = 0;
};

// A multiset of types, as sorted type indices.
using Stage = std::vector<int32_t>;

double rate_of(const NodeType& type, int32_t layers) {
  const auto k = static_cast<size_t>(layers);
  return k <= type.rates->size() ? (*type.rates)[k - 1] : 0;
}

double stage_rate(const Stage& stage, const std::vector<NodeType>& types, int32_t layers) {
  double sum = 0;
  for (const int32_t t : stage) sum += rate_of(types[t], layers);
  return sum;
}

// All multisets of up to `width` types, no type more often than there are nodes of it.
std::vector<Stage> all_stages(const std::vector<NodeType>& types, int32_t width, size_t limit) {
  std::vector<Stage> stages;
  std::vector<Stage> widest = {{}};
  for (int32_t w = 1; w <= width; ++w) {
    std::vector<Stage> wider;
    for (const Stage& stage : widest) {
      const int32_t from = stage.empty() ? 0 : stage.back();
      for (int32_t t = from; t < static_cast<int32_t>(types.size()); ++t) {
        if (std::count(stage.begin(), stage.end(), t) >= types[t].count) continue;
        wider.push_back(stage);
        wider.back().push_back(t);
        if (w > 1 && stages.size() + wider.size() > limit) return stages;
      }
    }
    stages.insert(stages.end(), wider.begin(), wider.end());
    widest = std::move(wider);
  }
  return stages;
}

// The integer programme of one target flow.
class StageProgramme {
 public:
  StageProgramme(const std::vector<NodeType>& types, const std::vector<Stage>& stages,
                 double target, const StageLimits& limits, int32_t layers)
      : types_(types), layers_(layers), branches_left_(limits.max_branches) {
    int32_t deepest = 0;
    for (const NodeType& type : types) {
      deepest = std::max(deepest, static_cast<int32_t>(type.rates->size()));
    }
    for (const Stage& stage : stages) {
      for (int32_t k = std::min(deepest, layers); k >= 1; --k) {
        if (stage_rate(stage, types, k) < target * (1 - 1e-12)) continue;
        columns_.push_back({stage, k, {}});
        columns_.back().use.assign(types.size(), 0);
        for (const int32_t t : stage) columns_.back().use[t] += 1;
        break;
      }
    }
  }

  // Stage depths that sum to at least L: (stage, depth) repeated; empty if none were found.
  std::vector<std::pair<Stage, int32_t>> solve() {
    std::vector<double> left;
    for (const NodeType& type : types_) left.push_back(type.count);
    chosen_.assign(columns_.size(), 0);
    most_.assign(columns_.size(), -1);
    if (!branch(left, 0)) return {};
    std::vector<std::pair<Stage, int32_t>> result;
    for (size_t c = 0; c < columns_.size(); ++c) {
      for (int32_t i = 0; i < chosen_[c]; ++i) {
        result.emplace_back(columns_[c].stage, columns_[c].depth);
      }
    }
    return result;
  }

 private:
  struct Column {
    Stage stage;
    int32_t depth;
    std::vector<double> use;  // [type]
  };

  // Are there stages of depth L - depth among the nodes `left`? On success chosen_ holds them.
  bool branch(const std::vector<double>& left, int32_t depth) {
    if (depth >= layers_) return true;
    if (--branches_left_ < 0) return false;
    std::vector<size_t> capped;
    for (size_t c = 0; c < columns_.size(); ++c) {
      if (most_[c] > 0) capped.push_back(c);
    }
    std::vector<double> limits = left;
    for (const size_t c : capped) limits.push_back(most_[c]);
    Simplex lp(limits);
    std::vector<size_t> column_of;
    std::vector<double> use(limits.size());
    for (size_t c = 0; c < columns_.size(); ++c) {
      const Column& column = columns_[c];
      bool fits = most_[c] != 0;
      for (size_t t = 0; t < left.size(); ++t) fits &= column.use[t] <= left[t];
      if (!fits) continue;
      std::copy(column.use.begin(), column.use.end(), use.begin());
      for (size_t i = 0; i < capped.size(); ++i) use[left.size() + i] = capped[i] == c ? 1 : 0;
      lp.add_column(column.depth, use);
      column_of.push_back(c);
    }
    const bool solved = lp.solve();
    if (solved && std::floor(lp.value() + 1e-6) + depth < layers_) return false;
    return branch_on(lp.solution(), column_of, left, depth);
  }

  // Takes the whole part of the fractional solution first, then one column up, then that one down.
  bool branch_on(const std::vector<double>& x, const std::vector<size_t>& column_of,
                 std::vector<double> left, int32_t depth) {
    const std::vector<int32_t> before = chosen_;
    const std::vector<double> left_before = left;
    int32_t reached = depth;
    for (size_t j = 0; j < x.size(); ++j) {
      take(column_of[j], std::floor(x[j] + 1e-6), left, reached);
    }
    if (reached >= layers_) return true;
    size_t most = x.size();
    double fraction = 1e-6;
    for (size_t j = 0; j < x.size(); ++j) {
      const double part = x[j] - std::floor(x[j] + 1e-6);
      if (part > fraction) {
        fraction = part;
        most = j;
      }
    }
    if (most < x.size()) {
      const size_t c = column_of[most];
      const std::vector<int32_t> whole = chosen_;
      std::vector<double> fewer = left;
      int32_t deeper = reached;
      if (take(c, 1, fewer, deeper) && branch(fewer, deeper)) return true;
      chosen_ = before;
      const int32_t most_before = most_[c];
      most_[c] = static_cast<int32_t>(std::floor(x[most] + 1e-6));
      if (branch(left_before, depth)) return true;
      most_[c] = most_before;
    }
    chosen_ = before;
    return false;
  }

  bool take(size_t c, double times, std::vector<double>& left, int32_t& depth) {
    for (size_t t = 0; t < left.size(); ++t) {
      if (columns_[c].use[t] * times > left[t] + 1e-9) return false;
    }
    for (size_t t = 0; t < left.size(); ++t) left[t] -= columns_[c].use[t] * times;
    chosen_[c] += static_cast<int32_t>(times);
    depth += static_cast<int32_t>(times) * columns_[c].depth;
    return true;
  }

  const std::vector<NodeType>& types_;
  const int32_t layers_;
  int32_t branches_left_;
  std::vector<Column> columns_;
  std::vector<int32_t> chosen_;  // [column] times taken
  std::vector<int32_t> most_;    // [column] at most so many more; -1: any number
};

std::vector<double> candidate_flows(const std::vector<NodeType>& types,
                                    const std::vector<Stage>& stages, int32_t layers) {
  std::vector<double> flows;
  for (const Stage& stage : stages) {
    for (int32_t k = 1; k <= layers; ++k) {
      const double rate = stage_rate(stage, types, k);
      if (rate > 0) flows.push_back(rate);
    }
  }
  std::sort(flows.begin(), flows.end());
  flows.erase(std::unique(flows.begin(), flows.end()), flows.end());
  return flows;
}

// Lowers depths so that they sum to exactly L while every stage still passes `flow` (T(k) may fall
// and rise again, so not every smaller depth will do) or is dropped (depth 0).
std::vector<int32_t> trim(const std::vector<std::pair<Stage, int32_t>>& stages,
                          const std::vector<NodeType>& types, double flow, int32_t layers) {
  // from[s][sum]: the depth of stage s that leads from sum - depth to sum; -1: sum not reached.
  std::vector<std::vector<int32_t>> from(stages.size(), std::vector<int32_t>(layers + 1, -1));
  std::vector<int32_t> reached = {0};
  for (size_t s = 0; s < stages.size(); ++s) {
    for (int32_t depth = stages[s].second; depth >= 0; --depth) {
      if (depth > 0 && stage_rate(stages[s].first, types, depth) < flow * (1 - 1e-12)) continue;
      for (const int32_t sum : reached) {
        if (sum + depth <= layers && from[s][sum + depth] < 0) from[s][sum + depth] = depth;
      }
    }
    reached.clear();
    for (int32_t sum = 0; sum <= layers; ++sum) {
      if (from[s][sum] >= 0) reached.push_back(sum);
    }
  }
  std::vector<int32_t> depths(stages.size(), 0);
  if (stages.empty() || from.back()[layers] < 0) return {};
  int32_t sum = layers;
  for (size_t s = stages.size(); s-- > 0;) {
    depths[s] = from[s][sum];
    sum -= depths[s];
  }
  return depths;
}

}  // namespace

std::vector<int32_t> node_types(const Instance& instance, std::span<const int32_t> nodes) {
  std::map<std::vector<double>, int32_t> known;
  std::vector<int32_t> types;
  for (const int32_t node : nodes) {
    types.push_back(
        known.emplace(instance.rates[node], static_cast<int32_t>(known.size())).first->second);
  }
  return types;
}

StagePlan best_stages(const Instance& instance, std::span<const int32_t> nodes,
                      const StageLimits& limits) {
  const std::vector<int32_t> type_of = node_types(instance, nodes);
  std::vector<NodeType> types;
  std::vector<std::vector<int32_t>> members;
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (type_of[i] == static_cast<int32_t>(types.size())) {
      types.push_back({&instance.rates[nodes[i]], 0});
      members.emplace_back();
    }
    ++types[type_of[i]].count;
    members[type_of[i]].push_back(nodes[i]);
  }
  const std::vector<Stage> stages =
      all_stages(types, limits.max_width, static_cast<size_t>(limits.max_columns));
  const std::vector<double> flows = candidate_flows(types, stages, instance.layers);

  std::vector<std::pair<Stage, int32_t>> best;
  std::vector<int32_t> depths;
  double best_flow = 0;
  size_t low = 0;  // flows[0..low) are known to be reachable
  size_t high = flows.size();
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    auto found = StageProgramme(types, stages, flows[middle], limits, instance.layers).solve();
    auto trimmed = trim(found, types, flows[middle], instance.layers);
    if (trimmed.empty()) {
      high = middle;
    } else {
      best = std::move(found);
      depths = std::move(trimmed);
      best_flow = flows[middle];
      low = middle + 1;
    }
  }
  StagePlan plan;
  plan.flow = best_flow;
  int32_t begin = 0;
  for (size_t s = 0; s < depths.size(); ++s) {
    if (depths[s] == 0) continue;
    plan.ranges.push_back({begin, begin + depths[s]});
    begin += depths[s];
    plan.stages.emplace_back();
    for (const int32_t t : best[s].first) {
      plan.stages.back().push_back(members[t].back());
      members[t].pop_back();
    }
  }
  return plan;
}

Placement place(const StagePlan& plan, const Instance& instance) {
  Placement placement;
  placement.nodes.resize(instance.rates.size());
  for (size_t s = 0; s < plan.stages.size(); ++s) {
    for (const int32_t node : plan.stages[s]) placement.nodes[node] = plan.ranges[s];
  }
  return placement;
}

}  // namespace towline::plan
