// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/stage_report.hpp"

#include <algorithm>
#include <functional>

#include "base/fmt.hpp"

namespace towline::sim {
namespace {

Json percentiles_json(const Percentiles& p) {
  return Json::object({{"count", p.count}, {"mean", p.mean}, {"p50", p.p50}, {"p90", p.p90},
                       {"p95", p.p95}, {"p99", p.p99}, {"max", p.max}});
}

std::string_view outcome_name(Outcome outcome) {
  switch (outcome) {
    case Outcome::kFinished:
      return "finished";
    case Outcome::kRejected:
      return "rejected";
    case Outcome::kFailed:
      return "failed";
    case Outcome::kCancelled:
      return "cancelled";
  }
  return "";
}

double seconds_between(int64_t from, int64_t to) { return static_cast<double>(to - from) * 1e-9; }

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else if (c == '"') {
      out += "&quot;";
    } else {
      out += c;
    }
  }
  return out;
}

struct MarkedTime {
  double at;
  std::string_view what;
};

// A line chart over time with the disturbances as vertical lines.
std::string line_chart(std::string_view title, const std::vector<StageSample>& samples,
                       const std::function<double(const StageSample&)>& value,
                       const std::vector<MarkedTime>& marks) {
  constexpr double kWidth = 860, kHeight = 150, kLeft = 60, kTop = 22;
  if (samples.size() < 2) return {};
  double most = 1e-9;
  for (const StageSample& s : samples) most = std::max(most, value(s));
  const double first = samples.front().at, last = samples.back().at;
  const auto x = [&](double t) { return kLeft + (t - first) / (last - first) * (kWidth - kLeft); };
  const auto y = [&](double v) { return kTop + kHeight * (1 - v / most); };
  std::string svg = format("<svg viewBox='0 0 {} {}'><text x='0' y='14'>{}</text>", kWidth + 10,
                           kHeight + kTop + 20, title);
  svg += format("<text x='0' y='{:.0f}'>{:.4g}</text><text x='0' y='{:.0f}'>0</text>", kTop + 8,
                most, kTop + kHeight);
  svg += format("<text x='{:.0f}' y='{:.0f}'>{:.0f} s</text><text x='{:.0f}' y='{:.0f}'>{:.0f} "
                "s</text>",
                kLeft, kTop + kHeight + 15, first, kWidth - 40, kTop + kHeight + 15, last);
  for (const MarkedTime& mark : marks) {
    svg += format("<line class='mark' x1='{0:.1f}' x2='{0:.1f}' y1='{1}' y2='{2}'><title>{3} at "
                  "{4:.1f} s</title></line>",
                  x(mark.at), kTop, kTop + kHeight, mark.what, mark.at);
  }
  svg += "<polyline points='";
  const size_t stride = samples.size() / 2000 + 1;
  for (size_t i = 0; i < samples.size(); i += stride) {
    svg += format("{:.1f},{:.1f} ", x(samples[i].at), y(value(samples[i])));
  }
  return svg + "'/></svg>\n";
}

std::string busy_chart(const HelixInput& input, const StageReport& report) {
  std::string svg = format("<svg viewBox='0 0 870 {}'><text x='0' y='14'>Share of time that each "
                           "node computes</text>",
                           24 + 16 * input.nodes.size());
  for (size_t i = 0; i < input.nodes.size(); ++i) {
    const HelixNode& node = input.nodes[i];
    const double y = 24 + 16 * static_cast<double>(i);
    svg += format("<text x='0' y='{:.0f}'>{} [{}, {})</text><rect x='230' y='{:.0f}' width='{:.1f}' "
                  "height='12'/><text x='{:.1f}' y='{:.0f}'>{:.0f} %</text>",
                  y + 10, escaped(node.name), node.layers.begin, node.layers.end, y,
                  560 * report.node_busy[i], 236 + 560 * report.node_busy[i], y + 10,
                  100 * report.node_busy[i]);
  }
  return svg + "</svg>\n";
}

std::string_view disturbance_name(DisturbanceKind kind) {
  switch (kind) {
    case DisturbanceKind::kCrash:
      return "crash";
    case DisturbanceKind::kReclaim:
      return "reclaim";
    case DisturbanceKind::kRejoin:
      return "rejoin";
    case DisturbanceKind::kDrain:
      return "drain";
    case DisturbanceKind::kHang:
      return "hang";
    case DisturbanceKind::kResume:
      return "resume";
    case DisturbanceKind::kSlow:
      return "slow";
    case DisturbanceKind::kLinkDown:
      return "link down";
    case DisturbanceKind::kLinkUp:
      return "link up";
    case DisturbanceKind::kBandwidth:
      return "bandwidth";
    case DisturbanceKind::kLatency:
      return "latency";
  }
  return "";
}

