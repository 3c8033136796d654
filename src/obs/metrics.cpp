// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "obs/metrics.hpp"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <map>
#include <mutex>
#include <sstream>

namespace towline::obs {
namespace {

prometheus::Labels to_map(const Labels& labels) { return {labels.begin(), labels.end()}; }

prometheus::Counter& counter_at(void* series) { return *static_cast<prometheus::Counter*>(series); }
prometheus::Gauge& gauge_at(void* series) { return *static_cast<prometheus::Gauge*>(series); }

}  // namespace

void Counter::add(double n) { counter_at(series_).Increment(n); }
void Counter::raise_to(double total) {
  const double missing = total - counter_at(series_).Value();
  if (missing > 0) counter_at(series_).Increment(missing);
}
double Counter::value() const { return counter_at(series_).Value(); }

void Gauge::set(double v) { gauge_at(series_).Set(v); }
void Gauge::add(double n) { gauge_at(series_).Increment(n); }
double Gauge::value() const { return gauge_at(series_).Value(); }

void Histogram::observe(double v) { static_cast<prometheus::Histogram*>(series_)->Observe(v); }

// The library's Registry refuses nothing and cannot look a family up by name, so the families are
// kept here by name; their addresses are stable.
struct Metrics::State {
  prometheus::Registry registry;
  std::mutex mutex;  // guards the maps; updates of a series are lock-free or locked by the library
  std::map<std::string, prometheus::Family<prometheus::Counter>*> counters;
  std::map<std::string, prometheus::Family<prometheus::Gauge>*> gauges;
  std::map<std::string, prometheus::Family<prometheus::Histogram>*> histograms;
};

Metrics::Metrics() : state_(std::make_unique<State>()) {}
Metrics::~Metrics() = default;

Counter Metrics::counter(const std::string& name, const std::string& help, const Labels& labels) {
  const std::lock_guard lock(state_->mutex);
  auto& family = state_->counters[name];
  if (family == nullptr) {
    family = &prometheus::BuildCounter().Name(name).Help(help).Register(state_->registry);
  }
  return Counter(&family->Add(to_map(labels)));
}

Gauge Metrics::gauge(const std::string& name, const std::string& help, const Labels& labels) {
  const std::lock_guard lock(state_->mutex);
  auto& family = state_->gauges[name];
  if (family == nullptr) {
    family = &prometheus::BuildGauge().Name(name).Help(help).Register(state_->registry);
  }
  return Gauge(&family->Add(to_map(labels)));
}

Histogram Metrics::histogram(const std::string& name, const std::string& help,
                             const std::vector<double>& bounds, const Labels& labels) {
  const std::lock_guard lock(state_->mutex);
  auto& family = state_->histograms[name];
  if (family == nullptr) {
    family = &prometheus::BuildHistogram().Name(name).Help(help).Register(state_->registry);
  }
  return Histogram(&family->Add(to_map(labels), bounds));
}

std::string Metrics::text() const {
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, state_->registry.Collect());
  return std::move(out).str();
}

}  // namespace towline::obs
