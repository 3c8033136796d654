// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// WorkerStart: the life of a worker's process, for `towline worker` and for the ranks of an mpirun
// that are not the coordinator (`towline up` over mpi).
#pragma once

#include "base/result.hpp"
#include "worker/node_agent.hpp"

namespace towline::cli {

struct WorkerStart {
  worker::NodeAgentOptions agent;
  int parent = 0;  // end when this process, the parent, ends; 0: nobody
};

// Until the cluster ends or SIGTERM. The value is the exit code.
Result<int> run_worker(WorkerStart start);

}  // namespace towline::cli
