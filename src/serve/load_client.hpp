// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// LoadClient: sends streamed completions to any server with OpenAI's API and times what comes back.
//
// Open loop: request i is sent at its own time, whether the ones before are answered or not (a late
// server meets a growing crowd, as in life; closed loops hide that). Closed loop: each of N clients
// sends the next request when its last one ended. Every request taken from the source ends in the
// sink exactly once: answered, refused, failed or cut by stop(). Nothing that a server sends is
// believed: an answer that is no stream of JSON events fails, and so does one without end.
//
// All times are seconds on the loop's clock. `due` is when an open-loop request should have been
// sent: latencies are measured from there, so that a client that falls behind cannot flatter the
// server (it reports its own lag). One coroutine and one connection a request.
//
// Threading: everything on the loop thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/loop.hpp"
#include "base/result.hpp"
#include "serve/server_url.hpp"
#include "spec/workload.hpp"

namespace towline::serve {

struct LoadOptions {
  ServerUrl target;
  std::string model;          // of the request body; empty: none is named
  std::string api_key;        // empty: none is sent
  bool chat = false;          // /chat/completions with words instead of /completions with token ids
  bool ignore_eos = true;     // ask for exactly the wanted output (vLLM's field, ours as well)
  int32_t clients = 0;        // closed loop of so many; 0: open loop
  int32_t vocabulary = 256;   // prompt token ids are drawn below this, from 3
  double temperature = 0;
  uint64_t seed = 0;
  Duration timeout = seconds(600);  // of one request
};

struct LoadResult {
  int64_t index = 0;
  double due = 0, sent = 0;          // seconds
  double first = -1, last = -1;      // when the first and the last token came; -1: never
  int32_t wanted_input = 0, wanted_output = 0;
  int32_t input = 0, output = 0;     // tokens as the server counts; else what was sent, and pieces
  int status = 0;                    // HTTP; 0: no answer
  std::string error;                 // empty: answered to its end
  bool cut = false;                  // it had not ended when stop() came
  std::vector<float> gaps;           // seconds between one piece and the next
  bool ok() const { return error.empty(); }
  double ttft() const { return first - due; }
  double e2e() const { return last - due; }
  double tpot() const { return output > 1 ? (last - first) / (output - 1) : 0; }
};

class LoadClient {
 public:
  using Source = std::function<std::optional<spec::TraceRequest>()>;
  using Sink = std::function<void(LoadResult&&)>;

  LoadClient(Loop& loop, LoadOptions options, Source source, Sink sink);
  ~LoadClient();

  // Starts sending; `done` is called on the loop when the source is empty and all have ended.
  void start(std::function<void()> done);
  // Sends nothing more and ends what runs with the error "stopped".
  void stop();
  int64_t sent() const;
  int64_t in_flight() const;
  int64_t most_in_flight() const;

  // The first model the server names, for requests that must name one. Waits for its answer.
  static Result<std::string> first_model(const ServerUrl& server, const std::string& api_key);

  struct State;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace towline::serve
