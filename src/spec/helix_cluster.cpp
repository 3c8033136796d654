// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/helix_cluster.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <set>

#include "base/fmt.hpp"
#include "spec/helix_plan.hpp"
#include "spec/ini.hpp"
#include "spec/py_value.hpp"

namespace towline::spec {
namespace {

Result<Measure> read_measure(const IniFile& file, const IniSection& section, std::string_view key) {
  ASSIGN_OR_RETURN(const IniEntry* entry, file.entry(section, key));
  Result<PyNumber> value = evaluate_py(entry->value);
  if (!value) return file.fault(section, *entry, value.error().message());
  return Measure{entry->value, value->value()};
}

// Neighbours as node numbers; 'source' and 'sink' may stand among them.
Result<std::vector<int32_t>> read_neighbours(const IniFile& file, const IniSection& section,
                                             int32_t nodes) {
  ASSIGN_OR_RETURN(const IniEntry* entry, file.entry(section, "connected_nodes"));
  Result<std::vector<PyItem>> items = parse_py_list(entry->value);
  if (!items) return file.fault(section, *entry, items.error().message());
  std::vector<int32_t> result;
  for (const PyItem& item : *items) {
    if (item.is_string) {
      if (item.text != "source" && item.text != "sink") {
        return file.fault(section, *entry,
                          format("'{}' is not a neighbour; name a node by its number, or "
                                 "'source' or 'sink'",
                                 item.text));
      }
      result.push_back(item.text == "source" ? kSource : kSink);
    } else if (item.integer < 0 || item.integer >= nodes) {
      return file.fault(section, *entry,
                        format("there is no node {}; nodes are 0 to {}", item.integer, nodes - 1));
    } else {
      result.push_back(static_cast<int32_t>(item.integer));
    }
  }
  return result;
}

std::string print_neighbours(const std::vector<int32_t>& neighbours) {
  std::vector<PyItem> items;
  for (const int32_t node : neighbours) {
    if (node == kSource || node == kSink) {
      items.push_back({true, 0, node == kSource ? "source" : "sink"});
    } else {
      items.push_back({false, node, {}});
    }
  }
  return print_py_list(items);
}

// "Link-source-3", "Link-3-sink", "Link-3-4" -> its ends.
Result<std::pair<int32_t, int32_t>> link_ends(const IniFile& file, const IniSection& section,
                                              int32_t nodes) {
  const auto fail = [&] {
    return file.fault(section.line,
                      format("[{}] is not a link between two of the {} nodes; name it "
                             "Link-source-I, Link-I-sink or Link-I-J",
                             section.name, nodes));
  };
  const std::string_view ends = std::string_view(section.name).substr(5);
  const size_t dash = ends.find('-');
  if (dash == std::string_view::npos) return fail();
  const auto number = [&](std::string_view text) -> int32_t {
    int32_t value = -100;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool whole = parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
    return whole && value >= 0 && value < nodes ? value : -100;
  };
  const std::string_view first = ends.substr(0, dash);
  const std::string_view second = ends.substr(dash + 1);
  const int32_t a = first == "source" ? kSource : number(first);
  const int32_t b = second == "sink" ? kSink : number(second);
  if (a == -100 || b == -100 || a == b || (a == kSource && b == kSink)) return fail();
  return std::pair(a, b);
}

std::string link_name(int32_t a, int32_t b) {
  return format("Link-{}-{}", a == kSource ? "source" : std::to_string(a),
                b == kSink ? "sink" : std::to_string(b));
}

Result<HelixCluster::Node> read_node(const IniFile& file, int32_t index, int32_t nodes) {
  ASSIGN_OR_RETURN(const IniSection* section, file.section(format("ComputeNode-{}", index)));
  ASSIGN_OR_RETURN(const IniEntry* type, file.entry(*section, "type"));
  ASSIGN_OR_RETURN(std::vector<int32_t> neighbours, read_neighbours(file, *section, nodes));
  return HelixCluster::Node{type->value, std::move(neighbours)};
}

Result<HelixCluster::Link> read_link(const IniFile& file, const IniSection& section,
                                     int32_t nodes) {
  ASSIGN_OR_RETURN(const auto ends, link_ends(file, section, nodes));
  HelixCluster::Link link{ends.first, ends.second, {}, {}};
  ASSIGN_OR_RETURN(link.bandwidth, read_measure(file, section, "bandwidth"));
  ASSIGN_OR_RETURN(link.latency, read_measure(file, section, "latency"));
  if (!(link.bandwidth.value > 0)) {
    return file.fault(section, *section.find("bandwidth"),
                      "a link's bandwidth must be above 0 bytes/s; correct or remove the link");
  }
  if (!(link.latency.value >= 0)) {
    return file.fault(section, *section.find("latency"),
                      "a latency cannot be negative; correct it");
  }
  return link;
}

// connected_nodes and [Link-...] say the same thing twice; they must agree.
Result<void> check_neighbours(const IniFile& file, const HelixCluster& cluster) {
  std::set<std::pair<int32_t, int32_t>> links;
  for (const HelixCluster::Link& link : cluster.links) {
    if (!links.insert(std::minmax(link.a, link.b)).second) {
      return errorf(Code::kInvalidArgument, "{}: [{}] and its reverse are both given; remove one",
                    file.source(), link_name(link.a, link.b));
    }
  }
  std::set<std::pair<int32_t, int32_t>> listed;
  const auto require = [&](int32_t node, int32_t neighbour,
                           std::string_view section) -> Result<void> {
    listed.insert(std::minmax(node, neighbour));
    if (links.contains(std::minmax(node, neighbour))) return {};
    return errorf(Code::kInvalidArgument,
                  "{}: [{}] lists neighbour {} but there is no [{}]; add the link or remove the "
                  "neighbour",
                  file.source(), section,
                  neighbour == kSource ? "source"
                  : neighbour == kSink ? "sink"
                                       : std::to_string(neighbour),
                  link_name(neighbour == kSink ? node : std::min(node, neighbour),
                            neighbour == kSink ? kSink : std::max(node, neighbour)));
  };
  for (const int32_t node : cluster.source_neighbours) TRY(require(node, kSource, "SourceNode"));
  for (const int32_t node : cluster.sink_neighbours) TRY(require(node, kSink, "SinkNode"));
  for (size_t i = 0; i < cluster.nodes.size(); ++i) {
    for (const int32_t neighbour : cluster.nodes[i].neighbours) {
      TRY(require(static_cast<int32_t>(i), neighbour, format("ComputeNode-{}", i)));
    }
  }
  for (const auto& [a, b] : links) {
    if (!listed.contains({a, b})) {
      return errorf(Code::kInvalidArgument,
                    "{}: [{}] is in no node's connected_nodes; list it there or remove the link",
                    file.source(), a == kSink ? link_name(b, kSink) : link_name(a, b));
    }
  }
  return {};
}

}  // namespace

Result<HelixCluster> parse_helix_cluster(std::string_view text, std::string_view source) {
  ASSIGN_OR_RETURN(const IniFile file, IniFile::parse(text, source));
  ASSIGN_OR_RETURN(const IniSection* names, file.section("NodeNames"));
  ASSIGN_OR_RETURN(const IniEntry* count, file.entry(*names, "total_compute_nodes"));
  const Result<PyNumber> total = evaluate_py(count->value);
  if (!total || !total->is_integer || total->integer < 1 ||
      total->integer > ClusterDesc::kMaxNodes) {
    return file.fault(*names, *count,
                      format("must be a whole number from 1 to {}", ClusterDesc::kMaxNodes));
  }
  const auto nodes = static_cast<int32_t>(total->integer);
  HelixCluster cluster;
  cluster.heading = file.heading();
  ASSIGN_OR_RETURN(const IniSection* source_node, file.section("SourceNode"));
  ASSIGN_OR_RETURN(cluster.source_neighbours, read_neighbours(file, *source_node, nodes));
  ASSIGN_OR_RETURN(const IniSection* sink_node, file.section("SinkNode"));
  ASSIGN_OR_RETURN(cluster.sink_neighbours, read_neighbours(file, *sink_node, nodes));
  for (int32_t i = 0; i < nodes; ++i) {
    ASSIGN_OR_RETURN(HelixCluster::Node node, read_node(file, i, nodes));
    cluster.nodes.push_back(std::move(node));
  }
  for (const IniSection& section : file.sections()) {
    if (!section.name.starts_with("Link-")) continue;
    ASSIGN_OR_RETURN(HelixCluster::Link link, read_link(file, section, nodes));
    cluster.links.push_back(std::move(link));
  }
  TRY(check_neighbours(file, cluster));
  return cluster;
}

Result<HelixCluster> load_helix_cluster(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, read_text(path));
  return parse_helix_cluster(text, path);
}

