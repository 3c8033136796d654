// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ClusterAdapters: the LoRA adapters of a cluster: on all nodes or on none.
//
//   load     stage on all nodes (files are read, steps go on) -> all could: commit on all -> usable
//                                                             -> one could not: discard on all
//   unload   no new request may name it; when the last that does has ended, all nodes forget it
//   a node that joins stages and commits what the cluster has before it gets its first request
//
// Ids are the cluster's and are never used again, so a name may be loaded again with other weights.
// Nodes read an adapter's directory from their own disk, under the same path.
//
// Not thread-safe: the coordinator's thread.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"
#include "serve/node_calls.hpp"

namespace towline::serve {

class ClusterAdapters {
 public:
  using Done = std::function<void(Result<void>)>;
  struct Nodes {
    std::function<std::vector<int64_t>()> serving;          // those that may get requests
    std::function<std::string(int64_t)> name;
  };
  ClusterAdapters(NodeCalls& calls, Nodes nodes) : calls_(calls), nodes_(std::move(nodes)) {}

  // Refuses at once (the name is in use, another one is being loaded), or calls `done` once.
  Result<void> load(const std::string& name, const std::string& path, Done done);
  // What is there from the beginning: every node loads it before it serves.
  Result<void> expect(const std::string& name, const std::string& path);
  Result<void> unload(const std::string& name);
  std::vector<std::string> names() const;

  // A request begins with the adapter of this name; end() when it has ended.
  Result<int32_t> begin(const std::string& name);
  void end(int32_t id);

  // Brings a node that is about to serve to what the others have, then calls `ready`; during a load
  // that is after it. An error: the node cannot serve.
  void admit(int64_t node, Done ready);

 private:
  struct Adapter {
    std::string name;   // empty: unloaded, waiting for its last request
    std::string path;
    int64_t requests = 0;
  };
  struct Arrival {
    int64_t node;
    Done ready;
    std::vector<int32_t> has;
  };
  void staged(int32_t id, const NodeCalls::Answers& answers);
  void finish_load(int32_t id, Result<void> outcome);
  void forget(int32_t id);
  void bring_up(std::shared_ptr<Arrival> arrival);
  std::optional<int32_t> find(const std::string& name) const;
  Result<void> check_new(const std::string& name) const;

  NodeCalls& calls_;
  Nodes nodes_;
  std::map<int32_t, Adapter> adapters_;   // usable, or waiting for their last request
  int32_t next_id_ = 0;
  struct Loading {
    int32_t id;
    Adapter adapter;
    Done done;
  };
  std::optional<Loading> loading_;
  std::deque<std::shared_ptr<Arrival>> arrivals_;  // until the load is over
};

}  // namespace towline::serve
