// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Loop: the one event loop of a process. The thread that calls run() owns all mutable control state
// (sockets, timers, policy), so that state needs no locks.
//
// A thin wrapper of Boost.Asio's io_context: code that only needs "run this there" or "run this
// later" includes this header and pays nothing for Asio's; code with sockets uses context().
// An idle loop sleeps in epoll and uses no processor time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/units.hpp"

namespace boost::asio {
class io_context;
}

namespace towline {

class Loop {
 public:
  using Task = std::function<void()>;
  using TimerId = uint64_t;

  Loop();
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // Runs tasks on the calling thread until stop(), which may come first. May be called again.
  void run();

  // From any thread.
  void stop();
  void post(Task task);  // tasks posted by one thread run in the order posted

  // Loop thread only (or before run()).
  TimerId after(Duration delay, Task task);
  void cancel(TimerId id);  // unknown or expired ids are ignored
  // Calls `task` on the loop at each delivery of the signal, instead of its default action.
  void on_signal(int signal_number, Task task);

  // The steady clock since the loop was made. Any thread.
  Instant now() const;

  boost::asio::io_context& context();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace towline
