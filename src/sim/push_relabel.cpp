// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/push_relabel.hpp"

#include <algorithm>
#include <limits>
#include <set>
#include <span>

namespace towline::sim {
namespace {

struct Edge {
  int32_t to = 0;
  int32_t reverse = 0;  // index of the opposite edge
  int32_t arc = -1;     // of the graph; -1: exists in the residual graph only
  double capacity = 0;
  double flow = 0;
  bool open() const { return flow < capacity; }
};

struct Vertex {
  int32_t begin = 0, end = 0;  // its edges
  int32_t current = 0;         // next edge to be tried
  int32_t height = 0;
  double excess = 0;
};

class Solver {
 public:
  Solver(const plan::FlowGraph& graph, int32_t source, int32_t sink)
      : vertices_(graph.vertices), source_(source), sink_(sink), n_(graph.vertices) {
    // Every vertex's edges, in the order of the vertices their arcs leave, and of the arcs there.
    std::vector<int32_t> begin(graph.vertices + 1, 0);
    for (const plan::FlowArc& arc : graph.arcs) {
      if (!(arc.capacity > 0)) continue;
      ++begin[arc.from + 1];
      ++vertices_[arc.from].end;
      ++vertices_[arc.to].end;
    }
    for (int32_t v = 0; v < n_; ++v) {
      begin[v + 1] += begin[v];
      vertices_[v].begin = vertices_[v].current = v == 0 ? 0 : vertices_[v - 1].end;
      vertices_[v].end += vertices_[v].begin;
    }
    std::vector<int32_t> arcs(begin[n_]), next(begin.begin(), begin.end() - 1);
    for (size_t i = 0; i < graph.arcs.size(); ++i) {
      if (graph.arcs[i].capacity > 0) arcs[next[graph.arcs[i].from]++] = static_cast<int32_t>(i);
    }
    edges_.resize(2 * arcs.size());
    for (const int32_t i : arcs) {
      const plan::FlowArc& arc = graph.arcs[i];
      const int32_t forward = vertices_[arc.from].current++;
      const int32_t backward = vertices_[arc.to].current++;
      edges_[forward] = {arc.to, backward, i, arc.capacity, 0};
      edges_[backward] = {arc.from, forward, -1, 0, 0};
    }
    for (Vertex& v : vertices_) v.current = v.begin;
  }

  plan::MaxFlow solve(size_t arcs) {
    plan::MaxFlow result;
    result.flow.assign(arcs, 0.0);
    if (!start()) return result;
    drain_to_sink();
    return_to_source();
    result.value = vertices_[sink_].excess;
    for (const Edge& e : edges_) {
      if (e.arc >= 0 && e.flow > 0) result.flow[e.arc] = e.flow;
    }
    return result;
  }

 private:
  struct Level {
    std::set<int32_t> active, inactive;  // vertices of one height, with and without excess
    bool empty() const { return active.empty() && inactive.empty(); }
  };
  static constexpr int32_t kUnreached = -1;

  std::span<Edge> edges_of(int32_t v) {
    return std::span(edges_).subspan(vertices_[v].begin, vertices_[v].end - vertices_[v].begin);
  }
  std::span<const Edge> edges_of(int32_t v) const {
    return std::span(edges_).subspan(vertices_[v].begin, vertices_[v].end - vertices_[v].begin);
  }

  // Distance to `target` in the residual graph, [vertex].
  std::vector<int32_t> distances_to(int32_t target) const {
    std::vector<int32_t> distance(vertices_.size(), kUnreached);
    std::vector<int32_t> queue = {target};
    distance[target] = 0;
    for (size_t head = 0; head < queue.size(); ++head) {
      const int32_t u = queue[head];
      for (const Edge& e : edges_of(u)) {
        if (distance[e.to] != kUnreached || !edges_[e.reverse].open()) continue;
        distance[e.to] = distance[u] + 1;
        queue.push_back(e.to);
      }
    }
    return distance;
  }

  // False if nothing can flow.
  bool start() {
    const std::vector<int32_t> distance = distances_to(sink_);
    if (distance[source_] == kUnreached) return false;
    max_height_ = 0;
    for (int32_t v = 0; v < n_; ++v) {
      vertices_[v].height = distance[v] == kUnreached ? n_ + 1 : distance[v];
      if (v != source_) max_height_ = std::max(max_height_, distance[v]);
    }
    vertices_[source_].height = n_;
    for (Edge& e : edges_of(source_)) {
      if (e.capacity > 0) push(source_, e, e.capacity);
    }
    levels_.resize(static_cast<size_t>(2 * n_ + 1));
    for (int32_t v = 0; v < n_; ++v) {
      if (v == source_ || v == sink_) continue;
      Level& level = levels_[vertices_[v].height];
      (vertices_[v].excess > 0 ? level.active : level.inactive).insert(v);
    }
    return true;
  }

