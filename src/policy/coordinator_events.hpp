// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What policy::Coordinator is told and what it answers: plain values, so that a driver with sockets
// and a test with a fake network are the same to it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "base/units.hpp"
#include "policy/pipeline.hpp"
#include "policy/step_delta.hpp"
#include "policy/step_result.hpp"

namespace towline::policy {

// --- events -------------------------------------------------------------------------------------

// A node says hello. Names are the plan's; a node that was started again under its name has another
// incarnation.
struct NodeHello {
  int64_t caller = 0;        // the driver's name of the conversation, for the answer
  std::string name;
  uint64_t incarnation = 0;
  LayerRange layers;         // whose weights it holds
  int32_t kv_blocks = 0;     // of 16 tokens in all of its layers
  int32_t max_rows = 0;      // of one run
  int32_t stages = 1;        // of its layers, each with ranks of its own
  Duration longest_run{};    // about, of so many rows; 0: not known
};
// The conversation with it ended.
struct NodeGone {
  NodeId node;
  uint64_t incarnation = 0;
  std::string reason;
};
// Sent by every node a few times a lease. `runs` grows with every run it finishes.
struct NodeBeat {
  NodeId node;
  uint64_t incarnation = 0;
  int64_t runs = 0;
};
// All nodes that this one cannot reach now, though both reach the coordinator. A link that is not
// named any more has healed. What is said of an incarnation that is not there does not count.
struct LinkReport {
  NodeId from;
  uint64_t incarnation = 0;
  struct Broken {
    NodeId to;
    uint64_t incarnation = 0;
    bool both = false;       // nor can that one reach this one
    std::string reason;
  };
  std::vector<Broken> broken;
};
// The answer to AskPlan: links that may be used and what should flow over them. Nodes are NodeIds;
// links to nodes that have gone meanwhile are ignored.
struct PlanMade {
  int64_t number = 0;        // of the AskPlan; answers to older ones are ignored
  std::vector<RouteLink> links;
  std::vector<double> flow;  // [link] tokens/s
  double max_flow = 0;       // tokens/s, prompt and output together
};
struct CoordinatorRequest {
  RequestId id;
  std::vector<int32_t> prompt;       // at least one token
  SlotSpec spec;                     // `seq` and `prompt_length` are the host's to fill in
  int32_t max_tokens = 16;
  std::vector<int32_t> stop_tokens;
  int32_t priority = 0;
  uint64_t cache_salt = 0;           // requests of different salts never share cached prefixes
};
struct CancelRequest {
  RequestId id;
};
// What the last node of a lane made of a step's rows.
struct StepResults {
  NodeId node;
  LaneStep step;
  std::vector<RowResult> rows;
};
// A node could not evaluate a step.
struct StepFailed {
  NodeId node;
  LaneStep step;
  std::string reason;
};
// A node's mirror refused a message: it needs the full form.
struct SyncNeeded {
  NodeId node;
};
// No new sequences through this node; those that run there go on to their ends.
struct DrainNode {
  NodeId node;
};
// The time, and that all messages have been told which had come when a deadline passed: only now is
// anybody's silence judged, since signs of life may lie unread before.
struct ClockTick {};
// The driver did not look at its messages for so long (its process was stopped, its machine was
// suspended): signs of life may lie unread, and the nodes may have stood still as well.
struct StoodStill {
  Duration time;
};

using CoordinatorEvent =
    std::variant<ClockTick, StoodStill, NodeHello, NodeGone, NodeBeat, LinkReport, PlanMade,
                 CoordinatorRequest, CancelRequest, StepResults, StepFailed, SyncNeeded, DrainNode>;

// --- actions ------------------------------------------------------------------------------------

struct WelcomeNode {
  int64_t caller = 0;
  NodeId node;
  Epoch epoch;
};
struct RefuseNode {
  int64_t caller = 0;
  std::string reason;
};
// Ends the conversation with a node that is not trusted to know the state any more.
struct FenceNode {
  NodeId node;
  uint64_t incarnation = 0;
  std::string reason;
  bool silent = false;  // it was not heard of: if it lives, it may come again as another incarnation
};
// The set of usable nodes changed: make a plan of these (NodeId, layers) and answer PlanMade.
struct AskPlan {
  int64_t number = 0;
  std::vector<std::pair<NodeId, LayerRange>> nodes;
  std::vector<std::pair<NodeId, NodeId>> broken;  // links not to be used
};
struct SendStep {
  NodeId node;
  NodeStep message;
};
// Tokens that the last node of a lane could not feed to its first one itself.
struct SendFeed {
  NodeId node;
  LaneStep step;
  std::vector<FedToken> tokens;
};

enum class CoordinatorFinish : uint8_t { kNone, kStop, kLength, kCancelled, kError };
// Progress of a request. The last one has a finish.
struct RequestUpdate {
  RequestId id;
  std::vector<ScoredToken> tokens;
  bool last_is_stop = false;               // the last token is one of the stop tokens
  std::vector<ScoredToken> prompt_tokens;  // once, with prompt_logprobs; [0] has no score
  std::vector<float> embedding;            // once, with embed
  int32_t cached_tokens = 0;
  Duration queued{};
  CoordinatorFinish finish = CoordinatorFinish::kNone;
  Code code = Code::kInternal;             // with kError
  std::string error;
};
// What the journal of the run is to hold next (policy/host_journal.hpp), with `journal`. The first
// is the setup.
struct HostRecord {
  enum class Kind : uint8_t { kSetup, kEvent, kActions } kind = Kind::kEvent;
  std::string bytes;           // kActions: empty
  uint64_t digest = 0;         // kActions: of all actions of the Host so far,
  int64_t actions = 0;         // ...and how many these are
};
// With `iterations`: an iteration of a request leaves for its nodes or its result is back, and the
// way that a request gets. An evaluation of all that is known of a request counts as one iteration,
// a prompt, in however many steps it is done.
struct IterationNote {
  SeqId request;
  bool result = false;
  bool prompt = false;         // else a decode
  int64_t context = 0;         // tokens known before it; of a prompt: 0
  int64_t tokens = 0;          // a prompt's, and the one that is drawn; or 1
};
struct WayNote {
  SeqId request;
  int64_t input = 0, output = 0;  // tokens, at most
  std::vector<std::pair<NodeId, LayerRange>> way;
};
struct CoordinatorNote {
  enum Level : uint8_t { kInfo, kWarn, kError } level = kInfo;
  std::string text;
};

using CoordinatorAction =
    std::variant<WelcomeNode, RefuseNode, FenceNode, AskPlan, SendStep, SendFeed, RequestUpdate,
                 HostRecord, IterationNote, WayNote, CoordinatorNote>;

}  // namespace towline::policy
