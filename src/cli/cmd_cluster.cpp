// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline cluster generate | prune | check | show`: cluster files.
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <map>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "cli/commands.hpp"
#include "plan/cluster_generate.hpp"
#include "spec/helix_cluster.hpp"

namespace towline::cli {
namespace {

// Files of a command: all are built before any is written.
Result<void> write_or_print(const std::string& path, const std::string& text) {
  if (path.empty() || path == "-") {
    std::fputs(text.c_str(), stdout);
    return {};
  }
  return write_file_atomic(path, text);
}

std::vector<std::string> split(std::string_view text, char divider) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const size_t end = std::min(text.find(divider), text.size());
    parts.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

// "A100:4" -> name and count.
Result<std::pair<std::string, int64_t>> read_count(const std::string& word) {
  const size_t colon = word.find(':');
  int64_t count = 1;
  if (colon != std::string::npos) {
    const char* begin = word.data() + colon + 1;
    const char* end = word.data() + word.size();
    const auto parsed = std::from_chars(begin, end, count);
    if (parsed.ec != std::errc() || parsed.ptr != end) count = -1;
  }
  if (word.empty() || colon == 0 || count < 0 || count > 10'000) {
    return errorf(Code::kInvalidArgument, "'{}' is not a machine type with a count, like A100:4",
                  word);
  }
  return std::pair(word.substr(0, colon), count);
}

// The four quantities of a kind of link, as Python expressions.
struct LinkInputs {
  std::string bandwidth, bandwidth_variation, latency, latency_variation;

