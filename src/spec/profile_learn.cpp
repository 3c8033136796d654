// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/profile_learn.hpp"

#include <algorithm>
#include <limits>

#include "base/fmt.hpp"

namespace towline::spec {
namespace {

constexpr double kLeaning = 0.5;              // seconds of runs that the factor of the kind weighs
constexpr double kLeast = 0.01, kMost = 100;  // of a factor
constexpr size_t kParts = 10;                 // of a record, for its drift

double ratio(double measured, double predicted, double leaning, double towards) {
  const double factor = (measured + leaning * towards) / (predicted + leaning);
  return std::clamp(factor, kLeast, kMost);
}

// The sums by the rows of one table.
class Heights {
 public:
  explicit Heights(const std::vector<LayerTime>& table) : table_(table), sums_(table.size()) {}

  void add(double rows, double measured, double predicted) {
    if (!(predicted > 0)) return;
    const Place at = place_of(rows);
    add_at(at.above, at.share, measured, predicted);
    add_at(at.below, 1 - at.share, measured, predicted);
    measured_ += measured;
    predicted_ += predicted;
  }

  // The factor of the kind, then those of the rows.
  double settle(double of_all) {
    const double kind = ratio(measured_, predicted_, kLeaning, of_all);
    factors_.clear();
    for (const Sum& sum : sums_) {
      factors_.push_back(ratio(sum.measured, sum.predicted, kLeaning, kind));
    }
    return kind;
  }

  // Interpolated as the table is.
  double factor(double rows) const {
    const Place at = place_of(rows);
    return at.share * factors_[at.above] + (1 - at.share) * factors_[at.below];
  }

  std::vector<LearnedRow> apply(std::vector<LayerTime>& table) const {
    std::vector<LearnedRow> out;
    for (size_t i = 0; i < table.size(); ++i) {
      const double before = table[i].time.value;
      table[i].time = Seconds(before * factors_[i]);
      if (table[i].tokens > 0) {
        out.push_back({table[i].tokens, before, table[i].time.value, sums_[i].runs,
                       sums_[i].measured});
      }
    }
    return out;
  }

 private:
  struct Sum {
    double runs = 0, measured = 0, predicted = 0;
  };
  // Between which rows of the table, and how near to the upper one. The row
  // of nothing is no neighbour.
  struct Place {
    size_t below, above;
    double share;
  };
  Place place_of(double rows) const {
    size_t above = 1;
    while (above + 1 < table_.size() && table_[above].tokens < rows) ++above;
    const size_t below = above > 1 ? above - 1 : above;
    const double span = table_[above].tokens - table_[below].tokens;
    const double share =
        span > 0 ? std::clamp((rows - table_[below].tokens) / span, 0.0, 1.0) : 1.0;
    return {below, above, share};
  }
  void add_at(size_t row, double share, double measured, double predicted) {
    sums_[row].runs += share;
    sums_[row].measured += share * measured;
    sums_[row].predicted += share * predicted;
  }

