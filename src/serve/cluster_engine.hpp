// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ClusterEngine: the Generator of a cluster. It holds no weights: one thread owns
// policy::Coordinator and an inbox of channels to the nodes, moves frames and requests to it,
// and carries out what it answers.
//
// Nodes dial in (worker/node_agent.hpp): hello -> the node's assignment -> ready -> welcome. A node
// of a name that the options do not list may join too: it gets the layers of a listed node that is
// not there, else of that whose layers have the least speed, as a second holder (range_to_fill()).
//
// Plans. Whenever the set of nodes changes, the host asks for a plan (serve/cluster_plan.hpp),
// which decides how requests are spread.
//
// Threading: as serve/generator.hpp says. status(), explain() and drain_node() may be called from
// any thread; they wait for the coordinator thread, which never waits for long.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "net/log_budget.hpp"
#include "net/transport.hpp"
#include "policy/coordinator.hpp"
#include "protocol/messages.hpp"
#include "serve/cluster_adapters.hpp"
#include "serve/cluster_plan.hpp"
#include "serve/cluster_records.hpp"
#include "serve/emulated_links.hpp"
#include "serve/flow_meter.hpp"
#include "serve/generator.hpp"
#include "serve/node_calls.hpp"

namespace towline::serve {

struct ClusterModel {
  spec::ModelDesc desc;
  std::string path;            // of its file; empty if all nodes emulate
};

struct ClusterOptions {
  std::string listen = "tcp://127.0.0.1:0";
  std::string key_file;        // zmq
  bool insecure = false;
  std::vector<ClusterNode> nodes;
  uint64_t model_hash = 0;
  spec::ScenarioServing serving;  // context 0: the model's, up to 8192
  Duration lease = seconds(3);
  Duration wait_for_nodes = seconds(0);
  Epoch epoch{1};              // greater than that of any coordinator before
  std::vector<std::pair<std::string, uint64_t>> fenced;  // incarnations of earlier epochs: refused
  bool offline = false;        // requests wait as long as it takes and are fed by the KV estimate
  RecordFiles records;
  EmulatedLinks links;         // what is sent over them suffers as they say
  // Told when there is a way through all layers, or none any more, by the coordinator's thread;
  // must not wait.
  std::function<void(bool ready)> on_ready;
  std::vector<PlannedLink> planned_links;  // of a plan file; empty: every link that layers allow
  std::vector<std::pair<std::string, std::string>> adapters;  // (name, directory), from the start
  // By the coordinator's thread too. May this process still be the coordinator? Asked before
  // anything is sent; may wait shortly. An error is for good: nothing is sent any more, requests
  // fail, and on_deposed is told.
  std::function<Result<void>()> may_act;
  std::function<void(const std::string& reason)> on_deposed;
  // The set of nodes changed; must not wait.
  std::function<void(const std::vector<policy::NodeView>&)> on_nodes;
};

class ClusterEngine final : public Generator {
 public:
  static Result<std::unique_ptr<ClusterEngine>> start(ClusterModel model,
                                                      const ClusterOptions& options,
                                                      EventSink sink);
  // Unfinished requests end with kCancelled; the nodes are told that the cluster ends.
  ~ClusterEngine() override;

  const spec::ModelDesc& model() const override { return model_.desc; }
  int32_t max_context() const override { return context_; }
  Result<void> submit(GenerationRequest request) override;
  void cancel(RequestId id) override;
  Result<void> load_adapter(const std::string& name, const std::string& path,
                            AdapterDone done) override;
  Result<void> unload_adapter(const std::string& name) override;
  std::vector<std::string> adapters() const override;
  Result<void> call(const std::string& method, const Json& args, CallDone done) override;
  GeneratorStats stats() const override;
  bool ready() const override { return ready_.load(std::memory_order_acquire) && !asleep(); }
  bool asleep() const override { return asleep_.load(std::memory_order_acquire); }
  Result<Json> status() const override;
  Json explain(RequestId id) const override;
  Result<void> drain_node(const std::string& name) override;

  // Has may_act asked now. Any thread.
  void ask_whether_to_act() { inbox_.wake(); }
  std::string address() const { return transport_->address(); }
  // The plan in force, for print_report() and pictures.
  plan::FlowReport plan_report() const;
  // Why nodes were refused or lost so far, newest last; for error messages.
  std::vector<std::string> complaints() const;

 private:
  struct Guest {                       // a conversation with a node
    std::shared_ptr<net::Channel> channel;
    Instant since;
    protocol::Handshake theirs;
    NodeId node{-1};
    const ClusterNode* assigned = nullptr;  // of options_
    double rate = 0;                   // rows a second through one layer
    int64_t pid = 0;                   // as it says
    std::string host;
  };
  struct Command {
    std::function<void()> run;         // on the coordinator's thread
  };

