// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/rank_group.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <semaphore>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "worker/driver_group.hpp"
#include "worker/steady_load.hpp"

namespace towline::worker {
namespace {

using policy::DeltaForm;
using policy::NodeStep;

constexpr Duration kPatience = seconds(300);  // a bound for a test that fails

std::unique_ptr<RankGroup> start(RankGroupOptions options) {
  Result<std::unique_ptr<RankGroup>> group = RankGroup::start(std::move(options));
  EXPECT_TRUE(group) << group.error().to_string();
  return group ? std::move(*group) : nullptr;
}

GroupEvent next_event(RankGroup& group) {
  std::optional<GroupEvent> event = group.wait(net::deadline_in(kPatience));
  EXPECT_TRUE(event.has_value());
  return event ? std::move(*event) : GroupEvent{};
}

// The tokens of a step are those of the null model: a function of sequence and position.
void expect_tokens(const GroupEvent& event, int32_t batch) {
  ASSERT_TRUE(event.ok()) << event.error;
  ASSERT_EQ(event.outputs.size(), 1u);
  ASSERT_EQ(event.outputs[0].rows.size(), static_cast<size_t>(batch));
  for (int32_t i = 0; i < batch; ++i) {
    const RowResult& r = event.outputs[0].rows[static_cast<size_t>(i)];
    ASSERT_EQ(r.token.token, NullExecutor::token_of(SeqId(i), r.position, 32000));
  }
}

struct Setting {
  int32_t ranks;  // of each stage
  bool processes;
  int32_t stages = 1;
};
class RankGroups : public ::testing::TestWithParam<Setting> {
 protected:
  RankGroupOptions options(const NullExecutorOptions& null = {}) const {
    return null_group(GetParam().ranks, GetParam().processes, null, GetParam().stages);
  }
  int32_t all_ranks() const { return GetParam().ranks * GetParam().stages; }
  int32_t last_rank() const { return all_ranks() - 1; }
};

TEST_P(RankGroups, RunStepsOneAhead) {
  const auto group = start(options());
  ASSERT_TRUE(group);
  EXPECT_EQ(group->geometry().hidden_width, 16);
  for (const bool fed : {false, true}) {
    SteadyLoad load(20, 100, fed ? DeltaForm::kImplied : DeltaForm::kExplicit, fed);
    load.sender().restart(Epoch(fed ? 2 : 1));
    ASSERT_TRUE(submit(*group, load.admit()));
    ASSERT_TRUE(next_event(*group).ok());
    // Two steps are always in flight: the second uses tokens that the first one samples.
    ASSERT_TRUE(submit(*group, load.next()));
    for (int i = 0; i < 40; ++i) {
      ASSERT_TRUE(submit(*group, load.next()));
      const GroupEvent event = next_event(*group);
      expect_tokens(event, 20);
      load.learn(event.outputs[0].rows);
    }
    expect_tokens(next_event(*group), 20);
  }
}

class FailingRank : public RankGroups {
 protected:
  void fail(int32_t rank);
};

void FailingRank::fail(int32_t rank) {
  NullExecutorOptions null;
  null.fault = "error";
  null.fault_rank = rank;
  null.fault_run = 3;
  const auto group = start(options(null));
  ASSERT_TRUE(group);
  SteadyLoad load(4, 50, DeltaForm::kImplied, true);
  ASSERT_TRUE(submit(*group, load.admit()));
  ASSERT_TRUE(next_event(*group).ok());
  for (int i = 1; i <= 2; ++i) {
    ASSERT_TRUE(submit(*group, load.next()));
    const GroupEvent event = next_event(*group);
    expect_tokens(event, 4);
    load.learn(event.outputs[0].rows);
    load.sender().completed(event.outputs[0].step);
  }
  ASSERT_TRUE(submit(*group, load.next()));
  const GroupEvent failed = next_event(*group);
  EXPECT_EQ(failed.status, RankStatus::kFailed);
  EXPECT_EQ(failed.rank, rank);
  EXPECT_NE(failed.error.find("was told to fail run 3"), std::string::npos) << failed.error;
  ASSERT_TRUE(group->usable());
  // The coordinator sends the step again, through the full form.
  const auto again = load.sender().resync();
  ASSERT_TRUE(again);
  for (const NodeStep& message : *again) {
    ASSERT_TRUE(submit(*group, message));
    const GroupEvent event = next_event(*group);
    ASSERT_TRUE(event.ok()) << event.error;
    if (message.runs()) expect_tokens(event, 4);
  }
}

TEST_P(FailingRank, IsToldAndTheGroupGoesOn) {
  for (int32_t rank = 0; rank < all_ranks(); ++rank) {
    SCOPED_TRACE(rank);
    fail(rank);
  }
}

TEST_P(RankGroups, LostMessageIsAskedForAndNothingChanges) {
  const auto group = start(options());
  ASSERT_TRUE(group);
  SteadyLoad load(8, 50, DeltaForm::kImplied, true);
  ASSERT_TRUE(submit(*group, load.admit()));
  ASSERT_TRUE(next_event(*group).ok());
  for (int i = 0; i < 12; ++i) {
    const NodeStep message = load.next();
    if (i % 4 != 2) {
      ASSERT_TRUE(submit(*group, message));
      const GroupEvent event = next_event(*group);
      expect_tokens(event, 8);
      load.learn(event.outputs[0].rows);
      load.sender().completed(event.outputs[0].step);
      continue;
    }
    // This message is lost; the next one (nothing to run) shows it, on every rank.
    NodeStep empty;
    empty.epoch = message.epoch;
    empty.number = message.number + 1;
    ASSERT_TRUE(submit(*group, empty));
    const GroupEvent event = next_event(*group);
    ASSERT_EQ(event.status, RankStatus::kNeedSync);
    EXPECT_NE(event.error.find("1 missing"), std::string::npos) << event.error;
    while (group->take()) {  // the other ranks said the same of the same frame
    }
    const auto again = load.sender().resync();
    ASSERT_TRUE(again);
    ASSERT_EQ(again->size(), 2u);
    for (const NodeStep& m : *again) {
      ASSERT_TRUE(submit(*group, m));
      const GroupEvent synced = next_event(*group);
      ASSERT_TRUE(synced.ok()) << synced.error;
      if (!m.runs()) continue;
      expect_tokens(synced, 8);
      load.learn(synced.outputs[0].rows);
      load.sender().completed(synced.outputs[0].step);
    }
  }
}

TEST_P(RankGroups, FullRingPushesBackAndHealthAnswersMeanwhile) {
  NullExecutorOptions null;
  null.fault = "hang";
  null.fault_rank = last_rank();
  null.fault_run = 1;
  const auto group = start(options(null));
  ASSERT_TRUE(group);
  SteadyLoad load(2, 50, DeltaForm::kImplied, true);
  ASSERT_TRUE(submit(*group, load.admit()));
  ASSERT_TRUE(next_event(*group).ok());
  ASSERT_TRUE(submit(*group, load.next()));
  std::string phase;
  while (phase != "compute") {  // the rank may not have come to it yet
    const Result<Json> health = group->call_now(Method::kHealth, Json::object(), kPatience);
    ASSERT_TRUE(health) << health.error().to_string();
    phase = health->items().back()["phase"].as_string();
  }
  size_t sent = 1;
  Result<uint64_t> outcome = uint64_t{0};
  while ((outcome = submit(*group, load.next()))) ++sent;
  EXPECT_EQ(outcome.error().code(), Code::kExhausted);
  EXPECT_EQ(sent, 8u);
  // Out of band again: the hanging rank is told to give up its run, and says so.
  ASSERT_TRUE(group->call_now(Method::kAbort, Json::object(), kPatience));
  const GroupEvent event = next_event(*group);
  EXPECT_EQ(event.status, RankStatus::kFailed);
  EXPECT_EQ(event.rank, last_rank());
}

TEST_P(RankGroups, AdapterIsOnAllRanksOrOnNone) {
  const auto group = start(options());
  ASSERT_TRUE(group);
  const auto list = [&] {
    const Result<Json> ids = group->call_now(Method::kListAdapters, Json::object(), kPatience);
    return ids ? ids->dump() : ids.error().to_string();
  };
  for (int32_t bad = 0; bad < all_ranks(); ++bad) {
    ASSERT_TRUE(group->load_adapter(5, format("adapters/fail:{}", bad)));
    const GroupEvent event = next_event(*group);
    EXPECT_EQ(event.status, RankStatus::kFailed);
    EXPECT_EQ(event.code, Code::kNotFound);
    EXPECT_EQ(event.rank, bad);
    EXPECT_NE(event.error.find("cannot be read"), std::string::npos) << event.error;
    EXPECT_EQ(list(), "[]");
  }
  // After as many failures the same id loads, with steps going on around it.
  SteadyLoad load(3, 50, DeltaForm::kImplied, true);
  ASSERT_TRUE(submit(*group, load.admit()));
  ASSERT_TRUE(group->load_adapter(5, "adapters/good"));
  ASSERT_TRUE(submit(*group, load.next()));
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(next_event(*group).ok());
  EXPECT_EQ(list(), "[5]");
  const Json args = AdapterArgs{5, ""}.json();
  ASSERT_TRUE(group->call_now(Method::kRemoveAdapter, args, kPatience));
  EXPECT_EQ(list(), "[]");
  EXPECT_EQ(group->call_now(Method::kRemoveAdapter, args, kPatience).error().code(),
            Code::kNotFound);
}

TEST_P(RankGroups, NotifiesAnOwnerThatSleepsElsewhere) {
  std::counting_semaphore<> bell(0);
  RankGroupOptions o = options();
  o.team.notify = [&] { bell.release(); };
  const auto group = start(o);
  ASSERT_TRUE(group);
  SteadyLoad load(4, 50, DeltaForm::kImplied, true);
  ASSERT_TRUE(submit(*group, load.admit()));
  ASSERT_TRUE(submit(*group, load.next()));
  ASSERT_TRUE(group->call(Method::kHealth, Json::object()));
  size_t events = 0;
  while (events < 3) {
    bell.acquire();
    while (const std::optional<GroupEvent> event = group->take()) {
      EXPECT_TRUE(event->ok()) << event->error;
      ++events;
    }
  }
  EXPECT_EQ(group->in_flight(), 0u);
}

// The owner sleeps whenever the ring is full of commands that run nothing, of which it need not hear
// one by one.
TEST_P(RankGroups, AnOwnerThatFoundNoRoomIsToldOfIt) {
  std::counting_semaphore<> bell(0);
  RankGroupOptions o = options();
  o.team.notify = [&] { bell.release(); };
  const auto group = start(o);
  ASSERT_TRUE(group);
  SteadyLoad load(4, 50, DeltaForm::kImplied, true);
  size_t events = 0;
  const auto take_all = [&] {
    while (const std::optional<GroupEvent> event = group->take()) {
      EXPECT_TRUE(event->ok()) << event->error;
      ++events;
    }
  };
  const auto send = [&](const policy::NodeStep& message) {
    Result<uint64_t> sent = submit(*group, message);
    while (!sent && sent.error().code() == Code::kExhausted) {
      bell.acquire();
      take_all();
      sent = submit(*group, message);
    }
    EXPECT_TRUE(sent);
  };
  send(load.admit());
  for (int i = 0; i < 100; ++i) {
    policy::NodeStep nothing;
    nothing.opened.push_back({LaneId(1 + i), {0, 4}, NodeId(-1), NodeId(-1), NodeId(0)});
    send(*load.sender().next(std::move(nothing)));
    if (i % 7 == 0) take_all();
  }
  send(load.next());
  while (events < 102) {
    bell.acquire();
    take_all();
  }
  EXPECT_EQ(group->in_flight(), 0u);
}

TEST(RankProcess, NobodyIsNotifiedOfWhatStartWaitedFor) {
  std::atomic<bool> listening = false;
  std::counting_semaphore<> bell(0);
  RankGroupOptions o = null_group(2, true);
  o.team.notify = [&] {
    if (listening) bell.release();  // nothing is taken before: nothing has been asked for
  };
  const auto group = start(o);
  ASSERT_TRUE(group);
  const auto another = start(null_group(2, true));  // takes a while, in which nothing may happen
  SteadyLoad load(4, 50, DeltaForm::kImplied, true);
  listening = true;
  ASSERT_TRUE(submit(*group, load.admit()));
  ASSERT_TRUE(bell.try_acquire_for(std::chrono::seconds(120)));
  EXPECT_TRUE(next_event(*group).ok());
  listening = false;  // the ranks' end is told too
}

TEST_P(RankGroups, RankThatCannotStartEndsTheStartWithItsReason) {
  NullExecutorOptions null;
  null.fault = "create";
  null.fault_rank = last_rank();
  const Result<std::unique_ptr<RankGroup>> group = RankGroup::start(options(null));
  ASSERT_FALSE(group);
  EXPECT_EQ(group.error().code(), Code::kExhausted);
  EXPECT_NE(group.error().message().find("was told not to start"), std::string::npos);
}

std::string setting_name(const ::testing::TestParamInfo<Setting>& info) {
  return format("{}x{}{}", info.param.stages, info.param.ranks,
                info.param.processes ? "processes" : "threads");
}
const auto kSettings = ::testing::Values(Setting{1, false}, Setting{3, false}, Setting{1, true},
                                         Setting{2, true}, Setting{1, false, 2},
                                         Setting{2, false, 3}, Setting{1, true, 3},
                                         Setting{2, true, 2});
INSTANTIATE_TEST_SUITE_P(Places, RankGroups, kSettings, setting_name);
INSTANTIATE_TEST_SUITE_P(Places, FailingRank, kSettings, setting_name);

// --- stages -------------------------------------------------------------------------------------

// Lanes that leave out layers at either end of the node: whole stages have nothing to do for them.
TEST(StageGroup, LanesMayLeaveOutLayers) {
  NullExecutorOptions null;
  null.layers = {4, 10};  // stages of [4, 6), [6, 8), [8, 10)
  const auto group = start(null_group(1, false, null, 3));
  ASSERT_TRUE(group);
  EXPECT_EQ(group->geometry().layers, (LayerRange{4, 10}));
  const struct {
    LayerRange layers;
    int32_t runs[3];  // of each stage
  } ways[] = {{{4, 10}, {1, 1, 1}}, {{7, 10}, {1, 2, 2}}, {{8, 9}, {1, 2, 3}}, {{4, 5}, {2, 2, 3}}};
  for (int32_t i = 0; const auto& way : ways) {
    SteadyLoad load(5, 40, DeltaForm::kExplicit, false,
                    {LaneId(0), way.layers, NodeId(3), NodeId(7), NodeId(3)});
    load.sender().restart(Epoch(++i));
    ASSERT_TRUE(submit(*group, load.admit()));
    ASSERT_TRUE(next_event(*group).ok());
    std::vector<float> rows(5 * 16, 0.0f);
    const NodeStep message = load.next();
    for (size_t r = 0; r < 5; ++r) {  // as the null model writes them
      rows[r * 16] = static_cast<float>(r);
      rows[r * 16 + 1] = 1;
      rows[r * 16 + 2] = static_cast<float>(message.rows[r].from);
      rows[r * 16 + 3] = static_cast<float>(way.layers.begin);
    }
    ASSERT_TRUE(submit(*group, message, rows, 16));
    const GroupEvent event = next_event(*group);
    ASSERT_TRUE(event.ok()) << event.error;
    for (size_t r = 0; r < 5; ++r) rows[r * 16 + 3] = static_cast<float>(way.layers.end);
    EXPECT_EQ(event.outputs[0].hidden, rows);
    const Result<Json> states = group->call_now(Method::kDumpState, Json::object(), kPatience);
    ASSERT_TRUE(states);
    for (size_t s = 0; s < 3; ++s) EXPECT_EQ((*states)[s]["executor"]["runs"].as_int(), way.runs[s]);
  }
}

// Two lanes through one node: while one's step is in the second stage, the other's is in the first.
TEST(StageGroup, StagesWorkAtTheSameTime) {
  NullExecutorOptions null;
  null.fault = "hang";
  null.fault_rank = 1;
  null.fault_run = 1;
  const auto group = start(null_group(1, false, null, 2));
  ASSERT_TRUE(group);
  SteadyLoad load(2, 50, DeltaForm::kExplicit, false);
  ASSERT_TRUE(submit(*group, load.admit()));
  ASSERT_TRUE(next_event(*group).ok());
  ASSERT_TRUE(submit(*group, load.next()));
  NodeStep other = load.next();  // the second stage hangs in the one before
  ASSERT_TRUE(submit(*group, other));
  int64_t runs = 0;
  while (runs < 2) {
    const Result<Json> health = group->call_now(Method::kHealth, Json::object(), kPatience);
    ASSERT_TRUE(health) << health.error().to_string();
    runs = (*health)[size_t{0}]["steps"].as_int();
  }
  ASSERT_TRUE(group->call_now(Method::kAbort, Json::object(), kPatience));
  EXPECT_EQ(next_event(*group).status, RankStatus::kFailed);
}

TEST(StageGroup, WhatCannotBeDividedIsAnError) {
  NullExecutorOptions null;
  null.layers = {0, 2};
  const auto few = RankGroup::start(null_group(1, false, null, 3));
  ASSERT_FALSE(few);
  EXPECT_NE(few.error().to_string().find("2 layers are too few for 3 stages"), std::string::npos);
  EXPECT_FALSE(RankGroup::start(null_group(33, false, {}, 2)));  // more ranks than a ring has readers
}

// --- processes ----------------------------------------------------------------------------------

class RankProcesses : public ::testing::TestWithParam<int32_t> {};  // stages
INSTANTIATE_TEST_SUITE_P(Stages, RankProcesses, ::testing::Values(1, 2));

TEST_P(RankProcesses, DeathIsAnEventWithItsCauseAndAnotherGroupGoesOn) {
  const int32_t stages = GetParam();
  for (int32_t victim = 0; victim < 2 * stages; ++victim) {
    NullExecutorOptions null;
    null.fault = "die";
    null.fault_rank = victim;
    null.fault_run = 2;
    const auto group = start(null_group(2, true, null, stages));
    ASSERT_TRUE(group);
    SteadyLoad load(4, 50, DeltaForm::kImplied, true);
    ASSERT_TRUE(submit(*group, load.admit()));
    ASSERT_TRUE(submit(*group, load.next()));
    ASSERT_TRUE(next_event(*group).ok());
    expect_tokens(next_event(*group), 4);
    ASSERT_TRUE(submit(*group, load.next()));
    const GroupEvent event = next_event(*group);
    EXPECT_EQ(event.status, RankStatus::kFailed);
    EXPECT_NE(event.error.find(format("rank {} (pid ", victim)), std::string::npos) << event.error;
    EXPECT_NE(event.error.find("was killed by signal 9 (SIGKILL)"), std::string::npos);
    EXPECT_FALSE(group->usable());
    EXPECT_EQ(submit(*group, load.next()).error().code(), Code::kUnavailable);
    // A new group in a new epoch takes the sequences over.
    const auto other = start(null_group(2, true, {}, stages));
    ASSERT_TRUE(other);
    SteadyLoad fresh(4, 50, DeltaForm::kImplied, true);
    fresh.sender().restart(Epoch(2));
    ASSERT_TRUE(submit(*other, fresh.admit()));
    ASSERT_TRUE(submit(*other, fresh.next()));
    ASSERT_TRUE(next_event(*other).ok());
    expect_tokens(next_event(*other), 4);
  }
}

size_t open_files() {
  const std::filesystem::directory_iterator begin("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin, std::filesystem::directory_iterator{}));
}

// What has no name in /dev/shm is not left there. (Of what others have there nothing follows.)
bool has_named_memory(const std::string& process) {
  const Result<std::string> maps = read_file(format("/proc/{}/maps", process));
  return !maps || maps->find("/dev/shm") != std::string::npos;
}

// C11, scaled: TOWLINE_CYCLES=1000 for the whole of it.
TEST(RankProcess, StartAndStopLeaveNothing) {
  const char* asked = std::getenv("TOWLINE_CYCLES");
  const int cycles = asked != nullptr ? std::atoi(asked) : 60;
  (void)start(null_group(2, true));
  const size_t files = open_files();
  ::testing::internal::CaptureStderr();
  for (int i = 0; i < cycles; ++i) {
    const auto group = start(null_group(1 + i % 2, i % 3 != 0, {}, i % 4 == 3 ? 2 : 1));
    ASSERT_TRUE(group);
    SteadyLoad load(2, 50, DeltaForm::kImplied, true);
    ASSERT_TRUE(submit(*group, load.admit()));
    if (i % 2 == 0) {
      ASSERT_TRUE(next_event(*group).ok());
      EXPECT_FALSE(has_named_memory("self"));
      const pid_t rank = group->team().pid(0);  // -1: a thread
      EXPECT_FALSE(rank > 0 && has_named_memory(std::to_string(rank)));
    }
    if (i % 5 == 0) group->stop();
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(open_files(), files);
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

// A node that is killed takes its ranks with it.
TEST(RankProcess, RanksEndWithTheirNode) {
  int pipes[2];
  ASSERT_EQ(::pipe(pipes), 0);
  const pid_t node = ::fork();
  if (node == 0) {
    const auto group = RankGroup::start(null_group(2, true));
    pid_t pids[2] = {-1, -1};
    if (group) pids[0] = (*group)->team().pid(0), pids[1] = (*group)->team().pid(1);
    if (::write(pipes[1], pids, sizeof(pids)) != sizeof(pids)) ::_exit(1);
    for (;;) ::pause();
  }
  pid_t pids[2] = {-1, -1};
  ASSERT_EQ(::read(pipes[0], pids, sizeof(pids)), static_cast<ssize_t>(sizeof(pids)));
  pollfd ends[2];
  for (int i = 0; i < 2; ++i) {
    ASSERT_GT(pids[i], 0);
    ends[i] = {static_cast<int>(::syscall(SYS_pidfd_open, pids[i], 0)), POLLIN, 0};
    ASSERT_GE(ends[i].fd, 0);
  }
  ::kill(node, SIGKILL);
  ASSERT_EQ(::waitpid(node, nullptr, 0), node);
  for (pollfd& end : ends) {
    EXPECT_EQ(::poll(&end, 1, 300'000), 1);
    ::close(end.fd);
  }
  ::close(pipes[0]);
  ::close(pipes[1]);
}

TEST(RankProcess, ProgramThatIsNotThereIsAnError) {
  RankGroupOptions options = null_group(2, true);
  options.team.program = "/nonexistent/towline";
  const Result<std::unique_ptr<RankGroup>> group = RankGroup::start(options);
  ASSERT_FALSE(group);
  EXPECT_NE(group.error().to_string().find("/nonexistent/towline"), std::string::npos);
}

// --- two nodes, and the driver ------------------------------------------------------------------

// Hidden rows of one node are the input of the next; the null model checks that they are right.
TEST(RankGroup, TwoNodesPassRowsOn) {
  NullExecutorOptions lower;
  lower.layers = {0, 2};
  NullExecutorOptions upper;
  upper.layers = {2, 4};
  const auto first = start(null_group(2, false, lower));
  const auto last = start(null_group(2, true, upper));
  ASSERT_TRUE(first && last);
  SteadyLoad below(6, 60, DeltaForm::kImplied, true,
                   {LaneId(0), {0, 2}, NodeId(-1), NodeId(1), NodeId(0)});
  SteadyLoad above(6, 60, DeltaForm::kImplied, true,
                   {LaneId(0), {2, 4}, NodeId(0), NodeId(-1), NodeId(0)});
  ASSERT_TRUE(submit(*first, below.admit()));
  ASSERT_TRUE(submit(*last, above.admit()));
  ASSERT_TRUE(next_event(*first).ok());
  ASSERT_TRUE(next_event(*last).ok());
  std::vector<policy::FedToken> feeds;
  for (int i = 0; i < 20; ++i) {
    const NodeStep message = below.next();
    const std::vector<uint8_t> bytes = protocol::encode(message);
    RankCommand command;
    command.messages = {bytes};
    command.feeds = feeds;
    command.runs = {{message.lane, message.step}};
    ASSERT_TRUE(first->submit(command));
    const GroupEvent rows = next_event(*first);
    ASSERT_TRUE(rows.ok()) << rows.error;
    ASSERT_EQ(rows.outputs[0].hidden_rows, 6u);
    ASSERT_TRUE(submit(*last, above.next(), rows.outputs[0].hidden, 16));
    const GroupEvent event = next_event(*last);
    expect_tokens(event, 6);
    feeds.clear();
    for (const RowResult& r : event.outputs[0].rows) {
      feeds.push_back({r.slot, r.position, r.token.token});
    }
    below.learn(event.outputs[0].rows);
    above.learn(event.outputs[0].rows);
  }
  // Rows that belong to other sequences are noticed.
  std::vector<float> wrong(6 * 16, 1.0f);
  ASSERT_TRUE(submit(*last, above.next(), wrong, 16));
  EXPECT_EQ(next_event(*last).status, RankStatus::kFailed);
}

TEST(DriverGroup, SamplesTheTokensOfTheSpmdRanks) {
  for (const int32_t ranks : {1, 2}) {
    auto driver = DriverGroup::start(null_group(ranks, true));
    ASSERT_TRUE(driver) << driver.error().to_string();
    SteadyLoad load(8, 100, DeltaForm::kExplicit, false);
    ASSERT_TRUE((*driver)->step(load.admit()));
    for (int i = 0; i < 20; ++i) {
      const Result<std::vector<StepOutput>> out = (*driver)->step(load.next());
      ASSERT_TRUE(out) << out.error().to_string();
      ASSERT_EQ(out->at(0).rows.size(), 8u);
      for (const RowResult& r : out->at(0).rows) {
        EXPECT_EQ(r.token.token,
                  NullExecutor::token_of(SeqId(static_cast<int64_t>(r.slot.slot)), r.position, 32000));
      }
    }
  }
}

}  // namespace
}  // namespace towline::worker
