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

}  // namespace

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

namespace {

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

// Adds the device tables of `path`, which must be of the same model.
Result<void> add_tables(const std::string& path, const std::string& first, spec::Profile& profile) {
  ASSIGN_OR_RETURN(spec::Profile more, spec::load_profile(path));
  if (profile.devices.empty()) {
    profile = std::move(more);
    return {};
  }
  const spec::ModelShape& a = profile.model;
  const spec::ModelShape& b = more.model;
  const double ratio = static_cast<double>(b.layer_bytes.value) /
                       std::max(1.0, static_cast<double>(a.layer_bytes.value));
  // Kernels may lay the same weights out a little differently on another machine.
  const bool same = a.name == b.name && a.layers == b.layers && a.token_bytes == b.token_bytes &&
                    a.activation_bytes == b.activation_bytes && ratio > 0.9 && ratio < 1.1;
  if (!same) {
    return errorf(Code::kInvalidArgument,
                  "'{}' is for '{}' ({} layers of {} bytes), '{}' for '{}' ({} layers of {} "
                  "bytes); profiles that are used together must be of one model",
                  first, a.name, a.layers, a.layer_bytes.value, path, b.name, b.layers,
                  b.layer_bytes.value);
  }
  profile.model.layer_bytes = std::max(a.layer_bytes, b.layer_bytes);
  for (spec::DeviceProfile& device : more.devices) {
    if (profile.find(device.type) != nullptr) {
      return errorf(Code::kInvalidArgument,
                    "'{}' measures the machine type '{}', which an earlier profile measures too; "
                    "leave one out, or give each kind of machine its own name (towline profile "
                    "--type)",
                    path, device.type);
    }
    profile.devices.push_back(std::move(device));
  }
  return {};
}

// --model beside tables names the model that they are of, or is a file of it.
Result<void> check_model(const PlanInputs& inputs, const std::string& path,
                         ProblemAndProfile& loaded) {
  const spec::ModelShape& tables = loaded.profile.model;
  if (inputs.model.empty() || inputs.model == tables.name) return {};
  std::error_code ignored;
  if (!std::filesystem::exists(inputs.model, ignored)) {
    return errorf(Code::kInvalidArgument,
                  "the tables of '{}' are for the model '{}', not for '{}'; give tables of that "
                  "model or leave --model out",
                  path, tables.name, inputs.model);
  }
  ASSIGN_OR_RETURN(const ShapedModel model, load_shape(inputs.model));
  // Workers may send activations as 2 or 4 bytes each.
  const int64_t activation = spec::shape_of(model.desc).activation_bytes.value;
  const bool fits = tables.activation_bytes.value == activation ||
                    tables.activation_bytes.value == 2 * activation;
  if (model.desc.layers != tables.layers || !fits) {
    return errorf(Code::kInvalidArgument,
                  "the tables of '{}' are for a model of {} layers and {} bytes of activation a "
                  "token; '{}' has {} and {}; give tables of that model",
                  path, tables.layers, tables.activation_bytes.value, inputs.model,
                  model.desc.layers, activation);
  }
  loaded.kv_bytes = static_cast<double>(model.desc.kv_bytes_per_token_layer().value);
  return {};
}

// Sets the profile, and the bytes of KV where they are known.
Result<void> load_tables(const PlanInputs& inputs, const spec::ClusterDesc& cluster,
                         ProblemAndProfile& loaded) {
  std::vector<std::string> paths;
  for (const std::string& path : inputs.profiles) {
    if (is_native(path)) paths.push_back(path);
  }
  if (!inputs.tables.empty()) paths.push_back(inputs.tables);
  const auto known_kv = [&](const std::string& name) {
    const Result<spec::ModelDesc> shape = spec::model_shape(name);
    if (shape) loaded.kv_bytes = static_cast<double>(shape->kv_bytes_per_token_layer().value);
  };
  if (!paths.empty()) {
    for (const std::string& path : paths) TRY(add_tables(path, paths.front(), loaded.profile));
    known_kv(loaded.profile.model.name);
    return check_model(inputs, paths.front(), loaded);
  }
  if (inputs.model.empty()) {
    return Error(Code::kInvalidArgument,
                 "no model: give --model llama2-70b (or another built-in name), a GGUF file, a "
                 "Hugging Face directory, or a profile with tables");
  }
  if (has_tables(inputs.model)) {
    ASSIGN_OR_RETURN(loaded.profile, spec::builtin_profile(inputs.model));
    known_kv(inputs.model);
    return {};
  }
  ASSIGN_OR_RETURN(const ShapedModel model, load_shape(inputs.model));
  loaded.kv_bytes = static_cast<double>(model.desc.kv_bytes_per_token_layer().value);
  ASSIGN_OR_RETURN(loaded.profile,
                   spec::roofline_profile(model.desc, cluster, model.bytes_per_weight,
                                          inputs.largest_group > 0 ? inputs.largest_group : 8));
  return {};
}

// The one machine_profile.ini among --profile, or "".
Result<std::string> machines_file(const PlanInputs& inputs) {
  std::string machines;
  for (const std::string& path : inputs.profiles) {
    if (is_native(path)) continue;
    if (!machines.empty()) {
      return errorf(Code::kInvalidArgument,
                    "--profile '{}' and '{}': only one machine_profile.ini describes the machines; "
                    "further profiles are native files (.toml, .json)",
                    machines, path);
    }
    machines = path;
  }
  return machines;
}

}  // namespace

void PlanInputs::add_to(OptionTable& table) {
  table.value("cluster", &cluster, "cluster: native .toml or .json, or Helix's .ini")
      .metavar("FILE");
  table
      .value("profile", &profiles,
             "machines: Helix's machine_profile.ini, or native profiles with tables of speeds (of "
             "towline profile), one for each kind of machine")
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
  table.value("tables", &tables, "a further native profile (the same as another --profile)")
      .metavar("FILE");
}

Result<ProblemAndProfile> load_problem_and_profile(const PlanInputs& inputs) {
  if (inputs.cluster.empty()) {
    return Error(Code::kInvalidArgument, "no cluster: give --cluster FILE (or --instance FILE)");
  }
  ASSIGN_OR_RETURN(const std::string machines, machines_file(inputs));
  ASSIGN_OR_RETURN(spec::ClusterDesc cluster, spec::load_any_cluster(inputs.cluster, machines));
  ProblemAndProfile loaded;
  TRY(load_tables(inputs, cluster, loaded));
  if (inputs.largest_group > 0) limit_groups(loaded.profile, cluster, inputs.largest_group);
  ASSIGN_OR_RETURN(loaded.problem,
                   plan::make_problem(std::move(cluster), loaded.profile).context(inputs.cluster));
  return loaded;
}

Result<plan::PlanProblem> load_problem(const PlanInputs& inputs) {
  ASSIGN_OR_RETURN(ProblemAndProfile loaded, load_problem_and_profile(inputs));
  return std::move(loaded.problem);
}

}  // namespace towline::cli
