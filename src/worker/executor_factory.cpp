// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/executor_factory.hpp"

#include <algorithm>

#include "base/fmt.hpp"
#include "worker/emulated_executor.hpp"
#include "worker/null_executor.hpp"
#include "worker/stage_executor.hpp"

namespace towline::worker {

namespace {

Result<Json> description_of_stage(const Json& description, const RankPlace& place) {
  const Json& layers = description["layers"];
  if (layers.size() != 2) {
    return errorf(Code::kInvalidArgument, "a node of {} stages needs 'layers' [first, end)",
                  place.stages);
  }
  const int64_t begin = layers[size_t{0}].as_int(), end = layers[size_t{1}].as_int();
  const int64_t count = end - begin;
  if (count < place.stages) {
    return errorf(Code::kInvalidArgument, "{} layers are too few for {} stages", count,
                  place.stages);
  }
  const auto first_of = [&](int64_t stage) {
    return begin + stage * (count / place.stages) + std::min(stage, count % place.stages);
  };
  Json narrowed = description;
  narrowed.set("layers", Json::array({first_of(place.stage), first_of(place.stage + 1)}));
  return narrowed;
}

}  // namespace

Result<std::unique_ptr<Executor>> make_executor(const Json& whole, const RankPlace& place) {
  Json description = whole;
  if (place.stages > 1) {
    ASSIGN_OR_RETURN(description, description_of_stage(whole, place));
  }
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
