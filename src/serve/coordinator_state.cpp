// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/coordinator_state.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <set>
#include <utility>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "base/json.hpp"
#include "base/log.hpp"

namespace towline::serve {
namespace {

constexpr int64_t kLargestFile = 16 << 20;
constexpr int64_t kEpochEnd = int64_t{1} << 32;  // frames carry it in 32 bits
constexpr size_t kKept = 8;                      // incarnations of a node
constexpr size_t kMostNodes = 65536;
constexpr auto kTryAgain = std::chrono::seconds(5);

}  // namespace

void CoordinatorMemory::note(const std::string& name, uint64_t incarnation) {
  auto node = std::ranges::find(nodes, name, &Node::name);
  if (node == nodes.end()) {
    if (nodes.size() >= kMostNodes) return;
    node = nodes.insert(nodes.end(), Node{name, {}});
  }
  std::vector<uint64_t>& known = node->incarnations;
  std::erase(known, incarnation);
  known.push_back(incarnation);
  if (known.size() > kKept) known.erase(known.begin());
}

std::string CoordinatorMemory::dump() const {
  Json list = Json::array();
  for (const Node& node : nodes) {
    Json incarnations = Json::array();
    for (const uint64_t incarnation : node.incarnations) {
      incarnations.push(format("{:016x}", incarnation));
    }
    list.push(Json::object({{"name", node.name}, {"incarnations", incarnations}}));
  }
  return Json::object({{"format", "towline-coordinator"},
                       {"schema", 1},
                       {"epoch", epoch},
                       {"nodes", list}})
             .dump(2) + "\n";
}

Result<CoordinatorMemory> CoordinatorMemory::parse(std::string_view text) {
  const auto bad = [](const std::string& why) { return Error(Code::kDataCorrupt, why); };
  const Result<Json> json = parse_json(text, "coordinator.json");
  if (!json) return bad(json.error().to_string());
  if ((*json)["format"].as_string() != "towline-coordinator" || (*json)["schema"].as_int() != 1) {
    return bad("it is no coordinator's state of schema 1");
  }
  CoordinatorMemory memory;
  memory.epoch = (*json)["epoch"].is_int() ? (*json)["epoch"].as_int() : -1;
  if (memory.epoch < 0 || memory.epoch >= kEpochEnd) return bad("it has no proper epoch");
  if (!(*json)["nodes"].is_array()) return bad("it has no list of nodes");
  std::set<std::string> names;
  for (const Json& entry : (*json)["nodes"].items()) {
    Node node;
    node.name = entry["name"].as_string();
    if (node.name.empty() || !names.insert(node.name).second || names.size() > kMostNodes) {
      return bad(
          format("the name '{}' of a node is empty or there twice", node.name.substr(0, 64)));
    }
    for (const Json& word : entry["incarnations"].items()) {
      const std::string& digits = word.as_string();
      const char* end = digits.data() + digits.size();
      uint64_t incarnation = 0;
      const auto [at, failed] = std::from_chars(digits.data(), end, incarnation, 16);
      if (failed != std::errc() || at != end) {
        return bad(format("an incarnation of node '{}' is no number", node.name.substr(0, 64)));
      }
      node.incarnations.push_back(incarnation);
    }
    if (node.incarnations.size() > kKept) return bad("a node has too many incarnations");
    memory.nodes.push_back(std::move(node));
  }
  return memory;
}

Result<std::unique_ptr<CoordinatorState>> CoordinatorState::open(const std::string& folder) {
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) {
    return errorf(Code::kIo, "the state folder '{}' cannot be made: {}", folder, failed.message());
  }
  const std::string lock_path = folder + "/lock";
  const int lock = ::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock < 0) {
    return errorf(Code::kIo, "the state folder '{}' cannot be used: {}", folder,
                  std::strerror(errno));
  }
  if (::flock(lock, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock);
    return errorf(Code::kUnavailable,
                  "another coordinator uses the state folder '{}'; each needs its own",
                  folder);
  }
  CoordinatorMemory past;
  const Result<std::string> text = read_file(folder + "/coordinator.json", kLargestFile);
  Result<CoordinatorMemory> read = past;
  if (text) {
    read = CoordinatorMemory::parse(*text);
  } else if (text.error().code() != Code::kNotFound) {
    read = text.error();
  }
  if (!read) {
    ::close(lock);
    return errorf(read.error().code(), "'{}/coordinator.json' cannot be used: {}. Put a good copy "
                  "there; or, if no worker of this cluster runs any more, remove it", folder,
                  read.error().to_string());
  }
  return std::unique_ptr<CoordinatorState>(
      new CoordinatorState(folder, lock, std::move(read).value()));
}

CoordinatorState::CoordinatorState(std::string folder, int lock, CoordinatorMemory past)
    : folder_(std::move(folder)), lock_(lock), past_(std::move(past)), now_(past_) {
  thread_ = std::thread([this] { write(); });
}

CoordinatorState::~CoordinatorState() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
  ::close(lock_);
}

Result<void> CoordinatorState::begin(int64_t epoch) {
  const std::lock_guard lock(mutex_);
  if (epoch >= kEpochEnd) return Error(Code::kExhausted, "the epochs of this state are used up");
  now_.epoch = epoch;
  return write_file_atomic(file(), now_.dump()).context("writing the coordinator's state");
}

void CoordinatorState::note(const std::string& name, uint64_t incarnation) {
  {
    const std::lock_guard lock(mutex_);
    now_.note(name, incarnation);
    dirty_ = true;
  }
  changed_.notify_all();
}

void CoordinatorState::write() {
  std::unique_lock lock(mutex_);
  bool failing = false;
  for (;;) {
    changed_.wait(lock, [this] { return stop_ || dirty_; });
    if (!dirty_) return;
    dirty_ = false;
    const std::string text = now_.dump();
    lock.unlock();
    const Result<void> written = write_file_atomic(file(), text);
    lock.lock();
    if (written) {
      if (failing) log_info("cluster", "the state is on disk again", {{"file", file()}});
      failing = false;
      continue;
    }
    if (!failing) {
      log_warn("cluster", "the state cannot be written; the cluster goes on, and a restart would "
               "not know the newest nodes", {{"why", written.error().to_string()}});
    }
    failing = true;
    if (stop_) return;
    dirty_ = true;
    changed_.wait_for(lock, kTryAgain, [this] { return stop_; });
  }
}

}  // namespace towline::serve
