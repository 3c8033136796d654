// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "base/json.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "base/utf8.hpp"

namespace towline {
namespace {

const Json kNull;
const std::string kEmptyString;
const Json::Array kEmptyArray;
const Json::Object kEmptyObject;

// Receives nlohmann's events and builds a Json, refusing what nests too deeply. Duplicate members
// are resolved when an object closes: the last one wins.
}  // namespace

class JsonBuilder : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit JsonBuilder(std::string_view source) : source_(source) {}
  Json take() { return std::move(root_); }
  Error take_error() { return *std::move(error_); }

  bool null() override { return put(Json()); }
  bool boolean(bool v) override { return put(Json(v)); }
  bool number_integer(int64_t v) override { return put(Json(v)); }
  bool number_unsigned(uint64_t v) override {
    if (v > static_cast<uint64_t>(INT64_MAX)) return put(Json(static_cast<double>(v)));
    return put(Json(static_cast<int64_t>(v)));
  }
  bool number_float(double v, const std::string&) override { return put(Json(v)); }
  bool string(std::string& v) override { return put(Json(std::move(v))); }
  bool binary(nlohmann::json::binary_t&) override { return false; }
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool key(std::string& v) override {
    keys_.back() = std::move(v);
    return true;
  }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& e)
      override {
    std::string_view what = e.what();
    if (const size_t at = what.rfind("; "); at != std::string_view::npos) {
      what.remove_prefix(at + 2);
    }
    if (what.starts_with("[json.")) {
      what.remove_prefix(std::min(what.find(' '), what.size() - 1) + 1);
    }
    error_ = errorf(Code::kInvalidArgument, "{}: not valid JSON at byte {}: {}", source_, position,
                    what);
    return false;
  }

 private:
  bool put(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (open_.back().is_array()) {
      open_.back().push(std::move(value));
    } else {
      open_.back().append_member(std::move(keys_.back()), std::move(value));
    }
    return true;
  }
  bool open(Json container) {
    if (static_cast<int>(open_.size()) >= Json::kMaxDepth) {
      error_ = errorf(Code::kInvalidArgument, "{}: JSON nests deeper than {} levels", source_,
                      Json::kMaxDepth);
      return false;
    }
    open_.push_back(std::move(container));
    keys_.emplace_back();
    return true;
  }
  bool close() {
    Json done = std::move(open_.back());
    open_.pop_back();
    keys_.pop_back();
    done.drop_duplicate_members();
    return put(std::move(done));
  }

  std::string_view source_;
  Json root_;
  std::vector<Json> open_;
  std::vector<std::string> keys_;
  std::optional<Error> error_;
};

namespace {

void append_number(std::string& out, double v) {
  if (!std::isfinite(v)) {
    out += "null";
    return;
  }
  const size_t start = out.size();
  fmt::format_to(std::back_inserter(out), "{}", v);
  if (out.find_first_of(".eE", start) == std::string::npos) out += ".0";
}

}  // namespace

void Json::append_member(std::string key, Json value) {
  std::get<Object>(data_).emplace_back(std::move(key), std::move(value));
}

void Json::drop_duplicate_members() {
  auto* object = std::get_if<Object>(&data_);
  if (object == nullptr || object->size() < 2) return;
  std::map<std::string_view, size_t> last;
  for (size_t i = 0; i < object->size(); ++i) last[(*object)[i].first] = i;
  if (last.size() == object->size()) return;
  Object kept;
  for (size_t i = 0; i < object->size(); ++i) {
    if (last[(*object)[i].first] == i) kept.emplace_back((*object)[i]);
  }
  *object = std::move(kept);
}

std::string_view Json::type_name() const {
  static constexpr std::string_view kNames[] = {"null",   "boolean", "integer", "number",
                                                "string", "array",   "object"};
  return kNames[data_.index()];
}

