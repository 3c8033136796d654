// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/picture.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "base/fmt.hpp"
#include "base/html.hpp"

namespace towline::plan {
namespace {

constexpr double kLeft = 150;   // room for the source and the regions' names
constexpr double kRight = 110;  // room for the sink
constexpr double kTop = 70;
constexpr double kNodeHeight = 30;
constexpr double kLane = 46;  // distance of two nodes above each other
constexpr double kRegionGap = 26;
constexpr double kLetter = 5.2;      // width of a letter of a label
constexpr double kPlotWidth = 1160;  // of all layers

struct Box {
  double x = 0, y = 0, width = 0;
  double middle() const { return y + kNodeHeight / 2; }
};

// From green (empty) over yellow to orange (full); red is for the cut.
std::string colour(double share, bool in_cut) {
  if (in_cut) return "#d11a2a";
  const double s = std::clamp(share, 0.0, 1.0);
  return format("hsl({:.0f},70%,42%)", 150 - 120 * s);
}

class Painter {
 public:
  Painter(const FlowReport& report, size_t most_links, PictureWords words)
      : report_(report), most_(most_links), words_(std::move(words)) {
    if (!words_.title.empty()) return;
    words_.title = format("{:.2f} tokens/s of at most {:.2f}; {:.2f} after the worst failure",
                          report.max_flow, report.upper_bound, report.n_minus_1_flow);
    words_.subtitle = report.bottleneck;
  }

  std::string run() {
    place();
    std::string body = regions_ + links() + nodes() + legend();
    const double width = kLeft + kPlotWidth + kRight;
    return format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" "
        "width=\"{0:.0f}\" "
        "height=\"{1:.0f}\" font-family=\"sans-serif\" font-size=\"11\">\n"
        "<rect width=\"{0:.0f}\" height=\"{1:.0f}\" fill=\"#ffffff\"/>\n"
        "<text x=\"12\" y=\"24\" font-size=\"16\">{2}</text>\n"
        "<text x=\"12\" y=\"44\" fill=\"#d11a2a\">{3}</text>\n{4}</svg>\n",
        width, height_, html_escaped(words_.title), html_escaped(words_.subtitle), body);
  }

 private:
  double x_of(double layer) const {
    return kLeft + kPlotWidth * layer / std::max(1, report_.layers);
  }

  // Nodes of a region side by side where their layers allow, else one below the other.
  void place() {
    std::map<std::string, std::vector<size_t>> by_region;
    for (size_t u = 0; u < report_.units.size(); ++u) {
      by_region[report_.units[u].region].push_back(u);
    }
    boxes_.resize(report_.units.size());
    double y = kTop;
    for (auto& [region, units] : by_region) {
      std::stable_sort(units.begin(), units.end(), [&](size_t a, size_t b) {
        return report_.units[a].layers.begin < report_.units[b].layers.begin;
      });
      std::vector<double> lane_end;  // where each lane is free again; labels may outgrow boxes
      for (const size_t u : units) {
        const LayerRange range = report_.units[u].layers;
        if (range.empty()) continue;
        const double x = x_of(range.begin) + 2;
        const double width = std::max(8.0, x_of(range.end) - 2 - x);
        const auto letters = static_cast<double>(short_name(report_.units[u]).size());
        size_t lane = 0;
        while (lane < lane_end.size() && lane_end[lane] > x) ++lane;
        if (lane == lane_end.size()) lane_end.push_back(0);
        lane_end[lane] = x + std::max(width, 6 + kLetter * letters);
        boxes_[u] = {x, y + kLane * static_cast<double>(lane), width};
      }
      const double height = kLane * static_cast<double>(std::max<size_t>(1, lane_end.size()));
      regions_ += format(
          "<rect x=\"{:.0f}\" y=\"{:.1f}\" width=\"{:.0f}\" height=\"{:.1f}\" rx=\"6\" "
          "fill=\"#f3f5f8\"/>\n<text x=\"12\" y=\"{:.1f}\" font-weight=\"bold\">{}</text>\n",
          kLeft - 12, y - 10, kPlotWidth + 24, height + 4, y + 18, html_escaped(region));
      idle(units, y + 34);
      y += height + kRegionGap;
    }
    height_ = y;
    const double middle = (kTop + y - kRegionGap) / 2;
    source_ = {kLeft - 62, middle - kNodeHeight / 2, 44};
    sink_ = {kLeft + kPlotWidth + 24, middle - kNodeHeight / 2, 44};
  }

  void idle(const std::vector<size_t>& units, double y) {
    size_t count = 0;
    for (const size_t u : units) count += report_.units[u].layers.empty() ? 1 : 0;
    if (count > 0) {
      regions_ += format("<text x=\"12\" y=\"{:.1f}\" fill=\"#666\">{} idle</text>\n", y, count);
    }
  }

  const Box& box(int32_t end) const {
    return end == kSource ? source_ : end == kSink ? sink_ : boxes_[end];
  }
  std::string name(int32_t end) const {
    return end == kSource ? "source" : end == kSink ? "sink" : report_.units[end].name;
  }

