// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/simulate_world.hpp"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "base/fmt.hpp"
#include "spec/churn.hpp"
#include "spec/region_links.hpp"

namespace towline::cli {
namespace {

using Kind = sim::DisturbanceKind;

std::vector<std::string_view> items_of(std::string_view list) {
  std::vector<std::string_view> items;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t comma = std::min(list.find(',', begin), list.size());
    if (comma > begin) items.push_back(list.substr(begin, comma - begin));
    begin = comma + 1;
  }
  return items;
}

template <class Number>
bool parse(std::string_view word, Number& value) {
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  return error == std::errc() && end == word.data() + word.size();
}

struct Word {
  std::string_view name;
  Kind kind;
  bool factor = false;      // written TARGET*FACTOR
  bool all_links = false;   // the target is a node; what happens, happens to all its links
};
constexpr Word kWords[] = {
    {"crash", Kind::kCrash, false, false},         {"rejoin", Kind::kRejoin, false, false},
    {"reclaim", Kind::kReclaim, false, false},     {"drain", Kind::kDrain, false, false},
    {"hang", Kind::kHang, false, false},           {"resume", Kind::kResume, false, false},
    {"slow", Kind::kSlow, true, false},            {"linkdown", Kind::kLinkDown, false, false},
    {"linkup", Kind::kLinkUp, false, false},       {"bandwidth", Kind::kBandwidth, true, false},
    {"latency", Kind::kLatency, true, false},      {"cut", Kind::kLinkDown, false, true},
    {"heal", Kind::kLinkUp, false, true},
};

constexpr double kLatest = 9e9, kMostFactor = 1e9;  // what the engine takes

// The kind of a disturbance by its name, or what there is.
Result<Word> kind_of(std::string_view name) {
  const auto word = std::ranges::find(kWords, name, &Word::name);
  if (word != std::end(kWords)) return *word;
  std::string known;
  for (const Word& each : kWords) known += format("{}{}", known.empty() ? "" : ", ", each.name);
  return errorf(Code::kInvalidArgument, "'{}' is not one of {}", name, known);
}

// `links`: of those in `input`, else of its nodes.
Result<int32_t> read_target(std::string_view text, bool links, const sim::HelixInput& input) {
  const size_t count = links ? input.links.size() : input.nodes.size();
  int32_t target = 0;
  if (parse(text, target) && target >= 0 && static_cast<size_t>(target) < count) return target;
  return errorf(Code::kInvalidArgument,
                "there is no {0} '{1}'; {0}s are given by their place in the file, from 0 to {2}",
                links ? "link" : "node", text, static_cast<int64_t>(count) - 1);
}

// "crash:3@60", "slow:2*1.5@10"
Result<void> parse_disturbance(std::string_view text, const sim::HelixInput& input,
                               std::vector<sim::Disturbance>& into) {
  const size_t colon = text.find(':'), at = text.rfind('@');
  if (colon == std::string_view::npos || at == std::string_view::npos || at < colon) {
    return Error(Code::kInvalidArgument,
                 "write WHAT:TARGET@SECONDS, such as crash:3@60, or WHAT:TARGET*FACTOR@SECONDS, "
                 "such as slow:3*1.5@60");
  }
  ASSIGN_OR_RETURN(const Word word, kind_of(text.substr(0, colon)));
  sim::Disturbance d;
  d.kind = word.kind;
  std::string_view target = text.substr(colon + 1, at - colon - 1);
  const size_t star = target.find('*');
  const bool has_factor = star != std::string_view::npos;
  if (has_factor && !word.factor) {
    return errorf(Code::kInvalidArgument, "{} takes no factor; leave '{}' out", word.name,
                  target.substr(star));
  }
  if (word.factor && !has_factor) {
    return errorf(Code::kInvalidArgument, "{0} needs a factor, as in {0}:{1}*1.5@60", word.name,
                  target);
  }
  if (has_factor) {
    const std::string_view factor = target.substr(star + 1);
    if (!parse(factor, d.factor) || !(d.factor > 0 && d.factor < kMostFactor)) {
      return errorf(Code::kInvalidArgument, "the factor '{}' is no number above 0 and below {}",
                    factor, kMostFactor);
    }
    target = target.substr(0, star);
  }
  const bool of_links = d.kind >= Kind::kLinkDown && !word.all_links;
  ASSIGN_OR_RETURN(d.target, read_target(target, of_links, input));
  if (!parse(text.substr(at + 1), d.at) || !(d.at >= 0 && d.at < kLatest)) {
    return errorf(Code::kInvalidArgument, "the time '{}' is no number of seconds from 0 to {}",
                  text.substr(at + 1), kLatest);
  }
  if (!word.all_links) {
    into.push_back(d);
    return {};
  }
  const int32_t node = d.target;
  for (size_t i = 0; i < input.links.size(); ++i) {
    if (input.links[i].from != node && input.links[i].to != node) continue;
    d.target = static_cast<int32_t>(i);
    into.push_back(d);
  }
  return {};
}

Result<void> add_churn(const SimulateOptions& o, const sim::HelixInput& input,
                       std::vector<sim::Disturbance>& into) {
  ASSIGN_OR_RETURN(const spec::ChurnTrace churn,
                   spec::load_churn(o.churn, static_cast<uint64_t>(o.seed)));
  const auto nodes = std::min<int32_t>(churn.machines, static_cast<int32_t>(input.nodes.size()));
  std::vector<bool> up = churn.up_at_start;
  size_t next = 0;
  for (; next < churn.events.size() && churn.events[next].at <= o.churn_from; ++next) {
    up[churn.events[next].machine] = churn.events[next].up;
  }
  for (int32_t m = 0; m < nodes; ++m) {
    if (!up[m]) into.push_back({0, Kind::kReclaim, m, 1});
  }
  for (; next < churn.events.size(); ++next) {
    const spec::ChurnEvent& e = churn.events[next];
    if (e.machine >= nodes) continue;
    const double at = (e.at - o.churn_from) / o.churn_speed;
    if (e.up) {
      into.push_back({at, Kind::kRejoin, e.machine, 1});
    } else if (o.spot_warning > 0) {
      into.push_back({std::max(at - o.spot_warning, 0.0), Kind::kDrain, e.machine, 1});
      into.push_back({at, Kind::kReclaim, e.machine, 1});
    } else {
      into.push_back({at, Kind::kCrash, e.machine, 1});
    }
  }
  return {};
}

// "aws:us-east-1*8,gcp:europe-west6-a*16": the region of each node, in order.
Result<std::vector<std::string>> regions_of(const SimulateOptions& o, size_t nodes) {
  std::vector<std::string> regions;
  for (const std::string_view item : items_of(o.regions)) {
    const size_t star = item.rfind('*');
    int32_t count = 1;
    if (star != std::string_view::npos && (!parse(item.substr(star + 1), count) || count < 1)) {
      return errorf(Code::kInvalidArgument, "--regions '{}': write REGION*NODES,REGION*NODES,...",
                    o.regions);
    }
    regions.insert(regions.end(), static_cast<size_t>(std::min(count, 1'000'000)),
                   std::string(item.substr(0, star)));
    if (regions.size() > nodes) break;
  }
  if (regions.size() != nodes) {
    return errorf(Code::kInvalidArgument, "--regions is about {} nodes, the cluster has {}",
                  regions.size() > nodes ? "more" : format("{}", regions.size()), nodes);
  }
  return regions;
}

Result<void> apply_network(const SimulateOptions& o, sim::HelixInput& input) {
  if (o.network.empty() != o.regions.empty()) {
    return Error(Code::kInvalidArgument, "--network and --regions belong together");
  }
  if (o.network.empty()) return {};
  spec::RegionLinks links;
  for (const std::string& path : o.network) TRY(links.load(path));
  ASSIGN_OR_RETURN(const std::vector<std::string> regions, regions_of(o, input.nodes.size()));
  const std::string home = o.coordinator_region.empty() ? regions.front() : o.coordinator_region;
  for (const std::string& region : regions) {
    if (!links.knows(region)) {
      return errorf(Code::kNotFound, "the files of --network say nothing of region '{}'", region);
    }
  }
  const auto region = [&](int32_t place) { return place < 0 ? home : regions[place]; };
  for (sim::HelixLink& link : input.links) {
    const std::string from = region(link.from), to = region(link.to);
    if (from == to) continue;
    const spec::RegionLink between = links.between(from, to);
    if (!between.latency && !between.bandwidth) {
      return errorf(Code::kNotFound, "the files of --network say nothing of the way from {} to {}",
                    from, to);
    }
    if (between.latency) link.latency = between.latency->value;
    if (between.bandwidth) link.bandwidth = between.bandwidth->value;
    link.price = between.price;
  }
  return {};
}

// "A100=3.67,T4=0.35"
Result<void> apply_prices(const SimulateOptions& o, sim::HelixInput& input) {
  for (const std::string_view item : items_of(o.prices)) {
    const size_t equals = item.find('=');
    double price = 0;
    if (equals == std::string_view::npos || !parse(item.substr(equals + 1), price) ||
        !(price >= 0 && price < 1e9)) {
      return errorf(Code::kInvalidArgument, "--prices '{}': write TYPE=PRICE,TYPE=PRICE", o.prices);
    }
    const auto type = std::ranges::find(input.machines, item.substr(0, equals));
    if (type == input.machines.end()) {
      return errorf(Code::kInvalidArgument, "--prices: the cluster has no machine of type '{}'",
                    item.substr(0, equals));
    }
    for (sim::HelixNode& node : input.nodes) {
      if (node.machine == type - input.machines.begin()) node.price = price;
    }
  }
  return {};
}

}  // namespace

