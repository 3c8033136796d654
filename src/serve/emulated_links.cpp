// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/emulated_links.hpp"

#include <vector>

namespace towline::serve {
namespace {

Duration duration_of(Seconds s) { return Duration(static_cast<int64_t>(s.value * 1e9)); }

}  // namespace

EmulatedLinks EmulatedLinks::of(const spec::Scenario& scenario, const spec::ClusterDesc* cluster) {
  EmulatedLinks out;
  if (cluster != nullptr) {
    for (const spec::ClusterLink& link : cluster->links) {
      const auto name = [&](int32_t end) {
        return end < 0 ? std::string(kCoordinatorName)
                       : cluster->nodes[static_cast<size_t>(end)].name;
      };
      net::Faults faults;
      faults.delay = duration_of(link.latency);
      faults.bytes_per_second = link.bandwidth.value;
      if (faults.any()) out.links_[name(link.from)][name(link.to)] = faults;
    }
  }
  if (scenario.links.empty()) return out;
  std::vector<std::string> names = {kCoordinatorName};
  for (const spec::ScenarioWorker& worker : scenario.workers) names.push_back(worker.name);
  for (const std::string& from : names) {
    for (const std::string& to : names) {
      const spec::ScenarioLink* link = from == to ? nullptr : scenario.link_between(from, to);
      if (link == nullptr) continue;
      net::Faults faults;
      faults.delay = duration_of(link->latency);
      faults.jitter = duration_of(link->jitter);
      faults.bytes_per_second = link->bandwidth.value;
      faults.loss = link->loss;
      faults.duplicate = link->duplicate;
      faults.reorder = link->reorder;
      faults.corrupt = link->corrupt;
      faults.cut = link->cut;
      faults.seed = static_cast<uint64_t>(link->seed);
      if (faults.any()) {
        out.links_[from][to] = faults;
      } else if (const auto at = out.links_.find(from); at != out.links_.end()) {
        at->second.erase(to);  // the scenario takes away what the cluster file says
      }
    }
  }
  return out;
}

const EmulatedLinks::ByReceiver& EmulatedLinks::from(const std::string& name) const {
  static const ByReceiver kNone;
  const auto at = links_.find(name);
  return at == links_.end() ? kNone : at->second;
}

Json EmulatedLinks::to_json(const ByReceiver& links) {
  Json out = Json::object({});
  for (const auto& [receiver, faults] : links) out.set(receiver, net::to_string(faults));
  return out;
}

}  // namespace towline::serve
