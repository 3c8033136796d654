// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/helix_plan.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "base/fmt.hpp"
#include "spec/ini.hpp"
#include "spec/py_value.hpp"

namespace towline::spec {
namespace {

constexpr int32_t kMaxLayers = 10'000;
constexpr std::string_view kNodePrefix = "compute_node_";

bool parse_int(std::string_view text, int64_t& value) {
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
}

// "compute_node_7" -> 5; -1 if it is no such name.
int32_t node_index(std::string_view name) {
  if (!name.starts_with(kNodePrefix)) return -1;
  int64_t value = 0;
  if (!parse_int(name.substr(kNodePrefix.size()), value) || value < kHelixNameOffset) return -1;
  value -= kHelixNameOffset;
  return value < ClusterDesc::kMaxNodes ? static_cast<int32_t>(value) : -1;
}

// A list of consecutive layers as a range; [] is empty.
Result<LayerRange> read_layers(const IniFile& file, const IniSection& section,
                               const IniEntry& entry) {
  Result<std::vector<PyItem>> items = parse_py_list(entry.value);
  if (!items) return file.fault(section, entry, items.error().message());
  LayerRange range;
  for (const PyItem& item : *items) {
    if (item.is_string || item.integer < 0 || item.integer >= kMaxLayers) {
      return file.fault(section, entry,
                        format("layers are whole numbers from 0 to {}", kMaxLayers - 1));
    }
    const auto layer = static_cast<int32_t>(item.integer);
    if (range.empty()) {
      range = {layer, layer + 1};
    } else if (layer != range.end) {
      return file.fault(section, entry,
                        format("a node holds consecutive layers, but {} follows {}; correct the "
                               "list",
                               layer, range.end - 1));
    } else {
      ++range.end;
    }
  }
  return range;
}

Result<Measure> read_measure(const IniFile& file, const IniSection& section, std::string_view key,
                             bool zero_allowed = false) {
  ASSIGN_OR_RETURN(const IniEntry* entry, file.entry(section, key));
  Result<PyNumber> value = evaluate_py(entry->value);
  if (!value) return file.fault(section, *entry, value.error().message());
  if (!(value->value() > 0) && !(zero_allowed && value->value() == 0)) {
    return file.fault(
        section, *entry,
        zero_allowed ? "cannot be negative; correct it" : "must be above 0; correct it");
  }
  return Measure{entry->value, value->value()};
}

Result<int64_t> read_count(const IniFile& file, const IniSection& section, std::string_view key) {
  ASSIGN_OR_RETURN(const IniEntry* entry, file.entry(section, key));
  const Result<PyNumber> value = evaluate_py(entry->value);
  if (!value || !value->is_integer || value->integer < 0) {
    return file.fault(section, *entry, "must be a whole number, 0 or above");
  }
  return value->integer;
}

Result<std::vector<std::string>> read_names(const IniFile& file, std::string_view section_name,
                                            std::string_view key) {
  ASSIGN_OR_RETURN(const IniSection* section, file.section(section_name));
  ASSIGN_OR_RETURN(const IniEntry* entry, file.entry(*section, key));
  Result<std::vector<PyItem>> items = parse_py_list(entry->value);
  if (!items) return file.fault(*section, *entry, items.error().message());
  std::vector<std::string> names;
  std::set<std::string> seen;
  for (PyItem& item : *items) {
    if (!item.is_string || !seen.insert(item.text).second) {
      return file.fault(*section, *entry, "must be a list of different names in quotes");
    }
    names.push_back(std::move(item.text));
  }
  return names;
}

std::string print_names(const std::vector<std::string>& names) {
  std::vector<PyItem> items;
  for (const std::string& name : names) items.push_back({true, 0, name});
  return print_py_list(items);
}

Result<HelixSimCluster::Node> read_sim_node(const IniFile& file, const std::string& name) {
  ASSIGN_OR_RETURN(const IniSection* section, file.section(name));
  HelixSimCluster::Node node;
  node.name = name;
  ASSIGN_OR_RETURN(node.memory, read_measure(file, *section, "vram_size"));
  ASSIGN_OR_RETURN(node.nic_in, read_measure(file, *section, "inbound_nic_speed"));
  ASSIGN_OR_RETURN(node.nic_out, read_measure(file, *section, "outbound_nic_speed"));
  ASSIGN_OR_RETURN(node.disk, read_measure(file, *section, "disk_speed"));
  ASSIGN_OR_RETURN(const IniEntry* type, file.entry(*section, "machine_type"));
  const std::string& quoted = type->value;
  if (quoted.size() < 3 || (quoted.front() != '"' && quoted.front() != '\'') ||
      quoted.back() != quoted.front()) {
    return file.fault(*section, *type, "must be a machine type in quotes, like \"A100\"");
  }
  node.machine_type = quoted.substr(1, quoted.size() - 2);
  ASSIGN_OR_RETURN(node.kv_capacity, read_count(file, *section, "kv_cache_capacity"));
  ASSIGN_OR_RETURN(node.backup_capacity, read_count(file, *section, "activation_backup_capacity"));
  return node;
}

Result<int32_t> read_endpoint(const IniFile& file, const IniSection& section, std::string_view key,
                              const std::map<std::string, int32_t, std::less<>>& index) {
  ASSIGN_OR_RETURN(const IniEntry* entry, file.entry(section, key));
  if (key == "in" && entry->value == "source") return kSource;
  if (key == "out" && entry->value == "sink") return kSink;
  const auto found = index.find(entry->value);
  if (found == index.end()) {
    return file.fault(section, *entry, "is not in the list of [ComputeNodes]; add it there");
  }
  return found->second;
}

}  // namespace

std::string helix_node_name(int32_t node) {
  return format("{}{}", kNodePrefix, node + kHelixNameOffset);
}

Result<HelixSolution> parse_helix_solution(std::string_view text, std::string_view source) {
  ASSIGN_OR_RETURN(const IniFile file, IniFile::parse(text, source));
  ASSIGN_OR_RETURN(const IniSection* settings, file.section("Settings"));
  ASSIGN_OR_RETURN(const IniEntry* offset, file.entry(*settings, "offset"));
  if (offset->value != std::to_string(kHelixNameOffset)) {
    return file.fault(*settings, *offset, "the offset of node names must be 2");
  }
  ASSIGN_OR_RETURN(const IniSection* layers, file.section("Solution"));
  HelixSolution solution;
  for (const IniEntry& entry : layers->entries) {
    if (node_index(entry.key) != static_cast<int32_t>(solution.nodes.size())) {
      return file.fault(*layers, entry,
                        format("'{}' was expected here: nodes are listed in order "
                               "from compute_node_2",
                               helix_node_name(static_cast<int32_t>(solution.nodes.size()))));
    }
    ASSIGN_OR_RETURN(const LayerRange range, read_layers(file, *layers, entry));
    solution.nodes.push_back(range);
  }
  if (solution.nodes.empty()) {
    return file.fault(layers->line, "the solution names no node; add compute_node_2 = [...]");
  }
  return solution;
}

Result<HelixSolution> load_helix_solution(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, read_text(path));
  return parse_helix_solution(text, path);
}

