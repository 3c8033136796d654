// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/digest.hpp"
#include "base/fmt.hpp"
#include "worker/node_agent.hpp"

namespace towline::worker {
namespace {

constexpr int64_t kSample = 4096;
constexpr int64_t kSamples = 64;

Result<void> add_file(const std::filesystem::path& path, Digest& digest) {
  std::error_code failed;
  const auto size = static_cast<int64_t>(std::filesystem::file_size(path, failed));
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  if (failed || !in) {
    return errorf(Code::kNotFound,
                  "the model file '{}' cannot be read: {}; --model says where it is on this machine",
                  path.string(), failed ? failed.message() : std::strerror(errno));
  }
  digest.add(size);
  std::string bytes(static_cast<size_t>(kSample), '\0');
  for (int64_t i = 0; i < kSamples; ++i) {
    in.clear();
    in.seekg(std::max<int64_t>(0, size - kSample) * i / (kSamples - 1));
    in.read(bytes.data(), kSample);
    digest.add(std::string_view(bytes).substr(0, static_cast<size_t>(in.gcount())));
  }
  return {};
}

}  // namespace

Result<uint64_t> model_fingerprint(const std::string& path) {
  Digest digest;
  std::error_code failed;
  if (!std::filesystem::is_directory(path, failed)) {
    TRY(add_file(path, digest));
    return digest.value() | 1;
  }
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(path, failed)) {
    const std::string extension = entry.path().extension().string();
    if (extension == ".safetensors" || extension == ".json") files.push_back(entry.path());
  }
  std::ranges::sort(files);
  for (const auto& file : files) {
    digest.add(file.filename().string());
    TRY(add_file(file, digest));
  }
  return digest.value() | 1;
}

}  // namespace towline::worker
