// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// VirtualCluster: the machines and links of a simulation, and the clock.
//
// The unit of work is a parcel: a microbatch on its way through a pipeline. It crosses a link,
// waits at the node until that is free, is computed together with the other parcels that are there
// by then (policy::NodeBatch), and goes on, until it is back at the coordinator. Time is int64
// nanoseconds. A busy node looks into its inbox when it is done, and what arrives at an idle one is
// mostly all that its next batch will hold, whose end is then known when it arrives: most batches
// are one event, their end.
//   node     one batch through all of its layers at a time (gathered in the order of coming, or as
//            a worker's policy::Peer gathers a run: HelixNode::run_rows), at the cost of
//            sim/stage_cost.hpp; rows that enter at a later layer (partial inference) cost only
//            the layers from there on
//   link     first in, first out. A message of up to 64 KiB takes size / bandwidth on its link and
//            no part in sharing; larger ones share NICs and links max-min fairly
//            (sim/fair_network.hpp). Latency comes on top and holds nothing up.
//   faults   nodes go down and come up, hang and go on, become slow; links fail, their bandwidth
//            and latency change. What is on a failed node or link is lost without a sound;
//            the driver notices by itself.
//
// The driver's own events share the queue, so that there is one total order of everything.
// Not thread-safe; deterministic.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "policy/node_batch.hpp"
#include "policy/pipeline.hpp"
#include "sim/event_queue.hpp"
#include "sim/fair_network.hpp"
#include "sim/helix_input.hpp"
#include "sim/stage_cost.hpp"

namespace towline::sim {

// What a parcel carries.
struct ParcelWork {
  int32_t prompt_tokens = 0, decodes = 0;
  // Sums over the rows, for costs that depend on the context: tokens before each decode, and
  // before each prompt token.
  int64_t decode_context = 0, prompt_context = 0;
  int32_t returned_tokens = 0;  // drawn at its end; what goes back to the coordinator
};

struct NodeTimes {
  int64_t busy_ns = 0;
  int64_t away_ns = 0;  // down, until now if it is
  int64_t batches = 0;
};

// A batch that ended, for the trace.
struct BatchTrace {
  int32_t node = 0;
  int64_t begin = 0, end = 0;  // ns
  int32_t prompt_tokens = 0, decodes = 0;
};

class VirtualCluster {
 public:
  struct Options {
    int64_t trace_limit = 0;  // batches kept
    bool stages = false;      // stages() is asked after every step
  };
  // What next() tells the driver.
  struct Happening {
    enum class Kind : uint8_t { kReturned, kReady, kDriver, kStreamed } kind = Kind::kDriver;
    int32_t ticket = 0;       // kReturned: of the parcel
    int32_t node = 0;         // kReady: its layers are loaded
    uint32_t number = 0;      // kDriver, kStreamed: as given
    uint8_t what = 0;         // kDriver: as given
  };

  VirtualCluster(const HelixInput& input, StageCost cost, Options options);

  int64_t now() const { return events_.now(); }
  bool quiet() const { return events_.empty(); }
  int64_t next_time() const { return events_.next_time(); }
  void advance(int64_t when) { events_.advance(when); }
  void call_at(int64_t when, uint8_t what, uint32_t number) {
    events_.push(when, {Kind::kDriver, what, 0, number});
  }
  // The same, before all else at that instant that is asked for after `asked`, a time that is past.
  void call_at_as_of(int64_t asked, int64_t when, uint8_t what, uint32_t number) {
    EventQueue<int64_t, Event>::Causes causes;
    causes.fill(asked);
    events_.push_as_of(causes, when, {Kind::kDriver, what, 0, number});
  }

