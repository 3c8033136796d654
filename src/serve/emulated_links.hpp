// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// EmulatedLinks: the distances that a scenario puts between its machines, for processes that really
// sit side by side. Each process delays, thins out and loses what it sends itself (net/faults.hpp),
// so both directions are emulated once each; above that, frames still arrive once and in order.
//
// A link is one direction between two processes, "coordinator" being one. Its bandwidth is that
// pair's alone: two pairs of the same two sites do not share it.
#pragma once

#include <map>
#include <string>

#include "base/json.hpp"
#include "net/faults.hpp"
#include "spec/cluster_desc.hpp"
#include "spec/scenario.hpp"

namespace towline::serve {

inline constexpr const char* kCoordinatorName = "coordinator";

class EmulatedLinks {
 public:
  using ByReceiver = std::map<std::string, net::Faults>;

  EmulatedLinks() = default;
  // Those of the scenario's [[links]], which hold both ways; where it says nothing of a pair, those
  // of `cluster`, if not null: its source and its sink are both the coordinator.
  static EmulatedLinks of(const spec::Scenario& scenario, const spec::ClusterDesc* cluster);

  bool empty() const { return links_.empty(); }
  // What this process's sends suffer; pairs without a link are not in it.
  const ByReceiver& from(const std::string& name) const;

  // {"receiver": "delay=50000us,rate=...", ...}: each text is one for net::parse_faults().
  static Json to_json(const ByReceiver& links);

 private:
  std::map<std::string, ByReceiver> links_;
};

}  // namespace towline::serve