  Result<plan::LinkStatistics> read() const {
    plan::LinkStatistics link;
    const std::pair<const std::string*, spec::PyNumber*> fields[] = {
        {&bandwidth, &link.average_bandwidth},
        {&bandwidth_variation, &link.bandwidth_variation},
        {&latency, &link.average_latency},
        {&latency_variation, &link.latency_variation}};
    for (const auto& [text, field] : fields) {
      Result<spec::PyNumber> value = spec::evaluate_py(*text);
      if (!value) return std::move(value).error().context("'" + *text + "'");
      *field = *value;
    }
    return link;
  }
};

struct GenerateOptions {
  std::vector<std::string> types;
  std::vector<std::string> partitions;
  int64_t seed = 0;
  int degree = -1, source_degree = -1, sink_degree = -1;
  LinkInputs link{"1000 * mbps", "0", "1 * MilliSec", "0"};
  LinkInputs slow{"1000 * mbps", "0", "1 * MilliSec", "0"};
  bool no_fill = false;
  std::string out, per_type;
};

OptionTable generate_table(GenerateOptions& o) {
  OptionTable t("cluster generate", "Write a made-up cluster in Helix's format.");
  t.describe(
      "With --types: a random graph of machines (complete, unless --degree is lower and --no-fill "
      "is given). With --partition, once a region: fast links inside, slow ones between. The same "
      "parameters and seed give the bytes of Helix's own generators. Quantities are expressions "
      "with Helix's units, in which mbps means megaBYTES a second: '12.5 * mbps' is 100 Mbit/s.");
  t.value("types", &o.types, "machines by type, like A100:4,T4:12").metavar("TYPE:COUNT");
  t.value("partition", &o.partitions,
          "machines of one region, like L4:2,T4:8; give it again for "
          "the next")
      .metavar("TYPE:COUNT,...");
  t.value("seed", &o.seed, "random seed").range(0, 9e18);
  t.value("degree", &o.degree, "links a node to others; -1: all").range(-1, 10'000);
  t.value("source-degree", &o.source_degree, "nodes that the coordinator sends to; -1: all")
      .range(-1, 10'000);
  t.value("sink-degree", &o.sink_degree, "nodes that send to the coordinator; -1: all")
      .range(-1, 10'000);
  t.value("bandwidth", &o.link.bandwidth, "average of chosen links, or inside a region");
  t.value("bandwidth-variation", &o.link.bandwidth_variation, "drawn from average +- this");
  t.value("latency", &o.link.latency, "average of chosen links, or inside a region");
  t.value("latency-variation", &o.link.latency_variation, "drawn from average +- this");
  t.value("slow-bandwidth", &o.slow.bandwidth, "average of the other links, or between regions");
  t.value("slow-bandwidth-variation", &o.slow.bandwidth_variation, "drawn from average +- this");
  t.value("slow-latency", &o.slow.latency, "average of the other links, or between regions");
  t.value("slow-latency-variation", &o.slow.latency_variation, "drawn from average +- this");
  t.flag("no-fill", &o.no_fill,
         "leave links that were not chosen out, instead of making them slow");
  t.value("out", &o.out, "file to write; stdout if not given").metavar("FILE");
  t.value("per-type", &o.per_type, "folder for a cluster file of each machine type").metavar("DIR");
  t.example("towline cluster generate --types A100:4,T4:12,L4:8 --out single24.ini");
  t.example(
      "towline cluster generate --partition A100:4 --partition L4:2,T4:8 "
      "--partition L4:6,T4:4 --bandwidth '10 * gbps / 8' --bandwidth-variation '125 * mbps' "
      "--slow-bandwidth '100 * mbps / 8' --slow-bandwidth-variation '20 * mbps / 8' "
      "--slow-latency '50 * MilliSec' --slow-latency-variation '10 * MilliSec' "
      "--out 3cluster24.ini");
  return t;
}

Result<spec::HelixCluster> generate_partitioned(const GenerateOptions& o) {
  plan::PartitionedCluster wanted;
  wanted.seed = static_cast<uint64_t>(o.seed);
  for (const std::string& text : o.partitions) {
    auto& machines = wanted.partitions.emplace_back();
    for (const std::string& word : split(text, ',')) {
      ASSIGN_OR_RETURN(const auto counted, read_count(word));
      machines.insert(machines.end(), static_cast<size_t>(counted.second), counted.first);
    }
  }
  ASSIGN_OR_RETURN(wanted.inside, o.link.read());
  ASSIGN_OR_RETURN(wanted.between, o.slow.read());
  return plan::generate(wanted);
}

Result<spec::HelixCluster> generate_fake(const GenerateOptions& o) {
  plan::FakeCluster wanted;
  wanted.seed = static_cast<uint64_t>(o.seed);
  int64_t nodes = 0;
  for (const std::string& text : o.types) {
    for (const std::string& word : split(text, ',')) {
      ASSIGN_OR_RETURN(const auto counted, read_count(word));
      wanted.types.emplace_back(counted.first, spec::PyNumber::of(counted.second));
      nodes += counted.second;
    }
  }
  wanted.nodes = static_cast<int32_t>(std::min<int64_t>(nodes, INT32_MAX));
  wanted.average_degree = o.degree < 0 ? std::max(0, wanted.nodes - 1) : o.degree;
  wanted.source_degree = o.source_degree < 0 ? wanted.nodes : o.source_degree;
  wanted.sink_degree = o.sink_degree < 0 ? wanted.nodes : o.sink_degree;
  wanted.fill = !o.no_fill;
  ASSIGN_OR_RETURN(wanted.link, o.link.read());
  ASSIGN_OR_RETURN(wanted.slow, o.slow.read());
  return plan::generate(wanted);
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return text;
}

Result<int> generate(std::span<const std::string> args) {
  GenerateOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, generate_table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  if (o.types.empty() == o.partitions.empty()) {
    return Error(Code::kInvalidArgument, "give either --types or --partition (once a region)");
  }
  ASSIGN_OR_RETURN(const spec::HelixCluster cluster,
                   o.partitions.empty() ? generate_fake(o) : generate_partitioned(o));
  if (!o.per_type.empty()) {
    std::error_code ignored;  // the write below says what is wrong
    std::filesystem::create_directories(o.per_type, ignored);
    std::map<std::string, std::string> files;
    for (const spec::HelixCluster::Node& node : cluster.nodes) {
      std::string& text = files[o.per_type + "/" + lower(node.type) + ".ini"];
      if (text.empty()) text = spec::print_helix_cluster(plan::only_type(cluster, node.type));
    }
    for (const auto& [path, text] : files) TRY(write_file_atomic(path, text));
  }
  TRY(write_or_print(o.out, spec::print_helix_cluster(cluster)));
  return 0;
}

struct PruneOptions {
  std::string cluster;
  int min_keep = 12, max_keep = 12;
  std::string threshold = "1";
  std::string label;
  std::string out;
};

OptionTable prune_table(PruneOptions& o) {
  OptionTable t("cluster prune", "Keep the best links of every node of a Helix cluster file.");
  t.positional("cluster", &o.cluster, "Helix's cluster .ini").required();
  t.value("min-keep", &o.min_keep, "links that each end keeps in any case").range(0, 10'000);
  t.value("max-keep", &o.max_keep, "links that an end keeps at most").range(1, 10'000);
  t.value("threshold", &o.threshold, "bandwidth that links above min-keep must reach");
  t.value("label", &o.label, "name of the input in the heading; its path if not given");
  t.value("out", &o.out, "file to write; stdout if not given").metavar("FILE");
  t.example("towline cluster prune 3cluster24.ini --out 3cluster24_pruned.ini");
  return t;
}

Result<int> prune(std::span<const std::string> args) {
  PruneOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, prune_table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  ASSIGN_OR_RETURN(const spec::HelixCluster cluster, spec::load_helix_cluster(o.cluster));
  plan::Pruning pruning{o.min_keep, o.max_keep, {}, o.label.empty() ? o.cluster : o.label};
  ASSIGN_OR_RETURN(pruning.threshold, spec::evaluate_py(o.threshold).context("--threshold"));
  ASSIGN_OR_RETURN(const spec::HelixCluster pruned, plan::prune(cluster, pruning));
  TRY(write_or_print(o.out, spec::print_helix_cluster(pruned)));
  return 0;
}

struct ShowOptions {
  std::string cluster, profile;
  bool json = false, toml = false;
};

OptionTable show_table(ShowOptions& o, std::string_view name, std::string_view summary) {
  OptionTable t{std::string(name), std::string(summary)};
  t.positional("cluster", &o.cluster, "native .toml or .json, or Helix's .ini").required();
  t.value("profile", &o.profile, "Helix's machine_profile.ini, for an .ini cluster")
      .metavar("FILE");
  t.flag("json", &o.json, "print JSON (of show: the native cluster file)");
  if (name == "cluster show") t.flag("toml", &o.toml, "print the native cluster file");
  t.example(format("towline {} 3cluster24.ini --profile machine_profile.ini", name));
  return t;
}

// What stands out in a cluster that reads well: nodes that cannot serve.
std::vector<std::string> warnings(const spec::ClusterDesc& cluster) {
  std::vector<bool> entered(cluster.nodes.size()), left(cluster.nodes.size());
  bool source = false, sink = false;
  for (const spec::ClusterLink& link : cluster.links) {
    if (link.to >= 0) entered[link.to] = true;
    if (link.from >= 0) left[link.from] = true;
    source |= link.from == spec::kSource;
    sink |= link.to == spec::kSink;
  }
  std::vector<std::string> list;
  if (!source) list.emplace_back("no link leaves the coordinator: nothing can be served");
  if (!sink) list.emplace_back("no link leads to the coordinator: nothing can be served");
  for (int32_t i = 0; i < cluster.size(); ++i) {
    if (!entered[i] || !left[i]) {
      list.push_back(format("no link leads {} '{}': it cannot serve", entered[i] ? "from" : "to",
                            cluster.nodes[i].name));
    }
  }
  return list;
}

Json summary(const spec::ClusterDesc& cluster) {
  std::map<std::string, int64_t> types, regions;
  for (int32_t i = 0; i < cluster.size(); ++i) ++types[cluster.type_of(i).name];
  for (const std::string& region : spec::infer_regions(cluster)) ++regions[region];
  const auto counts = [](const std::map<std::string, int64_t>& map) {
    Json tree = Json::object();
    for (const auto& [name, count] : map) tree.set(name, count);
    return tree;
  };
  Json list = Json::array();
  for (const std::string& warning : warnings(cluster)) list.push(warning);
  return Json::object({{"nodes", cluster.size()},
                       {"links", cluster.links.size()},
                       {"types", counts(types)},
                       {"regions", counts(regions)},
                       {"warnings", std::move(list)}});
}

std::string in_words(const Json& summary) {
  const auto counts = [](const Json& tree) {
    std::string text;
    for (const auto& [name, count] : tree.members()) {
      text += format("{}{} {}", text.empty() ? "" : ", ", count.as_int(), name);
    }
    return text;
  };
  std::string text =
      format("{} nodes ({}), {} directed links\nregions: {}\n", summary["nodes"].as_int(),
             counts(summary["types"]), summary["links"].as_int(), counts(summary["regions"]));
  for (const Json& warning : summary["warnings"].items()) {
    text += "warning: " + warning.as_string() + "\n";
  }
  return text;
}

Result<int> check(std::span<const std::string> args) {
  ShowOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome,
                   show_table(o, "cluster check", "Check a cluster file.").parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  ASSIGN_OR_RETURN(const spec::ClusterDesc cluster, spec::load_any_cluster(o.cluster, o.profile));
  const Json tree = summary(cluster);
  std::fputs((o.json ? tree.dump() + "\n" : in_words(tree)).c_str(), stdout);
  return 0;
}

std::string table_of(const spec::ClusterDesc& cluster) {
  const std::vector<std::string> regions = spec::infer_regions(cluster);
  std::vector<int> in(cluster.nodes.size()), out(cluster.nodes.size());
  for (const spec::ClusterLink& link : cluster.links) {
    if (link.to >= 0) ++in[link.to];
    if (link.from >= 0) ++out[link.from];
  }
  size_t width = 4;
  for (const spec::ClusterNode& node : cluster.nodes) width = std::max(width, node.name.size());
  std::string text =
      format("\n{:<{}}  {:<8} {:>7} {:>11} {:>12}  {:<12} {:>8} {:>9}\n", "node", width, "type",
             "devices", "memory, GB", "NIC, MB/s", "region", "links in", "links out");
  for (int32_t i = 0; i < cluster.size(); ++i) {
    const spec::MachineType& type = cluster.type_of(i);
    text += format(
        "{:<{}}  {:<8} {:>7} {:>11.1f} {:>12.1f}  {:<12} {:>8} {:>9}\n", cluster.nodes[i].name,
        width, type.name, cluster.nodes[i].devices, static_cast<double>(type.memory.value) / 1e9,
        std::min(type.nic_in.value, type.nic_out.value) / 1e6, regions[i], in[i], out[i]);
  }
  return text;
}

Result<int> show(std::span<const std::string> args) {
  ShowOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome,
                   show_table(o, "cluster show",
                              "Show a cluster, or convert it to the native "
                              "format.")
                       .parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  ASSIGN_OR_RETURN(const spec::ClusterDesc cluster, spec::load_any_cluster(o.cluster, o.profile));
  const std::string text = o.toml   ? spec::print_cluster(cluster)
                           : o.json ? spec::cluster_to_json(cluster).dump(1) + "\n"
                                    : in_words(summary(cluster)) + table_of(cluster);
  std::fputs(text.c_str(), stdout);
  return 0;
}

}  // namespace

const Command kClusterGenerate = {"cluster generate", "write a made-up cluster (Helix's format)",
                                  generate, [](void (*sink)(const OptionTable&)) {
                                    GenerateOptions o;
                                    sink(generate_table(o));
                                  }};

const Command kClusterPrune = {"cluster prune", "keep the best links of every node", prune,
                               [](void (*sink)(const OptionTable&)) {
                                 PruneOptions o;
                                 sink(prune_table(o));
                               }};

const Command kClusterCheck = {"cluster check", "check a cluster file", check,
                               [](void (*sink)(const OptionTable&)) {
                                 ShowOptions o;
                                 sink(show_table(o, "cluster check", "Check a cluster file."));
                               }};

const Command kClusterShow = {"cluster show", "show or convert a cluster file", show,
                              [](void (*sink)(const OptionTable&)) {
                                ShowOptions o;
                                sink(show_table(o, "cluster show",
                                                "Show a cluster, or convert it to the native "
                                                "format."));
                              }};

}  // namespace towline::cli
