// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "net/registry.hpp"

#include <set>
#include <string_view>

#include "base/fmt.hpp"

namespace towline::net {
namespace {

constexpr size_t kLongestKey = 256;
constexpr size_t kLongestValue = 1 << 20;

}  // namespace

Result<std::unique_ptr<Registry>> Registry::open(const std::string& url) {
  const size_t scheme = url.find("://");
  if (scheme != std::string::npos) {
    const std::string_view rest = std::string_view(url).substr(scheme + 3);
    if (url.starts_with("etcd://") || url.starts_with("etcds://")) return open_etcd_registry(url);
    if (url.starts_with("file://")) return open_file_registry(url, rest);
  }
  return errorf(Code::kInvalidArgument,
                "'{}' is no registry; write etcd://HOST:PORT/PREFIX (etcds:// "
                "over TLS) or file:///FOLDER",
                url);
}

Instant registry_now() {
  timespec t{};
  ::clock_gettime(CLOCK_BOOTTIME, &t);
  return Instant{t.tv_sec * 1'000'000'000 + t.tv_nsec};
}

Result<void> check_change(const RegistryChange& change) {
  const auto check_key = [](const std::string& key) -> Result<void> {
    if (!key.empty() && key.size() <= kLongestKey) return {};
    return errorf(Code::kInvalidArgument, "a registry key of {} bytes; 1 to {} are possible",
                  key.size(), kLongestKey);
  };
  std::set<std::string_view> changed;
  const auto check_changed = [&](const std::string& key) -> Result<void> {
    TRY(check_key(key));
    if (changed.insert(key).second) return {};
    return errorf(Code::kInvalidArgument, "a registry change has the key '{}' twice", key);
  };
  for (const RegistryChange::Condition& condition : change.only_if) TRY(check_key(condition.key));
  for (const std::string& key : change.removes) TRY(check_changed(key));
  for (const RegistryChange::Put& put : change.puts) {
    TRY(check_changed(put.key));
    if (put.value.size() > kLongestValue) {
      return errorf(Code::kInvalidArgument, "a registry value of {} bytes for '{}'; up to {} are "
                    "possible", put.value.size(), put.key, kLongestValue);
    }
  }
  return {};
}

}  // namespace towline::net
