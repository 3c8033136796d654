// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "cli/commands.hpp"
#include "cli/layer_bench.hpp"
#include "cli/link_probe.hpp"
#include "cli/progress.hpp"
#include "engine/kernel/probe.hpp"
#include "engine/stage.hpp"
#include "spec/profile.hpp"
#include "spec/toml_text.hpp"

namespace towline::cli {
namespace {

using Clock = std::chrono::steady_clock;
using Kind = LayerCell::Kind;

constexpr int kStepTokens = 512;  // of a prompt
constexpr int kChunkAfter = 128;  // rows, at most, of the prompt piece that shows context's cost
constexpr int kLogitRows = 64;    // evaluated at once, as a worker does

struct ProfileOptions {
  std::string model;
  std::string type = "this-machine";
  std::string out;
  int threads = 2;
  int layers = 0;
  std::vector<int> batches = {1, 2, 4, 8, 16, 32, 64};
  std::vector<int> contexts = {128, 512, 1024};
  std::vector<int> prefills = {1, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 1024};
  std::vector<int> mixed = {32, 128, 256};
  int typical = 512;
  double cell_seconds = 0.5;
  double memory_gib = 0;
  std::string isa = "auto";
  std::vector<std::string> links;  // NAME=ADDRESS
  LinkProbe probe{.end = {.identity = "profile", .key_file = {}, .insecure = false, .faults = {}},
                  .sizes = {64}};
  bool json = false;
  bool progress = false;
};

OptionTable table(ProfileOptions& o) {
  OptionTable t("profile",
                "Measure this machine's times for a model's layers, for the planner and the "
                "simulator.");
  t.positional("model", &o.model, "GGUF file or Hugging Face directory").required();
  t.value("type", &o.type, "name of this kind of machine in the profile");
  t.value("out", &o.out, "write the profile here (.toml or .json); empty: only print");
  t.value("threads", &o.threads, "compute threads").range(1, 1024);
  t.value("layers", &o.layers, "measure this many layers; 0: all").range(0, 10000);
  t.value("batch", &o.batches, "generating sequences in a step").range(1, 1024);
  t.value("context", &o.contexts, "tokens in each sequence's KV cache").range(1, 1 << 20);
  t.value("prefill", &o.prefills, "prompt tokens of one request, 512 a step").range(1, 1 << 20);
  t.value("mixed", &o.mixed,
          "prompt tokens of steps with 2 and 8 generating sequences beside them: these are "
          "predicted from the others, to tell how well; 0: none")
      .range(0, kStepTokens);
  t.value("typical-context", &o.typical, "the context whose column goes into the profile")
      .range(1, 1 << 20);
  t.value("seconds", &o.cell_seconds, "time spent on each cell of the grid").range(0.01, 60);
  t.value("memory", &o.memory_gib, "GiB for weights and KV cache; 0: 80 % of the machine's")
      .range(0, 1e6);
  t.value("isa", &o.isa, "kernels: auto, avx512, avx2 or generic");
  t.value("link", &o.links,
          "measure the link to a 'towline net serve' too, as NAME=ADDRESS; may be repeated");
  t.value("megabytes", &o.probe.megabytes, "sent over each link for its bandwidth")
      .range(1, 1'000'000);
  t.value("keys", &o.probe.end.key_file, "the cluster's keys, for links over zmq://");
  t.flag("insecure", &o.probe.end.insecure, "links over zmq without keys and encryption");
  t.flag("json", &o.json, "print one JSON object instead of tables");
  t.flag("progress", &o.progress, "show progress even if this is no terminal");
  t.describe(
      "Times are seconds a layer: a step through the layers, divided by their number; "
      "and of the head (output norm, logits, the greedy choice) seconds a step. The mean of "
      "the repetitions that fit into --seconds, with pauses as between two steps and all cells "
      "in turn at random: what the fifths of the whole time differ by is the machine's drift. "
      "The profile file feeds `towline plan`, `simulate` and emulated workers; `towline profile "
      "check` compares it with recorded runs, `towline profile learn` corrects it by them. "
      "With --link it also says how far other machines are: half the median round trip, "
      "and bytes a second one way, as a cluster file wants them.");
  t.example("towline profile llama-1b-q4_0.gguf --type desktop --out desktop.toml");
  t.example("towline profile model.gguf --batch 1,8,32 --context 512 --prefill 128,512 --json");
  t.example("towline profile model.gguf --out attic.toml --link cellar=tcp://10.0.0.8:7100");
  return t;
}

double copy_bytes_per_second() {
  constexpr size_t kBytes = size_t{128} << 20;
  std::vector<char> from(kBytes, 1), to(kBytes, 2);
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    const Clock::time_point start = Clock::now();
    std::memcpy(to.data(), from.data(), kBytes);
    const std::chrono::duration<double> took = Clock::now() - start;
    best = std::max(best, static_cast<double>(kBytes) / took.count());
    from[static_cast<size_t>(i)] = to[kBytes - 1];  // keeps the copy
  }
  return best;
}

// The grid, without cells whose KV cache is over a GiB.
std::vector<LayerCell> grid(const ProfileOptions& o, const spec::ModelDesc& d, int layers) {
  std::vector<LayerCell> cells;
  const int64_t most_tokens = (int64_t{1} << 30) / (layers * d.kv_bytes_per_token_layer().value);
  for (const int tokens : o.prefills) cells.push_back({Kind::kPrefill, tokens});
  std::vector<int> contexts = o.contexts;
  if (std::ranges::find(contexts, o.typical) == contexts.end()) contexts.push_back(o.typical);
  std::ranges::sort(contexts);
  for (const int context : contexts) {
    for (const int batch : o.batches) {
      if (int64_t{batch} * context > most_tokens) continue;
      cells.push_back({Kind::kDecode, batch, context});
    }
  }
  int piece = 0;  // its time alone is in the table
  for (const int tokens : o.prefills) piece = tokens <= kChunkAfter ? tokens : piece;
  if (piece > 0) cells.push_back({Kind::kPrefill, piece, contexts.back()});
  for (const int tokens : o.mixed) {
    for (const int decodes : {2, 8}) {
      if (tokens > 0) cells.push_back({Kind::kMixed, tokens, o.typical, decodes});
    }
  }
  if (layers == d.layers) {
    for (const int rows : o.batches) cells.push_back({Kind::kHead, rows});
  }
  return cells;
}

// What the machine could hold: [k - 1] for k layers.
void add_room(const ProfileOptions& o, const engine::Stage& stage, int64_t layer_bytes,
              spec::DeviceProfile& device) {
  const spec::ModelDesc& d = stage.desc();
  const double machine =
      static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
  const double memory = o.memory_gib > 0 ? o.memory_gib * (1 << 30) : 0.8 * machine;
  const double block = static_cast<double>(stage.pool().layout().block_bytes().value);
  for (int32_t k = 1; k <= d.layers; ++k) {
    const double left = memory - static_cast<double>(k * layer_bytes);
    const auto blocks = static_cast<int64_t>(std::clamp(left / (block * k), 0.0, 1e9));
    if (blocks < spec::kMaxInput / spec::kBlockTokens) break;  // not even one long request
    const int64_t sequences =
        blocks * spec::kBlockTokens / (spec::kAverageInput + spec::kAverageOutput);
    device.kv_blocks.push_back(blocks);
    device.prompt_max_requests.push_back(1);
    device.decode_max_tokens.push_back(static_cast<int32_t>(
        std::clamp<int64_t>(sequences, 1, static_cast<int64_t>(device.decode.back().tokens))));
  }
  device.roomy_layers = device.tight_layers = std::max<int32_t>(device.max_layers(), 1);
  const spec::LayerTime& widest = device.decode.back();
  device.start_speed = widest.tokens / std::max(widest.time.value, 1e-9);
}

// What the context costs, fitted to the cells; a table never becomes less than half without it.
void add_context(const std::vector<LayerCell>& cells, int typical, spec::DeviceProfile& device) {
  std::map<int, std::vector<const LayerCell*>> by_batch;
  const LayerCell* deep = nullptr;
  for (const LayerCell& cell : cells) {
    if (cell.kind == Kind::kDecode) by_batch[cell.rows].push_back(&cell);
    if (cell.kind == Kind::kPrefill && cell.context > 0) deep = &cell;
  }
  // Decoding: one slope over all batches, each with its own time without context.
  double products = 0, squares = 0;
  for (const auto& [batch, row] : by_batch) {
    const auto n = static_cast<double>(row.size());
    double tokens = 0, seconds = 0;
    for (const LayerCell* c : row) {
      tokens += static_cast<double>(c->rows) * c->context / n;
      seconds += c->seconds / n;
    }
    for (const LayerCell* c : row) {
      const double off = static_cast<double>(c->rows) * c->context - tokens;
      products += off * (c->seconds - seconds);
      squares += off * off;
    }
  }
  double each = squares > 0 ? std::max(products / squares, 0.0) : 0;
  for (const spec::LayerTime& row : device.decode) {
    if (row.tokens > 0) each = std::min(each, 0.5 * row.time.value / (row.tokens * typical));
  }
  device.decode_context_seconds = each;
  device.decode_context = typical;
  // Prompts: what a piece takes more after others than at the beginning.
  device.prompt_context = true;
  if (deep == nullptr) return;
  const double alone = spec::interpolate(device.prompt, deep->rows).value;
  each = std::max((deep->seconds - alone) / (static_cast<double>(deep->rows) * deep->context), 0.0);
  for (const spec::LayerTime& row : device.prompt) {
    if (row.tokens > 1) {
      each = std::min(each, row.time.value / (row.tokens * (row.tokens - 1)));
    }
  }
  device.prompt_context_seconds = each;
}

spec::DeviceProfile device_of(const ProfileOptions& o, const std::vector<LayerCell>& cells) {
  spec::DeviceProfile device;
  device.type = o.type;
  device.prompt.push_back({0, Seconds(0)});
  device.decode.push_back({0, Seconds(0)});
  device.head.push_back({0, Seconds(0)});
  for (const LayerCell& cell : cells) {
    const spec::LayerTime row{static_cast<double>(cell.rows), Seconds(cell.seconds)};
    if (cell.kind == Kind::kHead) device.head.push_back(row);
    if (cell.kind == Kind::kPrefill && cell.context == 0) device.prompt.push_back(row);
    if (cell.kind == Kind::kDecode && cell.context == o.typical) device.decode.push_back(row);
  }
  if (device.head.size() == 1) device.head.clear();  // not all layers were measured
  device.shared_weights = true;  // a step's rows pass through each matrix together
  add_context(cells, o.typical, device);
  return device;
}

struct MeasuredLink {
  std::string to, address;
  double latency = 0, bytes_per_second = 0;  // latency: seconds, one way
};

Result<std::vector<MeasuredLink>> measure_links(const ProfileOptions& o) {
  std::vector<MeasuredLink> out;
  for (const std::string& given : o.links) {
    const size_t equals = given.find('=');
    if (equals == std::string::npos || equals == 0) {
      return errorf(Code::kInvalidArgument, "--link '{}' must be NAME=ADDRESS", given);
    }
    ASSIGN_OR_RETURN(const LinkProbe::Figures figures, o.probe.run(given.substr(equals + 1)));
    out.push_back({given.substr(0, equals), figures.address, figures.latency[0].p50 * 1e-6 / 2,
                   figures.bytes_per_second});
  }
  return out;
}

// By how much the tables miss the mixed steps: mean and greatest, relative.
struct MixedError {
  int count = 0;
  double mean = 0, most = 0;
};

MixedError mixed_error(const std::vector<LayerCell>& cells, const spec::DeviceProfile& device) {
  MixedError error;
  for (const LayerCell& c : cells) {
    if (c.kind != Kind::kMixed) continue;
    const int64_t pairs = int64_t{c.rows} * (c.rows - 1) / 2;
    const spec::LayerBatch batch{c.rows, c.decodes, pairs, int64_t{c.decodes} * (c.context - 1)};
    const double off = spec::layer_time(device, batch).value / c.seconds - 1;
    error.mean += off;
    if (std::abs(off) > std::abs(error.most)) error.most = off;
    ++error.count;
  }
  if (error.count > 0) error.mean /= error.count;
  return error;
}

std::string_view kind_name(Kind kind) {
  switch (kind) {
    case Kind::kPrefill: return "prefill";
    case Kind::kDecode: return "decode";
    case Kind::kMixed: return "mixed";
    case Kind::kHead: return "head";
  }
  return "";
}

// What was measured besides the tables.
struct Measured {
  double read = 0, copy = 0;  // bytes/s
  double drift = 1;           // the slowest fifth of the time over the fastest
  MixedError mixed;
  std::vector<MeasuredLink> links;
};

Json cell_json(const LayerCell& cell) {
  Json j = Json::object({{"kind", std::string(kind_name(cell.kind))}, {"rows", cell.rows}});
  if (cell.context > 0) j.set("context", cell.context);
  if (cell.decodes > 0) j.set("decodes", cell.decodes);
  j.set(cell.kind == Kind::kHead ? "seconds" : "seconds_per_layer", cell.seconds);
  return j.set("median", cell.median);
}

Json machine_json(const Measured& m) {
  Json j = Json::object({{"read_bytes_per_second", m.read},
                         {"copy_bytes_per_second", m.copy},
                         {"slowest_fifth_over_fastest", m.drift}});
  if (m.mixed.count > 0) {
    j.set("mixed_steps_mean_error", m.mixed.mean).set("mixed_steps_greatest_error", m.mixed.most);
  }
  return j;
}

std::string toml_text(const spec::Profile& profile, const std::vector<LayerCell>& cells,
                      const Measured& measured) {
  const auto lines = [](const Json& object) {
    std::string out;
    for (const auto& [key, value] : object.members()) {
      out += format("{} = {}\n", key, value.is_string() || value.is_int()
                                          ? value.dump() : spec::toml_number(value.as_double()));
    }
    return out;
  };
  std::string out =
      spec::profile_to_toml(profile) + "\n[machine]\n" + lines(machine_json(measured));
  for (const MeasuredLink& link : measured.links) {
    out +=
        format("\n[[links]]\nto = {}\naddress = {}\nlatency_seconds = {}\nbytes_per_second = {}\n",
               spec::toml_string(link.to), spec::toml_string(link.address),
               spec::toml_number(link.latency), spec::toml_number(link.bytes_per_second));
  }
  for (const LayerCell& cell : cells) out += "\n[[grid]]\n" + lines(cell_json(cell));
  return out;
}

void print_tables(const spec::ModelDesc& d, const std::vector<LayerCell>& cells,
                  const Measured& m) {
  std::puts("kind       rows  decodes  context   ms/layer   tokens/s of all layers");
  const auto number = [](int32_t n) { return n > 0 ? format("{}", n) : std::string("-"); };
  for (const LayerCell& cell : cells) {
    const bool head = cell.kind == Kind::kHead;
    const double all = head ? cell.seconds : cell.seconds * d.layers;
    std::puts(format("{:<8}{:>7}{:>9}{:>9}{:>11.3f}{:>11.1f}{}", kind_name(cell.kind), cell.rows,
                     number(cell.decodes), number(cell.context), cell.seconds * 1e3,
                     (cell.rows + cell.decodes) / all, head ? "  (ms and rows/s of the head)" : "")
                  .c_str());
  }
  std::puts(format("memory: read {:.1f} GB/s, copy {:.1f} GB/s; slowest fifth {:+.1f} % over the "
                   "fastest", m.read * 1e-9, m.copy * 1e-9, 100 * (m.drift - 1)).c_str());
  if (m.mixed.count > 0) {
    std::puts(format("mixed steps by the tables: {:+.1f} % on the mean, {:+.1f} % at most",
                     100 * m.mixed.mean, 100 * m.mixed.most).c_str());
  }
  for (const MeasuredLink& link : m.links) {
    std::puts(format("link to {}: {:.3f} ms, {:.1f} MB/s", link.to, link.latency * 1e3,
                     link.bytes_per_second * 1e-6)
                  .c_str());
  }
}

Result<engine::Stage> load(const ProfileOptions& o, std::shared_ptr<const engine::ModelFile> file,
                           const std::vector<LayerCell>& cells, int layers,
                           const engine::KernelTable& kernels, engine::ComputeTeam& team) {
  engine::StageOptions options;
  options.layers = {0, layers};
  options.max_rows = 1;
  int64_t blocks = 1;
  const auto blocks_of = [](int64_t tokens) {
    return (tokens + kv::kBlockTokens - 1) / kv::kBlockTokens;
  };
  for (const LayerCell& cell : cells) {
    const bool decode = cell.kind == Kind::kDecode;
    const int64_t decodes = decode ? cell.rows : cell.decodes;
    const int64_t prompt = decode || cell.kind == Kind::kHead ? 0 : cell.rows;
    const int64_t before = cell.kind == Kind::kPrefill ? cell.context : 0;
    blocks = std::max(blocks, decodes * blocks_of(cell.context) + blocks_of(before + prompt));
    options.max_rows = std::max(options.max_rows, std::min(cell.rows, kStepTokens) + cell.decodes);
    if (decode || cell.kind == Kind::kHead) {
      options.max_rows = std::max(options.max_rows, cell.rows);
    }
  }
  options.kv_blocks = static_cast<int32_t>(blocks);
  options.max_logit_rows = std::min(options.max_rows, kLogitRows);
  Progress progress("loading", o.progress);
  return engine::Stage::load(std::move(file), options, kernels, team,
                             [&](int64_t done, int64_t total) { progress.report(done, total); });
}

// Before the measurement, which would be lost.
Result<void> check_out(const std::string& out) {
  if (out.empty()) return {};
  if (!out.ends_with(".toml") && !out.ends_with(".json")) {
    return errorf(Code::kInvalidArgument, "--out '{}' must end in .toml or .json", out);
  }
  const std::filesystem::path folder = std::filesystem::path(out).parent_path();
  std::error_code ignored;
  if (folder.empty() || std::filesystem::is_directory(folder, ignored)) return {};
  return errorf(Code::kNotFound, "--out '{}': there is no folder '{}'", out, folder.string());
}

Result<int> run(std::span<const std::string> args) {
  ProfileOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  TRY(check_out(o.out));
  ASSIGN_OR_RETURN(engine::ModelFile opened, engine::ModelFile::open(o.model));
  const auto file = std::make_shared<const engine::ModelFile>(std::move(opened));
  const spec::ModelDesc& d = file->desc();
  // First, before anything takes processor time here; what cannot be reached is known at once.
  Measured measured;
  ASSIGN_OR_RETURN(measured.links, measure_links(o));
  const int layers = o.layers > 0 ? std::min(o.layers, d.layers) : d.layers;
  for (auto* list : {&o.batches, &o.prefills}) {
    std::ranges::sort(*list);
    list->erase(std::unique(list->begin(), list->end()), list->end());
  }
  std::vector<LayerCell> cells = grid(o, d, layers);
  const bool has_prefill = !o.prefills.empty();
  const bool has_decode = std::ranges::any_of(cells, [&](const LayerCell& c) {
    return c.kind == Kind::kDecode && c.context == o.typical;
  });
  if (!has_prefill || !has_decode) {
    return errorf(
        Code::kInvalidArgument,
        "nothing to measure at a context of {}: give smaller --batch, --context or --layers",
        o.typical);
  }
  ASSIGN_OR_RETURN(const engine::KernelTable* kernels, engine::kernel_table(o.isa));
  engine::ComputeTeam team(o.threads);
  ASSIGN_OR_RETURN(engine::Stage stage, load(o, file, cells, layers, *kernels, team));
  std::optional<engine::RowEvaluator> evaluator;
  if (stage.weights().is_last()) evaluator.emplace(stage, *kernels, team);
  LayerBench bench(stage, evaluator ? &*evaluator : nullptr);
  {
    Progress progress("measuring", o.progress);
    TRY(bench.measure(cells, o.cell_seconds, kStepTokens,
                      [&](int64_t done, int64_t total) { progress.report(done, total); }));
  }
  ASSIGN_OR_RETURN(measured.read,
                   engine::measure_read_bandwidth(team, *kernels, int64_t{1} << 28, 0.25));
  measured.copy = copy_bytes_per_second();
  measured.drift = bench.drift();

  spec::Profile profile;
  profile.model = spec::shape_of(d);
  profile.model.activation_bytes = Bytes(int64_t{4} * d.hidden);  // float32 between our workers
  const int64_t layer_bytes = stage.weights().layer(0).arena.size();
  profile.model.layer_bytes = Bytes(layer_bytes);
  profile.devices.push_back(device_of(o, cells));
  add_room(o, stage, layer_bytes, profile.devices[0]);
  measured.mixed = mixed_error(cells, profile.devices[0]);
  Json tree = spec::profile_to_json(profile);
  tree.set("machine", machine_json(measured));
  Json all_links = Json::array();
  for (const MeasuredLink& link : measured.links) {
    all_links.push(Json::object({{"to", link.to},
                                 {"address", link.address},
                                 {"latency_seconds", link.latency},
                                 {"bytes_per_second", link.bytes_per_second}}));
  }
  if (!measured.links.empty()) tree.set("links", std::move(all_links));
  Json all_cells = Json::array();
  for (const LayerCell& cell : cells) all_cells.push(cell_json(cell));
  tree.set("grid", std::move(all_cells));
  if (!o.out.empty()) {
    TRY(write_file_atomic(o.out, o.out.ends_with(".toml") ? toml_text(profile, cells, measured)
                                                          : tree.dump(1) + "\n"));
  }
  if (o.json) {
    std::puts(tree.dump().c_str());
  } else {
    std::puts(format("{}: {} layers of {}, {} kernels, {} threads", d.name, layers,
                     format_bytes(layer_bytes), kernels->name, o.threads)
                  .c_str());
    print_tables(d, cells, measured);
  }
  return 0;
}

}  // namespace

const Command kProfile = {"profile", "measure this machine's layer times for planning", run,
                          [](void (*sink)(const OptionTable&)) {
                            ProfileOptions o;
                            sink(table(o));
                          }};

}  // namespace towline::cli
