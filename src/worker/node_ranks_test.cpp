// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// One rank or several, threads or processes: the same behind NodeRanks.
#include "worker/node_ranks.hpp"

#include <gtest/gtest.h>
#include <signal.h>

#include <semaphore>

#include "base/fmt.hpp"
#include "protocol/messages.hpp"
#include "worker/executor_factory.hpp"
#include "worker/group_ranks.hpp"
#include "worker/solo_rank.hpp"
#include "worker/steady_load.hpp"

namespace towline::worker {
namespace {

// What a node's agent does, without a network: Peer decides, `ranks` evaluate.
class Node {
 public:
  Node(int32_t ranks, bool processes, const NullExecutorOptions& null = {}, int32_t stages = 1) {
    NodeRanksOptions options;
    options.ranks = ranks;
    options.stages = stages;
    options.executor = null.to_json();
    options.limits.vocab = null.vocab;
    options.wake = [this] { bell_.release(); };
    policy::PeerLimits limits;
    limits.mirror.vocab = null.vocab;
    limits.runs = stages;
    peer_.emplace(limits);
    if (ranks * stages == 1) {
      auto made = SoloRank::start(options, make_executor);
      EXPECT_TRUE(made) << made.error().to_string();
      if (made) ranks_ = std::move(*made);
    } else {
      RankTeamOptions team;
      team.processes = processes;
      team.factory = make_executor;
      auto made = GroupRanks::start(options, team);
      EXPECT_TRUE(made) << made.error().to_string();
      if (made) {
        group_ = &(*made)->group();
        ranks_ = std::move(*made);
      }
    }
  }

  void take(const policy::NodeStep& message) {
    const std::vector<uint8_t> bytes = protocol::encode(message);
    std::vector<policy::PeerAction> actions;
    peer_->on_message(message, actions);
    perform(actions, bytes);
  }

  RankEvent next() {
    for (;;) {
      if (std::optional<RankEvent> event = ranks_->take()) {
        if (const auto* run = std::get_if<RunEnded>(&*event)) {
          std::vector<policy::PeerAction> actions;
          if (run->state_lost) peer_->on_state_lost("a rank failed", actions);
          peer_->on_run_done(actions);
          perform(actions, {});
        }
        return std::move(*event);
      }
      bell_.acquire();
    }
  }

  // The tokens of a run, fed to the mirrors as a last node does.
  std::vector<int32_t> tokens() {
    RankEvent event = next();
    auto* run = std::get_if<RunEnded>(&event);
    EXPECT_TRUE(run != nullptr && !run->error);
    std::vector<int32_t> out;
    if (run == nullptr) return out;
    std::vector<policy::PeerAction> actions;
    std::vector<policy::FedToken> sampled;
    for (const RowResult& r : run->results) {
      out.push_back(r.token.token);
      sampled.push_back({r.slot, r.position, r.token.token});
    }
    peer_->on_feed(std::move(sampled), actions);
    perform(actions, {});
    return out;
  }

  Result<Json> call(Method method, const Json& args) {
    ranks_->call(7, method, args);
    RankEvent event = next();
    auto* ended = std::get_if<CallEnded>(&event);
    if (ended == nullptr || ended->id != 7) return Error(Code::kInternal, "another event");
    return std::move(ended->answer);
  }

  NodeRanks& ranks() { return *ranks_; }
  RankGroup* group() { return group_; }

 private:
  void perform(std::vector<policy::PeerAction>& actions, std::vector<uint8_t> bytes) {
    for (policy::PeerAction& action : actions) {
      if (auto* step = std::get_if<policy::ForwardStep>(&action)) {
        ranks_->step(std::move(step->message), bytes);
      } else if (auto* feed = std::get_if<policy::ForwardFeed>(&action)) {
        ranks_->feed(std::move(feed->tokens));
      } else if (auto* run = std::get_if<policy::RunSteps>(&action)) {
        RankRun job;
        for (const policy::RunPiece& piece : run->pieces) {
          job.hidden.resize(job.hidden.size() + static_cast<size_t>(piece.row_count()) * 16);
          job.pieces.push_back(piece);
        }
        ranks_->run(std::move(job));
      } else {
        ASSERT_TRUE(std::holds_alternative<policy::AskFullForm>(action));
      }
    }
  }

