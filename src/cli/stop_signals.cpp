// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/stop_signals.hpp"

#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace towline::cli {
namespace {

int bell = -1;  // the eventfd of the last one made; never closed: a handler may be using it

void ring() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(bell, &one, sizeof one);
}

void on_signal(int) {
  const int before = errno;
  ring();
  errno = before;
}

}  // namespace

StopSignals::StopSignals(std::initializer_list<int> numbers) : numbers_(numbers) {
  bell = ::eventfd(0, EFD_CLOEXEC);
  if (bell < 0) return;  // no descriptor is left: the signals do what they do by default
  thread_ = std::thread([this] {
    uint64_t count = 0;
    while (::read(bell, &count, sizeof count) < 0 && errno == EINTR) {
    }
    source_.request_stop();
  });
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  for (const int number : numbers_) ::sigaction(number, &action, nullptr);
}

StopSignals::~StopSignals() {
  if (!thread_.joinable()) return;
  for (const int number : numbers_) ::signal(number, SIG_DFL);
  ring();  // ends the thread if no signal has
  thread_.join();
}

}  // namespace towline::cli
