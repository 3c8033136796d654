// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "obs/background_file.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "base/file.hpp"
#include "base/fmt.hpp"

namespace towline::obs {
namespace {

TEST(BackgroundFile, HoldsEverythingInOrderWhenClosed) {
  const std::string path =
      (std::filesystem::temp_directory_path() / format("background_{}", ::getpid())).string();
  std::string expected;
  {
    auto file = BackgroundFile::create(path);
    ASSERT_TRUE(file);
    for (int i = 0; i < 20'000; ++i) {
      const std::string line = format("line {} of many\n", i);
      expected += line;
      ASSERT_TRUE((*file)->append(line));
    }
    EXPECT_TRUE((*file)->close());
    EXPECT_FALSE((*file)->append("late"));
  }
  EXPECT_EQ(*read_file(path), expected);
  std::filesystem::remove(path);
}

TEST(BackgroundFile, AFullDiskIsSaidOnce) {
  auto file = BackgroundFile::create("/dev/full");
  if (!file) GTEST_SKIP() << "no /dev/full here";
  (void)(*file)->append("something");
  const Result<void> closed = (*file)->close();
  ASSERT_FALSE(closed);
  EXPECT_EQ(closed.error().code(), Code::kExhausted);
  EXPECT_EQ(closed.error().message(), "cannot write '/dev/full': No space left on device");
  EXPECT_TRUE((*file)->close());
  EXPECT_FALSE((*file)->append("more"));
}

TEST(BackgroundFile, WhoFallsTooFarBehindIsGivenUp) {
  std::signal(SIGPIPE, SIG_IGN);
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  auto file = BackgroundFile::create(format("/proc/self/fd/{}", ends[1]), 1 << 20);
  ASSERT_TRUE(file) << file.error().to_string();
  const std::string block(64 << 10, 'x');
  int taken = 0;
  while ((*file)->append(block)) ASSERT_LT(++taken, 100);  // nobody reads
  EXPECT_GE(taken, 16);
  const auto failure = (*file)->take_failure();
  ASSERT_TRUE(failure);
  EXPECT_NE(failure->message().find("too slowly"), std::string::npos);
  EXPECT_FALSE((*file)->take_failure());
  ::close(ends[0]);  // lets the writer go
  ::close(ends[1]);
  EXPECT_TRUE((*file)->close());
}

TEST(BackgroundFile, AFolderThatIsNotThereIsRefused) {
  const auto file = BackgroundFile::create("/nowhere/at/all");
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().message(), "cannot write '/nowhere/at/all': No such file or directory");
}

}  // namespace
}  // namespace towline::obs
