// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Generator: the seam between the front door (HTTP, CLI) and whatever produces tokens: one process
// (serve/local_engine.hpp), a cluster of workers, or a fake in a test.
//
// Tokens only: text, chat templates and stop strings live on the caller's side, so that the token
// log stays the one truth. A request ends exactly once, with a FinishReason.
//
// Threading: submit and cancel may be called from any one thread (the loop thread) and do not
// block. Events arrive on the generator's own thread through the sink given at construction; the
// sink must not block either (it posts to the loop).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/json.hpp"
#include "base/result.hpp"
#include "base/units.hpp"
#include "engine/sampling_params.hpp"
#include "spec/model_desc.hpp"

namespace towline::serve {

enum class FinishReason { kNone, kStop, kLength, kCancelled, kError };

struct GenerationRequest {
  RequestId id;                      // unique while the request lives; chosen by the caller
  int32_t choice = 0;                // index among the n choices of one API request
  std::vector<int32_t> prompt;       // 1..context tokens
  engine::SamplingParams sampling;
  int32_t max_tokens = 16;           // output tokens at most; 0 = evaluate the prompt only
  std::vector<int32_t> stop_tokens;  // ends with kStop; the stop token is reported, flagged
  bool prompt_logprobs = false;      // report logprobs of the prompt's tokens (echo + logprobs)
  bool embed = false;                // report the pooled, normalised hidden state instead of tokens
  int32_t priority = 0;              // lower first; ties by arrival
  std::string adapter;               // name of a loaded LoRA adapter; empty: the model as it is
};

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;
};

struct GeneratedToken {
  int32_t token = 0;
  bool is_stop = false;            // a stop token: not part of the text
  float logprob = 0;               // log p(token) before temperature; valid if logprobs were asked
  std::vector<TokenLogprob> top;   // alternatives, best first
};

// What one step produced for one request.
struct GenerationEvent {
  RequestId id;
  std::vector<GeneratedToken> tokens;
  std::vector<GeneratedToken> prompt_tokens;  // once, if prompt_logprobs
  std::vector<float> embedding;               // once, if embed
  int32_t cached_tokens = 0;                  // prompt tokens found in the prefix cache
  Duration queued{};                          // from submit to first being scheduled
  FinishReason finish = FinishReason::kNone;
  std::optional<Error> error;                 // with kError
};

using EventSink = std::function<void(std::vector<GenerationEvent>&&)>;  // all events of a step

// A snapshot for /metrics, readable from any thread.
struct GeneratorStats {
  int32_t running = 0, waiting = 0;
  int64_t kv_blocks_total = 0, kv_blocks_used = 0;
  int64_t prompt_tokens = 0, generation_tokens = 0;     // since start
  int64_t prefix_queries = 0, prefix_hits = 0;          // in tokens, since start
  int64_t preemptions = 0, steps = 0;
  int64_t last_step_tokens = 0;
};

class Generator {
 public:
  virtual ~Generator() = default;
  virtual const spec::ModelDesc& model() const = 0;
  virtual int32_t max_context() const = 0;  // tokens, prompt and output together
  // Refuses at once (kExhausted with how long the queue is, kInvalidArgument) or takes the request.
  virtual Result<void> submit(GenerationRequest request) = 0;
  // LoRA adapters, loaded and unloaded while serving. load_adapter refuses at once (a name in use,
  // another one being loaded) or calls `done` once, from any thread, when the adapter of directory
  // `path` can be used or cannot be. Requests that have an adapter keep it after unload_adapter.
  using AdapterDone = std::function<void(Result<void>)>;
  virtual Result<void> load_adapter(const std::string& name, const std::string& path,
                                    AdapterDone done) {
    (void)name, (void)path, (void)done;
    return Error(Code::kUnsupported, "this server cannot load adapters");
  }
  virtual Result<void> unload_adapter(const std::string& name) {
    return Error(Code::kNotFound, "there is no adapter '" + name + "'");
  }
  virtual std::vector<std::string> adapters() const { return {}; }  // names, ascending

  // The request ends with kCancelled at the next step's boundary; unknown ids are ignored.
  virtual void cancel(RequestId id) = 0;
  virtual GeneratorStats stats() const = 0;
  // False while requests cannot be served (a cluster without enough nodes). Any thread.
  virtual bool ready() const { return true; }
  // Its memory was given back by a call; one more wakes it.
  virtual bool asleep() const { return false; }

  // Collective calls of operators, by name: reset_prefix_cache, sleep {"level"}, wake, health,
  // dump_state, ... (docs/api.md). Refuses at once (kNotFound lists the names) or calls
  // `done` once, from any thread, with an answer for each node. "timeout_s" in the arguments:
  // so long the answer of a node is waited for.
  using CallDone = std::function<void(Result<Json>)>;
  virtual Result<void> call(const std::string& method, const Json& args, CallDone done) {
    (void)args, (void)done;
    return Error(Code::kUnsupported, "'" + method + "' cannot be called here: this is no cluster");
  }

  // Of a cluster; one process has nothing to say.
  // Its nodes, epochs, layers, KV use, planned and achieved flow; null if this is no cluster.
  virtual Result<Json> status() const { return Json(); }
  // Which way a request took and what became of it; null if it is forgotten.
  virtual Json explain(RequestId id) const {
    (void)id;
    return {};
  }
  // No new requests through the node; those on it finish there.
  virtual Result<void> drain_node(const std::string& name) {
    return Error(Code::kNotFound, "there is no node '" + name + "': this is no cluster");
  }
};

}  // namespace towline::serve
