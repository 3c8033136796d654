// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <map>
#include <optional>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "base/rng.hpp"
#include "cli/commands.hpp"
#include "cli/link_probe.hpp"
#include "cli/progress.hpp"
#include "engine/kernel/probe.hpp"
#include "engine/stage.hpp"
#include "spec/profile.hpp"
#include "spec/toml_text.hpp"

namespace towline::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kStepTokens = 512;  // of a prompt

struct ProfileOptions {
  std::string model;
  std::string type = "this-machine";
  std::string out;
  int threads = 2;
  int layers = 0;
  std::vector<int> batches = {1, 2, 4, 8, 16, 32, 64};
  std::vector<int> contexts = {128, 512, 1024};
  std::vector<int> prefills = {16, 64, 256, 512, 1024};
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
  t.value("typical-context", &o.typical, "the context whose column goes into the profile")
      .range(1, 1 << 20);
  t.value("seconds", &o.cell_seconds, "time spent on each cell of the grid").range(0.01, 60);
  t.value("memory", &o.memory_gib, "GiB for weights and KV cache; 0: 80 % of the machine's")
      .range(0, 1e6);
  t.value("isa", &o.isa, "kernels: auto, avx512, avx2 or generic");
  t.value("link", &o.links, "measure the link to a 'towline net serve' too, as NAME=ADDRESS; may be repeated");
  t.value("megabytes", &o.probe.megabytes, "sent over each link for its bandwidth").range(1, 1'000'000);
  t.value("key-file", &o.probe.end.key_file, "the cluster's keys, for links over zmq://");
  t.flag("insecure", &o.probe.end.insecure, "links over zmq without keys and encryption");
  t.flag("json", &o.json, "print one JSON object instead of tables");
  t.flag("progress", &o.progress, "show progress even if this is no terminal");
  t.describe(
      "Times are seconds a layer: a step through the layers, divided by their number; the "
      "median of the repetitions that fit into --seconds. The profile file feeds `towline "
      "plan`, `simulate` and emulated workers. With --link it also says how far other machines are: half "
      "the median round trip, and bytes a second one way, as a cluster file wants them.");
  t.example("towline profile llama-1b-q4_0.gguf --type desktop --out desktop.toml");
  t.example("towline profile model.gguf --batch 1,8,32 --context 512 --prefill 128,512 --json");
  t.example("towline profile model.gguf --out attic.toml --link cellar=tcp://10.0.0.8:7100");
  return t;
}

struct Cell {
  bool prefill = false;
  int rows = 0;        // sequences, or prompt tokens
  int context = 0;     // decode only
  double seconds = 0;  // a layer
};

// Runs steps of one shape on KV blocks with made-up contents, all written, so that they are read
// from memory as real ones would be.
class Bench {
 public:
  explicit Bench(engine::Stage& stage) : stage_(stage), layers_(stage.weights().layers().size()) {
    hidden_.resize(static_cast<size_t>(stage.max_rows()) * static_cast<size_t>(stage.desc().hidden),
                   0.01f);
    const kv::BlockPool& pool = stage.pool();
    for (int32_t layer = 0; layer < pool.layers(); ++layer) {
      for (int32_t b = 0; b < pool.blocks(); ++b) {
        const std::span<std::byte> bytes = pool.block(layer, BlockId(b));
        const auto fill = static_cast<int>(random_at(1, static_cast<uint64_t>(b)) % 40);
        std::memset(bytes.data(), fill, bytes.size());  // small positive float16 numbers
      }
    }
  }

