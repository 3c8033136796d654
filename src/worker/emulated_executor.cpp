// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/emulated_executor.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/fmt.hpp"
#include "base/rng.hpp"
#include "worker/layer_segments.hpp"

namespace towline::worker {
namespace {

using Clock = std::chrono::steady_clock;

constexpr Seconds kMostOversleep{0.005};  // more is not the timer's doing

uint64_t row_seed(const Row& row, int32_t position, int32_t layer) {
  const uint64_t slot = uint64_t{row.slot} << 16 | row.state->gen;
  return mix64(mix64(slot) + static_cast<uint64_t>(position)) + static_cast<uint64_t>(layer);
}

// The whole row is written, as a device's would be.
void write_row(uint64_t seed, std::span<float> row) {
  auto* to = reinterpret_cast<std::byte*>(row.data());
  const size_t bytes = row.size_bytes();
  for (size_t at = 0; at < bytes; at += sizeof(seed)) {
    const uint64_t word = seed + at;
    std::memcpy(to + at, &word, std::min(sizeof(word), bytes - at));
  }
}

// The first, a middle and the last word.
bool is_row(uint64_t seed, std::span<const float> row) {
  const auto* from = reinterpret_cast<const std::byte*>(row.data());
  const size_t words = row.size_bytes() / sizeof(seed);
  for (const size_t i : {size_t{0}, words / 2, words - 1}) {
    const uint64_t expected = seed + i * sizeof(seed);
    if (std::memcmp(from + i * sizeof(seed), &expected, sizeof(expected)) != 0) return false;
  }
  return true;
}

}  // namespace

Result<EmulatedExecutorOptions> EmulatedExecutorOptions::parse(const Json& description) {
  EmulatedExecutorOptions o;
  o.profile = description["profile"].as_string();
  o.device = description["device"].as_string();
  const Json& layers = description["layers"];
  if (o.profile.empty() || o.device.empty() || layers.size() != 2) {
    return Error(Code::kInvalidArgument,
                 "an executor of kind 'emulated' needs 'profile' (a built-in model or a file), "
                 "'device' (a type in it) and 'layers' ([first, end])");
  }
  const auto integer = [](const Json& value, int64_t fallback, int64_t least) {
    return static_cast<int32_t>(std::clamp<int64_t>(value.as_int(fallback), least, 1 << 30));
  };
  o.layers = {integer(layers[size_t{0}], -1, -1), integer(layers[size_t{1}], -1, -1)};
  o.kv_blocks = integer(description["kv_blocks"], o.kv_blocks, 0);
  o.max_rows = integer(description["max_rows"], o.max_rows, 1);
  o.vocab = integer(description["vocab"], o.vocab, 1);
  o.full_floats = description["full_floats"].as_bool(o.full_floats);
  o.slowness = description["slowness"].as_double(o.slowness);
  return o;
}

Json EmulatedExecutorOptions::to_json() const {
  return Json::object({{"kind", "emulated"},
                       {"profile", profile},
                       {"device", device},
                       {"layers", Json::array({layers.begin, layers.end})},
                       {"kv_blocks", kv_blocks},
                       {"max_rows", max_rows},
                       {"vocab", vocab},
                       {"full_floats", full_floats},
                       {"slowness", slowness}});
}

Result<std::unique_ptr<EmulatedExecutor>> EmulatedExecutor::create(
    const EmulatedExecutorOptions& options, const RankPlace& place) {
  std::unique_ptr<EmulatedExecutor> self(new EmulatedExecutor());
  const std::vector<std::string> known = spec::builtin_models();
  const bool builtin = std::ranges::find(known, options.profile) != known.end();
  ASSIGN_OR_RETURN(const spec::Profile profile, builtin ? spec::builtin_profile(options.profile)
                                                        : spec::load_profile(options.profile));
  const spec::DeviceProfile* device = profile.find(options.device);
  if (device == nullptr || device->prompt.empty() || device->decode.empty()) {
    return errorf(Code::kInvalidArgument,
                  "profile '{}' has no times of layers for a device '{}'; name one that has",
                  options.profile, options.device);
  }
  const LayerRange layers = options.layers;
  if (layers.begin < 0 || layers.empty() || layers.end > profile.model.layers ||
      !(options.slowness >= 0 && options.slowness <= 1e6)) {
    return errorf(Code::kInvalidArgument, "layers {} to {} of {}, slowed by {}, cannot be emulated",
                  layers.begin, layers.end, profile.model.layers, options.slowness);
  }
  self->options_ = options;
  self->place_ = place;
  self->device_ = *device;
  self->model_layers_ = profile.model.layers;
  const int64_t bytes = profile.model.activation_bytes.value * (options.full_floats ? 2 : 1);
  self->width_ = static_cast<int32_t>(std::clamp<int64_t>(bytes / 4, 4, 1 << 24));
  if (options.kv_blocks == 0) {
    const auto held = static_cast<size_t>(layers.size());
    if (held > device->kv_blocks.size()) {
      return errorf(Code::kInvalidArgument, "a device '{}' has room for {} layers, not {}",
                    options.device, device->kv_blocks.size(), held);
    }
    self->options_.kv_blocks =
        static_cast<int32_t>(std::clamp<int64_t>(device->kv_blocks[held - 1], 1, 1 << 30));
  }
  return self;
}

int32_t EmulatedExecutor::token_of(const policy::SlotSpec& spec, int32_t position, int32_t vocab) {
  const uint64_t key = mix64(spec.sampling.seed) + static_cast<uint64_t>(spec.choice);
  return static_cast<int32_t>(random_at(key, static_cast<uint64_t>(position)) %
                              static_cast<uint64_t>(vocab));
}

Seconds EmulatedExecutor::time_of(std::span<const RunItem> items) const {
  double seconds = 0;
  int32_t drawn = 0;
  for (const RunItem& item : items) {
    if (!item.hop.samples()) continue;
    for (const Row& row : item.rows) drawn += row.samples;
  }
  if (drawn > 0) seconds = spec::head_time(device_, drawn).value;
  for (const LayerSegment& segment : layer_segments(items)) {
    spec::LayerBatch batch;
    for (const size_t i : segment.items) {
      for (const Row& row : items[i].rows) {
        if (row.is_decode()) {
          ++batch.decodes;
          batch.decode_context += row.from;
        } else {
          batch.prompt_tokens += row.count();
          batch.prompt_context += int64_t{row.count()} * (2 * row.from + row.count() - 1) / 2;
        }
      }
    }
    const double layer = spec::layer_time(device_, batch).value;
    seconds += layer * segment.layers.size();
  }
  return Seconds(seconds * options_.slowness);
}

Result<void> EmulatedExecutor::run(std::span<const RunItem> items, std::span<float> hidden,
                                   std::vector<RowResult>& results) {
  const Clock::time_point begin = Clock::now();
  int64_t rows = 0;
  for (const RunItem& item : items) {
    const LayerRange layers = item.hop.layers;
    if (layers.empty() || layers.begin < options_.layers.begin ||
        layers.end > options_.layers.end) {
      return errorf(Code::kInvalidArgument,
                    "lane {} wants layers {} to {}; this node holds {} to {}", item.step.lane,
                    layers.begin, layers.end, options_.layers.begin, options_.layers.end);
    }
    rows += item.row_count();
    for (const Row& row : item.rows) {
      if (row.state != nullptr) continue;
      return errorf(Code::kInvalidArgument, "slot {} holds no sequence", row.slot);
    }
  }
  if (rows > options_.max_rows || hidden.size() < static_cast<size_t>(rows * width_)) {
    return errorf(Code::kInvalidArgument, "{} rows in one run; {} are possible here", rows,
                  options_.max_rows);
  }
  TRY(pass_rows(items, hidden, results));
  ++runs_;
  rows_ += rows;
  const Seconds time = time_of(items);
  busy_ = busy_ + time;
  const Seconds used(std::chrono::duration<double>(Clock::now() - begin).count());
  return sleep_for(Seconds(time.value - used.value));
}

Result<void> EmulatedExecutor::pass_rows(std::span<const RunItem> items, std::span<float> hidden,
                                         std::vector<RowResult>& results) const {
  const auto width = static_cast<size_t>(width_);
  size_t at = 0;
  for (const RunItem& item : items) {
    for (const Row& row : item.rows) {
      for (int32_t p = row.from; p < row.to; ++p, at += width) {
        const std::span<float> state = hidden.subspan(at, width);
        const bool checked = !item.hop.embeds() && row.state->serial != kDummySerial;
        if (checked && !is_row(row_seed(row, p, item.hop.layers.begin), state)) {
          return errorf(
              Code::kDataCorrupt,
              "lane {} step {}: the activations of slot {} at position {} are not those of "
              "layer {}",
              item.step.lane, item.step.step, row.slot, p, item.hop.layers.begin);
        }
        if (!item.hop.samples()) write_row(row_seed(row, p, item.hop.layers.end), state);
      }
      if (!item.hop.samples() || !row.samples) continue;
      RowResult result;
      result.step = item.step;
      result.slot = {row.slot, row.state->gen};
      result.position = row.to;
      result.sampled = true;
      result.token.token = token_of(row.state->spec, row.to, options_.vocab);
      results.push_back(std::move(result));
    }
  }
  return {};
}

Result<void> EmulatedExecutor::sleep_for(Seconds time) {
  const double wanted = std::max(time.value - overslept_.value, 0.0);
  const auto deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                           std::chrono::duration<double>(wanted));
  std::unique_lock lock(mutex_);
  if (wake_.wait_until(lock, deadline, [&] { return aborted_; })) {
    return Error(Code::kUnavailable, "the emulated device was told to stop");
  }
  const double late = std::chrono::duration<double>(Clock::now() - deadline).count();
  overslept_ = Seconds(std::clamp(late, 0.0, kMostOversleep.value));
  return {};
}

void EmulatedExecutor::abort() {
  const std::lock_guard lock(mutex_);
  aborted_ = true;
  wake_.notify_all();
}

Json EmulatedExecutor::status() const {
  return Json::object({{"kind", "emulated"},
                       {"device", options_.device},
                       {"layers", Json::array({options_.layers.begin, options_.layers.end})},
                       {"busy_seconds", busy_.value},
                       {"runs", runs_},
                       {"rows", rows_}});
}

}  // namespace towline::worker
