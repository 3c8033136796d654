// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Json: a value tree with members in the order written, parsed from JSON or TOML text.
//
// The parsers are nlohmann-json (json.cpp) and toml++ (toml.cpp), each in that one file: both cost
// five seconds a translation unit. Numbers keep their kind: integers that fit int64 stay integers.
// Hostile input is bounded: nesting deeper than kMaxDepth, invalid UTF-8 and trailing text are
// errors that give the byte offset (JSON) or the line (TOML). TOML is read up to 16 MiB, with at
// most 1000 dots in a line.
//
// Reading: j["a"]["b"] never fails (missing members read as null); as_*() convert leniently and
// take a default; to check input strictly, test is_*() first.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.hpp"

namespace towline {

class Json {
 public:
  static constexpr int kMaxDepth = 256;

  using Array = std::vector<Json>;
  using Member = std::pair<std::string, Json>;
  using Object = std::vector<Member>;  // in the order written; duplicate keys: the last wins

  Json() = default;
  Json(std::nullptr_t) {}
  Json(bool v) : data_(v) {}
  Json(int v) : data_(static_cast<int64_t>(v)) {}
  Json(long v) : data_(static_cast<int64_t>(v)) {}
  Json(long long v) : data_(static_cast<int64_t>(v)) {}
  Json(unsigned v) : data_(static_cast<int64_t>(v)) {}
  Json(unsigned long v) : data_(static_cast<int64_t>(v)) {}
  Json(double v) : data_(v) {}
  Json(const char* v) : data_(std::string(v)) {}
  Json(std::string_view v) : data_(std::string(v)) {}
  Json(std::string v) : data_(std::move(v)) {}
  Json(Array v) : data_(std::move(v)) {}
  static Json array() { return Json(Array{}); }
  static Json array(Array items) { return Json(std::move(items)); }
  static Json object() {
    Json j;
    j.data_ = Object{};
    return j;
  }
  // Json::object({{"name", "x"}, {"n", 3}})
  static Json object(std::initializer_list<Member> members) {
    Json j;
    j.data_ = Object(members);
    return j;
  }
  static Json object(Object members) {  // whose keys differ
    Json j;
    j.data_ = std::move(members);
    return j;
  }

  bool is_null() const { return data_.index() == 0; }
  bool is_bool() const { return data_.index() == 1; }
  bool is_int() const { return data_.index() == 2; }
  bool is_double() const { return data_.index() == 3; }
  bool is_number() const { return is_int() || is_double(); }
  bool is_string() const { return data_.index() == 4; }
  bool is_array() const { return data_.index() == 5; }
  bool is_object() const { return data_.index() == 6; }
  std::string_view type_name() const;  // "null", "boolean", "integer", "number", "string", ...

  bool as_bool(bool fallback = false) const;
  int64_t as_int(int64_t fallback = 0) const;  // a double is truncated if it fits
  double as_double(double fallback = 0) const;
  const std::string& as_string() const;  // empty string if not a string
  std::string as_string_or(std::string_view fallback) const;
  const Array& items() const;     // empty if not an array
  const Object& members() const;  // empty if not an object
  Array& items();                 // turns null into an array; else must be one
  size_t size() const;            // of an array or object; else 0

  bool contains(std::string_view key) const { return find(key) != nullptr; }
  const Json* find(std::string_view key) const;
  const Json& operator[](std::string_view key) const;  // null if missing
  const Json& operator[](size_t index) const;          // null if out of range
  Json& set(std::string_view key, Json value);         // turns null into an object; returns *this
  Json& push(Json value);                              // turns null into an array; returns *this
  bool erase(std::string_view key);

  friend bool operator==(const Json& a, const Json& b);

  // JSON text. indent < 0: one line. Doubles print shortest-round-trip; NaN and infinity as null.
  std::string dump(int indent = -1) const;

 private:
  friend class JsonBuilder;
  void append_member(std::string key, Json value);
  void drop_duplicate_members();
  void dump_to(std::string& out, int indent, int depth) const;

  std::variant<std::monostate, bool, int64_t, double, std::string, Array, Object> data_;
};

// `source` names the text in errors ("request body", "a/config.json").
Result<Json> parse_json(std::string_view text, std::string_view source);
Result<Json> parse_toml(std::string_view text, std::string_view source);
// By file extension: .toml is TOML, anything else is JSON.
Result<Json> load_json(const std::string& path);

// Appends `text` to `out` as a JSON string literal with quotes; invalid UTF-8 becomes U+FFFD.
void append_json_string(std::string& out, std::string_view text);

}  // namespace towline
