// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/rank_team.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>

#include "base/fmt.hpp"
#include "base/options.hpp"

extern char** environ;

namespace towline::worker {
namespace {

constexpr Duration kGrace = seconds(2);  // for leaving, and again after SIGTERM

std::string how_it_ended(const siginfo_t& info) {
  if (info.si_code == CLD_EXITED) return format("ended with status {}", info.si_status);
  const char* name = ::sigabbrev_np(info.si_status);
  return format("was killed by signal {} (SIG{})", info.si_status, name != nullptr ? name : "?");
}

int millis_until(Instant deadline) {
  if (deadline == kNever) return -1;
  const int64_t ns = (deadline - net::steady_now()).value;
  return ns <= 0 ? 0 : static_cast<int>(ns / 1'000'000 + 1);
}

}  // namespace

Result<std::unique_ptr<RankTeam>> RankTeam::start(RankTeamOptions options) {
  if (options.ranks < 1 || options.stages < 1 || options.first < 0 ||
      options.first > (options.stages == 1 ? options.ranks : 0) ||
      options.ranks > net::kMaxRingReaders / options.stages) {
    return errorf(Code::kInvalidArgument, "{} stages of {} ranks, from {} on, cannot be started",
                  options.stages, options.ranks, options.first);
  }
  std::unique_ptr<RankTeam> team(new RankTeam(std::move(options)));
  TRY(team->open_rings());
  if (team->readers() == 0) return team;
  if (!team->options_.processes) {
    team->start_threads();
    return team;
  }
  team->wake_fd_ = ::eventfd(0, EFD_CLOEXEC);
  if (team->wake_fd_ < 0) return errorf(Code::kIo, "eventfd: {}", ::strerror(errno));
  team->pids_ = std::vector<std::atomic<pid_t>>(static_cast<size_t>(team->readers()));
  team->watcher_ = std::thread([t = team.get()] { t->watch(); });
  team->started_.wait(0);
  if (team->start_error_) return *team->start_error_;
  return team;
}

Result<void> RankTeam::open_rings() {
  net::RingOptions ring = options_.ring;
  ring.readers = std::max(readers(), 1);
  ASSIGN_OR_RETURN(steps_, net::RingWriter::create(ring));
  ring.slots = 4;
  ring.arena_bytes = 1 << 20;
  ring.return_bytes = 64 << 10;
  ring.wait.yield_for = Duration(0);
  ASSIGN_OR_RETURN(calls_, net::RingWriter::create(ring));
  for (int32_t s = 0; s < options_.stages && options_.collective_floats > 0; ++s) {
    ASSIGN_OR_RETURN(ShmCollectiveRegion region,
                     ShmCollectiveRegion::create(options_.ranks, options_.collective_floats));
    regions_.push_back(std::move(region));
  }
  ring = options_.ring;
  ring.readers = options_.ranks;
  ring.slots = options_.ring.slots * 2;  // one message a frame; the first stage may let some lie
  ring.return_bytes = 64;                // nobody answers on an edge
  for (int32_t s = 0; s < options_.stages && options_.stages > 1; ++s) {
    ASSIGN_OR_RETURN(edges_.emplace_back(), net::RingWriter::create(ring));
  }
  return {};
}

RankPlace RankTeam::place_of(int32_t reader) const {
  RankPlace place;
  const int32_t at = options_.first + reader;
  place.rank = at % options_.ranks;
  place.of = options_.ranks;
  place.stage = at / options_.ranks;
  place.stages = options_.stages;
  place.node = options_.node;
  place.collective_fd = collective_fd(place.stage);
  return place;
}

int RankTeam::collective_fd(int32_t stage) const {
  return regions_.empty() ? -1 : regions_[static_cast<size_t>(stage)].fd();
}

net::RingWriter* RankTeam::edge_into(int32_t stage) const {
  if (edges_.empty()) return nullptr;
  return edges_[static_cast<size_t>((stage + options_.stages - 1) % options_.stages)].get();
}

net::RingWriter* RankTeam::edge_out_of(const RankPlace& place) const {
  if (edges_.empty() || place.rank != 0) return nullptr;
  return edges_[static_cast<size_t>(place.stage)].get();
}

RankTeam::~RankTeam() { stop(); }

std::optional<std::string> RankTeam::death() const {
  if (!died_.load(std::memory_order_acquire)) return std::nullopt;
  return death_;
}

pid_t RankTeam::pid(int32_t reader) const {
  return static_cast<size_t>(reader) < pids_.size() ? pids_[static_cast<size_t>(reader)].load() : -1;
}

void RankTeam::abort_waits() {
  for (ShmCollectiveRegion& region : regions_) region.abort();
  for (const auto& edge : edges_) edge->close();
  for (const auto& loop : loops_) loop->abort();
}

void RankTeam::stop() {
  stopping_ = true;
  if (steps_) steps_->close();
  if (calls_) calls_->close();
  for (const auto& edge : edges_) edge->close();
  if (!threads_.empty()) {
    abort_waits();  // a run that hangs would be waited for
    for (std::thread& t : threads_) t.join();
    threads_.clear();
    loops_.clear();
  }
  if (watcher_.joinable()) {
    const uint64_t one = 1;
    while (::write(wake_fd_, &one, sizeof(one)) < 0 && errno == EINTR) {
    }
    watcher_.join();
  }
  if (wake_fd_ >= 0) ::close(std::exchange(wake_fd_, -1));
}

// --- threads ------------------------------------------------------------------------------------

void RankTeam::start_threads() {
  for (int32_t i = 0; i < readers(); ++i) {
    const RankPlace place = place_of(i);
    StageLink link;
    if (net::RingWriter* const input = edge_into(place.stage)) {
      const auto output = place.rank == 0 ? edges_[static_cast<size_t>(place.stage)] : nullptr;
      link = StageLink(input->reader(place.rank), output, options_.ring.slots);
    }
    loops_.push_back(std::make_unique<RankLoop>(
        RankRings{steps_->reader(i), calls_->reader(i), std::move(link)}, place, options_.factory,
        options_.notify));
    threads_.emplace_back([loop = loops_.back().get()] { loop->run(); });
    threads_.emplace_back([loop = loops_.back().get()] { loop->serve_calls(); });
  }
}

// --- processes ----------------------------------------------------------------------------------

Result<RankTeam::Child> RankTeam::spawn(int32_t reader) const {
  std::vector<std::string> words = {options_.program};
  words.insert(words.end(), options_.arguments.begin(), options_.arguments.end());
  const auto add = [&](const char* name, int64_t value) {
    words.push_back(format("--{}={}", name, value));
  };
  const RankPlace place = place_of(reader);
  const net::RingWriter* const input = edge_into(place.stage);
  const net::RingWriter* const output = edge_out_of(place);
  const int fds[] = {steps_->fd(), calls_->fd(), place.collective_fd,
                     input != nullptr ? input->fd() : -1, output != nullptr ? output->fd() : -1};
  add("steps-fd", fds[0]);
  add("calls-fd", fds[1]);
  add("collective-fd", fds[2]);
  add("input-fd", fds[3]);
  add("output-fd", fds[4]);
  add("slots", options_.ring.slots);
  add("reader", reader);
  add("rank", place.rank);
  add("of", place.of);
  add("stage", place.stage);
  add("stages", place.stages);
  add("node", place.node);
  add("parent", ::getpid());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawnattr_init(&attributes);
  // A descriptor copied onto itself loses close-on-exec, in the child alone.
  for (const int fd : fds) {
    if (fd >= 0) ::posix_spawn_file_actions_adddup2(&files, fd, fd);
  }
  // A process group of its own: Ctrl-C is for the node, which then closes the rings.
  sigset_t none;
  ::sigemptyset(&none);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setpgroup(&attributes, 0);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
  Child child;
  const int failed = ::posix_spawn(&child.pid, options_.program.c_str(), &files, &attributes,
                                   argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&files);
  ::posix_spawnattr_destroy(&attributes);
  if (failed != 0) {
    return errorf(Code::kIo, "starting rank {} ({}): {}", options_.first + reader,
                  options_.program, ::strerror(failed));
  }
  child.pidfd = static_cast<int>(::syscall(SYS_pidfd_open, child.pid, 0));
  if (child.pidfd < 0) {
    Error error = errorf(Code::kIo, "pidfd_open: {}", ::strerror(errno));
    ::kill(child.pid, SIGKILL);
    ::waitpid(child.pid, nullptr, 0);
    return error;
  }
  ::fcntl(child.pidfd, F_SETFD, FD_CLOEXEC);
  return child;
}

Result<void> RankTeam::start_children() {
  for (int32_t r = 0; r < readers(); ++r) {
    ASSIGN_OR_RETURN(const Child child, spawn(r));
    children_.push_back(child);
    pids_[static_cast<size_t>(r)].store(child.pid);
  }
  return {};
}

void RankTeam::signal_all(int signal_number) {
  for (const Child& child : children_) {
    if (!child.ended) ::kill(child.pid, signal_number);
  }
}

// The child has ended: takes its status, and tells everybody if nobody asked it to.
void RankTeam::reap(size_t reader) {
  Child& child = children_[reader];
  siginfo_t info{};
  if (::waitid(P_PIDFD, static_cast<id_t>(child.pidfd), &info, WEXITED) != 0) return;
  child.ended = true;
  ::close(std::exchange(child.pidfd, -1));
  if (stopping_) return;
  if (!died_) {
    death_ = format("rank {} (pid {}) {}", options_.first + static_cast<int32_t>(reader), child.pid,
                    how_it_ended(info));
    died_.store(true, std::memory_order_release);
  }
  // Its siblings leave the collective that they may be in, and other stages their wait for this one.
  for (ShmCollectiveRegion& region : regions_) region.abort();
  for (const auto& edge : edges_) edge->close();
  steps_->mark_dead(static_cast<int>(reader));
  calls_->mark_dead(static_cast<int>(reader));
  if (options_.notify) options_.notify();
}

void RankTeam::watch() {
  if (Result<void> spawned = start_children(); !spawned) {
    start_error_ = std::move(spawned).error();
    stopping_ = true;
    steps_->close();
    calls_->close();
  }
  started_.store(1);
  started_.notify_all();
  constexpr std::array kLadder = {SIGTERM, SIGKILL};
  size_t rung = 0;
  Instant next_rung = kNever;
  for (;;) {
    std::vector<pollfd> fds;
    std::vector<size_t> whose;
    for (size_t r = 0; r < children_.size(); ++r) {
      if (children_[r].ended) continue;
      fds.push_back({children_[r].pidfd, POLLIN, 0});
      whose.push_back(r);
    }
    if (stopping_ && fds.empty()) return;
    if (stopping_ && next_rung == kNever && rung == 0) next_rung = net::steady_now() + kGrace;
    if (!stopping_) fds.push_back({wake_fd_, POLLIN, 0});
    const int ready = ::poll(fds.data(), fds.size(), millis_until(next_rung));
    for (size_t i = 0; i < whose.size() && ready > 0; ++i) {
      if (fds[i].revents != 0) reap(whose[i]);
    }
    if (next_rung != kNever && net::steady_now() >= next_rung) {
      signal_all(kLadder[rung]);
      next_rung = ++rung < kLadder.size() ? net::steady_now() + kGrace : kNever;
    }
  }
}

}  // namespace towline::worker
