// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The native cluster file: TOML for people, JSON for machines, one tree for both.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "base/fmt.hpp"
#include "spec/cluster_desc.hpp"
#include "spec/toml_text.hpp"

namespace towline::spec {
namespace {

constexpr std::string_view kCoordinator = "coordinator";
constexpr int32_t kAtCoordinator = -3;  // as one member of a network
constexpr size_t kMaxLinks = 20'000'000;

struct UnitName {
  std::string_view name;
  double factor;
};
constexpr UnitName kSpeedUnits[] = {{"bit", 1.0 / 8},    {"kbit", 1e3 / 8},   {"mbit", 1e6 / 8},
                                    {"gbit", 1e9 / 8},   {"bit/s", 1.0 / 8},  {"kbit/s", 1e3 / 8},
                                    {"mbit/s", 1e6 / 8}, {"gbit/s", 1e9 / 8}, {"B/s", 1},
                                    {"kB/s", 1e3},       {"KB/s", 1e3},       {"MB/s", 1e6},
                                    {"GB/s", 1e9},       {"TB/s", 1e12}};
constexpr UnitName kSizeUnits[] = {{"B", 1},
                                   {"kB", 1e3},
                                   {"KB", 1e3},
                                   {"MB", 1e6},
                                   {"GB", 1e9},
                                   {"TB", 1e12},
                                   {"KiB", 1024.0},
                                   {"MiB", 1048576.0},
                                   {"GiB", 1073741824.0},
                                   {"TiB", 1099511627776.0}};
constexpr UnitName kTimeUnits[] = {{"s", 1}, {"ms", 1e-3}, {"us", 1e-6}, {"ns", 1e-9}};

template <size_t N>
Result<double> parse_quantity(const Json& value, const UnitName (&units)[N],
                              std::string_view example) {
  if (value.is_number()) return value.as_double();
  const std::string& text = value.as_string();
  double number = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  if (value.is_string() && parsed.ec == std::errc()) {
    std::string_view unit(parsed.ptr, static_cast<size_t>(text.data() + text.size() - parsed.ptr));
    while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
    for (const UnitName& known : units) {
      if (unit == known.name && std::isfinite(number)) return number * known.factor;
    }
    if (unit == "gbps" || unit == "mbps" || unit == "kbps") {
      return errorf(Code::kInvalidArgument, "'{}' may mean bits or bytes; write it like {}", text,
                    example);
    }
  }
  return errorf(Code::kInvalidArgument, "'{}' is not a quantity; write it like {}",
                value.is_string() ? text : value.dump(), example);
}

// Reads one table of the tree: fields with a default or required, each fault naming its place.
class Fields {
 public:
  Fields(const Json& tree, std::string where) : tree_(tree), where_(std::move(where)) {}

  Result<std::string> text(std::string_view key) const {
    const std::string& value = tree_[key].as_string();
    if (value.empty()) return missing(key, "a name in quotes");
    return value;
  }
  Result<BytesPerSec> speed(std::string_view key, std::string_view fallback_key = {}) const {
    const Json* value = find(key, fallback_key);
    if (value == nullptr) return missing(key, "a speed, like \"10 gbit\"");
    return parse_speed(*value).context(where_ + ", " + std::string(key));
  }
  Result<Bytes> size(std::string_view key) const {
    const Json* value = tree_.find(key);
    if (value == nullptr) return missing(key, "a size, like \"40 GB\"");
    return parse_size(*value).context(where_ + ", " + std::string(key));
  }
  Result<double> number_or_zero(std::string_view key) const {
    const Json* value = tree_.find(key);
    if (value == nullptr) return 0.0;
    if (value->is_number()) return value->as_double();
    return errorf(Code::kInvalidArgument, "{}: '{}' is not a number; write it like 3.12e14",
                  where_, key);
  }
  Result<Seconds> seconds(std::string_view key) const {
    const Json* value = tree_.find(key);
    if (value == nullptr) return missing(key, "a time, like \"1 ms\"");
    return parse_seconds(*value).context(where_ + ", " + std::string(key));
  }

