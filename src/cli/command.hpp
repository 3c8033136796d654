// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// A subcommand of the one binary. Each cmd_*.cpp defines one or more; commands() in main.cpp lists
// them in the order shown by `towline --help`.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/options.hpp"
#include "base/result.hpp"

namespace towline::cli {

struct Command {
  std::string_view name;     // "serve", or two words: "model info"
  std::string_view summary;  // one line for the overview
  // Runs with the words after the name. The value is the process's exit code; an error is printed
  // by main as one line and mapped by exit_code().
  Result<int> (*run)(std::span<const std::string> args);
  // The same option table that run() parses, for docs and completions (fields are scratch).
  void (*describe)(void (*sink)(const OptionTable&));
};

std::span<const Command> commands();

}  // namespace towline::cli
