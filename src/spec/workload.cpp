// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/workload.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <numbers>

#include "base/fmt.hpp"
#include "base/json.hpp"
#include "spec/csv.hpp"

namespace towline::spec {
namespace {

constexpr size_t kBlock = 1 << 16;
constexpr size_t kLongestLine = 16 << 20;
constexpr size_t kLargestPairs = 256 << 20;
constexpr double kLongestTrace = 4e18;  // nanoseconds
constexpr int32_t kHashedTokens = 512;  // that one of Mooncake's hashes stands for

struct Column {
  std::string_view name;
  double scale;  // arrivals: nanoseconds of a unit; 0: a date
};
constexpr std::array kArrivalColumns = {Column{"TIMESTAMP", 0}, Column{"arrived_at", 1e9},
                                        Column{"arrival_timestamp", 1e9}};
constexpr std::array kInputColumns = {std::string_view("ContextTokens"),
                                      std::string_view("num_prefill_tokens"),
                                      std::string_view("prompt_size"),
                                      std::string_view("input_tokens")};
constexpr std::array kOutputColumns = {std::string_view("GeneratedTokens"),
                                       std::string_view("num_decode_tokens"),
                                       std::string_view("token_size"),
                                       std::string_view("output_tokens")};

}  // namespace

std::optional<int64_t> trace_clock(std::string_view text) {
  const auto digits = [&](size_t at, size_t count) -> int {
    if (text.size() < at + count) return -1;
    int value = 0;
    for (size_t i = at; i < at + count; ++i) {
      if (text[i] < '0' || text[i] > '9') return -1;
      value = value * 10 + (text[i] - '0');
    }
    return value;
  };
  const int year = digits(0, 4), month = digits(5, 2), day = digits(8, 2);
  const int hour = digits(11, 2), minute = digits(14, 2), second = digits(17, 2);
  if (year < 1970 || year > 2200 || month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 ||
      hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60) {
    return std::nullopt;
  }
  // Days since 2020-01-01, in the proleptic Gregorian calendar (Hinnant's algorithm).
  const int y = month <= 2 ? year - 1 : year;
  const int era = y / 400, yoe = y - era * 400;
  const int doy = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  const int64_t days = int64_t{era} * 146'097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 737'425;
  double fraction = 0;
  if (text.size() > 20 && text[19] == '.') {
    const size_t end = std::min(text.find_first_not_of("0123456789", 20), text.size());
    fraction = csv_number("0." + std::string(text.substr(20, end - 20))).value_or(0);
  }
  const int64_t seconds = days * 86'400 + hour * 3'600 + minute * 60 + second;
  return seconds * 1'000'000'000 + std::llround(fraction * 1e9);
}

Error TraceReader::fault(std::string_view what) const {
  return errorf(Code::kInvalidArgument, "{}:{}: {}", source_, line_number_, what);
}

Result<TraceReader> TraceReader::open(const std::string& path) {
  TraceReader reader;
  reader.source_ = path;
  reader.file_.reset(std::fopen(path.c_str(), "rb"));
  if (reader.file_ == nullptr) {
    return errorf(errno == ENOENT ? Code::kNotFound : Code::kIo, "cannot open '{}': {}", path,
                  std::strerror(errno));
  }
  TRY(reader.begin());
  return reader;
}

Result<TraceReader> TraceReader::from_text(std::string text, std::string source) {
  TraceReader reader;
  reader.source_ = std::move(source);
  reader.text_ = std::move(text);
  reader.ended_ = true;
  TRY(reader.begin());
  return reader;
}

Result<bool> TraceReader::read_line(std::string_view& line) {
  for (;;) {
    const size_t end = text_.find('\n', at_);
    if (end != std::string::npos) {
      line = std::string_view(text_).substr(at_, end - at_);
      at_ = end + 1;
      ++line_number_;
      return true;
    }
    if (ended_) {
      if (at_ >= text_.size()) return false;
      line = std::string_view(text_).substr(at_);
      at_ = text_.size();
      ++line_number_;
      return true;
    }
    text_.erase(0, at_);
    at_ = 0;
    if (text_.size() > kLongestLine) return fault("a line of more than 16 MB");
    const size_t before = text_.size();
    text_.resize(before + kBlock);
    const size_t got = std::fread(text_.data() + before, 1, kBlock, file_.get());
    text_.resize(before + got);
    if (got < kBlock) {
      if (std::ferror(file_.get()) != 0) {
        return errorf(Code::kIo, "reading '{}' failed: {}", source_, std::strerror(errno));
      }
      ended_ = true;
    }
  }
}

Result<void> TraceReader::begin() {
  std::string_view line;
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, read_line(line));
    if (!more) return errorf(Code::kInvalidArgument, "{}: the trace is empty", source_);
    if (!trimmed(line).empty()) break;
  }
  if (line.starts_with("\xef\xbb\xbf")) line.remove_prefix(3);
  const char first = trimmed(line).front();
  if (first == '[') return load_pairs(line);
  if (first == '{') {
    format_ = Format::kJsonLines;
    pending_ = line;
    has_pending_ = true;
    ASSIGN_OR_RETURN(const Json object, parse_json(pending_, source_));
    has_arrivals_ = object.contains("timestamp") || object.contains("arrival_time_ns");
    return {};
  }
  return find_columns(line);
}

