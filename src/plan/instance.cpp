// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/instance.hpp"

#include <fmt/format.h>

#include <charconv>
#include <iterator>
#include <numeric>
#include <optional>

#include "base/file.hpp"
#include "base/fmt.hpp"

namespace towline::plan {
namespace {

bool in_range(double rate) { return rate >= 0 && rate <= kMaxRate; }  // false for NaN

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

// Reads words line by line; skips empty lines and comments.
class LineReader {
 public:
  LineReader(std::string_view text, std::string_view source) : rest_(text), source_(source) {}

  // Moves to the next line that says something; false at the end.
  bool next_line() {
    while (!rest_.empty()) {
      ++number_;
      const size_t end = rest_.find('\n');
      line_ = rest_.substr(0, end);
      rest_ = end == std::string_view::npos ? std::string_view() : rest_.substr(end + 1);
      skip_blanks();
      if (!line_.empty() && line_[0] != '#') return true;
    }
    line_ = {};
    return false;
  }

  template <class Number>
  std::optional<Number> number() {
    Number value{};
    const auto [end, error] = std::from_chars(line_.data(), line_.data() + line_.size(), value);
    const auto length = static_cast<size_t>(end - line_.data());
    if (error != std::errc() || (length < line_.size() && !is_blank(line_[length]))) return {};
    line_.remove_prefix(length);
    skip_blanks();
    return value;
  }

  bool at_line_end() const { return line_.empty(); }
  // The word that could not be read, cut short: it may be a megabyte of noise.
  std::string word() const {
    size_t length = 0;
    while (length < line_.size() && !is_blank(line_[length]) && length < 24) ++length;
    return std::string(line_.substr(0, length));
  }

  template <class... Args>
  Error error(fmt::format_string<Args...> text, Args&&... args) const {
    return errorf(Code::kInvalidArgument, "{}:{}: {}", source_, number_,
                  fmt::format(text, std::forward<Args>(args)...));
  }

 private:
  void skip_blanks() {
    size_t i = 0;
    while (i < line_.size() && is_blank(line_[i])) ++i;
    line_.remove_prefix(i);
  }

