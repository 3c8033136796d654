// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Attention over a vector V of 16 float lanes (see Lanes in avx512.cpp); generic.cpp says what is
// computed. A tile of up to 64 (query row, head) pairs walks through the KV blocks together, chunk
// by chunk: scores of all pairs with four blocks, one softmax step, then the values. Pairs are
// taken four at a time, so that each register of K or V serves four of them.
//
// K is kept transposed in a block, so a vector of K is one dimension of 16 tokens: the 16 partial
// sums of a dot product are 16 vectors, which are added up in their fixed tree without a shuffle.
//
// With few pairs (decoding) K and V are converted from float16 as they are used; with many
// (prefill) each block is converted once into the scratch. Neither changes a bit.
#pragma once

#include <cstdint>

#include "engine/kernel/kernel_table.hpp"
#include "engine/kernel/lane_math.hpp"

namespace towline::engine {

template <class V>
class LaneAttention {
 public:
  static void run(const AttentionArgs& a) {
    const int64_t heads = a.heads < kAttentionPairs ? a.heads : kAttentionPairs;
    const int64_t rows = kAttentionPairs / heads;
    for (int64_t row = 0; row < a.rows; row += rows) {
      for (int64_t head = 0; head < a.heads; head += heads) {
        LaneAttention tile(a, row, a.rows - row < rows ? a.rows - row : rows, head,
                           a.heads - head < heads ? a.heads - head : heads);
        tile.walk();
      }
    }
  }

 private:
  using F = typename V::F;
  static constexpr int kBlock = kKvBlockTokens;
  static constexpr int kFewPairs = 4;

  // The vectors of a block of K or V: float16 in place, or float32 in the scratch. With `ahead` a
  // load asks the memory for its place in the block that comes 64 tokens later (one in two loads: a
  // line holds two vectors). Asking for all of a block at once would fill the processor's queue of
  // misses and stall it. The request is for L2: blocks of a head lie a power of two apart and would
  // push each other out of the few ways of L1 that they share.
  struct Halves {
    const uint16_t* block;
    const uint16_t* later;
    int64_t stride;  // from a token's value to the next one's
    int tail;        // head_dim % 16: lanes of a value's last vector
    // Dimension i of 16 tokens.
    F key(int64_t i, bool ahead) const { return load(i * kBlock, true, ahead); }
    // Dimensions from i on of token t; not whole: the last ones.
    F value(int64_t t, int64_t i, bool whole, bool ahead) const {
      return load(t * stride + i, whole, ahead);
    }
    F load(int64_t at, bool whole, bool ahead) const {
      if (ahead) __builtin_prefetch(later + at, 0, 2);
      return whole ? V::load_half(block + at) : V::load_half(block + at, tail);
    }
  };
  struct Floats {
    const float* block;
    int64_t stride;
    F key(int64_t i, bool) const { return V::load(block + i * kBlock); }
    F value(int64_t t, int64_t i, bool, bool) const { return V::load(block + t * stride + i); }
  };

  LaneAttention(const AttentionArgs& args, int64_t row, int64_t rows, int64_t head, int64_t heads)
      : a_(args),
        count_(rows * heads),
        dim_((args.head_dim + kLanes - 1) / kLanes * kLanes),
        q_(args.scratch),
        acc_(q_ + kAttentionPairs * dim_),
        score_(acc_ + kAttentionPairs * dim_),
        lanes_(score_ + kAttentionPairs * kChunkTokens),
        top_(lanes_ + kAttentionPairs * kLanes),
        wide_(top_ + kAttentionPairs * kLanes),
        row_(row),
        head_(head),
        heads_(heads) {
    const F scale = V::set(a_.scale);
    int64_t pair = 0;
    for (int64_t r = row; r < row + rows; ++r) {
      const int64_t position = a_.first_position + r;
      const int64_t low = a_.window > 0 ? position - a_.window + 1 : 0;
      for (int64_t h = head; h < head + heads; ++h, ++pair) {
        low_[pair] = low > 0 ? low : 0;
        high_[pair] = position;
        const float* q = a_.q + r * a_.q_stride + h * a_.head_dim;
        for (int64_t i = 0; i < dim_; i += kLanes) {
          const int64_t left = a_.head_dim - i;
          const F v = left >= kLanes ? V::load(q + i) : V::load(q + i, static_cast<int>(left));
          V::store(q_ + pair * dim_ + i, V::mul(v, scale));
          V::store(acc_ + pair * dim_ + i, V::zero());
        }
        V::store(lanes_ + pair * kLanes, V::zero());
        top_[pair] = -__builtin_inff();
      }
    }
  }

