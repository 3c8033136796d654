// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/path_flow.hpp"

#include <algorithm>
#include <vector>

namespace towline::sim {
namespace {

constexpr double kLoss = 1e-6;         // of the flow's value
constexpr double kPreference = 1.5;    // for links of the plan before
constexpr size_t kWaysPerNode = 8;     // give up beyond

class Peeler {
 public:
  Peeler(const HelixInput& input, std::span<const double> before)
      : begin_(input.nodes.size() + 2, 0), left_(input.nodes.size(), 0),
        flow_(input.links.size(), 0) {
    const double token = input.token_bytes, both = input.token_bytes + input.activation_bytes;
    for (const HelixLink& link : input.links) ++begin_[link.from + 2];
    for (size_t i = 1; i < begin_.size(); ++i) begin_[i] += begin_[i - 1];
    std::vector<int32_t> next(begin_.begin(), begin_.end() - 1);
    out_.resize(input.links.size());
    ranked_.resize(input.links.size());
    ranked_end_.assign(begin_.size() - 1, kUnranked);
    for (size_t i = 0; i < input.links.size(); ++i) {
      const HelixLink& link = input.links[i];
      const bool outer = link.from == policy::kSourceNode || link.to == policy::kSinkNode;
      out_[next[link.from + 1]++] = {.link = static_cast<int32_t>(i),
                                     .to = link.to,
                                     .room = link.bandwidth / (outer ? token : both),
                                     .kept = !before.empty() && before[i] > 0};
      if (link.to >= 0) left_[link.to] += input.flow[i];
      if (link.to == policy::kSinkNode) wanted_ += input.flow[i];
    }
    least_ = kLoss * wanted_ / static_cast<double>(left_.size() + 1);
  }

  bool run() {
    double got = 0;
    std::vector<Out*> way;
    for (size_t i = 0; i < kWaysPerNode * (left_.size() + 1); ++i) {
      if (wanted_ - got <= kLoss * wanted_) return true;
      way.clear();
      double amount = wanted_ - got;
      for (int32_t node = policy::kSourceNode; node != policy::kSinkNode;) {
        Out* const out = widest(node);
        if (out == nullptr) break;
        way.push_back(out);
        node = out->to;
        amount = std::min(amount, width(*out));
      }
      if (way.empty() || way.back()->to != policy::kSinkNode) return false;
      for (Out* const out : way) {
        flow_[out->link] += amount;
        out->room -= amount;
        if (out->to >= 0) left_[out->to] -= amount;
      }
      got += amount;
    }
    return false;
  }
  std::vector<double>& flow() { return flow_; }

 private:
  struct Out {
    int32_t link = 0, to = 0;
    double room = 0;
    bool kept = false;        // of the plan before
  };
  // How wide a link was when that was last reckoned; links only become narrower.
  struct Ranked {
    double width = 0;
    int32_t place = 0;        // in out_
    // A max-heap; of equals the first one.
    friend bool operator<(const Ranked& a, const Ranked& b) {
      return a.width != b.width ? a.width < b.width : a.place > b.place;
    }
  };
  static constexpr int32_t kUnranked = -1;

  double width(const Out& out) const {
    return out.to == policy::kSinkNode ? out.room : std::min(out.room, left_[out.to]);
  }
  // 0: too narrow to be used.
  double preference(const Out& out) const {
    const double w = width(out);
    if (!(w > least_)) return 0;
    return out.kept ? w * kPreference : w;
  }
  Out* widest(int32_t node) {
    const auto first = ranked_.begin() + begin_[node + 1];
    int32_t& end = ranked_end_[node + 1];
    if (end == kUnranked) {
      end = begin_[node + 1];
      for (int32_t i = end; i < begin_[node + 2]; ++i) {
        const double w = preference(out_[i]);
        if (w > 0) ranked_[end++] = {w, i};
      }
      std::make_heap(first, ranked_.begin() + end);
    }
    while (end > begin_[node + 1]) {
      const Ranked best = *first;
      const double w = preference(out_[best.place]);
      if (w == best.width) return &out_[best.place];
      std::pop_heap(first, ranked_.begin() + end);
      if (w > 0) {
        ranked_[end - 1] = {w, best.place};
        std::push_heap(first, ranked_.begin() + end);
      } else {
        --end;
      }
    }
    return nullptr;
  }

  std::vector<int32_t> begin_;  // [node + 1] of its links in out_
  std::vector<Out> out_;        // links, by the node they leave
  std::vector<double> left_;    // [node] flow that is not yet on a way
  std::vector<double> flow_;    // [link]
  std::vector<Ranked> ranked_;  // as begin_ says: a heap for each node that was passed...
  std::vector<int32_t> ranked_end_;  // [node + 1] ...its end
  double wanted_ = 0, least_ = 0;
};

}  // namespace

void keep_to_few_ways(HelixInput& input, std::span<const double> before) {
  Peeler peeler(input, before);
  if (peeler.run()) input.flow = std::move(peeler.flow());
}

}  // namespace towline::sim
