// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Collective calls: everything that a rank does besides steps. One registry of methods; a row is
// the method, where it runs, how the ranks' answers become one, and its handler. What is not in the
// registry cannot be called, and what is in it exists on every rank: a test calls each row on each
// rank, so no method can be forgotten in one mode (the SPMD proposal's complaint about add_lora).
//
//   in band       in the order of the steps, at a step boundary: whatever touches model state
//   out of band   on the rank's second thread: what must work while a step runs or hangs
//
// Arguments and results are typed structs that travel as JSON: these calls are rare.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"
#include "protocol/methods.hpp"
#include "worker/executor.hpp"
#include "worker/run_trace.hpp"

namespace towline::worker {

using protocol::Method;

enum class Band { kIn, kOut };

enum class Reduction {
  kSame,  // all ranks must answer alike; the one answer
  kEach,  // an array, by rank
};

// What the rank is at; written by its loop, read by its second thread.
struct RankProgress {
  enum Phase : uint32_t { kIdle, kApply, kCompute, kReply, kCall };
  std::atomic<uint64_t> sequence{0};   // frame being worked on, or last worked on
  std::atomic<uint32_t> phase{kIdle};
  std::atomic<uint64_t> hash{0};       // of the mirror, after the last frame
  std::atomic<int64_t> steps{0};       // lane steps run
};

// What handlers work on.
struct RankContext {
  RankPlace place;
  ExecutorFactory factory;
  // Made by kInitModel. The second thread may use it (adapters, abort) once `ready`.
  std::unique_ptr<Executor> executor;
  std::atomic<bool> ready{false};
  std::unique_ptr<policy::StepMirror> mirror;  // the loop's
  RankProgress progress;
  RunTrace trace;                              // the loop's
  bool leave = false;
};

struct MethodRow {
  Method method;
  std::string_view name;
  Band band;
  Reduction reduction;
  Result<Json> (*handle)(RankContext& rank, const Json& args);
  std::string_view summary;
  std::string_view example;  // of its arguments
};

std::span<const MethodRow> methods();
const MethodRow* find_method(uint16_t method);
const MethodRow* find_method(std::string_view name);
// Runs the method here, whatever its band. Unknown methods and arguments of the wrong kind are
// errors; so is anything but kInitModel before it.
Result<Json> call_method(RankContext& rank, uint16_t method, std::string_view args);

// What kInitModel takes: the same for all ranks.
struct InitModel {
  Json executor;                  // description for the factory
  policy::MirrorLimits limits;    // blocks and layers are taken from the executor
  Json json() const;
  static Result<InitModel> parse(const Json& args);
};
// ... and answers. A group has the least blocks and rows of its ranks.
struct Geometry {
  int32_t hidden_width = 0, max_rows = 0, kv_blocks = 0;
  LayerRange layers;
  int64_t pid = 0;
  Json json() const;
  static Result<Geometry> parse(const Json& answer);
};
struct AdapterArgs {
  int32_t id = -1;
  std::string path;  // kStageAdapter
  Json json() const;
  static Result<AdapterArgs> parse(const Json& args);
};

}  // namespace towline::worker
