// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What every generator refuses at the door, in the same words.
#pragma once

#include "base/result.hpp"
#include "serve/generator.hpp"
#include "spec/model_desc.hpp"

namespace towline::serve {

// `context`: tokens that a request's prompt and output may have together.
Result<void> check_request(const GenerationRequest& request, const spec::ModelDesc& model,
                           int32_t context);

}  // namespace towline::serve
