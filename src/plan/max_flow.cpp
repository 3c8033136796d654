// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/max_flow.hpp"

#include <algorithm>
#include <limits>

#include "base/check.hpp"

namespace towline::plan {
namespace {

// The state of one run. An incidence 2a is arc a forwards, 2a+1 is arc a backwards.
class Dinic {
 public:
  Dinic(const FlowGraph& graph, int32_t sink, double tolerance)
      : graph_(graph), sink_(sink), tolerance_(tolerance), flow_(graph.arcs.size(), 0.0) {
    first_.assign(static_cast<size_t>(graph.vertices) + 1, 0);
    for (const FlowArc& arc : graph.arcs) {
      CHECK(arc.from >= 0 && arc.from < graph.vertices, arc.from, graph.vertices);
      CHECK(arc.to >= 0 && arc.to < graph.vertices, arc.to, graph.vertices);
      ++first_[arc.from + 1];
      ++first_[arc.to + 1];
    }
    for (int32_t v = 0; v < graph.vertices; ++v) first_[v + 1] += first_[v];
    incident_.resize(2 * graph.arcs.size());
    std::vector<size_t> place(first_.begin(), first_.end() - 1);
    for (size_t a = 0; a < graph.arcs.size(); ++a) {
      incident_[place[graph.arcs[a].from]++] = 2 * a;
      incident_[place[graph.arcs[a].to]++] = 2 * a + 1;
    }
  }

  // Distances from the source by arcs with residual capacity; true if the sink is reached.
  bool level(int32_t source) {
    level_.assign(static_cast<size_t>(graph_.vertices), -1);
    level_[source] = 0;
    queue_.assign(1, source);
    for (size_t head = 0; head < queue_.size(); ++head) {
      const int32_t v = queue_[head];
      for (size_t i = first_[v]; i < first_[v + 1]; ++i) {
        const int32_t to = target(incident_[i]);
        if (level_[to] < 0 && residual(incident_[i]) > tolerance_) {
          level_[to] = level_[v] + 1;
          queue_.push_back(to);
        }
      }
    }
    return level_[sink_] >= 0;
  }

  // Saturates every shortest path (a blocking flow). The path is kept in a vector, not on the call
  // stack, so that a chain of 10,000 nodes is as safe as a short one.
  void augment_all(int32_t source) {
    cursor_.assign(first_.begin(), first_.end() - 1);
    path_.clear();
    int32_t v = source;
    while (true) {
      if (v == sink_) {
        v = push_along_path(source);
        continue;
      }
      if (advance(v)) {
        v = target(path_.back());
        continue;
      }
      if (path_.empty()) return;
      level_[v] = -1;  // a dead end
      v = origin(path_.back());
      path_.pop_back();
    }
  }

  std::vector<double> take_flow() { return std::move(flow_); }
  bool reached(int32_t v) const { return level_[v] >= 0; }

 private:
  double residual(size_t incidence) const {
    const size_t a = incidence / 2;
    return incidence % 2 == 0 ? graph_.arcs[a].capacity - flow_[a] : flow_[a];
  }
  int32_t target(size_t incidence) const {
    const FlowArc& arc = graph_.arcs[incidence / 2];
    return incidence % 2 == 0 ? arc.to : arc.from;
  }
  int32_t origin(size_t incidence) const { return target(incidence ^ 1); }

  bool advance(int32_t v) {
    for (size_t& i = cursor_[v]; i < first_[v + 1]; ++i) {
      const size_t incidence = incident_[i];
      if (level_[target(incidence)] == level_[v] + 1 && residual(incidence) > tolerance_) {
        path_.push_back(incidence);
        return true;
      }
    }
    return false;
  }

  // Pushes the bottleneck and cuts the path back to its first saturated arc,
  // whose origin it returns.
  int32_t push_along_path(int32_t source) {
    double amount = std::numeric_limits<double>::infinity();
    for (const size_t incidence : path_) amount = std::min(amount, residual(incidence));
    size_t keep = path_.size();
    for (size_t i = path_.size(); i-- > 0;) {
      const size_t a = path_[i] / 2;
      const bool forward = path_[i] % 2 == 0;
      if (residual(path_[i]) <= amount) {  // exactly full or empty, whatever rounding says
        flow_[a] = forward ? graph_.arcs[a].capacity : 0.0;
        keep = i;
      } else {
        flow_[a] += forward ? amount : -amount;
        if (residual(path_[i]) <= tolerance_) keep = i;
      }
    }
    path_.resize(keep);
    return path_.empty() ? source : target(path_.back());
  }

  const FlowGraph& graph_;
  const int32_t sink_;
  const double tolerance_;
  std::vector<size_t> first_;     // [vertex + 1] into incident_
  std::vector<size_t> incident_;  // incidences by vertex, in the order of the arcs
  std::vector<size_t> cursor_;    // [vertex] into incident_
  std::vector<double> flow_;      // [arc]
  std::vector<int32_t> level_;    // [vertex], -1: not reached
  std::vector<int32_t> queue_;
  std::vector<size_t> path_;  // incidences from the source
};

}  // namespace

MaxFlow max_flow(const FlowGraph& graph, int32_t source, int32_t sink, double tolerance) {
  CHECK(source >= 0 && source < graph.vertices, source, graph.vertices);
  CHECK(sink >= 0 && sink < graph.vertices && sink != source, sink, graph.vertices);
  Dinic dinic(graph, sink, tolerance);
  while (dinic.level(source)) dinic.augment_all(source);
  MaxFlow result;
  result.flow = dinic.take_flow();
  for (size_t a = 0; a < graph.arcs.size(); ++a) {
    if (graph.arcs[a].from == source) result.value += result.flow[a];
    if (graph.arcs[a].to == source) result.value -= result.flow[a];
  }
  result.source_side.resize(static_cast<size_t>(graph.vertices));
  for (int32_t v = 0; v < graph.vertices; ++v) result.source_side[v] = dinic.reached(v);
  return result;
}

}  // namespace towline::plan
