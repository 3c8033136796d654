// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/bounds.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>

#include "plan/cover_bound.hpp"

namespace towline::plan {
namespace {

constexpr double kSlack = 1e-12;  // relative: bounds are often attained with equality

// g(u) = max_k k min(T(k), u, cap), in layer-tokens/s.
double layer_tokens(const std::vector<double>& rates, double flow) {
  double best = 0;
  for (size_t k = 1; k <= rates.size(); ++k) {
    best = std::max(best, static_cast<double>(k) * std::min(rates[k - 1], flow));
  }
  return best;
}

// sum of values[node] over nodes; of a machine's alternatives the best subset.
class Supply {
 public:
  explicit Supply(const Instance& instance)
      : instance_(instance), shared_(instance.rates.size(), false) {
    for (const SharedMachine& machine : instance.machines) {
      for (const int32_t node : machine.nodes) shared_[node] = true;
    }
  }

  double sum(const std::vector<double>& values) {
    double total = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      if (!shared_[i]) total += values[i];
    }
    for (const SharedMachine& machine : instance_.machines) {
      best_.assign(static_cast<size_t>(machine.devices) + 1, 0);  // [devices used]
      for (size_t i = 0; i < machine.nodes.size(); ++i) {
        const int32_t need = machine.node_devices[i];
        for (int32_t d = machine.devices; d >= need; --d) {
          best_[d] = std::max(best_[d], best_[d - need] + values[machine.nodes[i]]);
        }
      }
      total += best_.back();
    }
    return total;
  }

 private:
  const Instance& instance_;
  std::vector<bool> shared_;
  std::vector<double> best_;
};

// The largest F in [0, high] for which `reaches` holds, as far as bisection can tell; exact from
// above: `reaches` fails, or high is returned.
template <class Reaches>
double bisect(double high, Reaches reaches) {
  if (reaches(high)) return high;
  double low = 0;
  for (int i = 0; i < 100 && high - low > 1e-13 * high; ++i) {
    const double middle = 0.5 * (low + high);
    (reaches(middle) ? low : high) = middle;
  }
  return high;
}

// Groups of nodes joined by links of at least `flow`: [node] a representative.
// `links` are those between nodes, one a pair.
std::vector<int32_t> near_groups(const std::vector<InstanceLink>& links, size_t nodes,
                                 double flow) {
  std::vector<int32_t> parent(nodes);
  std::iota(parent.begin(), parent.end(), 0);
  const auto root = [&](int32_t node) {
    while (parent[node] != node) node = parent[node] = parent[parent[node]];
    return node;
  };
  for (const InstanceLink& link : links) {
    if (link.capacity >= flow) parent[root(link.from)] = root(link.to);
  }
  for (size_t i = 0; i < parent.size(); ++i) parent[i] = root(static_cast<int32_t>(i));
  return parent;
}

// What links carry into and out of a set of nodes, tokens/s.
struct Carried {
  double in = 0, out = 0;
  double least() const { return std::min(in, out); }
};

class LinkAware {
 public:
  LinkAware(const Instance& instance, bool partial)
      : instance_(instance), partial_(partial), supply_(instance), node_(instance.rates.size()) {
    for (const InstanceLink& link : instance.links) {
      if (link.from >= 0) node_[link.from].out += link.capacity;
      if (link.to >= 0) node_[link.to].in += link.capacity;
      if (link.from < 0 && link.to >= 0) from_source_ += link.capacity;
      if (link.to < 0 && link.from >= 0) to_sink_ += link.capacity;
      if (link.from >= 0 && link.to >= 0) inner_.push_back(link);
    }
    // Links of one pair add up.
    const auto pair_of = [](const InstanceLink& link) { return std::pair(link.from, link.to); };
    std::sort(inner_.begin(), inner_.end(), [&](const InstanceLink& a, const InstanceLink& b) {
      return pair_of(a) < pair_of(b);
    });
    size_t kept = 0;
    for (size_t l = 0; l < inner_.size(); ++l) {
      if (kept > 0 && pair_of(inner_[kept - 1]) == pair_of(inner_[l])) {
        inner_[kept - 1].capacity += inner_[l].capacity;
      } else {
        inner_[kept++] = inner_[l];
      }
    }
    inner_.resize(kept);
    std::map<std::vector<double>, int32_t> kinds;
    for (const std::vector<double>& rates : instance.rates) {
      kind_.push_back(kinds.try_emplace(rates, static_cast<int32_t>(kinds.size())).first->second);
    }
  }

