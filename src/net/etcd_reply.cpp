// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "net/etcd_reply.hpp"

#include <charconv>

#include "base/base64.hpp"
#include "base/fmt.hpp"
#include "base/json.hpp"

namespace towline::net {
namespace {

// gRPC's codes, as the gateway puts them into "code".
constexpr int64_t kGrpcNotFound = 5, kGrpcPermissionDenied = 7, kGrpcExhausted = 8,
                  kGrpcUnauthenticated = 16;
constexpr size_t kQuoted = 200;               // characters of an answer in our sentence
constexpr int64_t kLongestLease = 10 * 365 * 86400;  // seconds; keeps nanoseconds in range

Error corrupt(std::string_view what) {
  return errorf(Code::kDataCorrupt, "etcd's answer {}", what);
}

Result<Json> object_of(std::string_view body) {
  Result<Json> json = parse_json(body, "etcd's answer");
  if (!json) return Error(Code::kDataCorrupt, json.error().to_string());
  if (!json->is_object()) return corrupt("is no JSON object");
  return json;
}

// A number as the gateway writes it: "17", 17, or nothing for 0.
Result<int64_t> number_in(const Json& object, std::string_view key) {
  const Json& value = object[key];
  if (value.is_null()) return int64_t{0};
  if (value.is_int()) return value.as_int();
  const std::string& text = value.as_string();
  int64_t number = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (!value.is_string() || failed != std::errc() || end != text.data() + text.size()) {
    return errorf(Code::kDataCorrupt, "etcd's answer has no proper number as '{}'", key);
  }
  return number;
}

Result<Registry::Lease> lease_in(const Json& object) {
  ASSIGN_OR_RETURN(const int64_t id, number_in(object, "ID"));
  ASSIGN_OR_RETURN(const int64_t time, number_in(object, "TTL"));
  if (id == 0) return corrupt("names no lease");
  if (time <= 0) return errorf(Code::kNotFound, "lease {} has ended", id);
  if (time > kLongestLease) return corrupt("has a lease without end");
  return Registry::Lease{LeaseId(id), seconds(time)};
}

// The least key that is greater than all that begin with `prefix`; "\0" stands for none.
std::string end_of_prefix(std::string prefix) {
  while (!prefix.empty() && prefix.back() == '\xff') prefix.pop_back();
  if (prefix.empty()) return std::string(1, '\0');
  prefix.back() = static_cast<char>(static_cast<unsigned char>(prefix.back()) + 1);
  return prefix;
}

std::string full_key(std::string_view prefix, std::string_view key) {
  return base64_encode(std::string(prefix) += key);
}

}  // namespace

std::string etcd_range_request(std::string_view prefix, std::string_view key) {
  const std::string begin = std::string(prefix) += key;
  return Json::object({{"key", base64_encode(begin)},
                       {"range_end", base64_encode(end_of_prefix(begin))}})
      .dump();
}

std::string etcd_txn_request(std::string_view prefix, const RegistryChange& change) {
  Json compare = Json::array(), success = Json::array();
  for (const RegistryChange::Condition& condition : change.only_if) {
    compare.push(Json::object({{"key", full_key(prefix, condition.key)},
                               {"target", "MOD"},
                               {"result", "EQUAL"},
                               {"mod_revision", std::to_string(condition.version)}}));
  }
  for (const std::string& key : change.removes) {
    success.push(Json::object(
        {{"request_delete_range", Json::object({{"key", full_key(prefix, key)}})}}));
  }
  for (const RegistryChange::Put& put : change.puts) {
    success.push(Json::object({{"request_put",
                                Json::object({{"key", full_key(prefix, put.key)},
                                              {"value", base64_encode(put.value)},
                                              {"lease", std::to_string(put.lease.value)}})}}));
  }
  return Json::object({{"compare", compare}, {"success", success}}).dump();
}

std::string etcd_grant_request(Duration time) {
  const int64_t whole = (time.value + seconds(1).value - 1) / seconds(1).value;
  return Json::object({{"TTL", std::to_string(std::max<int64_t>(1, whole))}}).dump();
}

std::string etcd_lease_request(LeaseId lease) {
  return Json::object({{"ID", std::to_string(lease.value)}}).dump();
}

std::string etcd_login_request(std::string_view user, std::string_view password) {
  return Json::object({{"name", std::string(user)}, {"password", std::string(password)}}).dump();
}

Result<std::vector<RegistryEntry>> read_etcd_range(std::string_view body, std::string_view prefix) {
  ASSIGN_OR_RETURN(const Json json, object_of(body));
  std::vector<RegistryEntry> entries;
  for (const Json& kv : json["kvs"].items()) {
    RegistryEntry entry;
    ASSIGN_OR_RETURN(std::string key, base64_decode(kv["key"].as_string()));
    if (!key.starts_with(prefix) || key.size() == prefix.size()) {
      return corrupt("has a key that was not asked for");
    }
    entry.key = key.substr(prefix.size());
    ASSIGN_OR_RETURN(entry.value, base64_decode(kv["value"].as_string()));
    ASSIGN_OR_RETURN(entry.version, number_in(kv, "mod_revision"));
    if (entry.version <= 0) return corrupt("has a key without a version");
    if (!entries.empty() && entries.back().key >= entry.key) return corrupt("is out of order");
    entries.push_back(std::move(entry));
  }
  if (json["more"].as_bool()) return corrupt("is only a part of what was asked for");
  return entries;
}

Result<bool> read_etcd_txn(std::string_view body) {
  ASSIGN_OR_RETURN(const Json json, object_of(body));
  if (json["header"].is_null()) return corrupt("to a transaction has no header");
  return json["succeeded"].as_bool();
}

Result<Registry::Lease> read_etcd_grant(std::string_view body) {
  ASSIGN_OR_RETURN(const Json json, object_of(body));
  return lease_in(json);
}

Result<Registry::Lease> read_etcd_renewal(std::string_view body) {
  ASSIGN_OR_RETURN(const Json json, object_of(body));
  if (!json["result"].is_object()) return corrupt("to a renewal has no result");
  return lease_in(json["result"]);
}

Result<std::string> read_etcd_login(std::string_view body) {
  ASSIGN_OR_RETURN(const Json json, object_of(body));
  const std::string token = json["token"].as_string();
  const bool proper = !token.empty() && token.find_first_of("\r\n") == std::string::npos;
  if (!proper) return corrupt("to a login has no proper token");
  return token;
}

Error etcd_error(int status, std::string_view body) {
  std::string text(body.substr(0, kQuoted));
  int64_t grpc = 0;
  if (const Result<Json> json = parse_json(body, "etcd's answer")) {
    // A stream's error is inside "error"; others are the whole.
    const Json& error = (*json)["error"].is_object() ? (*json)["error"] : *json;
    grpc = error["code"].as_int(error["grpc_code"].as_int());
    if (!error["message"].as_string().empty()) {
      text = error["message"].as_string().substr(0, kQuoted);
    }
  }
  Code code = Code::kUnavailable;  // no leader, too busy, too slow: later it may do
  if (text.find("lease not found") != std::string::npos) {
    code = Code::kNotFound;
  } else if (grpc == kGrpcPermissionDenied || grpc == kGrpcUnauthenticated ||
             text.find("user name is empty") != std::string::npos ||
             text.find("invalid auth token") != std::string::npos ||
             text.find("authentication failed") != std::string::npos) {
    code = Code::kPermissionDenied;
  } else if (grpc == kGrpcExhausted) {
    code = Code::kExhausted;
  } else if (status == 404 && grpc != kGrpcNotFound) {
    code = Code::kUnsupported;     // no gateway of version 3 there
  }
  return errorf(code, "etcd answers status {}: {}", status, text);
}

}  // namespace towline::net
