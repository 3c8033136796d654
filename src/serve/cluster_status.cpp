// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ClusterEngine: what others may know of a running cluster.
#include <map>

#include "base/fmt.hpp"
#include "serve/cluster_engine.hpp"

namespace towline::serve {

void ClusterEngine::publish_stats() {
  const policy::Coordinator::Load load = host_->load();
  const policy::Batcher::Counters counters = host_->counters();
  const std::lock_guard lock(mutex_);
  stats_.running = static_cast<int32_t>(load.running);
  stats_.waiting = static_cast<int32_t>(load.waiting);
  stats_.kv_blocks_total = load.kv_blocks;
  stats_.kv_blocks_used = load.kv_blocks_used;
  stats_.prompt_tokens = load.prompt_tokens;
  stats_.generation_tokens = generation_tokens_;
  stats_.prefix_queries = counters.prefix_queries;
  stats_.prefix_hits = counters.prefix_hits;
  stats_.preemptions = counters.preemptions;
  stats_.steps = load.steps;
  stats_.last_step_tokens = load.last_step_rows;
}

void ClusterEngine::measure_flow() {
  const Instant now = net::steady_now();
  if (!flow_.wants_reading(now)) return;
  std::map<FlowMeter::Key, int64_t> rows = {{FlowMeter::kTotal, host_->load().tokens}};
  for (const policy::NodeView& view : host_->nodes()) rows[view.node.value] = view.tokens;
  flow_.read(now, std::move(rows));
}

Json ClusterEngine::status_now() const {
  Json nodes = Json::array();
  for (const policy::NodeView& view : host_->nodes()) {
    const Guest* guest = nullptr;
    for (const auto& [caller, other] : guests_) {
      if (other.node == view.node) guest = &other;
    }
    nodes.push(Json::object({{"name", view.name},
                             {"node", int64_t{view.node.value}},
                             {"state", view.state},
                             {"incarnation", format("{:016x}", view.incarnation)},
                             {"host", guest != nullptr ? Json(guest->host) : Json()},
                             {"pid", guest != nullptr ? Json(guest->pid) : Json()},
                             {"layers", layers_json(view.layers)},
                             {"kv_blocks", int64_t{view.kv_blocks}},
                             {"kv_blocks_used", int64_t{view.kv_blocks_used}},
                             {"requests", view.sequences},
                             {"steps_in_flight", view.steps_in_flight},
                             {"runs", view.runs},
                             {"tokens", view.tokens},
                             {"planned_flow", view.planned_flow},
                             {"achieved_flow", flow_.per_second(view.node.value)}}));
  }
  Json broken = Json::array();
  for (const auto& [from, to] : host_->broken_links()) {
    broken.push(Json::object({{"from", host_->membership().member(from).name},
                              {"to", host_->membership().member(to).name}}));
  }
  const policy::Coordinator::Load load = host_->load();
  const double achieved = flow_.per_second(FlowMeter::kTotal);
  return Json::object({{"epoch", host_->epoch().value},
                       {"ready", host_->can_route() && !asleep()},
                       {"asleep", asleep()},
                       {"max_flow", host_->max_flow()},
                       {"achieved_flow", achieved},
                       {"achieved_over_max",
                        host_->max_flow() > 0 ? achieved / host_->max_flow() : 0.0},
                       {"flow_window_s", flow_.window_seconds()},
                       {"tokens", load.tokens},
                       {"steps", load.steps},
                       {"running", load.running},
                       {"waiting", load.waiting},
                       {"reroutes", load.reroutes},
                       {"uptime_s", to_seconds(net::steady_now() - started_)},
                       {"nodes", nodes},
                       {"broken_links", broken}});
}

Json ClusterEngine::explain_now(RequestId id) const {
  const policy::RequestTrace* trace = host_->trace(id);
  if (trace == nullptr) return Json();
  const auto at = [&](Instant t) {
    return t.ns == 0 ? Json() : Json(to_seconds(t - trace->submitted));
  };
  Json attempts = Json::array();
  for (const policy::RequestTrace::Attempt& attempt : trace->attempts) {
    Json hops = Json::array();
    for (const auto& [name, layers] : attempt.hops) {
      hops.push(Json::object({{"node", name}, {"layers", layers_json(layers)}}));
    }
    attempts.push(
        Json::object({{"hops", hops},
                      {"routed_s", at(attempt.routed)},
                      {"ended_s", at(attempt.ended)},
                      {"from_token", attempt.from_token},
                      {"outcome", attempt.outcome.empty() ? Json() : Json(attempt.outcome)}}));
  }
  return Json::object({{"state", trace->state},
                       {"error", trace->failure.empty() ? Json() : Json(trace->failure)},
                       {"prompt_tokens", trace->prompt_tokens},
                       {"output_tokens", trace->output_tokens},
                       {"first_step_s", at(trace->first_step)},
                       {"first_token_s", at(trace->first_token)},
                       {"finished_s", at(trace->finished)},
                       {"recoveries", static_cast<int64_t>(trace->attempts.empty()
                                                               ? 0
                                                               : trace->attempts.size() - 1)},
                       {"routes", attempts}});
}

}  // namespace towline::serve
