// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// How to reach etcd, as one URL says it:
//
//   etcd://HOST:PORT[,HOST:PORT...][/PREFIX][?OPTION=VALUE[&OPTION=VALUE...]]      plain HTTP
//   etcds://...                                                                 the same over TLS
//
//   user=NAME              log in by this name...
//   password-file=FILE     ...with the first line of this file
//   ca=FILE                etcds: PEM certificates that vouch for the servers; else the system's
//   cert=FILE, key=FILE    etcds: this side's certificate and key (PEM), if the servers ask for one
//
// Secrets stay in files, so the URL may be shown, logged and handed on. In values %XX is a byte.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace towline::net {

struct EtcdUrl {
  struct Host {
    std::string name, port;  // an IPv6 address without its brackets
  };
  std::vector<Host> hosts;   // at least one
  std::string prefix;        // of keys; ends with a slash
  bool tls = false;
  std::string user, password_file, ca, cert, key;
};

// `url` is the whole, for errors; kInvalidArgument says what is wrong. Opens no file.
Result<EtcdUrl> parse_etcd_url(std::string_view url);

}  // namespace towline::net