  Result<double> time(const Cell& cell, double seconds) {
    std::vector<double> times;
    const Clock::time_point end = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                                     std::chrono::duration<double>(seconds));
    for (int i = 0; i < 4 || Clock::now() < end; ++i) {
      const Clock::time_point start = Clock::now();
      TRY(cell.prefill ? prefill(cell.rows) : decode(cell.rows, cell.context));
      const std::chrono::duration<double> took = Clock::now() - start;
      if (i > 0) times.push_back(took.count());  // the first one warms up
    }
    std::ranges::nth_element(times, times.begin() + static_cast<int64_t>(times.size()) / 2);
    return times[times.size() / 2] / layers_;
  }

 private:
  Result<void> prefill(int tokens) {
    const std::vector<int32_t> blocks = blocks_of(0, tokens);
    for (int from = 0; from < tokens; from += stage_.max_rows()) {
      const int to = std::min(tokens, from + stage_.max_rows());
      const std::vector<int32_t> ids(static_cast<size_t>(to - from), 1);
      const engine::StepSpan span{from, to, ids, blocks};
      TRY(stage_.run({{&span, 1}}, hidden_));
    }
    return {};
  }
  Result<void> decode(int batch, int context) {
    static constexpr int32_t kToken = 1;
    std::vector<std::vector<int32_t>> blocks;
    std::vector<engine::StepSpan> spans;
    for (int s = 0; s < batch; ++s) blocks.push_back(blocks_of(s, context));
    for (const std::vector<int32_t>& own : blocks) {
      spans.push_back({context - 1, context, {&kToken, 1}, own});
    }
    return stage_.run({spans}, hidden_);
  }
  static std::vector<int32_t> blocks_of(int sequence, int tokens) {
    const int each = (tokens + kv::kBlockTokens - 1) / kv::kBlockTokens;
    std::vector<int32_t> blocks;
    for (int b = 0; b < each; ++b) blocks.push_back(sequence * each + b);
    return blocks;
  }

  engine::Stage& stage_;
  double layers_;
  std::vector<float> hidden_;
};

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
std::vector<Cell> grid(const ProfileOptions& o, const spec::ModelDesc& d, int layers) {
  std::vector<Cell> cells;
  const int64_t per_token = layers * d.kv_bytes_per_token_layer().value;
  for (const int tokens : o.prefills) cells.push_back({true, tokens, 0, 0});
  std::vector<int> contexts = o.contexts;
  if (std::ranges::find(contexts, o.typical) == contexts.end()) contexts.push_back(o.typical);
  std::ranges::sort(contexts);
  for (const int context : contexts) {
    for (const int batch : o.batches) {
      if (int64_t{batch} * context * per_token > (int64_t{1} << 30)) continue;
      cells.push_back({false, batch, context, 0});
    }
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
void add_context(const std::vector<Cell>& cells, int typical, spec::DeviceProfile& device) {
  std::map<int, std::vector<const Cell*>> by_batch;
  const Cell *chunk = nullptr, *longest = nullptr;
  for (const Cell& cell : cells) {
    if (!cell.prefill) {
      by_batch[cell.rows].push_back(&cell);
    } else if (cell.rows == kStepTokens) {
      chunk = &cell;
    } else if (cell.rows % kStepTokens == 0) {
      longest = &cell;
    }
  }
  // Decoding: one slope over all batches, each with its own time without context.
  double products = 0, squares = 0;
  for (const auto& [batch, row] : by_batch) {
    const auto n = static_cast<double>(row.size());
    double tokens = 0, seconds = 0;
    for (const Cell* c : row) {
      tokens += static_cast<double>(c->rows) * c->context / n;
      seconds += c->seconds / n;
    }
    for (const Cell* c : row) {
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
  // Prompts: what a long one takes more than its chunks alone, each of which has its own part.
  if (chunk == nullptr || longest == nullptr) return;
  const double chunks = static_cast<double>(longest->rows) / kStepTokens;
  const double pairs = chunks * (chunks - 1) / 2 * kStepTokens * kStepTokens;
  each = std::max((longest->seconds - chunks * chunk->seconds) / pairs, 0.0);
  for (const spec::LayerTime& row : device.prompt) {
    if (row.tokens > 1) {
      each = std::min(each, row.time.value / (row.tokens * (row.tokens - 1)));
    }
  }
  device.prompt_context_seconds = each;
  device.prompt_context = true;
}

spec::DeviceProfile device_of(const ProfileOptions& o, const std::vector<Cell>& cells) {
  spec::DeviceProfile device;
  device.type = o.type;
  device.prompt.push_back({0, Seconds(0)});
  device.decode.push_back({0, Seconds(0)});
  for (const Cell& cell : cells) {
    if (!cell.prefill && cell.context != o.typical) continue;
    auto& to = cell.prefill ? device.prompt : device.decode;
    to.push_back({static_cast<double>(cell.rows), Seconds(cell.seconds)});
  }
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

Json cell_json(const Cell& cell) {
  Json j = Json::object({{"kind", cell.prefill ? "prefill" : "decode"}, {"rows", cell.rows}});
  if (!cell.prefill) j.set("context", cell.context);
  return j.set("seconds_per_layer", cell.seconds);
}

std::string toml_text(const spec::Profile& profile, const std::vector<Cell>& cells, double read,
                      double copy, const std::vector<MeasuredLink>& links) {
  std::string out = spec::profile_to_toml(profile);
  out += format("\n[machine]\nread_bytes_per_second = {}\ncopy_bytes_per_second = {}\n",
                spec::toml_number(read), spec::toml_number(copy));
  for (const MeasuredLink& link : links) {
    out += format("\n[[links]]\nto = {}\naddress = {}\nlatency_seconds = {}\nbytes_per_second = {}\n",
                  spec::toml_string(link.to), spec::toml_string(link.address),
                  spec::toml_number(link.latency), spec::toml_number(link.bytes_per_second));
  }
  for (const Cell& cell : cells) {
    out += format("\n[[grid]]\nkind = \"{}\"\nrows = {}\n", cell.prefill ? "prefill" : "decode",
                  cell.rows);
    if (!cell.prefill) out += format("context = {}\n", cell.context);
    out += format("seconds_per_layer = {}\n", spec::toml_number(cell.seconds));
  }
  return out;
}

void print_tables(const spec::ModelDesc& d, const std::vector<Cell>& cells, double read, double copy,
                  const std::vector<MeasuredLink>& links) {
  std::puts("kind       rows  context   ms/layer   tokens/s of all layers");
  for (const Cell& cell : cells) {
    std::puts(format("{:<8}{:>7}{:>9}{:>11.3f}{:>11.1f}", cell.prefill ? "prefill" : "decode",
                     cell.rows, cell.prefill ? std::string("-") : format("{}", cell.context),
                     cell.seconds * 1e3, cell.rows / (cell.seconds * d.layers))
                  .c_str());
  }
  std::puts(format("memory: read {:.1f} GB/s, copy {:.1f} GB/s", read * 1e-9, copy * 1e-9).c_str());
  for (const MeasuredLink& link : links) {
    std::puts(format("link to {}: {:.3f} ms, {:.1f} MB/s", link.to, link.latency * 1e3,
                     link.bytes_per_second * 1e-6)
                  .c_str());
  }
}

Result<engine::Stage> load(const ProfileOptions& o, std::shared_ptr<const engine::ModelFile> file,
                           const std::vector<Cell>& cells, int layers,
                           const engine::KernelTable& kernels, engine::ComputeTeam& team) {
  engine::StageOptions options;
  options.layers = {0, layers};
  options.max_logit_rows = 1;
  options.max_rows = 1;
  int64_t blocks = 1;
  for (const Cell& cell : cells) {
    const int64_t tokens = cell.prefill ? cell.rows : cell.context;
    const int64_t sequences = cell.prefill ? 1 : cell.rows;
    blocks = std::max(blocks, sequences * ((tokens + kv::kBlockTokens - 1) / kv::kBlockTokens));
    options.max_rows = std::max(options.max_rows, std::min(cell.rows, kStepTokens));
    options.max_rows = std::max(options.max_rows, cell.prefill ? 1 : cell.rows);
  }
  options.kv_blocks = static_cast<int32_t>(blocks);
  Progress progress("loading", o.progress);
  return engine::Stage::load(std::move(file), options, kernels, team,
                             [&](int64_t done, int64_t total) { progress.report(done, total); });
}

Result<int> run(std::span<const std::string> args) {
  ProfileOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  ASSIGN_OR_RETURN(engine::ModelFile opened, engine::ModelFile::open(o.model));
  const auto file = std::make_shared<const engine::ModelFile>(std::move(opened));
  const spec::ModelDesc& d = file->desc();
  // First, before anything takes processor time here; what cannot be reached is known at once.
  ASSIGN_OR_RETURN(const std::vector<MeasuredLink> links, measure_links(o));
  const int layers = o.layers > 0 ? std::min(o.layers, d.layers) : d.layers;
  for (auto* list : {&o.batches, &o.prefills}) {
    std::ranges::sort(*list);
    list->erase(std::unique(list->begin(), list->end()), list->end());
  }
  std::vector<Cell> cells = grid(o, d, layers);
  const bool has_prefill = std::ranges::any_of(cells, &Cell::prefill);
  const bool has_decode = std::ranges::any_of(
      cells, [&](const Cell& c) { return !c.prefill && c.context == o.typical; });
  if (!has_prefill || !has_decode) {
    return errorf(
        Code::kInvalidArgument,
        "nothing to measure at a context of {}: give smaller --batch, --context or --layers",
        o.typical);
  }
  ASSIGN_OR_RETURN(const engine::KernelTable* kernels, engine::kernel_table(o.isa));
  engine::ComputeTeam team(o.threads);
  ASSIGN_OR_RETURN(engine::Stage stage, load(o, file, cells, layers, *kernels, team));
  Bench bench(stage);
  std::optional<Progress> progress(std::in_place, "measuring", o.progress);
  for (size_t i = 0; i < cells.size(); ++i) {
    ASSIGN_OR_RETURN(cells[i].seconds, bench.time(cells[i], o.cell_seconds));
    progress->report(static_cast<int64_t>(i) + 1, static_cast<int64_t>(cells.size()));
  }
  progress.reset();
  ASSIGN_OR_RETURN(const double read,
                   engine::measure_read_bandwidth(team, *kernels, int64_t{1} << 28, 0.25));
  const double copy = copy_bytes_per_second();

  spec::Profile profile;
  profile.model = spec::shape_of(d);
  profile.model.activation_bytes = Bytes(int64_t{4} * d.hidden);  // float32 between our workers
  const int64_t layer_bytes = stage.weights().layer(0).arena.size();
  profile.model.layer_bytes = Bytes(layer_bytes);
  profile.devices.push_back(device_of(o, cells));
  add_room(o, stage, layer_bytes, profile.devices[0]);
  Json tree = spec::profile_to_json(profile);
  tree.set("machine",
           Json::object({{"read_bytes_per_second", read}, {"copy_bytes_per_second", copy}}));
  Json all_links = Json::array();
  for (const MeasuredLink& link : links) {
    all_links.push(Json::object({{"to", link.to},
                                 {"address", link.address},
                                 {"latency_seconds", link.latency},
                                 {"bytes_per_second", link.bytes_per_second}}));
  }
  if (!links.empty()) tree.set("links", std::move(all_links));
  Json all_cells = Json::array();
  for (const Cell& cell : cells) all_cells.push(cell_json(cell));
  tree.set("grid", std::move(all_cells));
  if (!o.out.empty()) {
    TRY(write_file_atomic(o.out, o.out.ends_with(".toml") ? toml_text(profile, cells, read, copy, links)
                                                          : tree.dump(1) + "\n"));
  }
  if (o.json) {
    std::puts(tree.dump().c_str());
  } else {
    std::puts(format("{}: {} layers of {}, {} kernels, {} threads", d.name, layers,
                     format_bytes(layer_bytes), kernels->name, o.threads)
                  .c_str());
    print_tables(d, cells, read, copy, links);
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
