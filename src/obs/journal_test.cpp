// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "obs/journal.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <vector>

#include "base/crc32c.hpp"
#include "base/file.hpp"
#include "base/fmt.hpp"
#include "base/for_seeds.hpp"

namespace towline::obs {
namespace {

struct Kept {
  int64_t now;
  uint16_t machine;
  RecordKind kind;
  std::string payload;
  friend bool operator==(const Kept&, const Kept&) = default;
};

class JournalTest : public ::testing::Test {
 protected:
  const std::string path_ =
      (std::filesystem::temp_directory_path() / format("journal_test_{}", ::getpid())).string();
  ~JournalTest() override { std::filesystem::remove(path_); }
};

std::vector<Kept> random_records(Rng& rng) {
  std::vector<Kept> records(rng.below(30));
  for (Kept& r : records) {
    r = {static_cast<int64_t>(rng()), static_cast<uint16_t>(rng()),
         static_cast<RecordKind>(rng.between(1, 5)), std::string(rng.below(200), '\0')};
    for (char& c : r.payload) c = static_cast<char>(rng());
  }
  return records;
}

// The records before the end or the first error; `error` tells which it was.
std::vector<Kept> read_all(JournalReader reader, bool& torn, bool& error) {
  std::vector<Kept> records;
  error = false;
  for (;;) {
    auto next = reader.next();
    if (!next) error = true;
    if (!next || !next->has_value()) break;
    const JournalRecord& r = next->value();
    records.push_back({r.now, r.machine, r.kind, std::string(r.payload)});
  }
  torn = reader.torn();
  return records;
}

std::string written(const std::string& path, const std::vector<Kept>& records,
                    std::vector<int64_t>* ends = nullptr) {
  auto writer = JournalWriter::create(path);
  EXPECT_TRUE(writer);
  if (ends) ends->push_back(writer->bytes());
  for (const Kept& r : records) {
    EXPECT_TRUE(writer->append({r.now, r.machine, r.kind, r.payload}));
    if (ends) ends->push_back(writer->bytes());
  }
  EXPECT_TRUE(writer->sync());
  EXPECT_TRUE(writer->close());
  return *read_file(path);
}

TEST_F(JournalTest, ReadsWhatWasWrittenAndAnyCutOfIt) {
  for_seeds(30, [&](Rng& rng) {
    const std::vector<Kept> records = random_records(rng);
    std::vector<int64_t> ends;
    const std::string bytes = written(path_, records, &ends);
    ASSERT_EQ(static_cast<int64_t>(bytes.size()), ends.back());
    bool torn, error;
    EXPECT_EQ(read_all(*JournalReader::open(path_), torn, error), records);
    EXPECT_FALSE(torn || error);
    for (int i = 0; i < 20; ++i) {
      const auto cut = static_cast<int64_t>(8 + rng.below(bytes.size() - 7));
      size_t whole = 0;
      while (whole < records.size() && ends[whole + 1] <= cut) ++whole;
      std::string part = bytes.substr(0, static_cast<size_t>(cut));
      const bool padded = cut != ends[whole] || rng.below(2) == 0;
      const auto left = read_all(*JournalReader::from_bytes(part, "cut"), torn, error);
      EXPECT_EQ(left, std::vector(records.begin(), records.begin() + static_cast<long>(whole)));
      EXPECT_EQ(torn, cut != ends[whole]);
      EXPECT_FALSE(error);
      if (!padded || cut != ends[whole]) continue;
      part.append(1 + rng.below(5000), '\0');  // reserved and never written
      EXPECT_EQ(read_all(*JournalReader::from_bytes(part, "zeros"), torn, error), left);
      EXPECT_TRUE(torn);
      EXPECT_FALSE(error);
    }
  });
}

TEST_F(JournalTest, DamageBeforeTheEndIsAnErrorAndNothingFalseIsRead) {
  for_seeds(50, [&](Rng& rng) {
    std::vector<Kept> records = random_records(rng);
    records.push_back({1, 2, RecordKind::kEvent, "at least one"});
    std::string bytes = written(path_, records);
    const size_t at = 8 + rng.below(bytes.size() - 8);
    bytes[at] = static_cast<char>(bytes[at] ^ static_cast<char>(1 << rng.below(8)));
    bool torn, error;
    const auto left = read_all(*JournalReader::from_bytes(bytes, "damaged"), torn, error);
    EXPECT_TRUE(torn || error);
    ASSERT_LT(left.size(), records.size());
    EXPECT_TRUE(std::equal(left.begin(), left.end(), records.begin()));
  });
}

TEST_F(JournalTest, LargeRecordsCrossTheBuffer) {
  std::vector<Kept> records;
  for (int i = 0; i < 8; ++i) {
    records.push_back(
        {i, 0, RecordKind::kEvent, std::string(300'000 + 7 * i, static_cast<char>(i))});
  }
  written(path_, records);
  bool torn, error;
  EXPECT_EQ(read_all(*JournalReader::open(path_), torn, error), records);
}

TEST_F(JournalTest, SaysWhatIsWrong) {
  EXPECT_EQ(JournalReader::open(path_ + ".absent").error().code(), Code::kNotFound);
  EXPECT_EQ(JournalReader::from_bytes("TLJOURN", "x").error().code(), Code::kDataCorrupt);
  EXPECT_EQ(JournalReader::from_bytes("no journal", "x").error().code(), Code::kDataCorrupt);
  EXPECT_FALSE(JournalWriter::create("/nowhere/at/all"));
  auto full = JournalWriter::create("/dev/full");
  ASSERT_TRUE(full);
  EXPECT_TRUE(full->append({0, 0, RecordKind::kNote, "x"}));
  EXPECT_EQ(full->flush().error().code(), Code::kExhausted);
  EXPECT_FALSE(full->append({0, 0, RecordKind::kNote, "x"}));
  EXPECT_TRUE(full->close());
}

TEST(Actions, RoundTrip) {
  const auto seen = parse_actions(actions_payload(0xfedcba9876543210, 77));
  EXPECT_EQ(seen, (ActionsSeen{0xfedcba9876543210, 77}));
  EXPECT_FALSE(parse_actions("short"));
}

// RFC 3720, B.4, and the check value of the catalogues.
TEST(Crc32c, KnownValues) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c("6789", crc32c("12345")), 0xe3069283u);
}

}  // namespace
}  // namespace towline::obs
