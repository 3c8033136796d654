// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/serving.hpp"

#include <algorithm>

namespace towline::plan {
namespace {

constexpr double kPassesWaited = 1.5;  // a pass is found half done, then one's own
constexpr double kUsableKv = 0.72;     // of the scarcest layer's cache, with admission as it is
constexpr size_t kLargestBatch = 512;  // decodes; the tables end there
constexpr double kBusiest = 0.98;      // share of time that prompts may take
constexpr int kBisections = 16;

ServingNode make_node(const PlanProblem& problem, int32_t unit, const spec::Profile& profile,
                      const RequestShape& requests) {
  ServingNode node;
  const spec::RateTable& table = problem.table(unit);
  for (int32_t k = 1; k <= problem.max_layers(unit); ++k) {
    node.kv_tokens.push_back(static_cast<double>(table.points[k - 1].kv_layer_tokens) / k);
  }
  const spec::DeviceProfile* device = profile.find(table.type);
  if (device != nullptr && device->prompt.size() > 1 && device->decode.size() > 1) {
    node.prompt_seconds = spec::interpolate(device->prompt, requests.input).value;
    for (size_t n = 0; n <= kLargestBatch; ++n) {
      const auto sequences = std::max(2.0, static_cast<double>(n));
      node.decode_seconds.push_back(spec::interpolate(device->decode, sequences).value);
    }
  } else {
    // Measured rates alone: a token costs the same in a prompt and in a decode batch.
    const double token = table.points.empty() ? 0 : 1 / std::max(1e-9, table.points[0].rate.value);
    node.prompt_seconds = token * requests.input;
    for (size_t n = 0; n <= kLargestBatch; ++n) {
      node.decode_seconds.push_back(token * static_cast<double>(std::max<size_t>(1, n)));
    }
  }
  return node;
}

}  // namespace

RequestShape shape_of(std::span<const std::pair<int32_t, int32_t>> lengths) {
  RequestShape shape;
  if (lengths.empty()) return shape;
  double input = 0, output = 0, square = 0;
  for (const auto& [in, out] : lengths) {
    input += in;
    output += out;
    square += static_cast<double>(in) * in;
  }
  const auto count = static_cast<double>(lengths.size());
  shape.input = input / count;
  shape.output = output / count;
  shape.input_spread = square / count / (shape.input * shape.input);
  return shape;
}

ServingModel make_serving_model(const PlanProblem& problem, const spec::Profile& profile,
                                const RequestShape& requests) {
  using HopSeconds = ServingModel::HopSeconds;
  ServingModel model;
  model.layers = problem.model.layers;
  model.requests = requests;
  const auto units = static_cast<size_t>(problem.size());
  for (int32_t u = 0; u < problem.size(); ++u) {
    model.nodes.push_back(make_node(problem, u, profile, requests));
  }
  const auto activation = static_cast<double>(problem.model.activation_bytes.value);
  const bool pairwise = problem.size() <= ServingModel::kPairwiseNodes;
  if (pairwise) model.between.resize(units * units);
  model.nearest.resize(units);
  double outer_links = 0;
  for (const PlanArc& arc : problem.arcs) {
    if (arc.from < 0 || arc.to < 0) {
      HopSeconds& mean = arc.from < 0 ? model.from_source : model.to_sink;
      mean.decode += arc.latency;
      mean.prompt += arc.latency;
      outer_links += 0.5;
      continue;
    }
    const double bandwidth = std::max(arc.bandwidth, 1.0);
    const HopSeconds seconds{arc.latency + activation / bandwidth,
                             arc.latency + activation * requests.input / bandwidth};
    if (pairwise) model.between[arc.from * units + arc.to] = seconds;
    HopSeconds& nearest = model.nearest[arc.to];
    if (nearest.prompt == 0 || seconds.prompt < nearest.prompt) nearest = seconds;
  }
  for (HopSeconds* mean : {&model.from_source, &model.to_sink}) {
    mean->decode /= std::max(1.0, outer_links);
    mean->prompt /= std::max(1.0, outer_links);
  }
  return model;
}

void replicate(ServingModel& model, const PlanProblem& problem, double copies, double kv_bytes) {
  ServingModel::Replication& r = model.replication;
  r.copies = copies;
  r.kv_bytes = kv_bytes;
  r.activation_bytes = static_cast<double>(problem.model.activation_bytes.value);
  const auto units = static_cast<size_t>(problem.size());
  if (!model.between.empty()) r.links.assign(units * units, 0);
  for (int32_t u = 0; u < problem.size(); ++u) {
    r.nic_in.push_back(problem.machine(u).nic_in.value);
    r.nic_out.push_back(problem.machine(u).nic_out.value);
  }
  for (const PlanArc& arc : problem.arcs) {
    if (arc.from < 0 || arc.to < 0 || r.links.empty()) continue;
    r.links[arc.from * units + arc.to] += arc.bandwidth;
  }
  for (ServingNode& node : model.nodes) {
    for (double& tokens : node.kv_tokens) tokens /= 1 + copies;
  }
}

// Requests whose contexts fit at once: the layer with the least KV decides.
double ServingEstimator::kv_requests(std::span<const LayerRange> ranges) {
  kv_.assign(static_cast<size_t>(model_.layers) + 1, 0);
  for (size_t i = 0; i < ranges.size(); ++i) {
    const LayerRange range = ranges[i];
    if (range.empty()) continue;
    const double tokens = model_.nodes[i].kv_tokens[range.size() - 1];
    kv_[range.begin] += tokens;
    kv_[range.end] -= tokens;
  }
  double held = 0;
  double least = 1e300;
  for (int32_t layer = 0; layer < model_.layers; ++layer) {
    held += kv_[layer];
    least = std::min(least, held);
  }
  return kUsableKv * least / (model_.requests.input + model_.requests.output);
}

// Mean latencies at `rate` requests a second.
ServingEstimator::Latency ServingEstimator::latency_at(double rate) {
  Latency latency{model_.to_sink.decode, model_.to_sink.prompt};
  const double decodes = rate * model_.requests.output;
  runs_.assign(vertices_.size(), {});
  double convoy = 0;
  size_t hop = 0;
  for (size_t v = 0; v < vertices_.size(); ++v) {
    const Vertex& vertex = vertices_[v];
    Run& run = runs_[v];
    double excess = 0;  // seconds that a prompt takes longer than a decode
    if (vertex.node >= 0) {
      const ServingNode& node = model_.nodes[vertex.node];
      const double prompt_alone = vertex.layers * node.prompt_seconds;
      const double busy = std::min(kBusiest, rate * vertex.share * prompt_alone);
      // The batch is what arrives during a pass; its time hardly depends on it.
      double pass = vertex.layers * node.decode_seconds[16];
      const double batch = decodes * vertex.share * pass / (1 - busy);
      const size_t largest = node.decode_seconds.size() - 1;
      pass = vertex.layers * node.decode_seconds[std::min(static_cast<size_t>(batch), largest)];
      const double decode = kPassesWaited * pass / (1 - busy);
      const double wait = 0.5 * busy * model_.requests.input_spread * prompt_alone / (1 - busy);
      const double prompt = prompt_alone / (1 - busy) + wait + 0.5 * pass;
      latency.decode += vertex.share * decode;
      latency.prompt += vertex.share * prompt;
      excess = std::max(0.0, prompt - decode);
    }
    const double both = vertex.share * vertex.share;
    run.square += 2 * excess * run.sum + both * excess * excess;
    run.sum += both * excess;
    double kept = 0;
    for (; hop < hops_.size() && hops_[hop].from == static_cast<int32_t>(v); ++hop) {
      const Hop& next = hops_[hop];
      latency.decode += vertex.share * next.share * next.seconds.decode;
      latency.prompt += vertex.share * next.share * next.seconds.prompt;
      if (next.to < 0) continue;
      const double same = next.share * next.share;
      const double on_link = std::max(0.0, next.seconds.prompt - next.seconds.decode);
      Run& after = runs_[next.to];
      after.sum += same * (run.sum + both * on_link);
      after.square += same * (run.square + 2 * on_link * run.sum + both * on_link * on_link);
      kept += same;
    }
    convoy += run.square * (1 - kept);
  }
  latency.decode += 0.5 * rate * model_.requests.input_spread * convoy;
  return latency;
}

// The flow as vertices, in the order of the way, and hops between them.
void ServingEstimator::follow(std::span<const LayerRange> ranges, double flow) {
  vertices_.clear();
  hops_.clear();
  const auto nodes = static_cast<int32_t>(ranges.size());
  index_.assign(ranges.size(), -1);
  const auto vertex_of = [&](int32_t station) {
    if (station == kSink) return -1;
    if (static_cast<size_t>(station) >= index_.size()) index_.resize(station + 1, -1);
    return index_[station];
  };
  // The list leaves vertices in the order of the way.
  for (const VertexFlow& arc : flows_) {
    if (arc.from == kSource || vertex_of(arc.from) >= 0) continue;
    index_[arc.from] = static_cast<int32_t>(vertices_.size());
    vertices_.push_back(
        {arc.from < nodes ? arc.from : -1, arc.from < nodes ? ranges[arc.from].size() : 0, 0});
  }
  for (const VertexFlow& arc : flows_) {
    const int32_t to = vertex_of(arc.to);
    if (to >= 0) vertices_[to].share += arc.flow / flow;
    if (arc.from == kSource) continue;
    const int32_t from = vertex_of(arc.from);
    ServingModel::HopSeconds seconds;
    if (arc.to >= 0 && arc.to < nodes) {
      const bool direct = arc.from < nodes && !model_.between.empty();
      seconds = direct ? model_.between[static_cast<size_t>(arc.from) * nodes + arc.to]
                       : model_.nearest[arc.to];
    }
    hops_.push_back({from, to, arc.flow / flow / std::max(1e-12, vertices_[from].share), seconds});
  }
}

// Who keeps the copies of a node with the last layers, and which parts of them.
std::vector<std::pair<int32_t, double>> ServingEstimator::keepers_of_last(int32_t node) const {
  const std::vector<double>& links = model_.replication.links;
  const size_t nodes = model_.nodes.size();
  const auto width = [&](size_t to) { return links.empty() ? 1.0 : links[node * nodes + to]; };
  std::vector<std::pair<int32_t, double>> keepers;
  double sum = 0;
  for (const VertexFlow& arc : flows_) {
    if (arc.from != kSource || arc.to == node || arc.to < 0 || width(arc.to) <= 0) continue;
    keepers.emplace_back(arc.to, arc.flow);
    sum += arc.flow;
  }
  for (auto& [_, part] : keepers) part /= sum;
  if (!keepers.empty()) return keepers;
  const auto own = static_cast<size_t>(node);
  size_t widest = own == 0 ? 1 : 0;
  for (size_t to = 0; to < nodes; ++to) {
    if (to != own && width(to) > width(widest)) widest = to;
  }
  return {{static_cast<int32_t>(widest), 1}};
}

// Requests/s that links and NICs carry when every node's KV is also copied. Where flows mix in a
// hub, each node in front of it sends to each behind it, in proportion.
double ServingEstimator::replicated_requests() {
  const ServingModel::Replication& r = model_.replication;
  const size_t nodes = model_.nodes.size();
  if (nodes < 2) return 0;
  const double tokens = model_.requests.input + model_.requests.output;
  sent_.assign(nodes, 0);
  received_.assign(nodes, 0);
  on_links_.assign(r.links.size(), 0);
  const auto send = [&](const Vertex& from, int32_t to, double share, bool activation) {
    const double bytes =
        tokens * share *
        ((activation ? r.activation_bytes : 0) + r.copies * from.layers * r.kv_bytes);
    sent_[from.node] += bytes;
    received_[to] += bytes;
    if (!on_links_.empty()) on_links_[from.node * nodes + static_cast<size_t>(to)] += bytes;
  };
  for (size_t h = 0; h < hops_.size(); ++h) {
    const Hop& hop = hops_[h];
    const Vertex& from = vertices_[hop.from];
    if (from.node < 0) continue;
    const double share = from.share * hop.share;
    if (hop.to < 0) {
      for (const auto& [to, part] : keepers_of_last(from.node)) send(from, to, share * part, false);
    } else if (vertices_[hop.to].node >= 0) {
      send(from, vertices_[hop.to].node, share, true);
    } else {
      // The hops of a hub stand together, after those into it.
      for (size_t next = h + 1; next < hops_.size(); ++next) {
        if (hops_[next].from != hop.to) continue;
        send(from, vertices_[hops_[next].to].node, share * hops_[next].share, true);
      }
    }
  }
  double rate = 1e300;
  const auto bound = [&](double bandwidth, double bytes) {
    if (bytes > 0) rate = std::min(rate, bandwidth / bytes);
  };
  for (size_t n = 0; n < nodes; ++n) {
    bound(r.nic_out[n], sent_[n]);
    bound(r.nic_in[n], received_[n]);
  }
  for (size_t l = 0; l < on_links_.size(); ++l) bound(r.links[l], on_links_[l]);
  return rate;
}

ServingEstimate ServingEstimator::estimate(const FlowEvaluator& evaluator,
                                           std::span<const LayerRange> ranges, double flow,
                                           const LatencyGoals& goals, double stretch) {
  ServingEstimate result;
  const double per_request = model_.requests.input + model_.requests.output;
  if (!(flow > 0)) return result;
  evaluator.flows(flows_);
  follow(ranges, flow);
  const double kv = kv_requests(ranges);
  double low = 0;
  // Latencies only grow with the rate, so those of the idle machines bound it.
  const Latency idle = latency_at(0);
  double high = std::min(stretch * flow / per_request,
                         kv / (idle.prompt + model_.requests.output * idle.decode));
  if (model_.replication.copies > 0) high = std::min(high, replicated_requests());
  const auto fits = [&](double rate) {
    const Latency latency = latency_at(rate);
    if (goals.tpot > 0 && latency.decode > goals.tpot) return false;
    if (goals.ttft > 0 && latency.prompt > goals.ttft) return false;
    return rate * (latency.prompt + model_.requests.output * latency.decode) <= kv;
  };
  if (fits(high)) {
    low = high;
  } else {
    for (int i = 0; i < kBisections; ++i) {
      const double middle = 0.5 * (low + high);
      (fits(middle) ? low : high) = middle;
    }
  }
  const Latency latency = latency_at(low);
  result.requests = low;
  result.decode_tps = low * model_.requests.output;
  result.tokens = low * per_request;
  result.decode_latency = latency.decode;
  result.prompt_latency = latency.prompt;
  result.in_flight = low * (latency.prompt + model_.requests.output * latency.decode);
  return result;
}

}  // namespace towline::plan
