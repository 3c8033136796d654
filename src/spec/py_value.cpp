// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/py_value.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "base/fmt.hpp"

namespace towline::spec {
namespace {

constexpr int kMaxNesting = 64;

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

constexpr std::pair<std::string_view, int64_t> kWholeUnits[] = {
    {"Byte", 1},     {"KB", 1'000},       {"MB", 1'000'000},       {"GB", 1'000'000'000},
    {"kbps", 1'000}, {"mbps", 1'000'000}, {"gbps", 1'000'000'000}, {"Sec", 1},
};

class Evaluator {
 public:
  explicit Evaluator(std::string_view text) : text_(text) {}

  Result<PyNumber> run() {
    ASSIGN_OR_RETURN(const PyNumber value, sum());
    skip_space();
    if (at_ < text_.size()) return unexpected();
    if (!std::isfinite(value.value())) return too_large();
    return value;
  }

 private:
  Result<PyNumber> sum() {
    ASSIGN_OR_RETURN(PyNumber left, product());
    while (true) {
      const char op = peek();
      if (op != '+' && op != '-') return left;
      ++at_;
      ASSIGN_OR_RETURN(const PyNumber right, product());
      ASSIGN_OR_RETURN(left, combine(op, left, right));
    }
  }

  Result<PyNumber> product() {
    ASSIGN_OR_RETURN(PyNumber left, factor());
    while (true) {
      const char op = peek();
      if (op != '*' && op != '/') return left;
      ++at_;
      ASSIGN_OR_RETURN(const PyNumber right, factor());
      ASSIGN_OR_RETURN(left, combine(op, left, right));
    }
  }

  Result<PyNumber> factor() {
    const char c = peek();
    if (c == '-' || c == '+' || c == '(') {
      if (++depth_ > kMaxNesting) {
        return Error(Code::kInvalidArgument, "the expression is nested too deeply; simplify it");
      }
      ++at_;
      ASSIGN_OR_RETURN(PyNumber value, c == '(' ? sum() : factor());
      --depth_;
      if (c == '(') {
        if (peek() != ')') return unexpected();
        ++at_;
      } else if (c == '-') {
        if (value.integer == INT64_MIN) return too_large();
        value.integer = -value.integer;
        value.real = -value.real;
      }
      return value;
    }
    if (is_digit(c) || c == '.') return number();
    if (is_letter(c)) return unit();
    return unexpected();
  }

  Result<PyNumber> number() {
    const char* begin = text_.data() + at_;
    const char* end = text_.data() + text_.size();
    PyNumber value;
    const auto whole = std::from_chars(begin, end, value.integer);
    const bool more =
        whole.ptr < end && (*whole.ptr == '.' || *whole.ptr == 'e' || *whole.ptr == 'E');
    if (whole.ec == std::errc() && !more) {
      at_ += static_cast<size_t>(whole.ptr - begin);
      return value;
    }
    double real = 0;
    const auto parsed = std::from_chars(begin, end, real);
    if (parsed.ec == std::errc::result_out_of_range) return too_large();
    if (parsed.ec != std::errc()) return unexpected();
    at_ += static_cast<size_t>(parsed.ptr - begin);
    return PyNumber::of(real);
  }

  Result<PyNumber> unit() {
    const size_t begin = at_;
    while (at_ < text_.size() && (is_letter(text_[at_]) || is_digit(text_[at_]))) ++at_;
    const std::string_view name = text_.substr(begin, at_ - begin);
    if (name == "MilliSec") return PyNumber::of(1e-3);
    for (const auto& [unit_name, value] : kWholeUnits) {
      if (name == unit_name) return PyNumber::of(value);
    }
    return errorf(Code::kInvalidArgument,
                  "'{}' is not a unit; use Byte, KB, MB, GB, kbps, mbps, gbps, Sec or MilliSec",
                  name);
  }

