// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// StageExecutor: the real decoder behind worker/executor.hpp. One rank's weights, KV memory and
// sampling.
//
// Items of several lanes are evaluated together wherever their layers coincide
// (worker/layer_segments.hpp). What a row yields does not depend on that company, nor on the number
// of tensor-parallel ranks (docs/engine.md, "Exact bits"); tokens are drawn by the same
// RowEvaluator as in one process.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine/row_evaluator.hpp"
#include "engine/stage.hpp"
#include "worker/executor.hpp"
#include "worker/shm_collective.hpp"

namespace towline::worker {

// `layers` in so many parts that follow each other, each of at least one layer, of about equal bytes
// of weights as they lie in the file; the part with the model's end has the output matrix too.
std::vector<LayerRange> divide_layers(const engine::ModelFile& file, LayerRange layers,
                                      int32_t parts);

struct StageExecutorOptions {
  std::string model;            // path of a model file or directory
  LayerRange layers;            // empty: all
  int32_t kv_blocks = 256;      // of 16 tokens
  int32_t max_rows = 512;       // of one run()
  int32_t max_logit_rows = 64;  // evaluated at once; more are done in turns
  int32_t threads = 0;          // of this rank; 0: the allowed processors divided over the ranks
  std::string isa = "auto";

  // {"kind": "stage", "model": ..., "layers": [b, e], ...}: the names above.
  static Result<StageExecutorOptions> parse(const Json& description);
  Json to_json() const;
};

// The adapters that a rank holds: staged (loaded, not yet in use) and committed.
class StageAdapters final : public Adapters {
 public:
  StageAdapters(const spec::ModelDesc& model, LayerRange layers, engine::Shard shard)
      : model_(model), layers_(layers), shard_(shard) {}
  Result<void> stage(int32_t id, const std::string& path) override;
  void commit(int32_t id) override;
  void discard(int32_t id) override;
  Result<void> remove(int32_t id) override;
  std::vector<int32_t> list() const override;
  // Null if it is not committed. The rank's thread, as commit() and remove().
  const engine::LoraAdapter* find(int32_t id) const;

 private:
  using Loaded = std::map<int32_t, std::unique_ptr<engine::LoraAdapter>>;
  const spec::ModelDesc& model_;
  const LayerRange layers_;
  const engine::Shard shard_;
  std::mutex mutex_;  // of staged_
  Loaded staged_;
  Loaded committed_;  // the rank's thread
};

class StageExecutor final : public Executor {
 public:
  // Loads the rank's part of the weights. With more than one rank, place.collective_fd must be a
  // ShmCollectiveRegion of at least shared_floats(); the descriptor is duplicated.
  static Result<std::unique_ptr<StageExecutor>> create(const StageExecutorOptions& options,
                                                       const RankPlace& place,
                                                       const engine::LoadProgress& progress = {});
  // What a group of `ranks` must share; reads the model's header only.
  static Result<int64_t> shared_floats(const StageExecutorOptions& options, int32_t ranks);

  int32_t hidden_width() const override { return desc_.hidden; }
  int32_t max_rows() const override { return options_.max_rows; }
  int32_t kv_blocks() const override { return options_.kv_blocks; }
  LayerRange layers() const override { return options_.layers; }
  int32_t model_layers() const override { return desc_.layers; }
  Result<void> run(std::span<const RunItem> items, std::span<float> hidden,
                   std::vector<RowResult>& results) override;
  // 1: the KV cache's memory goes back to the system; 2: the weights go too, and wake() loads them.
  Adapters* adapters() override { return adapters_.get(); }
  Result<void> sleep(int level) override;
  Result<void> wake() override;
  Json status() const override;
  void abort() override;

  const spec::ModelDesc& desc() const { return desc_; }

 private:
  // What is kept of a slot between runs; all of it could be computed again from the tokens.
  struct SlotCache {
    uint64_t serial = 0;
    uint16_t gen = 0;
    engine::TokenHistory history;
    engine::EmbeddingPool pool;
  };
  std::vector<int32_t> tokens_;  // of the rows under way, contiguous
  struct Wanted {  // where an evaluated row's outcome goes
    size_t result;
    bool samples;
  };

  StageExecutor() = default;
  Result<void> load(const engine::LoadProgress& progress);
  Result<void> check(std::span<const RunItem> items, std::span<const float> hidden) const;
  Result<void> check_row(const RunItem& item, const Row& row) const;
  Result<void> run_layers(std::span<const RunItem> items, std::span<float> hidden);
  Result<void> run_gathered(const engine::StepView& step, std::span<const RunItem> items,
                            const std::vector<size_t>& chosen, LayerRange layers,
                            std::span<float> hidden);
  Result<void> sample(std::span<const RunItem> items, std::span<const float> hidden,
                      std::vector<RowResult>& results);
  void want_row(const RunItem& item, const Row& row, int32_t first_row,
                std::span<const float> hidden, std::vector<RowResult>& results);
  SlotCache& cache_of(const Row& row);

  StageExecutorOptions options_;
  RankPlace place_;
  spec::ModelDesc desc_;
  std::shared_ptr<const engine::ModelFile> file_;
  const engine::KernelTable* kernels_ = nullptr;
  std::unique_ptr<engine::ComputeTeam> team_;
  std::optional<ShmCollectiveRegion> region_;
  std::unique_ptr<ShmCollective> collective_;
  std::unique_ptr<engine::Stage> stage_;           // null while the weights sleep
  std::unique_ptr<engine::RowEvaluator> evaluator_;  // if the last layer is held
  std::unique_ptr<StageAdapters> adapters_;
  bool asleep_ = false;

  std::vector<SlotCache> caches_;                  // by slot
  std::vector<float> gathered_;                    // rows of items that are not neighbours
  std::vector<engine::EvalRow> eval_rows_;         // of one run
  std::vector<Wanted> wanted_;                     // [eval_rows_]
  int64_t runs_ = 0, rows_ = 0;
};

}  // namespace towline::worker