  void walk() {
    const int64_t low = low_[0], high = high_[count_ - 1];
    for (int64_t chunk = low / kChunkTokens; chunk <= high / kChunkTokens; ++chunk) {
      const int64_t base = chunk * kChunkTokens;
      for (int64_t b = 0; b < kChunkBlocks; ++b) {
        const int64_t first = base + b * kBlock;
        if (first > high || first + kBlock <= low) {
          for (int64_t p = 0; p < count_; ++p) V::store(scores_of(p, b), V::set(kNone));
        } else if (count_ <= kFewPairs) {
          score_block(halves(a_.k, first), b, first);
        } else {
          score_block(wide_keys(first), b, first);
        }
      }
      for (int64_t p = 0; p < count_; ++p) {
        if (base <= high_[p] && base + kChunkTokens > low_[p]) update(p);
      }
      if (count_ <= kFewPairs && low_[count_ - 1] <= base && base + kChunkTokens - 1 <= high_[0]) {
        add_chunk(base);
        continue;
      }
      for (int64_t b = 0; b < kChunkBlocks; ++b) {
        const int64_t first = base + b * kBlock;
        if (first > high || first + kBlock <= low) continue;
        if (count_ <= kFewPairs) {
          value_block(halves(a_.v, first), b, first);
        } else {
          value_block(wide_values(first), b, first);
        }
      }
    }
    store_results();
  }

  const uint16_t* memory(const uint16_t* plane, int64_t token) const {
    return plane + a_.blocks[token / kBlock] * a_.block_stride;
  }

  Halves halves(const uint16_t* plane, int64_t token) const {
    const int64_t later = token + kChunkTokens;
    const uint16_t* at = memory(plane, token);
    return {at, later <= high_[count_ - 1] ? memory(plane, later) : at, a_.head_dim,
            a_.head_dim % kLanes};
  }
  Floats wide_keys(int64_t token) const {
    const Halves from = halves(a_.k, token);
    for (int64_t i = 0; i < a_.head_dim; ++i) {
      V::store(wide_ + i * kBlock, from.key(i, i % 2 == 0));
    }
    return {wide_, 0};
  }
  Floats wide_values(int64_t token) const {
    const Halves from = halves(a_.v, token);
    for (int64_t t = 0; t < kBlock; ++t) {
      for (int64_t i = 0; i < dim_; i += kLanes) {
        const bool whole = i + kLanes <= a_.head_dim;
        V::store(wide_ + t * dim_ + i, from.value(t, i, whole, i % (2 * kLanes) == 0));
      }
    }
    return {wide_, dim_};
  }

  float* scores_of(int64_t pair, int64_t block) const {
    return score_ + pair * kChunkTokens + block * kLanes;
  }

  // Scores of all pairs with the block whose first token is `first`; -inf where it is not seen.
  template <class Source>
  void score_block(const Source& k, int64_t block, int64_t first) const {
    switch (a_.head_dim) {  // the usual sizes without a loop
      case 64: score_all<4>(k, block); break;
      case 128: score_all<8>(k, block); break;
      default: score_all<0>(k, block);
    }
    for (int64_t p = 0; p < count_; ++p) {
      if (low_[p] <= first && high_[p] >= first + kBlock - 1) continue;
      const Seen s = seen(p, first);
      float* const scores = scores_of(p, block);
      const F none = V::set(kNone);
      V::store(scores, s.from <= s.to ? V::keep_range(V::load(scores), s.from, s.to, none) : none);
    }
  }

  template <int kSteps, class Source>
  void score_all(const Source& k, int64_t block) const {
    int64_t p = 0;
    for (; p + 4 <= count_; p += 4) score_pairs<4, kSteps>(k, p, block);
    if (p + 2 <= count_) score_pairs<2, kSteps>(k, p, block), p += 2;
    if (p < count_) score_pairs<1, kSteps>(k, p, block);
  }

  // Dot products of kPairs queries with the 16 tokens of the block.
  // (Not inlined: alone, this and add_values keep their sums in registers.)
  template <int kPairs, int kSteps, class Source>
  [[gnu::noinline]] void score_pairs(const Source& k, int64_t pair, int64_t block) const {
    F score[kPairs], right[kPairs], more[kPairs];
    quad<kPairs, kSteps>(k, pair, 0, score);
    quad<kPairs, kSteps>(k, pair, 4, more);
    for (int p = 0; p < kPairs; ++p) score[p] = V::add(score[p], more[p]);
    quad<kPairs, kSteps>(k, pair, 8, right);
    quad<kPairs, kSteps>(k, pair, 12, more);
    for (int p = 0; p < kPairs; ++p) {
      V::store(scores_of(pair + p, block), V::add(score[p], V::add(right[p], more[p])));
    }
  }

