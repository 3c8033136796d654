// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/worker_start.hpp"

#include <arpa/inet.h>
#include <malloc.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fmt.hpp"
#include "cli/stop_signals.hpp"

namespace towline::cli {
namespace {

// A free port on the interface from which packets to the coordinator leave: what other machines
// reach if the coordinator does. Empty (the agent's own default) where that cannot be told.
std::string listen_towards(const std::string& coordinator) {
  if (coordinator.starts_with("shm://")) return format("shm://towline-worker-{}", ::getpid());
  const size_t scheme = coordinator.find("://"), port = coordinator.rfind(':');
  if (scheme == std::string::npos || port <= scheme) return {};
  addrinfo hints{};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  const std::string host = coordinator.substr(scheme + 3, port - scheme - 3);
  if (::getaddrinfo(host.c_str(), coordinator.c_str() + port + 1, &hints, &found) != 0) return {};
  std::string out;
  sockaddr_in here{};
  socklen_t size = sizeof(here);
  // Connecting a datagram socket sends nothing: it only chooses the way.
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  char text[INET_ADDRSTRLEN] = {};
  if (fd >= 0 && ::connect(fd, found->ai_addr, found->ai_addrlen) == 0 &&
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&here), &size) == 0 &&
      ::inet_ntop(AF_INET, &here.sin_addr, text, sizeof(text)) != nullptr) {
    out = format("{}{}:0", coordinator.substr(0, scheme + 3), text);
  }
  if (fd >= 0) ::close(fd);
  ::freeaddrinfo(found);
  return out;
}

}  // namespace

Result<int> run_worker(WorkerStart start) {
  // Ctrl-C reaches the whole group: a parent ends the cluster in order.
  if (start.parent > 0) ::signal(SIGINT, SIG_IGN);
  const StopSignals stop =
      start.parent > 0 ? StopSignals({SIGTERM}) : StopSignals({SIGTERM, SIGINT});
  // Activations are megabytes that come and go a hundred times a second: memory that the allocator
  // gives back to the system each time costs more than what is done with it.
  ::mallopt(M_MMAP_MAX, 0);
  ::mallopt(M_TRIM_THRESHOLD, 1 << 30);
  ::mallopt(M_ARENA_MAX, 1);
  if (start.parent > 0) {
    // The kernel kills this process when its parent dies; if it died before this call, it did.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != start.parent) return Error(Code::kCancelled, "the parent process has gone");
  }
  start.agent.listen_towards = listen_towards;
  TRY(worker::run_node(start.agent, stop.token()));
  return 0;
}

}  // namespace towline::cli
