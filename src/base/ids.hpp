// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Strong ids: integers that cannot be mixed up. NodeId(3) == NodeId(3); NodeId(3) == SeqId(3) does
// not compile. Ordered, hashable, printable; use .value for arithmetic at the edge only.
#pragma once

#include <fmt/core.h>

#include <compare>
#include <cstdint>
#include <functional>

namespace towline {

template <class Tag, class Rep = int64_t>
struct Id {
  using rep = Rep;
  Rep value{};
  constexpr Id() = default;
  constexpr explicit Id(Rep v) : value(v) {}
  friend constexpr auto operator<=>(Id, Id) = default;
};

using NodeId = Id<struct NodeTag, int32_t>;       // a machine (or a group on it) in the plan
using RequestId = Id<struct RequestTag, int64_t>; // one API request
using SeqId = Id<struct SeqTag, int64_t>;         // one sequence; a request with n>1 has n
using BlockId = Id<struct BlockTag, int32_t>;     // one KV block in a pool
using LayerIdx = Id<struct LayerTag, int32_t>;    // decoder layer, 0-based
using StepNo = Id<struct StepTag, int64_t>;       // step of an execution loop
using LaneId = Id<struct LaneTag, int32_t>;       // sequences that share one pipeline; negative: none
using Epoch = Id<struct EpochTag, int64_t>;       // plan / membership epoch

// Layers [begin, end) of a model.
struct LayerRange {
  int32_t begin = 0;
  int32_t end = 0;
  constexpr int32_t size() const { return end - begin; }
  constexpr bool empty() const { return end <= begin; }
  constexpr bool contains(int32_t layer) const { return begin <= layer && layer < end; }
  friend constexpr auto operator<=>(const LayerRange&, const LayerRange&) = default;
};

}  // namespace towline

template <class Tag, class Rep>
struct std::hash<towline::Id<Tag, Rep>> {
  size_t operator()(towline::Id<Tag, Rep> id) const noexcept { return std::hash<Rep>{}(id.value); }
};

template <class Tag, class Rep>
struct fmt::formatter<towline::Id<Tag, Rep>> {
  constexpr auto parse(fmt::format_parse_context& ctx) { return ctx.begin(); }
  template <class Context>
  auto format(towline::Id<Tag, Rep> id, Context& ctx) const {
    return fmt::format_to(ctx.out(), "{}", id.value);
  }
};
