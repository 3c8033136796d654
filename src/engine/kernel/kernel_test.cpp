// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Every slot of every table that this processor can run: against double-precision oracles written
// here, against the generic table bit for bit, and against itself in other batches and partitions.
#include "engine/kernel/kernel_table.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/for_seeds.hpp"
#include "engine/kernel/arena.hpp"
#include "engine/kernel/kernel_math.hpp"

namespace towline::engine {
namespace {

constexpr DType kAllTypes[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ8_0,
                               DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                               DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

float uniform(Rng& rng) { return static_cast<float>(2.0 * rng.unit() - 1.0); }
std::vector<float> random_floats(Rng& rng, int64_t n) {
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = uniform(rng);
  return v;
}

// A matrix in file layout, with its packed form and its float values.
struct Weights {
  DType type;
  int64_t rows, cols;
  std::vector<std::byte> file;
  Arena arena;
  PackedMatrix packed;
  std::vector<float> values;  // [rows][cols]

  Weights(Rng& rng, DType dtype, int64_t r, int64_t c, int32_t k_shards = 1)
      : type(dtype), rows(r), cols(c) {
    const auto stride = static_cast<size_t>(row_bytes(type, cols));
    file.resize(static_cast<size_t>(rows) * stride);
    values.resize(static_cast<size_t>(rows * cols));
    for (int64_t i = 0; i < rows; ++i) {
      const std::vector<float> row = random_floats(rng, cols);
      std::byte* to = file.data() + static_cast<size_t>(i) * stride;
      quantize_row(type, row, to);
      dequantize_row(type, to, row_values(i));
    }
    packed = plan_packed(type, rows, cols, k_shards).value();
    arena = Arena::create(packed.bytes()).value();
    packed.panels = arena.take(packed.bytes());
    pack(source(), packed, 0, packed.panel_count());
  }
  PackSource source() const {
    return {.dtype = type, .data = file.data(), .row_stride = row_bytes(type, cols), .rows = rows,
            .col_begin = 0, .cols = cols};
  }
  std::span<float> row_values(int64_t i) {
    return std::span(values).subspan(static_cast<size_t>(i * cols), static_cast<size_t>(cols));
  }
};

int64_t random_cols(Rng& rng, DType type) {
  const int64_t block = dtype_info(type).block;
  if (block == 1) return rng.between(1, 300);
  return block * rng.between(1, block == 32 ? 12 : 3);
}

std::vector<float> multiply(const KernelTable& t, const Weights& w, const float* x, int64_t m) {
  Activations acts;
  acts.reset(act_kind(w.type), m, w.cols);
  t.prepare(acts, 0, acts.group_count(), x, w.cols);
  std::vector<float> out(static_cast<size_t>(m * w.rows), -1.0f);
  t.gemm(w.packed, 0, w.packed.panel_count(), acts, out.data(), w.rows);
  return out;
}

void expect_same_bits(const float* a, const float* b, int64_t n, const std::string& what) {
  for (int64_t i = 0; i < n; ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(a[i]), std::bit_cast<uint32_t>(b[i]))
        << what << " at " << i << ": " << a[i] << " and " << b[i];
  }
}
void expect_same_bits(const std::vector<float>& a, const std::vector<float>& b,
                      const std::string& what) {
  ASSERT_EQ(a.size(), b.size());
  expect_same_bits(a.data(), b.data(), static_cast<int64_t>(a.size()), what);
}

class EveryTable : public ::testing::TestWithParam<const KernelTable*> {
 protected:
  const KernelTable& table() const { return *GetParam(); }
  const KernelTable& generic() const { return *generic_table(); }
};
INSTANTIATE_TEST_SUITE_P(Kernels, EveryTable, ::testing::ValuesIn(attainable_tables()),
                         [](const auto& param) { return std::string(param.param->name); });

// --- packing ---

TEST(Packed, GivesTheValuesOfTheFile) {
  for_seeds(4, [](Rng& rng) {
    for (const DType type : kAllTypes) {
      SCOPED_TRACE(dtype_info(type).name);
      Weights w(rng, type, rng.between(1, 50), random_cols(rng, type));
      std::vector<float> row(static_cast<size_t>(w.cols));
      for (int64_t i = 0; i < w.rows; ++i) {
        unpack_row(w.packed, i, row);
        expect_same_bits(row.data(), w.row_values(i).data(), w.cols, "unpack_row");
      }
    }
  });
}

TEST(Packed, PanelsAndColumnRangesPackAlone) {
  Rng rng(3);
  for (const DType type : kAllTypes) {
    SCOPED_TRACE(dtype_info(type).name);
    const int64_t block = std::max<int64_t>(dtype_info(type).block, 2);
    Weights w(rng, type, 37, 3 * block);
    Arena arena = Arena::create(w.packed.bytes()).value();
    PackedMatrix again = w.packed;
    again.panels = arena.take(w.packed.bytes());
    for (int64_t p = w.packed.panel_count(); p-- > 0;) pack(w.source(), again, p, p + 1);
    EXPECT_EQ(std::memcmp(again.panels, w.packed.panels, static_cast<size_t>(again.bytes())), 0);

    PackSource middle = w.source();
    middle.col_begin = block;
    middle.cols = block;
    PackedMatrix part = plan_packed(type, w.rows, block).value();
    Arena small = Arena::create(part.bytes()).value();
    part.panels = small.take(part.bytes());
    pack(middle, part, 0, part.panel_count());
    std::vector<float> row(static_cast<size_t>(block));
    unpack_row(part, 36, row);
    expect_same_bits(row.data(), w.row_values(36).data() + block, block, "column range");
  }
}

TEST(Packed, RefusesShapesThatDoNotFit) {
  EXPECT_FALSE(plan_packed(DType::kQ4_0, 16, 40));
  EXPECT_FALSE(plan_packed(DType::kQ4_K, 16, 128));
  EXPECT_FALSE(plan_packed(DType::kF32, 0, 128));
  EXPECT_FALSE(plan_packed(DType::kQ4_0, 16, 96, 2));  // a shard of 48 columns
  EXPECT_FALSE(plan_packed(DType::kQ4_0, 16, 96, 3));
  EXPECT_TRUE(plan_packed(DType::kQ4_0, 16, 128, 4));
}

// --- matrix products ---

TEST_P(EveryTable, GemmIsCloseToDoublePrecision) {
  for_seeds(6, [&](Rng& rng) {
    for (const DType type : kAllTypes) {
      SCOPED_TRACE(dtype_info(type).name);
      Weights w(rng, type, rng.between(1, 70), random_cols(rng, type));
      const int64_t m = rng.between(1, 30);
      const std::vector<float> x = random_floats(rng, m * w.cols);
      const std::vector<float> out = multiply(table(), w, x.data(), m);
      // Rounding of the activations: 1/254 of a block's largest for int8, 2^-9 for bf16. Errors are
      // independent, so they grow with the root of the length: a bound of five deviations.
      const ActKind kind = act_kind(type);
      const double step = kind == ActKind::kInt8 ? 1.0 / 254 : kind == ActKind::kBF16 ? 1.0 / 512
                                                                                   : 1e-6;
      for (int64_t i = 0; i < m; ++i) {
        for (int64_t r = 0; r < w.rows; ++r) {
          double want = 0, power = 0;
          for (int64_t k = 0; k < w.cols; ++k) {
            const double a = w.row_values(r)[static_cast<size_t>(k)];
            want += a * x[static_cast<size_t>(i * w.cols + k)];
            power += a * a;
          }
          const double got = out[static_cast<size_t>(i * w.rows + r)];
          ASSERT_NEAR(got, want, 5 * step * std::sqrt(power) + 1e-6) << "row " << r << " of " << i;
        }
      }
    }
  });
}

TEST_P(EveryTable, GemmHasTheBitsOfGeneric) {
  for_seeds(6, [&](Rng& rng) {
    for (const DType type : kAllTypes) {
      SCOPED_TRACE(dtype_info(type).name);
      const int32_t shards = 1 << rng.below(3);
      const int64_t cols =
          shards == 1 ? random_cols(rng, type)
                      : shards * std::max<int64_t>(2, dtype_info(type).block) * rng.between(1, 3);
      Weights w(rng, type, rng.between(1, 70), cols, shards);
      const int64_t m = rng.below(4) == 0 ? rng.between(96, 120) : rng.between(1, 40);
      const std::vector<float> x = random_floats(rng, m * w.cols);
      const std::vector<float> got = multiply(table(), w, x.data(), m);
      const std::vector<float> want = multiply(generic(), w, x.data(), m);
      if (type != DType::kBF16) {
        expect_same_bits(got, want, "gemm");
        continue;
      }
      for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-4);
    }
  });
}

TEST_P(EveryTable, ARowIsTheSameInAnyBatch) {
  for_seeds(3, [&](Rng& rng) {
    for (const DType type : kAllTypes) {
      SCOPED_TRACE(dtype_info(type).name);
      Weights w(rng, type, 40, type == DType::kF32 ? 77 : random_cols(rng, type));
      constexpr int64_t kRows = 61;
      const std::vector<float> x = random_floats(rng, kRows * w.cols);
      std::vector<float> alone;
      for (int64_t i = 0; i < kRows; ++i) {
        const std::vector<float> one = multiply(table(), w, x.data() + i * w.cols, 1);
        alone.insert(alone.end(), one.begin(), one.end());
      }
      for (const int64_t m : {2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 24, 32, 61}) {
        const int64_t first = rng.between(0, kRows - m);
        const std::vector<float> out = multiply(table(), w, x.data() + first * w.cols, m);
        expect_same_bits(out.data(), alone.data() + first * w.rows, m * w.rows,
                         "batch of " + std::to_string(m));
      }
    }
  });
}

TEST_P(EveryTable, PanelsComputeAlone) {
  Rng rng(5);
  for (const DType type : kAllTypes) {
    SCOPED_TRACE(dtype_info(type).name);
    Weights w(rng, type, 16 * 7 + 3, 256);
    for (const int64_t m : {1, 9, 64}) {
      const std::vector<float> x = random_floats(rng, m * w.cols);
      const std::vector<float> whole = multiply(table(), w, x.data(), m);
      Activations acts;
      acts.reset(act_kind(type), m, w.cols);
      for (int64_t g = acts.group_count(); g-- > 0;) table().prepare(acts, g, g + 1, x.data(), 256);
      std::vector<float> parts(whole.size());
      for (int64_t p = 0; p < w.packed.panel_count();) {
        const int64_t n = std::min(rng.between(1, 3), w.packed.panel_count() - p);
        table().gemm(w.packed, p, p + n, acts, parts.data(), w.rows);
        p += n;
      }
      expect_same_bits(parts, whole, "panels");
    }
  }
}

// A rank that holds an aligned piece of the columns computes its branch of the sum's tree.
TEST_P(EveryTable, ColumnShardsAddUpToTheWhole) {
  Rng rng(7);
  for (const DType type : kAllTypes) {
    SCOPED_TRACE(dtype_info(type).name);
    const int64_t cols = 8 * 256;
    Weights w(rng, type, 20, cols, 8);
    const int64_t m = 5;
    const std::vector<float> x = random_floats(rng, m * cols);
    const std::vector<float> whole = multiply(table(), w, x.data(), m);
    std::vector<float> halves[2];
    for (int half = 0; half < 2; ++half) {
      PackSource source = w.source();
      source.col_begin = half * cols / 2;
      source.cols = cols / 2;
      PackedMatrix part = plan_packed(type, w.rows, cols / 2, 4).value();
      Arena arena = Arena::create(part.bytes()).value();
      part.panels = arena.take(part.bytes());
      pack(source, part, 0, part.panel_count());
      Activations acts;
      acts.reset(act_kind(type), m, cols / 2);
      table().prepare(acts, 0, acts.group_count(), x.data() + half * cols / 2, cols);
      halves[half].resize(whole.size());
      table().gemm(part, 0, part.panel_count(), acts, halves[half].data(), w.rows);
    }
    table().add(halves[0].data(), halves[1].data(), static_cast<int64_t>(whole.size()));
    expect_same_bits(halves[0], whole, "sum of shards");
  }
}

TEST_P(EveryTable, GemmSurvivesOddActivations) {
  Rng rng(9);
  const float inf = std::numeric_limits<float>::infinity();
  for (const DType type : {DType::kQ4_0, DType::kQ8_0, DType::kQ6_K, DType::kQ4_K}) {
    Weights w(rng, type, 16, 256);
    std::vector<float> x(256 * 4, 0.0f);
    x[256 + 5] = std::numeric_limits<float>::quiet_NaN();
    x[512 + 40] = inf;
    x[768] = 1e-38f;
    const std::vector<float> out = multiply(table(), w, x.data(), 4);
    EXPECT_EQ(out[0], 0.0f);
    EXPECT_TRUE(std::isnan(out[16]));
    EXPECT_TRUE(std::isnan(out[32]));
    EXPECT_EQ(out[48], 0.0f);
  }
}

// --- attention ---

// One layer's KV memory with blocks in random order; two KV heads.
struct Kv {
  int64_t tokens, dim, stride;
  std::vector<uint16_t> k, v;
  std::vector<int32_t> blocks;
  Kv(Rng& rng, int64_t n, int64_t d) : tokens(n), dim(d), stride(2 * kKvBlockTokens * d) {
    const int64_t count = (n + kKvBlockTokens - 1) / kKvBlockTokens;
    for (int64_t i = 0; i < count; ++i) blocks.push_back(static_cast<int32_t>(i));
    for (int64_t i = count; i-- > 1;) std::swap(blocks[i], blocks[rng.below(i + 1)]);
    // Places that hold no token are NaN: nobody may use them.
    k.assign(static_cast<size_t>(count * stride), 0x7e00);
    v = k;
    for (int64_t t = 0; t < n; ++t) {
      for (int64_t h = 0; h < 2; ++h) {
        for (int64_t i = 0; i < d; ++i) {
          k[key(t, h, i)] = float_to_half(3 * uniform(rng));
          v[value(t, h, i)] = float_to_half(uniform(rng));
        }
      }
    }
  }
  int64_t block(int64_t t, int64_t head) const {
    return blocks[t / kKvBlockTokens] * stride + head * kKvBlockTokens * dim;
  }
  int64_t key(int64_t t, int64_t head, int64_t i) const {
    return block(t, head) + i * kKvBlockTokens + t % kKvBlockTokens;
  }
  int64_t value(int64_t t, int64_t head, int64_t i) const {
    return block(t, head) + t % kKvBlockTokens * dim + i;
  }
};

struct AttentionCase {
  const Kv& kv;
  int64_t heads, window, kv_head;
  const std::vector<float>& q;  // [tokens][heads][dim]

