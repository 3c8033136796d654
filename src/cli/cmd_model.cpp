// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// towline model info, towline model check: the commands that only read
#include <algorithm>
#include <array>
#include <cstdio>
#include <thread>

#include "base/fmt.hpp"
#include "cli/commands.hpp"
#include "cli/progress.hpp"
#include "engine/format/convert_model.hpp"
#include "engine/format/model_file.hpp"

namespace towline::cli {
namespace {

using engine::DType;
using engine::ModelFile;
using engine::Tensor;
using spec::ModelDesc;

// ---- model info ----

struct InfoOptions {
  std::string model;
  bool json = false;
  bool tensors = false;
};

OptionTable info_table(InfoOptions& o) {
  OptionTable t("model info", "Show what a model file holds: shape, types, sizes, tokenizer.");
  t.positional("model", &o.model, "GGUF file (the first, if sharded) or Hugging Face directory")
      .required();
  t.flag("json", &o.json, "print JSON");
  t.flag("tensors", &o.tensors, "list every tensor");
  t.example("towline model info model.gguf");
  t.example("towline model info model.gguf --json --tensors");
  return t;
}

struct TypeTotal {
  int64_t tensors = 0, bytes = 0;
};

struct Totals {
  std::array<TypeTotal, engine::kDTypeCount> types;
  int64_t parameters = 0, bytes = 0;
};

Totals add_up(const ModelFile& model) {
  Totals totals;
  for (const Tensor& t : model.tensors()) {
    TypeTotal& type = totals.types[static_cast<size_t>(t.dtype)];
    ++type.tensors;
    type.bytes += t.bytes();
    totals.bytes += t.bytes();
    totals.parameters += t.rows * t.cols;
  }
  return totals;
}

std::string tokenizer_kind(const ModelFile& model) {
  if (model.is_directory()) {
    const Result<Json> file = model.side_file("tokenizer.json");
    if (!file) return "none (no readable tokenizer.json)";
    return "tokenizer.json, " + (*file)["model"]["type"].as_string_or("unknown");
  }
  const auto* kind = std::get_if<std::string_view>(&model.meta("tokenizer.ggml.model"));
  const auto* pre = std::get_if<std::string_view>(&model.meta("tokenizer.ggml.pre"));
  if (kind == nullptr) return "none";
  return std::string(*kind) + (pre != nullptr ? " (" + std::string(*pre) + ")" : "");
}

std::string rope_text(const ModelDesc& d) {
  std::string text = format(
      "{} of {} dimensions, base {}, {}", d.rope_dim, d.head_dim, d.rope_theta,
      d.rope_pairing == spec::RopePairing::kInterleaved ? "interleaved pairs" : "half-split pairs");
  switch (d.rope_scaling) {
    case spec::RopeScaling::kNone: break;
    case spec::RopeScaling::kLinear: text += format(", stretched {}x", d.rope_factor); break;
    case spec::RopeScaling::kLlama3: text += format(", llama3 scaling {}x", d.rope_factor); break;
    case spec::RopeScaling::kTable: text += ", scaled by a table"; break;
  }
  return text;
}

Json info_json(const ModelFile& model, bool list_tensors) {
  const ModelDesc& d = model.desc();
  const Totals totals = add_up(model);
  Json types = Json::object();
  for (int i = 0; i < engine::kDTypeCount; ++i) {
    const TypeTotal& total = totals.types[static_cast<size_t>(i)];
    if (total.tensors == 0) continue;
    types.set(engine::dtype_info(static_cast<DType>(i)).name,
              Json::object({{"tensors", total.tensors}, {"bytes", total.bytes}}));
  }
  Json out = Json::object({{"name", d.name},
                           {"path", model.path()},
                           {"format", model.is_directory() ? "huggingface" : "gguf"},
                           {"architecture", d.architecture},
                           {"layers", d.layers},
                           {"hidden", d.hidden},
                           {"ffn", d.ffn},
                           {"heads", d.heads},
                           {"kv_heads", d.kv_heads},
                           {"head_dim", d.head_dim},
                           {"vocab", d.vocab},
                           {"context", d.context},
                           {"tied_embeddings", d.tied_embeddings},
                           {"qkv_bias", d.qkv_bias},
                           {"qk_norm", d.qk_norm},
                           {"sliding_window", d.sliding_window},
                           {"rope", rope_text(d)},
                           {"parameters", totals.parameters},
                           {"bytes", totals.bytes},
                           {"types", std::move(types)},
                           {"kv_bytes_per_token", d.layers * d.kv_bytes_per_token_layer().value},
                           {"tokenizer", tokenizer_kind(model)}});
  if (!list_tensors) return out;
  Json list = Json::array();
  for (const Tensor& t : model.tensors()) {
    list.push(Json::object({{"name", t.name},
                            {"type", engine::dtype_info(t.dtype).name},
                            {"rows", t.rows},
                            {"cols", t.cols},
                            {"bytes", t.bytes()}}));
  }
  out.set("tensors", std::move(list));
  return out;
}

// Names come from the file: control characters must not reach the terminal.
void print_line(std::string line) {
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  std::puts(line.c_str());
}

void print_row(std::string_view label, const std::string& text) {
  print_line(format("{:<14}{}", label, text));
}

std::string parameter_text(int64_t n) {
  if (n >= 1'000'000'000) return format("{:.2f} billion", static_cast<double>(n) * 1e-9);
  if (n >= 1'000'000) return format("{:.1f} million", static_cast<double>(n) * 1e-6);
  return format_count(n);
}

void print_shape(const ModelFile& model) {
  const ModelDesc& d = model.desc();
  print_row("layers", format("{} of {} wide, feed-forward {}", d.layers, d.hidden, d.ffn));
  std::string heads = format("{} query, {} key/value, {} wide", d.heads, d.kv_heads, d.head_dim);
  if (d.qkv_bias) heads += ", with bias";
  if (d.qk_norm) heads += ", q and k normalised";
  print_row("heads", heads);
  print_row("rotary", rope_text(d));
  const std::string window =
      d.sliding_window > 0 ? format(", each sees the last {}", format_count(d.sliding_window)) : "";
  print_row("context", format("{} tokens{}", format_count(d.context), window));
  const int64_t kv = d.layers * d.kv_bytes_per_token_layer().value;
  print_row("KV cache", format("{} a token (16 bit), {} for the whole context", format_bytes(kv),
                               format_bytes(kv * d.context)));
  const Totals totals = add_up(model);
  print_row("parameters", parameter_text(totals.parameters) +
                              (d.tied_embeddings ? ", output matrix tied to the embedding" : ""));
  print_row("weights",
            format("{} in {} tensors", format_bytes(totals.bytes), model.tensors().size()));
  for (int i = 0; i < engine::kDTypeCount; ++i) {
    const TypeTotal& total = totals.types[static_cast<size_t>(i)];
    if (total.tensors == 0) continue;
    print_row("", format("{:<6}{:>10} in {}", engine::dtype_info(static_cast<DType>(i)).name,
                         format_bytes(total.bytes), total.tensors));
  }
}

void print_info(const ModelFile& model, bool list_tensors) {
  const ModelDesc& d = model.desc();
  print_row("model", d.name.empty() ? "(no name)" : d.name);
  print_row("file", model.path() + (model.is_directory() ? " (Hugging Face)" : " (GGUF)"));
  print_row("architecture", d.architecture.empty() ? "(none)" : d.architecture);
  if (model.tensors().empty()) {
    print_row("weights", "none: this file is a vocabulary");
  } else {
    print_shape(model);
  }
  print_row("vocabulary", format("{} tokens", format_count(d.vocab)));
  print_row("tokenizer", tokenizer_kind(model));
  if (!list_tensors) return;
  std::puts("");
  for (const Tensor& t : model.tensors()) {
    print_line(format("{:<32}{:<6}{:>14}{:>14}", t.name, engine::dtype_info(t.dtype).name,
                      format("{} x {}", t.rows, t.cols), format_bytes(t.bytes())));
  }
}

Result<int> run_info(std::span<const std::string> args) {
  InfoOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, info_table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  ASSIGN_OR_RETURN(const ModelFile model, ModelFile::open(o.model));
  if (o.json) {
    std::puts(info_json(model, o.tensors).dump().c_str());
  } else {
    print_info(model, o.tensors);
  }
  return 0;
}

// ---- model check ----

struct CheckOptions {
  std::string model;
  int threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  bool progress = false, json = false;
};

OptionTable check_table(CheckOptions& o) {
  OptionTable t("model check", "Check that a model file is whole: tensors, shapes, finite values.");
  t.describe(
      "Opens the file, which checks every offset and size, then that every layer has its tensors "
      "in the right shape, then reads all values. The first fault is the error.");
  t.positional("model", &o.model, "GGUF file (the first, if sharded) or Hugging Face directory")
      .required();
  t.value("threads", &o.threads, "threads").range(1, 256);
  t.flag("progress", &o.progress, "report progress even if stderr is not a terminal");
  t.flag("json", &o.json, "print JSON");
  t.example("towline model check model.gguf");
  return t;
}

Result<int> run_check(std::span<const std::string> args) {
  CheckOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, check_table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  ASSIGN_OR_RETURN(const ModelFile model, ModelFile::open(o.model));
  const Totals totals = add_up(model);
  if (!model.tensors().empty()) {
    TRY(model.check({0, model.desc().layers}));
    Progress bar("reading " + o.model, o.progress);
    const engine::WriteOptions options{
        o.threads, [&](int64_t done, int64_t total) { bar.report(done, total); }};
    TRY(engine::check_values(model, options).context(o.model));
  }
  const auto tensors = static_cast<int64_t>(model.tensors().size());
  if (o.json) {
    std::puts(Json::object({{"path", o.model},
                            {"ok", true},
                            {"layers", model.desc().layers},
                            {"tensors", tensors},
                            {"bytes", totals.bytes}})
                  .dump()
                  .c_str());
  } else if (tensors == 0) {
    std::puts(format("{}: fine; a vocabulary without weights", o.model).c_str());
  } else {
    std::puts(format("{}: fine; {} layers, {} tensors, {}, all values finite", o.model,
                     model.desc().layers, tensors, format_bytes(totals.bytes))
                  .c_str());
  }
  return 0;
}

}  // namespace

const Command kModelCheck = {"model check", "check that a model file is whole", run_check,
                             [](void (*sink)(const OptionTable&)) {
                               CheckOptions o;
                               sink(check_table(o));
                             }};

const Command kModelInfo = {"model info", "show what a model file holds", run_info,
                            [](void (*sink)(const OptionTable&)) {
                              InfoOptions o;
                              sink(info_table(o));
                            }};

}  // namespace towline::cli