  // Lanes [lane, lane + 4) of the dot products, added up: (l0 + l2) + (l1 + l3).
  template <int kPairs, int kSteps, class Source>
  void quad(const Source& k, int64_t pair, int64_t lane, F (&sum)[kPairs]) const {
    F odd[kPairs], more[kPairs];
    one_lane<kPairs, kSteps>(k, pair, lane, true, sum);
    one_lane<kPairs, kSteps>(k, pair, lane + 2, true, more);
    for (int p = 0; p < kPairs; ++p) sum[p] = V::add(sum[p], more[p]);
    one_lane<kPairs, kSteps>(k, pair, lane + 1, false, odd);
    one_lane<kPairs, kSteps>(k, pair, lane + 3, false, more);
    for (int p = 0; p < kPairs; ++p) sum[p] = V::add(sum[p], V::add(odd[p], more[p]));
  }

  // The sums of dimensions lane, lane + 16, ...: kSteps of them; 0: as many as there are.
  template <int kPairs, int kSteps, class Source>
  void one_lane(const Source& k, int64_t pair, int64_t lane, bool ahead, F (&sum)[kPairs]) const {
    const float* q = q_ + pair * dim_;
    for (int p = 0; p < kPairs; ++p) sum[p] = V::zero();
    const auto add = [&](int64_t i) __attribute__((always_inline)) {
      const F key = k.key(i, ahead);
#pragma GCC unroll 4
      for (int p = 0; p < kPairs; ++p) sum[p] = V::fma(V::set(q[p * dim_ + i]), key, sum[p]);
    };
    if constexpr (kSteps > 0) {
#pragma GCC unroll 8
      for (int step = 0; step < kSteps; ++step) add(lane + step * kLanes);
    } else {
      for (int64_t i = lane; i < a_.head_dim; i += kLanes) add(i);
    }
  }

  // The softmax step of one pair after the scores of a chunk.
  void update(int64_t pair) const {
    F e[kChunkBlocks];
    for (int b = 0; b < kChunkBlocks; ++b) e[b] = V::load(scores_of(pair, b));
    const float chunk_top = V::top(V::max(V::max(e[0], e[1]), V::max(e[2], e[3])));
    const float old = top_[pair];
    const float top = old > chunk_top ? old : chunk_top;
    F total = V::load(lanes_ + pair * kLanes);
    if (top != old) {
      const F shrink = exp_lanes<V>(V::set(old - top));
      total = V::mul(total, shrink);
      float* acc = acc_ + pair * dim_;
      for (int64_t i = 0; i < dim_; i += kLanes) {
        V::store(acc + i, V::mul(V::load(acc + i), shrink));
      }
      top_[pair] = top;
    }
    for (int b = 0; b < kChunkBlocks; ++b) {
      e[b] = exp_lanes<V>(V::sub(e[b], V::set(top)));
      V::store(scores_of(pair, b), e[b]);
      total = V::add(total, e[b]);
    }
    V::store(lanes_ + pair * kLanes, total);
  }

  // The tokens of a block that a pair sees; empty if to < from.
  struct Seen {
    int from, to;
  };
  Seen seen(int64_t pair, int64_t first) const {
    return {static_cast<int>(low_[pair] > first ? low_[pair] - first : 0),
            static_cast<int>(high_[pair] - first < kBlock - 1 ? high_[pair] - first : kBlock - 1)};
  }

  // The values of a chunk that every pair sees whole.
  void add_chunk(int64_t base) const {
    const Halves v[kChunkBlocks] = {halves(a_.v, base), halves(a_.v, base + kBlock),
                                    halves(a_.v, base + 2 * kBlock),
                                    halves(a_.v, base + 3 * kBlock)};
    int64_t p = 0;
    if (count_ == 4) add_all<4, kChunkBlocks>(v, 0, 0, 0, kBlock - 1), p = 4;
    if (p + 2 <= count_) add_all<2, kChunkBlocks>(v, p, 0, 0, kBlock - 1), p += 2;
    if (p < count_) add_all<1, kChunkBlocks>(v, p, 0, 0, kBlock - 1);
  }

  template <class Source>
  void value_block(const Source& v, int64_t block, int64_t first) const {
    int64_t p = 0;
    for (; p + 4 <= count_; p += 4) value_pairs<4>(v, p, block, first);
    if (p + 2 <= count_) value_pairs<2>(v, p, block, first), p += 2;
    if (p < count_) value_pairs<1>(v, p, block, first);
  }