  double ends() const { return std::min(from_source_, to_sink_); }

  bool reaches(double flow) {
    const std::vector<int32_t> groups = near_groups(inner_, node_.size(), flow);
    std::vector<Carried> group(node_.size());
    for (const InstanceLink& link : instance_.links) {
      const int32_t from = link.from < 0 ? -1 : groups[link.from];
      const int32_t to = link.to < 0 ? -1 : groups[link.to];
      if (from == to) continue;
      if (from >= 0) group[from].out += link.capacity;
      if (to >= 0) group[to].in += link.capacity;
    }
    values_.assign(node_.size(), 0);
    limit_.assign(node_.size(), 0);
    for (size_t i = 0; i < node_.size(); ++i) {
      limit_[i] = std::min({flow, node_[i].least(), group[groups[i]].least()});
      values_[i] = layer_tokens(instance_.rates[i], limit_[i]);
    }
    const double needed = flow * instance_.layers * (1 - kSlack);
    const double all = supply_.sum(values_);
    if (all < needed) return false;
    const bool shared = !partial_ && !chain_possible(groups, flow);
    if (shared && all - least_sharing_loss(flow) < needed) return false;
    return coverable(flow, shared);
  }

 private:
  // Nodes of one kind and limit are one resource; so are machines with the same alternatives, whose
  // devices may then be used in parts.
  bool coverable(double flow, bool shared) {
    using Part = std::tuple<int32_t, double, int32_t>;  // (kind, limit, devices)
    std::map<std::vector<Part>, int32_t> rows;
    std::vector<double> supply;
    std::vector<Holder> holders;
    const auto add = [&](const std::vector<int32_t>& nodes, const std::vector<int32_t>& devices,
                         int32_t all) {
      std::vector<Part> key;
      for (size_t i = 0; i < nodes.size(); ++i) {
        key.emplace_back(kind_[nodes[i]], limit_[nodes[i]], devices[i]);
      }
      key.emplace_back(-1, 0, all);
      const auto [row, fresh] = rows.try_emplace(key, static_cast<int32_t>(supply.size()));
      if (fresh) supply.push_back(0);
      supply[row->second] += all;
      for (size_t i = 0; fresh && i < nodes.size(); ++i) {
        const std::vector<double>& rates = instance_.rates[nodes[i]];
        for (size_t k = 1; k <= rates.size(); ++k) {
          const double rate = std::min(rates[k - 1], limit_[nodes[i]]);
          const double use = devices[i] / static_cast<double>(k);
          if (rate > 0) holders.push_back({row->second, use, rate});
        }
      }
    };
    std::vector<bool> part_of_machine(node_.size(), false);
    for (const SharedMachine& machine : instance_.machines) {
      add(machine.nodes, machine.node_devices, machine.devices);
      for (const int32_t node : machine.nodes) part_of_machine[node] = true;
    }
    for (size_t i = 0; i < node_.size(); ++i) {
      if (!part_of_machine[i]) add({static_cast<int32_t>(i)}, {1}, 1);
    }
    return can_cover(supply, holders, flow, instance_.layers, shared ? 1 : 0);
  }

