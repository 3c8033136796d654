// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/stage_report.hpp"

#include <algorithm>

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
                            {"cached_tokens", r.cached_tokens},
                            {"decode_tps", r.output_tps},
                            {"prompt_tps", r.prompt_tps},
                            {"goodput", r.goodput},
                            {"attainment", r.attainment},
                            {"mean_in_system", r.mean_in_system},
                            {"events", r.events},
                            {"steps", r.steps},
                            {"forwarded_steps", r.forwarded},
                            {"out_of_profile", r.out_of_profile}});
  // The same under the names of `towline bench`, whose time begins with the first request too.
  const double seconds = r.ended - (r.first_arrival < 0 ? r.started : r.first_arrival);
  const auto rate = [&](int64_t n) { return seconds > 0 ? static_cast<double>(n) / seconds : 0; };
  json.set("seconds", seconds);
  json.set("answered", r.finished);
  json.set("input_tokens", r.prompt_tokens);
  json.set("requests_per_s", rate(r.finished));
  json.set("input_tps", rate(r.prompt_tokens));
  json.set("output_tps", rate(r.output_tokens));
  if (r.kv_moves > 0) {
    json.set("kv_moves", r.kv_moves);
    json.set("kv_moved_bytes", r.kv_moved_bytes);
    json.set("kv_wait", percentiles_json(r.kv_wait));
  }
  if (r.replica_bytes > 0) {
    json.set("replica_bytes", r.replica_bytes);
    json.set("replica_lag", percentiles_json(r.replica_lag));
  }
  if (r.machine_cost + r.egress_cost > 0) {
    json.set("machine_cost", r.machine_cost);
    json.set("egress_cost", r.egress_cost);
    json.set("cost_per_million_output_tokens", cost_per_million(r));
  }
  json.set("ttft", percentiles_json(r.ttft));
  json.set("first_token", percentiles_json(r.first_token));
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
  if (r.kv_moves > 0) {
    line("KV moved", format("{} caches, {:.2f} GB", r.kv_moves, r.kv_moved_bytes * 1e-9));
    times("  after the prompt", r.kv_wait);
  }
  if (r.replica_bytes > 0) {
    line("KV replicated", format("{:.2f} GB", r.replica_bytes * 1e-9));
    times("  copies' lag", r.replica_lag);
  }
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
  line("events", format("{} ({} steps, {} of them forwarded)", r.events, r.steps, r.forwarded));
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

}  // namespace towline::sim