std::string print_helix_solution(const HelixSolution& solution) {
  std::string text = format("[Settings]\noffset={}\n\n[Solution]\n", kHelixNameOffset);
  for (size_t i = 0; i < solution.nodes.size(); ++i) {
    std::vector<PyItem> items;
    for (int32_t layer = solution.nodes[i].begin; layer < solution.nodes[i].end; ++layer) {
      items.push_back({false, layer, {}});
    }
    text += helix_node_name(static_cast<int32_t>(i)) + "=" + print_py_list(items) + "\n";
  }
  return text;
}

std::string HelixSimCluster::endpoint_name(int32_t endpoint) const {
  return endpoint == kSource ? "source" : endpoint == kSink ? "sink" : nodes[endpoint].name;
}

Result<HelixSimCluster> parse_helix_sim_cluster(std::string_view text, std::string_view source) {
  ASSIGN_OR_RETURN(const IniFile file, IniFile::parse(text, source));
  HelixSimCluster cluster;
  cluster.heading = file.heading();
  ASSIGN_OR_RETURN(const IniSection* coordinator, file.section("Coordinator"));
  ASSIGN_OR_RETURN(cluster.coordinator_nic_in,
                   read_measure(file, *coordinator, "inbound_nic_speed"));
  ASSIGN_OR_RETURN(cluster.coordinator_nic_out,
                   read_measure(file, *coordinator, "outbound_nic_speed"));
  ASSIGN_OR_RETURN(cluster.machine_types, read_names(file, "MachineTypes", "types"));
  ASSIGN_OR_RETURN(const std::vector<std::string> names, read_names(file, "ComputeNodes", "names"));
  std::map<std::string, int32_t, std::less<>> index;
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(HelixSimCluster::Node node, read_sim_node(file, name));
    index.emplace(name, static_cast<int32_t>(cluster.nodes.size()));
    cluster.nodes.push_back(std::move(node));
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> links, read_names(file, "Links", "names"));
  std::set<std::pair<int32_t, int32_t>> seen;
  for (const std::string& name : links) {
    ASSIGN_OR_RETURN(const IniSection* section, file.section(name));
    HelixSimCluster::Link link;
    ASSIGN_OR_RETURN(link.from, read_endpoint(file, *section, "in", index));
    ASSIGN_OR_RETURN(link.to, read_endpoint(file, *section, "out", index));
    ASSIGN_OR_RETURN(link.latency, read_measure(file, *section, "latency", true));
    ASSIGN_OR_RETURN(link.bandwidth, read_measure(file, *section, "bandwidth"));
    if (link.from == link.to || (link.from == kSource && link.to == kSink) ||
        !seen.insert({link.from, link.to}).second) {
      return file.fault(section->line, format("[{}] joins a node with itself, the source with the "
                                              "sink, or a pair that is joined already; remove it",
                                              name));
    }
    cluster.links.push_back(std::move(link));
  }
  return cluster;
}

