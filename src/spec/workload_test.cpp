// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/workload.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>

namespace towline::spec {
namespace {

std::vector<TraceRequest> read_all(const std::string& text) {
  auto reader = TraceReader::from_text(text, "t");
  EXPECT_TRUE(reader) << (reader ? "" : reader.error().to_string());
  std::vector<TraceRequest> all;
  while (reader) {
    auto request = reader->next();
    EXPECT_TRUE(request) << (request ? "" : request.error().to_string());
    if (!request || !*request) break;
    all.push_back(**request);
  }
  return all;
}

std::string failure(const std::string& text) {
  auto reader = TraceReader::from_text(text, "t");
  if (!reader) return reader.error().to_string();
  for (;;) {
    auto request = reader->next();
    if (!request) return request.error().to_string();
    if (!*request) return "no failure";
  }
}

TEST(TraceReader, ReadsEveryFormat) {
  const std::vector<TraceRequest> expected = {{0, 374, 44}, {4'314'579'000, 396, 109}};
  EXPECT_EQ(read_all("TIMESTAMP,ContextTokens,GeneratedTokens\n"
                     "2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,396,109\n"),
            expected);
  EXPECT_EQ(read_all("arrived_at,num_prefill_tokens,num_decode_tokens\n"
                     "0.0,374,44\n4.314579,396,109"), expected);
  EXPECT_EQ(read_all("request_id,arrival_timestamp,prompt_size,token_size\n"
                     "7,10,374,44\n\n8,14.314579,396,109\n"), expected);
  EXPECT_EQ(read_all("{\"timestamp\": 5, \"input_length\": 374, \"output_length\": 44}\n"
                     "{\"timestamp\": 4319.579, \"input_length\": 396, \"output_length\": 109}\n"),
            expected);
  EXPECT_EQ(read_all("{\"input_toks\": 374, \"output_toks\": 44, \"arrival_time_ns\": 1}\n"
                     "{\"input_toks\": 396, \"output_toks\": 109, \"arrival_time_ns\": "
                     "4314579001}\n"), expected);
  const std::vector<TraceRequest> lengths = {{0, 374, 44}, {0, 396, 109}};
  EXPECT_EQ(read_all("input_tokens,output_tokens\n374,44\n396,109\n"), lengths);
  EXPECT_EQ(read_all("[[374, 44],\n [396, 109]]"), lengths);
}

TEST(TraceReader, KeepsTokensWhenAsked) {
  const std::string line =
      R"({"input_toks": 3, "output_toks": 2, "arrival_time_ns": 1, "input_tok_ids": [5, 6, 7],)"
      R"( "output_tok_ids": [8, 9]})";
  const auto read = [](const std::string& text, bool keep) {
    auto reader = TraceReader::from_text(text, "t");
    reader->keep_tokens(keep);
    return reader->next();
  };
  EXPECT_EQ((*read(line, false))->tokens, nullptr);
  const auto kept = read(line, true);
  ASSERT_TRUE(kept && *kept && (*kept)->tokens);
  EXPECT_EQ((*kept)->tokens->prompt, (std::vector<int32_t>{5, 6, 7}));
  EXPECT_EQ((*kept)->tokens->output, (std::vector<int32_t>{8, 9}));
  const std::string short_line =
      R"({"input_toks": 3, "output_toks": 2, "arrival_time_ns": 1, "input_tok_ids": [5, 6]})";
  EXPECT_TRUE(read(short_line, false));
  EXPECT_FALSE(read(short_line, true));
  EXPECT_FALSE(read(R"({"input_toks": 1, "output_toks": 2, "arrival_time_ns": 1,)"
                    R"( "input_tok_ids": [-5]})", true));
}

TEST(TraceReader, TokensOfEqualHashesAreEqual) {
  const auto prompt = [](const std::string& ids) {
    auto reader = TraceReader::from_text(
        "{\"timestamp\": 0, \"input_length\": 1000, \"output_length\": 4, \"hash_ids\": [" + ids +
            "]}", "t");
    reader->keep_tokens(true);
    const auto request = reader->next();
    return request && *request ? (*request)->tokens->prompt : std::vector<int32_t>();
  };
  const std::vector<int32_t> a = prompt("7, 8"), b = prompt("7, 9");
  ASSERT_EQ(a.size(), 1000u);
  ASSERT_EQ(b.size(), 1000u);
  EXPECT_TRUE(std::equal(a.begin(), a.begin() + 512, b.begin()));
  EXPECT_NE(a[512], b[512]);
  EXPECT_NE(a[0], a[1]);
  EXPECT_TRUE(prompt("7").empty());  // refused
}

TEST(TraceReader, CrossesDays) {
  const auto all = read_all("TIMESTAMP,ContextTokens,GeneratedTokens\n"
                            "2024-02-28 23:59:59.5,1,1\n2024-03-01 00:00:00,1,1\n");
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[1].arrival_ns, (86'400 + 0) * 1'000'000'000ll + 500'000'000);  // a leap year
}

TEST(TraceReader, FaultsNameTheLine) {
  const std::string header = "arrived_at,num_prefill_tokens,num_decode_tokens\n";
  EXPECT_NE(failure(header + "0,1,1\n3,0,5\n").find("t:3: 0 prompt tokens"), std::string::npos);
  EXPECT_NE(failure(header + "3,1,1\n2,1,1\n").find("t:3: arrives before"), std::string::npos);
  EXPECT_NE(failure(header + "0,1,99999999999\n").find("t:2:"), std::string::npos);
  EXPECT_NE(failure(header + "0,1\n").find("2 columns"), std::string::npos);
  EXPECT_NE(failure(header + "x,1,1\n").find("'x' is not a time"), std::string::npos);
  EXPECT_NE(failure(header + "nan,1,1\n").find("not a time"), std::string::npos);
  EXPECT_NE(failure("a,b,c\n1,2,3\n").find("no known columns"), std::string::npos);
  EXPECT_NE(failure("").find("empty"), std::string::npos);
  EXPECT_NE(failure("{\"timestamp\": 1}\n").find("input_length"), std::string::npos);
  EXPECT_NE(failure("[[1]]").find("expected [prompt"), std::string::npos);
  EXPECT_NE(failure("[[1, 2]").find("t"), std::string::npos);
}

// Mean and variation of the times between arrivals.
std::pair<double, double> gaps(ArrivalProcess process) {
  ArrivalClock clock(process, 3);
  double sum = 0, squares = 0, last = 0;
  constexpr int kCount = 200'000;
  for (int i = 0; i < kCount; ++i) {
    const double now = static_cast<double>(clock.next()) * 1e-9;
    EXPECT_GE(now, last);
    sum += now - last;
    squares += (now - last) * (now - last);
    last = now;
  }
  const double mean = sum / kCount;
  return {mean, std::sqrt(squares / kCount - mean * mean) / mean};
}

TEST(ArrivalClock, HasTheMeanAndTheVariationAskedFor) {
  const auto [poisson_mean, poisson_cv] = gaps({.rate = 4});
  EXPECT_NEAR(poisson_mean, 0.25, 0.003);
  EXPECT_NEAR(poisson_cv, 1, 0.02);
  const auto [bursty_mean, bursty_cv] = gaps({.kind = ArrivalKind::kGamma, .rate = 4,
                                              .variation = 3});
  EXPECT_NEAR(bursty_mean, 0.25, 0.01);
  EXPECT_NEAR(bursty_cv, 3, 0.1);
  const auto [smooth_mean, smooth_cv] = gaps({.kind = ArrivalKind::kGamma, .rate = 4,
                                              .variation = 0.3});
  EXPECT_NEAR(smooth_mean, 0.25, 0.002);
  EXPECT_NEAR(smooth_cv, 0.3, 0.01);
  const auto [even_mean, even_cv] = gaps({.kind = ArrivalKind::kUniform, .rate = 4});
  EXPECT_NEAR(even_mean, 0.25, 1e-6);
  EXPECT_LT(even_cv, 1e-3);
  EXPECT_NEAR(gaps({.kind = ArrivalKind::kDiurnal, .rate = 4, .period = 100}).first, 0.25, 0.005);
}

TEST(TraceReader, PublicTraces) {
  const char* shared = std::getenv("TOWLINE_SHARED");
  const std::string data = std::string(shared != nullptr ? shared : "../shared") + "/data/traces/";
  if (!std::ifstream(data + "README.md")) {
    GTEST_SKIP() << "no shared data at " << data << "; set TOWLINE_SHARED";
  }
  const struct {
    const char* file;
    size_t count;
    double seconds;
  } traces[] = {{"azure2023/AzureLLMInferenceTrace_conv.csv", 19'366, 3502},
                {"vidur_processed/splitwise_conv.csv", 19'366, 3502},
                {"mooncake/conversation_trace.jsonl", 12'031, 3537},
                {"real_llmservingsim/sharegpt-llama-3.1-8b-300-sps10.jsonl", 300, 30}};
  for (const auto& trace : traces) {
    const auto all = load_trace(data + trace.file);
    ASSERT_TRUE(all) << all.error().to_string();
    EXPECT_EQ(all->size(), trace.count) << trace.file;
    EXPECT_NEAR(static_cast<double>(all->back().arrival_ns) * 1e-9, trace.seconds, 5) << trace.file;
  }
}

}  // namespace
}  // namespace towline::spec
