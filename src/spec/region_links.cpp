// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/region_links.hpp"

#include <algorithm>
#include <array>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "spec/csv.hpp"

namespace towline::spec {
namespace {

constexpr int64_t kLargestFile = int64_t{256} << 20;
constexpr double kMostMilliseconds = 1e6, kMostBits = 1e15, kMostPrice = 1e6;

struct Columns {
  int from = -1, to = -1, rtt = -1, deviation = -1, throughput = -1, price = -1;
};

Columns columns_of(const std::vector<std::string_view>& header) {
  struct Name {
    std::string_view name;
    int Columns::*column;
  };
  constexpr std::array kNames = {
      Name{"src_region", &Columns::from},       Name{"src", &Columns::from},
      Name{"dst_region", &Columns::to},         Name{"dst", &Columns::to},
      Name{"dest", &Columns::to},               Name{"avg_rtt", &Columns::rtt},
      Name{"mdev_rtt", &Columns::deviation},    Name{"throughput_sent", &Columns::throughput},
      Name{"cost", &Columns::price}};
  Columns columns;
  for (size_t i = 0; i < header.size(); ++i) {
    for (const Name& known : kNames) {
      if (header[i] == known.name) columns.*known.column = static_cast<int>(i);
    }
  }
  return columns;
}

}  // namespace

Result<void> RegionLinks::read(std::string_view text, std::string_view source) {
  Lines lines(text);
  std::string_view line;
  if (!lines.next(line)) return errorf(Code::kInvalidArgument, "{}: the file is empty", source);
  const Columns c = columns_of(csv_cells(line));
  if (c.from < 0 || c.to < 0 || (c.rtt < 0 && c.throughput < 0 && c.price < 0)) {
    return errorf(Code::kInvalidArgument,
                  "{}: no known columns in '{}'; regions are called src_region and dst_region (or "
                  "src and dst), values avg_rtt, throughput_sent or cost",
                  source, line.substr(0, 200));
  }
  const int last = std::max({c.from, c.to, c.rtt, c.deviation, c.throughput, c.price});
  while (lines.next(line)) {
    const std::vector<std::string_view> cells = csv_cells(line);
    const auto fault = [&](std::string_view what) {
      return errorf(Code::kInvalidArgument, "{}:{}: {}", source, lines.number(), what);
    };
    if (static_cast<int>(cells.size()) <= last) {
      return fault(format("{} columns, the header promises at least {}", cells.size(), last + 1));
    }
    RegionLink& link = links_[{std::string(cells[c.from]), std::string(cells[c.to])}];
    // Runs that failed left their cell empty.
    const auto value = [&](int column, double most, double& into) {
      if (column < 0 || cells[column].empty()) return true;
      const std::optional<double> number = csv_number(cells[column]);
      if (!number || !(*number >= 0 && *number <= most)) return false;
      into = *number;
      return true;
    };
    double rtt = -1, deviation = 0, bits = -1, price = -1;
    if (!value(c.rtt, kMostMilliseconds, rtt) ||
        !value(c.deviation, kMostMilliseconds, deviation) ||
        !value(c.throughput, kMostBits, bits) || !value(c.price, kMostPrice, price)) {
      return fault("a value is no number or out of range");
    }
    if (rtt >= 0 && (!link.latency || rtt * 0.5e-3 < link.latency->value)) {
      link.latency = Seconds(rtt * 0.5e-3);
      link.jitter = Seconds(deviation * 0.5e-3);
    }
    if (bits > 0 && (!link.bandwidth || bits / 8 > link.bandwidth->value)) {
      link.bandwidth = BytesPerSec(bits / 8);
    }
    if (price >= 0 && (link.price == 0 || price < link.price)) link.price = price;
  }
  return {};
}

Result<void> RegionLinks::load(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, read_file(path, kLargestFile));
  return read(text, path);
}

bool RegionLinks::knows(std::string_view region) const {
  return std::any_of(links_.begin(), links_.end(), [&](const auto& entry) {
    return entry.first.first == region || entry.first.second == region;
  });
}

RegionLink RegionLinks::between(std::string_view from, std::string_view to) const {
  const auto there = links_.find({std::string(from), std::string(to)});
  const auto back = links_.find({std::string(to), std::string(from)});
  RegionLink link = there == links_.end() ? RegionLink() : there->second;
  if (!link.latency && back != links_.end()) {
    link.latency = back->second.latency;
    link.jitter = back->second.jitter;
  }
  return link;
}

}  // namespace towline::spec
