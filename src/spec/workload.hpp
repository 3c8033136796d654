// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Workloads: when requests arrive and how long they are, from trace files or from a formula.
//
// TraceReader streams a file of any size in bounded memory. The format is recognised by its first
// line; arrival times become nanoseconds after the first arrival.
//   CSV with a header naming the columns (others are ignored):
//     Azure 2023/2024   TIMESTAMP, ContextTokens, GeneratedTokens
//     Vidur             arrived_at (s), num_prefill_tokens, num_decode_tokens
//     Splitwise         arrival_timestamp (s), prompt_size, token_size
//     Helix lengths     input_tokens, output_tokens            (no arrivals)
//   JSON lines:
//     Mooncake          timestamp (ms), input_length, output_length
//     LLMServingSim     arrival_time_ns, input_toks, output_toks
//   DejaVu              one JSON array of [prompt, output]     (no arrivals; at most 256 MB)
// Faults (unknown columns, time going backwards, lengths of 0 or above kMaxTokens) are one sentence
// with file and line. Safe against hostile input.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"
#include "base/rng.hpp"

namespace towline::spec {

struct TraceTokens {
  std::vector<int32_t> prompt;  // all of them
  std::vector<int32_t> output;  // the first that are generated, as far as is known
};

struct TraceRequest {
  int64_t arrival_ns = 0;  // after the first request
  int32_t input = 0;       // prompt tokens
  int32_t output = 0;      // tokens to be generated, at least 1
  // Which they are, where keep_tokens() was asked for and the trace says so; else null.
  std::shared_ptr<const TraceTokens> tokens = nullptr;
  friend bool operator==(const TraceRequest&, const TraceRequest&) = default;
};

class TraceReader {
 public:
  static constexpr int64_t kMaxTokens = 10'000'000;

  static Result<TraceReader> open(const std::string& path);
  // From text, for tests and fuzzing; `source` names it in errors.
  static Result<TraceReader> from_text(std::string text, std::string source);

  bool has_arrivals() const { return has_arrivals_; }
  // Reads tokens too: LLMServingSim's input_tok_ids and output_tok_ids, and made-up ones that are
  // equal where Mooncake's hash_ids (of 512 tokens each) are. Other formats have none.
  void keep_tokens(bool keep) { keep_tokens_ = keep; }
  // The next request, or nothing at the end.
  Result<std::optional<TraceRequest>> next();

 private:
  enum class Format { kCsv, kJsonLines, kPairs };
  struct FileCloser {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  TraceReader() = default;
  Result<void> begin();
  // False at the end. The view is valid until the next call.
  Result<bool> read_line(std::string_view& line);
  Result<void> find_columns(std::string_view header);
  Result<void> load_pairs(std::string_view first);
  Result<std::optional<TraceRequest>> parse_csv(std::string_view line);
  Result<std::optional<TraceRequest>> parse_json_line(std::string_view line);
  Result<TraceRequest> checked(double arrival, double input, double output);
  Result<void> read_tokens(const Json& line, TraceRequest& request);
  Error fault(std::string_view what) const;

  std::string source_;
  std::unique_ptr<std::FILE, FileCloser> file_;
  std::string text_;          // a block of the file, or all of from_text()
  size_t at_ = 0;
  bool ended_ = false;        // nothing more to load into text_
  int64_t line_number_ = 0;

  Format format_ = Format::kCsv;
  bool has_arrivals_ = false;
  bool keep_tokens_ = false;
  bool clock_times_ = false;  // arrivals are written as dates
  double arrival_scale_ = 1;  // nanoseconds of the file's unit
  int arrival_column_ = -1, input_column_ = -1, output_column_ = -1;
  std::optional<int64_t> clock_base_;
  std::optional<double> first_arrival_;
  int64_t last_arrival_ = 0;
  std::string pending_;       // the first line of JSON lines
  bool has_pending_ = false;
  std::vector<TraceRequest> pairs_;
  size_t next_pair_ = 0;
};

// "2023-11-16 18:15:46.6805900", also with 'T': nanoseconds since 2020 began.
std::optional<int64_t> trace_clock(std::string_view text);

// All of a file; fails beyond `most` requests.
Result<std::vector<TraceRequest>> load_trace(const std::string& path, int64_t most = 50'000'000);

// Times between arrivals with a mean of 1, to be divided by a rate.
enum class ArrivalKind {
  kPoisson,  // exponential
  kGamma,    // gamma with the coefficient of variation given
  kUniform,  // all equal
  kDiurnal,  // Poisson whose rate swings by a sine between (1 - swing) and (1 + swing) of the mean
};

struct ArrivalProcess {
  ArrivalKind kind = ArrivalKind::kPoisson;
  double rate = 1;             // requests/s, positive
  double variation = 1;        // kGamma: standard deviation / mean, positive
  double swing = 0.5;          // kDiurnal: 0..1
  double period = 86'400;      // kDiurnal: seconds
};

// A draw from the gamma distribution of this shape, positive, and scale 1 (mean `shape`).
double draw_gamma(Rng& rng, double shape);

class ArrivalClock {
 public:
  ArrivalClock(ArrivalProcess process, uint64_t seed) : process_(process), rng_(seed) {}
  // Nanoseconds of the next arrival, never before the last.
  int64_t next();

 private:
  double exponential();
  ArrivalProcess process_;
  Rng rng_;
  double now_ = 0;  // seconds
};

}  // namespace towline::spec