  std::string_view rest_, line_;
  std::string_view source_;
  int64_t number_ = 0;
};

constexpr int64_t kMaxLinks = 120'000'000;

Result<void> read_rates(LineReader& reader, int32_t node, int32_t layers,
                        std::vector<double>& rates) {
  const std::optional<int64_t> count = reader.number<int64_t>();
  if (!count || *count < 0 || *count > layers) {
    return reader.error("node {}: the number of layers it can hold must be 0..{}, found '{}'", node,
                        layers, count ? std::to_string(*count) : reader.word());
  }
  for (int64_t k = 1; k <= *count; ++k) {
    const std::optional<double> rate = reader.number<double>();
    if (!rate || !in_range(*rate)) {
      return reader.error("node {}: T({}) must be tokens/s from 0 to 1e15, found '{}'", node, k,
                          rate ? std::to_string(*rate) : reader.word());
    }
    rates.push_back(*rate);
  }
  if (!reader.at_line_end()) {
    return reader.error("node {}: {} values expected, then '{}' follows", node, *count,
                        reader.word());
  }
  return {};
}

Result<InstanceLink> read_link(LineReader& reader, int32_t nodes) {
  const std::optional<int32_t> from = reader.number<int32_t>();
  const std::optional<int32_t> to = from ? reader.number<int32_t>() : std::nullopt;
  const std::optional<double> capacity = to ? reader.number<double>() : std::nullopt;
  if (!capacity || !reader.at_line_end()) {
    return reader.error("a link is 'from to capacity', cannot read '{}'", reader.word());
  }
  if (*from != kSource && (*from < 0 || *from >= nodes)) {
    return reader.error("link from {}: must be a node 0..{} or -1 (the source)", *from, nodes - 1);
  }
  if (*to != kSink && (*to < 0 || *to >= nodes)) {
    return reader.error("link to {}: must be a node 0..{} or -2 (the sink)", *to, nodes - 1);
  }
  if (!in_range(*capacity)) {
    return reader.error(
        "link {} -> {}: the capacity must be tokens/s from 0 to 1e15, found {}",
        *from, *to, *capacity);
  }
  return InstanceLink{*from, *to, *capacity};
}

}  // namespace

std::string Instance::name(int32_t node) const {
  return names.empty() ? std::to_string(node) : names[node];
}

Result<void> validate(const Instance& instance) {
  if (instance.layers < 1 || instance.layers > Instance::kMaxLayers) {
    return errorf(Code::kInvalidArgument, "the model has {} layers; 1 to {} are possible",
                  instance.layers, Instance::kMaxLayers);
  }
  if (instance.rates.empty() || instance.rates.size() > size_t{Instance::kMaxNodes}) {
    return errorf(Code::kInvalidArgument, "the cluster has {} nodes; 1 to {} are possible",
                  instance.rates.size(), Instance::kMaxNodes);
  }
  for (int32_t node = 0; node < instance.nodes(); ++node) {
    if (instance.max_count(node) > instance.layers) {
      return errorf(Code::kInvalidArgument, "node {} has rates for {} layers; the model has {}",
                    instance.name(node), instance.max_count(node), instance.layers);
    }
    for (const double rate : instance.rates[node]) {
      if (!in_range(rate)) {
        return errorf(Code::kInvalidArgument,
                      "node {} has a rate of {} tokens/s; possible are 0 to 1e15",
                      instance.name(node), rate);
      }
    }
  }
  for (const InstanceLink& link : instance.links) {
    const bool from_known =
        link.from == kSource || (link.from >= 0 && link.from < instance.nodes());
    const bool to_known = link.to == kSink || (link.to >= 0 && link.to < instance.nodes());
    if (!from_known || !to_known || !in_range(link.capacity)) {
      return errorf(Code::kInvalidArgument,
                    "link {} -> {} with capacity {}: unknown node or impossible capacity",
                    link.from, link.to, link.capacity);
    }
  }
  for (const SharedMachine& machine : instance.machines) {
    bool sound = machine.devices >= 0 && machine.nodes.size() == machine.node_devices.size();
    for (const int32_t node : machine.nodes) sound &= node >= 0 && node < instance.nodes();
    for (const int32_t devices : machine.node_devices) sound &= devices > 0;
    if (!sound) return Error(Code::kInvalidArgument, "a shared machine names unknown nodes");
  }
  return {};
}

Result<void> validate(const Placement& placement, const Instance& instance) {
  if (placement.nodes.size() != instance.rates.size()) {
    return errorf(Code::kInvalidArgument, "the placement has {} nodes, the cluster {}",
                  placement.nodes.size(), instance.rates.size());
  }
  for (int32_t node = 0; node < instance.nodes(); ++node) {
    const LayerRange range = placement.nodes[node];
    if (range.empty()) continue;
    if (range.begin < 0 || range.end > instance.layers) {
      return errorf(Code::kInvalidArgument, "node {} holds layers [{}, {}); the model has {}",
                    instance.name(node), range.begin, range.end, instance.layers);
    }
    if (range.size() > instance.max_count(node)) {
      return errorf(Code::kInvalidArgument, "node {} holds {} layers; at most {} fit",
                    instance.name(node), range.size(), instance.max_count(node));
    }
  }
  for (const SharedMachine& machine : instance.machines) {
    int64_t used = 0;
    for (size_t i = 0; i < machine.nodes.size(); ++i) {
      if (!placement.nodes[machine.nodes[i]].empty()) used += machine.node_devices[i];
    }
    if (used > machine.devices) {
      return errorf(Code::kInvalidArgument, "the machine of node {} has {} devices, {} are used",
                    instance.name(machine.nodes[0]), machine.devices, used);
    }
  }
  return {};
}

Result<Instance> parse_instance(std::string_view text, std::string_view source) {
  LineReader reader(text, source);
  Instance instance;
  if (!reader.next_line()) {
    return errorf(Code::kInvalidArgument,
                  "{} is empty; an instance begins with 'layers nodes links'", source);
  }
  const std::optional<int64_t> layers = reader.number<int64_t>();
  const std::optional<int64_t> nodes = layers ? reader.number<int64_t>() : std::nullopt;
  const std::optional<int64_t> links = nodes ? reader.number<int64_t>() : std::nullopt;
  if (!links || !reader.at_line_end()) {
    return reader.error("an instance begins with 'layers nodes links', cannot read '{}'",
                        reader.word());
  }
  if (*layers < 1 || *layers > Instance::kMaxLayers || *nodes < 1 || *nodes > Instance::kMaxNodes ||
      *links < 0 || *links > kMaxLinks) {
    return reader.error("{} layers, {} nodes, {} links: possible are 1..{}, 1..{}, 0..{}", *layers,
                        *nodes, *links, Instance::kMaxLayers, Instance::kMaxNodes, kMaxLinks);
  }
  // Every node and link takes at least four bytes of text, so a lying header
  // reserves little.
  if (static_cast<size_t>(*nodes + *links) > text.size()) {
    return reader.error("{} nodes and {} links are announced, the file is too short for them",
                        *nodes, *links);
  }
  instance.layers = static_cast<int32_t>(*layers);
  instance.rates.resize(static_cast<size_t>(*nodes));
  for (int32_t node = 0; node < instance.nodes(); ++node) {
    if (!reader.next_line()) return reader.error("the line of node {} is missing", node);
    TRY(read_rates(reader, node, instance.layers, instance.rates[node]));
  }
  instance.links.reserve(static_cast<size_t>(*links));
  for (int64_t i = 0; i < *links; ++i) {
    if (!reader.next_line()) return reader.error("{} links are announced, {} given", *links, i);
    ASSIGN_OR_RETURN(const InstanceLink link, read_link(reader, instance.nodes()));
    instance.links.push_back(link);
  }
  if (reader.next_line()) return reader.error("more than the {} links announced", *links);
  return instance;
}

Result<Instance> load_instance(const std::string& path) {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::open(path));
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()),
                              file.bytes().size());
  return parse_instance(text, path);
}

