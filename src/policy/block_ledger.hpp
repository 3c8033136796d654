// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// BlockLedger: who holds which KV block, and which finished blocks may be used again.
//
// A block holds the keys and values of kBlockTokens consecutive tokens of one sequence, in every
// layer. Blocks are reference-counted. A block whose tokens are all computed can be published: it
// then stays findable by what it contains after its last holder let go, until its place is needed
// (least recently released first). Content is identified by a chained hash (salt, the tokens of all
// blocks before, its own tokens) and then *verified*: its own tokens and the identity of the block
// before are compared, so that a hash collision, even a crafted one, costs a miss and never gives a
// sequence somebody else's keys.
//
// A pure machine: no memory of the blocks themselves (kv/block_pool.hpp), no clock; copyable. The
// same calls give the same blocks. Asking for something impossible (releasing a free block) is a
// bug and CHECKs.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "base/ids.hpp"

namespace towline::policy {

inline constexpr int32_t kBlockTokens = 16;

// The place of a block in a chain of published blocks: enough to look up what follows it.
struct ChainLink {
  uint64_t hash = 0;    // of the salt and every token so far
  uint64_t serial = 0;  // which publication; never used again for another content
  friend bool operator==(const ChainLink&, const ChainLink&) = default;
};

class BlockLedger {
 public:
  explicit BlockLedger(int32_t blocks);

  int32_t total() const { return total_; }
  // Blocks that allocate() can still hand out: free ones and published ones that nobody holds.
  int32_t available() const {
    return total_ - static_cast<int32_t>(references_.size()) + static_cast<int32_t>(free_.size()) +
           idle_count_;
  }
  int32_t held() const { return total() - available(); }
  int32_t references(BlockId block) const {
    const size_t i = index(block);
    if (i >= references_.size()) return 0;
    return references_[i] < kMany ? references_[i] : many_.at(block.value);
  }

  // A block held once by the caller; forgets the least recently released published block if none
  // is free. Empty when every block is held.
  std::optional<BlockId> allocate();
  // `count` times allocate(), as long as there are blocks, into first[0], first[stride], ...; returns
  // how many there were.
  int32_t allocate(int32_t count, BlockId* first, size_t stride);
  void retain(BlockId block);
  void release(BlockId block);
  // Releases first[(count - 1) * stride], ..., first[stride], first[0], in this order.
  void release(const BlockId* first, int32_t count, size_t stride);

  // Where every chain of this salt begins. Different salts never share blocks (tenants, adapters).
  static ChainLink root(uint64_t salt);
  // The published block that holds `tokens` (kBlockTokens of them) right after `before`, if any.
  struct Match {
    BlockId block;
    ChainLink link;
  };
  std::optional<Match> find(const ChainLink& before, std::span<const int32_t> tokens) const;
  // Makes a held block findable. Returns its link. If the same content is published already, the
  // block stays private and the link of the published one is returned.
  ChainLink publish(BlockId block, const ChainLink& before, std::span<const int32_t> tokens);

  // A sequence takes blocks in many ledgers at a time, which seldom are in the processor's cache: the
  // first asks for the ledger, the second for what allocate() will look at.
  void prefetch() const {
    __builtin_prefetch(this);
    __builtin_prefetch(&references_);
  }
  void prefetch_free() const {
    if (!free_.empty()) __builtin_prefetch(&free_.back());
  }

  // Verifies every invariant; CHECKs on the first that does not hold. For tests.
  void check_invariants() const;

 private:
  static constexpr int32_t kNone = -1;
  static constexpr uint8_t kMany = 255;
  struct Content {          // of a published block
    bool published = false; // is it one now?
    int32_t older = kNone, newer = kNone;  // in the idle list
    ChainLink link;
    uint64_t parent = 0;    // serial of the block before
    std::array<int32_t, kBlockTokens> tokens{};
  };
  size_t index(BlockId block) const;
  bool is_published(size_t i) const { return i < contents_.size() && contents_[i].published; }
  Content& content(int32_t i) { return contents_[static_cast<size_t>(i)]; }
  const Content& content(int32_t i) const { return contents_[static_cast<size_t>(i)]; }
  void push_idle(int32_t i);
  void remove_idle(int32_t i);

  int32_t total_;
  int32_t idle_count_ = 0;
  std::vector<int32_t> free_;              // handed out before, unpublished; last in first out
  // [block] of those handed out so far. A byte each, as there are many of them and which one is next
  // is as good as random; kMany: the count is in many_.
  std::vector<uint8_t> references_;
  std::vector<Content> contents_;          // [block], as far as any was published
  std::map<int32_t, int32_t> many_;        // blocks that kMany or more hold
  std::map<uint64_t, int32_t> by_hash_;    // published blocks
  int32_t oldest_ = kNone, newest_ = kNone;  // published blocks that nobody holds
  uint64_t next_serial_ = 1;
};

}  // namespace towline::policy
