// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/null_executor.hpp"

#include <signal.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "base/fmt.hpp"
#include "base/rng.hpp"
#include "net/clock.hpp"

namespace towline::worker {

Result<NullExecutorOptions> NullExecutorOptions::parse(const Json& d) {
  NullExecutorOptions o;
  const auto number = [&](std::string_view name, auto* field) {
    using T = std::remove_pointer_t<decltype(field)>;
    *field = static_cast<T>(d[name].as_int(*field));
  };
  number("hidden", &o.hidden);
  number("kv_blocks", &o.kv_blocks);
  number("max_rows", &o.max_rows);
  number("vocab", &o.vocab);
  number("compute_us", &o.compute_us);
  number("fault_rank", &o.fault_rank);
  number("fault_run", &o.fault_run);
  o.fault = d["fault"].as_string();
  if (const Json& layers = d["layers"]; layers.size() == 2) {
    o.layers = {static_cast<int32_t>(layers[size_t{0}].as_int()),
                static_cast<int32_t>(layers[size_t{1}].as_int())};
  }
  if (o.hidden < 4 || o.kv_blocks < 1 || o.max_rows < 1 || o.vocab < 1 || o.compute_us < 0 ||
      o.layers.empty()) {
    return errorf(Code::kInvalidArgument, "a null executor cannot be made of {}", d.dump());
  }
  return o;
}

Json NullExecutorOptions::to_json() const {
  return Json::object({{"kind", "null"},
                       {"layers", Json::array({layers.begin, layers.end})},
                       {"hidden", hidden},
                       {"kv_blocks", kv_blocks},
                       {"max_rows", max_rows},
                       {"vocab", vocab},
                       {"compute_us", compute_us},
                       {"fault", fault},
                       {"fault_rank", fault_rank},
                       {"fault_run", fault_run}});
}

// --- adapters -----------------------------------------------------------------------------------

Result<void> NullAdapters::stage(int32_t id, const std::string& path) {
  if (path.find(format("fail:{}", rank_)) != std::string::npos) {
    return errorf(Code::kNotFound, "adapter '{}' cannot be read on rank {}", path, rank_);
  }
  const std::lock_guard lock(mutex_);
  if (staged_.contains(id) || committed_.contains(id)) {
    return errorf(Code::kAlreadyExists, "adapter {} is there already", id);
  }
  staged_.insert(id);
  return {};
}

void NullAdapters::commit(int32_t id) {
  const std::lock_guard lock(mutex_);
  if (staged_.erase(id) > 0) committed_.insert(id);
}

void NullAdapters::discard(int32_t id) {
  const std::lock_guard lock(mutex_);
  staged_.erase(id);
}

Result<void> NullAdapters::remove(int32_t id) {
  const std::lock_guard lock(mutex_);
  if (committed_.erase(id) == 0) return errorf(Code::kNotFound, "adapter {} is not there", id);
  return {};
}

std::vector<int32_t> NullAdapters::list() const {
  const std::lock_guard lock(mutex_);
  return {committed_.begin(), committed_.end()};
}

bool NullAdapters::has(int32_t id) const {
  const std::lock_guard lock(mutex_);
  return committed_.contains(id);
}

// --- running ------------------------------------------------------------------------------------

Result<std::unique_ptr<NullExecutor>> NullExecutor::create(const NullExecutorOptions& options,
                                                           const RankPlace& place) {
  if (options.fault == "create" && options.fault_rank == place.world_rank()) {
    return errorf(Code::kExhausted, "rank {} was told not to start", place.world_rank());
  }
  return std::unique_ptr<NullExecutor>(new NullExecutor(options, place));
}

int32_t NullExecutor::token_of(SeqId seq, int64_t position, int32_t vocab) {
  const uint64_t bits =
      random_at(static_cast<uint64_t>(seq.value), static_cast<uint64_t>(position));
  return static_cast<int32_t>(bits % static_cast<uint64_t>(vocab));
}

Result<void> NullExecutor::fault() {
  if (options_.fault_run == 0 || runs_ != options_.fault_run ||
      place_.world_rank() != options_.fault_rank) {
    return {};
  }
  if (options_.fault == "die") ::kill(::getpid(), SIGKILL);
  if (options_.fault == "hang") {
    aborted_.wait(0);
    return errorf(Code::kUnavailable, "rank {} was aborted in run {}", place_.world_rank(), runs_);
  }
  if (options_.fault == "error") {
    return errorf(Code::kInternal, "rank {} was told to fail run {}", place_.world_rank(), runs_);
  }
  return {};
}

void NullExecutor::compute() const {
  if (options_.compute_us == 0) return;
  // Sleeps are rounded up by 50 us unless the thread asks for better.
  static thread_local const int slack = ::prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0);
  (void)slack;
  const Instant until = net::steady_now() + microseconds(options_.compute_us);
  const timespec at{until.ns / 1'000'000'000, until.ns % 1'000'000'000};
  while (::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) == EINTR) {
  }
}

