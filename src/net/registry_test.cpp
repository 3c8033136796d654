// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// One contract, both back ends of the registry; etcd is a real one (Debian's etcd-server).
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/file.h>
#include <sys/socket.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>

#include "base/for_seeds.hpp"
#include "net/etcd_reply.hpp"
#include "net/etcd_url.hpp"
#include "net/registry.hpp"
#include "net/testing_etcd.hpp"

namespace towline::net {
namespace {

Deadline soon() { return deadline_in(seconds(120)); }

class RegistryConformance : public ::testing::TestWithParam<std::string> {
 protected:
  static void TearDownTestSuite() {
    etcd(false).reset();
    etcd(true).reset();
  }
  static std::unique_ptr<TestEtcd>& etcd(bool tls) {
    static std::unique_ptr<TestEtcd> one[2];
    return one[tls ? 1 : 0];
  }
  void SetUp() override {
    static int count = 0;
    const std::string fresh = format("t{}", ++count);
    if (GetParam() != "file") {
      if (TestEtcd::program() == nullptr) {
        GTEST_SKIP() << "no etcd here; apt-get install etcd-server to run this test";
      }
      const bool tls = GetParam() == "etcds";
      if (!etcd(tls)) etcd(tls) = std::make_unique<TestEtcd>(tls);
      url_ = etcd(tls)->url(fresh);
    } else {
      folder_ = ::testing::TempDir() + format("towline-registry-{}-{}", ::getpid(), fresh);
      url_ = "file://" + folder_;
    }
    registry_ = open();
  }
  void TearDown() override {
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }
  std::unique_ptr<Registry> open() const {
    Result<std::unique_ptr<Registry>> opened = Registry::open(url_);
    EXPECT_TRUE(opened) << opened.error().to_string();
    return std::move(*opened);
  }
  void put(const std::string& key, const std::string& value, LeaseId lease = kNoLease) {
    const Result<bool> done = registry_->commit({.puts = {{key, value, lease}}}, soon());
    ASSERT_TRUE(done) << done.error().to_string();
    EXPECT_TRUE(*done);
  }
  bool changed(const RegistryChange& change) {
    const Result<bool> done = registry_->commit(change, soon());
    EXPECT_TRUE(done) << done.error().to_string();
    return done && *done;
  }
  std::map<std::string, std::string> all(const std::string& prefix = "") const {
    const auto entries = registry_->list(prefix, soon());
    EXPECT_TRUE(entries) << entries.error().to_string();
    std::map<std::string, std::string> found;
    if (!entries) return found;
    for (const RegistryEntry& entry : *entries) found[entry.key] = entry.value;
    return found;
  }
  int64_t version(const std::string& key) const {
    const auto entries = registry_->list(key, soon());
    EXPECT_TRUE(entries);
    return entries && !entries->empty() && entries->front().key == key ? entries->front().version
                                                                       : 0;
  }
  // Until nothing is left; the lease's time is not ours to measure.
  void wait_empty() const {
    const Deadline latest = soon();
    while (!all().empty() && steady_now() < latest) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    EXPECT_TRUE(all().empty());
  }
  // A change or a renewal came too late, and that was ours: the lease had its whole time before.
  static bool held_up(const Error& error, Instant begun, Duration lease) {
    return error.code() == Code::kNotFound && registry_now() >= begun + lease;
  }
  using Map = std::map<std::string, std::string>;
  std::string url_, folder_;
  std::unique_ptr<Registry> registry_;
};

TEST_P(RegistryConformance, ListsByPrefixInOrder) {
  EXPECT_EQ(all(), Map{});
  const std::string odd("\0\xff /%\n", 6);
  for (const char* key : {"b", "a/2", "a/1", "a", "a0", "a/\xff", "a/\xff\xff", "b/x"}) {
    put(key, key);
  }
  put("c", odd);
  put(odd, "");
  EXPECT_EQ(all("a/"), (Map{{"a/1", "a/1"}, {"a/2", "a/2"}, {"a/\xff", "a/\xff"},
                            {"a/\xff\xff", "a/\xff\xff"}}));
  EXPECT_EQ(all("a/\xff"), (Map{{"a/\xff", "a/\xff"}, {"a/\xff\xff", "a/\xff\xff"}}));
  EXPECT_EQ(all("b").size(), 2u);
  EXPECT_EQ(all("nothing"), Map{});
  EXPECT_EQ(all()["c"], odd);
  EXPECT_EQ(all().count(odd), 1u);
  EXPECT_EQ(all().size(), 10u);
}

TEST_P(RegistryConformance, VersionsGrowAndGuard) {
  put("k", "1");
  const int64_t first = version("k");
  EXPECT_GT(first, 0);
  EXPECT_FALSE(changed({.only_if = {{"k", 0}}, .puts = {{"k", "x"}}}));
  EXPECT_TRUE(changed({.only_if = {{"k", first}}, .puts = {{"k", "2"}}}));
  EXPECT_FALSE(changed({.only_if = {{"k", first}}, .puts = {{"k", "3"}}}));
  const int64_t second = version("k");
  EXPECT_GT(second, first);
  EXPECT_TRUE(changed({.removes = {"k"}}));
  EXPECT_EQ(version("k"), 0);
  EXPECT_TRUE(changed({.only_if = {{"k", 0}}, .puts = {{"k", "again"}}}));
  EXPECT_GT(version("k"), second) << "a version came back";
}

TEST_P(RegistryConformance, SeveralKeysChangeTogetherOrNotAtAll) {
  put("a", "1");
  put("b", "1");
  EXPECT_FALSE(changed({.only_if = {{"a", version("a")}, {"b", 0}},
                        .puts = {{"a", "2"}, {"c", "2"}},
                        .removes = {"b"}}));
  EXPECT_EQ(all(), (Map{{"a", "1"}, {"b", "1"}}));
  EXPECT_TRUE(changed({.only_if = {{"a", version("a")}, {"b", version("b")}, {"c", 0}},
                       .puts = {{"a", "2"}, {"c", "2"}},
                       .removes = {"b"}}));
  EXPECT_EQ(all(), (Map{{"a", "2"}, {"c", "2"}}));
}

TEST_P(RegistryConformance, ALeaseTakesItsKeysWithIt) {
  const auto lease = registry_->grant(seconds(3600), soon());
  ASSERT_TRUE(lease) << lease.error().to_string();
  EXPECT_GE(lease->time, seconds(3600));
  put("kept", "1");
  put("leased", "1", lease->id);
  put("freed", "1", lease->id);
  put("freed", "2");  // without the lease now
  ASSERT_TRUE(registry_->renew(lease->id, soon()));
  EXPECT_EQ(registry_->renew(lease->id, soon())->id, lease->id);
  ASSERT_TRUE(registry_->revoke(lease->id, soon()));
  EXPECT_EQ(all(), (Map{{"kept", "1"}, {"freed", "2"}}));
  EXPECT_EQ(registry_->renew(lease->id, soon()).error().code(), Code::kNotFound);
  EXPECT_EQ(registry_->revoke(lease->id, soon()).error().code(), Code::kNotFound);
  const auto late = registry_->commit({.puts = {{"late", "1", lease->id}}}, soon());
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code(), Code::kNotFound);
}

TEST_P(RegistryConformance, ALeaseEndsByItself) {
  Result<Registry::Lease> lease = Error(Code::kInternal, "none yet");
  for (bool done = false; !done;) {
    const Instant begun = registry_now();
    lease = registry_->grant(milliseconds(1500), soon());
    ASSERT_TRUE(lease) << lease.error().to_string();
    const Result<bool> put = registry_->commit({.puts = {{"leased", "1", lease->id}}}, soon());
    ASSERT_TRUE(put || held_up(put.error(), begun, milliseconds(1500))) << put.error().to_string();
    done = put.has_value();
  }
  wait_empty();
  EXPECT_EQ(registry_->renew(lease->id, soon()).error().code(), Code::kNotFound);
}

TEST_P(RegistryConformance, ARenewedLeaseLasts) {
  constexpr Duration kTime = seconds(2);
  // One that is renewed is there when one that began after it has ended; unless we were held up for
  // as long, which is seen, and then it is tried again.
  for (bool shown = false; !shown;) {
    const Deadline latest = soon();
    Instant renewed = registry_now();
    const auto kept = registry_->grant(kTime, soon());
    ASSERT_TRUE(kept) << kept.error().to_string();
    const auto left = registry_->grant(kTime, soon());
    ASSERT_TRUE(left) << left.error().to_string();
    bool late = false;
    for (const auto& [key, lease] :
         {std::pair("k/kept", kept->id), std::pair("l/left", left->id)}) {
      const Result<bool> put = registry_->commit({.puts = {{key, "1", lease}}}, soon());
      ASSERT_TRUE(put || held_up(put.error(), renewed, kTime)) << put.error().to_string();
      late |= !put;
    }
    while (!late && !all("l/").empty()) {
      ASSERT_LT(steady_now(), latest);
      const Instant begun = registry_now();
      const auto again = registry_->renew(kept->id, soon());
      ASSERT_TRUE(again || held_up(again.error(), renewed, kTime)) << again.error().to_string();
      late = !again;
      renewed = begun;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    const Map found = all();
    if (late || registry_now() >= renewed + kTime) continue;
    EXPECT_EQ(found, (Map{{"k/kept", "1"}}));
    shown = true;
  }
}

TEST_P(RegistryConformance, CountersOfManyWritersLoseNothing) {
  constexpr int kWriters = 4, kEach = 10;
  put("n", "0");
  std::atomic<int> refused{0};
  std::vector<std::thread> writers;
  for (int w = 0; w < kWriters; ++w) {
    writers.emplace_back([&] {
      const auto mine = open();
      for (int done = 0; done < kEach;) {
        const auto entry = mine->list("n", soon());
        ASSERT_TRUE(entry && entry->size() == 1);
        const std::string next = std::to_string(std::stoi((*entry)[0].value) + 1);
        const auto swapped = mine->commit(
            {.only_if = {{"n", (*entry)[0].version}}, .puts = {{"n", next}}}, soon());
        ASSERT_TRUE(swapped) << swapped.error().to_string();
        *swapped ? ++done : ++refused;
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(all()["n"], std::to_string(kWriters * kEach));
}

TEST_P(RegistryConformance, ImpossibleKeysAndValuesAreRefused) {
  for (const RegistryChange& bad :
       {RegistryChange{.puts = {{"", "x"}}}, RegistryChange{.puts = {{std::string(257, 'k'), "x"}}},
        RegistryChange{.puts = {{"k", std::string((1 << 20) + 1, 'x')}}},
        RegistryChange{.puts = {{"k", "x"}}, .removes = {"k"}},
        RegistryChange{.puts = {{"k", "x"}, {"k", "y"}}}, RegistryChange{.removes = {""}}}) {
    const auto answer = registry_->commit(bad, soon());
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code(), Code::kInvalidArgument);
  }
  put("k", std::string(1 << 20, '\xfe'));
  EXPECT_EQ(all()["k"].size(), size_t{1} << 20);
}

INSTANTIATE_TEST_SUITE_P(BackEnds, RegistryConformance, ::testing::Values("file", "etcd", "etcds"),
                         [](const auto& of) { return of.param; });

// --- what only one of them has ------------------------------------------------------------------

TEST(EtcdUrl, PartsAndDefaults) {
  const auto plain = parse_etcd_url("etcd://a,[::1]:99,10.0.0.1:2380");
  ASSERT_TRUE(plain) << plain.error().to_string();
  ASSERT_EQ(plain->hosts.size(), 3u);
  EXPECT_EQ(plain->hosts[0].name + " " + plain->hosts[0].port, "a 2379");
  EXPECT_EQ(plain->hosts[1].name + " " + plain->hosts[1].port, "::1 99");
  EXPECT_EQ(plain->prefix, "towline/");
  EXPECT_FALSE(plain->tls);
  const auto full = parse_etcd_url(
      "etcds://h:1/a/b/?ca=/etc/c%20a.pem&cert=c&key=k&user=me&password-file=/run/p%26w");
  ASSERT_TRUE(full) << full.error().to_string();
  EXPECT_TRUE(full->tls);
  EXPECT_EQ(full->prefix, "a/b/");
  EXPECT_EQ(full->ca, "/etc/c a.pem");
  EXPECT_EQ(full->cert + full->key + full->user, "ckme");
  EXPECT_EQ(full->password_file, "/run/p&w");
}

TEST(EtcdUrl, FaultsAreNamed) {
  const struct {
    const char *url, *says;
  } cases[] = {{"etcd://", "no proper hosts"},
               {"etcd://a:b/x", "no proper hosts"},
               {"etcd://a:70000", "no proper hosts"},
               {"etcd://[::1/x", "no proper hosts"},
               {"etcd://a/x?ca=f", "belong to etcds"},
               {"etcds://a/x?user=me", "go together"},
               {"etcds://a/x?cert=f", "go together"},
               {"etcds://a/x?cafile=f", "option 'cafile'"},
               {"etcds://a/x?ca", "no proper value"},
               {"etcds://a/x?ca=%4", "no proper value"},
               {"etcds://a/x?ca=/nowhere.pem", "/nowhere.pem"},
               {"etcd://a/x?user=me&password-file=/nowhere", "/nowhere"},
               {"http://a", "no registry"}};
  for (const auto& c : cases) {
    const auto opened = Registry::open(c.url);
    ASSERT_FALSE(opened) << c.url;
    EXPECT_NE(opened.error().to_string().find(c.says), std::string::npos)
        << opened.error().to_string();
  }
}

// What the registry's own messages cannot do: a POST to the gateway. -> the answer's first line
std::string post(const TestEtcd& etcd, const std::string& path, const std::string& body) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(etcd.port()));
  ::inet_pton(AF_INET, etcd.host().c_str(), &to.sin_addr);
  std::string answer;
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0) {
    const std::string request = format("POST /v3/{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
                                       "content-length: {}\r\n\r\n{}", path, body.size(), body);
    (void)!::write(fd, request.data(), request.size());
    char buffer[4096];
    for (ssize_t n = 0; (n = ::read(fd, buffer, sizeof(buffer))) > 0;) {
      answer.append(buffer, static_cast<size_t>(n));
    }
  }
  ::close(fd);
  return answer.substr(0, answer.find('\r'));
}

TEST(Registry, EtcdAsksForALogin) {
  if (TestEtcd::program() == nullptr) {
    GTEST_SKIP() << "no etcd here; apt-get install etcd-server to run this test";
  }
  TestEtcd etcd;
  for (const auto& [path, body] :
       {std::pair("auth/user/add", R"({"name":"root","password":"old rope"})"),
        {"auth/role/add", R"({"name":"root"})"},
        {"auth/user/grant", R"({"user":"root","role":"root"})"},
        {"auth/enable", "{}"}}) {
    ASSERT_EQ(post(etcd, path, body), "HTTP/1.1 200 OK") << path;
  }
  const std::string file = ::testing::TempDir() + format("towline-password-{}", ::getpid());
  const auto open = [&](const std::string& password) {
    std::ofstream(file) << password;
    return Registry::open(etcd.url() + "?user=root&password-file=" + file);
  };
  const auto stranger = (*Registry::open(etcd.url()))->list("", soon());
  ASSERT_FALSE(stranger);
  EXPECT_EQ(stranger.error().code(), Code::kPermissionDenied);
  const auto wrong = (*open("new rope\n"))->list("", soon());
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().code(), Code::kPermissionDenied) << wrong.error().to_string();
  const auto right = open("old rope\n");
  ASSERT_TRUE(*(*right)->commit({.puts = {{"k", "v", kNoLease}}}, soon()));
  // Its tokens end with it; the next call logs in again.
  etcd.kill();
  etcd.start();
  const auto entries = (*right)->list("", soon());
  ASSERT_TRUE(entries) << entries.error().to_string();
  EXPECT_EQ(entries->size(), 1u);
  std::filesystem::remove(file);
}

TEST(Registry, ACertificateOfSomebodyElseIsRefused) {
  if (TestEtcd::program() == nullptr) {
    GTEST_SKIP() << "no etcd here; apt-get install etcd-server to run this test";
  }
  const TestEtcd here(true), other(true);
  const auto mixed =
      Registry::open(format("etcds://{}/x?ca={}", here.member(), other.certificate()));
  ASSERT_TRUE(mixed) << mixed.error().to_string();
  const auto refused = (*mixed)->list("", soon());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kUnavailable);
  EXPECT_NE(refused.error().to_string().find("certificate"), std::string::npos)
      << refused.error().to_string();
  // TLS where none is spoken.
  const auto plain = Registry::open(format("etcd://{}/x", here.member()));
  EXPECT_FALSE((*plain)->list("", soon()));
  const auto right = Registry::open(here.url());
  EXPECT_TRUE((*right)->list("", soon()));
}

