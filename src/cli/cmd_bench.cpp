// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>

#include "base/check.hpp"
#include "base/fmt.hpp"
#include "cli/commands.hpp"
#include "cli/progress.hpp"
#include "engine/kernel/probe.hpp"
#include "engine/stage.hpp"

namespace towline::cli {
namespace {

struct BenchOptions {
  std::string model;
  int threads = 2;
  int prompt = 512;
  int generate = 64;
  std::vector<int> batches = {1, 8, 16, 32};
  std::vector<int> depths = {0};
  int reps = 3;
  std::string isa = "auto";
  bool json = false;
  bool progress = false;
};

OptionTable table(BenchOptions& o) {
  OptionTable t("bench engine", "Measure prompt evaluation and batched decoding of a model.");
  t.positional("model", &o.model, "GGUF file or Hugging Face directory").required();
  t.value("threads", &o.threads, "compute threads").range(1, 1024);
  t.value("pp", &o.prompt, "prompt tokens evaluated at once; 0: skip").range(0, 1 << 20);
  t.value("tg", &o.generate, "tokens decoded a sequence; 0: skip").range(0, 1 << 20);
  t.value("batch", &o.batches, "sequences decoded together, one test each").range(1, 512);
  t.value("depth", &o.depths, "tokens in the KV cache when decoding starts; several take turns")
      .range(0, 1 << 20);
  t.value("reps", &o.reps, "measured repetitions, after one that is not").range(1, 1000);
  t.value("isa", &o.isa, "kernels: auto, avx512, avx2 or generic");
  t.flag("json", &o.json, "one JSON line a test");
  t.flag("progress", &o.progress, "show loading progress even if this is no terminal");
  t.describe("Token ids are arbitrary, so a model of random weights (towline model make-dummy) "
             "measures the same. ppN evaluates N tokens of one sequence and the last one's logits; "
             "tgN decodes N tokens of each of `batch` sequences, logits included, sampling not. "
             "Figures are tokens per second, over the whole batch; beside them what they come to "
             "in operations and in bytes read a second, and the share of what this machine was "
             "measured to do in the same second. Each repetition decodes at all depths in turn; "
             "the share of the first depth's speed is the median over repetitions.");
  t.example("towline bench engine llama-1b-q4_0.gguf --threads 2 --pp 512 --tg 64 --batch 1,8,32");
  t.example("towline bench engine llama-1b-q4_0.gguf --pp 0 --batch 1 --depth 0,2048");
  return t;
}

// Drives a Stage directly: fixed token ids, sequence s in its own run of KV blocks.
class Workload {
 public:
  Workload(engine::Stage& stage, int32_t sequences, int32_t length) : stage_(stage) {
    const int32_t each = (length + kv::kBlockTokens - 1) / kv::kBlockTokens;
    tables_.resize(static_cast<size_t>(sequences));
    for (int32_t s = 0; s < sequences; ++s) {
      for (int32_t b = 0; b < each; ++b) {
        tables_[static_cast<size_t>(s)].push_back(s * each + b);
      }
    }
    const auto hidden = static_cast<size_t>(stage.desc().hidden);
    hidden_.resize(hidden * static_cast<size_t>(stage.max_rows()));
  }

  // Tokens [from, to) of one sequence, in steps of at most max_rows.
  void evaluate(int32_t sequence, int32_t from, int32_t to, bool with_logits) {
    for (int32_t begin = from; begin < to; begin += stage_.max_rows()) {
      const int32_t end = std::min(to, begin + stage_.max_rows());
      tokens_.clear();
      for (int32_t p = begin; p < end; ++p) tokens_.push_back(token(sequence, p));
      const engine::StepSpan span{begin, end, tokens_, tables_[static_cast<size_t>(sequence)]};
      must(stage_.run({{&span, 1}}, hidden_));
      const int32_t last = end - begin - 1;
      if (with_logits && end == to) must(stage_.logits(hidden_, {&last, 1}));
    }
  }

