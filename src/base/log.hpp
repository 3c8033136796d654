// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Logging: one line per event on stderr, as logfmt (`ts level who msg k=v ...`) or as JSON lines.
//
//   log_info("serve", "listening", {{"url", url}, {"threads", threads}});
//
// Each failure is logged once, by whoever handles it. Policy code does not log; it emits notes.
// Thread-safe. spdlog (compiled) is behind log.cpp and nowhere else.
#pragma once

#include <fmt/core.h>

#include <initializer_list>
#include <string>
#include <string_view>

namespace towline {

enum class LogLevel { kDebug, kInfo, kWarn, kError, kOff };

struct LogField {
  std::string_view key;
  std::string value;
  template <class T>
  LogField(std::string_view k, const T& v) : key(k), value(fmt::format("{}", v)) {}
};

struct LogOptions {
  LogLevel level = LogLevel::kInfo;
  bool json = false;
};

// Call once, at the start of main, before threads exist.
void init_log(const LogOptions& options);
bool log_enabled(LogLevel level);

void log_line(LogLevel level, std::string_view who, std::string_view message,
              std::initializer_list<LogField> fields);

inline void log_debug(std::string_view who, std::string_view message,
                      std::initializer_list<LogField> fields = {}) {
  if (log_enabled(LogLevel::kDebug)) log_line(LogLevel::kDebug, who, message, fields);
}
inline void log_info(std::string_view who, std::string_view message,
                     std::initializer_list<LogField> fields = {}) {
  log_line(LogLevel::kInfo, who, message, fields);
}
inline void log_warn(std::string_view who, std::string_view message,
                     std::initializer_list<LogField> fields = {}) {
  log_line(LogLevel::kWarn, who, message, fields);
}
inline void log_error(std::string_view who, std::string_view message,
                      std::initializer_list<LogField> fields = {}) {
  log_line(LogLevel::kError, who, message, fields);
}

}  // namespace towline
