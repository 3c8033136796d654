// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The inputs that plan, replan, flow and cluster share: a cluster, the machines' profile, a model.
#pragma once

#include <string>
#include <vector>

#include "base/options.hpp"
#include "base/result.hpp"
#include "plan/problem.hpp"
#include "spec/model_desc.hpp"

namespace towline::cli {

struct PlanInputs {
  std::string cluster;  // Helix's .ini, or native .toml/.json
  // Helix's machine_profile.ini, and native profiles .json/.toml, one for each kind of machine
  std::vector<std::string> profiles;
  std::string model;      // a built-in profile's name, a model file or a Hugging Face directory
  std::string tables;     // a further native profile
  int largest_group = 0;  // devices in a tensor-parallel group at most; 0: as tables allow

  void add_to(OptionTable& table);
};

struct ProblemAndProfile {
  plan::PlanProblem problem;
  spec::Profile profile;  // that the problem was made with
  double kv_bytes = 0;    // of a token and layer; 0: not known
};

// The shape of a model that may have no tables: a GGUF file, a Hugging
// Face directory or a known name.
struct ShapedModel {
  spec::ModelDesc desc;
  double bytes_per_weight = 2;  // of a layer's matrices
};
Result<ShapedModel> load_shape(const std::string& model);

// Reads them. The model's tables of speeds come from the native files among --profile and from
// --tables, put together; without any, from the built-in profile called --model; failing all, they
// are derived from the model's shape and what is known of the machines (spec/roofline.hpp).
Result<plan::PlanProblem> load_problem(const PlanInputs& inputs);
Result<ProblemAndProfile> load_problem_and_profile(const PlanInputs& inputs);

}  // namespace towline::cli