  // The layers' scale, and what colours and widths mean.
  std::string legend() {
    std::string text;
    const int32_t step = std::max(1, (report_.layers + 15) / 16);
    const double y = height_ - kRegionGap + 14;
    for (int32_t layer = 0; layer < report_.layers; layer += step) {
      text += format(
          "<line x1=\"{0:.1f}\" y1=\"{1:.1f}\" x2=\"{0:.1f}\" y2=\"{4:.1f}\" "
          "stroke=\"#888\"/><text x=\"{0:.1f}\" y=\"{2:.1f}\" font-size=\"9\" fill=\"#666\" "
          "text-anchor=\"middle\">{3}</text>\n",
          x_of(layer), y, y + 15, layer, y + 5);
    }
    text += format(
        "<text x=\"12\" y=\"{0:.1f}\" font-size=\"10\" fill=\"#666\">first layer</text>\n"
        "<text x=\"{1:.0f}\" y=\"{2:.1f}\" font-size=\"10\" fill=\"#666\">box: layers held, filled "
        "and coloured by the share of its rate in use; line: as wide as its flow, coloured by the "
        "share of its capacity; red: the minimum cut</text>\n",
        y + 15, kLeft, y + 36);
    height_ = y + 48;
    return text;
  }

  std::string links() const {
    std::vector<const LinkFlow*> shown;
    for (const LinkFlow& link : report_.links) {
      if (link.flow > 0 || link.in_cut) shown.push_back(&link);
    }
    std::stable_sort(shown.begin(), shown.end(),
                     [](const LinkFlow* a, const LinkFlow* b) { return a->flow > b->flow; });
    if (shown.size() > most_) shown.resize(most_);
    std::string text;
    for (const LinkFlow* link : shown) {
      const Box& from = box(link->from);
      const Box& to = box(link->to);
      const double x1 = from.x + from.width;
      const double bend = std::max(14.0, (to.x - x1) / 2);
      const double used = link->capacity > 0 ? link->flow / link->capacity : 1;
      const double width = 1 + 7 * link->flow / std::max(1e-9, report_.max_flow);
      text += format(
          "<path d=\"M{:.1f} {:.1f}C{:.1f} {:.1f} {:.1f} {:.1f} {:.1f} {:.1f}\" fill=\"none\" "
          "stroke=\"{}\" stroke-width=\"{:.1f}\" stroke-opacity=\"0.6\"{}><title>{} -&gt; {}: "
          "{:.2f} of {:.2f} tokens/s</title></path>\n",
          x1, from.middle(), x1 + bend, from.middle(), to.x - bend, to.middle(), to.x, to.middle(),
          colour(used, link->in_cut), width, link->in_cut ? " stroke-dasharray=\"6 3\"" : "",
          html_escaped(name(link->from)), html_escaped(name(link->to)), link->flow, link->capacity);
    }
    return text;
  }

  std::string nodes() const {
    std::string text;
    for (const auto& [end, label] : {std::pair(kSource, "source"), std::pair(kSink, "sink")}) {
      const Box& at = box(end);
      text += format(
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.0f}\" rx=\"5\" "
          "fill=\"#dde3ea\" stroke=\"#333\"/><text x=\"{:.1f}\" y=\"{:.1f}\" "
          "text-anchor=\"middle\">{}</text>\n",
          at.x, at.y, at.width, kNodeHeight, at.x + at.width / 2, at.middle() + 4, label);
    }
    for (size_t u = 0; u < report_.units.size(); ++u) {
      const UnitFlow& unit = report_.units[u];
      if (unit.layers.empty()) continue;
      const Box& at = boxes_[u];
      const double used = unit.capacity > 0 ? unit.flow / unit.capacity : 0;
      const std::string note =
          unit.unused_because.empty() ? "" : "; unused: " + unit.unused_because;
      text += format(
          "<g><title>{} {} layers {} to {}: {:.2f} of {:.2f} tokens/s; {:.2f} if it fails{}</title>"
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.0f}\" rx=\"4\" "
          "fill=\"#fff\" stroke=\"{}\" stroke-width=\"{}\"/>"
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.0f}\" rx=\"4\" fill=\"{}\" "
          "fill-opacity=\"0.35\"/>"
          "<text x=\"{:.1f}\" y=\"{:.1f}\" font-size=\"9\">{}</text>"
          "<text x=\"{:.1f}\" y=\"{:.1f}\" font-size=\"9\" fill=\"#444\">{}-{}</text></g>\n",
          html_escaped(unit.name), html_escaped(unit.kind), unit.layers.begin, unit.layers.end - 1,
          unit.flow, unit.capacity, unit.flow_without, html_escaped(note), at.x, at.y, at.width,
          kNodeHeight, unit.in_cut ? "#d11a2a" : "#556", unit.in_cut ? 2.5 : 1.0, at.x, at.y,
          at.width * std::clamp(used, 0.0, 1.0), kNodeHeight, colour(used, false), at.x + 3,
          at.y + 12, html_escaped(short_name(unit)), at.x + 3, at.y + 24, unit.layers.begin,
          unit.layers.end - 1);
    }
    return text;
  }

  // "compute_node_7" of type A100 is "7 A100": boxes are narrow.
  static std::string short_name(const UnitFlow& unit) {
    const size_t bar = unit.name.rfind('_');
    const std::string name = bar == std::string::npos ? unit.name : unit.name.substr(bar + 1);
    return unit.kind.empty() ? name : name + " " + unit.kind;
  }

  const FlowReport& report_;
  const size_t most_;
  PictureWords words_;
  std::vector<Box> boxes_;  // [unit]
  Box source_, sink_;
  std::string regions_;
  double height_ = 0;
};

}  // namespace

std::string picture_svg(const FlowReport& report, size_t most_links, const PictureWords& words) {
  return Painter(report, most_links, words).run();
}

std::string picture_html(const FlowReport& report) {
  return format(
      "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Plan</title>\n"
      "<style>body{{font-family:sans-serif;margin:16px}}svg{{max-width:100%;height:auto}}"
      "pre{{font-size:12px;overflow:auto}}</style></head>\n<body>\n{}<pre>{}</pre>\n</body>\n</"
      "html>\n",
      picture_svg(report), html_escaped(print_report(report)));
}

}  // namespace towline::plan