std::string print_instance(const Instance& instance) {
  fmt::memory_buffer out;
  fmt::format_to(std::back_inserter(out), "{} {} {}\n", instance.layers, instance.nodes(),
                 instance.links.size());
  for (const std::vector<double>& rates : instance.rates) {
    fmt::format_to(std::back_inserter(out), "{}", rates.size());
    for (const double rate : rates) fmt::format_to(std::back_inserter(out), " {}", rate);
    out.push_back('\n');
  }
  for (const InstanceLink& link : instance.links) {
    fmt::format_to(std::back_inserter(out), "{} {} {}\n", link.from, link.to, link.capacity);
  }
  return fmt::to_string(out);
}

Result<Placement> parse_placement(std::string_view text, std::string_view source,
                                  const Instance& instance) {
  LineReader reader(text, source);
  Placement placement;
  placement.nodes.resize(instance.rates.size());
  std::vector<bool> seen(instance.rates.size());
  while (reader.next_line()) {
    const std::optional<int32_t> node = reader.number<int32_t>();
    const std::optional<int32_t> begin = node ? reader.number<int32_t>() : std::nullopt;
    const std::optional<int32_t> count = begin ? reader.number<int32_t>() : std::nullopt;
    if (!count || !reader.at_line_end()) {
      return reader.error("a placement line is 'node start count', cannot read '{}'",
                          reader.word());
    }
    if (*node < 0 || *node >= instance.nodes()) {
      return reader.error("node {}: the cluster has nodes 0..{}", *node, instance.nodes() - 1);
    }
    if (seen[*node]) return reader.error("node {} is placed twice", *node);
    seen[*node] = true;
    if (*count < 0 || *count > instance.max_count(*node)) {
      return reader.error("node {}: {} layers do not fit; 0..{} do", *node, *count,
                          instance.max_count(*node));
    }
    if (*count == 0) continue;
    if (*begin < 0 || *begin > instance.layers - *count) {
      return reader.error("node {}: layers [{}, {}+{}) are outside the model's {}", *node, *begin,
                          *begin, *count, instance.layers);
    }
    placement.nodes[*node] = {*begin, *begin + *count};
  }
  TRY(validate(placement, instance).context(source));
  return placement;
}