  std::vector<float> run(const KernelTable& t, int64_t first, int64_t rows) const {
    std::vector<float> out(static_cast<size_t>(rows * heads * kv.dim), -7.0f);
    Arena scratch =
        Arena::create(attention_scratch_floats(static_cast<int32_t>(kv.dim)) * 4).value();
    const int64_t width = heads * kv.dim;
    t.attention({.q = q.data() + first * width,
                 .q_stride = width,
                 .out = out.data(),
                 .out_stride = width,
                 .rows = static_cast<int32_t>(rows),
                 .first_position = static_cast<int32_t>(first),
                 .heads = static_cast<int32_t>(heads),
                 .head_dim = static_cast<int32_t>(kv.dim),
                 .scale = 1.0f / std::sqrt(static_cast<float>(kv.dim)),
                 .window = static_cast<int32_t>(window),
                 .k = kv.k.data() + kv_head * kKvBlockTokens * kv.dim,
                 .v = kv.v.data() + kv_head * kKvBlockTokens * kv.dim,
                 .block_stride = kv.stride,
                 .blocks = kv.blocks.data(),
                 .scratch = reinterpret_cast<float*>(scratch.take(scratch.size()))});
    return out;
  }

  void oracle(int64_t position, int64_t head, std::vector<double>& out) const {
    const float* query = q.data() + (position * heads + head) * kv.dim;
    const int64_t low = window > 0 ? std::max<int64_t>(0, position - window + 1) : 0;
    std::vector<double> score;
    for (int64_t t = low; t <= position; ++t) {
      double s = 0;
      for (int64_t i = 0; i < kv.dim; ++i) {
        s += double{query[i]} * half_to_float(kv.k[kv.key(t, kv_head, i)]);
      }
      score.push_back(s / std::sqrt(static_cast<double>(kv.dim)));
    }
    const double top = *std::max_element(score.begin(), score.end());
    double total = 0;
    for (double& s : score) total += s = std::exp(s - top);
    out.assign(static_cast<size_t>(kv.dim), 0.0);
    for (int64_t t = low; t <= position; ++t) {
      for (int64_t i = 0; i < kv.dim; ++i) {
        out[i] += score[t - low] / total * half_to_float(kv.v[kv.value(t, kv_head, i)]);
      }
    }
  }
};

TEST_P(EveryTable, AttentionIsExactAndIndependentOfChunks) {
  constexpr int64_t kDims[] = {8, 16, 24, 48, 64, 80, 96, 128};
  for_seeds(10, [&](Rng& rng) {
    const int64_t dim = kDims[rng.below(8)];
    const Kv kv(rng, rng.between(1, 300), dim);
    const int64_t heads = rng.between(1, 8);
    const int64_t window = rng.below(2) == 0 ? 0 : rng.between(1, 200);
    const std::vector<float> q = random_floats(rng, kv.tokens * heads * dim);
    const AttentionCase c{kv, heads, window, static_cast<int64_t>(rng.below(2)), q};
    const std::vector<float> whole = c.run(table(), 0, kv.tokens);

    std::vector<double> want;
    for (const int64_t t : {int64_t{0}, kv.tokens / 2, kv.tokens - 1}) {
      for (int64_t h = 0; h < heads; ++h) {
        c.oracle(t, h, want);
        for (int64_t i = 0; i < dim; ++i) {
          ASSERT_NEAR(whole[(t * heads + h) * dim + i], want[i], 2e-5) << t << " head " << h;
        }
      }
    }
    expect_same_bits(c.run(generic(), 0, kv.tokens), whole, "generic");
    for (int64_t first = 0; first < kv.tokens;) {
      const int64_t rows = std::min(rng.between(1, 40), kv.tokens - first);
      const std::vector<float> part = c.run(table(), first, rows);
      expect_same_bits(part.data(), whole.data() + first * heads * dim, rows * heads * dim,
                       "chunk of " + std::to_string(rows) + " at " + std::to_string(first));
      first += rows;
    }
  });
}

// --- vectors ---

TEST_P(EveryTable, ExpIsAccurate) {
  Rng rng(1);
  for (int i = 0; i < 20000; ++i) {
    const float x = static_cast<float>(rng.unit() * 170 - 86);
    const double want = std::exp(static_cast<double>(x));
    ASSERT_NEAR(table().exp(x) / want, 1.0, 3e-7) << x;
  }
  EXPECT_EQ(table().exp(0.0f), 1.0f);
  EXPECT_EQ(table().exp(-88.0f), 0.0f);
  EXPECT_EQ(table().exp(-std::numeric_limits<float>::infinity()), 0.0f);
  EXPECT_TRUE(std::isnan(table().exp(std::numeric_limits<float>::quiet_NaN())));
}

TEST_P(EveryTable, VectorKernelsHaveTheBitsOfGenericAndAreAccurate) {
  for_seeds(30, [&](Rng& rng) {
    const int64_t n = rng.between(1, 200);
    const std::vector<float> x = random_floats(rng, n), y = random_floats(rng, n);
    std::vector<float> a(x), b(x);

    table().rmsnorm(x.data(), y.data(), 1e-5f, n, a.data());
    generic().rmsnorm(x.data(), y.data(), 1e-5f, n, b.data());
    expect_same_bits(a, b, "rmsnorm");
    double power = 0;
    for (const float v : x) power += double{v} * v;
    const double root = std::sqrt(power / static_cast<double>(n) + 1e-5);
    for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(a[i], x[i] / root * y[i], 1e-6 / root);

    std::vector<float> wide(x);
    for (float& v : wide) v *= 60;
    table().silu_mul(wide.data(), y.data(), n, a.data());
    generic().silu_mul(wide.data(), y.data(), n, b.data());
    expect_same_bits(a, b, "silu_mul");
    for (int64_t i = 0; i < n; ++i) {
      const double z = wide[i];
      ASSERT_NEAR(a[i], z / (1 + std::exp(-z)) * y[i], 1e-6 * std::fabs(z) + 1e-30);
    }

    a = x;
    b = x;
    table().add(a.data(), y.data(), n);
    generic().add(b.data(), y.data(), n);
    expect_same_bits(a, b, "add");

    a = wide;
    b = wide;
    const float log_a = table().softmax(a.data(), n);
    const float log_b = generic().softmax(b.data(), n);
    expect_same_bits(a, b, "softmax");
    ASSERT_EQ(log_a, log_b);
    double total = 0;
    for (const float v : wide) total += std::exp(double{v});
    ASSERT_NEAR(log_a, std::log(total), 1e-5 * std::fabs(std::log(total)) + 1e-5);
    for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(a[i], std::exp(double{wide[i]}) / total, 1e-6);

    std::vector<uint16_t> half_a(static_cast<size_t>(n)), half_b(half_a);
    table().to_half(wide.data(), n, half_a.data());
    generic().to_half(wide.data(), n, half_b.data());
    ASSERT_EQ(half_a, half_b);
    table().from_half(half_a.data(), n, a.data());
    generic().from_half(half_a.data(), n, b.data());
    expect_same_bits(a, b, "from_half");
  });
}

TEST_P(EveryTable, RopeTurnsPairs) {
  for_seeds(20, [&](Rng& rng) {
    const auto dim = static_cast<int32_t>(2 * rng.between(1, 66));
    const auto turned = static_cast<int32_t>(2 * rng.between(1, dim / 2));
    const auto heads = static_cast<int32_t>(rng.between(1, 5));
    std::vector<float> cos, sin;
    for (int32_t i = 0; i < turned / 2; ++i) {
      const double angle = rng.unit() * 6;
      cos.push_back(static_cast<float>(std::cos(angle)));
      sin.push_back(static_cast<float>(std::sin(angle)));
    }
    const std::vector<float> x = random_floats(rng, heads * dim);
    for (const auto pairing : {spec::RopePairing::kInterleaved, spec::RopePairing::kHalfSplit}) {
      std::vector<float> a(x), b(x);
      table().rope(a.data(), heads, dim, turned, cos.data(), sin.data(), pairing);
      generic().rope(b.data(), heads, dim, turned, cos.data(), sin.data(), pairing);
      expect_same_bits(a, b, "rope");
      const bool interleaved = pairing == spec::RopePairing::kInterleaved;
      for (int32_t h = 0; h < heads; ++h) {
        for (int32_t i = 0; i < turned / 2; ++i) {
          const int32_t p = h * dim + (interleaved ? 2 * i : i);
          const int32_t r = interleaved ? p + 1 : p + turned / 2;
          ASSERT_NEAR(a[p], double{x[p]} * cos[i] - double{x[r]} * sin[i], 1e-6);
          ASSERT_NEAR(a[r], double{x[p]} * sin[i] + double{x[r]} * cos[i], 1e-6);
        }
        for (int32_t i = turned; i < dim; ++i) ASSERT_EQ(a[h * dim + i], x[h * dim + i]);
      }
    }
  });
}

TEST(KernelTables, AreFoundByName) {
  EXPECT_EQ(kernel_table("generic").value()->name, "generic");
  EXPECT_EQ(kernel_table().value(), attainable_tables().front());
  const auto unknown = kernel_table("avx1024");
  ASSERT_FALSE(unknown);
  EXPECT_NE(unknown.error().message().find("generic"), std::string::npos);
}

}  // namespace
}  // namespace towline::engine
