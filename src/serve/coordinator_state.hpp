// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// CoordinatorState: what a coordinator must not forget when its process ends, in a folder: the
// number of its last epoch, the names of the nodes it met, in the order of their NodeIds, and their
// incarnations. A coordinator that starts with it has a greater epoch than any before, and refuses
// incarnations that belonged to those.
//
// FOLDER/coordinator.json is replaced as a whole, after it has reached the disk; FOLDER/lock keeps
// two coordinators from sharing it. A damaged file is an error, never a new beginning.
//
// Threads: note() from any; a thread of its own writes. A write that fails is told in the log and
// tried again; nothing waits for it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/result.hpp"

namespace towline::serve {

struct CoordinatorMemory {
  struct Node {
    std::string name;
    std::vector<uint64_t> incarnations;  // newest last
  };
  int64_t epoch = 0;                     // 0: none yet
  std::vector<Node> nodes;

  // The newest few incarnations of a node are kept.
  void note(const std::string& name, uint64_t incarnation);
  std::string dump() const;
  static Result<CoordinatorMemory> parse(std::string_view text);
};

class CoordinatorState {
 public:
  // Makes the folder if there is none. kUnavailable: another process uses
  // it. kDataCorrupt: damaged.
  static Result<std::unique_ptr<CoordinatorState>> open(const std::string& folder);
  ~CoordinatorState();                   // writes what is left to write

  const CoordinatorMemory& past() const { return past_; }
  // The epoch that begins now is on the disk when this returns.
  Result<void> begin(int64_t epoch);
  // A node has joined.
  void note(const std::string& name, uint64_t incarnation);

 private:
  CoordinatorState(std::string folder, int lock, CoordinatorMemory past);
  std::string file() const { return folder_ + "/coordinator.json"; }
  void write();

  const std::string folder_;
  const int lock_;
  const CoordinatorMemory past_;

  std::mutex mutex_;                     // guards the rest
  std::condition_variable changed_;
  CoordinatorMemory now_;
  bool dirty_ = false, stop_ = false;
  std::thread thread_;
};

}  // namespace towline::serve