Result<void> TraceReader::find_columns(std::string_view header) {
  const std::vector<std::string_view> names = csv_cells(header);
  for (size_t i = 0; i < names.size(); ++i) {
    const auto column = static_cast<int>(i);
    for (const Column& known : kArrivalColumns) {
      if (names[i] != known.name) continue;
      arrival_column_ = column;
      clock_times_ = known.scale == 0;
      arrival_scale_ = known.scale;
    }
    if (std::find(kInputColumns.begin(), kInputColumns.end(), names[i]) != kInputColumns.end()) {
      input_column_ = column;
    }
    if (std::find(kOutputColumns.begin(), kOutputColumns.end(), names[i]) != kOutputColumns.end()) {
      output_column_ = column;
    }
  }
  has_arrivals_ = arrival_column_ >= 0;
  if (input_column_ >= 0 && output_column_ >= 0) return {};
  return fault(format("no known columns in '{}'; lengths are called ContextTokens, "
                      "num_prefill_tokens, prompt_size or input_tokens, and GeneratedTokens, "
                      "num_decode_tokens, token_size or output_tokens",
                      header.substr(0, 200)));
}

Result<void> TraceReader::load_pairs(std::string_view first) {
  format_ = Format::kPairs;
  std::string all(first);
  for (std::string_view line;;) {
    ASSIGN_OR_RETURN(const bool more, read_line(line));
    if (!more) break;
    all += '\n';
    all += line;
    if (all.size() > kLargestPairs) return fault("an array of more than 256 MB");
  }
  ASSIGN_OR_RETURN(const Json tree, parse_json(all, source_));
  for (const Json& pair : tree.items()) {
    if (pair.size() != 2 || !pair[0].is_number() || !pair[1].is_number()) {
      return fault(format("item {}: expected [prompt tokens, output tokens]", pairs_.size()));
    }
    ASSIGN_OR_RETURN(TraceRequest request, checked(0, pair[0].as_double(), pair[1].as_double()));
    pairs_.push_back(request);
  }
  return {};
}

Result<TraceRequest> TraceReader::checked(double arrival, double input, double output) {
  const auto whole = [](double x) {
    return x >= 1 && x <= static_cast<double>(kMaxTokens) && std::floor(x) == x;
  };
  if (!whole(input) || !whole(output)) {
    return fault(
        format("{} prompt tokens and {} output tokens; both are whole numbers from 1 to {}", input,
               output, kMaxTokens));
  }
  if (!first_arrival_) first_arrival_ = arrival;
  const double since = arrival - *first_arrival_;
  if (!(since < kLongestTrace)) return fault("arrives more than a century after the first");
  const auto ns = since > 0 ? static_cast<int64_t>(std::llround(since)) : int64_t{0};
  if (since < 0 || ns < last_arrival_) {
    return fault("arrives before the request above it; sort the trace by time");
  }
  last_arrival_ = ns;
  return TraceRequest{ns, static_cast<int32_t>(input), static_cast<int32_t>(output)};
}