void add_world_options(OptionTable& t, SimulateOptions& o) {
  t.value("detect", &o.detect, "towline: seconds until a failure is noticed").range(0, 1e6);
  t.value("disturb", &o.disturb,
          "towline: crash:NODE@T, reclaim: (announced), rejoin:, drain:, hang:, resume:, cut: and "
          "heal: (all its links), slow:NODE*FACTOR@T; linkdown:LINK@T, linkup:, "
          "bandwidth:LINK*FACTOR@T, latency:; nodes and links by their place in the file, seconds "
          "after the start");
  t.value("churn", &o.churn,
          "towline: machines that go and come back, from a SkyPilot, Bamboo or InfiniteHBD trace")
      .metavar("FILE");
  t.value("churn-speed", &o.churn_speed, "towline: the trace runs so many times faster")
      .range(1e-6, 1e9);
  t.value("churn-from", &o.churn_from, "towline: seconds into the trace to begin at").range(0, 1e9);
  t.value("spot-warning", &o.spot_warning,
          "towline: seconds before a machine of --churn goes; it is drained then").range(0, 1e6);
  t.value("network", &o.network,
          "towline: latency, throughput or egress prices between regions (Skyplane's CSV); several")
      .metavar("FILE");
  t.value("regions", &o.regions, "towline: the nodes' regions in their order, as REGION*NODES,...");
  t.value("coordinator-region", &o.coordinator_region, "towline: default: the first node's");
  t.value("prices", &o.prices,
          "towline: price of an hour of each machine type, as A100=3.67,T4=0.35");
}

Result<std::vector<sim::Disturbance>> load_disturbances(const SimulateOptions& o,
                                                        const sim::HelixInput& input) {
  std::vector<sim::Disturbance> disturbances;
  for (const std::string& list : o.disturb) {
    for (const std::string_view item : items_of(list)) {
      TRY(parse_disturbance(item, input, disturbances).context(format("--disturb '{}'", item)));
    }
  }
  if (!o.churn.empty()) TRY(add_churn(o, input, disturbances));
  std::ranges::stable_sort(disturbances, {}, &sim::Disturbance::at);
  return disturbances;
}

Result<void> apply_world(const SimulateOptions& o, sim::HelixInput& input) {
  TRY(apply_network(o, input));
  return apply_prices(o, input);
}

}  // namespace towline::cli
