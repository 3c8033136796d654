// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// towline model quantize, towline model make-dummy: the commands that write model files
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "base/fmt.hpp"
#include "cli/commands.hpp"
#include "cli/progress.hpp"
#include "engine/format/convert_model.hpp"
#include "engine/format/dummy_model.hpp"
#include "spec/model_shapes.hpp"

namespace towline::cli {
namespace {

int default_threads() { return std::max(1, static_cast<int>(std::thread::hardware_concurrency())); }

// An existing output is replaced only with --force: models are large and slow to get back.
Result<void> check_output(const std::string& path, bool force) {
  std::error_code ignored;
  if (!force && std::filesystem::exists(path, ignored)) {
    return errorf(Code::kAlreadyExists, "'{}' exists; --force replaces it", path);
  }
  return {};
}

Result<int64_t> size_of(const std::string& path) {
  std::error_code error;
  const auto bytes = std::filesystem::file_size(path, error);
  if (error) return errorf(Code::kIo, "cannot read the size of '{}': {}", path, error.message());
  return static_cast<int64_t>(bytes);
}

// ---- model quantize ----

struct QuantizeOptions {
  std::string model, type, out;
  int threads = default_threads();
  bool force = false, progress = false, json = false;
};

OptionTable quantize_table(QuantizeOptions& o) {
  OptionTable t("model quantize", "Write a model as a GGUF file of another type.");
  t.describe(
      "Reads a GGUF file or a Hugging Face directory; keeps the metadata and the tokenizer. Norms "
      "stay f32, and the output matrix and rows that a block does not divide get a finer type, as "
      "is usual for files of these names.");
  t.positional("model", &o.model, "GGUF file (the first, if sharded) or Hugging Face directory")
      .required();
  t.value("type", &o.type, "one of " + engine::quant_recipe_names()).required().metavar("TYPE");
  t.value("out", &o.out, "file to write").required().metavar("FILE");
  t.value("threads", &o.threads, "threads").range(1, 256);
  t.flag("force", &o.force, "replace an existing file");
  t.flag("progress", &o.progress, "report progress even if stderr is not a terminal");
  t.flag("json", &o.json, "print JSON");
  t.example("towline model quantize model-f16.gguf --type q4_k_m --out model-q4_k_m.gguf");
  t.example("towline model quantize ./Llama-3.2-1B --type q8_0 --out llama-q8_0.gguf");
  return t;
}

int64_t tensor_bytes(const engine::ModelFile& model) {
  int64_t bytes = 0;
  for (const engine::Tensor& t : model.tensors()) bytes += t.bytes();
  return bytes;
}

Result<int> run_quantize(std::span<const std::string> args) {
  QuantizeOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, quantize_table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  ASSIGN_OR_RETURN(const engine::QuantRecipe recipe, engine::quant_recipe(o.type));
  TRY(check_output(o.out, o.force));
  ASSIGN_OR_RETURN(const engine::ModelFile model, engine::ModelFile::open(o.model));
  TRY(model.check({0, model.desc().layers}));
  {
    Progress bar("writing " + o.out, o.progress);
    const engine::WriteOptions options{
        o.threads, [&](int64_t done, int64_t total) { bar.report(done, total); }};
    TRY(engine::convert_model(model, recipe, o.out, options).context(o.model));
  }
  ASSIGN_OR_RETURN(const int64_t bytes, size_of(o.out));
  const int64_t before = tensor_bytes(model);
  if (o.json) {
    const Json json = Json::object({{"path", o.out},
                                    {"type", recipe.name},
                                    {"bytes", bytes},
                                    {"weight_bytes_before", before}});
    std::puts(json.dump().c_str());
  } else {
    std::puts(format("{}: {}, {} ({} of weights before)", o.out, recipe.name, format_bytes(bytes),
                     format_bytes(before))
                  .c_str());
  }
  return 0;
}

// ---- model make-dummy ----

struct DummyOptions {
  std::string shape, type = "q4_0", out;
  int layers = 0;
  int64_t seed = 1;
  int threads = default_threads();
  bool force = false, progress = false, json = false;
};

OptionTable dummy_table(DummyOptions& o) {
  OptionTable t("model make-dummy", "Write a GGUF file of a given shape with random weights.");
  t.describe(
      "For measuring speed and memory without a download: the file has the size, the tensor types "
      "and the tokenizer keys of an ordinary one, but it writes nonsense.");
  std::string shapes;
  for (const std::string_view name : spec::model_shape_names()) {
    shapes += (shapes.empty() ? "" : ", ") + std::string(name);
  }
  t.value("shape", &o.shape, "one of " + shapes).required().metavar("NAME");
  t.value("type", &o.type, "one of " + engine::quant_recipe_names()).metavar("TYPE");
  t.value("out", &o.out, "file to write").required().metavar("FILE");
  t.value("layers", &o.layers, "write this many layers; 0: as many as the shape has")
      .range(0, 4096);
  t.value("seed", &o.seed, "equal seeds give equal bytes");
  t.value("threads", &o.threads, "threads").range(1, 256);
  t.flag("force", &o.force, "replace an existing file");
  t.flag("progress", &o.progress, "report progress even if stderr is not a terminal");
  t.flag("json", &o.json, "print JSON");
  t.example("towline model make-dummy --shape llama-3.2-1b --type q4_0 --out dummy.gguf");
  t.example("towline model make-dummy --shape llama2-70b --layers 4 --type q4_k_m --out part.gguf");
  return t;
}

Result<int> run_dummy(std::span<const std::string> args) {
  DummyOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, dummy_table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  ASSIGN_OR_RETURN(spec::ModelDesc desc, spec::model_shape(o.shape));
  ASSIGN_OR_RETURN(const engine::QuantRecipe recipe, engine::quant_recipe(o.type));
  TRY(check_output(o.out, o.force));
  if (o.layers > 0) desc.layers = o.layers;
  desc.name += " (dummy)";
  {
    Progress bar("writing " + o.out, o.progress);
    const engine::WriteOptions options{
        o.threads, [&](int64_t done, int64_t total) { bar.report(done, total); }};
    TRY(engine::make_dummy_model(desc, recipe, static_cast<uint64_t>(o.seed), o.out, options));
  }
  ASSIGN_OR_RETURN(const int64_t bytes, size_of(o.out));
  if (o.json) {
    std::puts(
        Json::object({{"path", o.out}, {"bytes", bytes}, {"type", recipe.name}}).dump().c_str());
  } else {
    std::puts(format("{}: {}, {} layers, {}", o.out, desc.name, desc.layers, format_bytes(bytes))
                  .c_str());
  }
  return 0;
}

}  // namespace

const Command kModelQuantize = {"model quantize", "write a model as a GGUF file of another type",
                                run_quantize, [](void (*sink)(const OptionTable&)) {
                                  QuantizeOptions o;
                                  sink(quantize_table(o));
                                }};

const Command kModelMakeDummy = {"model make-dummy", "write a model of random weights", run_dummy,
                                 [](void (*sink)(const OptionTable&)) {
                                   DummyOptions o;
                                   sink(dummy_table(o));
                                 }};

}  // namespace towline::cli
