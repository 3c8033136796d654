// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Speed of the kernels on the matrix shapes of a model, beside the machine's measured limits.
//
//   kernel_bench --threads 2 --types q4_0,q8_0 --rows 1,8,32,512 --shapes 2048x8192,8192x2048
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "base/fmt.hpp"
#include "base/options.hpp"
#include "base/rng.hpp"
#include "engine/kernel/arena.hpp"
#include "engine/kernel/compute_team.hpp"
#include "engine/kernel/kernel_table.hpp"
#include "engine/kernel/probe.hpp"

namespace towline::engine {
namespace {

struct BenchOptions {
  std::string isa = "auto";
  int threads = 2;
  std::string types = "q4_0,q8_0,q4_k,q6_k,bf16,f16,f32";
  std::string shapes = "2048x8192,8192x2048";
  std::vector<int> rows = {1, 8, 16, 32, 512};
  double seconds = 0.4;
  bool attention = false;
};

OptionTable table(BenchOptions& o) {
  OptionTable t("kernel_bench", "Measure the kernels beside the machine's limits.");
  t.value("isa", &o.isa, "kernel table: auto, generic, avx2, avx512");
  t.value("threads", &o.threads, "threads of the team").range(1, 1024);
  t.value("types", &o.types, "weight types, separated by commas");
  t.value("shapes", &o.shapes, "columns x rows of the weight matrices, separated by commas");
  t.value("rows", &o.rows, "activation rows (batch sizes)");
  t.value("seconds", &o.seconds, "time a measurement").range(0.01, 60);
  t.flag("attention", &o.attention, "measure attention instead of matrix products");
  t.example("kernel_bench --types q4_0 --shapes 2048x128256 --rows 1,32");
  return t;
}

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Timing {
  double best, median;
};
template <class Work>
Timing time_of(double seconds, const Work& work) {
  std::vector<double> times;
  const auto begin = Clock::now();
  work();
  do {
    const auto start = Clock::now();
    work();
    times.push_back(seconds_since(start));
  } while (seconds_since(begin) < seconds);
  std::sort(times.begin(), times.end());
  return {times.front(), times[times.size() / 2]};
}

void print_probes(ComputeTeam& team, const KernelTable& kernels) {
  const double bandwidth = measure_read_bandwidth(team, kernels, 512 << 20, 0.3).value();
  std::printf("# probes: read %.1f GB/s, int8 %.0f Gop/s, fma %.0f Gop/s\n", bandwidth * 1e-9,
              measure_int8_peak(team, kernels, 0.1) * 1e-9,
              measure_fma_peak(team, kernels, 0.1) * 1e-9);
  std::fflush(stdout);
}

// As many copies of the matrix as exceed the caches, so that M = 1 reads from memory.
struct Matrices {
  Arena arena;
  std::vector<PackedMatrix> list;
  Matrices(DType type, int64_t rows, int64_t cols) {
    Rng rng(1);
    const PackedMatrix shape = plan_packed(type, rows, cols).value();
    const int64_t copies = std::max<int64_t>(1, (int64_t{256} << 20) / shape.bytes());
    arena = Arena::create(copies * Arena::rounded(shape.bytes())).value();
    std::vector<float> row(static_cast<size_t>(cols));
    for (float& x : row) x = static_cast<float>(rng.unit() - 0.5) * 0.1f;
    std::vector<std::byte> file(static_cast<size_t>(row_bytes(type, cols)));
    quantize_row(type, row, file.data());
    const PackSource source{.dtype = type, .data = file.data(), .row_stride = 0, .rows = rows,
                            .col_begin = 0, .cols = cols};
    for (int64_t i = 0; i < copies; ++i) {
      PackedMatrix m = shape;
      m.panels = arena.take(m.bytes());
      if (i == 0) {
        pack(source, m, 0, m.panel_count());
      } else {
        std::copy_n(list[0].panels, m.bytes(), m.panels);
      }
      list.push_back(m);
    }
  }
};

void bench_gemm(const BenchOptions& o, ComputeTeam& team, const KernelTable& kernels, DType type,
                int64_t cols, int64_t rows) {
  Matrices matrices(type, rows, cols);
  Rng rng(2);
  for (const int m : o.rows) {
    std::vector<float> x(static_cast<size_t>(m * cols));
    for (float& v : x) v = static_cast<float>(rng.unit() - 0.5);
    Arena results = Arena::create(m * rows * 4).value();
    auto* const out = reinterpret_cast<float*>(results.take(m * rows * 4));
    Activations acts;
    acts.reset(act_kind(type), m, cols);
    const Timing prepare = time_of(0.02, [&] {
      team.parallel_ranges(acts.group_count(), [&](int64_t begin, int64_t end, int) {
        kernels.prepare(acts, begin, end, x.data(), cols);
      });
    });
    size_t turn = 0;
    const Timing t = time_of(o.seconds, [&] {
      const PackedMatrix& w = matrices.list[turn++ % matrices.list.size()];
      team.parallel_ranges(w.panel_count(), [&](int64_t begin, int64_t end, int) {
        kernels.gemm(w, begin, end, acts, out, rows);
      });
    });
    const double ops = 2.0 * static_cast<double>(m) * static_cast<double>(rows * cols);
    const auto bytes = static_cast<double>(matrices.list[0].bytes());
    std::printf("%-5s %6lldx%-6lld M=%-4d median %9.1f us  %6.1f GB/s %6.1f Gop/s   best %6.1f GB/s"
                " %6.1f Gop/s   prepare %7.1f us\n",
                std::string(dtype_info(type).name).c_str(), static_cast<long long>(cols),
                static_cast<long long>(rows), m, t.median * 1e6, bytes / t.median * 1e-9,
                ops / t.median * 1e-9, bytes / t.best * 1e-9, ops / t.best * 1e-9,
                prepare.median * 1e6);
    std::fflush(stdout);
  }
}

// One layer's attention with the head shape of Llama-3.2-1B: 8 KV heads of 4 query heads of 64.
void bench_attention(const BenchOptions& o, ComputeTeam& team, const KernelTable& kernels) {
  constexpr int kKvHeads = 8, kGroup = 4, kDim = 64, kTokens = 2048, kLayers = 16;
  constexpr int64_t kPlane = kKvHeads * kKvBlockTokens * kDim;
  Rng rng(3);
  constexpr int64_t kSize = kLayers * 2 * kPlane * kTokens / kKvBlockTokens;
  Arena arena = Arena::create(kSize * 2).value();
  auto* const kv = reinterpret_cast<uint16_t*>(arena.take(kSize * 2));
  for (int64_t i = 0; i < kSize; ++i) {
    kv[i] = float_to_half(static_cast<float>(rng.unit() - 0.5));
  }
  std::vector<int32_t> blocks(kTokens / kKvBlockTokens);
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(i);
  std::vector<std::vector<float>> scratch(
      static_cast<size_t>(team.threads()),
      std::vector<float>(static_cast<size_t>(attention_scratch_floats(kDim))));
  constexpr int64_t kWidth = kKvHeads * kGroup * kDim;
  std::vector<float> q(512 * kWidth, 0.1f), out(q.size());
  for (const auto& [first, rows] : {std::pair{511, 1}, {2047, 1}, {0, 512}, {1536, 512}}) {
    int layer = 0;
    const Timing t = time_of(o.seconds, [&] {
      const uint16_t* base = kv + kPlane * 2 * kTokens / kKvBlockTokens * (layer++ % kLayers);
      const int tiles = (rows + 15) / 16;
      team.parallel_for(kKvHeads * tiles, [&](int64_t part, int thread) {
        const int64_t head = part / tiles, row = part % tiles * 16;
        kernels.attention({.q = q.data() + row * kWidth + head * kGroup * kDim,
                           .q_stride = kWidth,
                           .out = out.data() + row * kWidth + head * kGroup * kDim,
                           .out_stride = kWidth,
                           .rows = static_cast<int32_t>(std::min<int64_t>(16, rows - row)),
                           .first_position = static_cast<int32_t>(first + row),
                           .heads = kGroup,
                           .head_dim = kDim,
                           .scale = 0.125f,
                           .window = 0,
                           .k = base + head * kKvBlockTokens * kDim,
                           .v = base + kPlane + head * kKvBlockTokens * kDim,
                           .block_stride = 2 * kPlane,
                           .blocks = blocks.data(),
                           .scratch = scratch[static_cast<size_t>(thread)].data()});
      });
    });
    const double pairs = rows * (first + (rows + 1) / 2.0);
    std::printf("attention rows %4d at %4d: median %8.1f us a layer, %6.1f Gop/s, best %8.1f us\n",
                rows, first, t.median * 1e6, pairs * kWidth * 4 / t.median * 1e-9, t.best * 1e6);
  }
}

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> words;
  for (size_t at = 0; at <= list.size();) {
    const size_t comma = std::min(list.find(',', at), list.size());
    words.push_back(list.substr(at, comma - at));
    at = comma + 1;
  }
  return words;
}

int fail(const Error& error) {
  std::fprintf(stderr, "kernel_bench: %s\n", error.to_string().c_str());
  return exit_code(error.code());
}

int run(std::span<const std::string> args) {
  BenchOptions o;
  const Result<ParseOutcome> outcome = table(o).parse(args);
  if (!outcome) return fail(outcome.error());
  if (*outcome == ParseOutcome::kDone) return 0;
  const Result<const KernelTable*> kernels = kernel_table(o.isa);
  if (!kernels) return fail(kernels.error());
  ComputeTeam team(o.threads);
  std::printf("# %s, %d threads\n", std::string((*kernels)->name).c_str(), o.threads);
  print_probes(team, **kernels);
  if (o.attention) {
    bench_attention(o, team, **kernels);
    return 0;
  }
  for (const std::string& name : split(o.types)) {
    const std::optional<DType> type = dtype_from_name(name);
    if (!type) return fail(errorf(Code::kInvalidArgument, "--types: no weight type '{}'", name));
    for (const std::string& shape : split(o.shapes)) {
      long long cols = 0, rows = 0;
      if (std::sscanf(shape.c_str(), "%lldx%lld", &cols, &rows) != 2 ||
          !plan_packed(*type, rows, cols)) {
        return fail(errorf(Code::kInvalidArgument, "--shapes: '{}' is not COLUMNSxROWS of {}",
                           shape, name));
      }
      bench_gemm(o, team, **kernels, *type, cols, rows);
    }
  }
  print_probes(team, **kernels);
  return 0;
}

}  // namespace
}  // namespace towline::engine

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  return towline::engine::run(args);
}
