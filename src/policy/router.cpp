// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/router.hpp"

#include "base/check.hpp"

namespace towline::policy {

FlowRouter::FlowRouter(RouteMap map, std::span<const double> flow,
                       std::vector<int32_t> longest_prompt, double minimum_share)
    : map_(std::move(map)), longest_prompt_(std::move(longest_prompt)), iwrr_(flow) {
  CHECK(flow.size() == map_.links.size(), flow.size(), map_.links.size());
  CHECK(longest_prompt_.size() == map_.layers.size(), longest_prompt_.size());
  for (const std::vector<int32_t>& links : map_.out) {
    double sum = 0;
    for (const int32_t link : links) sum += flow[link];
    std::vector<int32_t>& open = open_.emplace_back();
    for (const int32_t link : links) {
      const bool closed = flow[link] < minimum_share * sum || flow[link] <= 0;
      if (!closed) open.push_back(link);
    }
  }
}

FlowRouter::Verdict FlowRouter::judge(int32_t next, int64_t input_tokens, const KvLedger& ledger,
                                      const RouteRules& rules) const {
  if (next == kSinkNode) return Verdict::kPass;
  if (input_tokens > longest_prompt_[next]) return Verdict::kLength;
  if (!rules.usable.empty() && rules.usable[static_cast<size_t>(next)] == 0) return Verdict::kRule;
  return rules.ignore_kv || ledger.fits(next, input_tokens) ? Verdict::kPass : Verdict::kKv;
}

bool FlowRouter::route(int64_t input_tokens, KvLedger& ledger, Pipeline& pipeline,
                       const RouteRules& rules) {
  pipeline.clear();
  const auto work = static_cast<double>(input_tokens);
  int32_t node = kSourceNode;
  do {
    const std::vector<int32_t>& open = open_[node + 1];
    refusal_ = {.node = node};
    refusal_.by_flow = static_cast<int32_t>(map_.links_from(node).size() - open.size());
    const int32_t link = iwrr_.choose(work, open, [&](size_t candidate) {
      const Verdict verdict = judge(map_.links[candidate].to, input_tokens, ledger, rules);
      refusal_.by_length += verdict == Verdict::kLength;
      refusal_.by_kv += verdict == Verdict::kKv;
      refusal_.by_rule += verdict == Verdict::kRule;
      return verdict == Verdict::kPass;
    });
    if (link < 0) {
      for (const Hop& hop : pipeline) iwrr_.refund(static_cast<size_t>(hop.link), work);
      pipeline.clear();
      return false;
    }
    const int32_t next = map_.links[link].to;
    pipeline.push_back({link, next, map_.layers_after(node, next)});
    node = next;
  } while (node != kSinkNode);
  ledger.book(pipeline, input_tokens);
  return true;
}

void FlowRouter::charge_decode(const Pipeline& pipeline, double requests) {
  for (const Hop& hop : pipeline) {
    iwrr_.charge(static_cast<size_t>(hop.link), requests);
  }
}

void mark_shortest(std::span<const int64_t> queue_lengths, std::span<uint8_t> marks) {
  int64_t shortest = std::numeric_limits<int64_t>::max();
  std::fill(marks.begin(), marks.end(), uint8_t{0});
  for (size_t i = 0; i < queue_lengths.size(); ++i) {
    if (queue_lengths[i] < 0) {
      marks[i] = 1;
      return;
    }
    if (queue_lengths[i] < shortest) {
      shortest = queue_lengths[i];
      std::fill(marks.begin(), marks.begin() + static_cast<std::ptrdiff_t>(i), uint8_t{0});
    }
    marks[i] = queue_lengths[i] == shortest;
  }
}

}  // namespace towline::policy
