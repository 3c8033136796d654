// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "sim/helix_load.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <numeric>
#include <optional>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "base/json.hpp"
#include "sim/push_relabel.hpp"

namespace towline::sim {
namespace {

using policy::kSinkNode;
using policy::kSourceNode;

constexpr double kGridEnd = 1e6;        // batches in a profile larger than this are a mistake
constexpr double kLongestList = 5e7;    // entries of a workload list

// A number that is the whole of `text` (spaces around it are allowed).
std::optional<double> number(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\r' || text.back() == '\t')) {
    text.remove_suffix(1);
  }
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Rows of `columns` numbers. A first row that is not numeric is a header.
Result<std::vector<std::vector<double>>> load_number_table(const std::string& path,
                                                           size_t columns) {
  ASSIGN_OR_RETURN(const std::string text, read_file(path));
  std::vector<std::vector<double>> rows;
  size_t line_number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    ++line_number;
    if (line.empty() || line == "\r") continue;
    std::vector<double> row;
    for (size_t at = 0; at <= line.size();) {
      const size_t comma = std::min(line.find(',', at), line.size());
      const std::optional<double> value = number(line.substr(at, comma - at));
      if (!value) break;
      row.push_back(*value);
      at = comma + 1;
    }
    if (row.size() != columns) {
      if (line_number == 1) continue;  // the header
      return errorf(Code::kInvalidArgument, "{}:{}: expected {} numbers with commas between them",
                    path, line_number, columns);
    }
    rows.push_back(std::move(row));
    if (static_cast<double>(rows.size()) > kLongestList) {
      return errorf(Code::kInvalidArgument, "{}: more than {} lines", path, kLongestList);
    }
  }
  if (rows.empty()) return errorf(Code::kInvalidArgument, "{}: no numbers in it", path);
  return rows;
}

// Seconds of a layer for every whole batch size of the grid. Interpolated in this order of
// operations because the reference's rounding is wanted.
Result<std::vector<double>> expand(const std::vector<spec::LayerTime>& grid,
                                   std::string_view what) {
  if (grid.empty() || grid.front().tokens != 0 || grid.back().tokens > kGridEnd) {
    return errorf(Code::kInvalidArgument,
                  "{}: the table must begin with a batch of 0 and end below {}", what, kGridEnd);
  }
  std::vector<double> times;
  for (size_t i = 0; i + 1 < grid.size(); ++i) {
    const double x0 = grid[i].tokens, y0 = grid[i].time.value;
    const double x1 = grid[i + 1].tokens, y1 = grid[i + 1].time.value;
    if (!(x0 < x1) || std::floor(x0) != x0 || std::floor(x1) != x1 || !(y1 >= 0)) {
      return errorf(Code::kInvalidArgument,
                    "{}: batch sizes must be ascending whole numbers and times not negative", what);
    }
    times.push_back(y0);
    for (double x = x0 + 1; x < x1; ++x) times.push_back(y0 + (y1 - y0) * (x - x0) / (x1 - x0));
  }
  times.push_back(grid.back().time.value);
  return times;
}

// Replaces the times of every device for which DIR/<model>/<gpu>/ has tables.
Result<void> read_profile_dir(const std::string& dir, spec::Profile& profile) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (!fs::is_directory(dir, error)) {
    return errorf(Code::kNotFound, "profile directory '{}' does not exist", dir);
  }
  std::string model = profile.model.name;
  std::replace(model.begin(), model.end(), '-', '_');
  bool found = false;
  for (spec::DeviceProfile& device : profile.devices) {
    std::string gpu = device.type;
    std::transform(gpu.begin(), gpu.end(), gpu.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const std::string base = dir + "/" + model + "/" + gpu + "/";
    if (!fs::exists(base + "prompt_bs2time.csv", error)) continue;
    found = true;
    const auto read = [&](const char* file, std::vector<spec::LayerTime>& table) -> Result<void> {
      ASSIGN_OR_RETURN(const auto rows, load_number_table(base + file, 2));
      table.clear();
      for (const auto& row : rows) table.push_back({row[0], Seconds(row[1] * 0.001)});
      return {};
    };
    TRY(read("prompt_bs2time.csv", device.prompt));
    TRY(read("decode_bs2time.csv", device.decode));
  }
  if (!found) {
    return errorf(Code::kNotFound, "'{}' has no {}/<gpu>/prompt_bs2time.csv", dir, model);
  }
  return {};
}

// "compute_node_7" is node 5 of the solution.
Result<int32_t> solution_index(const std::string& name) {
  constexpr std::string_view kPrefix = "compute_node_";
  std::optional<double> n;
  if (name.starts_with(kPrefix)) n = number(std::string_view(name).substr(kPrefix.size()));
  if (!n || *n < spec::kHelixNameOffset || *n > 1e8 || std::floor(*n) != *n) {
    return errorf(Code::kInvalidArgument, "node '{}': expected a name like compute_node_7", name);
  }
  return static_cast<int32_t>(*n) - spec::kHelixNameOffset;
}

// `own_mix`: nobody said which machines T(k) is derived for.
Result<void> read_flows(const std::string& path, bool own_mix, HelixInput& input) {
  ASSIGN_OR_RETURN(const Json tree, load_json(path));
  // Vertices are "0_out" for the source, "1_in" for the sink, "<uid>_in" and so on for the rest.
  std::map<std::pair<std::string, std::string>, double> edges;
  for (const Json& edge : tree["edges"].items()) {
    const double flow = edge[3].is_number() ? edge[3].as_double() : -1;
    if (!(flow >= 0) || !std::isfinite(flow)) {
      return errorf(Code::kInvalidArgument,
                    "{}: the edge {} should be [from, to, capacity, flow] with a flow of 0 or more",
                    path, edge.dump());
    }
    edges[{edge[0].as_string(), edge[1].as_string()}] = flow;
  }
  if (edges.empty()) return errorf(Code::kInvalidArgument, "{}: no 'edges' in it", path);
  const auto uid = [](int32_t place) {
    return place == kSourceNode ? 0 : place == kSinkNode ? 1 : place + 2;
  };
  input.flow.clear();
  for (const HelixLink& link : input.links) {
    const auto found =
        edges.find({format("{}_out", uid(link.from)), format("{}_in", uid(link.to))});
    if (found == edges.end()) {
      return errorf(Code::kInvalidArgument,
                    "{}: no flow from {}_out to {}_in; is it of another plan?", path,
                    uid(link.from), uid(link.to));
    }
    input.flow.push_back(found->second);
  }
  if (!(std::accumulate(input.flow.begin(), input.flow.end(), 0.0) > 0)) {
    return errorf(Code::kInvalidArgument, "{}: nothing flows in it", path);
  }
  input.max_flow = tree["max_flow"].as_double();
  // The file's run may have known machines that the cluster file leaves out.
  if (tree["upper_bound"].is_number() && own_mix) {
    input.max_compute = tree["upper_bound"].as_double();
  }
  return {};
}

// The bound: every machine at its best number of layers, network for nothing. Summed up in
// the order of the cluster file, as the reference does, so that the last digit is the same;
// machines that the file leaves out come last.
double max_compute(const spec::MachineMix& mix, const spec::HelixSimCluster& cluster,
                   const std::vector<spec::RateTable>& tables, const HelixInput& input) {
  std::map<std::string, int32_t> left;
  for (const auto& [type, count] : mix) left[type] += count;
  const auto best_of = [&](const std::string& type) {
    const spec::RateTable* table = find_table(tables, type);
    double nic = std::numeric_limits<double>::infinity();  // of a machine of this type
    for (const auto& node : cluster.nodes) {
      if (node.machine_type != type) continue;
      nic = std::min(node.nic_in.value, node.nic_out.value) / input.activation_bytes;
    }
    double best = 0;
    for (size_t k = 0; k < table->points.size(); ++k) {
      best =
          std::max(best, std::min(table->points[k].rate.value, nic) * static_cast<double>(k + 1));
    }
    return best;
  };
  std::map<std::string, double> best;
  for (const auto& [type, count] : left) best[type] = best_of(type);
  double sum = 0;
  for (const auto& node : cluster.nodes) {
    if (left[node.machine_type]-- > 0) sum += best[node.machine_type];
  }
  for (const auto& [type, count] : left) {
    for (int32_t i = 0; i < count; ++i) sum += best[type];
  }
  return sum / input.total_layers;
}

// "A100=4,L4=8"
Result<spec::MachineMix> parse_machines(std::string_view text) {
  spec::MachineMix mix;
  for (size_t at = 0; at < text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    const std::string_view item = text.substr(at, comma - at);
    const size_t equals = item.find('=');
    const std::optional<double> count =
        equals == std::string_view::npos ? std::nullopt : number(item.substr(equals + 1));
    if (!count || !(*count >= 1 && *count <= 100'000) || std::floor(*count) != *count) {
      return errorf(Code::kInvalidArgument, "machines '{}': write them as A100=4,L4=8", text);
    }
    mix.emplace_back(item.substr(0, equals), static_cast<int32_t>(*count));
    at = comma + 1;
  }
  return mix;
}

Result<HelixNode> make_node(const spec::HelixSimCluster::Node& node, LayerRange layers,
                            const spec::RateTable& table, int32_t machine) {
  HelixNode result;
  result.name = node.name;
  result.layers = layers;
  result.machine = machine;
  result.nic_in = node.nic_in.value;
  result.nic_out = node.nic_out.value;
  result.disk = node.disk.value;
  result.kv_capacity = node.kv_capacity;
  if (layers.empty()) return result;
  // Plans made by hand may hold more layers than the tables; the last entry then counts.
  const int32_t known = std::min(layers.size(), table.max_layers());
  if (known == 0) {
    return errorf(Code::kInvalidArgument, "node {}: machine type {} cannot hold a layer", node.name,
                  node.machine_type);
  }
  const spec::OperatingPoint& point = table.points[known - 1];
  result.rate = point.rate.value;
  result.limits = {point.prompt_max_requests, static_cast<int32_t>(point.prompt_max_tokens),
                   point.decode_max_tokens, point.decode_max_context};
  return result;
}

}  // namespace

Result<HelixInput> make_helix_input(const spec::HelixSimCluster& cluster,
                                    const spec::HelixSolution& solution,
                                    const spec::Profile& profile, spec::MachineMix mix) {
  HelixInput input;
  input.total_layers = profile.model.layers;
  input.token_bytes = static_cast<double>(profile.model.token_bytes.value);
  input.activation_bytes = static_cast<double>(profile.model.activation_bytes.value);
  input.layer_bytes = static_cast<double>(profile.model.layer_bytes.value);
  input.coordinator_nic_in = cluster.coordinator_nic_in.value;
  input.coordinator_nic_out = cluster.coordinator_nic_out.value;
  if (mix.empty()) {
    for (const auto& node : cluster.nodes) mix.emplace_back(node.machine_type, 1);
  }
  ASSIGN_OR_RETURN(const std::vector<spec::RateTable> tables, derive_rates(profile, mix));
  std::map<std::string, int32_t> machines;
  for (const spec::RateTable& table : tables) {
    const spec::DeviceProfile& device = *profile.find(table.type);
    machines[table.type] = static_cast<int32_t>(input.times.size());
    LayerTimes times;
    ASSIGN_OR_RETURN(times.prompt, expand(device.prompt, table.type + " prompt times"));
    ASSIGN_OR_RETURN(times.decode, expand(device.decode, table.type + " decode times"));
    if (!device.head.empty()) {
      ASSIGN_OR_RETURN(times.head, expand(device.head, table.type + " head times"));
    }
    times.decode_context_seconds = device.decode_context_seconds;
    times.prompt_context_seconds = device.prompt_context_seconds;
    times.table_context = device.decode_context;
    times.table_prompts_context = device.prompt_context;
    times.shared_weights = device.shared_weights;
    input.times.push_back(std::move(times));
    input.machines.push_back(table.type);
  }
  for (const auto& node : cluster.nodes) {
    if (!machines.contains(node.machine_type)) {
      return errorf(Code::kInvalidArgument,
                    "node {} is a {}, which is not among the machines given", node.name,
                    node.machine_type);
    }
    ASSIGN_OR_RETURN(const int32_t index, solution_index(node.name));
    if (index >= static_cast<int32_t>(solution.nodes.size())) {
      return errorf(Code::kInvalidArgument, "the solution says nothing of node {}", node.name);
    }
    const LayerRange layers = solution.nodes[index];
    if (!layers.empty() && (layers.begin < 0 || layers.end > input.total_layers)) {
      return errorf(Code::kInvalidArgument, "node {} holds layers {} to {}, the model has {}",
                    node.name, layers.begin, layers.end - 1, input.total_layers);
    }
    ASSIGN_OR_RETURN(HelixNode made, make_node(node, layers, *find_table(tables, node.machine_type),
                                               machines[node.machine_type]));
    input.nodes.push_back(std::move(made));
  }
  const auto place = [](int32_t end) {
    return end == spec::kSource ? kSourceNode : end == spec::kSink ? kSinkNode : end;
  };
  for (const auto& link : cluster.links) {
    input.links.push_back(
        {place(link.from), place(link.to), link.latency.value, link.bandwidth.value});
  }
  input.max_compute = max_compute(mix, cluster, tables, input);
  return input;
}

void plan_flow(HelixInput& input) {
  plan::FlowGraph graph;
  graph.arcs.reserve(2 + 3 * input.nodes.size() + input.links.size());
  const double token = input.token_bytes;
  const double both = input.token_bytes + input.activation_bytes;
  // The order of vertices and arcs is the reference's: it decides which optimum is found.
  const int32_t source = graph.add_vertex(), source_out = graph.add_vertex();
  graph.add_arc(source, source_out, input.coordinator_nic_out / token);
  const int32_t sink_in = graph.add_vertex(), sink = graph.add_vertex();
  graph.add_arc(sink_in, sink, input.coordinator_nic_in / token);
  struct Links {
    int32_t count = 0;
    bool coordinator = false;
  };
  std::vector<Links> links_in(input.nodes.size()), links_out(input.nodes.size());
  const auto note = [](Links& links, bool coordinator) {
    ++links.count;
    links.coordinator |= coordinator;
  };
  for (const HelixLink& link : input.links) {
    if (link.to >= 0) note(links_in[link.to], link.from == kSourceNode);
    if (link.from >= 0) note(links_out[link.from], link.to == kSinkNode);
  }
  const auto only_coordinator = [](const Links& l) { return l.count == 1 && l.coordinator; };
  std::vector<int32_t> in(input.nodes.size()), out(input.nodes.size());
  for (size_t i = 0; i < input.nodes.size(); ++i) {
    const HelixNode& node = input.nodes[i];
    if (node.layers.empty()) continue;
    in[i] = graph.add_vertex();
    const int32_t begin = graph.add_vertex(), end = graph.add_vertex();
    out[i] = graph.add_vertex();
    graph.add_arc(in[i], begin,
                  node.nic_in / (only_coordinator(links_in[i]) ? token : both));
    graph.add_arc(begin, end, node.rate);
    graph.add_arc(end, out[i],
                  node.nic_out / (only_coordinator(links_out[i]) ? token : both));
  }
  const auto first_link = static_cast<int32_t>(graph.arcs.size());
  for (const HelixLink& link : input.links) {
    const bool ends = link.from == kSourceNode || link.to == kSinkNode;
    graph.add_arc(link.from == kSourceNode ? source_out : out[link.from],
                  link.to == kSinkNode ? sink_in : in[link.to],
                  link.bandwidth / (ends ? token : both));
  }
  const plan::MaxFlow flow = push_relabel_flow(graph, source, sink);
  input.flow.assign(flow.flow.begin() + first_link, flow.flow.end());
  input.max_flow = flow.value;
}

Result<HelixInput> load_helix_input(const HelixFiles& files, bool with_flow) {
  ASSIGN_OR_RETURN(const auto cluster, spec::load_helix_sim_cluster(files.simulator_cluster));
  ASSIGN_OR_RETURN(const auto solution, spec::load_helix_solution(files.solution));
  const bool is_file = files.model.ends_with(".json") || files.model.ends_with(".toml");
  ASSIGN_OR_RETURN(spec::Profile profile, is_file ? spec::load_profile(files.model)
                                                  : spec::builtin_profile(files.model));
  if (!files.profile_dir.empty()) TRY(read_profile_dir(files.profile_dir, profile));
  ASSIGN_OR_RETURN(spec::MachineMix mix, parse_machines(files.machines));
  ASSIGN_OR_RETURN(HelixInput input, make_helix_input(cluster, solution, profile, std::move(mix)));
  if (!files.flows.empty()) {
    TRY(read_flows(files.flows, files.machines.empty(), input));
  } else if (with_flow) {
    plan_flow(input);
  }
  return input;
}

Result<std::vector<std::pair<int32_t, int32_t>>> load_lengths(const std::string& path) {
  ASSIGN_OR_RETURN(const auto rows, load_number_table(path, 2));
  std::vector<std::pair<int32_t, int32_t>> lengths;
  for (const auto& row : rows) {
    for (const double tokens : row) {
      if (!(tokens >= 1 && tokens <= 1e7) || std::floor(tokens) != tokens) {
        return errorf(Code::kInvalidArgument,
                      "{}: a length of {} tokens; lengths are whole, 1 to 10^7", path, tokens);
      }
    }
    lengths.emplace_back(static_cast<int32_t>(row[0]), static_cast<int32_t>(row[1]));
  }
  return lengths;
}

Result<std::vector<double>> load_arrival_bins(const std::string& path) {
  ASSIGN_OR_RETURN(const auto rows, load_number_table(path, 1));
  std::vector<double> bins;
  double sum = 0;
  for (const auto& row : rows) {
    if (!(row[0] >= 0 && row[0] <= 1e9)) {
      return errorf(Code::kInvalidArgument, "{}: {} arrivals in a bin", path, row[0]);
    }
    sum += row[0];
    bins.push_back(row[0]);
  }
  if (!(sum > 0)) return errorf(Code::kInvalidArgument, "{}: nothing arrives in it", path);
  return bins;
}

}  // namespace towline::sim
