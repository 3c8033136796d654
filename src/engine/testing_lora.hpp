// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Test code only: writes a LoRA adapter as PEFT does.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/json.hpp"

namespace towline::engine {

struct LoraEntry {
  std::string name;
  int64_t rows, cols;
  std::vector<float> values;
};

inline void write_lora(const std::string& directory, const std::string& config,
                       const std::vector<LoraEntry>& entries) {
  std::filesystem::create_directories(directory);
  std::ofstream(directory + "/adapter_config.json") << config;
  Json header = Json::object();
  int64_t at = 0;
  for (const LoraEntry& e : entries) {
    const int64_t end = at + e.rows * e.cols * 4;
    header.set(e.name, Json::object({{"dtype", "F32"},
                                     {"shape", Json::array({e.rows, e.cols})},
                                     {"data_offsets", Json::array({at, end})}}));
    at = end;
  }
  const std::string text = header.dump();
  const uint64_t size = text.size();
  std::ofstream out(directory + "/adapter_model.safetensors", std::ios::binary);
  out.write(reinterpret_cast<const char*>(&size), 8);
  out << text;
  for (const LoraEntry& e : entries) {
    out.write(reinterpret_cast<const char*>(e.values.data()),
              static_cast<std::streamsize>(e.values.size() * 4));
  }
}

}  // namespace towline::engine
