// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The shapes of well-known models, by name: enough to plan for them, to simulate them and to make
// dummy weights of them without their files. Source: each model's published config.json.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "spec/model_desc.hpp"

namespace towline::spec {

// "llama-3.2-1b", "qwen2.5-0.5b", ... in a fixed order.
std::span<const std::string_view> model_shape_names();

// The shape called `name` (any letter case). Rotary pairing is that of a GGUF file. An unknown name
// is an error that lists the known ones.
Result<ModelDesc> model_shape(std::string_view name);

}  // namespace towline::spec
