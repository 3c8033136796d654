// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The two logs of Helix's prototype, which Towline's coordinator writes as well: events.txt (every
// iteration of every request as the coordinator sees it) and query_route.txt (the way of every
// request). One Python tuple a line:
//
//   (1.26171, 0, 'out', 'prompt', 0, 406)      time s, request, direction, phase, context, tokens
//   (4, 120, 12, [16, 5, 0], [0, 3, -1], [3, 80, -1])
//                                              request, input, output, machines, first, end layers
//
// 'out' is an iteration being launched, 'in' its result coming back. `context` is the tokens
// processed before the iteration: 0 for a prompt. Machine 0 is the
// coordinator and ends every route.
//
// Parsers are safe against hostile input; faults name file and line.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ids.hpp"
#include "base/result.hpp"

namespace towline::spec {

struct HelixEvent {
  double time = 0;       // seconds since the run's beginning
  int64_t request = 0;
  bool result = false;   // 'in': the result is back; else 'out': launched
  bool prompt = false;   // else a decode
  int64_t context = 0;
  int64_t tokens = 0;
  friend bool operator==(const HelixEvent&, const HelixEvent&) = default;
};

struct HelixRoute {
  struct Stop {
    int32_t machine = 0;
    LayerRange layers;
    friend bool operator==(const Stop&, const Stop&) = default;
  };
  int64_t request = 0;
  int64_t input = 0, output = 0;  // tokens
  std::vector<Stop> stops;        // without the coordinator that ends the file's lists
  friend bool operator==(const HelixRoute&, const HelixRoute&) = default;
};

Result<HelixEvent> parse_helix_event(std::string_view line);
Result<HelixRoute> parse_helix_route(std::string_view line);
std::string print_helix_event(const HelixEvent& event);  // one line, with its newline
std::string print_helix_route(const HelixRoute& route);

// Calls `each` for every line of the file, which is read in bounded memory.
Result<void> read_helix_events(const std::string& path,
                               const std::function<void(const HelixEvent&)>& each);
Result<std::vector<HelixRoute>> load_helix_routes(const std::string& path);

// What Helix's own result parser reports: iterations whose result came back in a window.
struct HelixLogSummary {
  struct Phase {
    int64_t count = 0;
    double mean = 0, p5 = 0, p25 = 0, p50 = 0, p75 = 0, p95 = 0;  // seconds
  };
  double begin = 0, end = 0;      // the window, seconds
  int64_t requests = 0;           // launched in the whole log
  int64_t finished_prompts = 0;   // in the window
  double decode_tps = 0;          // decodes in the window / (last - first)
  Phase prompt, decode;           // launch to result
  Phase between_decodes;          // result to result of the same request
  int64_t unanswered = 0;         // launched and never back, in the whole log
};

// Feed events in the file's order, then ask.
class HelixLogStatistics {
 public:
  HelixLogStatistics(double begin, double end) : begin_(begin), end_(end) {}
  void add(const HelixEvent& event);
  HelixLogSummary summary() const;

 private:
  double begin_, end_;
  // Iterations under way, by request and context: since when.
  std::map<std::pair<int64_t, int64_t>, double> launched_;
  std::map<int64_t, double> last_decode_;  // when each request's last decode came back
  int64_t requests_ = 0;
  std::vector<double> prompt_, decode_, between_;
  double first_ = 0, last_ = 0;            // decode results in the window
};

}  // namespace towline::spec
