// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/stage_executor.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "base/fmt.hpp"
#include "base/for_seeds.hpp"
#include "engine/testing_lora.hpp"
#include "engine/testing_model.hpp"
#include "worker/layer_segments.hpp"

namespace towline::worker {
namespace {

constexpr int32_t kLayers = 5;

// A node: one or more ranks as threads of this process.
class Node {
 public:
  Node(const std::string& model, LayerRange held, int32_t ranks) {
    StageExecutorOptions options;
    options.model = model;
    options.layers = held;
    options.kv_blocks = 100;
    options.max_rows = 200;
    options.max_logit_rows = 3;  // several turns
    options.threads = 1;
    if (ranks > 1) {
      auto region =
          ShmCollectiveRegion::create(ranks, *StageExecutor::shared_floats(options, ranks));
      EXPECT_TRUE(region) << region.error().to_string();
      region_ = std::make_unique<ShmCollectiveRegion>(std::move(region).value());
    }
    for (int32_t rank = 0; rank < ranks; ++rank) {
      RankPlace place;
      place.rank = rank;
      place.of = ranks;
      if (region_) place.collective_fd = region_->fd();
      auto made = StageExecutor::create(options, place);
      EXPECT_TRUE(made) << made.error().to_string();
      ranks_.push_back(std::move(made).value());
    }
  }
  // All ranks run; `results` is empty before and then rank 0's.
  Result<void> run(std::span<const RunItem> items, std::vector<float>& hidden,
                   std::vector<RowResult>& results) {
    std::vector<std::thread> others;
    std::vector<std::vector<RowResult>> seen(ranks_.size());
    for (size_t r = 1; r < ranks_.size(); ++r) {
      others.emplace_back([this, r, items, &seen, copy = hidden]() mutable {
        EXPECT_TRUE(ranks_[r]->run(items, copy, seen[r]));
      });
    }
    const Result<void> ran = ranks_[0]->run(items, hidden, results);
    for (std::thread& other : others) other.join();
    for (size_t r = 1; r < ranks_.size(); ++r) EXPECT_TRUE(seen[r] == results);  // all draw alike
    if (!ran) return ran.error();
    return {};
  }
  StageExecutor& rank(size_t r) { return *ranks_[r]; }

