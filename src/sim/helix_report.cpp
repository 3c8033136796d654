// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/helix_report.hpp"

#include <cmath>

#include "base/fmt.hpp"

namespace towline::sim {
namespace {

Json latency_json(const LatencySummary& s) {
  return Json::object({{"count", s.count}, {"mean", s.mean}, {"p5", s.p5}, {"p50", s.p50},
                       {"p95", s.p95}, {"p99", s.p99}});
}

Json event_json(const HelixEventCounts& c) {
  return Json::object({{"new_request", c.new_request},
                       {"load_model", c.load_model},
                       {"start_loading", c.start_loading},
                       {"finish_loading", c.finish_loading},
                       {"start_transmission", c.start_transmission},
                       {"finish_sending", c.finish_sending},
                       {"finish_transmission", c.finish_transmission},
                       {"gather_finished", c.gather_finished},
                       {"start_execution", c.start_execution},
                       {"finish_execution", c.finish_execution}});
}

// As Python prints a float: the shortest decimal that reads back the same, never a bare integer.
std::string python_float(double x) {
  std::string text = format("{}", x);
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

// round(used / total * 100) as Python rounds: half to even.
int64_t percent(int64_t used, int64_t total) {
  if (total <= 0) return 0;
  const double share = static_cast<double>(used) / static_cast<double>(total);
  return static_cast<int64_t>(std::nearbyint(share * 100));
}

}  // namespace

Json helix_report_json(const HelixInput& input, const HelixOptions& options,
                       const HelixReport& r) {
  const bool flow = options.router == HelixRouter::kMaxFlow;
  Json json = Json::object({{"schema", 1},
                            {"policy", "helix"},
                            {"mode", options.online ? "online" : "offline"},
                            {"interrupted", r.interrupted},
                            {"max_compute", input.max_compute},
                            {"max_flow", flow ? Json(input.max_flow) : Json()},
                            {"started", r.started}});
  json.set("window", Json::array({r.window_begin, r.window_end}));
  json.set("decode_tps", r.decode_tps);
  json.set("prompt_lat", r.prompt.mean);
  json.set("decode_lat", r.decode.mean);
  json.set("n_prompt", r.prompt.count);
  json.set("n_decode", r.decode.count);
  json.set("prompt_p50", r.prompt.p50);
  json.set("prompt_p99", r.prompt.p99);
  json.set("decode_p50", r.decode.p50);
  json.set("decode_p99", r.decode.p99);
  json.set("prompt_latency", latency_json(r.prompt));
  json.set("decode_latency", latency_json(r.decode));
  json.set("decode_avg_compute", r.decode_compute);
  json.set("decode_avg_network", r.decode_network);
  json.set("last_finished", r.last_finished);
  json.set("total_tokens", r.total_tokens);
  json.set("total_tps", r.total_tps);
  json.set("finished_queries", r.finished_queries);
  json.set("active", r.active);
  json.set("rejected", r.rejected);
  json.set("rejected_by", Json::object({{"kv", r.rejected_by_kv},
                                        {"length", r.rejected_by_length},
                                        {"flow", r.rejected_by_flow}}));
  if (options.online) json.set("fed_tokens_per_second", r.fed_tokens_per_second);
  json.set("events", r.events.total());
  json.set("event_mix", event_json(r.events));
  return json;
}

std::string helix_report_text(const HelixInput& input, const HelixOptions& options,
                              const HelixReport& r) {
  std::string text;
  const auto line = [&](std::string_view name, const std::string& value) {
    text += format("{:<22}{}\n", name, value);
  };
  if (r.interrupted) line("INTERRUPTED", "the figures cover the time until then");
  line("window", format("{} s to {} s", r.window_begin, r.window_end));
  line("max compute", format("{:.2f} tokens/s", input.max_compute));
  if (options.router == HelixRouter::kMaxFlow) {
    line("max flow", format("{:.2f} tokens/s", input.max_flow));
  }
  line("decode speed", format("{:.1f} tokens/s", r.decode_tps));
  const auto latency = [&](std::string_view name, const LatencySummary& s) {
    line(name, format("{:.3f} s (p50 {:.3f}, p99 {:.3f}; {} iterations)", s.mean, s.p50, s.p99,
                      s.count));
  };
  latency("prompt latency", r.prompt);
  latency("decode latency", r.decode);
  line("decode time on", format("nodes {:.3f} s, links {:.3f} s", r.decode_compute,
                                r.decode_network));
  line("total time", format("{:.2f} s ({:.2f} tokens/s)", r.last_finished, r.total_tps));
  if (options.router == HelixRouter::kMaxFlow && input.max_flow > 0) {
    line("theoretical optimum",
         format("{:.2f} s ({:.2f} tokens/s)",
                static_cast<double>(r.total_tokens) / input.max_flow, input.max_flow));
  }
  line("queries", format("{} finished, {} active, {} rejected (KV {}, length {}, flow {})",
                         r.finished_queries, r.active, r.rejected, r.rejected_by_kv,
                         r.rejected_by_length, r.rejected_by_flow));
  line("events", format("{}", r.events.total()));
  return text;
}

std::string finished_csv(const HelixReport& report) {
  std::string text = "order,request_uid,query_uid,phase,tokens,prev_tokens,finish_time,latency\n";
  for (size_t i = 0; i < report.finished.size(); ++i) {
    const FinishedIteration& f = report.finished[i];
    text += format("{},{},{},{},{},{},{},{}\n", i, f.request, f.query,
                   f.prompt ? "Initialization" : "Increment", f.tokens, f.previous_tokens,
                   python_float(f.finish_time), python_float(f.latency));
  }
  return text;
}

std::string watch_text(const HelixView& view) {
  std::string text = format(
      "# -------------- Watch -------------- #\n"
      "Last event time = {}\nNext event time = {}\n"
      "[Item] active queries: {}, finished queries {}.\n[Item] KV-Cache:\n",
      // The reference's clock is an integer until the first event after the models are loaded.
      view.begun ? python_float(view.last_event) : format("{}", view.last_event),
      python_float(view.next_event), view.active, view.finished);
  if (view.estimates) {
    text +=
        "Node Name: Real Used / Real Total | Expected Used / Expected Total | Expected > Real\n";
  }
  for (int32_t i = 0; i < view.ledger.nodes(); ++i) {
    if (view.input.nodes[i].layers.empty()) continue;
    const int64_t total = view.ledger.capacity(i);
    const int64_t real = view.ledger.real_used(i);
    const int64_t expected = view.ledger.expected_used(i);
    text += format("\tCompute-{}: {}/{} ({}%)", i + 2, real, total, percent(real, total));
    if (view.estimates) {
      text += format(" | {} / {} ({}%) | {}", expected, total, percent(expected, total),
                     expected >= real ? "True" : "False");
    }
    text += '\n';
  }
  text += format("Realtime bottleneck usage: {}\n", python_float(view.ledger.real_bottleneck()));
  if (view.estimates) {
    text += format("Expected bottleneck usage: {}\n",
                   python_float(view.ledger.expected_bottleneck()));
  }
  return text + "# ------------ End Watch ------------ #\n";
}

}  // namespace towline::sim
