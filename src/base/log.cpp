// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "base/log.hpp"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>

#include "base/json.hpp"

namespace towline {
namespace {

struct State {
  std::shared_ptr<spdlog::logger> logger;
  bool json = false;
};

State& state() {
  static State s = [] {
    State fresh;
    fresh.logger = std::make_shared<spdlog::logger>(
        "towline", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    fresh.logger->set_pattern("ts=%Y-%m-%dT%H:%M:%S.%e%z level=%l %v");
    return fresh;
  }();
  return s;
}

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return spdlog::level::debug;
    case LogLevel::kInfo: return spdlog::level::info;
    case LogLevel::kWarn: return spdlog::level::warn;
    case LogLevel::kError: return spdlog::level::err;
    case LogLevel::kOff: return spdlog::level::off;
  }
  return spdlog::level::info;
}

void append_logfmt_value(std::string& line, std::string_view value) {
  const bool plain = !value.empty() && value.find_first_of(" =\"\n\t") == std::string_view::npos;
  if (plain) {
    line += value;
  } else {
    append_json_string(line, value);
  }
}

}  // namespace

void init_log(const LogOptions& options) {
  State& s = state();
  s.json = options.json;
  s.logger->set_level(to_spdlog(options.level));
  if (options.json) s.logger->set_pattern(R"({"ts":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l",%v})");
}

bool log_enabled(LogLevel level) { return state().logger->should_log(to_spdlog(level)); }

void log_line(LogLevel level, std::string_view who, std::string_view message,
              std::initializer_list<LogField> fields) {
  if (!log_enabled(level)) return;
  const bool json = state().json;
  std::string line = json ? "\"who\":" : "who=";
  if (json) {
    append_json_string(line, who);
    line += ",\"msg\":";
    append_json_string(line, message);
  } else {
    line += who;
    line += " msg=";
    append_json_string(line, message);
  }
  for (const LogField& field : fields) {
    if (json) {
      line += ',';
      append_json_string(line, field.key);
      line += ':';
      append_json_string(line, field.value);
    } else {
      line += ' ';
      line += field.key;
      line += '=';
      append_logfmt_value(line, field.value);
    }
  }
  state().logger->log(to_spdlog(level), spdlog::string_view_t(line));
}

}  // namespace towline
