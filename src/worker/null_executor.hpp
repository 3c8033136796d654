// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// NullExecutor: takes a given time and does no arithmetic. It plays the fast accelerator in
// measurements of the control plane, and the model in tests: its "activations" carry a pattern that
// the next stage checks, its tokens are a pure function of (sequence, position), and it fails,
// hangs or dies where it is told to.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/units.hpp"
#include "worker/executor.hpp"

namespace towline::worker {

struct NullExecutorOptions {
  LayerRange layers{0, 4};
  int32_t hidden = 16;          // floats a row
  int32_t kv_blocks = 1 << 20;
  int32_t max_rows = 1 << 16;
  int32_t vocab = 32000;
  int64_t compute_us = 0;       // of a run, asleep (the accelerator works); 0: none
  // Faults, for tests: on rank `fault_rank`, at run number `fault_run` (from 1; 0: never).
  std::string fault;            // "error", "die", "hang" (until abort()), "create"
  int32_t fault_rank = 0;
  int64_t fault_run = 0;

  static Result<NullExecutorOptions> parse(const Json& description);
  Json to_json() const;         // {"kind": "null", ...}
};

// Adapters without weights. Staging fails on rank r for a path that contains "fail:r".
class NullAdapters final : public Adapters {
 public:
  explicit NullAdapters(int32_t rank) : rank_(rank) {}
  Result<void> stage(int32_t id, const std::string& path) override;
  void commit(int32_t id) override;
  void discard(int32_t id) override;
  Result<void> remove(int32_t id) override;
  std::vector<int32_t> list() const override;
  bool has(int32_t id) const;

 private:
  int32_t rank_;
  mutable std::mutex mutex_;
  std::set<int32_t> staged_, committed_;
};

class NullExecutor final : public Executor {
 public:
  static Result<std::unique_ptr<NullExecutor>> create(const NullExecutorOptions& options,
                                                      const RankPlace& place);
  // The token that follows position - 1 of a sequence.
  static int32_t token_of(SeqId seq, int64_t position, int32_t vocab);

  int32_t hidden_width() const override { return options_.hidden; }
  int32_t max_rows() const override { return options_.max_rows; }
  int32_t kv_blocks() const override { return options_.kv_blocks; }
  LayerRange layers() const override { return options_.layers; }
  int32_t model_layers() const override { return options_.layers.end; }
  Result<void> run(std::span<const RunItem> items, std::span<float> hidden,
                   std::vector<RowResult>& results) override;
  Adapters* adapters() override { return &adapters_; }
  Json status() const override;
  void abort() override { aborted_.store(1); aborted_.notify_all(); }

 private:
  NullExecutor(const NullExecutorOptions& options, const RankPlace& place)
      : options_(options), place_(place), adapters_(place.world_rank()) {}
  Result<void> fault();
  Result<void> pass(const RunItem& item, std::span<float> hidden, std::vector<RowResult>& results);
  void compute() const;

  NullExecutorOptions options_;
  RankPlace place_;
  NullAdapters adapters_;
  int64_t runs_ = 0, rows_ = 0;
  std::atomic<uint32_t> aborted_{0};
};

}  // namespace towline::worker
