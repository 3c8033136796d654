// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/helix_log.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>

#include "base/fmt.hpp"
#include "spec/py_value.hpp"

namespace towline::spec {
namespace {

constexpr size_t kLongestLine = 1 << 20;
constexpr int64_t kMostTokens = 1'000'000'000;

// Walks over one tuple. Each take_ says what it wanted if it is not there.
class TupleCursor {
 public:
  explicit TupleCursor(std::string_view text) : text_(text) {}

  Result<void> take(char wanted) {
    skip_blanks();
    if (at_ >= text_.size() || text_[at_] != wanted) return fault(format("'{}'", wanted));
    ++at_;
    return {};
  }
  bool peek(char c) {
    skip_blanks();
    return at_ < text_.size() && text_[at_] == c;
  }
  template <class Number>
  Result<Number> take_number(std::string_view what) {
    skip_blanks();
    Number value{};
    const char* begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
    if (error != std::errc() || !std::isfinite(static_cast<double>(value))) return fault(what);
    at_ += static_cast<size_t>(end - begin);
    return value;
  }
  Result<std::string_view> take_word() {
    skip_blanks();
    if (at_ >= text_.size() || (text_[at_] != '\'' && text_[at_] != '"')) return fault("a string");
    const size_t end = text_.find(text_[at_], at_ + 1);
    if (end == std::string_view::npos) return fault("the end of a string");
    const std::string_view word = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return word;
  }
  Result<std::vector<int32_t>> take_list() {
    TRY(take('['));
    std::vector<int32_t> items;
    while (!peek(']')) {
      if (!items.empty()) TRY(take(','));
      ASSIGN_OR_RETURN(const int32_t item, take_number<int32_t>("a whole number"));
      items.push_back(item);
    }
    TRY(take(']'));
    return items;
  }
  Result<void> finish() {
    TRY(take(')'));
    skip_blanks();
    if (at_ < text_.size()) return fault("the end of the line");
    return {};
  }

 private:
  void skip_blanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\r')) {
      ++at_;
    }
  }
  Error fault(std::string_view wanted) const {
    return Error(Code::kInvalidArgument,
                 format("column {}: {} is wanted, found '{}'", at_ + 1, wanted,
                        text_.substr(std::min(at_, text_.size()), 20)));
  }
  std::string_view text_;
  size_t at_ = 0;
};

Result<void> read_lines(const std::string& path,
                        const std::function<Result<void>(std::string_view)>& each) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Error(Code::kNotFound, format("{}: cannot be read", path));
  std::vector<char> buffer(kLongestLine + 1);
  const auto more = [&] {
    return file.getline(buffer.data(), static_cast<std::streamsize>(buffer.size())).gcount() > 0;
  };
  for (int64_t number = 1; more(); ++number) {
    if (file.fail()) {
      return errorf(Code::kInvalidArgument, "{}:{}: a line of more than {} bytes is no log entry",
                    path, number, kLongestLine);
    }
    // The last line may have no end.
    const auto count = static_cast<size_t>(file.gcount());
    const std::string_view line(buffer.data(), file.eof() ? count : count - 1);
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    if (Result<void> done = each(line); !done) {
      return std::move(done).error().context(format("{}:{}", path, number));
    }
  }
  return {};
}

HelixLogSummary::Phase phase_of(std::vector<double> values) {
  HelixLogSummary::Phase phase;
  phase.count = static_cast<int64_t>(values.size());
  if (values.empty()) return phase;
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {  // linear between neighbours, as numpy's percentile
    const double place = share * static_cast<double>(values.size() - 1);
    const auto low = static_cast<size_t>(place);
    const size_t high = std::min(low + 1, values.size() - 1);
    return values[low] + (values[high] - values[low]) * (place - static_cast<double>(low));
  };
  double sum = 0;
  for (const double v : values) sum += v;
  phase.mean = sum / static_cast<double>(values.size());
  phase.p5 = at(0.05);
  phase.p25 = at(0.25);
  phase.p50 = at(0.5);
  phase.p75 = at(0.75);
  phase.p95 = at(0.95);
  return phase;
}

}  // namespace

namespace {

// Sums over any log stay far from the ends of their type.
Result<void> check_tokens(int64_t tokens, std::string_view what) {
  if (tokens >= 0 && tokens <= kMostTokens) return {};
  return errorf(Code::kInvalidArgument, "{} of {} tokens; 0 to {} are possible", what, tokens,
                kMostTokens);
}

}  // namespace

Result<HelixEvent> parse_helix_event(std::string_view line) {
  TupleCursor cursor(line);
  HelixEvent event;
  TRY(cursor.take('('));
  ASSIGN_OR_RETURN(event.time, cursor.take_number<double>("a time in seconds"));
  TRY(cursor.take(','));
  ASSIGN_OR_RETURN(event.request, cursor.take_number<int64_t>("a request number"));
  TRY(cursor.take(','));
  ASSIGN_OR_RETURN(const std::string_view direction, cursor.take_word());
  TRY(cursor.take(','));
  ASSIGN_OR_RETURN(const std::string_view phase, cursor.take_word());
  TRY(cursor.take(','));
  ASSIGN_OR_RETURN(event.context, cursor.take_number<int64_t>("a context length"));
  TRY(cursor.take(','));
  ASSIGN_OR_RETURN(event.tokens, cursor.take_number<int64_t>("a number of tokens"));
  TRY(cursor.finish());
  if (direction != "in" && direction != "out") {
    return Error(Code::kInvalidArgument,
                 format("direction '{}' is neither 'in' nor 'out'", direction));
  }
  if (phase != "prompt" && phase != "decode") {
    return Error(Code::kInvalidArgument,
                 format("phase '{}' is neither 'prompt' nor 'decode'", phase));
  }
  TRY(check_tokens(event.context, "a context"));
  TRY(check_tokens(event.tokens, "an iteration"));
  event.result = direction == "in";
  event.prompt = phase == "prompt";
  return event;
}

