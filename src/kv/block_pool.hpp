// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// BlockPool: the memory of the KV cache, in blocks of 16 tokens.
//
// Each layer has its own mapping, and in it block b of the layer is one contiguous range of bytes:
//
//   [block][K][kv_head][head_dim][16 tokens]   float16
//          [V][kv_head][16 tokens][head_dim]
//
// so that the unit of streaming, replication and swapping is one (layer, block) range.
// The attention kernel multiplies one dimension of 16 keys at a time, and adds up whole
// values: each is contiguous. Which sequence holds which block is policy's business
// (policy/block_ledger.hpp); the pool is only bytes.
//
// Memory is reserved at once and becomes resident when first written, in huge pages
// where the system gives them, so a large pool costs what is used of it. Movable;
// threads may touch different blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "base/units.hpp"

namespace towline::kv {

inline constexpr int32_t kBlockTokens = 16;

struct BlockLayout {
  int32_t kv_heads = 0;
  int32_t head_dim = 0;

  // In float16 elements.
  int64_t head_stride() const { return int64_t{kBlockTokens} * head_dim; }
  int64_t plane() const { return kv_heads * head_stride(); }  // K or V of one block
  int64_t block_stride() const { return 2 * plane(); }
  Bytes block_bytes() const { return Bytes(block_stride() * 2); }  // of one layer
  // Where the numbers of token t (0..15) of a head are, from the start of the block: those of its
  // key are kBlockTokens apart from the first, those of its value follow each other.
  int64_t k_offset(int32_t head, int32_t t) const { return head * head_stride() + t; }
  int64_t v_offset(int32_t head, int32_t t) const {
    return plane() + head * head_stride() + int64_t{t} * head_dim;
  }
};

class BlockPool {
 public:
  BlockPool() = default;  // no layers, no blocks
  // `layers` mappings of `blocks` blocks. kExhausted if the system refuses the address space.
  static Result<BlockPool> create(int32_t layers, int32_t blocks, BlockLayout layout);
  ~BlockPool();
  BlockPool(BlockPool&& other) noexcept;
  BlockPool& operator=(BlockPool&& other) noexcept;

  int32_t layers() const { return static_cast<int32_t>(layers_.size()); }
  int32_t blocks() const { return blocks_; }
  const BlockLayout& layout() const { return layout_; }
  Bytes bytes() const { return Bytes(layers() * int64_t{blocks_} * layout_.block_bytes().value); }

  // Block 0 of a layer (0-based within this pool).
  uint16_t* layer(int32_t index) const { return layers_[static_cast<size_t>(index)]; }
  // Gives all memory back to the system; every block reads as zeros until it is written again.
  void forget();
  // One (layer, block) range: what is streamed, copied, swapped.
  std::span<std::byte> block(int32_t layer, BlockId block) const;

 private:
  void unmap();
  BlockLayout layout_;
  int32_t blocks_ = 0;
  size_t mapping_bytes_ = 0;          // of each layer
  std::vector<uint16_t*> layers_;
};

}  // namespace towline::kv
