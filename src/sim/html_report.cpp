// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/html_report.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "base/fmt.hpp"
#include "base/html.hpp"
#include "plan/picture.hpp"
#include "sim/stage_report.hpp"

namespace towline::sim {
namespace {

constexpr size_t kMostPictured = 200;  // nodes; more make no picture
constexpr size_t kMostRows = 100;      // of a heat map
constexpr size_t kMostLinks = 25;      // of the table
constexpr size_t kMostLabels = 14;     // of disturbances; more are lines only

constexpr std::string_view kStyle =
    ":root{color-scheme:light dark;--line:#8884;--ink:#2a6fdb;--soft:#2a6fdb22;--bad:#d1362f}"
    "body{font:14px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1.2em}"
    "h1{font-size:1.5em;margin:.2em 0}h2{font-size:1.1em;margin:2em 0 .4em}"
    ".cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:10px}"
    ".cards div{border:1px solid var(--line);border-radius:8px;padding:8px 12px}"
    ".cards b{display:block;font-size:1.35em;font-weight:600}.cards "
    "span{opacity:.7;font-size:.85em}"
    ".warn{border:1px solid var(--bad);border-radius:8px;padding:8px 12px;color:var(--bad)}"
    ".three{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:16px}"
    "svg.chart{width:100%;height:auto;display:block}svg.chart "
    "text{font-size:11px;fill:currentColor}"
    "svg.chart .dim{opacity:.65}.grid{stroke:var(--line);stroke-width:1}"
    ".curve{fill:none;stroke:var(--ink);stroke-width:1.8}.area{fill:var(--soft);stroke:none}"
    ".goal{stroke:#1a9850;stroke-dasharray:5 3;stroke-width:1.5}"
    ".mark{stroke:var(--bad);stroke-dasharray:3 3;stroke-width:1}"
    "svg.chart text.marked{fill:var(--bad);font-size:10px}"
    ".plan{overflow:auto;border:1px solid var(--line);border-radius:8px}.plan "
    "svg{width:100%;height:auto}"
    "table{border-collapse:collapse;font-size:13px}td,th{border-bottom:1px solid var(--line);"
    "padding:3px 12px;text-align:right}td:first-child,th:first-child{text-align:left}"
    "details{margin:1em 0}pre{background:#8881;padding:1em;overflow:auto;font-size:12px}";

struct Mark {
  double at;
  std::string what;
};

// About so many round values in [low, high].
std::vector<double> ticks(double low, double high, int about) {
  const double span = high - low;
  if (!(span > 0)) return {low};
  const double raw = span / about, power = std::pow(10, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double nice : {1.0, 2.0, 5.0}) {
    if (nice * power >= raw) {
      step = nice * power;
      break;
    }
  }
  std::vector<double> list;
  for (double t = std::ceil(low / step) * step; t <= high + step * 1e-9; t += step) {
    list.push_back(std::abs(t) < step * 1e-9 ? 0 : t);
  }
  return list;
}

// A frame with axes; what is drawn in it is given in the units of the axes.
class Chart {
 public:
  Chart(std::string_view title, double width, double height, double x0, double x1, double y1,
        std::string_view x_unit)
      : width_(width), height_(height), x0_(x0), x1_(x1 > x0 ? x1 : x0 + 1), y1_(y1 > 0 ? y1 : 1) {
    text_ = format(
        "<svg class='chart' viewBox='0 0 {:.0f} {:.0f}' role='img' aria-label='{}'>"
        "<text x='{}' y='14' font-weight='600'>{}</text>\n",
        width, height, html_escaped(title), kLeft, html_escaped(title));
    for (const double t : ticks(x0_, x1_, static_cast<int>(width / 130))) {
      text_ += format(
          "<line class='grid' x1='{0:.1f}' x2='{0:.1f}' y1='{1:.1f}' y2='{2:.1f}'/>"
          "<text class='dim' x='{0:.1f}' y='{3:.1f}' text-anchor='middle'>{4:.6g}{5}</text>",
          x(t), kTop, bottom(), bottom() + 14, t, x_unit);
    }
    for (const double t : ticks(0, y1_, 4)) {
      text_ += format("<line class='grid' x1='{}' x2='{:.1f}' y1='{:.1f}' y2='{:.1f}'/>"
                      "<text class='dim' x='{}' y='{:.1f}' text-anchor='end'>{:.6g}</text>\n",
                      kLeft, width_ - kRight, y(t), y(t), kLeft - 6, y(t) + 4, t);
    }
  }
  double x(double v) const {
    return kLeft + std::clamp((v - x0_) / (x1_ - x0_), 0.0, 1.0) * (width_ - kLeft - kRight);
  }
  double y(double v) const {
    return bottom() - std::clamp(v / y1_, 0.0, 1.0) * (bottom() - kTop);
  }
  void curve(const std::vector<std::pair<double, double>>& points, bool filled) {
    std::string path;
    for (const auto& [px, py] : points) path += format("{:.1f},{:.1f} ", x(px), y(py));
    if (filled && !points.empty()) {
      text_ += format("<polygon class='area' points='{:.1f},{:.1f} {}{:.1f},{:.1f}'/>",
                      x(points.front().first), bottom(), path, x(points.back().first), bottom());
    }
    text_ += format("<polyline class='curve' points='{}'/>\n", path);
  }
  void upright(double at, std::string_view style, std::string_view hint) {
    text_ += format(
        "<line class='{0}' x1='{1:.1f}' x2='{1:.1f}' y1='{2:.1f}' y2='{3:.1f}'>"
        "<title>{4}</title></line>\n",
        style, x(at), kTop, bottom(), html_escaped(hint));
  }
  void marks(const std::vector<Mark>& list) {
    for (size_t i = 0; i < list.size(); ++i) {
      upright(list[i].at, "mark", format("{} at {:.1f} s", list[i].what, list[i].at));
      if (list.size() > kMostLabels) continue;
      const double where = x(list[i].at);
      const bool left = where > width_ - 140;
      text_ += format("<text class='marked' x='{:.1f}' y='{:.1f}' text-anchor='{}'>{}</text>\n",
                      where + (left ? -4 : 4), kTop + 10 + 11 * static_cast<double>(i % 3),
                      left ? "end" : "start", html_escaped(list[i].what));
    }
  }
  void add(const std::string& svg) { text_ += svg; }
  std::string end() { return text_ + "</svg>\n"; }

