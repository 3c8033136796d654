// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/block_ledger.hpp"

#include <algorithm>

#include "base/check.hpp"
#include "base/rng.hpp"

namespace towline::policy {
namespace {

// Which blocks a sequence holds is as good as random: the processor is told so many ahead.
constexpr size_t kAhead = 8;

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
  content(i).older = newest_;
  content(i).newer = kNone;
  (newest_ == kNone ? oldest_ : content(newest_).newer) = i;
  newest_ = i;
  ++idle_count_;
}

void BlockLedger::remove_idle(int32_t i) {
  Content& c = content(i);
  (c.older == kNone ? oldest_ : content(c.older).newer) = c.newer;
  (c.newer == kNone ? newest_ : content(c.newer).older) = c.older;
  c.older = c.newer = kNone;
  --idle_count_;
}

std::optional<BlockId> BlockLedger::allocate() {
  int32_t i = kNone;
  if (!free_.empty()) {
    i = free_.back();
    free_.pop_back();
  } else if (references_.size() < static_cast<size_t>(total_)) {
    i = static_cast<int32_t>(references_.size());
    references_.push_back(0);
  } else if (oldest_ != kNone) {
    i = oldest_;
    remove_idle(i);
    by_hash_.erase(content(i).link.hash);
    content(i).published = false;
  } else {
    return std::nullopt;
  }
  references_[static_cast<size_t>(i)] = 1;
  return BlockId(i);
}

int32_t BlockLedger::allocate(int32_t count, BlockId* first, size_t stride) {
  // Mostly they are all free ones.
  const size_t left =
      free_.size() - std::min(free_.size(), static_cast<size_t>(std::max(count, 0)));
  int32_t k = 0;
  for (size_t at = free_.size(); at > left; ++k, first += stride) {
    const int32_t i = free_[--at];
    if (at >= left + kAhead) {
      __builtin_prefetch(&references_[static_cast<size_t>(free_[at - kAhead])], 1);
    }
    references_[static_cast<size_t>(i)] = 1;
    *first = BlockId(i);
  }
  free_.resize(left);
  for (; k < count; ++k, first += stride) {
    const std::optional<BlockId> block = allocate();
    if (!block) return k;
    *first = *block;
  }
  return count;
}

void BlockLedger::retain(BlockId id) {
  const size_t i = index(id);
  CHECK(i < references_.size(), id.value);
  CHECK(references_[i] > 0 || is_published(i), id.value);
  if (references_[i] == 0) remove_idle(id.value);
  if (references_[i] == kMany) {
    ++many_.at(id.value);
  } else if (++references_[i] == kMany) {
    many_.emplace(id.value, kMany);
  }
}

void BlockLedger::release(BlockId id) {
  const size_t i = index(id);
  CHECK(i < references_.size() && references_[i] > 0, id.value);
  if (references_[i] == kMany) {
    int32_t& count = many_.at(id.value);
    if (--count >= kMany) return;
    many_.erase(id.value);
  }
  if (--references_[i] > 0) return;
  if (is_published(i)) {
    push_idle(id.value);
  } else {
    free_.push_back(id.value);
  }
}

void BlockLedger::release(const BlockId* first, int32_t count, size_t stride) {
  const auto block = [&](int32_t k) { return first[static_cast<size_t>(k) * stride]; };
  constexpr auto kFar = static_cast<int32_t>(kAhead);
  for (int32_t k = count - 1; k >= 0; --k) {
    if (k >= kFar) __builtin_prefetch(references_.data() + block(k - kFar).value, 1);
    release(block(k));
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
  const Content& known = content(at->second);
  if (known.parent != before.serial || !std::ranges::equal(known.tokens, tokens)) {
    return std::nullopt;
  }
  return Match{BlockId(at->second), known.link};
}

ChainLink BlockLedger::publish(BlockId id, const ChainLink& before,
                               std::span<const int32_t> tokens) {
  const size_t i = index(id);
  CHECK(references(id) > 0 && !is_published(i), id.value, references(id));
  if (const auto match = find(before, tokens)) return match->link;
  const ChainLink link{chain_hash(before.hash, tokens), next_serial_++};
  if (!by_hash_.emplace(link.hash, id.value).second) return link;  // a collision: stays private
  if (contents_.size() <= i) contents_.resize(references_.size());
  Content& c = contents_[i];
  c.published = true;
  c.link = link;
  c.parent = before.serial;
  std::ranges::copy(tokens, c.tokens.begin());
  return link;
}

void BlockLedger::check_invariants() const {
  std::vector<int> seen(references_.size(), 0);
  for (const int32_t i : free_) {
    CHECK(references(BlockId(i)) == 0 && !is_published(index(BlockId(i))), i);
    ++seen[static_cast<size_t>(i)];
  }
  int32_t idle = 0;
  for (int32_t i = oldest_, before = kNone; i != kNone; ++idle) {
    CHECK(references(BlockId(i)) == 0 && is_published(index(BlockId(i))), i);
    CHECK(content(i).older == before, i);
    ++seen[static_cast<size_t>(i)];
    before = i;
    i = content(i).newer;
  }
  CHECK(idle == idle_count_, idle, idle_count_);
  size_t published = 0;
  for (size_t i = 0; i < references_.size(); ++i) {
    const auto block = static_cast<int32_t>(i);
    CHECK((references_[i] == kMany) == many_.contains(block), i);
    CHECK(seen[i] == (references_[i] == 0 ? 1 : 0), i, seen[i], references(BlockId(block)));
    if (!is_published(i)) continue;
    ++published;
    CHECK(by_hash_.at(contents_[i].link.hash) == static_cast<int32_t>(i), i);
  }
  CHECK(published == by_hash_.size(), published, by_hash_.size());
}

}  // namespace towline::policy
