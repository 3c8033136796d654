// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/commands.hpp"

#include <cstdio>


#ifndef TOWLINE_VERSION
#define TOWLINE_VERSION "0.1.0"
#endif

namespace towline::cli {
namespace {

struct VersionOptions {
  bool json = false;
};

OptionTable table(VersionOptions& o) {
  OptionTable t("version", "Print the version and what this build contains.");
  t.flag("json", &o.json, "print JSON");
  t.example("towline version --json");
  return t;
}

Result<int> run(std::span<const std::string> args) {
  VersionOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  const Json info = Json::object({{"version", TOWLINE_VERSION}, {"compiler", __VERSION__}});
  std::puts(o.json ? info.dump().c_str() : "towline " TOWLINE_VERSION);
  return 0;
}

}  // namespace

const Command kVersion = {"version", "print the version and what this build contains", run,
                          [](void (*sink)(const OptionTable&)) {
                            VersionOptions o;
                            sink(table(o));
                          }};

}  // namespace towline::cli