 private:
  const Json* find(std::string_view key, std::string_view fallback_key) const {
    const Json* value = tree_.find(key);
    return value == nullptr && !fallback_key.empty() ? tree_.find(fallback_key) : value;
  }
  Error missing(std::string_view key, std::string_view what) const {
    return errorf(Code::kInvalidArgument, "{}: '{}' is missing; give {}", where_, key, what);
  }
  const Json& tree_;
  std::string where_;
};

class Reader {
 public:
  Result<ClusterDesc> read(const Json& tree) {
    if (tree["schema"].as_int() != 1) {
      return Error(Code::kInvalidArgument, "schema must be 1 (this build reads no other)");
    }
    cluster_.name = tree["name"].as_string();
    const Fields coordinator(tree["coordinator"], "[coordinator]");
    ASSIGN_OR_RETURN(cluster_.coordinator_nic_in, coordinator.speed("nic_in", "nic"));
    ASSIGN_OR_RETURN(cluster_.coordinator_nic_out, coordinator.speed("nic_out", "nic"));
    for (const Json& item : tree["types"].items()) TRY(read_type(item));
    for (const Json& item : tree["nodes"].items()) TRY(read_node(item));
    // Links keep the order of the file: networks first.
    for (const Json& item : tree["networks"].items()) TRY(read_network(item));
    for (const Json& item : tree["links"].items()) TRY(read_link(item));
    TRY(validate(cluster_));
    return std::move(cluster_);
  }

 private:
  Result<void> read_type(const Json& item) {
    const std::string where = format("[[types]] {}", cluster_.types.size() + 1);
    const Fields fields(item, where);
    MachineType type;
    ASSIGN_OR_RETURN(type.name, fields.text("name"));
    ASSIGN_OR_RETURN(type.memory, fields.size("memory"));
    ASSIGN_OR_RETURN(type.nic_in, fields.speed("nic_in", "nic"));
    ASSIGN_OR_RETURN(type.nic_out, fields.speed("nic_out", "nic"));
    ASSIGN_OR_RETURN(type.disk, fields.speed("disk"));
    if (item.find("memory_bandwidth") != nullptr) {
      ASSIGN_OR_RETURN(type.memory_bandwidth, fields.speed("memory_bandwidth"));
    }
    ASSIGN_OR_RETURN(type.flops, fields.number_or_zero("flops"));
    ASSIGN_OR_RETURN(type.price, fields.number_or_zero("price"));
    cluster_.types.push_back(std::move(type));
    return {};
  }

  Result<void> read_node(const Json& item) {
    const std::string where = format("[[nodes]] {}", cluster_.nodes.size() + 1);
    const Fields fields(item, where);
    ClusterNode node;
    ASSIGN_OR_RETURN(node.name, fields.text("name"));
    ASSIGN_OR_RETURN(const std::string type, fields.text("type"));
    const auto found = std::find_if(cluster_.types.begin(), cluster_.types.end(),
                                    [&](const MachineType& known) { return known.name == type; });
    if (found == cluster_.types.end()) {
      return errorf(Code::kInvalidArgument, "{}: '{}' is not among [[types]]; add it", where, type);
    }
    node.type = static_cast<int32_t>(found - cluster_.types.begin());
    node.devices =
        static_cast<int32_t>(std::clamp<int64_t>(item["devices"].as_int(1), 0, INT32_MAX));
    node.region = item["region"].as_string();
    if (!index_.emplace(node.name, cluster_.size()).second) {
      return errorf(Code::kInvalidArgument, "{}: '{}' is given twice; rename one", where,
                    node.name);
    }
    cluster_.nodes.push_back(std::move(node));
    return {};
  }

  Result<int32_t> endpoint(const std::string& name, const std::string& where) const {
    if (name == kCoordinator) return kAtCoordinator;
    const auto found = index_.find(name);
    if (found == index_.end()) {
      return errorf(Code::kInvalidArgument, "{}: '{}' is not among [[nodes]]; add it", where, name);
    }
    return found->second;
  }

