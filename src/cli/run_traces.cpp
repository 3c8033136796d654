// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/run_traces.hpp"

#include <algorithm>

#include "base/fmt.hpp"
#include "base/json.hpp"

namespace towline::cli {

namespace {

Result<spec::DeviceProfile*> timed_device(spec::Profile& profile, const std::string& type,
                                          const std::string& path) {
  const bool only = type.empty() && profile.devices.size() == 1;
  const auto device = only ? profile.devices.begin()
                           : std::ranges::find(profile.devices, type, &spec::DeviceProfile::type);
  if (device == profile.devices.end() || device->prompt.size() < 2 || device->decode.size() < 2) {
    return errorf(Code::kInvalidArgument,
                  "{}: no times of layers for a machine type '{}'; name one with --type", path,
                  type);
  }
  return &*device;
}

}  // namespace

void RecordedProfile::add_to(OptionTable& t) {
  t.positional("profile", &path, "what `towline profile` wrote, on whatever machine is alike")
      .required();
  t.value("trace", &traces, "what `towline call profile` had a rank write; several").required();
  t.value("type", &type, "machine type in the profile; empty: its only one");
}

Result<void> RecordedProfile::load() {
  ASSIGN_OR_RETURN(profile, spec::load_profile(path));
  ASSIGN_OR_RETURN(device, timed_device(profile, type, path));
  size_t runs = 0;
  for (const std::string& file : traces) {
    ASSIGN_OR_RETURN(const Json trace, load_json(file));
    ASSIGN_OR_RETURN(ranks.emplace_back(), spec::parse_runs(trace, file));
    runs += ranks.back().size();
  }
  if (runs == 0) return Error(Code::kInvalidArgument, "the traces tell of no run");
  return {};
}

std::string message_text(const spec::MessageTimes& times) {
  std::string text;
  if (times.betweens > 0) {
    text += format("a message between workers {:.3f} ms (mean of {})", 1e3 * times.between,
                   times.betweens);
  }
  if (times.coordinators > 0) {
    text +=
        format("{}from the last worker over the coordinator to the first {:.3f} ms (mean of {})",
               text.empty() ? "" : "; ", 1e3 * times.coordinator, times.coordinators);
  }
  return text;
}

}  // namespace towline::cli