std::string print_helix_cluster(const HelixCluster& cluster) {
  std::string text;
  for (const std::string& line : cluster.heading) text += line + "\n";
  if (!cluster.heading.empty()) text += "\n";
  text += format("[NodeNames]\ntotal_compute_nodes={}\n\n", cluster.nodes.size());
  text += "[SourceNode]\nconnected_nodes=" + print_neighbours(cluster.source_neighbours) + "\n\n";
  text += "[SinkNode]\nconnected_nodes=" + print_neighbours(cluster.sink_neighbours) + "\n\n";
  for (size_t i = 0; i < cluster.nodes.size(); ++i) {
    text += format("[ComputeNode-{}]\ntype={}\nconnected_nodes={}\n\n", i, cluster.nodes[i].type,
                   print_neighbours(cluster.nodes[i].neighbours));
  }
  for (const HelixCluster::Link& link : cluster.links) {
    text += format("[{}]\nbandwidth={}\nlatency={}\n\n", link_name(link.a, link.b),
                   link.bandwidth.text, link.latency.text);
  }
  return text;
}

const HelixMachines::Machine* HelixMachines::find(std::string_view type) const {
  const auto found = std::find_if(machines.begin(), machines.end(),
                                  [&](const Machine& machine) { return machine.type == type; });
  return found == machines.end() ? nullptr : &*found;
}

