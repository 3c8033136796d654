// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#define TOML_EXCEPTIONS 0
// toml++ 3.3 asserts, and with NDEBUG lets clang assume, things that a text can break ("[!]"), and
// then handles them as errors all the same. It must do just that, in every build.
#undef NDEBUG
#define TOML_ASSERT(expression) static_assert(true)
#include <toml++/toml.h>

#include <algorithm>
#include <optional>
#include <sstream>

#include "base/fmt.hpp"
#include "base/json.hpp"
#include "base/utf8.hpp"

namespace towline {
namespace {

// toml++ 3.3 must not see a letter beyond ASCII: wherever it asks whether one is white space it
// runs into undefined behaviour, and what it takes for white space is not what TOML does. So the
// parser is given ASCII alone: a byte beyond ASCII is written as a mark and two digits ("~C3~A9"),
// and read back from the strings that come out. The mark is a character that TOML takes nowhere but
// in strings and comments, so such a letter anywhere else is toml++'s own error at that line.
constexpr std::string_view kMarks = "~!?^|;@&%$`";
constexpr char kDigits[] = "0123456789ABCDEF";
constexpr size_t kMaxBytes = size_t{8} << 20;  // of which toml++ makes up to 80 times as much
// A dotted key makes a table a dot, all on one line, and tables are freed by recursion.
constexpr int kMaxDotsInLine = 1000;

unsigned char byte_of(char c) { return static_cast<unsigned char>(c); }
bool beyond_ascii(char c) { return byte_of(c) >= 0x80; }

std::string hex(char c) { return {kDigits[byte_of(c) >> 4], kDigits[byte_of(c) & 15]}; }

class Marking {
 public:
  // A mark for `text` that no escape in it (\u007E) can make; none if every mark is escaped there.
  static std::optional<Marking> choose(std::string_view text) {
    std::string upper(text);
    for (char& c : upper) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    for (const char mark : kMarks) {
      if (upper.find("\\U00" + hex(mark)) == upper.npos &&
          upper.find("\\U000000" + hex(mark)) == upper.npos) {
        return Marking(mark);
      }
    }
    return std::nullopt;
  }

  std::string encode(std::string_view text) const {
    std::string out;
    for (const char c : text) {
      if (beyond_ascii(c) || c == mark_) {
        out += mark_ + hex(c);
      } else {
        out += c;
      }
    }
    return out;
  }
  std::string decode(std::string_view text) const {
    const auto digit = [&](size_t i) {
      return std::string_view(kDigits).find(text[i]);  // encode() wrote them
    };
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] == mark_ && i + 2 < text.size()) {
        out += static_cast<char>(digit(i + 1) << 4 | digit(i + 2));
        i += 2;
      } else {
        out += text[i];
      }
    }
    return out;
  }
  char mark() const { return mark_; }

 private:
  explicit Marking(char mark) : mark_(mark) {}
  char mark_;
};

std::optional<Json> convert(const toml::node& node, const Marking& marking, int depth) {
  if (depth > Json::kMaxDepth) return std::nullopt;
  if (const auto* table = node.as_table()) {
    // toml++ keeps tables sorted by key; give members back in the order of their lines.
    std::vector<std::pair<toml::source_position, Json::Member>> rows;
    for (const auto& [key, value] : *table) {
      std::optional<Json> child = convert(value, marking, depth + 1);
      if (!child) return std::nullopt;
      rows.push_back({key.source().begin, {marking.decode(key.str()), std::move(*child)}});
    }
    std::stable_sort(rows.begin(), rows.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    Json::Object members;
    members.reserve(rows.size());
    for (auto& row : rows) members.push_back(std::move(row.second));
    return Json::object(std::move(members));
  }
  if (const auto* array = node.as_array()) {
    Json out = Json::array();
    for (const toml::node& item : *array) {
      std::optional<Json> child = convert(item, marking, depth + 1);
      if (!child) return std::nullopt;
      out.push(std::move(*child));
    }
    return out;
  }
  if (const auto* v = node.as_string()) return Json(marking.decode(v->get()));
  if (const auto* v = node.as_integer()) return Json(v->get());
  if (const auto* v = node.as_floating_point()) return Json(v->get());
  if (const auto* v = node.as_boolean()) return Json(v->get());
  std::ostringstream text;  // dates and times: as written
  node.visit([&](const auto& value) { text << value; });
  return Json(text.str());
}

Error invalid(std::string_view source, std::ptrdiff_t line, std::string_view why) {
  return errorf(Code::kInvalidArgument, "{}: not valid TOML at line {}: {}", source, line, why);
}

std::string_view line_of(std::string_view text, size_t line) {  // from 1
  for (; line > 1; --line) text.remove_prefix(std::min(text.find('\n'), text.size() - 1) + 1);
  return text.substr(0, text.find('\n'));
}

Result<void> check_lines(std::string_view text, std::string_view source) {
  std::ptrdiff_t line = 1;
  for (size_t at = 0; at < text.size(); ++line) {
    const std::string_view here = text.substr(at, text.find('\n', at) - at);
    if (utf8_valid_run(here, 0) != here.size()) {
      return invalid(source, line, "bytes that are not UTF-8");
    }
    if (std::count(here.begin(), here.end(), '.') > kMaxDotsInLine) {
      return invalid(source, line,
                     format("more than {} dots in one line; write long lists over several lines",
                            kMaxDotsInLine));
    }
    at += here.size() + 1;
  }
  return {};
}

}  // namespace

Result<Json> parse_toml(std::string_view text, std::string_view source) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // a byte order mark is no letter
  if (text.size() > kMaxBytes) {
    return errorf(Code::kInvalidArgument, "{}: {} bytes; TOML is read up to {}, JSON of any size",
                  source, text.size(), kMaxBytes);
  }
  TRY(check_lines(text, source));
  const std::optional<Marking> marking = Marking::choose(text);
  if (!marking) {
    return errorf(Code::kInvalidArgument,
                  "{}: every one of the characters {} is written as a \\u escape; write one of "
                  "them as it is",
                  source, kMarks);
  }
  const toml::parse_result parsed = toml::parse(marking->encode(text), source);
  if (!parsed) {
    const auto line = parsed.error().source().begin.line;
    std::string why(parsed.error().description());
    const std::string_view there = line_of(text, line);
    if (std::any_of(there.begin(), there.end(), beyond_ascii)) {
      std::replace(why.begin(), why.end(), marking->mark(), '?');
      why += " (outside quotes and comments TOML takes no letter that is not ASCII)";
    }
    return invalid(source, line, why);
  }
  std::optional<Json> json = convert(parsed.table(), *marking, 0);
  if (!json) {
    return errorf(Code::kInvalidArgument, "{}: nested deeper than {}", source, Json::kMaxDepth);
  }
  return std::move(*json);
}

}  // namespace towline
