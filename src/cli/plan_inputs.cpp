// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/plan_inputs.hpp"

#include <algorithm>
#include <filesystem>

#include "base/fmt.hpp"
#include "engine/format/model_file.hpp"
#include "spec/model_shapes.hpp"
#include "spec/roofline.hpp"

namespace towline::cli {
namespace {

bool is_native(const std::string& path) {
  return path.ends_with(".toml") || path.ends_with(".json");
}

// The shape of a model that has no tables: a GGUF file, a Hugging Face directory or a known name.
struct ShapedModel {
  spec::ModelDesc desc;
  double bytes_per_weight = 2;  // of a layer's matrices
};

Result<ShapedModel> load_shape(const std::string& model) {
  std::error_code ignored;
  if (!std::filesystem::exists(model, ignored)) {
    Result<spec::ModelDesc> known = spec::model_shape(model);
    if (known) return ShapedModel{*std::move(known)};
    std::string tables;
    for (const std::string& name : spec::builtin_models()) tables += " " + name;
    return errorf(Code::kNotFound,
                  "--model '{}': no such file or directory; names with measured tables are{}; {}",
                  model, tables, known.error().message());
  }
  ASSIGN_OR_RETURN(const engine::ModelFile file, engine::ModelFile::open(model));
  ShapedModel shaped{file.desc()};
  int64_t bytes = 0;
  for (const engine::Tensor& tensor : file.tensors()) {
    if (tensor.name.starts_with("blk.")) bytes += tensor.bytes();
  }
  const double parameters =
      static_cast<double>(shaped.desc.layer_parameters()) * shaped.desc.layers;
  if (bytes > 0 && parameters > 0) {
    shaped.bytes_per_weight = static_cast<double>(bytes) / parameters;
  }
  return shaped;
}

bool has_tables(const std::string& model) {
  const std::vector<std::string> names = spec::builtin_models();
  return std::find(names.begin(), names.end(), model) != names.end();
}

// Tables of tensor-parallel groups of more devices than wanted go; types of machines stay.
void limit_groups(spec::Profile& profile, const spec::ClusterDesc& cluster, int32_t largest) {
  std::erase_if(profile.devices, [&](const spec::DeviceProfile& device) {
    for (const spec::MachineType& type : cluster.types) {
      if (device.type == type.name) return false;
    }
    for (const spec::MachineType& type : cluster.types) {
      for (int32_t g = 2; g <= largest; ++g) {
        if (device.type == format("{}x{}", type.name, g)) return false;
      }
    }
    return true;
  });
}

Result<spec::Profile> load_tables(const PlanInputs& inputs, const spec::ClusterDesc& cluster) {
  const std::string path = !inputs.tables.empty()      ? inputs.tables
                           : is_native(inputs.profile) ? inputs.profile
                                                       : "";
  if (path.empty()) {
    if (inputs.model.empty()) {
      return Error(Code::kInvalidArgument,
                   "no model: give --model llama2-70b (or another built-in name), a GGUF file, a "
                   "Hugging Face directory, or a profile with tables");
    }
    if (has_tables(inputs.model)) return spec::builtin_profile(inputs.model);
    ASSIGN_OR_RETURN(const ShapedModel model, load_shape(inputs.model));
    return spec::roofline_profile(model.desc, cluster, model.bytes_per_weight,
                                  inputs.largest_group > 0 ? inputs.largest_group : 8);
  }
  ASSIGN_OR_RETURN(spec::Profile profile, spec::load_profile(path));
  if (inputs.model.empty() || inputs.model == profile.model.name) return profile;
  std::error_code ignored;
  if (!std::filesystem::exists(inputs.model, ignored)) {
    return errorf(Code::kInvalidArgument,
                  "the tables of '{}' are for the model '{}', not for '{}'; give tables of that "
                  "model or leave --model out",
                  path, profile.model.name, inputs.model);
  }
  ASSIGN_OR_RETURN(const ShapedModel model, load_shape(inputs.model));
  if (model.desc.layers != profile.model.layers ||
      spec::shape_of(model.desc).activation_bytes != profile.model.activation_bytes) {
    return errorf(Code::kInvalidArgument,
                  "the tables of '{}' are for a model of {} layers and {} bytes of activation a "
                  "token; '{}' has {} and {}; give tables of that model",
                  path, profile.model.layers, profile.model.activation_bytes.value, inputs.model,
                  model.desc.layers, spec::shape_of(model.desc).activation_bytes.value);
  }
  return profile;
}

}  // namespace

void PlanInputs::add_to(OptionTable& table) {
  table.value("cluster", &cluster, "cluster: native .toml or .json, or Helix's .ini")
      .metavar("FILE");
  table
      .value("profile", &profile,
             "machines: Helix's machine_profile.ini, or a native profile with tables of speeds")
      .metavar("FILE");
  table
      .value("model", &model,
             "llama1-30b or llama2-70b (measured tables), another known model, a GGUF file or a "
             "Hugging Face directory (tables from each machine's arithmetic and bandwidth)")
      .metavar("MODEL");
  table
      .value("tensor-parallel", &largest_group,
             "most devices of a machine that work as one group; 0: every size there are tables for")
      .range(0, 1024);
  table.value("tables", &tables, "tables of speeds (native profile) beside a machine_profile.ini")
      .metavar("FILE");
}

Result<ProblemAndProfile> load_problem_and_profile(const PlanInputs& inputs) {
  if (inputs.cluster.empty()) {
    return Error(Code::kInvalidArgument, "no cluster: give --cluster FILE (or --instance FILE)");
  }
  const std::string machines = is_native(inputs.profile) ? "" : inputs.profile;
  ASSIGN_OR_RETURN(spec::ClusterDesc cluster, spec::load_any_cluster(inputs.cluster, machines));
  ASSIGN_OR_RETURN(spec::Profile profile, load_tables(inputs, cluster));
  if (inputs.largest_group > 0) limit_groups(profile, cluster, inputs.largest_group);
  ASSIGN_OR_RETURN(plan::PlanProblem problem,
                   plan::make_problem(std::move(cluster), profile).context(inputs.cluster));
  return ProblemAndProfile{std::move(problem), std::move(profile)};
}

Result<plan::PlanProblem> load_problem(const PlanInputs& inputs) {
  ASSIGN_OR_RETURN(ProblemAndProfile loaded, load_problem_and_profile(inputs));
  return std::move(loaded.problem);
}

}  // namespace towline::cli