Result<HelixRoute> parse_helix_route(std::string_view line) {
  TupleCursor cursor(line);
  HelixRoute route;
  TRY(cursor.take('('));
  ASSIGN_OR_RETURN(route.request, cursor.take_number<int64_t>("a request number"));
  TRY(cursor.take(','));
  ASSIGN_OR_RETURN(route.input, cursor.take_number<int64_t>("the prompt's tokens"));
  TRY(cursor.take(','));
  ASSIGN_OR_RETURN(route.output, cursor.take_number<int64_t>("the output's tokens"));
  TRY(cursor.take(','));
  ASSIGN_OR_RETURN(const std::vector<int32_t> machines, cursor.take_list());
  TRY(cursor.take(','));
  ASSIGN_OR_RETURN(const std::vector<int32_t> first, cursor.take_list());
  TRY(cursor.take(','));
  ASSIGN_OR_RETURN(const std::vector<int32_t> end, cursor.take_list());
  TRY(cursor.finish());
  TRY(check_tokens(route.input, "a prompt"));
  TRY(check_tokens(route.output, "an output"));
  if (machines.size() != first.size() || machines.size() != end.size()) {
    return Error(Code::kInvalidArgument,
                 format("{} machines, {} first and {} end layers: the lists must be equally long",
                        machines.size(), first.size(), end.size()));
  }
  if (machines.empty() || machines.back() != 0) {
    return Error(Code::kInvalidArgument, "the route does not end at machine 0, the coordinator");
  }
  for (size_t i = 0; i + 1 < machines.size(); ++i) {
    route.stops.push_back({machines[i], {first[i], end[i]}});
  }
  return route;
}

std::string print_helix_event(const HelixEvent& e) {
  return format("({}, {}, '{}', '{}', {}, {})\n", py_repr(e.time), e.request,
                e.result ? "in" : "out", e.prompt ? "prompt" : "decode", e.context, e.tokens);
}

std::string print_helix_route(const HelixRoute& route) {
  std::string machines, first, end;
  for (const HelixRoute::Stop& stop : route.stops) {
    machines += format("{}, ", stop.machine);
    first += format("{}, ", stop.layers.begin);
    end += format("{}, ", stop.layers.end);
  }
  return format("({}, {}, {}, [{}0], [{}-1], [{}-1])\n", route.request, route.input, route.output,
                machines, first, end);
}

Result<void> read_helix_events(const std::string& path,
                               const std::function<void(const HelixEvent&)>& each) {
  return read_lines(path, [&](std::string_view line) -> Result<void> {
    ASSIGN_OR_RETURN(const HelixEvent event, parse_helix_event(line));
    each(event);
    return {};
  });
}

Result<std::vector<HelixRoute>> load_helix_routes(const std::string& path) {
  std::vector<HelixRoute> routes;
  TRY(read_lines(path, [&](std::string_view line) -> Result<void> {
    ASSIGN_OR_RETURN(HelixRoute route, parse_helix_route(line));
    routes.push_back(std::move(route));
    return {};
  }));
  return routes;
}

void HelixLogStatistics::add(const HelixEvent& event) {
  if (!event.result) {
    requests_ += event.prompt ? 1 : 0;
    launched_[{event.request, event.context}] = event.time;
    return;
  }
  const auto launch = launched_.find({event.request, event.context});
  if (launch == launched_.end()) return;  // a result of before the log began
  const double taken = event.time - launch->second;
  launched_.erase(launch);
  const bool inside = begin_ <= event.time && event.time <= end_;
  if (event.prompt) {
    if (inside) prompt_.push_back(taken);
    return;
  }
  const auto [last, is_first] = last_decode_.try_emplace(event.request, event.time);
  if (inside) {
    if (decode_.empty()) first_ = event.time;
    last_ = event.time;
    decode_.push_back(taken);
    if (!is_first) between_.push_back(event.time - last->second);
  }
  last->second = event.time;
}

HelixLogSummary HelixLogStatistics::summary() const {
  HelixLogSummary s;
  s.begin = begin_;
  s.end = end_;
  s.requests = requests_;
  s.finished_prompts = static_cast<int64_t>(prompt_.size());
  s.prompt = phase_of(prompt_);
  s.decode = phase_of(decode_);
  s.between_decodes = phase_of(between_);
  s.unanswered = static_cast<int64_t>(launched_.size());
  if (last_ > first_) s.decode_tps = static_cast<double>(decode_.size()) / (last_ - first_);
  return s;
}

}  // namespace towline::spec