  Result<void> read_network(const Json& item) {
    const std::string where = format("[[networks]] {}", ++networks_);
    const Fields fields(item, where);
    std::vector<int32_t> members;
    for (const Json& member : item["members"].items()) {
      ASSIGN_OR_RETURN(const int32_t end, endpoint(member.as_string(), where));
      if (std::find(members.begin(), members.end(), end) != members.end()) {
        return errorf(Code::kInvalidArgument, "{}: member '{}' is given twice; remove one", where,
                      member.as_string());
      }
      members.push_back(end);
    }
    if (members.size() < 2) {
      return errorf(Code::kInvalidArgument, "{}: give two members or more", where);
    }
    ASSIGN_OR_RETURN(const BytesPerSec bandwidth, fields.speed("bandwidth"));
    ASSIGN_OR_RETURN(const Seconds latency, fields.seconds("latency"));
    if (cluster_.links.size() + members.size() * members.size() > kMaxLinks) {
      return errorf(Code::kInvalidArgument, "{}: more than {} links; split the network", where,
                    kMaxLinks);
    }
    for (const int32_t a : members) {
      for (const int32_t b : members) {
        if (a != b) TRY(put_link(a, b, bandwidth, latency));
      }
    }
    return {};
  }

  Result<void> read_link(const Json& item) {
    const std::string where = format("[[links]] {}", ++explicit_links_);
    const Fields fields(item, where);
    ASSIGN_OR_RETURN(const std::string from_name, fields.text("from"));
    ASSIGN_OR_RETURN(const std::string to_name, fields.text("to"));
    ASSIGN_OR_RETURN(const int32_t from, endpoint(from_name, where));
    ASSIGN_OR_RETURN(const int32_t to, endpoint(to_name, where));
    if (from == to) {
      return errorf(Code::kInvalidArgument, "{}: '{}' is linked with itself; remove the link",
                    where, from_name);
    }
    ASSIGN_OR_RETURN(const BytesPerSec bandwidth, fields.speed("bandwidth"));
    ASSIGN_OR_RETURN(const Seconds latency, fields.seconds("latency"));
    return put_link(from, to, bandwidth, latency);
  }

  // A link given later replaces the one between the same ends.
  Result<void> put_link(int32_t from, int32_t to, BytesPerSec bandwidth, Seconds latency) {
    if (from == kAtCoordinator) from = kSource;
    if (to == kAtCoordinator) to = kSink;
    const auto [entry, fresh] = link_index_.try_emplace({from, to}, cluster_.links.size());
    if (fresh) {
      cluster_.links.push_back({from, to, bandwidth, latency});
    } else {
      cluster_.links[entry->second] = {from, to, bandwidth, latency};
    }
    return {};
  }

