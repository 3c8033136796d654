// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The test program is also the program of the ranks it starts: "worker_tests rank --...".
#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <vector>

#include "worker/executor_factory.hpp"
#include "worker/rank_team.hpp"

int main(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == "rank") {
    const std::vector<std::string> args(argv + 2, argv + argc);
    const towline::Result<int> status =
        towline::worker::run_rank_process(args, towline::worker::make_executor);
    if (!status) std::fprintf(stderr, "rank: %s\n", status.error().to_string().c_str());
    return status ? *status : towline::exit_code(status.error().code());
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
