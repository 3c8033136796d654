// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/push_relabel.hpp"

#include <algorithm>
#include <functional>
#include <limits>
#include <span>
#include <utility>

namespace towline::sim {
namespace {

struct Edge {
  int32_t to = 0;
  int32_t reverse = 0;  // index of the opposite edge
  double capacity = 0;
  double flow = 0;
  bool open() const { return flow < capacity; }
};

struct Vertex {
  int32_t begin = 0, end = 0;  // its edges
  int32_t current = 0;         // next edge to be tried
  int32_t height = 0;
  int32_t level = -1;          // in whose lists it is; -1: in none
  int32_t next = -1, before = -1;  // there
  bool active = false;         // has excess
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
    edge_of_.assign(graph.arcs.size(), -1);
    for (const int32_t i : arcs) {
      const plan::FlowArc& arc = graph.arcs[i];
      const int32_t forward = vertices_[arc.from].current++;
      const int32_t backward = vertices_[arc.to].current++;
      edges_[forward] = {arc.to, backward, arc.capacity, 0};
      edges_[backward] = {arc.from, forward, 0, 0};  // in the residual graph only
      edge_of_[i] = forward;
    }
    for (Vertex& v : vertices_) v.current = v.begin;
    ends_.reserve(edges_.size());
    for (const Edge& e : edges_) ends_.push_back(e.to);
  }

  plan::MaxFlow solve() {
    plan::MaxFlow result;
    result.flow.assign(edge_of_.size(), 0.0);
    if (!start()) return result;
    drain_to_sink();
    return_to_source();
    result.value = vertices_[sink_].excess;
    for (size_t arc = 0; arc < edge_of_.size(); ++arc) {
      if (edge_of_[arc] >= 0) result.flow[arc] = std::max(0.0, edges_[edge_of_[arc]].flow);
    }
    return result;
  }

 private:
  // The vertices of one height. Which of the active ones has the lowest number is asked often, and
  // they leave in any order: those that did are dropped from the heap when they come to its top.
  struct Level {
    std::vector<int32_t> heap;  // lowest on top; every active one, and stale entries
    int32_t active = 0;
    int32_t first = -1;
    bool empty() const { return first < 0; }
  };
  void put(int32_t v, int32_t height, bool active) {
    Vertex& vertex = vertices_[v];
    Level& level = levels_[height];
    vertex.level = height;
    vertex.active = false;
    vertex.before = -1;
    vertex.next = std::exchange(level.first, v);
    if (vertex.next >= 0) vertices_[vertex.next].before = v;
    if (active) make_active(v);
  }
  void make_active(int32_t v) {
    Level& level = levels_[vertices_[v].level];
    vertices_[v].active = true;
    ++level.active;
    level.heap.push_back(v);
    std::push_heap(level.heap.begin(), level.heap.end(), std::greater<>());
  }
  void take(int32_t v) {
    Vertex& vertex = vertices_[v];
    Level& level = levels_[vertex.level];
    level.active -= vertex.active ? 1 : 0;
    (vertex.before < 0 ? level.first : vertices_[vertex.before].next) = vertex.next;
    if (vertex.next >= 0) vertices_[vertex.next].before = vertex.before;
    vertex.level = -1;
  }
  // The level has an active one.
  int32_t least_active(int32_t height) {
    std::vector<int32_t>& heap = levels_[height].heap;
    while (vertices_[heap.front()].level != height || !vertices_[heap.front()].active) {
      std::pop_heap(heap.begin(), heap.end(), std::greater<>());
      heap.pop_back();
    }
    return heap.front();
  }
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
      for (int32_t i = vertices_[u].begin; i < vertices_[u].end; ++i) {
        const int32_t to = ends_[i];
        if (distance[to] != kUnreached || !edges_[edges_[i].reverse].open()) continue;
        distance[to] = distance[u] + 1;
        queue.push_back(to);
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
      put(v, vertices_[v].height, vertices_[v].excess > 0);
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
    if (vertices_[v].level >= 0 && !vertices_[v].active) make_active(v);
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
    take(u);
    for (;;) {
      Edge& e = edges_[vertex.current];
      if (height == vertices_[e.to].height + 1 && e.open()) {
        push(u, e, std::min(vertex.excess, e.capacity - e.flow));
        activate(e.to);
        if (vertex.excess == 0) {
          put(u, height, false);
          break;
        }
      }
      if (++vertex.current < vertex.end) continue;
      vertex.current = vertex.begin;
      height = relabelled(u);
      if (to_sink && height >= n_ - 1) {
        put(u, height, true);
        break;
      }
      next_height = height;
    }
    vertex.height = height;
    return next_height;
  }

  void move_level(int32_t from, int32_t to) {
    while (levels_[from].first >= 0) {
      const int32_t v = levels_[from].first;
      take(v);
      vertices_[v].height = to;
      put(v, to, vertices_[v].active);
    }
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
      if (vertices_[v].level >= 0) {
        take(v);
        put(v, height, vertices_[v].active);
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
      if (levels_[height].active == 0) {
        --height;
        continue;
      }
      const int32_t old = height;
      height = discharge(least_active(old), true);
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
      if (levels_[height].active == 0) {
        --height;
        continue;
      }
      height = discharge(least_active(height), false);
      if (relabel_due()) height = relabel_all(false);
    }
  }

  std::vector<Vertex> vertices_;
  std::vector<Edge> edges_;
  std::vector<int32_t> edge_of_;  // [arc of the graph]; -1: it can carry nothing
  std::vector<int32_t> ends_;     // [edge] Edge::to again: most of what a search reads
  std::vector<Level> levels_;
  int32_t source_, sink_, n_;
  int64_t work_ = 0;
  int32_t max_height_ = 0;
};

}  // namespace

plan::MaxFlow push_relabel_flow(const plan::FlowGraph& graph, int32_t source, int32_t sink) {
  return Solver(graph, source, sink).solve();
}

}  // namespace towline::sim
