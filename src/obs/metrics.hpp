// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Metrics: counters, gauges and histograms with labels, printed as Prometheus text (format 0.0.4).
//
//   Metrics metrics;
//   Counter requests = metrics.counter("towline_requests_total", "Requests answered.",
//                                      {{"status", "200"}});
//   requests.add();
//   metrics.text();
//
// A handle is one pointer into the registry: copy it freely, keep it no longer than the registry.
// Asking twice for the same name and labels gives the same series. Updating and printing are safe
// from any thread. prometheus-cpp holds the values and is included by metrics.cpp alone.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace towline::obs {

using Labels = std::vector<std::pair<std::string, std::string>>;

class Counter {
 public:
  void add(double n = 1);
  // For totals kept elsewhere: raises the counter to `total`; a smaller total is ignored.
  void raise_to(double total);
  double value() const;

 private:
  friend class Metrics;
  explicit Counter(void* series) : series_(series) {}
  void* series_;
};

class Gauge {
 public:
  void set(double v);
  void add(double n);
  double value() const;

 private:
  friend class Metrics;
  explicit Gauge(void* series) : series_(series) {}
  void* series_;
};

class Histogram {
 public:
  void observe(double v);

 private:
  friend class Metrics;
  explicit Histogram(void* series) : series_(series) {}
  void* series_;
};

class Metrics {
 public:
  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // Names are [a-zA-Z_:][a-zA-Z0-9_:]*; `help` is one sentence. One name has one type.
  Counter counter(const std::string& name, const std::string& help, const Labels& labels = {});
  Gauge gauge(const std::string& name, const std::string& help, const Labels& labels = {});
  // `bounds`: upper bounds of the buckets, rising; the +Inf bucket is added.
  Histogram histogram(const std::string& name, const std::string& help,
                      const std::vector<double>& bounds, const Labels& labels = {});

  // The exposition of every series, families in the order first asked for.
  std::string text() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace towline::obs
