// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Result<T>: the value of an operation that may fail, or an Error saying why.
//
// Three kinds of trouble, three mechanisms (docs/architecture.md, "Errors"):
//   expected failure  -> Result<T>           (this file)
//   a bug             -> CHECK               (base/check.hpp)
//   the world changed -> an Event for policy (never an Error)
//
// The interface follows std::expected, which g++ 12 offers only in C++23 mode and without monadic
// operations. An Error is one pointer; null means "no error", so success costs nothing.
// Not thread-safe; a Result is a value and moves like one.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace towline {

// The kinds of failure a caller can act on. Each maps 1:1 to an HTTP status and a process exit
// code (http_status / exit_code below; the one table, tested in result_test.cpp).
enum class Code {
  kInvalidArgument,   // the caller's input is wrong; trying again unchanged cannot help
  kNotFound,          // the named thing does not exist
  kAlreadyExists,     // the named thing exists and must not be replaced
  kPermissionDenied,  // missing or wrong credentials
  kDataCorrupt,       // a file or message breaks its own format
  kUnsupported,       // well-formed, but a feature that this build does not have
  kExhausted,         // out of memory, KV blocks, queue places, disk...
  kUnavailable,       // not now (starting, draining, peer gone); trying later may help
  kDeadline,          // took longer than allowed
  kCancelled,         // the caller asked to stop
  kIo,                // the operating system refused
  kInternal,          // a bug that was contained
};

std::string_view code_name(Code code);
int http_status(Code code);  // e.g. kInvalidArgument -> 400
int exit_code(Code code);    // e.g. kInvalidArgument -> 2; always in 1..125

template <class T>
class Result;

// One clear sentence that names the thing, the value and the remedy, plus where it happened.
class [[nodiscard]] Error {
 public:
  Error(Code code, std::string message)
      : rep_(std::make_unique<Rep>(Rep{code, std::move(message), {}})) {}
  Error(const Error& other) : rep_(other.rep_ ? std::make_unique<Rep>(*other.rep_) : nullptr) {}
  Error(Error&&) noexcept = default;
  Error& operator=(Error other) noexcept {
    rep_ = std::move(other.rep_);
    return *this;
  }

  Code code() const { return rep_->code; }
  const std::string& message() const { return rep_->message; }

  // Adds an outer "where": Error("bad magic").context("loading a.gguf") reads
  // "loading a.gguf: bad magic". Returns *this so that it chains.
  Error&& context(std::string_view where) &&;

  // "context: context: message"
  std::string to_string() const;

 private:
  template <class T>
  friend class Result;
  Error() = default;  // "no error", inside a Result that holds a value
  struct Rep {
    Code code;
    std::string message;
    std::string where;
  };
  std::unique_ptr<Rep> rep_;
};

// Error with a fmt-formatted message is in base/fmt.hpp: errorf(Code, "layer {} ...", i).

template <class T>
class [[nodiscard]] Result {
 public:
  using value_type = T;
  Result(T value) : value_(std::move(value)) {}         // NOLINT: implicit by design
  Result(Error error) : error_(std::move(error)) {}     // NOLINT: implicit by design
  template <class U>
    requires(std::is_convertible_v<U &&, T> && !std::is_same_v<std::decay_t<U>, Error> &&
             !std::is_same_v<std::decay_t<U>, Result> && !std::is_same_v<std::decay_t<U>, T>)
  Result(U&& value) : value_(std::forward<U>(value)) {}  // NOLINT: implicit by design

  bool has_value() const { return error_.rep_ == nullptr; }
  explicit operator bool() const { return has_value(); }

  T& value() & { return *value_; }
  const T& value() const& { return *value_; }
  T&& value() && { return *std::move(value_); }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T&& operator*() && { return *std::move(value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }
  T value_or(T other) && { return has_value() ? *std::move(value_) : std::move(other); }

  Error& error() & { return error_; }
  const Error& error() const& { return error_; }
  Error&& error() && { return std::move(error_); }

  // Adds an outer "where" when this is an error; a value passes through untouched.
  Result&& context(std::string_view where) && {
    if (error_.rep_) std::move(error_).context(where);
    return std::move(*this);
  }

 private:
  std::optional<T> value_;
  Error error_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  using value_type = void;
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT: implicit by design

  bool has_value() const { return error_.rep_ == nullptr; }
  explicit operator bool() const { return has_value(); }
  void value() const {}
  Error& error() & { return error_; }
  const Error& error() const& { return error_; }
  Error&& error() && { return std::move(error_); }
  Result&& context(std::string_view where) && {
    if (error_.rep_) std::move(error_).context(where);
    return std::move(*this);
  }

 private:
  Error error_;
};

}  // namespace towline

#define TOWLINE_CONCAT_INNER(a, b) a##b
#define TOWLINE_CONCAT(a, b) TOWLINE_CONCAT_INNER(a, b)

// Returns from the enclosing function when `expr` (a Result) holds an error.
#define TRY(expr)                                                \
  do {                                                           \
    if (auto towline_try_result = (expr); !towline_try_result)   \
      return std::move(towline_try_result).error();              \
  } while (false)

// ASSIGN_OR_RETURN(auto x, f()): x = value of f(), or returns its error.
#define ASSIGN_OR_RETURN(lhs, expr) \
  ASSIGN_OR_RETURN_INNER(TOWLINE_CONCAT(towline_result_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_INNER(tmp, lhs, expr)   \
  auto tmp = (expr);                             \
  if (!tmp) return std::move(tmp).error();       \
  lhs = std::move(tmp).value()
