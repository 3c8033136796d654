// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/layer_bench.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <numeric>
#include <thread>

#include "base/rng.hpp"

namespace towline::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kFewestRuns = 3;   // of a cell whose runs take longer than its time
constexpr size_t kParts = 5;        // of the whole time, compared for the drift
// Before every run, as a worker waits for the next step's message.
constexpr std::chrono::microseconds kPause{300};
constexpr int32_t kToken = 1;

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}
double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<int64_t>(values.size()) / 2;
  std::ranges::nth_element(values, middle);
  return *middle;
}

}  // namespace

LayerBench::LayerBench(engine::Stage& stage, engine::RowEvaluator* evaluator)
    : stage_(stage), evaluator_(evaluator) {
  hidden_.resize(static_cast<size_t>(stage.max_rows()) * static_cast<size_t>(stage.desc().hidden),
                 0.01f);
  // Made-up contents, all written, so that they are read from memory as real ones would be.
  const kv::BlockPool& pool = stage.pool();
  for (int32_t layer = 0; layer < pool.layers(); ++layer) {
    for (int32_t b = 0; b < pool.blocks(); ++b) {
      const std::span<std::byte> bytes = pool.block(layer, BlockId(b));
      const auto fill = static_cast<int>(random_at(1, static_cast<uint64_t>(b)) % 40);
      std::memset(bytes.data(), fill, bytes.size());  // small positive float16 numbers
    }
  }
  blocks_.resize(static_cast<size_t>(pool.blocks()));
  std::iota(blocks_.begin(), blocks_.end(), 0);
}

namespace {

// One cell's way through the measuring.
struct Course {
  std::vector<double> samples;
  double sums[kParts] = {};
  int64_t counts[kParts] = {};
  double spent = 0, target = 0;  // seconds; the target is known after the first run

  double progress() const { return target > 0 ? spent / target : -1; }
  void add(double took) {
    const auto part = static_cast<size_t>(std::max(progress(), 0.0) * kParts);
    sums[std::min(part, kParts - 1)] += took;
    ++counts[std::min(part, kParts - 1)];
    samples.push_back(took);
    spent += took;
  }
};

double drift_of(const std::vector<Course>& courses) {
  double slowest = 0, fastest = std::numeric_limits<double>::max();
  for (size_t part = 0; part < kParts; ++part) {
    double ratios = 0, count = 0;
    for (const Course& c : courses) {
      if (c.counts[part] == 0) continue;
      ratios += c.sums[part] / static_cast<double>(c.counts[part]) / mean(c.samples);
      ++count;
    }
    if (count < static_cast<double>(courses.size()) / 2) continue;
    slowest = std::max(slowest, ratios / count);
    fastest = std::min(fastest, ratios / count);
  }
  return slowest > 0 ? slowest / fastest : 1;
}

}  // namespace

Result<void> LayerBench::measure(std::span<LayerCell> cells, double seconds, int32_t step_rows,
                                 const std::function<void(int64_t, int64_t)>& progress) {
  std::vector<Course> courses(cells.size());
  Rng rng(1);
  const auto total = static_cast<int64_t>(1000 * cells.size());
  while (!cells.empty()) {
    // Whoever is furthest behind, among a few at random: all cells are spread over the whole time.
    size_t next = rng.below(cells.size());
    for (size_t k = 1; k < cells.size(); ++k) {
      const size_t other = (next + k) % cells.size();
      if (courses[other].progress() < courses[next].progress()) next = other;
    }
    Course& course = courses[next];
    if (course.progress() >= 1) break;
    ASSIGN_OR_RETURN(const double took, once(cells[next], step_rows));
    if (course.target == 0) {
      // Pages and caches are filled: it tells how long the others will take.
      course.target = std::max({seconds, static_cast<double>(kFewestRuns) * took, 1e-9});
    } else {
      course.add(took);
    }
    double done = 0;
    for (const Course& c : courses) done += std::clamp(c.progress(), 0.0, 1.0);
    progress(static_cast<int64_t>(1000 * done), total);
  }
  drift_ = drift_of(courses);
  const double layers = static_cast<double>(stage_.weights().layers().size());
  for (size_t i = 0; i < cells.size(); ++i) {
    const bool head = cells[i].kind == LayerCell::Kind::kHead;
    cells[i].seconds = mean(courses[i].samples) / (head ? 1 : layers);
    cells[i].median = median(courses[i].samples) / (head ? 1 : layers);
  }
  return {};
}

Result<double> LayerBench::once(const LayerCell& cell, int32_t step_rows) {
  std::this_thread::sleep_for(kPause);
  const Clock::time_point start = Clock::now();
  TRY(cell.kind == LayerCell::Kind::kHead ? draw(cell.rows) : run(cell, step_rows));
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::span<const int32_t> LayerBench::blocks_of(int32_t sequence, int32_t tokens) {
  const auto each = static_cast<size_t>((tokens + kv::kBlockTokens - 1) / kv::kBlockTokens);
  return std::span(blocks_).subspan(static_cast<size_t>(sequence) * each, each);
}

Result<void> LayerBench::run(const LayerCell& cell, int32_t step_rows) {
  const int32_t decodes = cell.kind == LayerCell::Kind::kDecode ? cell.rows : cell.decodes;
  const int32_t prompt = cell.kind == LayerCell::Kind::kDecode ? 0 : cell.rows;
  const int32_t from = cell.kind == LayerCell::Kind::kPrefill ? cell.context : 0;
  tokens_.assign(static_cast<size_t>(std::max(prompt, 1)), kToken);
  spans_.clear();
  for (int32_t s = 0; s < decodes; ++s) {
    spans_.push_back({cell.context - 1, cell.context, std::span(tokens_).first(1),
                      blocks_of(s, cell.context)});
  }
  if (prompt == 0) return stage_.run({spans_}, hidden_);
  // The prompt's blocks are the last ones.
  const int32_t end = from + prompt;
  const auto count = static_cast<size_t>((end + kv::kBlockTokens - 1) / kv::kBlockTokens);
  const std::span<const int32_t> own = std::span(blocks_).last(count);
  for (int32_t at = from; at < end;) {
    const int32_t to = std::min(end, at + step_rows);
    spans_.push_back({at, to, std::span(tokens_).first(static_cast<size_t>(to - at)), own});
    TRY(stage_.run({spans_}, hidden_));
    spans_.clear();
    at = to;
  }
  return {};
}

Result<void> LayerBench::draw(int32_t rows) {
  engine::SamplingParams greedy;
  greedy.temperature = 0;
  tokens_.assign(1, kToken);
  std::vector<engine::EvalRow> wanted;
  for (int32_t i = 0; i < rows; ++i) {
    wanted.push_back({i, 0, true, {&greedy, i, tokens_, 1, {}, nullptr}});
  }
  ASSIGN_OR_RETURN(const auto outcomes, evaluator_->evaluate(hidden_, wanted));
  for (const engine::RowOutcome& outcome : outcomes) {
    if (!outcome) return outcome.error();
  }
  return {};
}

}  // namespace towline::cli
