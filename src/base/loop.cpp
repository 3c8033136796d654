// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "base/loop.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <map>

namespace towline {

namespace asio = boost::asio;

struct Loop::State {
  asio::io_context context{1};
  asio::executor_work_guard<asio::io_context::executor_type> work{context.get_executor()};
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
  std::map<TimerId, asio::steady_timer> timers;
  TimerId next_timer = 1;
  struct Signal {
    Signal(asio::io_context& on, int number, Task t) : set(on, number), task(std::move(t)) {}
    asio::signal_set set;
    Task task;
  };
  std::map<int, Signal> signals;

  void wait_signal(int number) {
    signals.at(number).set.async_wait([this, number](const boost::system::error_code& ec, int) {
      if (ec) return;
      wait_signal(number);
      const Task run = signals.at(number).task;  // the task may replace itself
      run();
    });
  }
};

Loop::Loop() : state_(std::make_unique<State>()) {}
Loop::~Loop() = default;

void Loop::run() {
  state_->context.run();
  state_->context.restart();  // afterwards: a stop() that came before run() must not be lost
}

void Loop::stop() { state_->context.stop(); }

void Loop::post(Task task) { asio::post(state_->context, std::move(task)); }

Loop::TimerId Loop::after(Duration delay, Task task) {
  const TimerId id = state_->next_timer++;
  auto [at, inserted] = state_->timers.try_emplace(id, state_->context);
  at->second.expires_after(std::chrono::nanoseconds(delay.value));
  at->second.async_wait([this, id, task = std::move(task)](const boost::system::error_code& ec) {
    // A cancelled timer may still be delivered as expired: the map is the truth.
    if (ec || state_->timers.erase(id) == 0) return;
    task();
  });
  return id;
}

void Loop::cancel(TimerId id) { state_->timers.erase(id); }

void Loop::on_signal(int signal_number, Task task) {
  const auto at = state_->signals.find(signal_number);
  if (at != state_->signals.end()) {
    at->second.task = std::move(task);
    return;
  }
  state_->signals.try_emplace(signal_number, state_->context, signal_number, std::move(task));
  state_->wait_signal(signal_number);
}

Instant Loop::now() const {
  const auto elapsed = std::chrono::steady_clock::now() - state_->start;
  return Instant{std::chrono::duration_cast<std::chrono::nanoseconds>(elapsed).count()};
}

asio::io_context& Loop::context() { return state_->context; }

}  // namespace towline