TEST(Registry, AUrlIsToldWhatIsWrongWithIt) {
  for (const char* bad : {"", "etcd", "etcd://", "etcd:///p", "etcd://:2379",
                          "etcd://h:", "etcd://h:x", "etcd://h:70000", "etcd://a,,b", "etcd://[::1",
                          "etcd://[::1]x", "file://", "file://rel", "zookeeper://h:1"}) {
    const auto opened = Registry::open(bad);
    ASSERT_FALSE(opened) << bad;
    EXPECT_EQ(opened.error().code(), Code::kInvalidArgument) << bad;
    EXPECT_NE(opened.error().to_string().find(bad), std::string::npos) << bad;
  }
  for (const char* good :
       {"etcd://h", "etcd://h:1", "etcd://a:1,b,[::1]:3/some/prefix/", "file:///x/"}) {
    EXPECT_TRUE(Registry::open(good)) << good;
  }
}

TEST(Registry, ASilentEtcdIsUnavailableInBoundedTimeAndComesBack) {
  if (TestEtcd::program() == nullptr) GTEST_SKIP() << "no etcd here; apt-get install etcd-server";
  TestEtcd etcd;
  // The first member is nobody; the second answers.
  const auto registry = Registry::open(format("etcd://127.0.0.1:1,{}/x", etcd.member()));
  ASSERT_TRUE(registry);
  const RegistryChange change{.puts = {{"k", "v", kNoLease}}};
  const auto put = (*registry)->commit(change, soon());
  ASSERT_TRUE(put) << put.error().to_string();
  etcd.pause();
  const auto silent = (*registry)->list("", deadline_in(milliseconds(300)));
  ASSERT_FALSE(silent);
  EXPECT_TRUE(silent.error().code() == Code::kDeadline ||
              silent.error().code() == Code::kUnavailable);
  etcd.resume();
  EXPECT_TRUE((*registry)->list("", soon()));
  etcd.kill();
  const auto dead = (*registry)->list("", soon());
  ASSERT_FALSE(dead);
  EXPECT_EQ(dead.error().code(), Code::kUnavailable);
  etcd.start();
  const auto again = (*registry)->list("", soon());
  ASSERT_TRUE(again) << again.error().to_string();
  ASSERT_EQ(again->size(), 1u);
  EXPECT_EQ((*again)[0].value, "v");
}