  static constexpr double kLeft = 58, kRight = 14, kTop = 24;

 private:
  double bottom() const { return height_ - 20; }
  double width_, height_, x0_, x1_, y1_;
  std::string text_;
};

std::string cdf(std::string_view title, const std::vector<double>& curve, double goal) {
  if (curve.size() < 2) return {};
  // To the 99th percentile: the last steps of the curve would press the rest together.
  const size_t last = curve.size() * 99 / 100;
  const double most = std::max(curve[last], goal * 1.05);
  Chart chart(title, 420, 240, 0, most, 1, " s");
  std::vector<std::pair<double, double>> points;
  for (size_t i = 0; i <= last; ++i) {
    points.emplace_back(curve[i], static_cast<double>(i) / static_cast<double>(curve.size() - 1));
  }
  if (goal > 0) chart.upright(goal, "goal", format("goal: {:g} s", goal));
  chart.curve(points, false);
  return chart.end();
}

std::string series(std::string_view title, const StageReport& report,
                   const std::vector<Mark>& marks,
                   const std::function<double(const StageSample&)>& value, double least_top) {
  const std::vector<StageSample>& samples = report.samples;
  if (samples.size() < 2) return {};
  double most = least_top;
  for (const StageSample& s : samples) most = std::max(most, value(s));
  Chart chart(title, 1040, 190, samples.front().at, samples.back().at, most * 1.05, " s");
  std::vector<std::pair<double, double>> points;
  const size_t stride = samples.size() / 1000 + 1;
  for (size_t i = 0; i < samples.size(); i += stride) {
    double mean = 0;
    const size_t end = std::min(i + stride, samples.size());
    for (size_t k = i; k < end; ++k) mean += value(samples[k]) / static_cast<double>(end - i);
    points.emplace_back(samples[i].at, mean);
  }
  chart.curve(points, true);
  chart.marks(marks);
  return chart.end();
}

// A row a node, from white (0) to full colour (1).
std::string heat_map(std::string_view title, const HelixInput& input, const NodeTimeline& line,
                     const std::vector<std::vector<float>>& cells, int hue,
                     const std::vector<Mark>& marks) {
  if (line.columns() < 2) return {};
  std::vector<size_t> rows;
  for (size_t i = 0; i < input.nodes.size(); ++i) {
    if (!input.nodes[i].layers.empty()) rows.push_back(i);
  }
  std::ranges::stable_sort(rows, {}, [&](size_t i) { return input.nodes[i].layers.begin; });
  std::string note;
  if (rows.size() > kMostRows) {  // evenly spread over the layers
    std::vector<size_t> some;
    for (size_t i = 0; i < kMostRows; ++i) some.push_back(rows[i * rows.size() / kMostRows]);
    note = format(" ({} of {} nodes)", kMostRows, rows.size());
    rows = std::move(some);
  }
  constexpr double kLeft = 190, kWidth = 1040;
  const double tall = rows.size() > 40 ? 7 : 13;
  const double height = 40 + tall * static_cast<double>(rows.size());
  const double begin = line.begin,
               end = line.begin + line.step * static_cast<double>(line.columns());
  const auto x = [&](double t) {
    return kLeft + std::clamp((t - begin) / (end - begin), 0.0, 1.0) * (kWidth - kLeft - 14);
  };
  std::string svg = format(
      "<svg class='chart' viewBox='0 0 {} {:.0f}'><text x='0' y='14' "
      "font-weight='600'>{}{}</text>\n",
      kWidth, height, html_escaped(title), note);
  for (size_t r = 0; r < rows.size(); ++r) {
    const HelixNode& node = input.nodes[rows[r]];
    const double y = 22 + tall * static_cast<double>(r);
    if (tall > 10) {
      svg += format("<text class='dim' x='0' y='{:.1f}'>{} [{}, {})</text>", y + 10,
                    html_escaped(node.name), node.layers.begin, node.layers.end);
    }
    const std::vector<float>& row = cells[rows[r]];
    const auto level = [&](size_t c) {
      return static_cast<int>(std::lround(std::clamp(row[c], 0.0F, 1.0F) * 20));
    };
    for (size_t c = 0; c < row.size();) {  // runs of one colour
      size_t stop = c + 1;
      while (stop < row.size() && level(stop) == level(c)) ++stop;
      const double from = x(begin + line.step * static_cast<double>(c));
      const double to = x(begin + line.step * static_cast<double>(stop));
      svg += format("<rect x='{:.1f}' y='{:.1f}' width='{:.1f}' height='{:.1f}' "
                    "fill='hsl({} 75% 48%)' fill-opacity='{:.2f}'/>",
                    from, y, to - from + 0.3, tall - 1, hue, 0.04 + 0.048 * level(c));
      c = stop;
    }
    svg += '\n';
  }
  for (const Mark& mark : marks) {
    svg += format(
        "<line class='mark' x1='{0:.1f}' x2='{0:.1f}' y1='20' y2='{1:.1f}'><title>{2} at "
        "{3:.1f} s</title></line>",
        x(mark.at), height - 18, html_escaped(mark.what), mark.at);
  }
  for (const double t : ticks(begin, end, 8)) {
    svg += format("<text class='dim' x='{:.1f}' y='{:.1f}' text-anchor='middle'>{:.6g} s</text>",
                  x(t), height - 4, t);
  }
  return svg + "</svg>\n";
}

std::string place_name(const HelixInput& input, int32_t place) {
  return place < 0 ? std::string("coordinator") : input.nodes[place].name;
}

double link_bytes_a_token(const HelixInput& input, const HelixLink& link) {
  const bool ends = link.from < 0 || link.to < 0;
  return ends ? input.token_bytes : input.token_bytes + input.activation_bytes;
}

// The plan's picture with what really flowed.
std::string topology(const HelixInput& input, const StageReport& report) {
  if (input.nodes.size() > kMostPictured) {
    return format("<p>{} nodes: too many for a picture.</p>\n", input.nodes.size());
  }
  const double seconds = report.ended - report.started;
  if (!(seconds > 0)) return {};
  plan::FlowReport flow;
  flow.layers = input.total_layers;
  for (const HelixNode& node : input.nodes) {
    plan::UnitFlow unit;
    unit.name = node.name;
    const auto machine = static_cast<size_t>(node.machine);
    if (machine < input.machines.size()) unit.kind = input.machines[machine];
    if (node.role == policy::NodeRole::kPrompt) unit.kind += " prompts";
    if (node.role == policy::NodeRole::kDecode) unit.kind += " decodes";
    unit.layers = node.layers;
    unit.capacity = node.rate;
    flow.units.push_back(std::move(unit));
  }
  double through = 0;
  for (size_t i = 0; i < input.links.size(); ++i) {
    const HelixLink& link = input.links[i];
    if (link.kv_only) continue;
    const double bytes = link_bytes_a_token(input, link);
    const double rows = (report.link_bytes[i] - report.link_kv_bytes[i]) / bytes / seconds;
    flow.links.push_back({link.from, link.to, rows, link.bandwidth / bytes, 0, false});
    if (link.to >= 0) flow.units[link.to].flow += rows;
    if (link.from < 0) through += rows;
  }
  flow.max_flow = through;
  const std::string caption =
      format("{:.1f} tokens/s entered the pipelines; the plan's maximum flow is {:.1f}", through,
             report.max_flow);
  const std::string picture = plan::picture_svg(
      flow, 2000,
      {caption,
       "tokens/s as they flowed, prompts and outputs, over the whole run; a box's "
       "share is of T(k), a line's of its bandwidth"});
  return "<div class='plan'>" + picture + "</div>\n";
}

std::string percentile_table(const StageOptions& options, const StageReport& r) {
  std::string html =
      "<table><tr><th></th><th>mean</th><th>p50</th><th>p90</th><th>p95</th><th>p99</th><th>max</"
      "th>"
      "<th>goal</th></tr>\n";
  const auto row = [&](std::string_view name, const Percentiles& p, double goal) {
    html += format("<tr><td>{}</td><td>{:.3f}</td><td>{:.3f}</td><td>{:.3f}</td><td>{:.3f}</td><td>"
                   "{:.3f}</td><td>{:.3f}</td><td>{}</td></tr>\n",
                   name, p.mean, p.p50, p.p90, p.p95, p.p99, p.max,
                   goal > 0 ? format("{:g}", goal) : std::string("–"));
  };
  row("first token (TTFT), s", r.ttft, options.slo_ttft);
  row("each further token (TPOT), s", r.tpot, options.slo_tpot);
  row("between two tokens (ITL), s", r.itl, 0);
  row("end to end, s", r.e2e, 0);
  row("waiting for a place, s", r.queueing, 0);
  return html + "</table>\n";
}

std::string cards(const HelixInput& input, const StageReport& r) {
  std::string html = "<div class='cards'>";
  const auto card = [&](const std::string& value, std::string_view what) {
    html += format("<div><b>{}</b><span>{}</span></div>", value, what);
  };
  card(format("{:.1f}", r.output_tps), "output tokens/s");
  card(format("{:.1f}", r.prompt_tps), "prompt tokens/s");
  card(format("{:.1f}", r.max_flow), "maximum flow of the plan, tokens/s");
  card(format("{} / {}", r.finished, r.arrived), "requests finished of those that came");
  card(format("{} + {}", r.rejected, r.failed), "rejected + failed");
  card(format("{:.1f} %", 100 * r.attainment), "of finished requests within the goals");
  card(format("{:.3f} s", r.ttft.p50), "TTFT, median");
  card(format("{:.3f} s", r.tpot.p50), "TPOT, median");
  card(format("{} / {}", r.restarts, r.evictions), "restarts, evictions among them");
  double busy = 0, nodes = 0;
  for (size_t i = 0; i < input.nodes.size(); ++i) {
    if (input.nodes[i].layers.empty()) continue;
    busy += r.node_busy[i];
    ++nodes;
  }
  if (r.kv_moves > 0) {
    card(format("{:.3f} s", r.kv_wait.p50),
         "from a prompt's end to its KV cache's arrival, median");
  }
  if (r.replica_bytes > 0) {
    card(format("{:.3f} s", r.replica_lag.p99), "lag of the copies of KV, 99th percentile");
  }
  card(format("{:.0f} %", nodes > 0 ? 100 * busy / nodes : 0), "of the time a node computes, mean");
  return html + "</div>\n";
}

std::string node_table(const HelixInput& input, const StageReport& r) {
  std::string html =
      "<table><tr><th>node</th><th>machine</th><th>layers</th><th>T(k) tokens/s</th><th>busy</th>"
      "<th>KV, layer-tokens</th></tr>\n";
  for (size_t i = 0; i < input.nodes.size(); ++i) {
    const HelixNode& node = input.nodes[i];
    if (node.layers.empty()) continue;
    const auto machine = static_cast<size_t>(node.machine);
    html += format(
        "<tr><td>{}</td><td>{}</td><td>{} to {}</td><td>{:.1f}</td><td>{:.1f} %</td><td>{}"
        "</td></tr>\n",
        html_escaped(node.name),
        machine < input.machines.size() ? html_escaped(input.machines[machine]) : "–",
        node.layers.begin, node.layers.end - 1, node.rate, 100 * r.node_busy[i], node.kv_capacity);
  }
  return html + "</table>\n";
}

std::string_view report_kv(const StageReport& r, size_t link) {
  return r.link_kv_bytes[link] > 0 ? " (KV)" : "";
}

std::string link_table(const HelixInput& input, const StageReport& r) {
  const double seconds = r.ended - r.started;
  std::vector<size_t> order(input.links.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto used = [&](size_t i) {
    return seconds > 0 ? r.link_bytes[i] / seconds / input.links[i].bandwidth : 0;
  };
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return used(a) > used(b); });
  std::string html =
      "<table><tr><th>link</th><th>MB/s</th><th>of its bandwidth</th><th>latency, ms</th></tr>\n";
  for (size_t k = 0; k < std::min(order.size(), kMostLinks); ++k) {
    const HelixLink& link = input.links[order[k]];
    html +=
        format("<tr><td>{} → {}{}</td><td>{:.4g}</td><td>{:.2f} %</td><td>{:.3g}</td></tr>\n",
               html_escaped(place_name(input, link.from)), html_escaped(place_name(input, link.to)),
               report_kv(r, order[k]), seconds > 0 ? r.link_bytes[order[k]] / seconds * 1e-6 : 0,
               100 * used(order[k]), link.latency * 1e3);
  }
  return html + "</table>\n";
}

std::vector<Mark> marks_of(const HelixInput& input, const StageOptions& options,
                           const StageReport& report) {
  std::vector<Mark> marks;
  for (const Disturbance& d : options.disturbances) {
    const double at = report.started + d.at;
    if (at > report.ended) break;
    const bool link = d.kind >= DisturbanceKind::kLinkDown;
    std::string what = std::string(disturbance_name(d.kind)) + " ";
    if (link) {
      const HelixLink& l = input.links[d.target];
      what += place_name(input, l.from) + " → " + place_name(input, l.to);
    } else {
      what += input.nodes[d.target].name;
    }
    marks.push_back({at, std::move(what)});
  }
  return marks;
}

}  // namespace

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

