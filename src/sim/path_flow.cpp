// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/path_flow.hpp"

#include <algorithm>
#include <limits>
#include <vector>

namespace towline::sim {
namespace {

constexpr double kLoss = 1e-6;         // of the flow's value
constexpr double kPreference = 1.5;    // for links of the plan before
constexpr size_t kWaysPerNode = 8;     // give up beyond

class Peeler {
 public:
  Peeler(const HelixInput& input, std::span<const double> before)
      : input_(input), before_(before), out_(input.nodes.size() + 1),
        left_(input.nodes.size(), 0), room_(input.links.size(), 0), flow_(input.links.size(), 0) {
    const double token = input.token_bytes, both = input.token_bytes + input.activation_bytes;
    for (size_t i = 0; i < input.links.size(); ++i) {
      const HelixLink& link = input.links[i];
      const bool outer = link.from == policy::kSourceNode || link.to == policy::kSinkNode;
      room_[i] = link.bandwidth / (outer ? token : both);
      out_[link.from + 1].push_back(static_cast<int32_t>(i));
      if (link.to >= 0) left_[link.to] += input.flow[i];
      if (link.to == policy::kSinkNode) wanted_ += input.flow[i];
    }
  }

  bool run() {
    double got = 0;
    std::vector<int32_t> way;
    for (size_t i = 0; i < kWaysPerNode * (input_.nodes.size() + 1); ++i) {
      if (wanted_ - got <= kLoss * wanted_) return true;
      way.clear();
      double amount = wanted_ - got;
      for (int32_t node = policy::kSourceNode; node != policy::kSinkNode;) {
        const int32_t link = widest(node);
        if (link < 0) break;
        way.push_back(link);
        node = input_.links[link].to;
        amount = std::min(amount, width(link));
      }
      if (way.empty() || input_.links[way.back()].to != policy::kSinkNode) return false;
      for (const int32_t link : way) {
        flow_[link] += amount;
        room_[link] -= amount;
        if (input_.links[link].to >= 0) left_[input_.links[link].to] -= amount;
      }
      got += amount;
    }
    return false;
  }
  std::vector<double>& flow() { return flow_; }

 private:
  double width(int32_t link) const {
    const int32_t to = input_.links[link].to;
    return to == policy::kSinkNode ? room_[link] : std::min(room_[link], left_[to]);
  }
  int32_t widest(int32_t node) const {
    const double least = kLoss * wanted_ / static_cast<double>(input_.nodes.size() + 1);
    int32_t best = -1;
    double most = 0;
    for (const int32_t link : out_[node + 1]) {
      double w = width(link);
      if (!(w > least)) continue;
      if (!before_.empty() && before_[link] > 0) w *= kPreference;
      if (w > most) {
        most = w;
        best = link;
      }
    }
    return best;
  }

  const HelixInput& input_;
  std::span<const double> before_;
  std::vector<std::vector<int32_t>> out_;  // [node + 1] links
  std::vector<double> left_;               // [node] flow that is not yet on a way
  std::vector<double> room_, flow_;        // [link]
  double wanted_ = 0;
};

}  // namespace

void keep_to_few_ways(HelixInput& input, std::span<const double> before) {
  Peeler peeler(input, before);
  if (peeler.run()) input.flow = std::move(peeler.flow());
}

}  // namespace towline::sim