  Result<PyNumber> combine(char op, const PyNumber& a, const PyNumber& b) const {
    if (op == '/') {
      if (b.value() == 0) {
        return Error(Code::kInvalidArgument, "division by zero; correct the expression");
      }
      return PyNumber::of(a.value() / b.value());
    }
    if (a.is_integer && b.is_integer) {
      int64_t result = 0;
      const bool overflow = op == '+'   ? __builtin_add_overflow(a.integer, b.integer, &result)
                            : op == '-' ? __builtin_sub_overflow(a.integer, b.integer, &result)
                                        : __builtin_mul_overflow(a.integer, b.integer, &result);
      if (overflow) return too_large();
      return PyNumber::of(result);
    }
    const double x = a.value();
    const double y = b.value();
    return PyNumber::of(op == '+' ? x + y : op == '-' ? x - y : x * y);
  }

  char peek() {
    skip_space();
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  void skip_space() {
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
  }
  Error unexpected() const {
    if (at_ >= text_.size()) {
      return Error(Code::kInvalidArgument, "the value ends where a number is wanted");
    }
    return errorf(Code::kInvalidArgument, "'{}' is not a number with a unit, like 10 * gbps",
                  text_.substr(at_, 40));
  }
  static Error too_large() {
    return Error(Code::kInvalidArgument, "the value is too large for any machine; correct it");
  }

  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

std::string PyNumber::repr() const { return is_integer ? std::to_string(integer) : py_repr(real); }

Result<PyNumber> evaluate_py(std::string_view expression) { return Evaluator(expression).run(); }

std::string py_repr(double value) {
  if (!std::isfinite(value)) return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
  // Python switches to an exponent below 1e-4 and from 1e16 on.
  const double size = std::fabs(value);
  const bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
  std::array<char, 64> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                 plain ? std::chars_format::fixed : std::chars_format::scientific);
  std::string text(buffer.data(), end.ptr);
  if (plain && text.find('.') == std::string::npos) text += ".0";
  return text;
}

Result<std::vector<PyItem>> parse_py_list(std::string_view text) {
  const auto fail = [&](size_t at) {
    return errorf(Code::kInvalidArgument, "'{}' is not part of a list like [0, 1, 'sink']",
                  text.substr(std::min(at, text.size()), 40));
  };
  size_t at = 0;
  const auto skip = [&] {
    while (at < text.size() && is_space(text[at])) ++at;
  };
  const auto next = [&] {
    skip();
    return at < text.size() ? text[at] : '\0';
  };
  if (next() != '[') return fail(at);
  ++at;
  std::vector<PyItem> items;
  while (next() != ']') {
    if (!items.empty()) {
      if (next() != ',') return fail(at);
      ++at;
      if (next() == ']') break;  // Python allows a comma at the end
    }
    PyItem item;
    const char c = next();
    if (c == '\'' || c == '"') {
      const size_t end = text.find(c, at + 1);
      if (end == std::string_view::npos) return fail(at);
      item.is_string = true;
      item.text = text.substr(at + 1, end - at - 1);
      at = end + 1;
    } else {
      const auto parsed =
          std::from_chars(text.data() + at, text.data() + text.size(), item.integer);
      if (parsed.ec != std::errc()) return fail(at);
      at = static_cast<size_t>(parsed.ptr - text.data());
    }
    items.push_back(std::move(item));
  }
  ++at;
  skip();
  if (at < text.size()) return fail(at);
  return items;
}

std::string print_py_list(const std::vector<PyItem>& items) {
  std::string text = "[";
  for (const PyItem& item : items) {
    if (text.size() > 1) text += ", ";
    // As Python does: no text that was read holds both kinds of quotes.
    const char quote = item.text.find('\'') == std::string::npos ? '\'' : '"';
    text += item.is_string ? quote + item.text + quote : std::to_string(item.integer);
  }
  return text + "]";
}

}  // namespace towline::spec
