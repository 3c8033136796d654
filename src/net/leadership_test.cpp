// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "net/leadership.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "base/for_seeds.hpp"

namespace towline::net {
namespace {

Deadline soon() { return deadline_in(seconds(120)); }

// A registry whose leases end when the test says so, and whose answers get lost.
class ScriptedRegistry final : public Registry {
 public:
  ScriptedRegistry() : Registry("scripted://") {}

  // The call does not arrive, or its answer does not.
  enum class Trouble { kNone, kBefore, kAfter };
  std::function<Trouble()> trouble = [] { return Trouble::kNone; };

  Result<std::vector<RegistryEntry>> list(std::string_view prefix, Deadline) override {
    if (trouble() != Trouble::kNone) return silent();
    std::vector<RegistryEntry> found;
    for (const auto& [key, e] : entries) {
      if (key.starts_with(prefix)) found.push_back({key, e.value, e.version});
    }
    return found;
  }
  Result<bool> commit(const RegistryChange& change, Deadline) override {
    const Trouble now = trouble();
    if (now == Trouble::kBefore) return silent();
    const Result<bool> done = apply(change);
    return now == Trouble::kAfter ? Result<bool>(silent()) : done;
  }
  Result<Lease> grant(Duration time, Deadline) override {
    const Trouble now = trouble();
    if (now == Trouble::kBefore) return silent();
    leases.insert(++last_lease_);
    return now == Trouble::kAfter ? Result<Lease>(silent()) : Lease{LeaseId(last_lease_), time};
  }
  Result<Lease> renew(LeaseId lease, Deadline) override {
    if (trouble() != Trouble::kNone) return silent();
    if (!leases.contains(lease.value)) return Error(Code::kNotFound, "ended");
    return Lease{lease, seconds(5)};
  }
  Result<void> revoke(LeaseId lease, Deadline) override {
    end(lease.value);
    return {};
  }

  void end(int64_t lease) {
    leases.erase(lease);
    std::erase_if(entries, [&](const auto& e) { return e.second.lease == lease; });
  }
  struct Stored {
    std::string value;
    int64_t version = 0, lease = 0;
  };
  std::map<std::string, Stored> entries;
  std::set<int64_t> leases;

