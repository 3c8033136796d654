// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/load_report.hpp"

#include <algorithm>

#include "base/fmt.hpp"
#include "base/html.hpp"
#include "sim/metrics.hpp"

namespace towline::cli {
namespace {

Json percentiles_json(const sim::Percentiles& p) {
  return Json::object({{"count", p.count}, {"mean", p.mean}, {"p50", p.p50}, {"p90", p.p90},
                       {"p95", p.p95}, {"p99", p.p99}, {"max", p.max}});
}

std::string row(std::string_view name, const sim::Percentiles& p) {
  return format("{:<8}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}\n", name,
                1e3 * p.mean, 1e3 * p.p50, 1e3 * p.p90, 1e3 * p.p95, 1e3 * p.p99, 1e3 * p.max);
}

// The share of values at or below x, as a line; `sorted` ascending.
std::string cdf(std::string_view name, const std::vector<double>& sorted, double goal) {
  constexpr double kWidth = 820, kHeight = 130, kTop = 24;
  if (sorted.empty()) return {};
  const double longest = std::max({sorted.back(), goal, 1e-9});
  std::string svg = format("<svg viewBox='0 0 {} {}'><text x='0' y='14'>{}: share of requests at "
                           "or below, 0 to {:.3g} s</text><polyline points='0,{:.1f} ",
                           kWidth + 10, kTop + kHeight + 18, name, longest, kTop + kHeight);
  const size_t step = std::max<size_t>(1, sorted.size() / 400);
  for (size_t i = 0; i < sorted.size(); i += step) {
    svg += format("{:.1f},{:.1f} ", kWidth * sorted[i] / longest,
                  kTop + kHeight * (1 - static_cast<double>(i + 1) /
                                            static_cast<double>(sorted.size())));
  }
  svg += format("{:.1f},{:.1f}'/>", kWidth * sorted.back() / longest, kTop);
  if (goal > 0) {
    svg += format("<line class='goal' x1='{0:.1f}' x2='{0:.1f}' y1='{1}' y2='{2}'><title>goal "
                  "{3} s</title></line>",
                  kWidth * goal / longest, kTop, kTop + kHeight, goal);
  }
  return svg + "</svg>\n";
}

}  // namespace

void LoadReport::add(const serve::LoadResult& r) {
  if (begin_ < 0 || r.due < begin_) begin_ = r.due;
  if (r.first >= 0) first_.push_back(r.ttft());
  itl_.insert(itl_.end(), r.gaps.begin(), r.gaps.end());
  if (r.cut) {
    ++cut_;
    return;
  }
  if (!r.ok()) {
    ++failed_;
    ++errors_[r.error];
    return;
  }
  ++answered_;
  end_ = std::max(end_, r.last);
  input_ += r.input;
  output_ += r.output;
  ttft_.push_back(r.ttft());
  e2e_.push_back(r.e2e());
  lag_.push_back(r.sent - r.due);
  if (r.output > 1) tpot_.push_back(r.tpot());
  const bool met = (goals_.ttft <= 0 || r.ttft() <= goals_.ttft) &&
                   (goals_.tpot <= 0 || r.tpot() <= goals_.tpot);
  met_ += met ? 1 : 0;
}

void LoadReport::finish(int64_t sent, int64_t most, bool interrupted) {
  sent_ = sent;
  most_ = most;
  interrupted_ = interrupted;
  ttft_p_ = sim::percentiles_of(ttft_);
  first_p_ = sim::percentiles_of(first_);
  tpot_p_ = sim::percentiles_of(tpot_);
  itl_p_ = sim::percentiles_of(itl_);
  e2e_p_ = sim::percentiles_of(e2e_);
  lag_p_ = sim::percentiles_of(lag_);
}

Json LoadReport::json() const {
  const double span = end_ > begin_ ? end_ - begin_ : 0;
  const auto rate = [span](int64_t n) { return span > 0 ? static_cast<double>(n) / span : 0; };
  Json errors = Json::object();
  for (const auto& [what, count] : errors_) errors.set(what, count);
  return Json::object({{"interrupted", interrupted_},
                       {"sent", sent_},
                       {"answered", answered_},
                       {"failed", failed_},
                       {"stopped", cut_},
                       {"errors", std::move(errors)},
                       {"seconds", span},
                       {"most_in_flight", most_},
                       {"input_tokens", input_},
                       {"output_tokens", output_},
                       {"requests_per_s", rate(answered_)},
                       {"input_tps", rate(input_)},
                       {"output_tps", rate(output_)},
                       {"goodput", rate(met_)},
                       {"attainment", answered_ + failed_ > 0
                                          ? static_cast<double>(met_) /
                                                static_cast<double>(answered_ + failed_)
                                          : 0},
                       {"ttft", percentiles_json(ttft_p_)},
                       {"first_token", percentiles_json(first_p_)},
                       {"tpot", percentiles_json(tpot_p_)},
                       {"itl", percentiles_json(itl_p_)},
                       {"e2e", percentiles_json(e2e_p_)},
                       {"client_lag", percentiles_json(lag_p_)}});
}

std::string LoadReport::table() const {
  const Json j = json();
  std::string text = format(
      "{}{} requests in {:.1f} s, {} answered, {} failed{}; at most {} at once\n"
      "{:.2f} requests/s, {:.1f} output tokens/s, {:.1f} input tokens/s\n",
      interrupted_ ? "INTERRUPTED: " : "", sent_, j["seconds"].as_double(), answered_, failed_,
      cut_ > 0 ? format(", {} stopped before their end", cut_) : "", most_, j["requests_per_s"].as_double(), j["output_tps"].as_double(),
      j["input_tps"].as_double());
  if (goals_.ttft > 0 || goals_.tpot > 0) {
    text += format("within the goals: {:.2f} requests/s, {:.1f} % of those that ended\n",
                   j["goodput"].as_double(), 100 * j["attainment"].as_double());
  }
  text += format("\n{:<8}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}\n", "ms", "mean", "p50", "p90", "p95",
                 "p99", "max");
  text += row("TTFT", ttft_p_) + row("TPOT", tpot_p_) + row("ITL", itl_p_) + row("E2E", e2e_p_);
  if (lag_p_.p99 > 0.05) {
    text += format("\nThe client itself was up to {:.0f} ms late in sending (p99): fewer requests "
                   "a second would be measured better.\n",
                   1e3 * lag_p_.p99);
  }
  for (const auto& [what, count] : errors_) text += format("\n{} x {}", count, what);
  if (!errors_.empty()) text += '\n';
  return text;
}

std::string LoadReport::html(const std::string& title) const {
  return format(
             "<!doctype html><meta charset='utf-8'><title>{0}</title><style>body{{font:15px "
             "system-ui;max-width:60em;margin:2em auto;padding:0 1em}}pre{{background:#8881;"
             "padding:1em;overflow:auto}}svg{{width:100%;margin:1em 0}}svg text{{font-size:11px;"
             "fill:currentColor}}polyline{{fill:none;stroke:#2a7de1;stroke-width:1.5}}.goal{{"
             "stroke:#d33;stroke-dasharray:4}}</style><h1>{0}</h1><pre>{1}</pre>\n",
             html_escaped(title), html_escaped(table())) +
         cdf("Time to first token", ttft_, goals_.ttft) +
         cdf("Time per output token", tpot_, goals_.tpot) + cdf("Between tokens", itl_, 0) +
         cdf("End to end", e2e_, 0);
}

std::string LoadReport::csv_header() {
  return "index,due,sent,ttft,tpot,e2e,input,output,status,error\n";
}

std::string LoadReport::csv_row(const serve::LoadResult& r) {
  std::string error = r.error;
  std::replace_if(error.begin(), error.end(),
                  [](char c) { return c == ',' || c == '\n' || c == '\r' || c == '"'; }, ' ');
  if (!r.ok()) {
    const std::string first = r.first >= 0 ? format("{:.6f}", r.ttft()) : std::string();
    return format("{},{:.6f},{:.6f},{},,,{},{},{},{}\n", r.index, r.due, r.sent, first, r.input,
                  r.output, r.status, error);
  }
  return format("{},{:.6f},{:.6f},{:.6f},{:.6f},{:.6f},{},{},{},\n", r.index, r.due, r.sent,
                r.ttft(), r.tpot(), r.e2e(), r.input, r.output, r.status);
}

}  // namespace towline::cli