  // Tokens that all of the pairs see are added together; a pair's own ones before and after.
  template <int kPairs, class Source>
  void value_pairs(const Source& v, int64_t pair, int64_t block, int64_t first) const {
    Seen common{0, kBlock - 1};
    for (int p = 0; p < kPairs; ++p) {
      const Seen s = seen(pair + p, first);
      common.from = s.from > common.from ? s.from : common.from;
      common.to = s.to < common.to ? s.to : common.to;
    }
    if (common.from > common.to) common = {kBlock, kBlock - 1};
    if constexpr (kPairs > 1) {
      for (int p = 0; p < kPairs; ++p) {
        const Seen s = seen(pair + p, first);
        const int before = s.to < common.from - 1 ? s.to : common.from - 1;
        if (s.from <= before) add_all<1, 1>(&v, pair + p, block, s.from, before);
      }
    }
    if (common.from <= common.to) {
      add_all<kPairs, 1>(&v, pair, block, common.from, common.to);
    }
    if constexpr (kPairs > 1) {
      for (int p = 0; p < kPairs; ++p) {
        const Seen s = seen(pair + p, first);
        const int after = s.from > common.to + 1 ? s.from : common.to + 1;
        if (after <= s.to) add_all<1, 1>(&v, pair + p, block, after, s.to);
      }
    }
  }

  // The values of tokens [from, to] of kBlocks blocks from `block` on.
  template <int kPairs, int kBlocks, class Source>
  void add_all(const Source* v, int64_t pair, int64_t block, int from, int to) const {
    int64_t i = 0;
    for (; i + 4 * kLanes <= a_.head_dim; i += 4 * kLanes) {
      add_values<kPairs, 4, kBlocks>(v, pair, block, from, to, i, true);
    }
    for (; i + kLanes <= a_.head_dim; i += kLanes) {
      add_values<kPairs, 1, kBlocks>(v, pair, block, from, to, i, true);
    }
    if (i < dim_) add_values<kPairs, 1, kBlocks>(v, pair, block, from, to, i, false);
  }

  // acc[offset..] = fma(p[t], v[t][offset..], acc[offset..]) for the tokens in their order.
  template <int kPairs, int kVectors, int kBlocks, class Source>
  [[gnu::noinline]] void add_values(const Source* v, int64_t pair, int64_t block, int from, int to,
                                    int64_t offset, bool whole) const {
    float* acc = acc_ + pair * dim_ + offset;
    F sum[kPairs][kVectors];
    for (int p = 0; p < kPairs; ++p) {
      for (int n = 0; n < kVectors; ++n) sum[p][n] = V::load(acc + p * dim_ + n * kLanes);
    }
    for (int b = 0; b < kBlocks; ++b) {
      const Source values = v[b];
      const float* weights = scores_of(pair, block + b);
      for (int t = from; t <= to; ++t) {
        F value[kVectors];
        for (int n = 0; n < kVectors; ++n) {
          value[n] = values.value(t, offset + n * kLanes, whole, n % 2 == 0);
        }
#pragma GCC unroll 4
        for (int p = 0; p < kPairs; ++p) {
          const F weight = V::set(weights[p * kChunkTokens + t]);
#pragma GCC unroll 4
          for (int n = 0; n < kVectors; ++n) sum[p][n] = V::fma(weight, value[n], sum[p][n]);
        }
      }
    }
    for (int p = 0; p < kPairs; ++p) {
      for (int n = 0; n < kVectors; ++n) V::store(acc + p * dim_ + n * kLanes, sum[p][n]);
    }
  }

  void store_results() const {
    for (int64_t pair = 0; pair < count_; ++pair) {
      float* out = a_.out + (row_ + pair / heads_) * a_.out_stride +
                   (head_ + pair % heads_) * a_.head_dim;
      const F inverse = V::set(1.0f / V::sum(V::load(lanes_ + pair * kLanes)));
      const float* acc = acc_ + pair * dim_;
      int64_t i = 0;
      for (; i + kLanes <= a_.head_dim; i += kLanes) {
        V::store(out + i, V::mul(V::load(acc + i), inverse));
      }
      if (i < a_.head_dim) {
        V::store(out + i, V::mul(V::load(acc + i), inverse), static_cast<int>(a_.head_dim - i));
      }
    }
  }

  static constexpr float kNone = -__builtin_inff();

  const AttentionArgs& a_;
  const int64_t count_;  // pairs of this tile
  const int64_t dim_;    // head_dim rounded up to 16
  // Arrays in the caller's scratch.
  float* const q_;      // [pair][dim], times the scale, zero beyond head_dim
  float* const acc_;    // [pair][dim]
  float* const score_;  // [pair][64 tokens of the chunk]
  float* const lanes_;  // [pair][16] sums of the exponentials
  float* const top_;    // [pair]
  float* const wide_;   // a block of K, or of V
  const int64_t row_, head_, heads_;  // the tile's place in the item
  int64_t low_[kAttentionPairs], high_[kAttentionPairs];  // positions that a pair sees
};

}  // namespace towline::engine