  // One token of every sequence, with its logits.
  void decode(int32_t position) {
    const auto count = static_cast<int32_t>(tables_.size());
    std::vector<engine::StepSpan> spans;
    std::vector<int32_t> rows;
    tokens_.resize(tables_.size());
    for (int32_t s = 0; s < count; ++s) {
      const auto at = static_cast<size_t>(s);
      tokens_[at] = token(s, position);
      spans.push_back({position, position + 1, std::span(tokens_).subspan(at, 1), tables_[at]});
      rows.push_back(s);
    }
    must(stage_.run({spans}, hidden_));
    must(stage_.logits(hidden_, rows));
  }

 private:
  // A stage of one rank cannot fail.
  template <class T>
  static void must(const Result<T>& result) {
    CHECK(result);
  }
  int32_t token(int32_t sequence, int32_t position) const {
    return (position * 7919 + sequence * 17 + 13) % std::min(400, stage_.desc().vocab);
  }
  engine::Stage& stage_;
  std::vector<std::vector<int32_t>> tables_;
  std::vector<int32_t> tokens_;
  std::vector<float> hidden_;
};

struct Measured {
  std::string test;
  int batch = 1;
  int depth = 0;
  double median = 0, best = 0;  // tokens/s
  double of_first = 1;          // median over repetitions of the rate / the first depth's rate
};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

// Each repetition runs body(depth) for all depths in turn: the machine's speed drifts.
std::vector<Measured> measure(const std::string& test, int batch, std::span<const int> depths,
                              int reps, double tokens, const std::function<void(int)>& body) {
  std::vector<std::vector<double>> rates(depths.size()), shares(depths.size());
  for (int i = 0; i <= reps; ++i) {
    for (size_t k = 0; k < depths.size(); ++k) {
      const auto start = std::chrono::steady_clock::now();
      body(depths[k]);
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      if (i == 0) continue;  // warms up
      rates[k].push_back(tokens / took.count());
      shares[k].push_back(rates[k].back() / rates[0].back());
    }
  }
  std::vector<Measured> out;
  for (size_t k = 0; k < depths.size(); ++k) {
    out.push_back({test, batch, depths[k], median(rates[k]), std::ranges::max(rates[k]),
                   median(shares[k])});
  }
  return out;
}

// The machine's limits, measured next to what they bound: memory bandwidth drifts.
struct Limits {
  double bandwidth = 0;  // bytes/s
  double peak = 0;       // operations/s of the products that this model's weights use
};

Result<Limits> measure_limits(engine::ComputeTeam& team, const engine::KernelTable& kernels,
                              const engine::Stage& stage) {
  constexpr double kSeconds = 0.25;
  Limits limits;
  ASSIGN_OR_RETURN(limits.bandwidth, engine::measure_read_bandwidth(team, kernels, int64_t{1} << 28,
                                                                    kSeconds));
  const bool int8 =
      engine::act_kind(stage.weights().layer(0).gate.dtype) == engine::ActKind::kInt8;
  limits.peak = int8 ? engine::measure_int8_peak(team, kernels, kSeconds)
                     : engine::measure_fma_peak(team, kernels, kSeconds);
  return limits;
}

void print_json(const BenchOptions& o, const engine::Stage& stage, const Measured& m) {
  Json line = Json::object({{"model", stage.desc().name}, {"test", m.test}});
  line.set("batch", m.batch).set("depth", m.depth).set("threads", o.threads);
  line.set("median", m.median).set("best", m.best);
  if (o.depths.size() > 1) line.set("of_first_depth", m.of_first);
  std::puts(line.dump().c_str());
  std::fflush(stdout);
}

void print_row(const BenchOptions& o, const engine::Stage& stage, const Measured& m,
               const Limits& limits) {
  const spec::ModelDesc& d = stage.desc();
  const double layers = 2.0 * static_cast<double>(d.layers * d.layer_parameters());
  const double head = 2.0 * static_cast<double>(d.vocab) * d.hidden;
  const bool prompt = m.test.starts_with("pp");
  const double ops = m.median * (layers + (prompt ? head / o.prompt : head));
  const double kv = static_cast<double>(d.layers * d.kv_bytes_per_token_layer().value) *
                    (m.depth + o.generate / 2.0);
  const double bytes = m.median / m.batch *
                       (static_cast<double>(stage.weights().bytes_per_token()) + kv * m.batch);
  std::string row = format("{:<8}{:>6}{:>7}{:>11.2f}{:>11.2f}{:>9.0f}{:>8.0f}%", m.test, m.batch,
                           m.depth, m.median, m.best, ops * 1e-9, 100 * ops / limits.peak);
  row += prompt ? format("{:>8}{:>9}", "", "")
                : format("{:>8.1f}{:>8.0f}%", bytes * 1e-9, 100 * bytes / limits.bandwidth);
  if (o.depths.size() > 1) row += format("{:>9.1f}%", 100 * m.of_first);
  std::puts(row.c_str());
  std::fflush(stdout);
}

Result<engine::Stage> load(const BenchOptions& o, const engine::KernelTable& kernels,
                           engine::ComputeTeam& team) {
  ASSIGN_OR_RETURN(engine::ModelFile file, engine::ModelFile::open(o.model));
  const int widest = *std::ranges::max_element(o.batches);
  const int deepest = *std::ranges::max_element(o.depths);
  const int64_t each = (int64_t{deepest} + o.generate + kv::kBlockTokens) / kv::kBlockTokens;
  const int64_t blocks =
      std::max<int64_t>(widest * each, (int64_t{o.prompt} + kv::kBlockTokens) / kv::kBlockTokens);
  if (blocks > INT32_MAX) {
    return errorf(Code::kInvalidArgument, "{} sequences of {} tokens are too much KV cache", widest,
                  deepest + o.generate);
  }
  engine::StageOptions options;
  options.kv_blocks = static_cast<int32_t>(blocks);
  options.max_rows = std::max(512, widest);  // prompts and depths are filled 512 rows at a time
  options.max_logit_rows = widest;
  Progress progress("loading", o.progress);
  return engine::Stage::load(std::make_shared<engine::ModelFile>(std::move(file)), options, kernels,
                             team,
                             [&](int64_t done, int64_t total) { progress.report(done, total); });
}

Result<int> run(std::span<const std::string> args) {
  BenchOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  if (o.batches.empty()) o.batches = {1};
  if (o.depths.empty()) o.depths = {0};
  ASSIGN_OR_RETURN(const engine::KernelTable* kernels, engine::kernel_table(o.isa));
  engine::ComputeTeam team(o.threads);
  ASSIGN_OR_RETURN(engine::Stage stage, load(o, *kernels, team));
  if (!o.json) {
    std::puts(format("{}: {} of weights, {} kernels, {} threads", stage.desc().name,
                     format_bytes(stage.weights().bytes()), kernels->name, o.threads)
                  .c_str());
    std::puts(format("{:<8}{:>6}{:>7}{:>11}{:>11}{:>9}{:>9}{:>8}{:>9}{}", "test", "batch", "depth",
                     "tokens/s", "best", "Gop/s", "of peak", "GB/s", "of read",
                     o.depths.size() > 1 ? "  of first" : "")
                  .c_str());
  }
  const auto print = [&](const std::vector<Measured>& list) -> Result<void> {
    for (const Measured& m : list) {
      if (o.json) {
        print_json(o, stage, m);
        continue;
      }
      ASSIGN_OR_RETURN(const Limits limits, measure_limits(team, *kernels, stage));
      print_row(o, stage, m, limits);
    }
    return {};
  };
  if (o.prompt > 0) {
    Workload work(stage, 1, o.prompt);
    const int none = 0;
    TRY(print(measure(format("pp{}", o.prompt), 1, {&none, 1}, o.reps, o.prompt,
                      [&](int) { work.evaluate(0, 0, o.prompt, true); })));
  }
  const int deepest = *std::ranges::max_element(o.depths);
  for (const int batch : o.batches) {
    if (o.generate == 0) break;
    Workload work(stage, batch, deepest + o.generate);
    for (int s = 0; s < batch; ++s) work.evaluate(s, 0, deepest, false);
    TRY(print(measure(format("tg{}", o.generate), batch, o.depths, o.reps,
                      static_cast<double>(batch) * o.generate, [&](int depth) {
                        for (int i = 0; i < o.generate; ++i) work.decode(depth + i);
                      })));
  }
  return 0;
}

}  // namespace

const Command kBenchEngine = {"bench engine", "measure the engine's speed on a model", run,
                              [](void (*sink)(const OptionTable&)) {
                                BenchOptions o;
                                sink(table(o));
                              }};

}  // namespace towline::cli
