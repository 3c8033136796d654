// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// A whole ApiServer over a FakeGenerator on a free port, its loop on a thread. Test code only.
#pragma once

#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <thread>

#include "base/log.hpp"
#include "serve/api_server.hpp"
#include "serve/fake_generator.hpp"
#include "serve/test_client.hpp"

namespace towline::serve {

class TestServer {
 public:
  explicit TestServer(FakeGenerator::Options fake = {}, ApiServerOptions options = {})
      : hub_(loop_) {
    init_log({.level = LogLevel::kOff});
    generator_ = std::make_unique<FakeGenerator>(hub_.sink(), std::move(fake));
    hub_.attach(generator_.get());
    if (options.model_name.empty()) options.model_name = "fake";
    auto server = ApiServer::start(loop_, hub_, text_, std::move(options));
    if (!server) {
      ADD_FAILURE() << server.error().to_string();
      std::abort();
    }
    server_ = std::move(*server);
    thread_ = std::thread([this] { loop_.run(); });
  }
  ~TestServer() {
    loop_.stop();
    thread_.join();
    server_.reset();
    generator_.reset();
  }

  int port() const { return server_->port(); }
  Client client() const { return Client(port()); }
  FakeGenerator& generator() { return *generator_; }
  ApiServer& server() { return *server_; }
  // Runs `task` on the loop and waits for it.
  template <class F>
  auto on_loop(F task) {
    std::promise<decltype(task())> done;
    loop_.post([&] {
      if constexpr (std::is_void_v<decltype(task())>) {
        task();
        done.set_value();
      } else {
        done.set_value(task());
      }
    });
    return done.get_future().get();
  }
  // Waits until the loop has stopped by itself.
  void join_loop() {
    thread_.join();
    thread_ = std::thread([] {});
  }

 private:
  Loop loop_;
  GenerationHub hub_;
  FakeText text_;
  std::unique_ptr<FakeGenerator> generator_;
  std::unique_ptr<ApiServer> server_;
  std::thread thread_;
};

}  // namespace towline::serve
