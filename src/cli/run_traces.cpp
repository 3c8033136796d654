// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/run_traces.hpp"

#include "base/fmt.hpp"
#include "base/json.hpp"

namespace towline::cli {

Result<const spec::DeviceProfile*> timed_device(const spec::Profile& profile, const std::string& type,
                                                const std::string& path) {
  const spec::DeviceProfile* device = type.empty() && profile.devices.size() == 1
                                          ? &profile.devices.front()
                                          : profile.find(type);
  if (device == nullptr || device->prompt.size() < 2 || device->decode.size() < 2) {
    return errorf(Code::kInvalidArgument,
                  "{}: no times of layers for a machine type '{}'; name one with --type", path, type);
  }
  return device;
}

Result<std::vector<std::vector<spec::RunRecord>>> load_runs(std::span<const std::string> paths) {
  std::vector<std::vector<spec::RunRecord>> ranks;
  size_t runs = 0;
  for (const std::string& path : paths) {
    ASSIGN_OR_RETURN(const Json trace, load_json(path));
    ASSIGN_OR_RETURN(ranks.emplace_back(), spec::parse_runs(trace, path));
    runs += ranks.back().size();
  }
  if (runs == 0) return Error(Code::kInvalidArgument, "the traces tell of no run");
  return ranks;
}

std::string message_text(const spec::MessageTimes& times) {
  std::string text;
  if (times.betweens > 0) {
    text += format("a message between workers {:.3f} ms (mean of {})", 1e3 * times.between,
                   times.betweens);
  }
  if (times.coordinators > 0) {
    text += format("{}from the last worker over the coordinator to the first {:.3f} ms (mean of {})",
                   text.empty() ? "" : "; ", 1e3 * times.coordinator, times.coordinators);
  }
  return text;
}

}  // namespace towline::cli
