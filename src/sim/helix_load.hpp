// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Fills the input of the Helix mode (sim/helix_input.hpp) from Helix's
// files and the workload lists.
#pragma once

#include <string>

#include "base/result.hpp"
#include "sim/helix_input.hpp"
#include "spec/helix_plan.hpp"
#include "spec/profile.hpp"

namespace towline::sim {

struct HelixFiles {
  std::string simulator_cluster;  // simulator_cluster.ini
  std::string solution;           // *_sol.ini
  std::string model;              // "llama2-70b", "llama1-30b", or a profile file
  std::string profile_dir;        // <model>/<gpu>/{prompt,decode}_bs2time.csv; empty: built in
  std::string flows;              // JSON with "max_flow" and "edges"; empty: solve
  // "A100=4,L4=8": the machines that T(k) is derived for; empty: those of the cluster file. Some
  // published files leave out the machines that the plan does not use.
  std::string machines;
};

// The cluster, the profile and, if `with_flow`, the planned flow.
Result<HelixInput> load_helix_input(const HelixFiles& files, bool with_flow);

// The same from values, without the flow. An empty `mix`: the machines of the cluster.
Result<HelixInput> make_helix_input(const spec::HelixSimCluster& cluster,
                                    const spec::HelixSolution& solution,
                                    const spec::Profile& profile, spec::MachineMix mix);

// Plans the flow of every link (sim/push_relabel.hpp) and sets max_flow.
void plan_flow(HelixInput& input);

// CSV: a header "input_tokens,output_tokens", then one pair a line, both 1..10^7.
Result<std::vector<std::pair<int32_t, int32_t>>> load_lengths(const std::string& path);
// CSV: a header, then the number of requests in one bin of 3 s a line.
Result<std::vector<double>> load_arrival_bins(const std::string& path);

}  // namespace towline::sim
