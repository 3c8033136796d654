// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/servegen.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "base/json.hpp"
#include "spec/csv.hpp"

namespace towline::spec {
namespace {

constexpr int64_t kLargestFile = int64_t{256} << 20;
constexpr double kLongest = 1e9, kMostRate = 1e9;

// "{50: 0.04, 51: 0.08}"
Result<std::vector<std::pair<int32_t, double>>> shares(std::string_view text,
                                                       std::string_view source) {
  std::vector<std::pair<int32_t, double>> list;
  text = trimmed(text);
  double sum = 0;
  const auto fault = [&] {
    return errorf(Code::kInvalidArgument,
                  "{}: lengths are written {{tokens: share, ...}}, tokens whole and from 1 to {}",
                  source, TraceReader::kMaxTokens);
  };
  if (text.size() < 2 || text.front() != '{' || text.back() != '}') return fault();
  if (trimmed(text.substr(1, text.size() - 2)).empty()) return list;  // a window without requests
  for (const std::string_view cell : csv_cells(text.substr(1, text.size() - 2))) {
    const size_t colon = cell.find(':');
    if (colon == std::string_view::npos) return fault();
    const std::optional<double> tokens = csv_number(cell.substr(0, colon));
    const std::optional<double> share = csv_number(cell.substr(colon + 1));
    if (!tokens || !share || std::floor(*tokens) != *tokens || !(*share >= 0 && *share <= 1e12) ||
        !(*tokens >= 0 && *tokens <= static_cast<double>(TraceReader::kMaxTokens))) {
      return fault();
    }
    if (*tokens < 1 || *share == 0) continue;  // requests that produced nothing
    sum += *share;
    list.emplace_back(static_cast<int32_t>(*tokens), sum);
  }
  if (list.empty()) return list;
  for (auto& [tokens, upto] : list) upto /= sum;
  list.back().second = 1;
  return list;
}

Result<void> read_dataset(std::string_view text, std::string_view source, ServeGenClient& client) {
  ASSIGN_OR_RETURN(const Json tree, parse_json(text, source));
  if (!tree.is_object()) {
    return errorf(Code::kInvalidArgument, "{}: expected an object of windows", source);
  }
  for (const auto& [key, value] : tree.members()) {
    const std::optional<double> begin = csv_number(key);
    if (!begin || !value["input_tokens"].is_string() || !value["output_tokens"].is_string()) {
      return errorf(Code::kInvalidArgument,
                    "{}: '{}': expected a time in seconds with input_tokens and output_tokens",
                    source, key.substr(0, 60));
    }
    ServeGenClient::Lengths lengths;
    lengths.begin = *begin;
    ASSIGN_OR_RETURN(lengths.input, shares(value["input_tokens"].as_string(), source));
    ASSIGN_OR_RETURN(lengths.output, shares(value["output_tokens"].as_string(), source));
    if (lengths.input.empty() || lengths.output.empty()) continue;  // those of the window before
    client.lengths.push_back(std::move(lengths));
  }
  std::sort(client.lengths.begin(), client.lengths.end(),
            [](const auto& a, const auto& b) { return a.begin < b.begin; });
  return {};
}

}  // namespace

Result<ServeGenClient> ServeGenClient::parse(std::string_view trace, std::string_view dataset,
                                             std::string_view source) {
  ServeGenClient client;
  Lines lines(trace);
  for (std::string_view line; lines.next(line);) {
    const std::vector<std::string_view> cells = csv_cells(line);
    const auto fault = [&](std::string_view what) {
      return errorf(Code::kInvalidArgument, "{}:{}: {}", source, lines.number(), what);
    };
    if (cells.size() < 4) return fault("expected start, rate, CV, law, shape, scale");
    const std::optional<double> begin = csv_number(cells[0]), rate = csv_number(cells[1]);
    if (!begin || !(*begin >= 0 && *begin < kLongest) ||
        (!client.windows.empty() && *begin <= client.windows.back().begin)) {
      return fault("the start of a window is missing or not after the one above it");
    }
    if (!rate || !(*rate >= 0 && *rate <= kMostRate)) return fault("the rate is no number >= 0");
    Window window{*begin, *rate, Law::kExponential, 1};
    if (cells[3] == "Gamma" || cells[3] == "Weibull") {
      const std::optional<double> shape =
          cells.size() > 4 ? csv_number(cells[4]) : std::optional<double>();
      if (!shape || !(*shape >= 1e-3 && *shape <= 1e6)) {
        return fault("a shape is a number from 0.001 to 1000000");
      }
      window.law = cells[3] == "Gamma" ? Law::kGamma : Law::kWeibull;
      window.shape = *shape;
    } else if (!cells[3].empty()) {
      return fault("the law is Gamma, Weibull or empty");
    }
    client.windows.push_back(window);
  }
  if (client.windows.empty()) {
    return errorf(Code::kInvalidArgument, "{}: the trace is empty", source);
  }
  // The last window is as long as the one before it.
  const size_t n = client.windows.size();
  const double last = client.windows.back().begin;
  client.end = last + (n > 1 ? last - client.windows[n - 2].begin : 600);
  if (!trimmed(dataset).empty()) TRY(read_dataset(dataset, source, client));
  return client;
}

Result<std::vector<ServeGenClient>> ServeGenSource::load(const std::string& folder) {
  namespace fs = std::filesystem;
  std::error_code error;
  std::map<int64_t, std::string> numbers;  // in order of the client's number
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    constexpr std::string_view kBefore = "chunk-", kAfter = "-trace.csv";
    if (!name.starts_with(kBefore) || !name.ends_with(kAfter)) continue;
    const std::optional<double> number = csv_number(std::string_view(name).substr(
        kBefore.size(), name.size() - kBefore.size() - kAfter.size()));
    if (number && *number >= 0 && *number < 1e9) {
      numbers[static_cast<int64_t>(*number)] =
          entry.path().string().substr(0, entry.path().string().size() - kAfter.size());
    }
  }
  if (error || numbers.empty()) {
    return errorf(Code::kNotFound, "'{}' has no files chunk-N-trace.csv", folder);
  }
  std::vector<ServeGenClient> clients;
  for (const auto& [number, stem] : numbers) {
    ASSIGN_OR_RETURN(const std::string trace, read_file(stem + "-trace.csv", kLargestFile));
    std::string dataset;
    if (fs::exists(stem + "-dataset.json", error)) {
      ASSIGN_OR_RETURN(dataset, read_file(stem + "-dataset.json", kLargestFile));
    }
    ASSIGN_OR_RETURN(ServeGenClient client, ServeGenClient::parse(trace, dataset, stem));
    clients.push_back(std::move(client));
  }
  return clients;
}