  ClusterDesc cluster_;
  std::map<std::string, int32_t, std::less<>> index_;
  std::map<std::pair<int32_t, int32_t>, size_t> link_index_;
  int networks_ = 0;
  int explicit_links_ = 0;
};

std::string outer_name(const ClusterDesc& cluster, int32_t endpoint) {
  return endpoint < 0 ? std::string(kCoordinator) : cluster.nodes[endpoint].name;
}

// What a machine type says beyond the necessary.
std::vector<std::pair<const char*, double>> optional_figures(const MachineType& type) {
  std::vector<std::pair<const char*, double>> figures;
  if (type.flops != 0) figures.emplace_back("flops", type.flops);
  if (type.memory_bandwidth.value != 0) {
    figures.emplace_back("memory_bandwidth", type.memory_bandwidth.value);
  }
  if (type.price != 0) figures.emplace_back("price", type.price);
  return figures;
}

}  // namespace

Result<BytesPerSec> parse_speed(const Json& value) {
  ASSIGN_OR_RETURN(const double speed,
                   parse_quantity(value, kSpeedUnits, "\"10 gbit\" or \"1.25 GB/s\""));
  return BytesPerSec(speed);
}

Result<Bytes> parse_size(const Json& value) {
  ASSIGN_OR_RETURN(const double size, parse_quantity(value, kSizeUnits, "\"40 GB\" or \"16 GiB\""));
  if (!(size >= 0) || size > 9e18) {
    return errorf(Code::kInvalidArgument, "a size of {} bytes; give one from 0 to 9e18", size);
  }
  return Bytes(std::llround(size));
}

Result<Seconds> parse_seconds(const Json& value) {
  ASSIGN_OR_RETURN(const double time, parse_quantity(value, kTimeUnits, "\"50 ms\""));
  return Seconds(time);
}

Result<ClusterDesc> parse_cluster(const Json& tree, std::string_view source) {
  return Reader().read(tree).context(source);
}

Result<ClusterDesc> load_cluster(const std::string& path) {
  ASSIGN_OR_RETURN(const Json tree, load_json(path));
  return parse_cluster(tree, path);
}

Json cluster_to_json(const ClusterDesc& cluster) {
  Json types = Json::array();
  for (const MachineType& type : cluster.types) {
    Json tree = Json::object({{"name", type.name},
                              {"memory", type.memory.value},
                              {"nic_in", type.nic_in.value},
                              {"nic_out", type.nic_out.value},
                              {"disk", type.disk.value}});
    for (const auto& [key, value] : optional_figures(type)) tree.set(key, value);
    types.push(std::move(tree));
  }
  Json nodes = Json::array();
  for (const ClusterNode& node : cluster.nodes) {
    Json tree = Json::object({{"name", node.name}, {"type", cluster.types[node.type].name}});
    if (node.devices != 1) tree.set("devices", node.devices);
    if (!node.region.empty()) tree.set("region", node.region);
    nodes.push(std::move(tree));
  }
  Json links = Json::array();
  for (const ClusterLink& link : cluster.links) {
    links.push(Json::object({{"from", outer_name(cluster, link.from)},
                             {"to", outer_name(cluster, link.to)},
                             {"bandwidth", link.bandwidth.value},
                             {"latency", link.latency.value}}));
  }
  return Json::object(
      {{"schema", 1},
       {"name", cluster.name},
       {"coordinator", Json::object({{"nic_in", cluster.coordinator_nic_in.value},
                                     {"nic_out", cluster.coordinator_nic_out.value}})},
       {"types", std::move(types)},
       {"nodes", std::move(nodes)},
       {"links", std::move(links)}});
}

std::string print_cluster(const ClusterDesc& cluster) {
  std::string text =
      format("schema = 1\nname = {}\n\n[coordinator]\nnic_in = {}\nnic_out = {}\n",
             toml_string(cluster.name), toml_number(cluster.coordinator_nic_in.value),
             toml_number(cluster.coordinator_nic_out.value));
  for (const MachineType& type : cluster.types) {
    text += format("\n[[types]]\nname = {}\nmemory = {}\nnic_in = {}\nnic_out = {}\ndisk = {}\n",
                   toml_string(type.name), type.memory.value, toml_number(type.nic_in.value),
                   toml_number(type.nic_out.value), toml_number(type.disk.value));
    for (const auto& [key, value] : optional_figures(type)) {
      text += format("{} = {}\n", key, toml_number(value));
    }
  }
  for (const ClusterNode& node : cluster.nodes) {
    text += format("\n[[nodes]]\nname = {}\ntype = {}\n", toml_string(node.name),
                   toml_string(cluster.types[node.type].name));
    if (node.devices != 1) text += format("devices = {}\n", node.devices);
    if (!node.region.empty()) text += format("region = {}\n", toml_string(node.region));
  }
  for (const ClusterLink& link : cluster.links) {
    text += format("\n[[links]]\nfrom = {}\nto = {}\nbandwidth = {}\nlatency = {}\n",
                   toml_string(outer_name(cluster, link.from)),
                   toml_string(outer_name(cluster, link.to)), toml_number(link.bandwidth.value),
                   toml_number(link.latency.value));
  }
  return text;
}

}  // namespace towline::spec
