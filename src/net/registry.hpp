// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Registry: a small directory that the processes of a cluster share, kept by somebody else. It says
// where the coordinator is and who may be it (net/leadership.hpp); nothing of a request goes
// through it.
//
//   etcd://HOST:PORT[,HOST:PORT...][/PREFIX]   etcd 3.4 or later, through its HTTP/JSON gateway;
//                                              keys are PREFIX/KEY; PREFIX if not given: "towline"
//   etcds://...                                the same over TLS; net/etcd_url.hpp has the options
//                                              of both (certificates, login)
//   file:///FOLDER                             a file under a lock; the processes of one machine
//
// Keys are short names, values any bytes. Every key has a version: 0 while it is absent, and a
// larger one after each change of it than ever before. commit() changes several keys at once, if
// they have the versions expected: the one means by which two processes agree on anything.
//
// A lease is kept by renewing it. When it ends, by time or revoke(), its keys vanish. Its time is
// at least what was granted, counted from before grant() or renew() was called: on registry_now()'s
// clock, the holder may rely on it until then.
//
// Errors, of every call: kUnavailable or kDeadline, the registry did not answer (what was asked may
// have happened all the same; look before asking again); kNotFound, the lease has ended;
// kDataCorrupt, the answer is no registry's; kPermissionDenied, it refuses. Every wait ends at the
// deadline, but for one thing: looking up a host's name takes as long as the system's resolver does
// (etcd back end; the addresses are kept, and looked up again at most every
// 30 s while a member does not answer).
//
// Threading: one thread at a time for each object.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"
#include "net/clock.hpp"

namespace towline::net {

using LeaseId = Id<struct LeaseTag, int64_t>;
inline constexpr LeaseId kNoLease{0};

struct RegistryEntry {
  std::string key;
  std::string value;
  int64_t version = 0;
};

// A key is put or removed once in a change: etcd knows no order within one.
struct RegistryChange {
  struct Condition {
    std::string key;
    int64_t version = 0;       // 0: absent
  };
  struct Put {
    std::string key;           // 1 to 256 bytes
    std::string value;         // up to 1 MiB
    LeaseId lease = kNoLease;  // vanishes with it
  };
  std::vector<Condition> only_if = {};
  std::vector<Put> puts = {};
  std::vector<std::string> removes = {};
};

class Registry {
 public:
  struct Lease {
    LeaseId id;
    Duration time;  // at least what was asked for
  };

  // Does not ask the registry anything yet. kInvalidArgument names what is wrong with the URL or a
  // file that it names, kNotFound a file that is missing.
  static Result<std::unique_ptr<Registry>> open(const std::string& url);
  virtual ~Registry() = default;

  // All keys that begin with `prefix`, in order, as of one moment.
  virtual Result<std::vector<RegistryEntry>> list(std::string_view prefix, Deadline deadline) = 0;
  // False: a condition did not hold, and nothing was changed.
  virtual Result<bool> commit(const RegistryChange& change, Deadline deadline) = 0;
  virtual Result<Lease> grant(Duration time, Deadline deadline) = 0;
  virtual Result<Lease> renew(LeaseId lease, Deadline deadline) = 0;
  virtual Result<void> revoke(LeaseId lease, Deadline deadline) = 0;

  const std::string& url() const { return url_; }

 protected:
  explicit Registry(std::string url) : url_(std::move(url)) {}

 private:
  std::string url_;
};

// The clock of leases: it goes on while the machine sleeps, unlike steady_now().
Instant registry_now();

// The back ends; open() chooses. `rest` is the URL after its scheme.
Result<std::unique_ptr<Registry>> open_etcd_registry(const std::string& url);
Result<std::unique_ptr<Registry>> open_file_registry(const std::string& url, std::string_view rest);

// kInvalidArgument unless keys and values are of the lengths above, and no key is changed twice.
Result<void> check_change(const RegistryChange& change);

}  // namespace towline::net
