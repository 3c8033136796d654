// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/child_processes.hpp"

#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/fmt.hpp"
#include "base/log.hpp"
#include "net/clock.hpp"

extern char** environ;

namespace towline::cli {

ChildProcesses::~ChildProcesses() {
  wait_all(patience_);
  if (alive() > 0) {
    signal_all(SIGTERM);
    wait_all(patience_);
  }
  if (alive() > 0) {
    signal_all(SIGKILL);
    wait_all(kPatience);
  }
  for (const Child& child : children_) {
    if (child.watch >= 0) ::close(child.watch);
  }
}

Result<pid_t> ChildProcesses::start(const std::string& name, std::vector<std::string> words) {
  words.insert(words.begin(), "towline");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t none;
  ::sigemptyset(&none);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO);
  pid_t pid = -1;
  const int failed =
      ::posix_spawn(&pid, "/proc/self/exe", &files, &attributes, argv.data(), environ);
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&files);
  if (failed != 0) {
    return errorf(Code::kIo, "worker {} cannot be started: {}", name, std::strerror(failed));
  }
  // It cannot have been collected yet, by anybody but us: the id is still its own.
  // (glibc 2.36 declares no pidfd_open() that C++ can link.)
  const auto watch = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  if (watch < 0) {
    const int why = errno;
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    return errorf(Code::kIo, "worker {} cannot be watched: {}", name, std::strerror(why));
  }
  children_.push_back({name, pid, watch});
  return pid;
}

void ChildProcesses::reap() {
  for (Child& child : children_) {
    int status = 0;
    if (child.watch < 0 || ::waitpid(child.pid, &status, WNOHANG) != child.pid) continue;
    ::close(child.watch);
    child.watch = -1;
    if (WIFSIGNALED(status)) {
      log_warn("up", "worker was killed", {{"name", child.name}, {"signal", WTERMSIG(status)}});
    } else if (WEXITSTATUS(status) != 0) {
      log_warn("up", "worker ended", {{"name", child.name}, {"status", WEXITSTATUS(status)}});
    }
  }
}

size_t ChildProcesses::alive() const {
  size_t count = 0;
  for (const Child& child : children_) count += child.watch >= 0 ? 1 : 0;
  return count;
}

void ChildProcesses::signal_all(int number) const {
  for (const Child& child : children_) {
    if (child.watch >= 0) ::kill(child.pid, number);
  }
}

void ChildProcesses::wait_all(Duration patience) {
  const net::Deadline deadline = net::deadline_in(patience);
  for (;;) {
    reap();
    std::vector<pollfd> watched;
    for (const Child& child : children_) {
      if (child.watch >= 0) watched.push_back({child.watch, POLLIN, 0});
    }
    const Duration left = deadline - net::steady_now();
    if (watched.empty() || left <= Duration(0)) return;
    const auto milliseconds_left = static_cast<int>(left.value / 1'000'000 + 1);
    if (::poll(watched.data(), watched.size(), milliseconds_left) < 0 && errno != EINTR) return;
  }
}

}  // namespace towline::cli
