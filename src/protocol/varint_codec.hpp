// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// A step message in the manner of Protocol Buffers: tags, zigzag varints element by element,
// length-prefixed records. For one purpose: the ablation of `towline bench spmd` shows what such a
// codec costs where all tokens are sent each step. Nothing else sends it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "policy/step_delta.hpp"

namespace towline::protocol {

// Sampling parameters other than temperature and seed are left out.
std::vector<uint8_t> encode_varint(const policy::NodeStep& m);
Result<void> decode_varint(std::span<const uint8_t> bytes, policy::NodeStep& out);

}  // namespace towline::protocol