Result<HelixSimCluster> load_helix_sim_cluster(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, read_text(path));
  return parse_helix_sim_cluster(text, path);
}

std::string print_helix_sim_cluster(const HelixSimCluster& cluster) {
  std::string text;
  for (const std::string& line : cluster.heading) text += line + "\n";
  if (!cluster.heading.empty()) text += "\n";
  text += format("[Coordinator]\ninbound_nic_speed={}\noutbound_nic_speed={}\n\n",
                 cluster.coordinator_nic_in.text, cluster.coordinator_nic_out.text);
  text += format("[MachineTypes]\ntypes={}\n\n", print_names(cluster.machine_types));
  std::vector<std::string> names;
  for (const HelixSimCluster::Node& node : cluster.nodes) names.push_back(node.name);
  text += format("[ComputeNodes]\nnames={}\n\n", print_names(names));
  for (const HelixSimCluster::Node& node : cluster.nodes) {
    text += format(
        "[{}]\nvram_size={}\ninbound_nic_speed={}\noutbound_nic_speed={}\n"
        "disk_speed={}\nmachine_type=\"{}\"\nkv_cache_capacity={}\n"
        "activation_backup_capacity={}\n\n",
        node.name, node.memory.text, node.nic_in.text, node.nic_out.text, node.disk.text,
        node.machine_type, node.kv_capacity, node.backup_capacity);
  }
  names.clear();
  for (const HelixSimCluster::Link& link : cluster.links) {
    names.push_back(
        format("link_{}_{}", cluster.endpoint_name(link.from), cluster.endpoint_name(link.to)));
  }
  text += format("[Links]\nnames={}\n\n", print_names(names));
  for (size_t i = 0; i < cluster.links.size(); ++i) {
    const HelixSimCluster::Link& link = cluster.links[i];
    text += format("[{}]\nin={}\nout={}\nlatency={}\nbandwidth={}\n\n", names[i],
                   cluster.endpoint_name(link.from), cluster.endpoint_name(link.to),
                   link.latency.text, link.bandwidth.text);
  }
  return text;
}

