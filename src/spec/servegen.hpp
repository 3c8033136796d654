// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ServeGen workloads (Xiang et al., "ServeGen", 2025): many clients, each with a request rate, a
// burstiness and lengths of its own that change from window to window. Per client N a folder holds
//   chunk-N-trace.csv     start (s), requests/s, CV, Gamma|Weibull|(empty), shape, scale
//   chunk-N-dataset.json  {"start (s)": {"input_tokens": "{length: share, ...}",
//                         "output_tokens": ...}} from which lengths are drawn independently;
//                         may be missing, then they come from the lengths given
// Arrivals of a client are a renewal process in each window: times between requests are Gamma or
// Weibull with the mean 1/rate and the shape given (exponential if there is none). Requests of all
// clients come in order of time; drawn as they are asked for, so memory does not grow with time.
// Safe against hostile files.
#pragma once

#include <cstdint>
#include <optional>
#include <queue>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "base/rng.hpp"
#include "spec/workload.hpp"

namespace towline::spec {

// A client's files, read.
struct ServeGenClient {
  enum class Law { kExponential, kGamma, kWeibull };
  struct Window {
    double begin = 0;         // seconds
    double rate = 0;          // requests/s; 0: silent
    Law law = Law::kExponential;
    double shape = 1;
  };
  struct Lengths {            // of a window of the dataset
    double begin = 0;
    // Tokens and the sum of shares up to and including them; the last sum is 1.
    std::vector<std::pair<int32_t, double>> input, output;
  };
  std::vector<Window> windows;    // in order of time
  double end = 0;                 // of the last one
  std::vector<Lengths> lengths;   // in order of time; may be empty

  static Result<ServeGenClient> parse(std::string_view trace, std::string_view dataset,
                                      std::string_view source);
};

class ServeGenSource {
 public:
  using LengthList = std::vector<std::pair<int32_t, int32_t>>;

  // `scale`: all rates are multiplied by it; `begin`: seconds into the files. `fallback`:
  // lengths for clients without a dataset; without it they are an error.
  static Result<ServeGenSource> make(std::vector<ServeGenClient> clients, double scale,
                                     double begin, uint64_t seed, LengthList fallback = {});
  // Every client of a folder, in order of its number.
  static Result<std::vector<ServeGenClient>> load(const std::string& folder);

  // Mean requests/s from `begin` to the end of the files.
  double mean_rate() const;
  // Nothing at the end of the files.
  Result<std::optional<TraceRequest>> next();

 private:
  struct State {
    Rng rng{0};
    size_t window = 0;
  };
  struct Next {
    double at = 0;
    int32_t client = 0;
    friend bool operator<(const Next& a, const Next& b) {  // the earliest on top
      return a.at != b.at ? a.at > b.at : a.client > b.client;
    }
  };
  void advance(int32_t client, double from);
  int32_t draw(const std::vector<std::pair<int32_t, double>>& list, Rng& rng) const;

  std::vector<ServeGenClient> clients_;
  std::vector<State> states_;
  std::priority_queue<Next> queue_;
  double scale_ = 1, begin_ = 0;
  LengthList fallback_;
};

}  // namespace towline::spec
