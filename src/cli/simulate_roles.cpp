// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/simulate_roles.hpp"

#include <algorithm>
#include <cstdio>
#include <map>
#include <numeric>
#include <set>

#include "base/fmt.hpp"
#include "plan/plan_cluster.hpp"
#include "sim/stage_cost.hpp"
#include "sim/stage_engine.hpp"

namespace towline::cli {
namespace {

using policy::NodeRole;

constexpr double kUnlimited = 1e12;  // bytes/s
constexpr int32_t kTypicalPrompt = 512, kTypicalContext = 1000;  // tokens

// Seconds of 32 decodes over those of a prompt: how much better it is at prompts than at decoding.
double prompt_talent(const spec::Profile& profile, const std::string& type) {
  const spec::DeviceProfile* const device = profile.find(type);
  if (device == nullptr) return 0;
  const double decode = spec::interpolate(device->decode, 32).value;
  return decode / std::max(spec::interpolate(device->prompt, kTypicalPrompt).value, 1e-12);
}

spec::ClusterDesc part_of(const spec::ClusterDesc& cluster, const std::set<int32_t>& members) {
  spec::ClusterDesc part = cluster;
  part.nodes.clear();
  part.links.clear();
  std::map<int32_t, int32_t> place = {{spec::kSource, spec::kSource}, {spec::kSink, spec::kSink}};
  for (const int32_t i : members) {
    place[i] = static_cast<int32_t>(part.nodes.size());
    part.nodes.push_back(cluster.nodes[i]);
  }
  for (spec::ClusterLink link : cluster.links) {
    const auto from = place.find(link.from), to = place.find(link.to);
    if (from == place.end() || to == place.end()) continue;
    link.from = from->second;
    link.to = to->second;
    part.links.push_back(link);
  }
  return part;
}

// Tokens/s of the node's layers for its role alone.
double role_rate(const sim::HelixInput& input, const sim::HelixNode& node) {
  sim::StageCost cost(input, {});
  const int32_t layers = node.layers.size();
  if (node.role == NodeRole::kPrompt) {
    const int32_t n = std::min(kTypicalPrompt, cost.most_prompt_tokens(node.machine));
    const int64_t context = int64_t{n} * (n - 1) / 2;
    return n / (layers * cost.layer_seconds(node.machine, n, 0, context, 0));
  }
  const auto fit = static_cast<int32_t>(
      std::clamp<int64_t>(node.kv_capacity / layers / kTypicalContext, 2, 1 << 20));
  const int32_t n = std::min({fit, node.limits.decodes, cost.most_decodes(node.machine)});
  return n / (layers * cost.layer_seconds(node.machine, 0, n, 0, int64_t{n} * kTypicalContext));
}

// Links for caches that lack one.
void add_kv_links(sim::HelixInput& input) {
  const auto nodes = static_cast<int32_t>(input.nodes.size());
  struct Ends {
    double out = 0, in = 0, latency = 0;
  };
  std::vector<Ends> ends(static_cast<size_t>(nodes));
  std::set<std::pair<int32_t, int32_t>> there;
  for (const sim::HelixLink& link : input.links) {
    there.emplace(link.from, link.to);
    if (link.from >= 0) ends[link.from].out = std::max(ends[link.from].out, link.bandwidth);
    if (link.to >= 0) {
      ends[link.to].in = std::max(ends[link.to].in, link.bandwidth);
      ends[link.to].latency = std::max(ends[link.to].latency, link.latency);
    }
  }
  for (int32_t a = 0; a < nodes; ++a) {
    const sim::HelixNode& from = input.nodes[a];
    for (int32_t b = 0; b < nodes; ++b) {
      const sim::HelixNode& to = input.nodes[b];
      const bool hands_over = from.role == NodeRole::kPrompt && to.role == NodeRole::kDecode &&
                              from.layers.begin < to.layers.end &&
                              to.layers.begin < from.layers.end;
      if ((!hands_over && from.replica != b) || there.contains({a, b})) continue;
      sim::HelixLink link{a, b, ends[b].latency, std::min(ends[a].out, ends[b].in)};
      if (!(link.bandwidth > 0)) link.bandwidth = kUnlimited;
      link.kv_only = true;
      input.links.push_back(link);
    }
  }
}

struct Ratio {
  int prompts = 0;
  Result<sim::StageReport> report = Error(Code::kInternal, "");
};

Json ratio_json(const Ratio& r, int machines) {
  Json row =
      Json::object({{"prompt_machines", r.prompts}, {"decode_machines", machines - r.prompts}});
  if (!r.report) return row.set("impossible", r.report.error().message());
  const sim::StageReport& report = *r.report;
  return row.set("goodput", report.goodput)
      .set("attainment", report.attainment)
      .set("decode_tps", report.output_tps)
      .set("ttft_p50", report.ttft.p50)
      .set("ttft_p99", report.ttft.p99)
      .set("tpot_p50", report.tpot.p50)
      .set("tpot_p99", report.tpot.p99)
      .set("kv_wait_p50", report.kv_wait.p50);
}

}  // namespace

void add_roles_options(OptionTable& t, SimulateOptions& o) {
  t.value("prompt-machines", &o.prompt_machines,
          "towline, with --cluster: so many machines process prompts and the others decode; "
          "KV caches go from the ones to the others")
      .range(0, 100'000);
  t.value("kv-stream", &o.kv_stream,
          "towline: with roles, KV leaves layer by layer as it is computed, or when the prompt is "
          "done")
      .one_of({"layers", "end"});
  t.flag("find-pd-ratio", &o.find_pd_ratio,
         "towline, with --cluster: every number of prompt machines, and none, at this --rate; "
         "the best is that with the most requests/s within --slo");
  t.flag("replicate", &o.replicate,
         "towline: every node's KV is copied to the next node as it is computed");
  t.value("swap-bandwidth", &o.swap_bandwidth,
          "towline: KV caches are in the hosts' memories, and every step fetches those of its "
          "decodes at so many GB/s (of 10^9 bytes); 0: they are on the devices")
      .range(0, 1e6);
  t.value("swap-memory", &o.swap_memory, "towline: GB of each host for that").range(0, 1e9);
}

Result<std::vector<PlacedMachine>> place_roles(const spec::ClusterDesc& cluster,
                                               const spec::Profile& profile, int prompt_machines) {
  std::vector<int32_t> order(cluster.nodes.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int32_t a, int32_t b) {
    return prompt_talent(profile, cluster.type_of(a).name) >
           prompt_talent(profile, cluster.type_of(b).name);
  });
  if (prompt_machines < 1 || prompt_machines >= cluster.size()) {
    return errorf(Code::kInvalidArgument,
                  "{} prompt machines of {}: there must be one for each side", prompt_machines,
                  cluster.size());
  }
  const auto split = order.begin() + prompt_machines;
  std::vector<PlacedMachine> placed;
  for (const NodeRole role : {NodeRole::kPrompt, NodeRole::kDecode}) {
    const std::set<int32_t> members = role == NodeRole::kPrompt
                                          ? std::set<int32_t>(order.begin(), split)
                                          : std::set<int32_t>(split, order.end());
    ASSIGN_OR_RETURN(const plan::ClusterPlan planned,
                     plan::plan_cluster(part_of(cluster, members), profile));
    for (const spec::PlannedNode& node : planned.desc.nodes) {
      if (!node.layers.empty()) placed.push_back({node.name, node.layers, role});
    }
  }
  return placed;
}

void settle_roles(sim::HelixInput& input) {
  std::erase_if(input.links, [&](const sim::HelixLink& link) {
    return !link.kv_only && link.from >= 0 && link.to >= 0 &&
           input.nodes[link.from].role != input.nodes[link.to].role;
  });
  for (sim::HelixNode& node : input.nodes) {
    if (!node.layers.empty()) node.rate = role_rate(input, node);
  }
}

Result<void> apply_kv(const SimulateOptions& o, sim::HelixInput& input) {
  const bool moves = std::ranges::any_of(
      input.nodes, [](const sim::HelixNode& n) { return n.role != NodeRole::kBoth; });
  if (!moves && !o.replicate && !(o.swap_bandwidth > 0)) return {};
  if (!(input.kv_bytes > 0)) {
    return Error(
        Code::kInvalidArgument,
        "the KV bytes of this model are not known: give --model a known name, a GGUF file or a "
        "Hugging Face directory");
  }
  if (o.swap_bandwidth > 0) {
    if (!(o.swap_memory > 0)) {
      return Error(Code::kInvalidArgument, "--swap-bandwidth needs --swap-memory, GB of each host");
    }
    for (sim::HelixNode& node : input.nodes) {
      node.swap_bandwidth = o.swap_bandwidth * 1e9;
      node.kv_capacity = std::max(node.kv_capacity,
                                  static_cast<int64_t>(o.swap_memory * 1e9 / input.kv_bytes));
    }
  }
  if (o.replicate) {
    std::vector<int32_t> used;
    for (size_t i = 0; i < input.nodes.size(); ++i) {
      if (!input.nodes[i].layers.empty()) used.push_back(static_cast<int32_t>(i));
    }
    if (used.size() < 2) return Error(Code::kInvalidArgument, "--replicate needs a second node");
    for (size_t i = 0; i < used.size(); ++i) {
      input.nodes[used[i]].replica = used[(i + 1) % used.size()];
    }
  }
  add_kv_links(input);
  return {};
}

Result<int> find_pd_ratio(const SimulateOptions& o, const sim::StageOptions& options,
                          const Workload& work, int machines,
                          const std::function<Result<sim::HelixInput>(int)>& input_of) {
  if (o.mode != "online" || (options.slo_ttft <= 0 && options.slo_tpot <= 0)) {
    return Error(Code::kInvalidArgument,
                 "--find-pd-ratio needs --mode online and --slo ttft=SECONDS,tpot=SECONDS");
  }
  const auto run = [&](int prompts) -> Result<sim::StageReport> {
    ASSIGN_OR_RETURN(sim::HelixInput input, input_of(prompts));
    ASSIGN_OR_RETURN(auto source, open_source(work, o, o.rate, static_cast<uint64_t>(o.seed)));
    ASSIGN_OR_RETURN(sim::StageEngine engine,
                     sim::StageEngine::make(std::move(input), options, std::move(source)));
    ASSIGN_OR_RETURN(sim::StageReport report, engine.run(&stop_on_signals()));
    if (report.interrupted) return Error(Code::kCancelled, "interrupted");
    return report;
  };
  if (!o.json) {
    std::puts(format("{:>14} {:>10} {:>10} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9}", "prompt:decode",
                     "good req/s", "in goals", "tokens/s", "TTFT p50", "p99", "TPOT p50", "p99",
                     "KV p50")
                  .c_str());
  }
  Json list = Json::array();
  std::optional<Ratio> best;
  for (int prompts = 0; prompts < machines; ++prompts) {
    Ratio ratio{prompts, run(prompts)};
    if (!ratio.report && ratio.report.error().code() == Code::kCancelled) {
      return ratio.report.error();
    }
    list.push(ratio_json(ratio, machines));
    const std::string name = prompts == 0 ? std::string("together")
                                          : format("{}:{}", prompts, machines - prompts);
    if (!ratio.report) {
      if (!o.json) std::puts(format("{:>14} {}", name, ratio.report.error().message()).c_str());
      continue;
    }
    const sim::StageReport& r = *ratio.report;
    if (!o.json) {
      std::puts(
          format(
              "{:>14} {:>10.4f} {:>8.1f} % {:>10.1f} {:>9.3f} {:>9.3f} {:>9.4f} {:>9.4f} {:>9.3f}",
              name, r.goodput, 100 * r.attainment, r.output_tps, r.ttft.p50, r.ttft.p99, r.tpot.p50,
              r.tpot.p99, r.kv_wait.p50)
              .c_str());
      std::fflush(stdout);
    }
    if (!best || r.goodput > best->report->goodput) best = std::move(ratio);
  }
  if (!best) return Error(Code::kInvalidArgument, "this cluster cannot serve the model in any way");
  if (o.json) {
    Json json = Json::object({{"schema", 1}, {"prompt_machines", best->prompts},
                              {"decode_machines", machines - best->prompts}});
    json.set("ratios", std::move(list));
    std::puts(json.dump(2).c_str());
  } else if (best->prompts == 0) {
    std::puts("best: every machine does both");
  } else {
    std::puts(
        format("best: {} for prompts, {} for decoding", best->prompts, machines - best->prompts)
            .c_str());
  }
  return 0;
}

}  // namespace towline::cli
