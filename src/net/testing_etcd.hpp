// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Debian's etcd as a child process, with its data in a temporary folder. Test code.
//
// It listens on an address of this machine that is this process's own (127.0.0.0/8 is all ours):
// a free port of 127.0.0.1 could be somebody else's by the time etcd takes it, or while it is down.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "base/fmt.hpp"
#include "net/registry.hpp"

namespace towline::net {

class TestEtcd {
 public:
  static const char* program() {
    for (const char* path : {"/usr/bin/etcd", "/usr/local/bin/etcd"}) {
      if (::access(path, X_OK) == 0) return path;
    }
    return nullptr;
  }

  // `tls`: with a certificate that it makes for itself.
  explicit TestEtcd(bool tls = false) : tls_(tls) {
    static int count = 0;
    folder_ = ::testing::TempDir() + format("towline-etcd-{}-{}", ::getpid(), ++count);
    const pid_t pid = ::getpid();
    host_ = format("127.{}.{}.{}", 64 + (pid >> 16) % 64, (pid >> 8) % 256, pid % 256);
    port_ = 2379 + 2 * count;
    start();
  }
  ~TestEtcd() {
    kill();
    std::filesystem::remove_all(folder_);
  }
  TestEtcd(const TestEtcd&) = delete;
  TestEtcd& operator=(const TestEtcd&) = delete;

  // On the same ports and data; waits until it answers.
  void start() {
    const std::string client = format("{}://{}:{}", tls_ ? "https" : "http", host_, port_);
    const std::string peer = format("http://{}:{}", host_, port_ + 1);
    std::vector<std::string> words = {
        "etcd", "--data-dir", folder_, "--listen-client-urls", client, "--advertise-client-urls",
        client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
        "--initial-cluster", "default=" + peer, "--log-level", "fatal",
        "--bcrypt-cost", "4"};
    if (tls_) words.push_back("--auto-tls");
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    const pid_t parent = ::getpid();
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      const int null = ::open("/dev/null", O_RDWR);
      ::dup2(null, STDOUT_FILENO);
      ::dup2(null, STDERR_FILENO);
      if (::getppid() == parent) ::execv(program(), argv.data());
      ::_exit(127);
    }
    const Deadline latest = deadline_in(seconds(300));
    while (!answers() && steady_now() < latest) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  // All of its threads stand when this returns.
  void pause() const {
    ::kill(pid_, SIGSTOP);
    int status = 0;
    ::waitpid(pid_, &status, WUNTRACED);
  }
  void resume() const { ::kill(pid_, SIGCONT); }

  std::string url(const std::string& prefix = "test") const {
    return tls_ ? format("etcds://{}:{}/{}?ca={}", host_, port_, prefix, certificate())
                : format("etcd://{}:{}/{}", host_, port_, prefix);
  }
  std::string member() const { return format("{}:{}", host_, port_); }
  std::string certificate() const { return folder_ + "/fixtures/client/cert.pem"; }
  const std::string& host() const { return host_; }
  int port() const { return port_; }

 private:
  // Anything at all, be it that one has to log in.
  bool answers() const {
    const auto registry = Registry::open(url());  // its certificate may not be there yet
    if (!registry) return false;
    const auto list = (*registry)->list("", deadline_in(seconds(10)));
    return list || list.error().code() == Code::kPermissionDenied;
  }

  const bool tls_;
  std::string folder_, host_;
  int port_ = 0;  // for clients; the next one is for peers
  pid_t pid_ = -1;
};

}  // namespace towline::net
