// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// For tests: a whole run of the stage-grain simulator, with the record of every request.
#pragma once

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "sim/stage_engine.hpp"

namespace towline::sim {

struct Trial {
  StageReport report;
  std::vector<RequestRecord> records;
};

inline Trial run(const HelixInput& input, const StageOptions& options, StageEngine::Source source) {
  Trial result;
  auto engine = StageEngine::make(input, options, std::move(source),
                                  [&](const RequestRecord& r) { result.records.push_back(r); });
  EXPECT_TRUE(engine) << (engine ? "" : engine.error().to_string());
  auto report = engine->run();
  EXPECT_TRUE(report) << (report ? "" : report.error().to_string());
  result.report = *std::move(report);
  return result;
}

}  // namespace towline::sim
