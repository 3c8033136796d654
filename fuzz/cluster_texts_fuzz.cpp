// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Short texts that a cluster's processes take from people, disks and servers. The first byte
// chooses, the rest is the text:
//   m  the coordinator's memory        r  a file registry     f  faults of a line
//   u  a server's URL                  a  addresses and registry URLs
//   b  base 64                         e  server-sent events, in pieces that the text chooses
//   k  a file of keys                  l  the registry's record of who leads
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/base64.hpp"
#include "base/check.hpp"
#include "base/fmt.hpp"
#include "net/etcd_url.hpp"
#include "net/faults.hpp"
#include "net/keys.hpp"
#include "net/leadership.hpp"
#include "net/registry.hpp"
#include "net/transport.hpp"
#include "serve/coordinator_state.hpp"
#include "serve/event_reader.hpp"
#include "serve/server_url.hpp"

namespace {

using namespace towline;

void memory(std::string_view text) {
  auto read = serve::CoordinatorMemory::parse(text);
  if (!read) return;
  read->note("fuzz", 7);
  const std::string printed = read->dump();
  const auto again = serve::CoordinatorMemory::parse(printed);
  CHECK(again.has_value() && again->dump() == printed, printed);
}

class Folder {
 public:
  Folder() {
    static int made = 0;
    path =
        (std::filesystem::temp_directory_path() / format("towline-fuzz-{}-{}", ::getpid(), made++))
            .string();
    std::filesystem::create_directories(path);
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  std::string path;
};

// Whatever is in the file: all calls answer, and after a change that was made there is no damage.
void registry(std::string_view text) {
  static const Folder folder;
  std::ofstream(folder.path + "/registry.json", std::ios::binary) << text;
  const auto opened = net::Registry::open("file://" + folder.path);
  CHECK(opened.has_value());
  net::Registry& r = **opened;
  const net::Deadline never = net::deadline_in(seconds(3600));
  const auto before = r.list("", never);
  (void)r.renew(net::LeaseId(1), never);
  const auto changed = r.commit({.puts = {{"k", "v", net::kNoLease}}}, never);
  CHECK(before.has_value() == changed.has_value(), text.size());
  if (!changed) return;
  CHECK(r.grant(seconds(10), never).has_value() ||
        r.grant(seconds(10), never).error().code() == Code::kExhausted);
  const auto after = r.list("k", never);
  CHECK(after.has_value() && !after->empty() && after->front().value == "v");
}

// No file that a URL names is opened.
void registry_url(std::string_view text) {
  if (!text.starts_with("etcd://") && !text.starts_with("etcds://")) return;
  const auto url = net::parse_etcd_url(text);
  if (!url) {
    CHECK(!url.error().message().empty());
    return;
  }
  CHECK(!url->hosts.empty() && url->prefix.ends_with('/'), url->prefix);
  CHECK(url->tls == text.starts_with("etcds://") &&
        url->user.empty() == url->password_file.empty());
  for (const net::EtcdUrl::Host& host : url->hosts) CHECK(!host.name.empty() && !host.port.empty());
}

void keys(std::string_view text) {
  static const Folder folder;
  const std::string path = folder.path + "/cluster.keys";
  std::ofstream(path, std::ios::binary) << text;
  std::filesystem::permissions(path, std::filesystem::perms::owner_read |
                                         std::filesystem::perms::owner_write);
  const auto read = net::read_keys(path);
  if (read) {
    CHECK(read->public_key.size() == 40 && read->secret_key.size() == 40);
  } else {
    CHECK(!read.error().message().empty());
  }
}

void faults(std::string_view text) {
  const auto read = net::parse_faults(text);
  if (!read) return;
  net::FaultyEgress egress(*read, "fuzz");
  Instant now{0};
  for (int i = 0; i < 20; ++i) {
    const net::FaultyEgress::Fate fate = egress.next(now, 1000);
    CHECK(fate.copies >= 0 && fate.copies <= 2, fate.copies);
    CHECK(fate.flip_bit < 8000, fate.flip_bit);
    for (int k = 0; k < fate.copies; ++k) CHECK(fate.due[k] >= now, fate.due[k].ns);
    now = now + milliseconds(1);
  }
}

void events(std::string_view text) {
  std::vector<std::string> whole, cut;
  serve::EventReader one, other;
  one.feed(text, [&](std::string_view payload) { whole.emplace_back(payload); });
  for (std::string_view rest = text; !rest.empty();) {
    const size_t piece = std::min<size_t>(rest.size(), 1 + static_cast<uint8_t>(rest[0]) % 7);
    other.feed(rest.substr(0, piece), [&](std::string_view payload) { cut.emplace_back(payload); });
    rest.remove_prefix(piece);
  }
  CHECK(whole == cut && one.held() == other.held(), whole.size(), cut.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 'm': memory(text); break;
    case 'r': registry(text); break;
    case 'f': faults(text); break;
    case 'u':
      if (const auto target = serve::ServerUrl::parse(text)) CHECK(!target->host.empty());
      break;
    case 'a':
      (void)net::kind_of_address(text);
      registry_url(text);
      break;
    case 'b':
      if (const auto bytes = base64_decode(text)) CHECK(base64_encode(*bytes).size() <= size + 3);
      break;
    case 'e': events(text); break;
    case 'k': keys(text); break;
    case 'l':
      if (const auto record = net::LeaderRecord::parse(text)) {
        const auto again = net::LeaderRecord::parse(record->dump());
        CHECK(again.has_value() && again->dump() == record->dump(), record->epoch);
      }
      break;
    default: break;
  }
  return 0;
}
