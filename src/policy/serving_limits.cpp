// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/serving_limits.hpp"

#include <algorithm>

namespace towline::policy {
namespace {

// Chunks of one prompt may follow each other through a pipeline, so many at most.
constexpr int32_t kChunksAhead = 64;
constexpr int32_t kMostOutstanding = 240;  // steps of one node; below its mirror's limit

}  // namespace

Result<CoordinatorOptions> coordinator_options(const spec::ScenarioServing& serving) {
  CoordinatorOptions o;
  ASSIGN_OR_RETURN(o.router, router_named(serving.router));
  o.batch.step_tokens = serving.step_tokens;
  o.batch.chunk_tokens = std::min(serving.chunk_tokens, serving.step_tokens);
  o.batch.sequences = serving.sequences;
  o.batch.prefix_cache = serving.prefix_cache;
  o.batch.ahead = serving.async ? 1 : kChunksAhead;
  o.batch.placeholders = serving.async;
  o.extra_steps = serving.extra_steps;
  // The API refuses a request when `sequences` + `queue` are unfinished;
  // one may be several sequences.
  o.admission.waiting = int64_t{serving.queue} + 2 * int64_t{serving.sequences};
  return o;
}

HostOptions host_options(const CoordinatorOptions& o) {
  HostOptions host;
  host.total_layers = o.total_layers;
  host.router = o.router;
  host.seed = o.seed;
  host.estimator = o.kv;
  host.admission = o.admission;
  host.batching = o.batch;
  host.extra_steps = o.extra_steps;
  host.most_outstanding = kMostOutstanding;
  host.most_routes = std::max(o.most_routes, 1);
  host.wait_for_way = o.wait_for_nodes;
  return host;
}

}  // namespace towline::policy