  const std::vector<LayerTime>& table_;
  std::vector<Sum> sums_;
  std::vector<double> factors_;
  double measured_ = 0, predicted_ = 0;
};

bool can_compare(const RunRecord& run) {
  return !run.layers.empty() && run.seconds > 0 &&
         run.batch.prompt_tokens + run.batch.decodes > 0;
}

// The slowest part of the record over the fastest one, by `device`.
double drift_of(const DeviceProfile& device, int32_t model_layers,
                const std::vector<const RunRecord*>& runs) {
  double begin = std::numeric_limits<double>::max(), end = 0;
  for (const RunRecord* run : runs) {
    begin = std::min(begin, run->begin);
    end = std::max(end, run->begin);
  }
  if (!(end > begin)) return 1;
  double measured[kParts] = {}, predicted[kParts] = {};
  double all = 0;
  for (const RunRecord* run : runs) {
    const auto part = static_cast<size_t>((run->begin - begin) / (end - begin) * kParts);
    measured[std::min(part, kParts - 1)] += run->seconds;
    predicted[std::min(part, kParts - 1)] += run_seconds(device, model_layers, *run);
    all += run->seconds;
  }
  double slowest = 0, fastest = std::numeric_limits<double>::max();
  for (size_t i = 0; i < kParts; ++i) {
    if (!(predicted[i] > 0) || measured[i] < 0.2 * all / kParts) continue;  // hardly a part
    slowest = std::max(slowest, measured[i] / predicted[i]);
    fastest = std::min(fastest, measured[i] / predicted[i]);
  }
  return slowest > 0 ? slowest / fastest : 1;
}

// The decode table, and with it the head.
void learn_decodes(const DeviceProfile& device, int32_t model_layers, double of_all,
                   const std::vector<const RunRecord*>& runs, LearnedTimes& out) {
  Heights heights(device.decode);
  for (const RunRecord* run : runs) {
    if (run->batch.prompt_tokens > 0) continue;
    heights.add(run->batch.decodes, run->seconds, run_seconds(device, model_layers, *run));
  }
  const double kind = heights.settle(of_all);
  out.decode = heights.apply(out.device.decode);
  out.device.decode_context_seconds *= kind;
  for (LayerTime& row : out.device.head) {
    row.time = Seconds(row.time.value * (row.tokens > 0 ? heights.factor(row.tokens) : 1));
  }
}

// The prompt table, from the runs with prompts in them. What the decode table has for their
// decodes, where the weights are not shared, and the head are known by now.
void learn_prompts(const DeviceProfile& device, int32_t model_layers, double of_all,
                   const std::vector<const RunRecord*>& runs, LearnedTimes& out) {
  Heights heights(device.prompt);
  for (const RunRecord* run : runs) {
    const LayerBatch& batch = run->batch;
    if (batch.prompt_tokens == 0) continue;
    RunRecord known = *run;
    known.batch.prompt_tokens = 0;
    known.batch.prompt_context = 0;
    double beside = 0;
    if (!device.shared_weights && batch.decodes > 0) {
      beside = run->layers.size() * layer_time(out.device, known.batch).value;
    }
    double head = 0;
    if (run->layers.end == model_layers) head = head_time(out.device, run->drawn).value;
    LayerBatch own = batch;
    if (!device.shared_weights) {
      own.decodes = 0;
      own.decode_context = 0;
    }
    heights.add(own.prompt_tokens + own.decodes, std::max(run->seconds - beside - head, 0.0),
                run->layers.size() * layer_time(device, own).value);
  }
  const double kind = heights.settle(of_all);
  out.prompt = heights.apply(out.device.prompt);
  out.device.prompt_context_seconds *= kind;
}

}  // namespace

Result<LearnedTimes> learn_times(const DeviceProfile& device, int32_t model_layers,
                                 std::span<const RunRecord> runs) {
  if (device.prompt.size() < 2 || device.decode.size() < 2) {
    return errorf(Code::kInvalidArgument, "the profile has no times of layers for '{}'",
                  device.type);
  }
  LearnedTimes out;
  out.device = device;
  std::vector<const RunRecord*> compared;
  double measured = 0, predicted = 0;
  for (const RunRecord& run : runs) {
    if (!can_compare(run)) {
      ++out.left_out;
      continue;
    }
    compared.push_back(&run);
    measured += run.seconds;
    predicted += run_seconds(device, model_layers, run);
  }
  out.runs = static_cast<int64_t>(compared.size());
  if (!(predicted > 0)) {
    return Error(Code::kInvalidArgument, "the traces tell of no run that could be compared");
  }
  out.factor = measured / predicted;
  learn_decodes(device, model_layers, out.factor, compared, out);
  learn_prompts(device, model_layers, out.factor, compared, out);
  out.drift = drift_of(out.device, model_layers, compared);
  return out;
}

}  // namespace towline::spec