  // Sends a parcel on its way; `way` must stay as it is until it returns or is dropped.
  void send(int32_t ticket, const policy::Pipeline& way, const ParcelWork& work);
  // The driver does not want it any more, wherever it is (it may be lost already).
  void drop(int32_t ticket);
  // Sends so many bytes of KV over a link, after what is in its queue; kStreamed follows
  // when they are there. While the link is down they wait, and what was on it is sent again;
  // a stream whose sender goes down is lost.
  void stream(int32_t link, int64_t bytes, uint32_t number);
  // Batches done since the last call, if they are kept (Options::stages): what each node computed.
  struct StageDone {
    int32_t node = 0, ticket = -1;  // of one parcel of the batch; -1: not wanted any more
    LayerRange layers;
    int32_t rows = 0;
    double seconds = 0;             // of the batch
  };
  std::vector<StageDone>& stages() { return stages_; }
  // Handles one event; a value if it is the driver's business.
  std::optional<Happening> step();

  void node_down(int32_t node);
  // Layers are loaded from disk first; kReady follows.
  void node_up(int32_t node);
  // It computes nothing until it goes on; what it has stays.
  void hang(int32_t node);
  void go_on(int32_t node);
  void set_slowness(int32_t node, double factor) {
    settle(node);
    nodes_[node].slowness = factor;
  }
  void link_down(int32_t link);
  void link_up(int32_t link);
  void set_bandwidth(int32_t link, double bytes_per_second);
  void set_latency(int32_t link, double seconds) { links_[link].latency = ns(seconds); }
  bool is_up(int32_t node) const { return nodes_[node].up; }
  bool is_hung(int32_t node) const { return nodes_[node].hung; }
  bool is_link_up(int32_t link) const { return links_[link].up; }

  // Seconds from time 0 until every node has loaded its layers.
  double load_seconds() const;
  NodeTimes times(int32_t node) const {
    const Node& n = nodes_[node];
    NodeTimes times = n.times;
    if (!n.up) times.away_ns += now() - n.down_at;
    if (n.busy) times.busy_ns += now() - n.begin;
    if (n.planned && begun(n)) times.busy_ns += now() - n.wake_at;
    return times;
  }
  void count_bytes(int32_t link, double bytes) { links_[link].bytes += bytes; }
  double link_bytes(int32_t link) const { return links_[link].bytes; }
  int64_t events() const { return handled_; }
  const StageCost& cost() const { return cost_; }
  const std::vector<BatchTrace>& batches() const { return batches_; }

 private:
  enum class Kind : uint8_t {
    kReturned,   // number: parcel, back at the coordinator
    kWake,       // where: node, number: which wake-up; something arrives while it is idle
    kLinkFree,   // where: link; small messages that queued behind a large one
    kFlows,      // number: generation of the plan of the fair network
    kBatchDone,  // where: node, number: generation
    kLoaded,     // where: node, number: generation
    kStreamed,   // number: parcel
    kDriver,
  };
  struct Event {
    Kind kind = Kind::kDriver;
    uint8_t what = 0;
    int32_t where = 0;
    uint32_t number = 0;
    // To prefetch: a parcel that it is about, and (kBatchDone) the link that goes on by.
    uint32_t parcel = 0;
    int32_t link = 0;
  };
  struct alignas(64) Parcel {  // one cache line
    const policy::Hop* way = nullptr;  // the hop it makes: the link it is on, the node it is at
    int32_t ticket = -1;         // negative: dropped; its place is freed when it is come across
    int32_t via = -1;            // that link
    int32_t next_link = -1;      // the one after it
    int32_t next = -1;           // in the queue of its link, an inbox or a batch
    int64_t there = 0;           // when it is at the node; without one, its link's generation
    [[no_unique_address]] ParcelWork work;
    int32_t entry = 0;           // the first layer that is run at that node
    bool dead() const { return ticket < 0; }
  };
  static_assert(sizeof(Parcel) == 64);
  // First in, first out, through Parcel::next: a large cluster has many queues, nearly all empty.
  struct Queue {
    int32_t first = -1, last = -1;
    bool empty() const { return first < 0; }
  };
  struct alignas(64) Node {      // two cache lines
    Queue inbox;                 // here and waiting, or still on a link: by time of arrival
    int64_t last_there = 0;      // of the last of them
    int64_t wake_at = INT64_MAX; // when it will look into its inbox
    uint32_t planned_end = 0;    // the event, if planned
    int64_t begin = 0;           // of the batch
    uint32_t generation = 0, wake = 0;
    int32_t batch = -1;          // the first of it
    bool up = true, loaded = true, busy = false;
    bool hung = false, done_while_hung = false;
    // At wake_at the first of the inbox will run alone; the end of that is an event already.
    bool planned = false, planned_beyond = false;  // ...and is beyond the cost tables
    double slowness = 1;
    policy::NodeLimits limits;
    int32_t run_rows = 0;        // HelixNode's
    int32_t prompt_tokens = 0, decodes = 0;
    int32_t machine = 0, last_layer = 0;  // of the cost; it has the layers before this one
    NodeTimes times;
    int64_t down_at = 0;
  };
  struct alignas(64) Link {
    double bandwidth = 0, bytes = 0;
    int64_t latency = 0;         // ns
    int64_t free_at = 0;         // small messages: when the last one has left
    Queue queue;                 // the first is being sent if busy
    int32_t from = policy::kSourceNode, to = policy::kSinkNode;
    uint32_t generation = 0;
    bool up = true, busy = false;
  };

