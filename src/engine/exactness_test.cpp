// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/json.hpp"
#include "engine/format/test_files.hpp"
#include "engine/sampler.hpp"
#include "engine/stage.hpp"

namespace towline::engine {
namespace {

std::vector<int32_t> ids(const Json& list) {
  std::vector<int32_t> out;
  for (const Json& item : list.items()) out.push_back(static_cast<int32_t>(item.as_int()));
  return out;
}

// Greedy continuation, one token a step after the whole prompt.
std::vector<int32_t> greedy(Stage& stage, std::vector<int32_t> tokens, int32_t n) {
  const auto hidden_width = static_cast<size_t>(stage.desc().hidden);
  std::vector<float> hidden, logits(static_cast<size_t>(stage.desc().vocab));
  std::vector<int32_t> blocks(64), out;
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(i);
  int32_t done = 0;
  while (static_cast<int32_t>(out.size()) < n) {
    const auto end = static_cast<int32_t>(tokens.size());
    hidden.resize(hidden_width * static_cast<size_t>(end - done));
    const StepSpan span{done, end, std::span(tokens).subspan(static_cast<size_t>(done)), blocks};
    stage.run({{&span, 1}}, hidden);
    const int32_t row = end - done - 1;
    stage.logits(hidden, {&row, 1}, logits);
    done = end;
    out.push_back(arg_max(logits));
    tokens.push_back(out.back());
  }
  return out;
}

TEST(Golden, F32TokensEqualEverywhere) {
  for (const std::string model : {"stories260K", "TinyStories-656K"}) {
    TOWLINE_SHARED_MODEL(path, model + "/" + model + "-f32.gguf");
    TOWLINE_SHARED_MODEL(golden_path, "golden/" + model + "-f32.json");
    const auto golden = load_json(golden_path);
    ASSERT_TRUE(golden);
    auto file = ModelFile::open(path);
    ASSERT_TRUE(file) << file.error().to_string();
    ComputeTeam team(1);
    auto stage = Stage::load(std::make_shared<ModelFile>(std::move(file).value()), {},
                             **kernel_table("generic"), team);
    ASSERT_TRUE(stage) << stage.error().to_string();
    const std::vector<int32_t> expected = ids((*golden)["out_ids"]);
    EXPECT_EQ(greedy(*stage, ids((*golden)["prompt_ids"]), static_cast<int32_t>(expected.size())),
              expected)
        << model;
  }
}

}  // namespace
}  // namespace towline::engine