 private:
  std::unique_ptr<ShmCollectiveRegion> region_;
  std::vector<std::unique_ptr<StageExecutor>> ranks_;
};

struct Request {
  std::vector<int32_t> prompt;
  spec::SamplingParams sampling;
  int32_t outputs = 8;
  bool prompt_logprobs = false;
  bool embed = false;
  std::vector<std::pair<size_t, LayerRange>> hops;  // (node, layers)
};
struct Answer {
  std::vector<ScoredToken> tokens;
  std::vector<ScoredToken> prompt;
  std::vector<float> embedding;
  friend bool operator==(const Answer&, const Answer&) = default;
};

std::vector<Request> some_requests() {
  Rng rng(3);
  std::vector<Request> requests(6);
  for (size_t i = 0; i < requests.size(); ++i) {
    Request& r = requests[i];
    for (int64_t n = rng.between(1, 40); n > 0; --n) {
      r.prompt.push_back(static_cast<int32_t>(rng.below(300)));
    }
    r.sampling.temperature = i % 2 == 0 ? 0.0f : 0.9f;
    r.sampling.seed = i;
    r.sampling.logprobs = i == 3 ? 2 : -1;
    if (i == 1) r.sampling.repetition_penalty = 1.3f;
    if (i == 2) r.sampling.frequency_penalty = 0.4f;
    r.prompt_logprobs = i == 4;
    r.embed = i == 5;
    if (r.embed) r.outputs = 0;
  }
  return requests;
}

// A small coordinator: every round each unfinished request advances by some rows along its own
// hops; on each node all items are coalesced into one run. The order of nodes is that of the hops.
std::vector<Answer> serve(std::vector<std::unique_ptr<Node>>& nodes,
                          const std::vector<Request>& requests, Rng& rng) {
  const size_t n = requests.size();
  std::vector<policy::SlotState> slots(n);
  std::vector<Answer> answers(n);
  for (size_t i = 0; i < n; ++i) {
    policy::SlotState& s = slots[i];
    s.live = true;
    s.serial = i + 1;
    s.spec.prompt_length = static_cast<int32_t>(requests[i].prompt.size());
    s.spec.sampling = requests[i].sampling;
    s.spec.prompt_logprobs = requests[i].prompt_logprobs;
    s.spec.embed = requests[i].embed;
    s.tokens = requests[i].prompt;
    for (int32_t b = 0; b < 5; ++b) s.blocks.push_back(static_cast<int32_t>(i) * 5 + b);
  }
  for (int64_t round = 0;; ++round) {
    std::vector<Row> rows(n);
    std::vector<size_t> active;
    for (size_t i = 0; i < n; ++i) {
      policy::SlotState& s = slots[i];
      const auto known = static_cast<int32_t>(s.tokens.size());
      if (s.computed == known) continue;
      if (static_cast<int32_t>(answers[i].tokens.size()) == requests[i].outputs &&
          s.computed >= s.spec.prompt_length) {
        continue;
      }
      Row& row = rows[i];
      row.slot = static_cast<uint32_t>(i);
      row.state = &s;
      row.from = s.computed;
      row.to = static_cast<int32_t>(rng.between(s.computed + 1, known));
      row.samples = row.to == known && requests[i].outputs > 0;
      row.logits_from = requests[i].prompt_logprobs || requests[i].embed ? row.from
                        : row.samples                                    ? row.to - 1
                                                                         : row.to;
      active.push_back(i);
    }
    if (active.empty()) return answers;
    std::vector<std::vector<float>> hidden(n);
    for (size_t node = 0; node < nodes.size(); ++node) {
      std::vector<RunItem> items;
      std::vector<float> all;
      for (const size_t i : active) {
        const auto& hops = requests[i].hops;
        for (size_t h = 0; h < hops.size(); ++h) {
          if (hops[h].first != node) continue;
          RunItem item;
          item.step = {LaneId(static_cast<int32_t>(i)), round};
          item.hop.layers = hops[h].second;
          item.hop.previous = NodeId(h == 0 ? -1 : 0);
          item.hop.next = NodeId(h + 1 == hops.size() ? -1 : 0);
          item.rows = {&rows[i], 1};
          items.push_back(item);
          hidden[i].resize(static_cast<size_t>(rows[i].count()) * 256);
          all.insert(all.end(), hidden[i].begin(), hidden[i].end());
        }
      }
      if (items.empty()) continue;
      std::vector<RowResult> results;
      const Result<void> ran = nodes[node]->run(items, all, results);
      EXPECT_TRUE(ran) << ran.error().to_string();
      auto at = all.begin();
      for (const RunItem& item : items) {
        std::vector<float>& own = hidden[item.rows[0].slot];
        std::copy_n(at, own.size(), own.begin());
        at += static_cast<int64_t>(own.size());
      }
      for (RowResult& result : results) {
        EXPECT_EQ(result.extras->error, "");
        EXPECT_EQ(result.step.step, round);
        Answer& answer = answers[result.slot.slot];
        policy::SlotState& s = slots[result.slot.slot];
        if (!result.extras->prompt.empty()) {
          EXPECT_EQ(result.extras->prompt_from, static_cast<int32_t>(answer.prompt.size()) + 1);
        }
        for (const ScoredToken& token : result.extras->prompt) answer.prompt.push_back(token);
        if (result.extras->pooled_rows > 0) answer.embedding = result.extras->pooled;
        if (!result.sampled) continue;
        EXPECT_EQ(result.position, static_cast<int32_t>(s.tokens.size()));
        s.tokens.push_back(result.token.token);
        answer.tokens.push_back(std::move(result.token));
      }
    }
    for (const size_t i : active) slots[i].computed = rows[i].to;
  }
}

std::vector<Answer> serve_over(const std::string& model, const std::vector<LayerRange>& nodes,
                               const std::vector<int32_t>& ranks, std::vector<Request> requests,
                               uint64_t seed) {
  std::vector<std::unique_ptr<Node>> made;
  for (size_t i = 0; i < nodes.size(); ++i) {
    made.push_back(std::make_unique<Node>(model, nodes[i], ranks[i]));
  }
  Rng rng(seed);
  for (Request& r : requests) {  // a random route: the next node from a random layer of its own
    r.hops.clear();
    int32_t layer = 0;
    for (size_t i = 0; layer < kLayers; ++i) {
      const int32_t end = i + 1 == nodes.size()
                              ? kLayers
                              : static_cast<int32_t>(
                                    rng.between(std::max(nodes[i + 1].begin, layer), nodes[i].end));
      if (end > layer) r.hops.push_back({i, {layer, end}});
      layer = end;
    }
  }
  return serve(made, requests, rng);
}

TEST(StageExecutor, AnyPipelineYieldsWhatOneNodeYields) {
  const engine::TempDir dir;
  for (const char* type : {"q8_0", "f32"}) {
    const std::string model = engine::write_model(dir, engine::small_shape("llama", kLayers), type);
    const std::vector<Answer> expected = serve_over(model, {{0, kLayers}}, {1}, some_requests(), 1);
    EXPECT_EQ(expected[0].tokens.size(), 8u);
    EXPECT_EQ(expected[4].prompt.size(), some_requests()[4].prompt.size() - 1);
    EXPECT_EQ(expected[5].embedding.size(), 256u);
    for_seeds(3, [&](Rng& rng) {
      const uint64_t seed = rng.below(1000);
      EXPECT_TRUE(serve_over(model, {{0, 2}, {2, 5}}, {1, 1}, some_requests(), seed) == expected);
      // Overlaps: requests enter and leave the nodes at layers of their own.
      EXPECT_TRUE(serve_over(model, {{0, 3}, {1, 4}, {2, 5}}, {1, 1, 1}, some_requests(), seed) ==
                  expected);
      EXPECT_TRUE(serve_over(model, {{0, 4}, {1, 5}}, {2, 4}, some_requests(), seed) == expected);
    });
  }
}

TEST(StageExecutor, WhatCannotBeRunIsRefusedAndNothingIsHarmed) {
  const engine::TempDir dir;
  const std::string model = engine::write_model(dir, engine::small_shape("llama", kLayers), "q8_0");
  Node node(model, {0, kLayers}, 1);
  policy::SlotState s;
  s.spec.prompt_length = 2;
  s.tokens = {5, 6};
  s.blocks = {0};
  const auto attempt = [&](auto&& change) {
    policy::SlotState state = s;
    Row row;
    row.state = &state;
    row.to = 2;
    row.logits_from = 1;
    row.samples = true;
    RunItem item;
    item.hop.layers = {0, kLayers};
    change(state, row, item);
    item.rows = {&row, 1};
    std::vector<float> hidden(256 * 400);
    std::vector<RowResult> results;
    const Result<void> ran = node.run({&item, 1}, hidden, results);
    EXPECT_EQ(static_cast<bool>(ran), results.size() == 1);
    return ran ? std::string() : ran.error().to_string();
  };
  using S = policy::SlotState&;
  EXPECT_EQ(attempt([](S, Row&, RunItem&) {}), "");
  EXPECT_NE(attempt([](S state, Row&, RunItem&) {
              state.tokens = {5, policy::kUnknownToken};
            }).find("not known"),
            std::string::npos);
  EXPECT_NE(attempt([](S state, Row&, RunItem&) { state.tokens = {5, 300}; }), "");
  EXPECT_NE(attempt([](S state, Row&, RunItem&) { state.tokens = {5}; }), "");
  EXPECT_NE(attempt([](S state, Row&, RunItem&) { state.blocks = {100}; }), "");
  EXPECT_NE(attempt([](S state, Row&, RunItem&) { state.blocks = {}; }), "");
  EXPECT_NE(attempt([](S state, Row&, RunItem&) { state.spec.sampling.top_p = -1; }), "");
  EXPECT_NE(attempt([](S, Row& row, RunItem&) { row.state = nullptr; }), "");
  EXPECT_NE(attempt([](S, Row& row, RunItem&) { row.to = 0; }), "");
  EXPECT_NE(attempt([](S state, Row& row, RunItem&) {
              row.to = 300;
              state.tokens.resize(300);
              state.blocks.resize(30);
            }).find("300 rows"),
            std::string::npos);
  EXPECT_NE(attempt([](S, Row&, RunItem& item) { item.hop.layers = {0, 9}; }), "");
  EXPECT_NE(attempt([](S, Row&, RunItem& item) { item.hop.layers = {1, kLayers}; }), "");
  EXPECT_NE(attempt([](S, Row&, RunItem& item) { item.hop.next = NodeId(1); }), "");
  EXPECT_EQ(attempt([](S, Row&, RunItem&) {}), "");

  ASSERT_TRUE(node.rank(0).sleep(2));
  EXPECT_EQ(node.rank(0).status()["weight_bytes"].as_int(), 0);
  EXPECT_NE(attempt([](S, Row&, RunItem&) {}).find("asleep"), std::string::npos);
  ASSERT_TRUE(node.rank(0).wake());
  EXPECT_EQ(attempt([](S, Row&, RunItem&) {}), "");
}

// In two phases; rows may name an adapter only while it is committed,
// and get its bits, not others'.
TEST(StageExecutor, AdaptersComeAndGoBetweenRuns) {
  const engine::TempDir dir;
  const std::string model = engine::write_model(dir, engine::small_shape("llama", kLayers), "q8_0");
  std::vector<engine::LoraEntry> entries;
  Rng rng(1);
  for (const char* half : {"A", "B"}) {
    engine::LoraEntry e;
    e.name = std::string("base_model.model.model.layers.3.mlp.down_proj.lora_") + half + ".weight";
    e.rows = half[0] == 'A' ? 4 : 256;
    e.cols = half[0] == 'A' ? 512 : 4;
    for (int64_t i = 0; i < e.rows * e.cols; ++i) {
      e.values.push_back(static_cast<float>(rng.unit() - 0.5));
    }
    entries.push_back(std::move(e));
  }
  engine::write_lora(dir / "adapter", R"({"lora_alpha":16})", entries);
  Node node(model, {0, kLayers}, 1);
  Adapters* adapters = node.rank(0).adapters();
  ASSERT_NE(adapters, nullptr);
  const auto last_state = [&](int32_t adapter) -> std::vector<float> {
    policy::SlotState s;
    s.spec.prompt_length = 2;
    s.spec.adapter = adapter;
    s.tokens = {5, 6};
    s.blocks = {0};
    Row row;
    row.state = &s;
    row.to = row.logits_from = 2;
    RunItem item;
    item.hop.layers = {0, kLayers};
    item.rows = {&row, 1};
    std::vector<float> hidden(512);
    std::vector<RowResult> results;
    return node.run({&item, 1}, hidden, results) ? hidden : std::vector<float>();
  };
  const std::vector<float> plain = last_state(-1);
  EXPECT_TRUE(last_state(7).empty());
  EXPECT_FALSE(adapters->stage(7, dir / "nowhere"));
  ASSERT_TRUE(adapters->stage(7, dir / "adapter"));
  EXPECT_TRUE(last_state(7).empty());  // not yet
  adapters->discard(7);
  adapters->commit(7);
  EXPECT_TRUE(adapters->list().empty());
  ASSERT_TRUE(adapters->stage(7, dir / "adapter"));
  adapters->commit(7);
  EXPECT_EQ(adapters->list(), (std::vector<int32_t>{7}));
  const std::vector<float> adapted = last_state(7);
  EXPECT_EQ(adapted.size(), plain.size());
  EXPECT_NE(adapted, plain);
  EXPECT_EQ(last_state(-1), plain);
  ASSERT_TRUE(adapters->remove(7));
  EXPECT_FALSE(adapters->remove(7));
  EXPECT_TRUE(last_state(7).empty());
  EXPECT_EQ(last_state(-1), plain);
}

TEST(StageExecutor, OptionsSurviveTheirDescription) {
  StageExecutorOptions o;
  o.model = "m.gguf";
  o.layers = {2, 7};
  o.kv_blocks = 9;
  o.max_rows = 77;
  o.threads = 3;
  const auto back = StageExecutorOptions::parse(o.to_json());
  ASSERT_TRUE(back);
  EXPECT_TRUE(back->to_json() == o.to_json());
  EXPECT_FALSE(StageExecutorOptions::parse(Json::object()));
  EXPECT_FALSE(StageExecutorOptions::parse(*parse_json(R"({"model":"m","layers":[1]})", "t")));
  EXPECT_FALSE(StageExecutorOptions::parse(*parse_json(R"({"model":"m","kv_blocks":0})", "t")));
}

TEST(DivideLayers, IntoPartsOfAboutEqualBytes) {
  const engine::TempDir dir;
  spec::ModelDesc d = engine::small_shape("llama", 12);
  const auto file = engine::ModelFile::open(engine::write_model(dir, d, "q8_0"));
  ASSERT_TRUE(file) << file.error().to_string();
  const auto bytes = [&](LayerRange layers) {
    int64_t sum = 0;
    for (const engine::Tensor& t : file->tensors()) {
      for (int32_t l = layers.begin; l < layers.end; ++l) {
        if (t.name.starts_with(format("blk.{}.", l))) sum += t.bytes();
      }
    }
    return layers.end == 12 ? sum + file->find("output.weight")->bytes() : sum;
  };
  const int64_t layer = bytes({0, 1});
  for (const LayerRange all : {LayerRange{0, 12}, LayerRange{0, 7}, LayerRange{3, 12}}) {
    for (int32_t parts = 1; parts <= all.size(); ++parts) {
      const std::vector<LayerRange> ranges = divide_layers(*file, all, parts);
      ASSERT_EQ(ranges.size(), static_cast<size_t>(parts));
      int32_t at = all.begin;
      for (const LayerRange& r : ranges) {
        EXPECT_EQ(r.begin, at);
        EXPECT_GE(r.size(), 1);
        at = r.end;
        if (r.size() > 1) {  // one layer is the least, whatever it weighs
          EXPECT_LE(bytes(r), bytes(all) / parts + layer);
        }
      }
      EXPECT_EQ(at, all.end);
    }
  }
}

TEST(LayerSegments, CutWhereAnyoneEntersOrLeaves) {
  std::vector<RunItem> items(4);
  items[0].hop.layers = {2, 6};
  items[1].hop.layers = {4, 6};
  items[2].hop.layers = {2, 3};
  items[3].hop.layers = {8, 9};
  const std::vector<LayerSegment> segments = layer_segments(items);
  ASSERT_EQ(segments.size(), 4u);
  EXPECT_EQ(segments[0].layers, (LayerRange{2, 3}));
  EXPECT_EQ(segments[0].items, (std::vector<size_t>{0, 2}));
  EXPECT_EQ(segments[1].layers, (LayerRange{3, 4}));
  EXPECT_EQ(segments[1].items, (std::vector<size_t>{0}));
  EXPECT_EQ(segments[2].layers, (LayerRange{4, 6}));
  EXPECT_EQ(segments[2].items, (std::vector<size_t>{0, 1}));
  EXPECT_EQ(segments[3].layers, (LayerRange{8, 9}));  // nobody passes through 6 and 7
  EXPECT_TRUE(layer_segments({}).empty());
}

}  // namespace
}  // namespace towline::worker
