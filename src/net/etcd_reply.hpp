// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The messages of etcd's HTTP/JSON gateway (etcd 3.4, api/etcdserverpb/rpc.proto; gRPC-gateway
// writes 64-bit numbers as strings, bytes as base64, and leaves zeros out). Pure text to values and
// back; the sockets are in registry_etcd.cpp. Answers are bounded by who reads them from the wire.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "net/registry.hpp"

namespace towline::net {

// Requests: the bodies of POST /v3/...; keys are `prefix` + key.
std::string etcd_range_request(std::string_view prefix, std::string_view key);  // kv/range
std::string etcd_txn_request(std::string_view prefix, const RegistryChange& change);  // kv/txn
std::string etcd_grant_request(Duration time);      // lease/grant
std::string etcd_lease_request(LeaseId lease);      // lease/keepalive, lease/revoke
// auth/authenticate
std::string etcd_login_request(std::string_view user, std::string_view password);

// Answers of status 200. Everything else, and what is not of the expected form, is an error:
// kDataCorrupt.
Result<std::vector<RegistryEntry>> read_etcd_range(std::string_view body, std::string_view prefix);
Result<bool> read_etcd_txn(std::string_view body);
Result<Registry::Lease> read_etcd_grant(std::string_view body);
Result<Registry::Lease> read_etcd_renewal(std::string_view body);  // kNotFound: it has ended
Result<std::string> read_etcd_login(std::string_view body);  // the token
// The meaning of an answer of another status: kNotFound for a lease that has ended,
// kPermissionDenied for want of a login, kUnavailable while there is no leader, and so on.
Error etcd_error(int status, std::string_view body);

}  // namespace towline::net
