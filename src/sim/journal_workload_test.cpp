// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/journal_workload.hpp"

#include <gtest/gtest.h>

#include "policy/host_journal.hpp"

namespace towline::sim {
namespace {

std::string journal_of(const std::vector<std::pair<int64_t, policy::HostEvent>>& events) {
  std::string bytes(obs::kJournalMagic);
  for (const auto& [now, event] : events) {
    EXPECT_TRUE(obs::encode_record({now, 0, obs::RecordKind::kEvent, policy::encode_event(event)},
                                   bytes));
  }
  EXPECT_TRUE(obs::encode_record({99, 0, obs::RecordKind::kNote, "for people"}, bytes));
  return bytes;
}

policy::Arrive arrival(int64_t id, std::vector<int32_t> prompt, int32_t length, int32_t most) {
  policy::Arrive a;
  a.id = RequestId(id);
  a.prompt = std::move(prompt);
  a.prompt_length = length;
  a.max_tokens = most;
  return a;
}

Result<std::vector<spec::TraceRequest>> read(const std::string& bytes) {
  auto journal = obs::JournalReader::from_bytes(bytes, "test");
  EXPECT_TRUE(journal);
  return journal_workload(*journal);
}

TEST(JournalWorkload, TellsWhenRequestsCameAndWhatTheyGot) {
  const std::vector<policy::Sampled> first = {{SeqId(0), 5}, {SeqId(1), 6}};
  const std::vector<policy::Sampled> second = {{SeqId(0), 7, true}, {SeqId(1), 8}};
  const std::vector<policy::Sampled> third = {{SeqId(0), 0}, {SeqId(1), 0}, {SeqId(9), 0}};
  const auto work = read(journal_of({{1000, policy::HostPlan{}},
                                     {2000, arrival(0, {1, 2, 3}, 0, 50)},
                                     {2500, arrival(1, {}, 7, 2)},
                                     {2500, arrival(2, {}, 9, 30)},
                                     {3000, policy::StepDone{0, first}},
                                     {4000, policy::StepDone{1, second}},
                                     {5000, policy::StepDone{0, third}},
                                     {6000, policy::Cancel{RequestId(2)}},
                                     {7000, arrival(1, {}, 4, 6)}}));
  ASSERT_TRUE(work) << work.error().to_string();
  const std::vector<spec::TraceRequest> expected = {
      {0, 3, 2},       // stopped after two; the third was computed ahead
      {500, 7, 2},     // by its limit
      {500, 9, 30},    // got none
      {5000, 4, 6}};   // another one of that id
  EXPECT_EQ(*work, expected);
}

TEST(JournalWorkload, NothingAndNonsenseAreErrors) {
  EXPECT_FALSE(read(journal_of({})));
  EXPECT_FALSE(read(journal_of({{5000, arrival(0, {}, 7, 2)}, {4000, arrival(1, {}, 7, 2)}})
                        .replace(40, 1, "x")));
  const auto back = read(journal_of({{5, arrival(0, {}, 7, 2)}, {6, arrival(1, {}, 7, 2)},
                                     {5, arrival(2, {}, 7, 2)}}));
  ASSERT_FALSE(back);
  EXPECT_EQ(back.error().message(), "the journal's clock goes backwards");
}

}  // namespace
}  // namespace towline::sim
