// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/coordinator_state.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "base/for_seeds.hpp"

namespace towline::serve {
namespace {

class CoordinatorStateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    static int count = 0;
    folder_ = ::testing::TempDir() + format("towline-state-{}-{}", ::getpid(), ++count);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string file() const { return folder_ + "/coordinator.json"; }
  std::string folder_;
};

TEST_F(CoordinatorStateTest, RemembersEpochAndNodes) {
  {
    auto state = CoordinatorState::open(folder_);
    ASSERT_TRUE(state) << state.error().to_string();
    EXPECT_EQ((*state)->past().epoch, 0);
    ASSERT_TRUE((*state)->begin(1));
    (*state)->note("b", 0xfedcba9876543210);
    (*state)->note("a", 2);
    for (uint64_t i = 10; i < 30; ++i) (*state)->note("b", i);
  }
  auto state = CoordinatorState::open(folder_);
  ASSERT_TRUE(state) << state.error().to_string();
  const CoordinatorMemory& past = (*state)->past();
  EXPECT_EQ(past.epoch, 1);
  ASSERT_EQ(past.nodes.size(), 2u);
  EXPECT_EQ(past.nodes[0].name, "b") << "in the order in which they came";
  EXPECT_EQ(past.nodes[0].incarnations, (std::vector<uint64_t>{22, 23, 24, 25, 26, 27, 28, 29}));
  EXPECT_EQ(past.nodes[1].incarnations, (std::vector<uint64_t>{2}));
}

TEST_F(CoordinatorStateTest, IsNotShared) {
  auto one = CoordinatorState::open(folder_);
  ASSERT_TRUE(one);
  const auto two = CoordinatorState::open(folder_);
  ASSERT_FALSE(two);
  EXPECT_EQ(two.error().code(), Code::kUnavailable);
  one->reset();
  EXPECT_TRUE(CoordinatorState::open(folder_));
}

TEST_F(CoordinatorStateTest, ADamagedFileIsNamedAndKept) {
  std::filesystem::create_directories(folder_);
  const std::string good = CoordinatorMemory{7, {{"a", {1}}}}.dump();
  std::vector<std::string> bad = {"", "{", "[]", "{}", good.substr(0, good.size() / 2)};
  for (const char* text : {R"("epoch": -1, "nodes": [])", R"("epoch": 4294967296, "nodes": [])",
                           R"("epoch": 1)", R"("epoch": 1, "nodes": [{"name": ""}])",
                           R"("epoch": 1, "nodes": [{"name":"a"},{"name":"a"}])",
                           R"("epoch": 1, "nodes": [{"name": "a", "incarnations": ["xyz"]}])"}) {
    bad.push_back(format(R"({{"format": "towline-coordinator", "schema": 1, {}}})", text));
  }
  for (const std::string& text : bad) {
    std::ofstream(file()) << text;
    const auto state = CoordinatorState::open(folder_);
    ASSERT_FALSE(state) << text;
    EXPECT_EQ(state.error().code(), Code::kDataCorrupt);
    EXPECT_NE(state.error().to_string().find(file()), std::string::npos);
    EXPECT_EQ(*read_file(file()), text);
  }
}

TEST_F(CoordinatorStateTest, AFolderThatCannotBeWrittenEndsTheStartOnly) {
  EXPECT_FALSE(CoordinatorState::open("/proc/towline-state"));
  auto state = CoordinatorState::open(folder_);
  ASSERT_TRUE(state);
  ASSERT_TRUE((*state)->begin(3));
  std::filesystem::remove_all(folder_);  // the disk goes away while it runs
  (*state)->note("a", 1);
  EXPECT_FALSE((*state)->begin(4));
}

TEST(CoordinatorMemory, ComesBackAsItWas) {
  for_seeds(50, [](Rng& rng) {
    CoordinatorMemory memory;
    memory.epoch = static_cast<int64_t>(rng.below(int64_t{1} << 32));
    for (uint64_t i = rng.below(40); i > 0; --i) {
      memory.note(format("n{}\"\n", rng.below(5)), rng());
    }
    const auto back = CoordinatorMemory::parse(memory.dump());
    ASSERT_TRUE(back) << back.error().to_string();
    EXPECT_EQ(back->dump(), memory.dump());
  });
}

}  // namespace
}  // namespace towline::serve