Measure helix_speed(double bytes_per_second) {
  return {py_repr(bytes_per_second / 1e6) + " * mbps", bytes_per_second};
}
Measure helix_memory(double bytes) { return {py_repr(bytes / 1e6) + " * MB", bytes}; }
Measure helix_latency(double seconds) { return {py_repr(seconds * 1000) + " * MilliSec", seconds}; }

Result<std::vector<int32_t>> cluster_indices(const HelixSimCluster& sim,
                                             const ClusterDesc& cluster) {
  std::map<std::string, int32_t, std::less<>> by_name;
  for (int32_t i = 0; i < cluster.size(); ++i) by_name.emplace(cluster.nodes[i].name, i);
  std::vector<int32_t> result;
  for (const HelixSimCluster::Node& node : sim.nodes) {
    const auto found = by_name.find(node.name);
    if (found == by_name.end()) {
      return errorf(Code::kInvalidArgument,
                    "the simulator cluster has a node '{}' that the cluster does not have; give "
                    "the files of one cluster",
                    node.name);
    }
    result.push_back(found->second);
  }
  return result;
}

namespace {

std::string print_ids(const std::vector<int32_t>& ids) {
  std::string text;
  for (const int32_t id : ids) text += " " + std::to_string(id);
  return text;
}

Result<std::vector<int32_t>> read_ids(std::string_view value) {
  std::vector<int32_t> ids;
  while (true) {
    const size_t begin = value.find_first_not_of(' ');
    if (begin == std::string_view::npos) return ids;
    value.remove_prefix(begin);
    const std::string_view word = value.substr(0, value.find(' '));
    value.remove_prefix(word.size());
    int64_t id = 0;
    if (!parse_int(word, id) || id < 0 || id > ClusterDesc::kMaxNodes) {
      return errorf(Code::kInvalidArgument, "'{}' is not a machine number", word.substr(0, 40));
    }
    ids.push_back(static_cast<int32_t>(id));
  }
}

// One "key: value" line into its field of `machine`.
Result<void> set_field(HelixRealSystem::Machine& machine, std::string_view key,
                       std::string_view value) {
  if (key == "ip_address") {
    machine.ip_address = value;
    return {};
  }
  if (key == "in_nodes" || key == "out_nodes") {
    ASSIGN_OR_RETURN((key == "in_nodes" ? machine.in_nodes : machine.out_nodes), read_ids(value));
    return {};
  }
  int32_t* field = key == "machine_id"    ? &machine.id
                   : key == "start_layer" ? &machine.start_layer
                   : key == "end_layer"   ? &machine.end_layer
                                          : nullptr;
  if (field == nullptr) {
    return errorf(Code::kInvalidArgument,
                  "'{}' is not one of machine_id, ip_address, in_nodes, out_nodes, start_layer, "
                  "end_layer",
                  key.substr(0, 40));
  }
  int64_t number = 0;
  if (!parse_int(value, number) || number < -1 || number > ClusterDesc::kMaxNodes) {
    return errorf(Code::kInvalidArgument, "{}: '{}' is not a number from -1 to {}", key,
                  value.substr(0, 40), ClusterDesc::kMaxNodes);
  }
  *field = static_cast<int32_t>(number);
  return {};
}

}  // namespace