TEST(Registry, WhoWaitsForTheFolderGetsItOrHearsWhy) {
  const std::string folder = ::testing::TempDir() + format("towline-registry-held-{}", ::getpid());
  std::filesystem::create_directories(folder);
  const auto registry = Registry::open("file://" + folder);
  const RegistryChange change{.puts = {{"k", "v", kNoLease}}};
  const auto hold = [&] {
    const int fd = ::open((folder + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    EXPECT_EQ(::flock(fd, LOCK_EX), 0);
    return fd;
  };
  // By another process that does not let it go: an error, at the deadline.
  int held = hold();
  const auto silent = (*registry)->commit(change, deadline_in(milliseconds(30)));
  ASSERT_FALSE(silent);
  EXPECT_EQ(silent.error().code(), Code::kDeadline);
  EXPECT_NE(silent.error().message().find(folder), std::string::npos);
  // By one that does, in order or not (a kill closes before it unlocks), while we wait for it.
  for (const bool in_order : {true, false}) {
    std::thread holder([&] {
      if (in_order) ::flock(held, LOCK_UN);
      ::close(held);
    });
    const auto done = (*registry)->commit(change, soon());
    EXPECT_TRUE(done) << done.error().to_string();
    holder.join();
    held = hold();
  }
  ::close(held);
  std::filesystem::remove_all(folder);
}

TEST(Registry, ADamagedFileIsNamed) {
  const std::string folder = ::testing::TempDir() + format("towline-registry-bad-{}", ::getpid());
  std::filesystem::create_directories(folder);
  const auto registry = Registry::open("file://" + folder);
  for (const char* text :
       {"", "{", "[]", "{\"format\":\"towline-registry\",\"schema\":2}",
        "{\"format\":\"towline-registry\",\"schema\":1,\"entries\":[{\"key\":\"?\"}]}",
        "{\"format\":\"towline-registry\",\"schema\":1,\"entries\":[{\"key\":\"YQ==\"}]}",
        // Numbers at their ends, to which nothing can be added.
        "{\"format\":\"towline-registry\",\"schema\":1,\"revision\":9223372036854775807}",
        "{\"format\":\"towline-registry\",\"schema\":1,\"last_lease\":9223372036854775807}",
        "{\"format\":\"towline-registry\",\"schema\":1,\"last_lease\":-1}"}) {
    std::ofstream(folder + "/registry.json") << text;
    const auto answer = (*registry)->commit({.puts = {{"k", "v", kNoLease}}}, soon());
    ASSERT_FALSE(answer) << text;
    EXPECT_EQ(answer.error().code(), Code::kDataCorrupt);
    EXPECT_NE(answer.error().to_string().find(folder), std::string::npos);
  }
  std::filesystem::remove_all(folder);
}

TEST(Registry, AFileThatCannotBeWrittenIsUnavailable) {
  const auto registry = Registry::open("file:///proc/towline-registry");
  const auto answer = (*registry)->commit({.puts = {{"k", "v", kNoLease}}}, soon());
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code(), Code::kUnavailable);
}

TEST(EtcdReply, ErrorsKeepTheirMeaning) {
  const auto code = [](int status, const char* body) { return etcd_error(status, body).code(); };
  EXPECT_EQ(code(404, R"({"error":"etcdserver: requested lease not found","code":5})"),
            Code::kNotFound);
  EXPECT_EQ(code(404, "Not Found"), Code::kUnsupported);
  EXPECT_EQ(code(503, R"({"error":"etcdserver: no leader","code":14})"), Code::kUnavailable);
  EXPECT_EQ(code(400, R"({"error":"etcdserver: user name is empty","code":3})"),
            Code::kPermissionDenied);
  EXPECT_EQ(code(401, R"({"error":"x","code":16})"), Code::kPermissionDenied);
  EXPECT_EQ(code(429, R"({"error":"etcdserver: mvcc: database space exceeded","code":8})"),
            Code::kExhausted);
}

TEST(EtcdReply, WhatIsNoAnswerIsRefused) {
  for (const char* body :
       {"", "null", "[]", R"({"kvs":[{"key":"eA=="}]})",
        R"({"kvs":[{"key":"cC9h","mod_revision":"x"}]})",
        R"({"kvs":[{"key":"!","mod_revision":"1"}]})",
        R"({"kvs":[{"key":"cC9i","mod_revision":"1"},{"key":"cC9h","mod_revision":"1"}]})",
        R"({"kvs":[{"key":"cC9h","mod_revision":"1"}],"more":true})"}) {
    EXPECT_FALSE(read_etcd_range(body, "p/")) << body;
  }
  EXPECT_FALSE(read_etcd_txn("{}"));
  EXPECT_FALSE(read_etcd_grant(R"({"ID":"1","TTL":"9223372036854775807"})"));
  EXPECT_EQ(read_etcd_renewal(R"({"result":{"ID":"7"}})").error().code(), Code::kNotFound);
  EXPECT_EQ(read_etcd_renewal(R"({"error":"x"})").error().code(), Code::kDataCorrupt);
}

}  // namespace
}  // namespace towline::net
