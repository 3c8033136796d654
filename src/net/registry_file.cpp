// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The file back end of net::Registry. FOLDER/registry.json holds everything; whoever changes it
// holds a lock (flock) on FOLDER/lock and replaces the file as a whole, so that readers need no
// lock. Leases end at a time of the machine's clock since boot, which all its processes share; a
// file of an earlier boot has no living leases.
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>

#include "base/base64.hpp"
#include "base/file.hpp"
#include "base/fmt.hpp"
#include "base/json.hpp"
#include "net/registry.hpp"

namespace towline::net {
namespace {

constexpr int64_t kLargestFile = int64_t{64} << 20;
constexpr size_t kMostLeases = 4096;
constexpr int64_t kMostChanges = int64_t{1} << 60;  // and leases ever granted
constexpr Duration kLongestLease = seconds(int64_t{1} << 30);

struct Held {                       // a lease
  Duration time;
  Instant until;                    // on registry_now()'s clock
};
struct Stored {
  std::string value;
  int64_t version = 0;
  LeaseId lease = kNoLease;
};
struct Contents {
  int64_t revision = 0, last_lease = 0;
  std::map<LeaseId, Held> leases;
  std::map<std::string, Stored> entries;

  void drop(LeaseId lease) {
    leases.erase(lease);
    std::erase_if(entries, [&](const auto& entry) { return entry.second.lease == lease; });
  }
  void expire(Instant now) {
    std::vector<LeaseId> over;
    for (const auto& [id, lease] : leases) {
      if (now >= lease.until) over.push_back(id);
    }
    for (const LeaseId id : over) drop(id);
  }
};

std::string boot_id() {
  const Result<std::string> text = read_file("/proc/sys/kernel/random/boot_id", 256);
  return text ? text->substr(0, text->find('\n')) : std::string();
}

// Wakes when somebody closes a file that he had open for writing, as who lets a lock go does.
class CloseWatch {
 public:
  explicit CloseWatch(const std::string& path) : fd_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {
    if (fd_ >= 0) ::inotify_add_watch(fd_, path.c_str(), IN_CLOSE_WRITE);
  }
  ~CloseWatch() {
    if (fd_ >= 0) ::close(fd_);
  }
  CloseWatch(const CloseWatch&) = delete;
  CloseWatch& operator=(const CloseWatch&) = delete;

  // Also returns now and then without a reason (kNap), sooner where no watch could be made.
  void wait(Deadline deadline) const {
    const Duration nap = std::min(deadline - steady_now(), fd_ >= 0 ? kNap : kShortNap);
    pollfd watched{fd_, POLLIN, 0};  // a negative descriptor is left out
    if (::poll(&watched, 1, static_cast<int>(nap.value / 1'000'000) + 1) <= 0) return;
    alignas(inotify_event) char events[4096];
    while (::read(fd_, events, sizeof events) > 0) {
    }
  }