Result<void> NullExecutor::run(std::span<const RunItem> items, std::span<float> hidden,
                               std::vector<RowResult>& results) {
  ++runs_;
  TRY(fault());
  size_t at = 0;
  for (const RunItem& item : items) {
    const size_t floats =
        static_cast<size_t>(item.row_count()) * static_cast<size_t>(options_.hidden);
    if (floats > hidden.size() - at) {
      return errorf(Code::kInternal, "{} floats are too few for the rows", hidden.size());
    }
    TRY(pass(item, hidden.subspan(at, floats), results));
    at += floats;
  }
  compute();
  return {};
}

// A row of "activations": slot, generation, position, last layer evaluated.
Result<void> NullExecutor::pass(const RunItem& item, std::span<float> hidden,
                                std::vector<RowResult>& results) {
  const auto width = static_cast<size_t>(options_.hidden);
  float* out = hidden.data();
  if (item.hop.samples()) results.reserve(results.size() + item.rows.size());
  for (const Row& row : item.rows) {
    const policy::SlotState& s = *row.state;
    if (s.spec.adapter >= 0 && !adapters_.has(s.spec.adapter)) {
      return errorf(Code::kInternal, "slot {} names adapter {}, which rank {} does not have",
                    row.slot, s.spec.adapter, place_.world_rank());
    }
    for (int32_t p = row.from; p < row.to; ++p, out += width) {
      const float want[4] = {static_cast<float>(row.slot), static_cast<float>(s.gen),
                             static_cast<float>(p), static_cast<float>(item.hop.layers.begin)};
      if (!item.hop.embeds() && s.serial != kDummySerial && !std::equal(want, want + 4, out)) {
        return errorf(Code::kDataCorrupt, "row {} of slot {} came as ({}, {}, {}, layer {})", p,
                      row.slot, out[0], out[1], out[2], out[3]);
      }
      if (item.hop.embeds()) {
        if (p >= static_cast<int32_t>(s.tokens.size()) || s.tokens[p] == policy::kUnknownToken) {
          return errorf(Code::kInternal, "token {} of slot {} is not known", p, row.slot);
        }
      }
      if (item.hop.samples()) continue;  // nobody reads what it leaves
      std::copy(want, want + 3, out);
      out[3] = static_cast<float>(item.hop.layers.end);
    }
    rows_ += row.count();
    if (item.hop.samples() && row.samples) {
      RowResult& r = results.emplace_back();
      r.step = item.step;
      r.slot = {row.slot, s.gen};
      r.position = row.to;
      r.sampled = true;
      r.token.token = token_of(s.spec.seq, row.to, options_.vocab);
    }
  }
  return {};
}

Json NullExecutor::status() const {
  return Json::object({{"kind", "null"}, {"runs", runs_}, {"rows", rows_}});
}

}  // namespace towline::worker
