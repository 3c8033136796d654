// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Messages between coordinator and nodes: the plain structs, and encode/decode to the layout of
// wire.fbs. Steps and results are policy's own structs; the rest is declared here.
//
//   std::vector<uint8_t> bytes = encode(step);
//   NodeStep step;  TRY(decode(payload, step));
//
// decode() takes any bytes: it verifies the buffer, bounds what it copies by the size of what came
// (shared offsets cannot multiply a small message into much memory), and refuses what it may not
// skip. It checks form, not meaning: StepMirror::apply() judges a step. Structs are overwritten;
// their vectors keep their capacity, so a struct that is used again costs no allocation.
//
// Stateless; any thread. FlatBuffers is included by this folder's .cpp files alone.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "policy/step_delta.hpp"
#include "policy/step_result.hpp"

namespace towline::protocol {

// A peer of another major version is refused; of another minor version it may know less.
// Version 2 has version 1's layout and another state hash.
inline constexpr int32_t kWireMajor = 2;
inline constexpr int32_t kWireMinor = 0;

// The kind of a net::Frame.
enum class MessageKind : uint16_t {
  kHandshake = 1,
  kStep = 2,          // coordinator -> node: NodeStep
  kActivations = 3,   // node -> next node
  kResults = 4,       // last node -> coordinator
  kTokenFeed = 5,     // last node -> first node
  kAck = 6,           // node -> coordinator
  kRpcRequest = 7,
  kRpcReply = 8,
  kHeartbeat = 9,
  kRoster = 10,       // coordinator -> node: JSON, where the other nodes are
};

// How the coordinator's reason begins when it closes a node's channel.
inline constexpr std::string_view kClusterEnds = "the cluster ends";
inline constexpr std::string_view kFenced = "fenced";
inline constexpr std::string_view kFencedSilent = "fenced as silent";  // it may come again at once

struct Results {
  Epoch epoch;
  policy::LaneStep step;
  std::vector<policy::RowResult> rows;
  std::string error;  // the whole step failed, on all ranks of a node
  friend bool operator==(const Results&, const Results&) = default;
};

struct TokenFeed {
  Epoch epoch;
  policy::LaneStep step;
  std::vector<policy::FedToken> tokens;
  friend bool operator==(const TokenFeed&, const TokenFeed&) = default;
};

// The payload of an activations frame is head + rows * width float32 (little endian), and the
// head's length is a multiple of 64, so floats are aligned as the payload is.
struct ActivationsHead {
  Epoch epoch;
  policy::LaneStep step;
  int32_t rows = 0;
  int32_t width = 0;
  friend bool operator==(const ActivationsHead&, const ActivationsHead&) = default;
};

struct Ack {
  enum class Status : uint8_t {
    kOk,
    kNeedSync,   // gap, other epoch or other state: send the full form
    kFailed,     // the node cannot go on in this epoch; `detail` says why
  };
  Epoch epoch;
  int64_t number = -1;  // last message applied
  Status status = Status::kOk;
  uint64_t hash = 0;    // of the mirror
  std::string detail;
  friend bool operator==(const Ack&, const Ack&) = default;
};

struct Heartbeat {
  Epoch epoch;
  NodeId node{-1};
  uint64_t incarnation = 0;
  int64_t number = -1;        // last message applied
  int64_t steps = 0;          // lane steps run since the start
  int32_t pending = 0;        // received and not run
  int32_t kv_blocks_used = 0;
  int64_t sent_ns = 0;        // the sender's steady clock, for round-trip times
  std::string extra;          // JSON, may be empty
  friend bool operator==(const Heartbeat&, const Heartbeat&) = default;
};

// Collective calls; methods and their arguments are in worker/rpc.hpp.
struct RpcRequest {
  uint64_t id = 0;
  uint16_t method = 0;
  uint32_t deadline_ms = 0;   // 0: none
  std::string args;           // JSON
  friend bool operator==(const RpcRequest&, const RpcRequest&) = default;
};
struct RpcReply {
  uint64_t id = 0;
  int32_t rank = -1;          // negative: the node's one answer
  bool ok = true;
  Code code = Code::kInternal;  // unless ok
  std::string message;
  std::string result;         // JSON
  friend bool operator==(const RpcReply&, const RpcReply&) = default;
};

// The first message in both directions. Both sides call check_handshake() on the other's.
struct Handshake {
  int32_t major = kWireMajor, minor = kWireMinor;
  std::string build;          // version and commit
  std::string role;           // "coordinator" or "node"
  std::string name;           // of the node or coordinator, for people
  std::string address;        // where other nodes reach it; empty: outbound only
  uint64_t incarnation = 0;   // of the process: a restarted one is another
  NodeId node{-1};
  uint64_t model_hash = 0;    // of weights and architecture; 0: none is loaded yet
  uint64_t config_hash = 0;   // of what must be the same everywhere; 0: not decided yet
  LayerRange layers;          // held
  int32_t kv_blocks = 0;
  int32_t block_tokens = 16;
  int32_t hidden_width = 0;   // floats of one row between nodes
  int32_t vocab = 0;
  int32_t context = 0;
  int32_t slots = 0;
  int32_t max_rows = 0;
  bool little_endian = true;
  uint64_t features = 0;      // Feature bits
  std::string extra;          // JSON, may be empty
  friend bool operator==(const Handshake&, const Handshake&) = default;
};

// kPermissionDenied with one sentence that lists every difference that matters, else well. Fields
// that one side left 0 are not compared.
Result<void> check_handshake(const Handshake& mine, const Handshake& theirs);

std::vector<uint8_t> encode(const policy::NodeStep& m);
std::vector<uint8_t> encode(const Results& m);
// The same of rows that lie elsewhere.
std::vector<uint8_t> encode_results(Epoch epoch, policy::LaneStep step,
                                    std::span<const policy::RowResult> rows,
                                    std::string_view error = {});
std::vector<uint8_t> encode(const TokenFeed& m);
std::vector<uint8_t> encode(const ActivationsHead& m);
std::vector<uint8_t> encode(const Ack& m);
std::vector<uint8_t> encode(const Heartbeat& m);
std::vector<uint8_t> encode(const RpcRequest& m);
std::vector<uint8_t> encode(const RpcReply& m);
std::vector<uint8_t> encode(const Handshake& m);

Result<void> decode(std::span<const uint8_t> bytes, policy::NodeStep& out);
Result<void> decode(std::span<const uint8_t> bytes, Results& out);
Result<void> decode(std::span<const uint8_t> bytes, TokenFeed& out);
Result<void> decode(std::span<const uint8_t> bytes, Ack& out);
Result<void> decode(std::span<const uint8_t> bytes, Heartbeat& out);
Result<void> decode(std::span<const uint8_t> bytes, RpcRequest& out);
Result<void> decode(std::span<const uint8_t> bytes, RpcReply& out);
Result<void> decode(std::span<const uint8_t> bytes, Handshake& out);
// `rows` gets the bytes of the float32 rows, within `bytes`; their number is checked against the
// head, and they are 4-byte aligned (an unaligned payload is refused).
Result<void> decode(std::span<const uint8_t> bytes, ActivationsHead& out,
                    std::span<const float>& rows);

}  // namespace towline::protocol