double cost_per_million(const StageReport& r) {
  const auto tokens = static_cast<double>(std::max<int64_t>(r.output_tokens, 1));
  return (r.machine_cost + r.egress_cost) / tokens * 1e6;
}

}  // namespace

Json stage_summary(const HelixInput& input, const StageReport& r) {
  Json json = Json::object({{"schema", 1},
                            {"policy", "towline"},
                            {"interrupted", r.interrupted},
                            {"max_compute", input.max_compute},
                            {"max_flow", r.max_flow},
                            {"started", r.started},
                            {"ended", r.ended},
                            {"arrived", r.arrived},
                            {"finished", r.finished},
                            {"rejected", r.rejected},
                            {"failed", r.failed},
                            {"unfinished", r.unfinished},
                            {"restarts", r.restarts},
                            {"evictions", r.evictions},
                            {"replans", r.replans},
                            {"prompt_tokens", r.prompt_tokens},
                            {"output_tokens", r.output_tokens},
                            {"recomputed_tokens", r.recomputed_tokens},
                            {"decode_tps", r.output_tps},
                            {"prompt_tps", r.prompt_tps},
                            {"goodput", r.goodput},
                            {"attainment", r.attainment},
                            {"mean_in_system", r.mean_in_system},
                            {"events", r.events},
                            {"steps", r.steps},
                            {"out_of_profile", r.out_of_profile}});
  // The same under the names of `towline bench`.
  const double seconds = r.ended - r.started;
  const auto rate = [&](int64_t n) { return seconds > 0 ? static_cast<double>(n) / seconds : 0; };
  json.set("seconds", seconds);
  json.set("answered", r.finished);
  json.set("input_tokens", r.prompt_tokens);
  json.set("requests_per_s", rate(r.finished));
  json.set("input_tps", rate(r.prompt_tokens));
  json.set("output_tps", rate(r.output_tokens));
  if (r.machine_cost + r.egress_cost > 0) {
    json.set("machine_cost", r.machine_cost);
    json.set("egress_cost", r.egress_cost);
    json.set("cost_per_million_output_tokens", cost_per_million(r));
  }
  json.set("ttft", percentiles_json(r.ttft));
  json.set("tpot", percentiles_json(r.tpot));
  json.set("itl", percentiles_json(r.itl));
  json.set("e2e", percentiles_json(r.e2e));
  json.set("queueing", percentiles_json(r.queueing));
  Json busy = Json::object();
  for (size_t i = 0; i < input.nodes.size(); ++i) busy.set(input.nodes[i].name, r.node_busy[i]);
  json.set("node_busy", std::move(busy));
  return json;
}

std::string stage_text(const HelixInput& input, const StageReport& r) {
  std::string text;
  const auto line = [&](std::string_view name, const std::string& value) {
    text += format("{:<22}{}\n", name, value);
  };
  if (r.interrupted) line("INTERRUPTED", "the figures cover the time until then");
  line("simulated", format("{:.1f} s to {:.1f} s", r.started, r.ended));
  line("max compute, flow", format("{:.2f}, {:.2f} tokens/s", input.max_compute, r.max_flow));
  line("output", format("{:.1f} tokens/s ({} tokens)", r.output_tps, r.output_tokens));
  line("prompts", format("{:.1f} tokens/s ({} tokens)", r.prompt_tps, r.prompt_tokens));
  line("requests", format("{} arrived: {} finished, {} rejected, {} failed, {} under way",
                          r.arrived, r.finished, r.rejected, r.failed, r.unfinished));
  line("restarts", format("{} ({} evictions, {} tokens computed again, {} plans)", r.restarts,
                          r.evictions, r.recomputed_tokens, r.replans));
  const auto times = [&](std::string_view name, const Percentiles& p) {
    line(name, format("mean {:.3f} s, p50 {:.3f}, p90 {:.3f}, p99 {:.3f}, max {:.3f}", p.mean,
                      p.p50, p.p90, p.p99, p.max));
  };
  times("TTFT", r.ttft);
  times("TPOT", r.tpot);
  times("ITL", r.itl);
  times("end to end", r.e2e);
  times("queueing", r.queueing);
  line("within the goals", format("{:.1f} % of finished, {:.3f} requests/s", 100 * r.attainment,
                                  r.goodput));
  if (r.machine_cost + r.egress_cost > 0) {
    line("cost", format("{:.2f} machines, {:.2f} traffic: {:.3f} a million output tokens",
                        r.machine_cost, r.egress_cost, cost_per_million(r)));
  }
  if (r.out_of_profile > 0) {
    line("OUT OF PROFILE", format("{} batches were larger than the tables; their cost is scaled up "
                                  "from the last entry", r.out_of_profile));
  }
  line("events", format("{} ({} steps)", r.events, r.steps));
  return text;
}

