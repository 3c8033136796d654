// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// LocalEngine: the Generator of one process. One thread runs
//   commands -> Batcher -> Stage -> sampling -> events
// over and over while there is work, and sleeps on a futex while there is none.
//
// Commands (submit, cancel) cross to it through a bounded ring; events leave through the sink, all
// of a step at once. Everything mutable belongs to the engine thread; stats() reads atomics.
//
// Log-probabilities, tokens and embeddings of a request are functions of the request alone: not of
// what else runs, of the prefix cache, or of preemption (docs/engine.md).
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/ring.hpp"
#include "engine/lora.hpp"
#include "engine/row_evaluator.hpp"
#include "engine/stage.hpp"
#include "policy/admission.hpp"
#include "policy/batcher.hpp"
#include "serve/generator.hpp"

namespace towline::serve {

struct LocalEngineOptions {
  int32_t threads = 0;         // 0: as many as this process may use
  std::string isa = "auto";    // kernel table
  int32_t context = 0;         // tokens of one request at most; 0: the model's, up to 8192
  int64_t kv_tokens = 0;       // KV cache for all sequences; 0: up to 1 GiB, at least one context
  int32_t sequences = 64;      // running at the same time
  int32_t step_tokens = 512;   // rows of one step
  bool prefix_cache = true;
  int32_t queue = 256;         // requests waiting beyond those that run; more are refused
};

class LocalEngine final : public Generator {
 public:
  // Loads the weights (calling `progress` on this thread), then starts the engine thread.
  static Result<std::unique_ptr<LocalEngine>> start(
      std::shared_ptr<const engine::ModelFile> file, const LocalEngineOptions& options,
      EventSink sink, const engine::LoadProgress& progress = {});
  // Ends what is unfinished with kCancelled (the sink is called), then joins.
  ~LocalEngine() override;

  const spec::ModelDesc& model() const override { return stage_->desc(); }
  int32_t max_context() const override { return context_; }
  Result<void> submit(GenerationRequest request) override;
  void cancel(RequestId id) override;
  GeneratorStats stats() const override;
  Result<void> load_adapter(const std::string& name, const std::string& path,
                            AdapterDone done) override;
  Result<void> unload_adapter(const std::string& name) override;
  std::vector<std::string> adapters() const override;

  // From now on submit() answers kUnavailable; what was taken goes on to its end.
  void drain() { draining_.store(true, std::memory_order_relaxed); }
  // Requests taken and not yet ended.
  int32_t unfinished() const { return unfinished_.load(std::memory_order_acquire); }
  int threads() const { return team_->threads(); }
  std::string_view isa() const { return kernels_->name; }
  const engine::Weights& weights() const { return stage_->weights(); }

 private:
  struct Adapter {
    std::shared_ptr<const engine::LoraAdapter> weights;  // null: none
    uint64_t salt = 0;  // of the prefix cache: KV of two adapters is never shared
  };
  struct Command {
    enum class Kind { kSubmit, kCancel } kind = Kind::kCancel;
    GenerationRequest request;  // kCancel: only its id
    Adapter adapter;
  };
  // One live request.
  struct Session {
    GenerationRequest request;                   // its prompt has moved to `tokens`
    std::vector<int32_t> tokens;                 // prompt, then output
    int32_t prompt = 0;                          // how many of them are the prompt
    engine::TokenHistory history;
    std::shared_ptr<const engine::LoraAdapter> adapter;  // null: none
    std::chrono::steady_clock::time_point taken; // from the inbox
    Duration queued{-1};                         // until its first step; negative: not yet
    std::vector<GeneratedToken> prompt_scores;   // by position, if prompt_logprobs
    bool prompt_reported = false;
    engine::EmbeddingPool pool;                  // if embed
  };

  LocalEngine() = default;
  static int64_t choose_kv_tokens(const spec::ModelDesc& desc, const LocalEngineOptions& options,
                                  int32_t context);
  void push(Command command);

  // The engine thread.
  void run();
  void take_commands();
  void take(GenerationRequest&& request, Adapter&& adapter);
  void run_step();
  void apply_tables(const policy::Step& step);
  void evaluate_rows(const policy::Step& step, std::vector<policy::Sampled>& sampled);
  policy::Sampled accept(SeqId seq, Session& session, engine::RowOutcome&& outcome);
  void pool_rows(const policy::Step& step);
  void report_prompts(const policy::Step& step);
  void report_ends();
  GenerationEvent& event_of(SeqId seq);
  void flush_events();
  void publish_stats(int32_t step_rows);

  // Constant after start.
  EventSink sink_;
  const engine::KernelTable* kernels_ = nullptr;
  std::unique_ptr<engine::ComputeTeam> team_;  // called by the engine thread once it runs
  int32_t context_ = 0;
  policy::AdmissionLimits admission_;

  // The engine thread's.
  std::unique_ptr<engine::Stage> stage_;
  std::unique_ptr<engine::RowEvaluator> evaluator_;
  std::unique_ptr<policy::Batcher> batcher_;
  std::map<SeqId, Session> sessions_;
  std::map<RequestId, SeqId> live_;
  std::map<SeqId, std::vector<int32_t>> tables_;  // KV blocks of running sequences
  int64_t next_seq_ = 0;
  std::vector<float> hidden_;                     // [step_tokens][hidden]
  std::vector<GenerationEvent> events_;           // of this step
  std::map<SeqId, size_t> event_index_;
  int64_t prompt_tokens_ = 0, generation_tokens_ = 0, steps_ = 0;

  // Shared.
  std::unique_ptr<SpscRing<Command>> inbox_;
  std::atomic<uint32_t> wake_{0};       // raised after each push; the engine sleeps on it
  std::atomic<bool> stop_{false}, draining_{false};
  std::atomic<int32_t> unfinished_{0};
  struct SharedStats {
    std::atomic<int32_t> running{0}, waiting{0};
    std::atomic<int64_t> blocks_total{0}, blocks_used{0}, prompt_tokens{0}, generation_tokens{0};
    std::atomic<int64_t> prefix_queries{0}, prefix_hits{0}, preemptions{0}, steps{0};
    std::atomic<int64_t> last_step_tokens{0};
  } shared_;
  mutable std::mutex adapters_mutex_;
  std::map<std::string, Adapter> adapters_;  // by name
  uint64_t next_salt_ = 1;
  bool loading_ = false;                     // an adapter
  std::thread loader_;                       // the last one's; the caller's thread joins it
  std::thread thread_;
};

}  // namespace towline::serve
