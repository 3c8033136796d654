// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/solo_rows.hpp"

#include <random>
#include <utility>

#include "base/fmt.hpp"
#include "cli/progress.hpp"

namespace towline::cli {

void SoloRows::add_drawing(OptionTable& t) {
  t.value("temperature", &temperature, "0 is greedy").range(0, 100);
  t.value("top-k", &top_k, "draw from the k likeliest tokens; 0: all").range(0, 1 << 24);
  t.value("top-p", &top_p, "draw from the likeliest tokens that hold this mass").range(0, 1);
  t.value("min-p", &min_p, "drop tokens less likely than this part of the best").range(0, 1);
}

void SoloRows::add_engine(OptionTable& t, std::string_view seed_help, std::string_view fits) {
  t.value("seed", &seed, seed_help);
  t.value("threads", &threads, "compute threads; 0: every core allowed").range(0, 1024);
  t.value("ctx", &context, format("{}, in tokens; 0: the model's, up to 8192", fits))
      .range(0, 1 << 24);
  t.value("isa", &isa, "kernels: auto, avx512, avx2 or generic");
}

engine::SamplingParams SoloRows::sampling() const {
  engine::SamplingParams params;
  params.temperature = static_cast<float>(temperature);
  params.top_k = top_k;
  params.top_p = static_cast<float>(top_p);
  params.min_p = static_cast<float>(min_p);
  std::random_device random;
  params.seed = seed >= 0 ? static_cast<uint64_t>(seed) : (uint64_t{random()} << 32) + random();
  return params;
}

Result<std::unique_ptr<serve::LocalEngine>> SoloRows::start(
    std::shared_ptr<engine::ModelFile> file, serve::EventSink sink) const {
  serve::LocalEngineOptions options;
  options.threads = threads;
  options.context = context;
  options.isa = isa;
  options.sequences = 1;
  options.queue = 1;
  Progress bar("loading", progress);
  return serve::LocalEngine::start(
      std::move(file), options, std::move(sink),
      [&](int64_t done, int64_t total) { bar.report(done, total); });
}

}  // namespace towline::cli
