// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/servegen.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

namespace towline::spec {
namespace {

ServeGenClient client(const std::string& trace, const std::string& dataset = "") {
  auto parsed = ServeGenClient::parse(trace, dataset, "t");
  EXPECT_TRUE(parsed) << (parsed ? "" : parsed.error().to_string());
  return parsed ? *std::move(parsed) : ServeGenClient();
}

std::vector<TraceRequest> draw(ServeGenSource& source, size_t most = 1'000'000) {
  std::vector<TraceRequest> all;
  while (all.size() < most) {
    const auto request = source.next();
    EXPECT_TRUE(request);
    if (!request || !*request) break;
    all.push_back(**request);
  }
  return all;
}

constexpr const char* kDataset =
    R"({"0": {"input_tokens": "{10: 0.25, 20: 0.75}", "output_tokens": "{0: 0.5, 7: 0.5}"},
        "1000": {"input_tokens": "{30: 1}", "output_tokens": "{8: 1}"}})";

TEST(ServeGen, RatesBurstinessAndLengthsAreThoseOfTheWindows) {
  // Silent, then Poisson at 20/s, then Gamma of shape 1/4 (CV 2) at 40/s, then Weibull.
  const ServeGenClient c = client("0,0,0,,0,0\n500,20,1,,0,0\n1000,40,2,Gamma,0.25,9\n"
                                  "1500,30,1.5,Weibull,0.7,1\n", kDataset);
  EXPECT_EQ(c.end, 2000);
  auto source = ServeGenSource::make({c}, 1, 0, 3);
  ASSERT_TRUE(source);
  EXPECT_DOUBLE_EQ(source->mean_rate(), 22.5);
  const std::vector<TraceRequest> all = draw(*source);
  double last = 0;
  std::map<int, std::vector<double>> gaps;  // by window
  std::map<int32_t, int> inputs;
  for (const TraceRequest& r : all) {
    const double at = static_cast<double>(r.arrival_ns) * 1e-9;
    ASSERT_GE(at, last);
    gaps[static_cast<int>(at / 500)].push_back(at - last);
    last = at;
    if (at < 1000) ++inputs[r.input];
    EXPECT_EQ(r.output, at < 1000 ? 7 : 8);
  }
  EXPECT_FALSE(gaps.contains(0));
  const double rates[] = {0, 20, 40, 30};
  const double variations[] = {0, 1, 2, 1.462};  // Weibull 0.7: from its moments
  for (int w = 1; w < 4; ++w) {
    double sum = 0, squares = 0;
    for (size_t i = 1; i < gaps[w].size(); ++i) sum += gaps[w][i];
    const double mean = sum / static_cast<double>(gaps[w].size() - 1);
    for (size_t i = 1; i < gaps[w].size(); ++i) {
      squares += (gaps[w][i] - mean) * (gaps[w][i] - mean);
    }
    const double deviation = std::sqrt(squares / static_cast<double>(gaps[w].size() - 2));
    EXPECT_NEAR(1 / mean, rates[w], 0.06 * rates[w]) << w;
    EXPECT_NEAR(deviation / mean, variations[w], 0.12 * variations[w]) << w;
  }
  EXPECT_NEAR(inputs[20] / static_cast<double>(inputs[10] + inputs[20]), 0.75, 0.02);
}

TEST(ServeGen, ClientsComeInOrderAndTheSameSeedGivesTheSame) {
  std::vector<ServeGenClient> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(client("0,1,1,,0,0\n100,3,1,Gamma,0.5,1\n", kDataset));
  }
  auto a = ServeGenSource::make(clients, 2, 50, 7), b = ServeGenSource::make(clients, 2, 50, 7);
  auto c = ServeGenSource::make(clients, 2, 50, 8);
  ASSERT_TRUE(a && b && c);
  const auto first = draw(*a);
  EXPECT_EQ(first, draw(*b));
  EXPECT_NE(first, draw(*c));
  EXPECT_NEAR(static_cast<double>(first.size()), 20 * 2 * (50 + 300), 900);
  for (size_t i = 1; i < first.size(); ++i) ASSERT_GE(first[i].arrival_ns, first[i - 1].arrival_ns);
}

TEST(ServeGen, FaultsAreNamed) {
  const auto failure = [](const std::string& trace, const std::string& dataset = "") {
    const auto parsed = ServeGenClient::parse(trace, dataset, "t");
    EXPECT_FALSE(parsed) << trace << dataset;
    return parsed ? std::string() : parsed.error().to_string();
  };
  EXPECT_NE(failure("").find("empty"), std::string::npos);
  EXPECT_NE(failure("0,1,1").find("t:1"), std::string::npos);
  EXPECT_NE(failure("600,1,1,,0,0\n0,1,1,,0,0").find("t:2"), std::string::npos);
  EXPECT_NE(failure("0,-1,1,,0,0").find("rate"), std::string::npos);
  EXPECT_NE(failure("0,1,1,Pareto,1,1").find("Gamma, Weibull"), std::string::npos);
  EXPECT_NE(failure("0,1,1,Gamma,0,1").find("shape"), std::string::npos);
  EXPECT_NE(failure("0,1,1,,0,0", "{\"0\": {}}").find("input_tokens"), std::string::npos);
  EXPECT_NE(failure("0,1,1,,0,0", "[]").find("object"), std::string::npos);
  EXPECT_NE(failure("0,1,1,,0,0", R"({"0": {"input_tokens": "{1.5: 1}", "output_tokens": "{}"}})")
                .find("whole and from 1"), std::string::npos);
  // Windows in which nobody asked anything.
  EXPECT_TRUE(client("0,1,1,,0,0", R"({"0": {"input_tokens": "{}", "output_tokens": "{1: 1}"}})")
                  .lengths.empty());
  EXPECT_FALSE(ServeGenSource::make({client("0,1,1,,0,0")}, 1, 0, 1));
}

}  // namespace
}  // namespace towline::spec