  // Has a group the nodes for a pipeline of single nodes that each pass `flow`?
  bool chain_possible(const std::vector<int32_t>& groups, double flow) {
    std::vector<double> depth(groups.size(), 0);  // layers held at that rate
    for (size_t i = 0; i < groups.size(); ++i) {
      if (limit_[i] < flow * (1 - kSlack)) continue;
      const std::vector<double>& rates = instance_.rates[i];
      for (size_t k = rates.size(); k >= 1 && depth[i] == 0; --k) {
        if (rates[k - 1] >= flow * (1 - kSlack)) depth[i] = static_cast<double>(k);
      }
    }
    std::vector<double> of_group;
    for (size_t g = 0; g < groups.size(); ++g) {
      if (groups[g] != static_cast<int32_t>(g)) continue;
      of_group.assign(groups.size(), 0);
      for (size_t i = 0; i < groups.size(); ++i) {
        if (groups[i] == groups[g]) of_group[i] = depth[i];
      }
      if (supply_.sum(of_group) >= instance_.layers) return true;
    }
    return false;
  }

  // What the supply loses at least when two nodes share the tokens of a layer.
  double least_sharing_loss(double flow) {
    // One node of each kind, two where there are two.
    std::map<std::pair<std::vector<double>, double>, int32_t> kinds;
    std::vector<int32_t> chosen;
    for (size_t i = 0; i < node_.size(); ++i) {
      if (values_[i] <= 0) continue;
      if (++kinds[{instance_.rates[i], limit_[i]}] <= 2) chosen.push_back(static_cast<int32_t>(i));
    }
    double least = 1e300;
    for (size_t a = 0; a < chosen.size(); ++a) {
      for (size_t b = a + 1; b < chosen.size(); ++b) {
        least = std::min(least, sharing_loss(chosen[a], chosen[b], flow));
      }
    }
    return least > 1e299 ? 0 : least;
  }

  // Of nodes i and j with u and flow - u tokens/s. The sum of two piecewise linear functions is
  // greatest where one of them stops rising.
  double sharing_loss(int32_t i, int32_t j, double flow) const {
    double most = 0;
    const auto consider = [&](double u) {
      u = std::clamp(u, 0.0, flow);
      most = std::max(most, layer_tokens(instance_.rates[i], std::min(u, limit_[i])) +
                                layer_tokens(instance_.rates[j], std::min(flow - u, limit_[j])));
    };
    consider(limit_[i]);
    consider(flow - limit_[j]);
    for (const double rate : instance_.rates[i]) consider(rate);
    for (const double rate : instance_.rates[j]) consider(flow - rate);
    return std::max(0.0, values_[i] + values_[j] - most);
  }

  const Instance& instance_;
  const bool partial_;
  Supply supply_;
  std::vector<Carried> node_;        // [node]
  std::vector<int32_t> kind_;        // [node] nodes with the same table have the same
  std::vector<InstanceLink> inner_;  // between nodes, one a pair
  double from_source_ = 0, to_sink_ = 0;
  std::vector<double> limit_;   // [node] most tokens/s that can pass it
  std::vector<double> values_;  // [node] g(limit)
};

}  // namespace

double capacity_bound(const Instance& instance) {
  std::vector<double> values;
  for (const auto& rates : instance.rates) values.push_back(layer_tokens(rates, kMaxRate));
  return Supply(instance).sum(values) / instance.layers;
}

double truncated_capacity_bound(const Instance& instance) {
  Supply supply(instance);
  std::vector<double> values(instance.rates.size());
  return bisect(capacity_bound(instance), [&](double flow) {
    for (size_t i = 0; i < values.size(); ++i) values[i] = layer_tokens(instance.rates[i], flow);
    return supply.sum(values) >= flow * instance.layers * (1 - kSlack);
  });
}

double link_aware_bound(const Instance& instance, bool partial) {
  LinkAware bound(instance, partial);
  const double high = std::min(truncated_capacity_bound(instance), bound.ends());
  return bisect(high, [&](double flow) { return bound.reaches(flow); });
}

}  // namespace towline::plan
