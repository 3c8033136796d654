// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Test code only: where the shared model files are, and a directory that goes away.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace towline::engine {

// "<TOWLINE_SHARED>/data/models/<name>", by default ../shared beside the repository; empty if it
// is not there.
inline std::string shared_model(const std::string& name) {
  const char* root = std::getenv("TOWLINE_SHARED");
  const std::filesystem::path path =
      std::filesystem::path(root != nullptr ? root : "../shared") / "data/models" / name;
  return std::filesystem::exists(path) ? path.string() : std::string();
}

#define TOWLINE_SHARED_MODEL(variable, name)                                    \
  const std::string variable = ::towline::engine::shared_model(name);           \
  if (variable.empty()) {                                                       \
    GTEST_SKIP() << "the shared model file '" << (name)                         \
                 << "' is absent; set TOWLINE_SHARED to run this test";         \
  }

class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "towline-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string string() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace towline::engine
