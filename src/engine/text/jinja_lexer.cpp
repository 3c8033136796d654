// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/text/jinja_lexer.hpp"

#include <algorithm>
#include <array>

#include "base/fmt.hpp"
#include "base/utf8.hpp"

namespace towline::engine::jinja {
namespace {

using Kind = Token::Kind;

constexpr std::string_view kSpace = " \t\n\r\f\v";

bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}
bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string with_unix_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  Result<std::vector<Token>> run() {
    while (at_ < source_.size()) {
      const size_t open = find_open();
      if (open == std::string_view::npos) {
        add_text(source_.substr(at_));
        advance(source_.size());
        break;
      }
      TRY(tag(open));
    }
    tokens_.push_back({Kind::kEnd, "", line_});
    return std::move(tokens_);
  }

 private:
  Error fail(std::string_view what) const {
    return errorf(Code::kInvalidArgument, "chat template, line {}: {}", line_, what);
  }
  size_t find_open() const {
    for (size_t i = source_.find('{', at_); i != std::string_view::npos;
         i = source_.find('{', i + 1)) {
      if (i + 1 < source_.size() && std::string_view("{%#").find(source_[i + 1]) !=
                                        std::string_view::npos) {
        return i;
      }
    }
    return std::string_view::npos;
  }
  void advance(size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(at_),
                                         source_.begin() + static_cast<ptrdiff_t>(to), '\n'));
    at_ = to;
  }
  void add_text(std::string_view text) {
    if (!text.empty()) tokens_.push_back({Kind::kText, std::string(text), line_});
  }

  // The text before a tag, after what the tag's opening says about it.
  std::string_view text_before(std::string_view text, char type, char sign) const {
    if (sign == '-') {
      const size_t last = text.find_last_not_of(kSpace);
      return text.substr(0, last == text.npos ? 0 : last + 1);
    }
    if (sign == '+' || type == '{') return text;
    const size_t line = text.rfind('\n') + 1;  // npos + 1 == 0
    if (line == 0 && !line_starting_) return text;
    const bool blank = text.find_first_not_of(kSpace, line) == text.npos;
    return blank ? text.substr(0, line) : text;
  }

  // Moves past the end of a tag whose closing (two bytes) is at `close`, and past what it takes
  // along: everything blank after "-", one newline after a block or comment.
  void close_tag(size_t close, char sign, bool trims_newline) {
    size_t to = close + 2;
    if (sign == '-') {
      to = std::min(source_.find_first_not_of(kSpace, to), source_.size());
    } else if (sign != '+' && trims_newline && to < source_.size() && source_[to] == '\n') {
      ++to;
    }
    advance(to);
    line_starting_ = source_[to - 1] == '\n';
  }
  char sign_before(size_t close) const {
    const char c = close > 0 ? source_[close - 1] : ' ';
    return c == '-' || c == '+' ? c : ' ';
  }

  Result<void> tag(size_t open) {
    const char type = source_[open + 1];
    const char mark = open + 2 < source_.size() ? source_[open + 2] : ' ';
    const char sign = mark == '-' || mark == '+' ? mark : ' ';
    add_text(text_before(source_.substr(at_, open - at_), type, sign));
    advance(open + 2 + (sign != ' ' ? 1 : 0));
    if (type == '#') {
      const size_t close = source_.find("#}", at_);
      if (close == std::string_view::npos) return fail("a comment '{#' is not closed");
      close_tag(close, close >= at_ ? sign_before(close) : ' ', true);
      return {};
    }
    if (type == '%' && is_raw_tag()) return raw();
    const bool block = type == '%';
    tokens_.push_back({block ? Kind::kBlockBegin : Kind::kOutputBegin, "", line_});
    TRY(inside(block ? "%}" : "}}", block));
    return {};
  }

  bool is_raw_tag() const {
    const size_t word = source_.find_first_not_of(kSpace, at_);
    if (word == std::string_view::npos || source_.substr(word, 3) != "raw") return false;
    const size_t next = source_.find_first_not_of(kSpace, word + 3);
    return next != std::string_view::npos &&
           (source_.substr(next).starts_with("%}") || source_.substr(next).starts_with("-%}"));
  }
  Result<void> raw() {
    const size_t close = source_.find("%}", at_);
    close_tag(close, sign_before(close), true);
    for (size_t open = source_.find("{%", at_); open != std::string_view::npos;
         open = source_.find("{%", open + 2)) {
      size_t word = open + 2;
      const char sign = word < source_.size() ? source_[word] : ' ';
      if (sign == '-' || sign == '+') ++word;
      word = source_.find_first_not_of(kSpace, word);
      if (word == std::string_view::npos || source_.substr(word, 6) != "endraw") continue;
      const size_t end = source_.find("%}", word);
      if (end == std::string_view::npos) break;
      add_text(text_before(source_.substr(at_, open - at_), '%', sign));
      advance(open);
      close_tag(end, sign_before(end), true);
      return {};
    }
    return fail("'{% raw %}' is not closed");
  }

  // Tokens up to `close`, which counts only outside brackets.
  Result<void> inside(std::string_view close, bool block) {
    std::vector<char> brackets;
    for (;;) {
      advance(std::min(source_.find_first_not_of(kSpace, at_), source_.size()));
      const std::string_view rest = source_.substr(at_);
      if (rest.empty()) return fail(format("a tag is not closed by '{}'", close));
      const bool signed_close =
          (rest[0] == '-' || rest[0] == '+') && rest.substr(1).starts_with(close);
      if (brackets.empty() && (rest.starts_with(close) || signed_close)) {
        tokens_.push_back({block ? Kind::kBlockEnd : Kind::kOutputEnd, "", line_});
        close_tag(at_ + (signed_close ? 1 : 0), signed_close ? rest[0] : ' ', block);
        return {};
      }
      if (is_name_start(rest[0])) {
        name(rest);
      } else if (is_digit(rest[0])) {
        number(rest);
      } else if (rest[0] == '"' || rest[0] == '\'') {
        TRY(string(rest));
      } else {
        TRY(op(rest, brackets));
      }
    }
  }

  void name(std::string_view rest) {
    size_t n = 1;
    while (n < rest.size() && (is_name_start(rest[n]) || is_digit(rest[n]))) ++n;
    tokens_.push_back({Kind::kName, std::string(rest.substr(0, n)), line_});
    advance(at_ + n);
  }

  void number(std::string_view rest) {
    size_t n = 0;
    bool is_float = false;
    const auto digits = [&] {
      while (n < rest.size() && (is_digit(rest[n]) || rest[n] == '_')) ++n;
    };
    const auto digit_at = [&](size_t i) { return i < rest.size() && is_digit(rest[i]); };
    digits();
    if (n < rest.size() && rest[n] == '.' && digit_at(n + 1)) {
      is_float = true;
      ++n;
      digits();
    }
    if (n < rest.size() && (rest[n] == 'e' || rest[n] == 'E')) {
      const size_t sign = n + 1 < rest.size() && (rest[n + 1] == '+' || rest[n + 1] == '-') ? 1 : 0;
      if (digit_at(n + 1 + sign)) {
        is_float = true;
        n += 1 + sign;
        digits();
      }
    }
    std::string text(rest.substr(0, n));
    std::erase(text, '_');
    tokens_.push_back({is_float ? Kind::kFloat : Kind::kInt, std::move(text), line_});
    advance(at_ + n);
  }

  Result<void> string(std::string_view rest) {
    std::string text;
    size_t i = 1;
    for (; i < rest.size() && rest[i] != rest[0]; ++i) {
      if (rest[i] != '\\' || i + 1 >= rest.size()) {
        text += rest[i];
        continue;
      }
      i = escape(rest, i + 1, text);
    }
    if (i >= rest.size()) return fail("a string is not closed");
    tokens_.push_back({Kind::kString, std::move(text), line_});
    advance(at_ + i + 1);
    return {};
  }

  // Appends what the escape at rest[i] (after the backslash) means; returns its last byte's place.
  static size_t escape(std::string_view rest, size_t i, std::string& text) {
    const char c = rest[i];
    static constexpr std::string_view kFrom = "nrtbfav0\\'\"";
    static constexpr std::string_view kTo("\n\r\t\b\f\a\v\0\\'\"", 11);
    if (const size_t k = kFrom.find(c); k != kFrom.npos) {
      text += kTo[k];
      return i;
    }
    const size_t width = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    char32_t code = 0;
    size_t n = 0;
    for (; n < width && i + 1 + n < rest.size(); ++n) {
      const char h = rest[i + 1 + n];
      const int digit = h >= '0' && h <= '9'   ? h - '0'
                        : h >= 'a' && h <= 'f' ? h - 'a' + 10
                        : h >= 'A' && h <= 'F' ? h - 'A' + 10
                                               : -1;
      if (digit < 0) break;
      code = code * 16 + static_cast<char32_t>(digit);
    }
    const bool valid = width > 0 && n == width && code <= 0x10ffff && (code & ~0x7ffu) != 0xd800;
    if (valid) {
      append_utf8(text, code);
      return i + width;
    }
    text += '\\';
    if (c != '\n') text += c;  // a backslash at the end of a line joins lines
    if (c == '\n') text.pop_back();
    return i;
  }

  Result<void> op(std::string_view rest, std::vector<char>& brackets) {
    static constexpr std::array<std::string_view, 26> kOperators = {
        "==", "!=", "<=", ">=", "//", "**", "+", "-", "*", "/", "%", "~", "<",
        ">",  "=",  ".",  ":",  "|",  ",",  "(", ")", "[", "]", "{", "}", ";"};
    for (const std::string_view text : kOperators) {
      if (!rest.starts_with(text)) continue;
      if (text == "(" || text == "[" || text == "{") brackets.push_back(text[0]);
      if (text == ")" || text == "]" || text == "}") {
        const char want = text == ")" ? '(' : text == "]" ? '[' : '{';
        if (brackets.empty() || brackets.back() != want) {
          return fail(format("'{}' closes nothing", text));
        }
        brackets.pop_back();
      }
      tokens_.push_back({Kind::kOperator, std::string(text), line_});
      advance(at_ + text.size());
      return {};
    }
    return fail(format("'{}' is not expected in a tag", to_valid_utf8(rest.substr(0, 1))));
  }

  std::string_view source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

Result<std::vector<Token>> lex(std::string_view source) {
  const std::string text = with_unix_newlines(source);
  return Lexer(text).run();
}

}  // namespace towline::engine::jinja
