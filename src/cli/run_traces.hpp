// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What `towline profile check` and `towline profile learn` read: a profile and recorded runs.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "spec/profile.hpp"
#include "spec/run_record.hpp"

namespace towline::cli {

// The type called so, or the only one if `type` is empty; it has times of layers. `path` is for errors.
Result<const spec::DeviceProfile*> timed_device(const spec::Profile& profile, const std::string& type,
                                                const std::string& path);

// The runs by file; at least one in all.
Result<std::vector<std::vector<spec::RunRecord>>> load_runs(std::span<const std::string> paths);

// "a message between workers 0.12 ms (mean of 40), ..."; empty if nothing is known.
std::string message_text(const spec::MessageTimes& times);

}  // namespace towline::cli
