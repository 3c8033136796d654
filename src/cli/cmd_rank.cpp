// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline rank`: what a node starts for each tensor-parallel rank that is a process.
#include "cli/commands.hpp"
#include "worker/executor_factory.hpp"
#include "worker/rank_team.hpp"

namespace towline::cli {
namespace {

Result<int> run(std::span<const std::string> args) {
  return worker::run_rank_process(args, worker::make_executor);
}

void describe(void (*sink)(const OptionTable&)) { worker::describe_rank_process(sink); }

}  // namespace

const Command kRank = {"rank", "one rank of a node (started by the node itself)", run, describe};

}  // namespace towline::cli