  std::counting_semaphore<> bell_{0};
  std::optional<policy::Peer> peer_;
  std::unique_ptr<NodeRanks> ranks_;
  RankGroup* group_ = nullptr;
};

struct Setting {
  int32_t ranks;  // of each stage
  bool processes;
  int32_t stages = 1;
  int32_t all() const { return ranks * stages; }
};
class EveryNode : public ::testing::TestWithParam<Setting> {
 protected:
  Node node(const NullExecutorOptions& null = {}) const {
    return Node(GetParam().ranks, GetParam().processes, null, GetParam().stages);
  }
};

TEST_P(EveryNode, StepsOneAheadGiveTheTokensOfTheModel) {
  Node n = node();
  SteadyLoad load(20, 100, policy::DeltaForm::kImplied, true);
  n.take(load.admit());
  n.take(load.next());
  for (int step = 0; step < 40; ++step) {
    n.take(load.next());  // uses tokens that the run before samples
    const std::vector<int32_t> tokens = n.tokens();
    ASSERT_EQ(tokens.size(), 20u);
    for (int32_t i = 0; i < 20; ++i) {
      const int32_t position = 100 - i % 16 + step;
      ASSERT_EQ(tokens[static_cast<size_t>(i)], NullExecutor::token_of(SeqId(i), position, 32000));
    }
  }
}

TEST_P(EveryNode, MessagesWithoutRunsAreNotLost) {
  Node n = node();
  SteadyLoad load(3, 50, policy::DeltaForm::kExplicit, false);
  n.take(load.admit());
  for (int i = 0; i < 100; ++i) {  // more than the ring has slots for
    policy::NodeStep nothing;
    nothing.opened.push_back({LaneId(1 + i), {0, 4}, NodeId(-1), NodeId(-1), NodeId(0)});
    n.take(*load.sender().next(std::move(nothing)));
  }
  n.take(load.next());
  EXPECT_EQ(n.tokens().size(), 3u);
}

TEST_P(EveryNode, EveryMethodAnswersForAllRanks) {
  Node n = node();
  for (const MethodRow& row : methods()) {
    if (row.method == Method::kInitModel || row.method == Method::kShutdown) continue;
    SCOPED_TRACE(row.name);
    const Result<Json> answer = n.call(row.method, *parse_json(row.example, "example"));
    ASSERT_TRUE(answer) << answer.error().to_string();
    if (row.reduction == Reduction::kEach) {
      EXPECT_EQ(answer->size(), static_cast<size_t>(GetParam().all()));
    }
  }
  const Result<Json> none = n.call(Method::kRemoveAdapter, AdapterArgs{9, ""}.json());
  EXPECT_EQ(none.error().code(), Code::kNotFound);
}

TEST_P(EveryNode, AdapterThatOneRankCannotReadIsAnError) {
  Node n = node();
  const std::string path = format("adapters/fail:{}", GetParam().all() - 1);
  const Result<Json> staged = n.call(Method::kStageAdapter, AdapterArgs{3, path}.json());
  ASSERT_FALSE(staged);
  EXPECT_EQ(staged.error().code(), Code::kNotFound);
  ASSERT_TRUE(n.call(Method::kDiscardAdapter, AdapterArgs{3, ""}.json()));
  EXPECT_EQ(n.call(Method::kListAdapters, Json::object())->dump(), "[]");
}

TEST_P(EveryNode, FailedRunIsToldAndTheNodeGoesOn) {
  NullExecutorOptions null;
  null.fault = "error";
  null.fault_rank = GetParam().all() - 1;
  null.fault_run = 2;
  Node n = node(null);
  SteadyLoad load(4, 50, policy::DeltaForm::kExplicit, false);
  n.take(load.admit());
  n.take(load.next());
  EXPECT_EQ(n.tokens().size(), 4u);
  load.sender().completed({LaneId(0), 0});
  n.take(load.next());
  const RankEvent event = n.next();
  const auto* run = std::get_if<RunEnded>(&event);
  ASSERT_NE(run, nullptr);
  ASSERT_TRUE(run->error.has_value());
  EXPECT_NE(run->error->to_string().find("was told to fail run 2"), std::string::npos)
      << run->error->to_string();
  ASSERT_EQ(run->run.pieces.size(), 1u);
  EXPECT_EQ(run->state_lost, GetParam().all() > 1);
  if (run->state_lost) {
    n.take(load.next());  // was under way; nothing is made of it
    EXPECT_FALSE(n.ranks().take().has_value());
    const auto again = load.sender().resync();
    ASSERT_TRUE(again);
    for (const policy::NodeStep& message : *again) n.take(message);
    EXPECT_EQ(n.tokens().size(), 4u);  // the step that failed
    EXPECT_EQ(n.tokens().size(), 4u);  // the one that was dropped
  }
  for (int i = 0; i < 3; ++i) {
    n.take(load.next());
    EXPECT_EQ(n.tokens().size(), 4u);
  }
}

TEST_P(EveryNode, EndsWhileARunHangs) {
  NullExecutorOptions null;
  null.fault = "hang";
  null.fault_rank = GetParam().all() - 1;
  null.fault_run = 1;
  Node n = node(null);
  SteadyLoad load(4, 50, policy::DeltaForm::kExplicit, false);
  n.take(load.admit());
  n.take(load.next());
  EXPECT_TRUE(n.call(Method::kHealth, Json::object()));  // out of band
}

std::string setting_name(const ::testing::TestParamInfo<Setting>& info) {
  return format("{}x{}{}", info.param.stages, info.param.ranks,
                info.param.processes ? "processes" : "threads");
}
INSTANTIATE_TEST_SUITE_P(Places, EveryNode,
                         ::testing::Values(Setting{1, false}, Setting{3, false}, Setting{2, true},
                                           Setting{2, false, 2}, Setting{1, true, 2}),
                         setting_name);

// A message is with the ranks before its run is given; tokens wait for what comes next.
TEST(GroupRanks, MessagesGoAheadOfTheirRuns) {
  Node n(2, true);
  RankGroup& group = *n.group();
  SteadyLoad load(4, 50, policy::DeltaForm::kImplied, true);
  EXPECT_EQ(group.in_flight(), 0u);
  n.take(load.admit());
  EXPECT_FALSE(n.ranks().take().has_value());
  EXPECT_EQ(group.in_flight(), 1u);
  n.take(load.next());            // its tokens are of the prompt: it runs, in one frame
  EXPECT_EQ(group.in_flight(), 2u);
  EXPECT_EQ(n.tokens().size(), 4u);
  n.ranks().feed({{{0, 1}, 50, NullExecutor::token_of(SeqId(0), 50, 32000)}});
  EXPECT_FALSE(n.ranks().take().has_value());
  EXPECT_EQ(group.in_flight(), 0u);
  n.take(load.next());
  EXPECT_EQ(n.tokens().size(), 4u);
}

// A dead rank is the end of the node, said once, with the cause.
TEST(GroupRanks, DeathOfAnyRankLosesTheNode) {
  for (const int32_t victim : {0, 1}) {
    for (const bool at_work : {false, true}) {
      NullExecutorOptions null;
      if (at_work) {
        null.fault = "die";
        null.fault_rank = victim;
        null.fault_run = 2;
      }
      Node n(2, true, null);
      SteadyLoad load(4, 50, policy::DeltaForm::kExplicit, false);
      n.take(load.admit());
      n.take(load.next());
      EXPECT_EQ(n.tokens().size(), 4u);
      if (at_work) {
        n.take(load.next());
      } else {
        ::kill(n.group()->team().pid(victim), SIGKILL);
      }
      const RankEvent event = n.next();
      const auto* lost = std::get_if<RanksLost>(&event);
      ASSERT_NE(lost, nullptr);
      EXPECT_NE(lost->reason.find(format("rank {} (pid ", victim)), std::string::npos);
      EXPECT_NE(lost->reason.find("SIGKILL"), std::string::npos) << lost->reason;
      n.take(load.next());  // nobody answers any more, and nothing breaks
      EXPECT_FALSE(n.ranks().take().has_value());
    }
  }
}

}  // namespace
}  // namespace towline::worker