Result<Placement> load_placement(const std::string& path, const Instance& instance) {
  ASSIGN_OR_RETURN(const std::string text, read_file(path, int64_t{1} << 28));
  return parse_placement(text, path, instance);
}

std::string print_placement(const Placement& placement) {
  fmt::memory_buffer out;
  for (size_t node = 0; node < placement.nodes.size(); ++node) {
    const LayerRange range = placement.nodes[node];
    fmt::format_to(std::back_inserter(out), "{} {} {}\n", node, range.empty() ? 0 : range.begin,
                   range.empty() ? 0 : range.size());
  }
  return fmt::to_string(out);
}

namespace {

// [node]: is it reached from `origin` over links, followed forwards or backwards?
std::vector<bool> reached(const Instance& instance, bool forwards) {
  std::vector<std::vector<int32_t>> next(instance.rates.size());
  std::vector<bool> seen(instance.rates.size(), false);
  std::vector<int32_t> queue;
  const auto visit = [&](int32_t node) {
    if (seen[node]) return;
    seen[node] = true;
    queue.push_back(node);
  };
  for (const InstanceLink& link : instance.links) {
    if (link.capacity <= 0) continue;
    const int32_t from = forwards ? link.from : link.to;
    const int32_t to = forwards ? link.to : link.from;
    if (from >= 0 && to >= 0) next[from].push_back(to);
    if (from < 0 && to >= 0) visit(to);
  }
  for (size_t at = 0; at < queue.size(); ++at) {
    for (const int32_t node : next[queue[at]]) visit(node);
  }
  return seen;
}

// Most layers that the nodes of `wanted` hold together, at any positive rate.
int64_t room(const Instance& instance, const std::vector<bool>& wanted) {
  std::vector<int64_t> most(instance.rates.size(), 0);
  for (int32_t node = 0; node < instance.nodes(); ++node) {
    for (int32_t k = 1; wanted[node] && k <= instance.max_count(node); ++k) {
      if (instance.rate(node, k) > 0) most[node] = k;
    }
  }
  int64_t total = 0;
  for (const SharedMachine& machine : instance.machines) {
    std::vector<int64_t> best(static_cast<size_t>(machine.devices) + 1, 0);  // [devices used]
    for (size_t i = 0; i < machine.nodes.size(); ++i) {
      const int32_t need = machine.node_devices[i];
      for (int32_t d = machine.devices; d >= need; --d) {
        best[d] = std::max(best[d], best[d - need] + most[machine.nodes[i]]);
      }
      most[machine.nodes[i]] = 0;
    }
    total += best.back();
  }
  return std::accumulate(most.begin(), most.end(), total);
}

}  // namespace

Result<void> check_room(const Instance& instance) {
  std::vector<bool> joined = reached(instance, true);
  const std::vector<bool> back = reached(instance, false);
  size_t count = 0;
  for (size_t i = 0; i < joined.size(); ++i) {
    joined[i] = joined[i] && back[i];
    count += joined[i] ? 1 : 0;
  }
  const int64_t held = room(instance, joined);
  if (held >= instance.layers) return {};
  const int64_t all = room(instance, std::vector<bool>(joined.size(), true));
  if (all < instance.layers) {
    return errorf(Code::kInvalidArgument,
                  "the cluster is too small: its nodes hold at most {} layers together, the model "
                  "has {}; add nodes or choose a smaller model",
                  all, instance.layers);
  }
  return errorf(Code::kInvalidArgument,
                "only {} of the {} nodes are joined to the coordinator by links both ways, "
                "and they hold at most {} of the {} layers; add links",
                count, instance.nodes(), held, instance.layers);
}

}  // namespace towline::plan
