// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ChildProcesses: the worker processes that a coordinator starts itself. Nobody is left behind:
// the destructor waits for them to end in order, then asks (SIGTERM), then kills.
//
// One thread. Waiting is for the processes themselves (pidfd), never a look every so often.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/units.hpp"

namespace towline::cli {

class ChildProcesses {
 public:
  ChildProcesses() = default;
  ~ChildProcesses();
  ChildProcesses(const ChildProcesses&) = delete;
  ChildProcesses& operator=(const ChildProcesses&) = delete;

  // Starts this program again with `words` (argv[1] and on). Its stdout is our stderr, so that our
  // own stdout carries nothing but what we print. Returns the process id.
  Result<pid_t> start(const std::string& name, std::vector<std::string> words);

  // Collects those that have ended and logs what is unusual about it. Call on SIGCHLD.
  void reap();
  size_t started() const { return children_.size(); }
  // The destructor ends them now, whatever they do.
  void end_at_once() { patience_ = kNoPatience; }
  size_t alive() const;

 private:
  struct Child {
    std::string name;
    pid_t pid = -1;
    int watch = -1;  // pidfd: readable when the process has ended; -1 once it is collected
  };
  void signal_all(int number) const;
  void wait_all(Duration patience);

  static constexpr Duration kPatience = seconds(2), kNoPatience = milliseconds(100);
  std::vector<Child> children_;
  Duration patience_ = kPatience;  // for them to end by themselves, and again when asked
};

}  // namespace towline::cli
