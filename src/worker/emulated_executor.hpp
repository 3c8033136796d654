// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// EmulatedExecutor: a machine that is not there. A run takes as long as the profile says that the
// device would take; everything around it (messages, activations of real size, scheduling, KV
// bookkeeping) is real. So a cluster of 24 accelerators runs on one machine, and differs from
// `towline simulate` in nothing but what the simulator leaves out.
//
// Time. A layer takes spec::layer_time() of the prompt tokens and generating sequences that pass
// through it in this run, and drawing tokens spec::head_time(); the simulator does the same. run()
// sleeps until its deadline; what a sleep lasted too long is taken off the next one.
//
// Data. A row of activations is a pattern of (slot, generation, position, layer), which the next
// node checks: rows that were mixed up, lost or sent twice are an error, not a wrong number.
// The sampled token at a position is a hash of (seed, choice, position), never the same for two
// positions by design, so that tokens do not depend on routes, batches or failures.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/units.hpp"
#include "spec/profile.hpp"
#include "worker/executor.hpp"

namespace towline::worker {

struct EmulatedExecutorOptions {
  std::string profile;         // "llama2-70b", ... or a profile file
  std::string device;          // a type of the profile
  LayerRange layers;
  int32_t kv_blocks = 0;       // of 16 tokens; 0: the profile's
  int32_t max_rows = 2048;     // of one run()
  int32_t vocab = 32000;
  bool full_floats = false;    // activations as float32 instead of the profile's (16 bit) size
  double slowness = 1;         // times are multiplied by this

  // {"kind": "emulated", "profile": ..., "device": ..., "layers": [b, e], ...}: the names above.
  static Result<EmulatedExecutorOptions> parse(const Json& description);
  Json to_json() const;
};

class EmulatedExecutor final : public Executor {
 public:
  static Result<std::unique_ptr<EmulatedExecutor>> create(const EmulatedExecutorOptions& options,
                                                          const RankPlace& place);

  int32_t hidden_width() const override { return width_; }
  int32_t max_rows() const override { return options_.max_rows; }
  int32_t kv_blocks() const override { return options_.kv_blocks; }
  LayerRange layers() const override { return options_.layers; }
  int32_t model_layers() const override { return model_layers_; }
  Result<void> run(std::span<const RunItem> items, std::span<float> hidden,
                   std::vector<RowResult>& results) override;
  Json status() const override;
  void abort() override;

  // What run(items) takes, without running it.
  Seconds time_of(std::span<const RunItem> items) const;
  static int32_t token_of(const policy::SlotSpec& spec, int32_t position, int32_t vocab);

 private:
  EmulatedExecutor() = default;
  Result<void> pass_rows(std::span<const RunItem> items, std::span<float> hidden,
                         std::vector<RowResult>& results) const;
  Result<void> sleep_for(Seconds time);

  EmulatedExecutorOptions options_;
  RankPlace place_;
  spec::DeviceProfile device_;
  int32_t model_layers_ = 0;
  int32_t width_ = 0;
  Seconds overslept_{0};       // of the last run
  Seconds busy_{0};
  int64_t runs_ = 0, rows_ = 0;

  std::mutex mutex_;           // of aborted_
  std::condition_variable wake_;
  bool aborted_ = false;
};

}  // namespace towline::worker
