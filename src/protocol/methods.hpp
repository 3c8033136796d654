// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The numbers of collective calls (RpcRequest::method). What each does, its arguments and its
// answer are rows of the registry in worker/rpc.hpp; here only so that the coordinator can name
// them.
#pragma once

#include <cstdint>

namespace towline::protocol {

// Never renumbered: a node of another build refuses what it does not know.
enum class Method : uint16_t {
  kInitModel = 1,     // make the executor; everything else needs it
  kWarmUp,
  kStageAdapter,      // phase 1 of loading a LoRA adapter: files are read, steps go on
  kCommitAdapter,     // phase 2, at a step boundary
  kDiscardAdapter,
  kRemoveAdapter,
  kListAdapters,
  kResetKv,
  kSleep,
  kWake,
  kProfile,
  kDummyBatch,
  kDumpState,
  kShutdown,          // leave the loop; the ring is closed next
  kHealth,
  kStateHash,
  kAbort,
  kForget,            // begin anew: sequences, KV contents and adapters go, weights stay
};

}  // namespace towline::protocol
