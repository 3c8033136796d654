// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "net/etcd_url.hpp"

#include <algorithm>
#include <optional>

#include "base/fmt.hpp"

namespace towline::net {
namespace {

constexpr std::string_view kDefaultPrefix = "towline";
constexpr std::string_view kDefaultPort = "2379";

// "host", "host:2379", "[::1]:2379"
std::optional<EtcdUrl::Host> host_of(std::string_view text) {
  EtcdUrl::Host host;
  std::string_view port;
  if (text.starts_with('[')) {
    const size_t end = text.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    host.name = text.substr(1, end - 1);
    port = text.substr(end + 1);
  } else {
    const size_t colon = text.find(':');
    host.name = text.substr(0, colon);
    port = colon == std::string_view::npos ? std::string_view() : text.substr(colon);
  }
  if (host.name.empty()) return std::nullopt;
  if (port.empty()) {
    host.port = kDefaultPort;
    return host;
  }
  if (!port.starts_with(':')) return std::nullopt;
  host.port = port.substr(1);
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const bool proper = !host.port.empty() && host.port.size() <= 5 &&
                      std::ranges::all_of(host.port, is_digit) && std::stoi(host.port) <= 65535;
  return proper ? std::optional(host) : std::nullopt;
}

std::optional<std::string> unescaped(std::string_view text) {
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  };
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const int high = i + 2 < text.size() ? digit(text[i + 1]) : -1;
    const int low = i + 2 < text.size() ? digit(text[i + 2]) : -1;
    if (high < 0 || low < 0) return std::nullopt;
    out += static_cast<char>(16 * high + low);
    i += 2;
  }
  return out;
}

Result<void> read_options(std::string_view url, std::string_view text, EtcdUrl& out) {
  const std::pair<std::string_view, std::string*> known[] = {{"user", &out.user},
                                                             {"password-file", &out.password_file},
                                                             {"ca", &out.ca},
                                                             {"cert", &out.cert},
                                                             {"key", &out.key}};
  while (!text.empty()) {
    const std::string_view item = text.substr(0, text.find('&'));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    const size_t equals = item.find('=');
    const std::string_view name = item.substr(0, equals);
    const auto* row = std::ranges::find(known, name, [](const auto& k) { return k.first; });
    if (row == std::end(known)) {
      return errorf(Code::kInvalidArgument,
                    "registry '{}' has an option '{}'; there are user, password-file, "
                    "ca, cert and key",
                    url, name);
    }
    const std::optional<std::string> value =
        equals == std::string_view::npos ? std::nullopt : unescaped(item.substr(equals + 1));
    if (!value || value->empty()) {
      return errorf(Code::kInvalidArgument, "registry '{}': option '{}' has no proper value", url,
                    name);
    }
    *row->second = *value;
  }
  if (out.user.empty() != out.password_file.empty()) {
    return errorf(Code::kInvalidArgument, "registry '{}': user and password-file go together", url);
  }
  if (out.cert.empty() != out.key.empty()) {
    return errorf(Code::kInvalidArgument, "registry '{}': cert and key go together", url);
  }
  if (!out.tls && !(out.ca.empty() && out.cert.empty())) {
    return errorf(Code::kInvalidArgument, "registry '{}': ca, cert and key belong to etcds://",
                  url);
  }
  return {};
}

}  // namespace

Result<EtcdUrl> parse_etcd_url(std::string_view url) {
  EtcdUrl out;
  out.tls = url.starts_with("etcds://");
  std::string_view rest = url.substr(std::min(url.size(), url.find("://") + 3));
  const size_t question = rest.find('?');
  const std::string_view options =
      question == std::string_view::npos ? std::string_view() : rest.substr(question + 1);
  rest = rest.substr(0, question);
  const size_t slash = rest.find('/');
  std::string_view hosts = rest.substr(0, slash);
  std::string_view prefix = slash == std::string_view::npos ? "" : rest.substr(slash + 1);
  while (prefix.ends_with('/')) prefix.remove_suffix(1);
  out.prefix = std::string(prefix.empty() ? kDefaultPrefix : prefix) + "/";
  while (!hosts.empty()) {
    const size_t comma = hosts.find(',');
    std::optional<EtcdUrl::Host> host = host_of(hosts.substr(0, comma));
    if (!host) {
      out.hosts.clear();
      break;
    }
    out.hosts.push_back(*std::move(host));
    hosts = comma == std::string_view::npos ? std::string_view() : hosts.substr(comma + 1);
  }
  if (out.hosts.empty()) {
    return errorf(Code::kInvalidArgument,
                  "registry '{}' names no proper hosts; write etcd://HOST:PORT[,HOST:PORT]/PREFIX",
                  url);
  }
  TRY(read_options(url, options, out));
  return out;
}

}  // namespace towline::net