  // A stream of KV is a parcel without a way: its bytes are work.prompt_context, the driver's
  // number is work.prompt_tokens, its ticket 0.
  static bool is_stream(const Parcel& p) { return p.way == nullptr; }
  void prefetch(const Event& event) const;
  // Of a link among the network's resources.
  int32_t resource_of(int32_t link) const {
    return 2 * (static_cast<int32_t>(nodes_.size()) + 1) + link;
  }
  double bytes_on(const Parcel& p) const;
  void enter_link(uint32_t parcel);
  void begin_sending(int32_t link);
  void sent(int32_t link);
  void send_next(int32_t link);
  void flows_changed();
  void deliver(int32_t node, int64_t when, uint32_t parcel);
  void wake_at(int32_t node, uint32_t parcel);
  bool begun(const Node& n) const {
    return n.wake_at < now() || (n.wake_at == now() && events_.cause_is_past(n.planned_end));
  }
  void begin_planned(int32_t node);
  void unplan(int32_t node);
  void settle(int32_t node);
  void start_batch(int32_t node);
  Queue take_in_order(Node& n);
  Queue take_as_peer(Node& n);
  int64_t batch_ns(int32_t node);
  void finish_batch(int32_t node);
  double fetch_seconds(int32_t node) const;
  void add_rows(const Parcel& p);
  uint32_t take_parcel();
  void free_parcel(uint32_t parcel);
  void push(Queue& queue, uint32_t parcel);
  uint32_t pop(Queue& queue);
  void insert(Node& n, uint32_t parcel, int64_t when);
  // Of a node's inbox: what is there (link -1), or what is still on that link.
  void lose_inbox(int32_t node, int32_t link);
  void leave_link(uint32_t parcel, int64_t when);
  int64_t ns(double seconds) const { return static_cast<int64_t>(seconds * 1e9 + 0.5); }

  const HelixInput& input_;
  StageCost cost_;
  bool swaps_ = false;               // some node's KV is in its host's memory
  Options options_;
  EventQueue<int64_t, Event> events_;
  FairNetwork network_;
  uint32_t network_generation_ = 0;
  int64_t planned_flow_end_ = INT64_MAX;
  std::vector<Parcel> parcels_;
  std::vector<uint32_t> free_parcels_;
  std::vector<int32_t> parcel_of_;   // [ticket]; -1: none
  std::vector<Node> nodes_;
  std::vector<Link> links_;
  std::vector<uint64_t> tags_;       // scratch
  std::vector<CostRows> rows_;       // scratch
  std::vector<uint32_t> waiting_, chosen_;  // scratch
  std::vector<BatchTrace> batches_;
  std::vector<StageDone> stages_;
  std::vector<uint32_t> held_;       // streams whose link is down
  int64_t handled_ = 0;
};

}  // namespace towline::sim
