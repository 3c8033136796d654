// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "kv/block_pool.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.hpp"
#include "base/fmt.hpp"

namespace towline::kv {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

Result<BlockPool> BlockPool::create(int32_t layers, int32_t blocks, BlockLayout layout) {
  if (layers < 0 || blocks <= 0 || layout.kv_heads <= 0 || layout.head_dim <= 0) {
    return errorf(Code::kInvalidArgument,
                  "a KV pool of {} layers, {} blocks, {} heads of {} makes no sense", layers,
                  blocks, layout.kv_heads, layout.head_dim);
  }
  BlockPool pool;
  pool.layout_ = layout;
  pool.blocks_ = blocks;
  const auto bytes = static_cast<size_t>(blocks * layout.block_bytes().value);
  // Small pools would be all padding if every layer were rounded to a huge page.
  const size_t unit = bytes >= kHugePage ? kHugePage : size_t{4096};
  pool.mapping_bytes_ = (bytes + unit - 1) / unit * unit;
  for (int32_t i = 0; i < layers; ++i) {
    void* memory = ::mmap(nullptr, pool.mapping_bytes_, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
      return errorf(Code::kExhausted, "cannot reserve {} MiB for the KV cache of layer {}: {}",
                    pool.mapping_bytes_ >> 20, i, std::strerror(errno));
    }
    pool.layers_.push_back(static_cast<uint16_t*>(memory));
    if (unit == kHugePage) ::madvise(memory, pool.mapping_bytes_, MADV_HUGEPAGE);  // a wish
  }
  return pool;
}

std::span<std::byte> BlockPool::block(int32_t layer_index, BlockId id) const {
  CHECK(id.value >= 0 && id.value < blocks_, id.value, blocks_);
  uint16_t* first = layer(layer_index) + id.value * layout_.block_stride();
  return {reinterpret_cast<std::byte*>(first), static_cast<size_t>(layout_.block_bytes().value)};
}

void BlockPool::forget() {
  for (uint16_t* layer : layers_) ::madvise(layer, mapping_bytes_, MADV_DONTNEED);
}

void BlockPool::unmap() {
  for (uint16_t* layer : layers_) ::munmap(layer, mapping_bytes_);
  layers_.clear();
}

BlockPool::~BlockPool() { unmap(); }

BlockPool::BlockPool(BlockPool&& other) noexcept
    : layout_(other.layout_),
      blocks_(std::exchange(other.blocks_, 0)),
      mapping_bytes_(other.mapping_bytes_),
      layers_(std::exchange(other.layers_, {})) {}

BlockPool& BlockPool::operator=(BlockPool&& other) noexcept {
  if (this != &other) {
    unmap();
    layout_ = other.layout_;
    blocks_ = std::exchange(other.blocks_, 0);
    mapping_bytes_ = other.mapping_bytes_;
    layers_ = std::exchange(other.layers_, {});
  }
  return *this;
}

}  // namespace towline::kv
