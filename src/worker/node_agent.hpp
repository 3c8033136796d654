// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// NodeAgent: one node of a cluster, in one conversation with a coordinator after another
// (worker/node_session.hpp is one). It computes nothing: policy::Peer decides,
// the ranks (worker/node_ranks.hpp) evaluate, and this moves frames between them,
// the coordinator and the other nodes. Collective calls of the coordinator are passed to all
// ranks, in the order of the steps.
//
//   hello (name, address) -> the coordinator's assignment (model, layers, KV blocks) -> load
//   -> ready (what was loaded, how fast it is) -> welcome (NodeId, epoch) -> steps
//
// Activations go straight to the next node of a lane, over a channel that is dialled at first use
// (worker/node_links.hpp).
// A next node that cannot be reached is reported to the coordinator, which routes around the link.
//
// The model file is found at the path that the coordinator names, or at `model`; it must be the
// same file (a hash of its size and samples of its bytes is compared).
//
// A node is all of its ranks: when one dies, the node says why and leaves.
//
// Threads: run() is the agent's thread; the transport has one of its own, and the ranks.
#pragma once

#include <functional>
#include <stop_token>
#include <string>

#include "base/result.hpp"

namespace towline::worker {

struct NodeAgentOptions {
  std::string coordinator;     // address, e.g. tcp://10.0.0.7:7100
  std::string name;            // the plan's; unique in the cluster
  std::string listen;          // for other nodes; empty: a free port of 127.0.0.1
  std::string advertise;       // what other nodes dial instead of it, if that is another address
  bool outbound_only = false;  // nobody can dial this node: it dials all others itself
  std::string model;           // path here; empty: the coordinator's
  std::string key_file;        // zmq
  bool insecure = false;       // zmq without keys
  int32_t threads = 0;         // compute threads of each rank; 0: as assigned
  int32_t tensor_parallel = 0; // ranks of each stage; 0: as assigned
  int32_t stages = 0;          // that its layers are divided into; 0: as assigned
  // How long to look for a coordinator; with a registry, again whenever one is lost. 0: for ever.
  int32_t connect_seconds = 30;
  std::string registry;        // URL: where the coordinator is told; `coordinator` is empty then
  int32_t rejoin_seconds = 0;  // without a registry: time to look for one that was lost; 0: none
  // The address to listen on for a coordinator at the given one, if `listen` is empty.
  std::function<std::string(const std::string& coordinator)> listen_towards;
};

// Until a stop is requested (noticed at once, but while the coordinator is dialled or a model
// loaded; it says that it leaves), something fails for good, or the conversation with the
// coordinator has ended: in order (success) or not. With a registry or `rejoin_seconds` the
// end of a conversation is the beginning of the next; without them too, for `connect_seconds`,
// if the conversation was lost (the line broke, nothing was heard for a lease) or the coordinator
// gave this node up for its silence: it may live. Where nobody answers at its address any more,
// it does not. Weights that fit what the next coordinator assigns stay
// loaded, and coordinators of older epochs than one that this node has known are refused.
Result<void> run_node(const NodeAgentOptions& options, const std::stop_token& stop);

// Identifies a model file by its size and samples of its bytes; a directory by its files' names,
// sizes and samples. Reads at most about 1 MiB.
Result<uint64_t> model_fingerprint(const std::string& path);

}  // namespace towline::worker