std::string html_report(const HelixInput& input, const StageOptions& options,
                        const StageReport& report) {
  const std::vector<Mark> marks = marks_of(input, options, report);
  std::string html = format(
      "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><meta name='viewport' "
      "content='width=device-width'><title>Towline simulation</title>"
      "<style>{}</style></head><body>\n<h1>Simulation report</h1>\n<p>{} nodes, {} layers, "
      "{:.1f} s simulated from {:.1f} s on, when all models were loaded.</p>\n",
      kStyle, input.nodes.size(), input.total_layers, report.ended - report.started,
      report.started);
  if (report.interrupted) {
    html += "<p class='warn'>Interrupted: the figures cover the time until then.</p>\n";
  }
  if (report.out_of_profile > 0) {
    html += format(
        "<p class='warn'>{} batches were larger than the profile's tables; their cost is "
        "scaled up from the last entry.</p>\n",
        report.out_of_profile);
  }
  html += cards(input, report);
  html += "<h2>Latencies</h2>\n" + percentile_table(options, report);
  html +=
      "<h2>Distributions</h2>\n<p>Share of requests (vertical) that took no longer, up to the 99th "
      "percentile; green: the goal.</p>\n<div class='three'>";
  html += cdf("First token", report.ttft_curve, options.slo_ttft);
  html += cdf("Each further token", report.tpot_curve, options.slo_tpot);
  html += cdf("End to end", report.e2e_curve, 0);
  html += "</div>\n<h2>Where it flowed</h2>\n" + topology(input, report);
  html += "<h2>Over time</h2>\n";
  html += series(
      "Output tokens/s", report, marks, [](const StageSample& s) { return s.output_tps; }, 0);
  html += series("Requests with a place", report, marks,
                 [](const StageSample& s) { return static_cast<double>(s.active); }, 1);
  html += series("Requests waiting", report, marks,
                 [](const StageSample& s) { return static_cast<double>(s.queued); }, 1);
  html += series("KV blocks held on the fullest node, share", report, marks,
                 [](const StageSample& s) { return s.kv; }, 1);
  html += heat_map("Share of the time that each node computes", input, report.timeline,
                   report.timeline.busy, 214, marks);
  html += heat_map("Share of KV blocks held on each node", input, report.timeline,
                   report.timeline.kv, 18, marks);
  if (!marks.empty()) {
    html += "<h2>Disturbances</h2>\n<table><tr><th>what</th><th>at, s</th></tr>";
    for (size_t i = 0; i < std::min<size_t>(marks.size(), 200); ++i) {
      html +=
          format("<tr><td>{}</td><td>{:.1f}</td></tr>", html_escaped(marks[i].what), marks[i].at);
    }
    html += format("</table>\n<p>{} plans were made, {} tokens computed again.</p>\n",
                   report.replans, report.recomputed_tokens);
  }
  html += "<h2>Nodes</h2>\n" + node_table(input, report);
  html += "<h2>Busiest links</h2>\n" + link_table(input, report);
  html += "<details><summary>All figures</summary><pre>" + html_escaped(stage_text(input, report)) +
          "</pre></details>\n";
  return html + "</body></html>\n";
}

}  // namespace towline::sim
