// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as an instance followed, after a line "--", by a placement: errors, or valid values
// that print to what they were read from.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "plan/instance.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace towline::plan;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t split = text.find("--\n");
  const auto instance = parse_instance(text.substr(0, split), "fuzz.inst");
  if (!instance) {
    if (instance.error().message().empty()) std::abort();
    return 0;
  }
  if (!validate(*instance)) std::abort();
  const std::string printed = print_instance(*instance);
  const auto again = parse_instance(printed, "printed");
  if (!again || print_instance(*again) != printed) std::abort();
  if (split == std::string_view::npos) return 0;
  const auto placement = parse_placement(text.substr(split + 3), "fuzz.helix", *instance);
  if (!placement) return 0;
  if (!validate(*placement, *instance)) std::abort();
  const auto same = parse_placement(print_placement(*placement), "printed", *instance);
  if (!same || *same != *placement) std::abort();
  return 0;
}