 private:
  static Error silent() { return Error(Code::kUnavailable, "silent"); }
  Result<bool> apply(const RegistryChange& change) {
    for (const auto& condition : change.only_if) {
      const auto at = entries.find(condition.key);
      if ((at == entries.end() ? 0 : at->second.version) != condition.version) return false;
    }
    for (const auto& put : change.puts) {
      if (put.lease != kNoLease && !leases.contains(put.lease.value)) {
        return Error(Code::kNotFound, "ended");
      }
    }
    ++revision_;
    for (const auto& put : change.puts) entries[put.key] = {put.value, revision_, put.lease.value};
    return true;
  }
  int64_t last_lease_ = 0, revision_ = 0;
};

TEST(LeaderSeat, OneLeadsTheOtherFollowsAndSucceeds) {
  ScriptedRegistry registry;
  LeaderSeat a(registry, "a", seconds(5), 0), b(registry, "b", seconds(5), 0);
  EXPECT_TRUE(*a.campaign(soon()));
  EXPECT_EQ(a.epoch(), 1);
  EXPECT_FALSE(*b.campaign(soon()));
  ASSERT_TRUE(b.other());
  EXPECT_EQ(b.other()->name, "a");
  EXPECT_TRUE(*a.publish("tcp://1:1", "http://1:2", "[]", soon()));
  EXPECT_FALSE(*b.campaign(soon()));
  EXPECT_EQ(b.other()->address, "tcp://1:1");
  a.resign(soon());
  EXPECT_TRUE(*b.campaign(soon()));
  EXPECT_EQ(b.epoch(), 2);
  EXPECT_FALSE(*a.renew(soon()));
  EXPECT_NE(a.reason().find("b leads now, with epoch 2"), std::string::npos) << a.reason();
}

TEST(LeaderSeat, AnEndedLeaseIsTakenUpAgainUnlessSomebodyCame) {
  ScriptedRegistry registry;
  LeaderSeat a(registry, "a", seconds(5), 0), b(registry, "b", seconds(5), 0);
  EXPECT_TRUE(*a.campaign(soon()));
  registry.end(1);
  EXPECT_TRUE(*a.renew(soon()));
  EXPECT_EQ(a.epoch(), 1) << "nobody came: the same epoch";
  for (const int64_t lease : std::set(registry.leases)) registry.end(lease);
  EXPECT_TRUE(*b.campaign(soon()));
  b.resign(soon());  // somebody came and went
  EXPECT_FALSE(*a.renew(soon()));
  EXPECT_NE(a.reason().find("another led meanwhile"), std::string::npos) << a.reason();
}

TEST(LeaderSeat, AForgetfulRegistryDoesNotTurnEpochsBack) {
  ScriptedRegistry registry;
  LeaderSeat a(registry, "a", seconds(5), 6), b(registry, "b", seconds(5), 0);
  EXPECT_TRUE(*a.campaign(soon()));
  EXPECT_EQ(a.epoch(), 7) << "greater than the floor";
  EXPECT_FALSE(*b.campaign(soon()));
  registry.entries.clear();  // its disk was wiped
  registry.leases.clear();
  EXPECT_TRUE(*b.campaign(soon()));
  EXPECT_EQ(b.epoch(), 8) << "it had read epoch 7";
  EXPECT_FALSE(*a.renew(soon()));
  // One that knew nothing gets a small epoch, which nodes refuse; the real
  // leader takes the seat back.
  registry.entries.clear();
  LeaderSeat c(registry, "c", seconds(5), 0);
  EXPECT_TRUE(*c.campaign(soon()));
  EXPECT_EQ(c.epoch(), 1);
  EXPECT_TRUE(*b.renew(soon()));
  EXPECT_EQ(b.epoch(), 8);
  EXPECT_FALSE(*c.renew(soon()));
}

TEST(LeaderSeat, RubbishInTheRegistryIsAnErrorNotALeader) {
  ScriptedRegistry registry;
  LeaderSeat a(registry, "a", seconds(5), 0);
  for (const char* text :
       {"", "{}", "7", R"({"name":"x","address":"","url":"","epoch":0,"holder":"h"})",
        R"({"name":"x","address":"","url":"","epoch":4294967296,"holder":"h"})"}) {
    registry.entries["coordinator/leader"] = {text, 1, 0};
    EXPECT_EQ(a.campaign(soon()).error().code(), Code::kDataCorrupt) << text;
  }
  registry.entries.clear();
  for (const char* text : {"", "x", "-1", "1x", "99999999999999999999"}) {
    registry.entries["coordinator/epoch"] = {text, 1, 0};
    EXPECT_EQ(a.campaign(soon()).error().code(), Code::kDataCorrupt) << text;
  }
}

// Any order of campaigns, renewals, ends of leases, lost calls and lost answers: an epoch belongs
// to one process, and nobody is told that it leads after another took the seat.
TEST(LeaderSeat, AnEpochHasOneLeader) {
  for_seeds(300, [](Rng& rng) {
    ScriptedRegistry registry;
    const uint64_t trouble = rng.below(4);  // of 10 calls
    registry.trouble = [&] {
      if (rng.below(10) >= trouble) return ScriptedRegistry::Trouble::kNone;
      return rng.below(2) == 0 ? ScriptedRegistry::Trouble::kBefore
                               : ScriptedRegistry::Trouble::kAfter;
    };
    std::vector<std::unique_ptr<LeaderSeat>> seats;
    std::vector<bool> leads;
    for (int i = 0; i < 3; ++i) {
      seats.push_back(std::make_unique<LeaderSeat>(registry, format("s{}", i), seconds(5), 0));
      leads.push_back(false);
    }
    std::map<int64_t, size_t> holder_of;  // [epoch]
    for (int step = 0; step < 200; ++step) {
      const size_t i = rng.below(seats.size());
      if (rng.below(6) == 0 && !registry.leases.empty()) {
        registry.end(*std::next(registry.leases.begin(),
                                static_cast<long>(rng.below(registry.leases.size()))));
        continue;
      }
      const bool did_lead = leads[i];
      const Result<bool> answer = did_lead ? seats[i]->renew(soon()) : seats[i]->campaign(soon());
      if (!answer) continue;
      leads[i] = *answer;
      if (!*answer) {
        // One that lost starts again as another process would.
        if (did_lead) {
          seats[i] = std::make_unique<LeaderSeat>(registry, format("s{}", i), seconds(5), 0);
        }
        continue;
      }
      const int64_t epoch = seats[i]->epoch();
      const auto [at, is_new] = holder_of.emplace(epoch, i);
      ASSERT_EQ(at->second, i) << "epoch " << epoch << " has two leaders";
      ASSERT_EQ(holder_of.rbegin()->first, epoch) << "told to lead though a later epoch began";
      ASSERT_TRUE(!is_new || !did_lead) << "a renewal made a new epoch";
    }
  });
}

// --- the threads, with the file back end --------------------------------------------------------

class LeadershipThreads : public ::testing::Test {
 protected:
  void SetUp() override {
    static int count = 0;
    folder_ = ::testing::TempDir() + format("towline-leadership-{}-{}", ::getpid(), ++count);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  LeadershipOptions options(const std::string& name) const {
    LeadershipOptions o;
    o.registry = "file://" + folder_;
    o.name = name;
    o.lease = seconds(600);  // who is held up is not deposed
    return o;
  }
  std::unique_ptr<Leadership> take(const std::string& name, Duration lease = seconds(600)) const {
    LeadershipOptions o = options(name);
    o.lease = lease;
    auto taken = Leadership::take(o, [](const auto&) { return true; });
    EXPECT_TRUE(taken) << taken.error().to_string();
    return std::move(*taken);
  }
  static void wait_until(const std::function<bool()>& holds) {
    const Deadline latest = soon();
    while (!holds() && steady_now() < latest) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    EXPECT_TRUE(holds());
  }
  std::string folder_;
};

TEST_F(LeadershipThreads, AStandbyTakesOverAndNodesFindIt) {
  auto watch = LeaderWatch::start("file://" + folder_);
  ASSERT_TRUE(watch);
  auto first = take("first");
  EXPECT_EQ(first->epoch(), 1);
  EXPECT_FALSE((*watch)->leader()) << "it has no address yet";
  first->publish("tcp://1:1", "http://1:1", Json::array());
  auto found = (*watch)->wait(1, soon());
  ASSERT_TRUE(found) << found.error().to_string();
  EXPECT_EQ(found->address, "tcp://1:1");

  std::atomic<bool> saw_first{false};
  std::unique_ptr<Leadership> second;
  std::thread standby([&] {
    auto taken = Leadership::take(options("second"), [&](const auto& other) {
      if (other && other->name == "first") saw_first = true;
      return true;
    });
    ASSERT_TRUE(taken);
    second = std::move(*taken);
  });
  wait_until([&] { return saw_first.load(); });
  EXPECT_TRUE(first->check());
  first.reset();  // resigns
  standby.join();
  EXPECT_EQ(second->epoch(), 2);
  second->publish("tcp://2:2", "http://2:2", Json::array());
  found = (*watch)->wait(2, soon());
  ASSERT_TRUE(found);
  EXPECT_EQ(found->name, "second");
  EXPECT_EQ((*watch)->highest_epoch(), 2);
}

TEST_F(LeadershipThreads, WaitingEndsWhenTold) {
  auto first = take("first");
  int asked = 0;
  const auto refused =
      Leadership::take(options("second"), [&](const auto&) { return ++asked < 3; });
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kCancelled);
  auto watch = LeaderWatch::start("file://" + folder_);
  EXPECT_EQ((*watch)->wait(1, kNoWait).error().code(), Code::kDeadline);
  // A stop ends both waits wherever they are, though nothing else would for ten minutes.
  std::stop_source stop;
  std::thread stopper([&] { stop.request_stop(); });
  EXPECT_EQ((*watch)->wait(1, kNever, stop.get_token()).error().code(), Code::kCancelled);
  EXPECT_EQ((*watch)->wait(1, soon(), stop.get_token()).error().code(), Code::kCancelled);
  stopper.join();
  std::stop_source other_stop;
  const auto stopped = Leadership::take(
      options("third"),
      [&](const auto& other) {
        if (other) other_stop.request_stop();  // between two looks
        return true;
      },
      other_stop.get_token());
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code(), Code::kCancelled);
}

TEST_F(LeadershipThreads, TheLeadIsLostToALaterEpochOnly) {
  auto leader = take("leader", milliseconds(600));  // looks often; nobody else wants the seat
  std::atomic<int> lost{0};
  leader->on_lost([&](const std::string&) { ++lost; });
  const auto registry = Registry::open("file://" + folder_);
  // Somebody removes the key: it is put back.
  ASSERT_TRUE((*registry)->commit({.removes = {"coordinator/leader"}}, soon()));
  wait_until([&] { return (*registry)->list("coordinator/leader", soon())->size() == 1; });
  EXPECT_TRUE(leader->check());
  LeaderRecord other{"other", "", "", "somebody-else", 9};
  ASSERT_TRUE((*registry)->commit({.puts = {{"coordinator/leader", other.dump()}}}, soon()));
  wait_until([&] { return lost == 1; });
  const Result<void> may = leader->check();
  ASSERT_FALSE(may);
  EXPECT_NE(may.error().message().find("other leads now, with epoch 9"), std::string::npos)
      << may.error().message();
  EXPECT_EQ(leader->status()["state"].as_string(), "lost");
}

TEST_F(LeadershipThreads, AnOutageChangesNothing) {
  auto leader = take("leader", milliseconds(600));
  leader->publish("tcp://1:1", "http://1:1", Json::array());
  auto watch = LeaderWatch::start("file://" + folder_);
  ASSERT_TRUE((*watch)->wait(1, soon()));
  const Result<std::string> good = read_file(folder_ + "/registry.json");
  ASSERT_TRUE(good);
  wait_until([&] {
    // Not to be read: as good as not there. Once more if a renewal that was
    // under way has replaced it.
    std::ofstream(folder_ + "/registry.json") << "{";
    return leader->status()["state"].as_string() == "unanswered";
  });
  // Longer than a lease.
  const Instant later = registry_now() + milliseconds(900);
  wait_until([&] { return registry_now() >= later; });
  EXPECT_TRUE(leader->check());
  ASSERT_TRUE((*watch)->leader());
  EXPECT_EQ((*watch)->leader()->address, "tcp://1:1");
  ASSERT_TRUE(write_file_atomic(folder_ + "/registry.json", *good));
  wait_until([&] { return leader->status()["state"].as_string() == "held"; });
  EXPECT_EQ(leader->epoch(), 1);
  // Its lease had ended; the key is there again.
  const auto registry = Registry::open("file://" + folder_);
  wait_until([&] { return (*registry)->list("coordinator/leader", soon())->size() == 1; });
}

}  // namespace
}  // namespace towline::net
