// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/block_ledger.hpp"

#include <algorithm>

#include "base/check.hpp"
#include "base/rng.hpp"

namespace towline::policy {
namespace {

uint64_t chain_hash(uint64_t before, std::span<const int32_t> tokens) {
  uint64_t hash = before;
  for (const int32_t token : tokens) hash = mix64(hash ^ static_cast<uint32_t>(token));
  return hash;
}

}  // namespace

BlockLedger::BlockLedger(int32_t blocks) : total_(std::max(blocks, 0)) {}

size_t BlockLedger::index(BlockId block) const {
  CHECK(block.value >= 0 && block.value < total(), block.value, total());
  return static_cast<size_t>(block.value);
}

void BlockLedger::push_idle(int32_t i) {
  Block& block = blocks_[static_cast<size_t>(i)];
  block.older = newest_;
  block.newer = kNone;
  (newest_ == kNone ? oldest_ : blocks_[static_cast<size_t>(newest_)].newer) = i;
  newest_ = i;
  ++idle_count_;
}

void BlockLedger::remove_idle(int32_t i) {
  Block& block = blocks_[static_cast<size_t>(i)];
  (block.older == kNone ? oldest_ : blocks_[static_cast<size_t>(block.older)].newer) = block.newer;
  (block.newer == kNone ? newest_ : blocks_[static_cast<size_t>(block.newer)].older) = block.older;
  block.older = block.newer = kNone;
  --idle_count_;
}

std::optional<BlockId> BlockLedger::allocate() {
  int32_t i = kNone;
  if (!free_.empty()) {
    i = free_.back();
    free_.pop_back();
  } else if (blocks_.size() < static_cast<size_t>(total_)) {
    i = static_cast<int32_t>(blocks_.size());
    blocks_.emplace_back();
  } else if (oldest_ != kNone) {
    i = oldest_;
    remove_idle(i);
    Block& forgotten = blocks_[static_cast<size_t>(i)];
    by_hash_.erase(contents_[static_cast<size_t>(i)].link.hash);
    forgotten.published = false;
  } else {
    return std::nullopt;
  }
  blocks_[static_cast<size_t>(i)].references = 1;
  return BlockId(i);
}

void BlockLedger::retain(BlockId id) {
  CHECK(index(id) < blocks_.size(), id.value);
  Block& block = blocks_[index(id)];
  CHECK(block.references > 0 || block.published, id.value);
  if (block.references == 0) remove_idle(id.value);
  ++block.references;
}

void BlockLedger::release(BlockId id) {
  CHECK(index(id) < blocks_.size(), id.value);
  Block& block = blocks_[index(id)];
  CHECK(block.references > 0, id.value);
  if (--block.references > 0) return;
  if (block.published) {
    push_idle(id.value);
  } else {
    free_.push_back(id.value);
  }
}

ChainLink BlockLedger::root(uint64_t salt) {
  // The salt is in the serial as well as in the hash, so that a collision of hashes cannot join two
  // salts; the top bit keeps roots apart from publications.
  return {mix64(salt), salt | (uint64_t{1} << 63)};
}

std::optional<BlockLedger::Match> BlockLedger::find(const ChainLink& before,
                                                    std::span<const int32_t> tokens) const {
  CHECK(tokens.size() == kBlockTokens, tokens.size());
  const auto at = by_hash_.find(chain_hash(before.hash, tokens));
  if (at == by_hash_.end()) return std::nullopt;
  const Content& content = contents_[static_cast<size_t>(at->second)];
  if (content.parent != before.serial || !std::ranges::equal(content.tokens, tokens)) {
    return std::nullopt;
  }
  return Match{BlockId(at->second), content.link};
}

ChainLink BlockLedger::publish(BlockId id, const ChainLink& before,
                               std::span<const int32_t> tokens) {
  CHECK(index(id) < blocks_.size(), id.value);
  Block& block = blocks_[index(id)];
  CHECK(block.references > 0 && !block.published, id.value, block.references);
  if (const auto match = find(before, tokens)) return match->link;
  const ChainLink link{chain_hash(before.hash, tokens), next_serial_++};
  if (!by_hash_.emplace(link.hash, id.value).second) return link;  // a collision: stays private
  block.published = true;
  if (contents_.size() <= index(id)) contents_.resize(blocks_.size());
  Content& content = contents_[index(id)];
  content.link = link;
  content.parent = before.serial;
  std::ranges::copy(tokens, content.tokens.begin());
  return link;
}

void BlockLedger::check_invariants() const {
  std::vector<int> seen(blocks_.size(), 0);
  for (const int32_t i : free_) {
    CHECK(blocks_[index(BlockId(i))].references == 0 && !blocks_[index(BlockId(i))].published, i);
    ++seen[static_cast<size_t>(i)];
  }
  int32_t idle = 0;
  for (int32_t i = oldest_, before = kNone; i != kNone; ++idle) {
    const Block& block = blocks_[static_cast<size_t>(i)];
    CHECK(block.references == 0 && block.published && block.older == before, i);
    ++seen[static_cast<size_t>(i)];
    before = i;
    i = block.newer;
  }
  CHECK(idle == idle_count_, idle, idle_count_);
  size_t published = 0;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const Block& block = blocks_[i];
    CHECK(seen[i] == (block.references == 0 ? 1 : 0), i, seen[i], block.references);
    published += block.published ? 1 : 0;
    if (block.published) CHECK(by_hash_.at(contents_[i].link.hash) == static_cast<int32_t>(i), i);
  }
  CHECK(published == by_hash_.size(), published, by_hash_.size());
}

}  // namespace towline::policy