bool Json::as_bool(bool fallback) const {
  const bool* v = std::get_if<bool>(&data_);
  return v ? *v : fallback;
}
int64_t Json::as_int(int64_t fallback) const {
  if (const int64_t* v = std::get_if<int64_t>(&data_)) return *v;
  if (const double* v = std::get_if<double>(&data_); v && std::abs(*v) < 9.0e18) {
    return static_cast<int64_t>(*v);
  }
  return fallback;
}
double Json::as_double(double fallback) const {
  if (const int64_t* v = std::get_if<int64_t>(&data_)) return static_cast<double>(*v);
  const double* v = std::get_if<double>(&data_);
  return v ? *v : fallback;
}
const std::string& Json::as_string() const {
  const std::string* v = std::get_if<std::string>(&data_);
  return v ? *v : kEmptyString;
}
std::string Json::as_string_or(std::string_view fallback) const {
  return is_string() ? as_string() : std::string(fallback);
}
const Json::Array& Json::items() const {
  const Array* v = std::get_if<Array>(&data_);
  return v ? *v : kEmptyArray;
}
Json::Array& Json::items() {
  if (is_null()) data_ = Array{};
  return std::get<Array>(data_);
}
const Json::Object& Json::members() const {
  const Object* v = std::get_if<Object>(&data_);
  return v ? *v : kEmptyObject;
}
size_t Json::size() const { return is_array() ? items().size() : members().size(); }

const Json* Json::find(std::string_view key) const {
  for (const Member& member : members()) {
    if (member.first == key) return &member.second;
  }
  return nullptr;
}
const Json& Json::operator[](std::string_view key) const {
  const Json* found = find(key);
  return found ? *found : kNull;
}
const Json& Json::operator[](size_t index) const {
  return index < items().size() ? items()[index] : kNull;
}
Json& Json::set(std::string_view key, Json value) {
  if (is_null()) data_ = Object{};
  for (Member& member : std::get<Object>(data_)) {
    if (member.first == key) {
      member.second = std::move(value);
      return *this;
    }
  }
  append_member(std::string(key), std::move(value));
  return *this;
}
Json& Json::push(Json value) {
  items().push_back(std::move(value));
  return *this;
}
bool Json::erase(std::string_view key) {
  auto* object = std::get_if<Object>(&data_);
  return object &&
         std::erase_if(*object, [&](const Member& member) { return member.first == key; }) > 0;
}

bool operator==(const Json& a, const Json& b) { return a.data_ == b.data_; }

void append_json_string(std::string& out, std::string_view text) {
  out += '"';
  for (size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x80) {
      const size_t n = utf8_length(text, i);
      if (n == 0) {
        out += "\xef\xbf\xbd";
        ++i;
      } else {
        out += text.substr(i, n);
        i += n;
      }
      continue;
    }
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      case '\b': out += "\\b"; break;
      case '\f': out += "\\f"; break;
      default:
        if (c < 0x20) {
          fmt::format_to(std::back_inserter(out), "\\u{:04x}", c);
        } else {
          out += static_cast<char>(c);
        }
    }
    ++i;
  }
  out += '"';
}

void Json::dump_to(std::string& out, int indent, int depth) const {
  const auto line = [&](int level) {
    if (indent < 0) return;
    out += '\n';
    out.append(static_cast<size_t>(indent) * static_cast<size_t>(level), ' ');
  };
  switch (data_.index()) {
    case 0: out += "null"; return;
    case 1: out += std::get<bool>(data_) ? "true" : "false"; return;
    case 2: fmt::format_to(std::back_inserter(out), "{}", std::get<int64_t>(data_)); return;
    case 3: append_number(out, std::get<double>(data_)); return;
    case 4: append_json_string(out, std::get<std::string>(data_)); return;
    default: break;
  }
  const bool is_list = is_array();
  const size_t count = size();
  out += is_list ? '[' : '{';
  for (size_t i = 0; i < count; ++i) {
    if (i > 0) out += ',';
    line(depth + 1);
    if (!is_list) {
      append_json_string(out, members()[i].first);
      out += indent < 0 ? ":" : ": ";
    }
    (is_list ? items()[i] : members()[i].second).dump_to(out, indent, depth + 1);
  }
  if (count > 0) line(depth);
  out += is_list ? ']' : '}';
}

std::string Json::dump(int indent) const {
  std::string out;
  dump_to(out, indent, 0);
  return out;
}

Result<Json> parse_json(std::string_view text, std::string_view source) {
  JsonBuilder builder(source);
  if (!nlohmann::json::sax_parse(text, &builder)) return builder.take_error();
  return builder.take();
}

Result<Json> load_json(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, read_file(path));
  return path.ends_with(".toml") ? parse_toml(text, path) : parse_json(text, path);
}

}  // namespace towline