std::string request_csv_header() {
  return "id,outcome,reason,input,output,arrival,queueing,ttft,tpot,e2e,restarts\n";
}

std::string request_csv_row(const RequestRecord& r) {
  const auto since = [&](int64_t t) {
    return t < 0 ? std::string() : format("{:.9f}", seconds_between(r.arrival, t));
  };
  const bool finished = r.outcome == Outcome::kFinished;
  const std::string each =
      finished && r.output > 1
          ? format("{:.9f}", seconds_between(r.first_token, r.end) / (r.output - 1))
          : std::string();
  return format("{},{},{},{},{},{:.9f},{},{},{},{},{}\n", r.id, outcome_name(r.outcome), r.reason,
                r.input, r.output, seconds_between(0, r.arrival), since(r.admitted),
                since(r.first_token), each, since(r.end), r.restarts);
}

std::string chrome_trace(const HelixInput& input, const StageReport& report) {
  std::string text = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  for (size_t i = 0; i < input.nodes.size(); ++i) {
    text += format("{{\"ph\":\"M\",\"pid\":{},\"name\":\"process_name\",\"args\":{{\"name\":", i);
    append_json_string(text, input.nodes[i].name);
    text += "}},\n";
  }
  for (const BatchTrace& b : report.batches) {
    text += format("{{\"ph\":\"X\",\"pid\":{},\"tid\":0,\"name\":\"{} + {}\",\"ts\":{:.3f},\"dur\":"
                   "{:.3f},\"args\":{{\"prompt_tokens\":{},\"decodes\":{}}}}},\n",
                   b.node, b.prompt_tokens, b.decodes, static_cast<double>(b.begin) * 1e-3,
                   static_cast<double>(b.end - b.begin) * 1e-3, b.prompt_tokens, b.decodes);
  }
  return text + "{\"ph\":\"M\",\"pid\":0,\"name\":\"end\",\"args\":{}}]}\n";
}

std::string html_report(const HelixInput& input, const StageOptions& options,
                        const StageReport& report) {
  std::string html =
      "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Towline simulation"
      "</title><style>body{font:14px/1.5 system-ui,sans-serif;max-width:900px;margin:2em auto;"
      "padding:0 1em}pre{background:#8881;padding:1em;overflow:auto}svg{width:100%;margin:1em 0}"
      "svg text{font-size:11px;fill:currentColor}polyline{fill:none;stroke:#2a7de1;"
      "stroke-width:1.5}rect{fill:#2a7de1}.mark{stroke:#d33;stroke-dasharray:3}"
      "table{border-collapse:collapse}td,th{border:1px solid #8886;padding:2px 8px;"
      "text-align:right}:root{color-scheme:light dark}</style></head><body>\n"
      "<h1>Simulation report</h1>\n";
  if (report.interrupted) html += "<p><b>Interrupted: the figures cover the time until then.</b></p>";
  html += "<pre>" + escaped(stage_text(input, report)) + "</pre>\n";
  std::vector<MarkedTime> marks;
  for (const Disturbance& d : options.disturbances) {
    marks.push_back({report.started + d.at, disturbance_name(d.kind)});
  }
  const auto chart = [&](std::string_view title, const std::function<double(const StageSample&)>& v) {
    html += line_chart(title, report.samples, v, marks);
  };
  chart("Output tokens/s", [](const StageSample& s) { return s.output_tps; });
  chart("Requests admitted", [](const StageSample& s) { return static_cast<double>(s.active); });
  chart("Requests waiting", [](const StageSample& s) { return static_cast<double>(s.queued); });
  chart("KV use of the fullest layer", [](const StageSample& s) { return s.kv; });
  html += busy_chart(input, report);
  html += "<h2>Cluster</h2><table><tr><th>node</th><th>layers</th><th>T(k) tokens/s</th><th>KV "
          "layer-tokens</th></tr>\n";
  for (const HelixNode& node : input.nodes) {
    html += format("<tr><td>{}</td><td>{}..{}</td><td>{:.1f}</td><td>{}</td></tr>\n",
                   escaped(node.name), node.layers.begin, node.layers.end - 1, node.rate,
                   node.kv_capacity);
  }
  return html + "</table></body></html>\n";
}

}  // namespace towline::sim
