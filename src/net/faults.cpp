// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "net/faults.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "base/fmt.hpp"
#include "base/rng.hpp"

namespace towline::net {
namespace {

// "1.5ms" -> 1.5 and "ms".
bool split_number(std::string_view text, double* number, std::string_view* unit) {
  const std::string copy(text);
  char* end = nullptr;
  *number = std::strtod(copy.c_str(), &end);
  const auto used = static_cast<size_t>(end - copy.c_str());
  *unit = text.substr(used);
  return used > 0 && std::isfinite(*number) && *number >= 0;
}

Result<Duration> parse_time(std::string_view key, std::string_view text) {
  double number = 0;
  std::string_view unit;
  const bool ok = split_number(text, &number, &unit);
  const double scale = unit == "us" ? 1e3 : unit == "ms" ? 1e6 : unit == "s" ? 1e9 : 0;
  if (!ok || scale == 0 || number * scale > 1e15) {
    return errorf(Code::kInvalidArgument,
                  "fault '{}={}': a time such as 50ms, 200us or 1s is needed", key, text);
  }
  return Duration(static_cast<int64_t>(number * scale));
}

Result<double> parse_rate(std::string_view text) {
  double number = 0;
  std::string_view unit;
  const bool ok = split_number(text, &number, &unit);
  static constexpr struct { std::string_view name; double bytes; } kUnits[] = {
      {"bit", 1.0 / 8}, {"kbit", 1e3 / 8}, {"Mbit", 1e6 / 8}, {"Gbit", 1e9 / 8},
      {"B", 1},         {"kB", 1e3},       {"MB", 1e6},       {"GB", 1e9}};
  for (const auto& candidate : kUnits) {
    if (ok && unit == candidate.name && number > 0) return number * candidate.bytes;
  }
  return errorf(Code::kInvalidArgument, "fault 'rate={}': a rate such as 100Mbit or 12MB is needed",
                text);
}

Result<double> parse_probability(std::string_view key, std::string_view text) {
  double number = 0;
  std::string_view unit;
  if (!split_number(text, &number, &unit) || !unit.empty() || number > 1) {
    return errorf(Code::kInvalidArgument, "fault '{}={}': a probability from 0 to 1 is needed", key,
                  text);
  }
  return number;
}

constexpr Duration kReorderBy = milliseconds(2);

}  // namespace

bool Faults::any() const {
  return delay > Duration(0) || jitter > Duration(0) || bytes_per_second > 0 || loss > 0 ||
         duplicate > 0 || reorder > 0 || corrupt > 0 || cut > 0;
}

Result<Faults> parse_faults(std::string_view text) {
  Faults f;
  while (!text.empty()) {
    const std::string_view item = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    const size_t equals = item.find('=');
    const std::string_view key = item.substr(0, equals);
    const std::string_view value =
        equals == std::string_view::npos ? std::string_view() : item.substr(equals + 1);
    if (key == "delay") {
      ASSIGN_OR_RETURN(f.delay, parse_time(key, value));
    } else if (key == "jitter") {
      ASSIGN_OR_RETURN(f.jitter, parse_time(key, value));
    } else if (key == "rate") {
      ASSIGN_OR_RETURN(f.bytes_per_second, parse_rate(value));
    } else if (key == "loss") {
      ASSIGN_OR_RETURN(f.loss, parse_probability(key, value));
    } else if (key == "duplicate") {
      ASSIGN_OR_RETURN(f.duplicate, parse_probability(key, value));
    } else if (key == "reorder") {
      ASSIGN_OR_RETURN(f.reorder, parse_probability(key, value));
    } else if (key == "corrupt") {
      ASSIGN_OR_RETURN(f.corrupt, parse_probability(key, value));
    } else if (key == "cut") {
      ASSIGN_OR_RETURN(f.cut, parse_probability(key, value));
    } else if (key == "seed") {
      const std::string digits(value);
      char* end = nullptr;
      f.seed = std::strtoull(digits.c_str(), &end, 10);
      if (digits.empty() || *end != '\0') {
        return errorf(Code::kInvalidArgument, "fault 'seed={}': a whole number is needed", value);
      }
    } else {
      return errorf(Code::kInvalidArgument,
                    "fault '{}' does not exist; there are delay, jitter, rate, loss, duplicate, "
                    "reorder, corrupt, cut and seed", key);
    }
  }
  return f;
}

std::string to_string(const Faults& f) {
  std::string out;
  const auto add = [&](std::string_view key, const std::string& value) {
    out += format("{}{}={}", out.empty() ? "" : ",", key, value);
  };
  if (f.delay > Duration(0)) add("delay", format("{}us", static_cast<double>(f.delay.value) / 1e3));
  if (f.jitter > Duration(0)) {
    add("jitter", format("{}us", static_cast<double>(f.jitter.value) / 1e3));
  }
  if (f.bytes_per_second > 0) add("rate", format("{}B", f.bytes_per_second));
  if (f.loss > 0) add("loss", format("{}", f.loss));
  if (f.duplicate > 0) add("duplicate", format("{}", f.duplicate));
  if (f.reorder > 0) add("reorder", format("{}", f.reorder));
  if (f.corrupt > 0) add("corrupt", format("{}", f.corrupt));
  if (f.cut > 0) add("cut", format("{}", f.cut));
  if (f.seed != 1) add("seed", format("{}", f.seed));
  return out;
}

FaultyEgress::FaultyEgress(const Faults& faults, std::string_view peer)
    : faults_(faults), key_(mix64(faults.seed)) {
  for (const char c : peer) key_ = mix64(key_ ^ static_cast<uint8_t>(c));
}

FaultyEgress::Fate FaultyEgress::next(Instant now, size_t frame_bytes) {
  const uint64_t base = counter_;
  counter_ += 8;  // a fixed number of draws a frame, so that one fault does not shift another
  const auto draw = [&](uint64_t which) { return to_unit(random_at(key_, base + which)); };
  Fate fate;
  fate.cut = draw(0) < faults_.cut;
  Instant left = now;
  if (faults_.bytes_per_second > 0) {
    const double wire_seconds = static_cast<double>(frame_bytes) / faults_.bytes_per_second;
    left = line_free_ =
        std::max(now, line_free_) + Duration(static_cast<int64_t>(wire_seconds * 1e9));
  }
  const auto jitter = [&](uint64_t which) {
    return Duration(static_cast<int64_t>(draw(which) * static_cast<double>(faults_.jitter.value)));
  };
  const Instant due = std::max(left + faults_.delay + jitter(1), last_due_);
  if (draw(2) < faults_.reorder) {
    fate.due[0] = due + kReorderBy + jitter(3);
  } else {
    fate.due[0] = last_due_ = due;
  }
  fate.due[1] = due + jitter(4);
  if (draw(5) < faults_.duplicate) fate.copies = 2;
  if (draw(6) < faults_.loss) fate.copies = 0;
  const double corrupt = draw(7);
  if (corrupt < faults_.corrupt) {
    fate.flip_bit = static_cast<int64_t>(random_at(key_ ^ 1, base) % (frame_bytes * 8));
  }
  return fate;
}

}  // namespace towline::net
