// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/executor_factory.hpp"

#include "base/fmt.hpp"
#include "worker/emulated_executor.hpp"
#include "worker/null_executor.hpp"
#include "worker/stage_executor.hpp"

namespace towline::worker {

Result<std::unique_ptr<Executor>> make_executor(const Json& description, const RankPlace& place) {
  const std::string& kind = description["kind"].as_string();
  if (kind == "stage") {
    ASSIGN_OR_RETURN(const StageExecutorOptions options, StageExecutorOptions::parse(description));
    ASSIGN_OR_RETURN(std::unique_ptr<Executor> made, StageExecutor::create(options, place));
    return made;
  }
  if (kind == "emulated") {
    ASSIGN_OR_RETURN(const EmulatedExecutorOptions options,
                     EmulatedExecutorOptions::parse(description));
    ASSIGN_OR_RETURN(std::unique_ptr<Executor> made, EmulatedExecutor::create(options, place));
    return made;
  }
  if (kind == "null") {
    ASSIGN_OR_RETURN(const NullExecutorOptions options, NullExecutorOptions::parse(description));
    ASSIGN_OR_RETURN(std::unique_ptr<Executor> made, NullExecutor::create(options, place));
    return made;
  }
  return errorf(Code::kInvalidArgument, "executor kind '{}' is not stage, emulated or null", kind);
}

Result<int64_t> shared_floats(const Json& description, int32_t ranks) {
  if (ranks < 2 || description["kind"].as_string() != "stage") return int64_t{0};
  ASSIGN_OR_RETURN(const StageExecutorOptions options, StageExecutorOptions::parse(description));
  return StageExecutor::shared_floats(options, ranks);
}

}  // namespace towline::worker