Result<HelixMachines> parse_helix_machines(std::string_view text, std::string_view source) {
  ASSIGN_OR_RETURN(const IniFile file, IniFile::parse(text, source));
  HelixMachines result;
  result.heading = file.heading();
  for (const IniSection& section : file.sections()) {
    HelixMachines::Machine machine;
    machine.type = section.name;
    const std::pair<std::string_view, Measure*> fields[] = {
        {"inbound_nic_speed", &machine.nic_in},
        {"outbound_nic_speed", &machine.nic_out},
        {"disk_speed", &machine.disk},
        {"vram_size", &machine.memory}};
    for (const auto& [key, field] : fields) {
      ASSIGN_OR_RETURN(*field, read_measure(file, section, key));
      if (!(field->value > 0) && field->value != -1) {
        return file.fault(section, *section.find(key),
                          "must be above 0, or -1 where it does not apply; correct it");
      }
    }
    result.machines.push_back(std::move(machine));
  }
  if (result.machines.empty()) {
    return errorf(Code::kInvalidArgument, "{}: no machine type; add a [Type] section", source);
  }
  return result;
}

Result<HelixMachines> load_helix_machines(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, read_text(path));
  return parse_helix_machines(text, path);
}

std::string print_helix_machines(const HelixMachines& machines) {
  std::string text;
  for (const std::string& line : machines.heading) text += line + "\n";
  bool first = true;
  for (const HelixMachines::Machine& machine : machines.machines) {
    if (!first) text += "\n";
    first = false;
    text += format(
        "[{}]\ninbound_nic_speed = {}\noutbound_nic_speed = {}\ndisk_speed = {}\n"
        "vram_size = {}\n",
        machine.type, machine.nic_in.text, machine.nic_out.text, machine.disk.text,
        machine.memory.text);
  }
  return text;
}

Result<ClusterDesc> to_cluster(const HelixCluster& cluster, const HelixMachines& machines) {
  ClusterDesc result;
  result.name = "helix";
  std::map<std::string, int32_t, std::less<>> type_index;
  for (const HelixMachines::Machine& machine : machines.machines) {
    if (machine.type == "SourceNode" || machine.type == "SinkNode") continue;
    type_index.emplace(machine.type, static_cast<int32_t>(result.types.size()));
    for (const Measure* field :
         {&machine.nic_in, &machine.nic_out, &machine.disk, &machine.memory}) {
      if (!(field->value > 0) || field->value > 1e18) {
        return errorf(Code::kInvalidArgument,
                      "the machine profile's [{}] has the value '{}'; a compute node needs speeds "
                      "and memory above 0",
                      machine.type, field->text);
      }
    }
    result.types.push_back({machine.type, Bytes(std::llround(machine.memory.value)),
                            BytesPerSec(machine.nic_in.value), BytesPerSec(machine.nic_out.value),
                            BytesPerSec(machine.disk.value)});
  }
  const HelixMachines::Machine* source = machines.find("SourceNode");
  const HelixMachines::Machine* sink = machines.find("SinkNode");
  if (source == nullptr || sink == nullptr || !(source->nic_out.value > 0) ||
      !(sink->nic_in.value > 0)) {
    return Error(Code::kInvalidArgument,
                 "the machine profile needs [SourceNode] with outbound_nic_speed and [SinkNode] "
                 "with inbound_nic_speed above 0; add them");
  }
  result.coordinator_nic_out = BytesPerSec(source->nic_out.value);
  result.coordinator_nic_in = BytesPerSec(sink->nic_in.value);
  for (size_t i = 0; i < cluster.nodes.size(); ++i) {
    const auto type = type_index.find(cluster.nodes[i].type);
    if (type == type_index.end()) {
      return errorf(Code::kInvalidArgument,
                    "[ComputeNode-{}] has the type '{}', which the machine profile does not list; "
                    "add a [{}] section to it or correct the type",
                    i, cluster.nodes[i].type, cluster.nodes[i].type);
    }
    result.nodes.push_back({helix_node_name(static_cast<int32_t>(i)), type->second, 1, ""});
  }
  for (const HelixCluster::Link& link : cluster.links) {
    const BytesPerSec bandwidth(link.bandwidth.value);
    const Seconds latency(link.latency.value);
    result.links.push_back({link.a, link.b, bandwidth, latency});
    if (link.a != kSource && link.b != kSink) {
      result.links.push_back({link.b, link.a, bandwidth, latency});
    }
  }
  TRY(validate(result));
  return result;
}