  ClusterEngine() = default;
  bool post(std::function<void()> task) const;  // false if the engine is ending
  // Asks on the coordinator's thread; nothing if that does not answer within ten seconds,
  // counted in slices: time in which this process was stopped is one of them at most.
  template <class T>
  std::optional<T> ask(std::function<T()> question) const {
    auto answer = std::make_shared<std::promise<T>>();
    std::future<T> future = answer->get_future();
    if (!post([answer, question = std::move(question)] { answer->set_value(question()); })) {
      return std::nullopt;
    }
    for (int slice = 0; slice < 100; ++slice) {
      if (future.wait_for(std::chrono::milliseconds(100)) == std::future_status::ready) {
        return future.get();
      }
    }
    return std::nullopt;
  }
  static Error busy();

  // The coordinator's thread.
  void loop();
  void on_event(net::Inbox::Event& event);
  void on_frame(Guest& guest, int64_t caller, const net::Frame& frame);
  Result<void> on_handshake(Guest& guest, int64_t caller, const net::Frame& frame);
  void on_beat(const Guest& guest, const net::Frame& frame);
  void on_results(const Guest& guest, const net::Frame& frame);
  void look();
  void tick(bool read_one);
  void carry_out(const policy::CoordinatorEvent& event);
  void tell_host(const policy::CoordinatorEvent& event);
  void act(policy::WelcomeNode& action);
  void act(policy::RefuseNode& action);
  void act(policy::FenceNode& action);
  void act(policy::AskPlan& action);
  void act(policy::SendStep& action);
  void act(policy::SendFeed& action);
  void act(policy::RequestUpdate& action);
  void act(policy::HostRecord& action) { records_.add(host_->host_time(now_), action); }
  void act(policy::IterationNote& action) { records_.add(now_, action); }
  void act(policy::WayNote& action) { records_.add(action); }
  void act(policy::CoordinatorNote& action);
  const ClusterNode* assignment_of(const std::string& name) const;
  int32_t kv_blocks_of(const ClusterNode& node) const;
  protocol::Handshake my_handshake() const;
  void send(Guest& guest, protocol::MessageKind kind, std::span<const uint8_t> bytes);
  void send_roster();
  Guest take(std::map<int64_t, Guest>::iterator at);
  // cluster_calls.cpp
  void start_calls();
  std::vector<int64_t> callers() const;             // conversations of nodes that serve
  std::string node_name(int64_t caller) const;      // also of one that left during a call
  void publish_adapters();
  Result<int32_t> use_adapter(RequestId id, const std::string& name);
  void release_adapter(RequestId id);
  Json by_node(const NodeCalls::Answers& answers) const;
  void sleep_or_wake(bool sleeps, const Json& args, Duration patience, const CallDone& done);
  std::optional<Error> fault_of(const NodeCalls::Answers& answers, bool of_all = true) const;
  void drop(int64_t caller, const std::string& reason);
  void stand_down(const std::string& reason);
  void drop_silent();
  void complain(std::string_view what, const std::string& node, const std::string& why);
  void remember_complaint(const std::string& why);
  void publish_stats();
  void measure_flow();
  Guest* guest_of(NodeId node);
  Json status_now() const;
  Json explain_now(RequestId id) const;

  // Constant after start.
  ClusterModel model_;
  ClusterOptions options_;
  EventSink sink_;
  Instant started_ = net::steady_now();
  int32_t context_ = 0;
  int64_t most_unfinished_ = 0;
  mutable net::Inbox inbox_;
  std::unique_ptr<net::Transport> transport_;

  // The coordinator's thread.
  std::unique_ptr<policy::Coordinator> host_;
  std::map<int64_t, Guest> guests_;    // by channel
  std::map<int64_t, std::string> departed_;             // names, for calls under way
  std::deque<policy::CoordinatorEvent> later_;
  Instant looked_{};                   // at the clock, last
  std::optional<size_t> unread_;       // of what had come when a deadline passed
  Instant now_{};                      // of the event being handled
  ClusterRecords records_;
  bool roster_stale_ = false;          // a node has gone
  bool deposed_ = false;               // another process is the coordinator
  plan::FlowReport report_;
  std::vector<GenerationEvent> events_;
  int64_t generation_tokens_ = 0;
  net::LogBudget complaint_log_;
  FlowMeter flow_;                     // rows a second, by node
  std::unique_ptr<NodeCalls> calls_;
  std::unique_ptr<ClusterAdapters> adapters_;
  std::map<RequestId, int32_t> adapter_of_;  // requests that use one
  uint64_t cache_generation_ = 0;      // grows when cached prefixes must not be found any more

  // Shared.
  mutable std::mutex mutex_;
  mutable std::deque<std::function<void()>> commands_;  // guarded by mutex_
  GeneratorStats stats_;                                // guarded by mutex_
  std::vector<std::string> complaints_;                 // guarded by mutex_
  mutable bool ended_ = false;                          // guarded by mutex_
  std::vector<std::string> adapter_names_;              // guarded by mutex_
  std::atomic<bool> stop_{false}, ready_{false}, asleep_{false};
  std::atomic<int32_t> unfinished_{0};
  std::thread thread_;
};

}  // namespace towline::serve
