// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/stage_executor.hpp"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/fmt.hpp"
#include "worker/layer_segments.hpp"

namespace towline::worker {

std::vector<LayerRange> divide_layers(const engine::ModelFile& file, LayerRange layers,
                                      int32_t parts) {
  double stack = 0;
  for (const engine::Tensor& tensor : file.tensors()) {
    if (tensor.name.starts_with("blk.")) stack += static_cast<double>(tensor.bytes());
  }
  const double layer = std::max(stack / file.desc().layers, 1.0);
  double all = layer * layers.size();
  if (layers.end == file.desc().layers) {
    const engine::Tensor* output = file.find("output.weight");
    if (output == nullptr) output = file.find("token_embd.weight");
    if (output != nullptr) all += static_cast<double>(output->bytes());
  }
  std::vector<LayerRange> ranges;
  int32_t begin = layers.begin;
  for (int32_t p = 1; p <= parts; ++p) {
    const int32_t wanted = layers.begin + static_cast<int32_t>(all * p / parts / layer + 0.5);
    const int32_t end =
        p == parts ? layers.end : std::clamp(wanted, begin + 1, layers.end - (parts - p));
    ranges.push_back({begin, end});
    begin = end;
  }
  return ranges;
}
namespace {

int allowed_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

ScoredToken scored(engine::SampledToken&& token) {
  return {token.token, token.logprob, std::move(token.top)};
}

engine::StageOptions stage_options(const StageExecutorOptions& options) {
  engine::StageOptions stage;
  stage.layers = options.layers;
  stage.kv_blocks = options.kv_blocks;
  stage.max_rows = options.max_rows;
  stage.max_logit_rows = options.max_logit_rows;
  return stage;
}

}  // namespace

Result<StageExecutorOptions> StageExecutorOptions::parse(const Json& description) {
  StageExecutorOptions o;
  o.model = description["model"].as_string();
  if (o.model.empty()) {
    return Error(Code::kInvalidArgument, "an executor of kind 'stage' needs 'model', a path");
  }
  const Json& layers = description["layers"];
  if (!layers.is_null()) {
    if (layers.size() != 2 || !layers[size_t{0}].is_int() || !layers[size_t{1}].is_int()) {
      return Error(Code::kInvalidArgument, "'layers' must be [first, end]");
    }
    o.layers = {static_cast<int32_t>(layers[size_t{0}].as_int()),
                static_cast<int32_t>(layers[size_t{1}].as_int())};
  }
  const auto read = [&](std::string_view key, int32_t least, int32_t& to) -> Result<void> {
    const Json& value = description[key];
    if (value.is_null()) return {};
    if (!value.is_int() || value.as_int() < least || value.as_int() > (1 << 30)) {
      return errorf(Code::kInvalidArgument, "'{}' must be an integer from {} on", key, least);
    }
    to = static_cast<int32_t>(value.as_int());
    return {};
  };
  TRY(read("kv_blocks", 1, o.kv_blocks));
  TRY(read("max_rows", 1, o.max_rows));
  TRY(read("max_logit_rows", 1, o.max_logit_rows));
  TRY(read("threads", 0, o.threads));
  o.isa = description["isa"].as_string_or("auto");
  o.max_logit_rows = std::min(o.max_logit_rows, o.max_rows);
  return o;
}

Json StageExecutorOptions::to_json() const {
  Json j = Json::object({{"kind", "stage"},
                         {"model", model},
                         {"kv_blocks", kv_blocks},
                         {"max_rows", max_rows},
                         {"max_logit_rows", max_logit_rows},
                         {"threads", threads},
                         {"isa", isa}});
  if (!layers.empty()) j.set("layers", Json::array({layers.begin, layers.end}));
  return j;
}

// --- adapters -----------------------------------------------------------------------------------

Result<void> StageAdapters::stage(int32_t id, const std::string& path) {
  if (id < 0) return errorf(Code::kInvalidArgument, "adapter {} of '{}': ids start at 0", id, path);
  ASSIGN_OR_RETURN(std::unique_ptr<engine::LoraAdapter> loaded,
                   engine::LoraAdapter::load(path, model_, layers_, shard_));
  const std::lock_guard lock(mutex_);
  staged_[id] = std::move(loaded);
  return {};
}

void StageAdapters::commit(int32_t id) {
  const std::lock_guard lock(mutex_);
  if (auto staged = staged_.extract(id)) {
    committed_.erase(id);
    committed_.insert(std::move(staged));
  }
}

void StageAdapters::discard(int32_t id) {
  const std::lock_guard lock(mutex_);
  staged_.erase(id);
}

Result<void> StageAdapters::remove(int32_t id) {
  if (committed_.erase(id) > 0) return {};
  return errorf(Code::kNotFound, "adapter {} is not loaded", id);
}

std::vector<int32_t> StageAdapters::list() const {
  std::vector<int32_t> ids;
  for (const auto& [id, adapter] : committed_) ids.push_back(id);
  return ids;
}

const engine::LoraAdapter* StageAdapters::find(int32_t id) const {
  const auto at = committed_.find(id);
  return at == committed_.end() ? nullptr : at->second.get();
}

// --- loading ------------------------------------------------------------------------------------

Result<int64_t> StageExecutor::shared_floats(const StageExecutorOptions& options, int32_t ranks) {
  ASSIGN_OR_RETURN(const engine::ModelFile file, engine::ModelFile::open(options.model));
  return engine::Stage::shared_floats(file.desc(), stage_options(options), ranks);
}

Result<std::unique_ptr<StageExecutor>> StageExecutor::create(const StageExecutorOptions& options,
                                                             const RankPlace& place,
                                                             const engine::LoadProgress& progress) {
  std::unique_ptr<StageExecutor> self(new StageExecutor());
  self->options_ = options;
  self->place_ = place;
  ASSIGN_OR_RETURN(engine::ModelFile file, engine::ModelFile::open(options.model));
  self->file_ = std::make_shared<const engine::ModelFile>(std::move(file));
  self->desc_ = self->file_->desc();
  if (options.layers.empty()) self->options_.layers = {0, self->desc_.layers};
  ASSIGN_OR_RETURN(self->kernels_, engine::kernel_table(options.isa));
  const int ranks = place.of * place.stages;
  const int threads =
      options.threads > 0 ? options.threads : std::max(1, allowed_processors() / ranks);
  self->team_ = std::make_unique<engine::ComputeTeam>(threads);
  if (place.of > 1) {
    const int fd = ::dup(place.collective_fd);
    if (fd < 0) {
      return errorf(Code::kInvalidArgument,
                    "tensor-parallel rank {} of {} was given no shared memory: {}", place.rank,
                    place.of, std::strerror(errno));
    }
    ASSIGN_OR_RETURN(ShmCollectiveRegion region, ShmCollectiveRegion::adopt(fd));
    if (region.ranks() != place.of || place.rank < 0 || place.rank >= place.of) {
      return errorf(Code::kInvalidArgument, "rank {} of {} was given the shared memory of {} ranks",
                    place.rank, place.of, region.ranks());
    }
    self->region_ = std::move(region);
    self->collective_ = std::make_unique<ShmCollective>(*self->region_, place.rank);
  }
  self->adapters_ = std::make_unique<StageAdapters>(self->desc_, self->options_.layers,
                                                    engine::Shard{place.rank, place.of});
  TRY(self->load(progress));
  return self;
}

Result<void> StageExecutor::load(const engine::LoadProgress& progress) {
  engine::StageOptions options = stage_options(options_);
  options.collective = collective_.get();
  ASSIGN_OR_RETURN(engine::Stage stage,
                   engine::Stage::load(file_, options, *kernels_, *team_, progress));
  stage_ = std::make_unique<engine::Stage>(std::move(stage));
  if (stage_->weights().is_last()) {
    evaluator_ = std::make_unique<engine::RowEvaluator>(*stage_, *kernels_, *team_);
  }
  return {};
}

Result<void> StageExecutor::sleep(int level) {
  asleep_ = true;
  caches_.clear();
  if (stage_ != nullptr) stage_->forget_kv();
  if (level < 2) return {};
  evaluator_.reset();
  stage_.reset();
  return {};
}

Result<void> StageExecutor::wake() {
  if (stage_ == nullptr) TRY(load({}));
  asleep_ = false;
  return {};
}

Json StageExecutor::status() const {
  return Json::object({{"kind", "stage"},
                       {"layers", Json::array({options_.layers.begin, options_.layers.end})},
                       {"asleep", asleep_},
                       {"isa", kernels_->name},
                       {"threads", team_->threads()},
                       {"weight_bytes", stage_ == nullptr ? 0 : stage_->weights().bytes()},
                       {"runs", runs_},
                       {"rows", rows_}});
}

void StageExecutor::abort() {
  if (region_) region_->abort();
}

// --- one run ------------------------------------------------------------------------------------

Result<void> StageExecutor::check_row(const RunItem& item, const Row& row) const {
  const auto fail = [&](const char* what) {
    return errorf(Code::kInvalidArgument, "slot {}, rows {} to {}: {}", row.slot, row.from, row.to,
                  what);
  };
  if (row.state == nullptr) return fail("the slot holds no sequence");
  if (row.from < 0 || row.to <= row.from || row.logits_from < row.from) return fail("no such rows");
  const policy::SlotState& s = *row.state;
  const auto blocks = static_cast<size_t>((row.to + kv::kBlockTokens - 1) / kv::kBlockTokens);
  if (s.blocks.size() < blocks) return fail("the block table is too short");
  for (size_t i = 0; i < blocks; ++i) {
    if (s.blocks[i] < 0 || s.blocks[i] >= options_.kv_blocks) return fail("no such KV block");
  }
  if (s.spec.adapter >= 0 && adapters_->find(s.spec.adapter) == nullptr) {
    return fail("its adapter is not loaded");
  }
  const bool needs_tokens = item.hop.embeds() || item.hop.samples();
  if (!needs_tokens) return {};
  if (s.tokens.size() < static_cast<size_t>(row.to)) return fail("its tokens are not known yet");
  // The penalties look at all tokens before.
  const bool samples = item.hop.samples() && row.samples;
  if (samples) TRY(engine::check_sampling(s.spec.sampling, desc_.vocab));
  const bool all = samples && engine::uses_history(s.spec.sampling);
  for (int32_t p = all ? 0 : row.from; p < row.to; ++p) {
    const int32_t token = s.tokens[static_cast<size_t>(p)];
    if (token < 0 || token >= desc_.vocab) {
      return fail("a token is not known yet, or not the model's");
    }
  }
  return {};
}

Result<void> StageExecutor::check(std::span<const RunItem> items,
                                  std::span<const float> hidden) const {
  if (asleep_) return Error(Code::kUnavailable, "the node is asleep; wake it first");
  int64_t rows = 0;
  for (const RunItem& item : items) {
    const LayerRange layers = item.hop.layers;
    const LayerRange held = options_.layers;
    if (layers.empty() || layers.begin < held.begin || layers.end > held.end ||
        item.hop.embeds() != (layers.begin == 0) ||
        item.hop.samples() != (layers.end == desc_.layers)) {
      return errorf(Code::kInvalidArgument,
                    "lane {} wants layers {} to {} here, at its {}; this node holds {} to {} of {}",
                    item.step.lane, layers.begin, layers.end,
                    item.hop.embeds() ? "beginning" : item.hop.samples() ? "end" : "middle",
                    held.begin, held.end, desc_.layers);
    }
    for (const Row& row : item.rows) TRY(check_row(item, row));
    rows += item.row_count();
  }
  if (rows > options_.max_rows || hidden.size() < static_cast<size_t>(rows * desc_.hidden)) {
    return errorf(Code::kInvalidArgument, "{} rows in one run; {} are possible here", rows,
                  options_.max_rows);
  }
  return {};
}

Result<void> StageExecutor::run(std::span<const RunItem> items, std::span<float> hidden,
                                std::vector<RowResult>& results) {
  TRY(check(items, hidden));
  TRY(run_layers(items, hidden));
  ++runs_;
  for (const RunItem& item : items) rows_ += item.row_count();
  return sample(items, hidden, results);
}

Result<void> StageExecutor::run_layers(std::span<const RunItem> items, std::span<float> hidden) {
  std::vector<engine::StepSpan> spans;
  for (const LayerSegment& segment : layer_segments(items)) {
    spans.clear();
    int64_t rows = 0;
    tokens_.clear();
    for (const size_t i : segment.items) rows += items[i].row_count();
    tokens_.reserve(static_cast<size_t>(rows));  // spans point into it
    rows = 0;
    for (const size_t i : segment.items) {
      rows += items[i].row_count();
      for (const Row& row : items[i].rows) {
        std::span<const int32_t> tokens;
        if (segment.layers.begin == 0) {
          const size_t first = tokens_.size();
          row.state->tokens.copy(static_cast<size_t>(row.from), static_cast<size_t>(row.to),
                                 tokens_);
          tokens = std::span(tokens_).subspan(first);
        }
        const int32_t adapter = row.state->spec.adapter;
        spans.push_back({row.from, row.to, tokens, row.state->blocks,
                         adapter < 0 ? nullptr : adapters_->find(adapter)});
      }
    }
    const bool neighbours =
        segment.items.back() - segment.items.front() + 1 == segment.items.size();
    if (!neighbours) {
      TRY(run_gathered({spans}, items, segment.items, segment.layers, hidden));
      continue;
    }
    int64_t first = 0;
    for (size_t i = 0; i < segment.items.front(); ++i) first += items[i].row_count();
    TRY(stage_->run({spans},
                    hidden.subspan(static_cast<size_t>(first * desc_.hidden),
                                   static_cast<size_t>(rows * desc_.hidden)),
                    segment.layers));
  }
  return {};
}

// Items that do not lie side by side in `hidden`.
Result<void> StageExecutor::run_gathered(const engine::StepView& step,
                                         std::span<const RunItem> items,
                                         const std::vector<size_t>& chosen, LayerRange layers,
                                         std::span<float> hidden) {
  const auto move_rows = [&](bool in) {
    int64_t from = 0;
    float* to = gathered_.data();
    size_t next = 0;
    for (size_t i = 0; i < items.size() && next < chosen.size(); ++i) {
      const int64_t size = int64_t{items[i].row_count()} * desc_.hidden;
      if (i == chosen[next]) {
        float* const there = hidden.data() + from;
        in ? std::copy_n(there, size, to) : std::copy_n(to, size, there);
        to += size;
        ++next;
      }
      from += size;
    }
  };
  gathered_.resize(static_cast<size_t>(step.rows()) * static_cast<size_t>(desc_.hidden));
  move_rows(true);
  TRY(stage_->run(step, gathered_, layers));
  move_rows(false);
  return {};
}

StageExecutor::SlotCache& StageExecutor::cache_of(const Row& row) {
  SlotCache& cache = caches_[row.slot];
  // A rewound sequence may go on with other tokens; an embedding's rows begin again at 0.
  if (cache.serial != row.state->serial) cache.history = {};
  if (cache.gen != row.state->gen || row.from == 0) cache.pool = {};
  cache.serial = row.state->serial;
  cache.gen = row.state->gen;
  return cache;
}

// Lists the row's logits among eval_rows_ and makes room for what it yields.
void StageExecutor::want_row(const RunItem& item, const Row& row, int32_t first_row,
                             std::span<const float> hidden, std::vector<RowResult>& results) {
  const policy::SlotSpec& spec = row.state->spec;
  SlotCache& cache = cache_of(row);
  RowResult result;
  result.step = item.step;
  result.slot = {row.slot, row.state->gen};
  result.position = row.to;
  if (spec.prompt_logprobs) result.extras.edit().prompt_from = row.logits_from + 1;
  bool has_any = row.samples;
  if (spec.embed) {
    cache.pool.add(*stage_, hidden, first_row, row.from, row.count());
    if (row.to >= spec.prompt_length) {
      result.extras.edit().pooled = cache.pool.unit_vector();
      result.extras.edit().pooled_rows = cache.pool.positions();
      has_any = true;
    }
  }
  const size_t first_token = tokens_.size();
  row.state->tokens.copy(0, row.state->tokens.size(), tokens_);
  const std::span<const int32_t> tokens = std::span(tokens_).subspan(first_token);
  for (int32_t p = row.logits_from; p < row.to; ++p) {
    const bool samples = row.samples && p == row.to - 1;
    const bool scores = spec.prompt_logprobs && p + 1 < spec.prompt_length &&
                        static_cast<size_t>(p) + 1 < tokens.size();
    if (!samples && !scores) continue;
    has_any = true;
    eval_rows_.push_back({first_row + p - row.from, p, samples,
                          {&spec.sampling, spec.choice, tokens, spec.prompt_length, {},
                           &cache.history}});
    wanted_.push_back({results.size(), samples});
  }
  if (has_any) results.push_back(std::move(result));
}

Result<void> StageExecutor::sample(std::span<const RunItem> items, std::span<const float> hidden,
                                   std::vector<RowResult>& results) {
  eval_rows_.clear();
  wanted_.clear();
  size_t slots = caches_.size();
  size_t known = 0;
  for (const RunItem& item : items) {
    for (const Row& row : item.rows) {
      slots = std::max(slots, size_t{row.slot} + 1);
      if (item.hop.samples()) known += row.state->tokens.size();
    }
  }
  tokens_.clear();
  tokens_.reserve(known);  // eval_rows_ points into it
  caches_.resize(slots);  // before eval_rows_ points into it
  int32_t first_row = 0;
  for (const RunItem& item : items) {
    for (const Row& row : item.rows) {
      if (item.hop.samples()) want_row(item, row, first_row, hidden, results);
      first_row += row.count();
    }
  }
  if (!eval_rows_.empty()) {
    ASSIGN_OR_RETURN(std::vector<engine::RowOutcome> outcomes,
                     evaluator_->evaluate(hidden, eval_rows_));
    for (size_t i = 0; i < outcomes.size(); ++i) {
      RowResult& result = results[wanted_[i].result];
      if (!outcomes[i]) {
        result.extras.edit().error = outcomes[i].error().to_string();
      } else if (wanted_[i].samples) {
        result.sampled = true;
        result.token = scored(std::move(outcomes[i]->sampled));
      } else {
        result.extras.edit().prompt.push_back(scored(std::move(outcomes[i]->sampled)));
      }
    }
  }
  return {};
}

}  // namespace towline::worker