Result<HelixRealSystem> parse_helix_real_system(std::string_view text, std::string_view source) {
  HelixRealSystem system;
  bool in_block = false;
  int line_number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    ++line_number;
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.remove_suffix(1);
    if (line.empty()) {
      in_block = false;
      continue;
    }
    if (!in_block) system.machines.emplace_back();
    in_block = true;
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) {
      return errorf(Code::kInvalidArgument, "{}:{}: '{}' is not a 'key: value' line", source,
                    line_number, line.substr(0, 40));
    }
    std::string_view value = line.substr(colon + 1);
    while (!value.empty() && value.front() == ' ') value.remove_prefix(1);
    const Result<void> set = set_field(system.machines.back(), line.substr(0, colon), value);
    if (!set) {
      return errorf(Code::kInvalidArgument, "{}:{}: {}; correct the line", source, line_number,
                    set.error().message());
    }
  }
  if (system.machines.empty()) {
    return errorf(Code::kInvalidArgument, "{}: no machine; add a machine_id block", source);
  }
  return system;
}

Result<HelixRealSystem> load_helix_real_system(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, read_text(path));
  return parse_helix_real_system(text, path);
}

Result<HelixRealSystem> make_helix_real_system(const HelixSimCluster& cluster,
                                               const HelixSolution& solution,
                                               const HelixAddresses& addresses) {
  if (solution.nodes.size() != cluster.nodes.size()) {
    return errorf(Code::kInvalidArgument,
                  "the solution places {} nodes, the simulator cluster has {}; give the files of "
                  "one plan",
                  solution.nodes.size(), cluster.nodes.size());
  }
  HelixRealSystem system;
  system.machines.push_back({0, addresses.host, {}, {}, -1, -1});
  std::vector<size_t> used(addresses.by_type.size(), 0);
  std::vector<int32_t> place(cluster.nodes.size(), -1);  // in system.machines
  for (size_t i = 0; i < cluster.nodes.size(); ++i) {
    const LayerRange layers = solution.nodes[i];
    if (layers.empty()) continue;
    const std::string& type = cluster.nodes[i].machine_type;
    const auto list = std::find_if(addresses.by_type.begin(), addresses.by_type.end(),
                                   [&](const auto& entry) { return entry.first == type; });
    const size_t t = static_cast<size_t>(list - addresses.by_type.begin());
    if (list == addresses.by_type.end() || used[t] == list->second.size()) {
      return errorf(Code::kInvalidArgument, "{}: no address is left for a machine of type '{}'; give one for every machine",
                    cluster.nodes[i].name, type);
    }
    place[i] = static_cast<int32_t>(system.machines.size());
    system.machines.push_back({static_cast<int32_t>(i) + 1, list->second[used[t]++], {}, {},
                               layers.begin, layers.end});
  }
  for (size_t t = 0; t < used.size(); ++t) {
    if (used[t] < addresses.by_type[t].second.size()) {
      return errorf(Code::kInvalidArgument, "{} addresses of type '{}' are given, {} are used",
                    addresses.by_type[t].second.size(), addresses.by_type[t].first, used[t]);
    }
  }
  for (const HelixSimCluster::Link& link : cluster.links) {
    const int32_t from = link.from == kSource ? 0 : place[static_cast<size_t>(link.from)];
    const int32_t to = link.to == kSink ? 0 : place[static_cast<size_t>(link.to)];
    if (from < 0 || to < 0) {
      return errorf(Code::kInvalidArgument, "a link leads from {} to {}, one of which is idle",
                    cluster.endpoint_name(link.from), cluster.endpoint_name(link.to));
    }
    auto& machines = system.machines;
    machines[static_cast<size_t>(from)].out_nodes.push_back(machines[static_cast<size_t>(to)].id);
    machines[static_cast<size_t>(to)].in_nodes.push_back(machines[static_cast<size_t>(from)].id);
  }
  return system;
}

std::string print_helix_real_system(const HelixRealSystem& system) {
  std::string text;
  for (const HelixRealSystem::Machine& machine : system.machines) {
    text += format(
        "machine_id: {}\nip_address: {}\nin_nodes:{}\nout_nodes:{}\n"
        "start_layer: {}\nend_layer: {}\n\n",
        machine.id, machine.ip_address, print_ids(machine.in_nodes), print_ids(machine.out_nodes),
        machine.start_layer, machine.end_layer);
  }
  return text;
}

}  // namespace towline::spec