 private:
  // A holder that is killed closes its file a moment before it lets the lock go.
  static constexpr Duration kNap = milliseconds(100), kShortNap = milliseconds(10);
  int fd_;
};

class FolderLock {
 public:
  static Result<FolderLock> take(const std::string& path, Deadline deadline) {
    FolderLock lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    if (lock.fd_ < 0) {
      return errorf(Code::kUnavailable, "the registry's lock '{}' cannot be opened: {}", path,
                    std::strerror(errno));
    }
    std::optional<CloseWatch>
        watch;  // once it is known to be held: it must be there before we look
    while (::flock(lock.fd_, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK && errno != EINTR) {
        return errorf(Code::kUnavailable, "the registry's lock '{}' cannot be taken: {}", path,
                      std::strerror(errno));
      }
      if (steady_now() >= deadline) {
        return errorf(Code::kDeadline, "another process holds the registry's lock '{}'", path);
      }
      watch ? watch->wait(deadline) : static_cast<void>(watch.emplace(path));
    }
    return lock;
  }
  FolderLock(FolderLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FolderLock& operator=(FolderLock&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FolderLock() {
    if (fd_ < 0) return;
    ::flock(fd_, LOCK_UN);  // before the close, which wakes those that wait
    ::close(fd_);
  }

 private:
  explicit FolderLock(int fd) : fd_(fd) {}
  int fd_;
};

class FileRegistry final : public Registry {
 public:
  FileRegistry(std::string url, std::string folder)
      : Registry(std::move(url)), folder_(std::move(folder)), boot_(boot_id()) {}

  Result<std::vector<RegistryEntry>> list(std::string_view prefix, Deadline) override {
    ASSIGN_OR_RETURN(const Contents contents, read());
    std::vector<RegistryEntry> found;
    for (auto at = contents.entries.lower_bound(std::string(prefix));
         at != contents.entries.end() && at->first.starts_with(prefix); ++at) {
      found.push_back({at->first, at->second.value, at->second.version});
    }
    return found;
  }

  Result<bool> commit(const RegistryChange& change, Deadline deadline) override {
    TRY(check_change(change));
    return alter<bool>(deadline, [&](Contents& contents) -> Result<bool> {
      for (const RegistryChange::Condition& condition : change.only_if) {
        const auto at = contents.entries.find(condition.key);
        if ((at == contents.entries.end() ? 0 : at->second.version) != condition.version) {
          return false;
        }
      }
      for (const RegistryChange::Put& put : change.puts) {
        if (put.lease != kNoLease && !contents.leases.contains(put.lease)) return ended(put.lease);
      }
      ++contents.revision;
      for (const std::string& key : change.removes) contents.entries.erase(key);
      for (const RegistryChange::Put& put : change.puts) {
        contents.entries[put.key] = {put.value, contents.revision, put.lease};
      }
      return true;
    });
  }

  Result<Lease> grant(Duration time, Deadline deadline) override {
    if (time < Duration(0) || time > kLongestLease) {
      return errorf(Code::kInvalidArgument, "a lease of {} s is not possible; 0 to {} s are",
                    to_seconds(time), to_seconds(kLongestLease));
    }
    return alter<Lease>(deadline, [&](Contents& contents) -> Result<Lease> {
      if (contents.leases.size() >= kMostLeases) {
        return errorf(Code::kExhausted, "{} holds {} leases, which is the most", url(),
                      kMostLeases);
      }
      const LeaseId id(++contents.last_lease);
      contents.leases[id] = {time, registry_now() + time};
      return Lease{id, time};
    });
  }

  Result<Lease> renew(LeaseId lease, Deadline deadline) override {
    return alter<Lease>(deadline, [&](Contents& contents) -> Result<Lease> {
      const auto at = contents.leases.find(lease);
      if (at == contents.leases.end()) return ended(lease);
      at->second.until = registry_now() + at->second.time;
      return Lease{lease, at->second.time};
    });
  }

  Result<void> revoke(LeaseId lease, Deadline deadline) override {
    ASSIGN_OR_RETURN(const bool done,
                     alter<bool>(deadline, [&](Contents& contents) -> Result<bool> {
                       if (!contents.leases.contains(lease)) return ended(lease);
                       contents.drop(lease);
                       return true;
                     }));
    (void)done;
    return {};
  }

 private:
  static Error ended(LeaseId lease) {
    return errorf(Code::kNotFound, "lease {} has ended", lease.value);
  }

  std::string file() const { return folder_ + "/registry.json"; }

  // Under the lock. The file is written if `change` makes a value that is not false.
  template <class T, class Change>
  Result<T> alter(Deadline deadline, Change&& change) {
    std::error_code failed;
    std::filesystem::create_directories(folder_, failed);
    if (failed) {
      return errorf(Code::kUnavailable, "the registry's folder '{}' cannot be made: {}", folder_,
                    failed.message());
    }
    ASSIGN_OR_RETURN(const FolderLock lock, FolderLock::take(folder_ + "/lock", deadline));
    ASSIGN_OR_RETURN(Contents contents, read());
    ASSIGN_OR_RETURN(T answer, change(contents));
    if constexpr (std::is_same_v<T, bool>) {
      if (!answer) return answer;
    }
    const Result<void> written = write_file_atomic(file(), dump(contents));
    if (!written) return Error(Code::kUnavailable, written.error().to_string());
    return answer;
  }

  Result<Contents> read() const {
    Result<std::string> text = read_file(file(), kLargestFile);
    if (!text && text.error().code() == Code::kNotFound) return Contents{};
    if (!text) return Error(Code::kUnavailable, text.error().to_string());
    Result<Contents> contents = parse(*text);
    if (!contents) {
      return errorf(Code::kDataCorrupt, "'{}' is damaged; stop what uses it and remove it: {}",
                    file(), contents.error().to_string());
    }
    contents->expire(registry_now());
    return contents;
  }

  Result<Contents> parse(const std::string& text) const {
    ASSIGN_OR_RETURN(const Json json, parse_json(text, "registry"));
    if (json["format"].as_string() != "towline-registry" || json["schema"].as_int() != 1) {
      return Error(Code::kDataCorrupt, "not a registry of schema 1");
    }
    Contents contents;
    contents.revision = json["revision"].as_int();
    contents.last_lease = json["last_lease"].as_int();
    const auto possible = [](int64_t count) { return count >= 0 && count < kMostChanges; };
    if (!possible(contents.revision) || !possible(contents.last_lease)) {
      return Error(Code::kDataCorrupt, "its revision or its last lease is impossible");
    }
    const bool same_boot = json["boot"].as_string() == boot_;
    for (const Json& lease : json["leases"].items()) {
      if (!same_boot) break;
      const LeaseId id(lease["id"].as_int());
      const Held held{Duration(lease["time_ns"].as_int()), Instant{lease["until_ns"].as_int()}};
      if (id.value < 1 || id.value > contents.last_lease || held.time < Duration(0) ||
          held.time > kLongestLease) {
        return Error(Code::kDataCorrupt, "a lease's number or time is impossible");
      }
      contents.leases[id] = held;
    }
    for (const Json& entry : json["entries"].items()) {
      ASSIGN_OR_RETURN(const std::string key, base64_decode(entry["key"].as_string()));
      Stored stored;
      ASSIGN_OR_RETURN(stored.value, base64_decode(entry["value"].as_string()));
      stored.version = entry["version"].as_int();
      stored.lease = LeaseId(entry["lease"].as_int());
      if (stored.lease != kNoLease && !contents.leases.contains(stored.lease)) continue;
      if (key.empty() || stored.version < 1 || stored.version > contents.revision) {
        return Error(Code::kDataCorrupt, "an entry's key or version is impossible");
      }
      contents.entries[key] = std::move(stored);
    }
    return contents;
  }

  std::string dump(const Contents& contents) const {
    Json leases = Json::array(), entries = Json::array();
    for (const auto& [id, lease] : contents.leases) {
      leases.push(Json::object(
          {{"id", id.value}, {"time_ns", lease.time.value}, {"until_ns", lease.until.ns}}));
    }
    for (const auto& [key, stored] : contents.entries) {
      entries.push(Json::object({{"key", base64_encode(key)},
                                 {"value", base64_encode(stored.value)},
                                 {"version", stored.version},
                                 {"lease", stored.lease.value}}));
    }
    return Json::object({{"format", "towline-registry"},
                         {"schema", 1},
                         {"boot", boot_},
                         {"revision", contents.revision},
                         {"last_lease", contents.last_lease},
                         {"leases", leases},
                         {"entries", entries}})
               .dump() + "\n";
  }

  const std::string folder_, boot_;
};

}  // namespace

Result<std::unique_ptr<Registry>> open_file_registry(const std::string& url,
                                                     std::string_view rest) {
  while (rest.size() > 1 && rest.ends_with('/')) rest.remove_suffix(1);
  if (!rest.starts_with('/') || rest.size() < 2) {
    return errorf(Code::kInvalidArgument, "registry '{}' names no folder; write file:///FOLDER",
                  url);
  }
  return std::unique_ptr<Registry>(new FileRegistry(url, std::string(rest)));
}

}  // namespace towline::net
