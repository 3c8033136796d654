// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The sampler's name for the parameters of a request, which are plain data of spec/.
#pragma once

#include "spec/sampling_params.hpp"

namespace towline::engine {

using SamplingParams = spec::SamplingParams;

}  // namespace towline::engine
