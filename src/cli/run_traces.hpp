// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// RecordedProfile: what `towline profile check` and `towline profile learn` have in common,
// a profile and the recorded runs of workers that it is held against.
#pragma once

#include <string>
#include <vector>

#include "base/options.hpp"
#include "base/result.hpp"
#include "spec/profile.hpp"
#include "spec/run_record.hpp"

namespace towline::cli {

struct RecordedProfile {
  std::string path, type;
  std::vector<std::string> traces;

  // Set by load(), after which this stays where it is.
  spec::Profile profile;
  spec::DeviceProfile* device = nullptr;            // in `profile`; it has times of layers
  std::vector<std::vector<spec::RunRecord>> ranks;  // the runs by file; at least one in all

  void add_to(OptionTable& table);
  // Reads what the options name; `type` may be empty if the profile has only one.
  Result<void> load();
};

// "a message between workers 0.12 ms (mean of 40), ..."; empty if nothing is known.
std::string message_text(const spec::MessageTimes& times);

}  // namespace towline::cli
