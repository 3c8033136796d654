// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/executor_factory.hpp"

#include "base/fmt.hpp"
#include "engine/format/model_file.hpp"
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
  const LayerRange all{static_cast<int32_t>(layers[size_t{0}].as_int()),
                       static_cast<int32_t>(layers[size_t{1}].as_int())};
  if (all.size() < place.stages) {
    return errorf(Code::kInvalidArgument, "{} layers are too few for {} stages", all.size(),
                  place.stages);
  }
  LayerRange mine;
  if (description["kind"].as_string() == "stage") {
    ASSIGN_OR_RETURN(const engine::ModelFile file,
                     engine::ModelFile::open(description["model"].as_string()));
    mine = divide_layers(file, all, place.stages)[static_cast<size_t>(place.stage)];
  } else {
    const auto border = [&](int32_t stage) { return all.begin + all.size() * stage / place.stages; };
    mine = {border(place.stage), border(place.stage + 1)};
  }
  Json narrowed = description;
  narrowed.set("layers", Json::array({mine.begin, mine.end}));
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