Result<ServeGenSource> ServeGenSource::make(std::vector<ServeGenClient> clients, double scale,
                                            double begin, uint64_t seed, LengthList fallback) {
  ServeGenSource source;
  for (size_t i = 0; i < clients.size(); ++i) {
    if (!clients[i].lengths.empty() || !fallback.empty()) continue;
    return errorf(Code::kInvalidArgument,
                  "client {} of the ServeGen folder has no dataset; give lengths to draw from", i);
  }
  source.clients_ = std::move(clients);
  source.scale_ = scale;
  source.begin_ = begin;
  source.fallback_ = std::move(fallback);
  for (size_t i = 0; i < source.clients_.size(); ++i) {
    source.states_.push_back({Rng(mix64(seed) ^ i), 0});
    source.advance(static_cast<int32_t>(i), begin);
  }
  return source;
}

// The client's next request after `from`, into the queue; none if its files end before.
void ServeGenSource::advance(int32_t number, double from) {
  const ServeGenClient& client = clients_[number];
  State& state = states_[number];
  double at = from;
  for (; state.window < client.windows.size(); ++state.window) {
    const ServeGenClient::Window& window = client.windows[state.window];
    const double end = state.window + 1 < client.windows.size()
                           ? client.windows[state.window + 1].begin
                           : client.end;
    if (at >= end) continue;
    const double rate = window.rate * scale_;
    // What was left of a wait when the window changed is drawn anew at the new rate.
    if (at < window.begin) at = window.begin;
    if (!(rate > 0)) continue;
    double gap = 0;
    switch (window.law) {
      case ServeGenClient::Law::kExponential:
        gap = -std::log(1 - state.rng.unit());
        break;
      case ServeGenClient::Law::kGamma:
        gap = draw_gamma(state.rng, window.shape) / window.shape;
        break;
      case ServeGenClient::Law::kWeibull:
        gap = std::pow(-std::log(1 - state.rng.unit()), 1 / window.shape) /
              std::tgamma(1 + 1 / window.shape);
        break;
    }
    const double next = at + gap / rate;
    if (next < end) {
      queue_.push({next, number});
      return;
    }
    at = end;
  }
}

int32_t ServeGenSource::draw(const std::vector<std::pair<int32_t, double>>& list, Rng& rng) const {
  const double share = rng.unit();
  const auto at = std::upper_bound(list.begin(), list.end(), share,
                                   [](double s, const auto& item) { return s < item.second; });
  return at == list.end() ? list.back().first : at->first;
}

double ServeGenSource::mean_rate() const {
  double requests = 0, end = begin_;
  for (const ServeGenClient& client : clients_) {
    for (size_t i = 0; i < client.windows.size(); ++i) {
      const double upto = i + 1 < client.windows.size() ? client.windows[i + 1].begin : client.end;
      requests +=
          client.windows[i].rate * std::max(upto - std::max(client.windows[i].begin, begin_), 0.0);
    }
    end = std::max(end, client.end);
  }
  return end > begin_ ? requests * scale_ / (end - begin_) : 0;
}

Result<std::optional<TraceRequest>> ServeGenSource::next() {
  if (queue_.empty()) return std::optional<TraceRequest>();
  const Next next = queue_.top();
  queue_.pop();
  const ServeGenClient& client = clients_[next.client];
  Rng& rng = states_[next.client].rng;
  TraceRequest request;
  request.arrival_ns = std::llround((next.at - begin_) * 1e9);
  if (client.lengths.empty()) {
    const auto& [input, output] = fallback_[rng.below(fallback_.size())];
    request.input = input;
    request.output = output;
  } else {
    auto lengths = std::upper_bound(client.lengths.begin(), client.lengths.end(), next.at,
                                    [](double t, const auto& l) { return t < l.begin; });
    if (lengths != client.lengths.begin()) --lengths;
    request.input = draw(lengths->input, rng);
    request.output = draw(lengths->output, rng);
  }
  advance(next.client, next.at);
  return std::optional(request);
}

}  // namespace towline::spec
