// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Tenure: what makes this process the coordinator, and what outlives it. With a registry it waits
// for the lead (net/leadership.hpp), keeps it, and publishes where the coordinator and its nodes
// are; with a state folder (serve/coordinator_state.hpp) epochs and nodes outlive the process. With
// neither the epoch is 1 and nothing is remembered.
//
// Threading: the loop's, but for what it puts into ClusterOptions.
#pragma once

#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "base/loop.hpp"
#include "base/options.hpp"
#include "net/leadership.hpp"
#include "serve/cluster_engine.hpp"
#include "serve/coordinator_state.hpp"

namespace towline::cli {

struct TenureOptions {
  std::string registry;       // URL; empty: none
  std::string advertise;      // the coordinator's address for others; empty: as it listens
  std::string state;          // folder; empty: none
  double registry_lease = 5;  // seconds
  bool standby = false;       // wait for as long as another process leads
};
void add_tenure_rows(OptionTable& table, TenureOptions& options);

class Tenure {
 public:
  // `begin` is called on the loop when this process is the coordinator, or with the reason why it
  // will not be.
  static Result<std::unique_ptr<Tenure>> start(Loop& loop, const TenureOptions& options,
                                               std::function<void(Result<void>)> begin);
  // Gives the lead up. The engine that got these options must be gone.
  ~Tenure();

  // After `begin`: the epoch, what is fenced, and the calls that keep both up to date.
  // `on_deposed` is called on the loop.
  void settle(serve::ClusterOptions& options, std::function<void(std::string)> on_deposed);
  // The engine runs: `address` is for nodes, `url` for clients. `wake`
  // has it ask whether it may act.
  void publish(const std::string& address, const std::string& url, std::function<void()> wake);

 private:
  Tenure(Loop& loop, const TenureOptions& options) : loop_(loop), options_(options) {}
  void seek(std::function<void(Result<void>)> begin);
  void on_nodes(const std::vector<policy::NodeView>& nodes);

  Loop& loop_;
  const TenureOptions options_;
  std::unique_ptr<serve::CoordinatorState> state_;
  std::unique_ptr<net::Leadership> leadership_;
  std::stop_source stop_;
  std::thread seeker_;
  std::mutex mutex_;          // guards the rest
  std::string address_, url_;
  Json nodes_ = Json::array();
};

}  // namespace towline::cli
