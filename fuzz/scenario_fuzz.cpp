// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Scenario files (spec/scenario.hpp): what is accepted prints to a text that reads as the same
// scenario, links are found from both ends, and every deployment (spec/deploy.hpp)
// is files or a sentence.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.hpp"
#include "spec/deploy.hpp"
#include "spec/scenario.hpp"

namespace {

using namespace towline;

void deploy(const spec::Scenario& scenario) {
  for (const auto target : {spec::DeployTarget::kSystemd, spec::DeployTarget::kSlurm,
                            spec::DeployTarget::kKubernetes}) {
    spec::DeployOptions options;
    options.target = target;
    options.coordinator = "head";
    options.key_text = "keys";
    const auto files = spec::deploy_files(scenario, options);
    if (!files) {
      CHECK(!files.error().message().empty());
      continue;
    }
    CHECK(!files->empty());
    for (const spec::DeployFile& file : *files) {
      CHECK(!file.name.empty() && file.name.find('/') == std::string::npos, file.name);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 20'000) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto tree = parse_toml(text, "fuzz.toml");
  if (!tree) return 0;
  const auto scenario = spec::parse_scenario(*tree, "fuzz.toml");
  if (!scenario) {
    CHECK(!scenario.error().message().empty());
    return 0;
  }
  const std::string printed = spec::print_scenario(*scenario);
  const auto again = parse_toml(printed, "printed.toml");
  CHECK(again.has_value(), printed);
  const auto same = spec::parse_scenario(*again, "printed.toml");
  CHECK(same.has_value(), printed);
  CHECK(*same == *scenario, printed);
  for (const spec::ScenarioLink& link : scenario->links) {
    CHECK(scenario->link_between(link.from, link.to) != nullptr, link.from, link.to);
    CHECK(scenario->link_between(link.to, link.from) != nullptr, link.from, link.to);
  }
  if (scenario->workers.size() <= 64) deploy(*scenario);
  return 0;
}