  void push(int32_t from, Edge& e, double amount) {
    e.flow += amount;
    edges_[e.reverse].flow -= amount;
    vertices_[from].excess -= amount;
    vertices_[e.to].excess += amount;
  }

  void activate(int32_t v) {
    if (v == source_ || v == sink_) return;
    Level& level = levels_[vertices_[v].height];
    if (level.inactive.erase(v) > 0) level.active.insert(v);
  }

  int32_t relabelled(int32_t u) {
    work_ += static_cast<int64_t>(edges_of(u).size());
    int32_t lowest = std::numeric_limits<int32_t>::max() - 1;
    for (const Edge& e : edges_of(u)) {
      if (e.open()) lowest = std::min(lowest, vertices_[e.to].height);
    }
    return lowest + 1;
  }

  // Pushes the excess of `u`, an active vertex of greatest height, until there is none (or, while
  // draining to the sink, until the vertex is cut off from it). Returns the next height to look at.
  int32_t discharge(int32_t u, bool to_sink) {
    Vertex& vertex = vertices_[u];
    int32_t height = vertex.height;
    int32_t next_height = height;
    levels_[height].active.erase(u);
    for (;;) {
      Edge& e = edges_[vertex.current];
      if (height == vertices_[e.to].height + 1 && e.open()) {
        push(u, e, std::min(vertex.excess, e.capacity - e.flow));
        activate(e.to);
        if (vertex.excess == 0) {
          levels_[height].inactive.insert(u);
          break;
        }
      }
      if (++vertex.current < vertex.end) continue;
      vertex.current = vertex.begin;
      height = relabelled(u);
      if (to_sink && height >= n_ - 1) {
        levels_[height].active.insert(u);
        break;
      }
      next_height = height;
    }
    vertex.height = height;
    return next_height;
  }

  void move_level(int32_t from, int32_t to) {
    for (const int32_t v : levels_[from].active) vertices_[v].height = to;
    for (const int32_t v : levels_[from].inactive) vertices_[v].height = to;
    levels_[to].active.merge(levels_[from].active);
    levels_[to].inactive.merge(levels_[from].inactive);
  }

  // Exact distances for all vertices, to the sink or (above n) to the source. Returns the greatest.
  int32_t relabel_all(bool from_sink) {
    const int32_t target = from_sink ? sink_ : source_;
    std::vector<int32_t> heights = distances_to(target);
    if (!from_sink) heights[sink_] = kUnreached;
    int32_t greatest = *std::max_element(heights.begin(), heights.end());
    if (!from_sink) greatest += n_;
    for (int32_t v = 0; v < n_; ++v) {
      int32_t& height = heights[v];
      if (height == kUnreached) {
        if (from_sink && vertices_[v].height < n_) height = n_ + 1;
      } else if (!from_sink) {
        height += n_;
      }
      const int32_t old = vertices_[v].height;
      if (v == target || height == kUnreached || height == old) continue;
      if (levels_[old].active.erase(v) > 0) {
        levels_[height].active.insert(v);
      } else if (levels_[old].inactive.erase(v) > 0) {
        levels_[height].inactive.insert(v);
      }
      vertices_[v].height = height;
    }
    work_ = 0;
    return greatest;
  }

  bool relabel_due() const { return work_ >= n_ + static_cast<int64_t>(edges_.size()); }

  void drain_to_sink() {
    int32_t height = max_height_;
    while (height > 0) {
      if (levels_[height].active.empty()) {
        --height;
        continue;
      }
      const int32_t old = height;
      height = discharge(*levels_[old].active.begin(), true);
      if (relabel_due()) {
        max_height_ = height = relabel_all(true);
      } else if (levels_[old].empty()) {
        // Nobody at this height: everybody above it is cut off from the sink.
        for (int32_t h = old + 1; h <= max_height_; ++h) {
          if (h != n_ + 1) move_level(h, n_ + 1);
        }
        max_height_ = height = old - 1;
      } else {
        max_height_ = std::max(max_height_, height);
      }
    }
  }

  void return_to_source() {
    int32_t height = relabel_all(false);
    while (height > n_) {
      if (levels_[height].active.empty()) {
        --height;
        continue;
      }
      height = discharge(*levels_[height].active.begin(), false);
      if (relabel_due()) height = relabel_all(false);
    }
  }

  std::vector<Vertex> vertices_;
  std::vector<Edge> edges_;
  std::vector<Level> levels_;
  int32_t source_, sink_, n_;
  int64_t work_ = 0;
  int32_t max_height_ = 0;
};

}  // namespace

plan::MaxFlow push_relabel_flow(const plan::FlowGraph& graph, int32_t source, int32_t sink) {
  return Solver(graph, source, sink).solve(graph.arcs.size());
}

}  // namespace towline::sim