Result<std::optional<TraceRequest>> TraceReader::parse_csv(std::string_view line) {
  const std::vector<std::string_view> cells = csv_cells(line);
  const int last = std::max({arrival_column_, input_column_, output_column_});
  if (static_cast<int>(cells.size()) <= last) {
    return fault(format("{} columns, the header promises at least {}", cells.size(), last + 1));
  }
  const std::optional<double> input = csv_number(cells[input_column_]);
  const std::optional<double> output = csv_number(cells[output_column_]);
  if (!input || !output) return fault("a length is not a number");
  double arrival = 0;
  if (has_arrivals_) {
    const std::string_view cell = cells[arrival_column_];
    const auto no_time = [&] { return fault(format("'{}' is not a time", cell.substr(0, 60))); };
    if (clock_times_) {
      const std::optional<int64_t> time = trace_clock(cell);
      if (!time) return no_time();
      if (!clock_base_) clock_base_ = *time;
      arrival = static_cast<double>(*time - *clock_base_);
    } else {
      const std::optional<double> time = csv_number(cell);
      if (!time) return no_time();
      arrival = *time * arrival_scale_;
    }
  }
  ASSIGN_OR_RETURN(const TraceRequest request, checked(arrival, *input, *output));
  return std::optional(request);
}

Result<std::optional<TraceRequest>> TraceReader::parse_json_line(std::string_view line) {
  auto parsed = parse_json(line, source_);
  if (!parsed) return fault(parsed.error().message());
  const Json& object = *parsed;
  const auto either = [&](std::string_view a, std::string_view b) -> const Json& {
    return object.contains(a) ? object[a] : object[b];
  };
  const Json& input = either("input_length", "input_toks");
  const Json& output = either("output_length", "output_toks");
  if (!input.is_number() || !output.is_number()) {
    return fault("needs input_length and output_length, or input_toks and output_toks");
  }
  double arrival = 0;
  if (has_arrivals_) {
    const Json& time = either("timestamp", "arrival_time_ns");
    if (!time.is_number()) return fault("needs a timestamp like the first line's");
    arrival = time.as_double() * (object.contains("timestamp") ? 1e6 : 1);
  }
  ASSIGN_OR_RETURN(TraceRequest request, checked(arrival, input.as_double(), output.as_double()));
  if (keep_tokens_) TRY(read_tokens(object, request));
  return std::optional(std::move(request));
}

Result<void> TraceReader::read_tokens(const Json& line, TraceRequest& request) {
  const auto list = [&](std::string_view name, int32_t most,
                        std::vector<int32_t>& out) -> Result<void> {
    for (const Json& token : line[name].items()) {
      const bool good = token.is_int() && token.as_int() >= 0 && token.as_int() <= INT32_MAX;
      if (!good || out.size() == static_cast<size_t>(most)) {
        return fault(format("{} should hold {} numbers from 0 to {}", name, most, INT32_MAX));
      }
      out.push_back(static_cast<int32_t>(token.as_int()));
    }
    return {};
  };
  TraceTokens tokens;
  if (line.contains("hash_ids")) {
    std::vector<int32_t> blocks;
    const int32_t count = (request.input + kHashedTokens - 1) / kHashedTokens;
    TRY(list("hash_ids", count, blocks));
    if (static_cast<int32_t>(blocks.size()) != count) {
      return fault(format("hash_ids should hold {} numbers, one for each {} tokens of the prompt",
                          count, kHashedTokens));
    }
    tokens.prompt.reserve(static_cast<size_t>(request.input));
    for (int32_t i = 0; i < request.input; ++i) {
      const auto block = static_cast<uint32_t>(blocks[static_cast<size_t>(i / kHashedTokens)]);
      const uint64_t place = (uint64_t{block} << 32) | static_cast<uint32_t>(i % kHashedTokens);
      tokens.prompt.push_back(static_cast<int32_t>(mix64(place) >> 33));
    }
  } else {
    TRY(list("input_tok_ids", request.input, tokens.prompt));
    TRY(list("output_tok_ids", request.output, tokens.output));
    if (tokens.prompt.empty()) return {};
    if (tokens.prompt.size() != static_cast<size_t>(request.input)) {
      return fault(format("a prompt of {} tokens, of which input_tok_ids holds {}", request.input,
                          tokens.prompt.size()));
    }
  }
  request.tokens = std::make_shared<const TraceTokens>(std::move(tokens));
  return {};
}