Result<HelixCluster> to_helix_cluster(const ClusterDesc& cluster) {
  HelixCluster result;
  for (const ClusterNode& node : cluster.nodes) {
    if (node.devices != 1) {
      return errorf(Code::kUnsupported,
                    "node '{}' has {} devices, which Helix's files cannot say; give its type one "
                    "device",
                    node.name, node.devices);
    }
    result.nodes.push_back({cluster.types[node.type].name, {}});
  }
  std::map<std::pair<int32_t, int32_t>, const ClusterLink*> by_ends;
  for (const ClusterLink& link : cluster.links) by_ends[{link.from, link.to}] = &link;
  // Source links, then sink links, then pairs, each in ascending order: as Helix's generators do.
  std::vector<const ClusterLink*> order;
  for (const auto& [ends, link] : by_ends) {
    const auto reverse = by_ends.find({ends.second, ends.first});
    const bool inner = ends.first != kSource && ends.second != kSink;
    if (inner && (reverse == by_ends.end() || reverse->second->bandwidth != link->bandwidth ||
                  reverse->second->latency != link->latency)) {
      return errorf(Code::kUnsupported,
                    "the links between '{}' and '{}' differ by direction, which Helix's files "
                    "cannot say",
                    cluster.nodes[ends.first].name, cluster.nodes[ends.second].name);
    }
    if (!inner || ends.first < ends.second) order.push_back(link);
  }
  const auto rank = [](const ClusterLink* link) {
    return link->from == kSource ? 0 : link->to == kSink ? 1 : 2;
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](const ClusterLink* a, const ClusterLink* b) { return rank(a) < rank(b); });
  for (const ClusterLink* link : order) {
    result.links.push_back({link->from, link->to, helix_speed(link->bandwidth.value),
                            helix_latency(link->latency.value)});
    if (link->from == kSource) {
      result.source_neighbours.push_back(link->to);
      result.nodes[link->to].neighbours.push_back(kSource);
    } else if (link->to == kSink) {
      result.sink_neighbours.push_back(link->from);
      result.nodes[link->from].neighbours.push_back(kSink);
    } else {
      result.nodes[link->from].neighbours.push_back(link->to);
      result.nodes[link->to].neighbours.push_back(link->from);
    }
  }
  for (HelixCluster::Node& node : result.nodes) {
    const auto key = [](int32_t n) { return n == kSource ? -1 : n == kSink ? INT32_MAX : n; };
    std::sort(node.neighbours.begin(), node.neighbours.end(),
              [&](int32_t a, int32_t b) { return key(a) < key(b); });
  }
  return result;
}

HelixMachines to_helix_machines(const ClusterDesc& cluster) {
  const Measure none{"-1", -1};
  HelixMachines result;
  result.machines.push_back(
      {"SourceNode", none, helix_speed(cluster.coordinator_nic_out.value), none, none});
  result.machines.push_back(
      {"SinkNode", helix_speed(cluster.coordinator_nic_in.value), none, none, none});
  for (const MachineType& type : cluster.types) {
    result.machines.push_back({type.name, helix_speed(type.nic_in.value),
                               helix_speed(type.nic_out.value), helix_speed(type.disk.value),
                               helix_memory(static_cast<double>(type.memory.value))});
  }
  return result;
}

Result<ClusterDesc> load_any_cluster(const std::string& cluster_path,
                                     const std::string& machines_path) {
  if (cluster_path.ends_with(".toml") || cluster_path.ends_with(".json")) {
    return load_cluster(cluster_path);
  }
  ASSIGN_OR_RETURN(const HelixCluster cluster, load_helix_cluster(cluster_path));
  if (machines_path.empty()) {
    return errorf(Code::kInvalidArgument,
                  "'{}' is one of Helix's cluster files, which does not describe the machines; "
                  "give a machine profile as well (--profile machine_profile.ini)",
                  cluster_path);
  }
  ASSIGN_OR_RETURN(const HelixMachines machines, load_helix_machines(machines_path));
  return to_cluster(cluster, machines).context(cluster_path);
}

}  // namespace towline::spec
