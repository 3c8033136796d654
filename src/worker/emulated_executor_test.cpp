// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/emulated_executor.hpp"

#include <gtest/gtest.h>

#include <thread>

namespace towline::worker {
namespace {

std::unique_ptr<EmulatedExecutor> make(LayerRange layers, double slowness = 0) {
  EmulatedExecutorOptions o;
  o.profile = "llama2-70b";
  o.device = "A100";
  o.layers = layers;
  o.slowness = slowness;
  auto made = EmulatedExecutor::create(o, {});
  EXPECT_TRUE(made) << made.error().to_string();
  return std::move(made).value();
}

struct Batch {
  // Row i: a prompt of sizes[i] tokens, or for 0 one generated token.
  explicit Batch(const std::vector<int32_t>& sizes, int32_t entry, int32_t exit,
                 int32_t layers = 80)
      : states(sizes.size()), rows(sizes.size()) {
    for (size_t i = 0; i < sizes.size(); ++i) {
      states[i].gen = 3;
      states[i].spec.sampling.seed = i;
      states[i].spec.prompt_length = sizes[i] > 0 ? sizes[i] : 10;
      rows[i].slot = static_cast<uint32_t>(i);
      rows[i].state = &states[i];
      rows[i].from = sizes[i] > 0 ? 0 : 10;
      rows[i].to = sizes[i] > 0 ? sizes[i] : 11;
      rows[i].samples = true;
    }
    item.step = {LaneId(4), 9};
    item.hop.layers = {entry, exit};
    item.hop.previous = NodeId(entry == 0 ? -1 : 1);
    item.hop.next = NodeId(exit == layers ? -1 : 2);
    item.rows = rows;
  }
  std::vector<policy::SlotState> states;
  std::vector<Row> rows;
  RunItem item;
};

TEST(EmulatedExecutor, TimesAreThoseOfTheTables) {
  const auto node = make({20, 31}, 1);
  const spec::Profile profile = *spec::builtin_profile("llama2-70b");
  const spec::DeviceProfile& device = *profile.find("A100");
  const auto prompt = [&](double n) { return spec::interpolate(device.prompt, n).value; };
  const auto decode = [&](double n) { return spec::interpolate(device.decode, n).value; };

  const Batch mixed({300, 0, 200, 0, 0}, 20, 31);
  EXPECT_DOUBLE_EQ(node->time_of({&mixed.item, 1}).value, 11 * (prompt(500) + decode(3)));
  const Batch single({0}, 20, 31);
  EXPECT_DOUBLE_EQ(node->time_of({&single.item, 1}).value, 11 * 2 * decode(1));
  // Partial inference: the late comer shares layers 25 to 31 only.
  const Batch late({0, 0}, 25, 31);
  const RunItem items[] = {mixed.item, late.item};
  EXPECT_DOUBLE_EQ(node->time_of(items).value,
                   5 * (prompt(500) + decode(3)) + 6 * (prompt(500) + decode(5)));
  EXPECT_DOUBLE_EQ(make({20, 31}, 3)->time_of({&single.item, 1}).value, 3 * 11 * 2 * decode(1));
}

TEST(EmulatedExecutor, RowsHaveRealSizeAndAreCheckedByTheNextNode) {
  const auto first = make({0, 12}), second = make({12, 20}), last = make({20, 31});
  EXPECT_EQ(first->hidden_width(), 8192 / 2);  // 8192 numbers of 16 bits
  EXPECT_GT(first->kv_blocks(), 0);
  std::vector<float> hidden(static_cast<size_t>(4 * first->hidden_width()));
  std::vector<RowResult> results;
  const Batch a({3, 0}, 0, 12), b({3, 0}, 12, 20), c({3, 0}, 20, 31, 31);
  ASSERT_TRUE(first->run({&a.item, 1}, hidden, results));
  const std::vector<float> sent = hidden;
  ASSERT_TRUE(second->run({&b.item, 1}, hidden, results));
  EXPECT_TRUE(results.empty());
  ASSERT_TRUE(last->run({&c.item, 1}, hidden, results));
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(results[0].position, 3);
  EXPECT_EQ(results[1].position, 11);
  EXPECT_EQ(results[1].token.token, EmulatedExecutor::token_of(c.states[1].spec, 11, 32000));
  EXPECT_EQ(results[1].slot, (policy::SlotGen{1, 3}));

  // Rows of another layer, in another order, of another generation.
  hidden = sent;
  EXPECT_FALSE(last->run({&c.item, 1}, hidden, results));
  hidden = sent;
  std::swap_ranges(hidden.begin(), hidden.begin() + first->hidden_width(),
                   hidden.begin() + first->hidden_width());
  EXPECT_FALSE(second->run({&b.item, 1}, hidden, results));
  hidden = sent;
  Batch stale({3, 0}, 12, 20);
  stale.states[0].gen = 4;
  EXPECT_FALSE(second->run({&stale.item, 1}, hidden, results));
}

TEST(EmulatedExecutor, ABrokenProfileOrTooManyLayersAreRefused) {
  EmulatedExecutorOptions o;
  o.profile = "llama2-70b";
  o.device = "A100";
  o.layers = {0, 12};
  EXPECT_TRUE(EmulatedExecutor::create(o, {}));
  o.device = "abacus";
  EXPECT_FALSE(EmulatedExecutor::create(o, {}));
  o.device = "A100";
  o.layers = {0, 80};  // no room
  EXPECT_FALSE(EmulatedExecutor::create(o, {}));
  o.layers = {70, 81};
  EXPECT_FALSE(EmulatedExecutor::create(o, {}));
  o.layers = {0, 12};
  o.profile = "/nonexistent.toml";
  EXPECT_FALSE(EmulatedExecutor::create(o, {}));
  EXPECT_FALSE(EmulatedExecutorOptions::parse(Json::object()));
  o.profile = "llama2-70b";
  const auto back = EmulatedExecutorOptions::parse(o.to_json());
  ASSERT_TRUE(back);
  EXPECT_TRUE(back->to_json() == o.to_json());
}

TEST(EmulatedExecutor, AbortEndsALongRun) {
  const auto node = make({12, 20}, 1e6);  // hours
  Batch batch({500}, 12, 20);
  std::vector<float> hidden(static_cast<size_t>(500 * node->hidden_width()));
  Batch feed({500}, 0, 12);
  std::vector<RowResult> results;
  ASSERT_TRUE(make({0, 12})->run({&feed.item, 1}, hidden, results));
  std::thread other([&] { node->abort(); });
  const Result<void> ran = node->run({&batch.item, 1}, hidden, results);
  other.join();
  ASSERT_FALSE(ran);
  EXPECT_EQ(ran.error().code(), Code::kUnavailable);
}

}  // namespace
}  // namespace towline::worker