Result<std::optional<TraceRequest>> TraceReader::next() {
  if (format_ == Format::kPairs) {
    if (next_pair_ == pairs_.size()) return std::optional<TraceRequest>();
    return std::optional(pairs_[next_pair_++]);
  }
  std::string_view line;
  if (has_pending_) {
    has_pending_ = false;
    line = pending_;
  } else {
    do {
      ASSIGN_OR_RETURN(const bool more, read_line(line));
      if (!more) return std::optional<TraceRequest>();
    } while (trimmed(line).empty());
  }
  return format_ == Format::kCsv ? parse_csv(line) : parse_json_line(line);
}

Result<std::vector<TraceRequest>> load_trace(const std::string& path, int64_t most) {
  ASSIGN_OR_RETURN(TraceReader reader, TraceReader::open(path));
  std::vector<TraceRequest> requests;
  for (;;) {
    ASSIGN_OR_RETURN(const std::optional<TraceRequest> request, reader.next());
    if (!request) break;
    requests.push_back(*request);
    if (static_cast<int64_t>(requests.size()) > most) {
      return errorf(Code::kExhausted, "{}: more than {} requests", path, most);
    }
  }
  if (requests.empty()) return errorf(Code::kInvalidArgument, "{}: no requests in it", path);
  return requests;
}

double ArrivalClock::exponential() { return -std::log(1 - rng_.unit()); }

// Marsaglia and Tsang, ACM TOMS 26(3), 2000.
double draw_gamma(Rng& rng, double shape) {
  if (shape < 1) {
    const double boost = std::pow(1 - rng.unit(), 1 / shape);
    return draw_gamma(rng, shape + 1) * boost;
  }
  const double d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  for (;;) {
    const double radius = std::sqrt(-2 * std::log(1 - rng.unit()));
    const double x = radius * std::cos(2 * std::numbers::pi * rng.unit());
    const double v = std::pow(1 + c * x, 3);
    if (v <= 0) continue;
    if (std::log(1 - rng.unit()) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
  }
}

int64_t ArrivalClock::next() {
  switch (process_.kind) {
    case ArrivalKind::kPoisson:
      now_ += exponential() / process_.rate;
      break;
    case ArrivalKind::kGamma: {
      const double shape = 1 / (process_.variation * process_.variation);
      now_ += draw_gamma(rng_, shape) / shape / process_.rate;
      break;
    }
    case ArrivalKind::kUniform:
      now_ += 1 / process_.rate;
      break;
    case ArrivalKind::kDiurnal: {
      // Thinning of a Poisson process of the greatest rate.
      const double most = 1 + process_.swing;
      for (;;) {
        now_ += exponential() / (process_.rate * most);
        const double phase = 2 * std::numbers::pi * now_ / process_.period;
        if (rng_.unit() * most < 1 + process_.swing * std::sin(phase)) break;
      }
      break;
    }
  }
  return static_cast<int64_t>(std::llround(now_ * 1e9));
}

}  // namespace towline::spec
