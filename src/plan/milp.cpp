// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "plan/milp.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <unordered_map>

#include "base/fmt.hpp"
#include "plan/bounds.hpp"
#include "plan/flow_report.hpp"
#include "plan/max_flow.hpp"

namespace towline::plan {
namespace {

using Kind = MilpColumn::Kind;
using Sense = MilpRow::Sense;
using Terms = std::vector<std::pair<int32_t, double>>;

constexpr double kTolerance = 1e-3;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::string end_name(int32_t end) {
  return end == kSource ? "source" : end == kSink ? "sink" : std::to_string(end);
}

class Builder {
 public:
  Builder(const Instance& instance, const MilpForm& form) : instance_(instance) {
    model_.form = form;
  }

  MilpModel run() {
    add_columns();
    for (int32_t i = 0; i < instance_.nodes(); ++i) add_hold_rows(i);
    add_flow_rows();
    for (size_t l = 0; l < instance_.links.size(); ++l) add_link_rows(l);
    if (model_.form.bound_row) {
      Terms terms;
      for (size_t l = 0; l < instance_.links.size(); ++l) {
        if (instance_.links[l].from == kSource) terms.emplace_back(model_.flow[l], 1);
      }
      // A hair above the bound, so that rounding does not cut off a solution that attains it.
      row("flow_bound", Sense::kLess, truncated_capacity_bound(instance_) * (1 + 1e-9),
          std::move(terms));
    }
    return std::move(model_);
  }

 private:
  int32_t column(std::string name, Kind kind, double upper, double objective = 0) {
    model_.columns.push_back({std::move(name), kind, 0, upper, objective});
    return static_cast<int32_t>(model_.columns.size()) - 1;
  }
  void row(std::string name, Sense sense, double right, Terms terms) {
    model_.rows.push_back({std::move(name), sense, right, std::move(terms)});
  }
  // `sign` times the end of node i: start + sum k hold.
  void add_end(Terms& terms, int32_t i, double sign) const {
    terms.emplace_back(model_.start[i], sign);
    for (size_t k = 0; k < model_.hold[i].size(); ++k) {
      terms.emplace_back(model_.hold[i][k], sign * static_cast<double>(k + 1));
    }
  }

  void add_columns() {
    const bool all = !model_.form.remove_redundant;
    for (int32_t i = 0; i < instance_.nodes(); ++i) {
      model_.start.push_back(column(format("start_{}", i), Kind::kInteger,
                                    all ? instance_.layers - 1 : instance_.layers));
    }
    for (int32_t i = 0; i < instance_.nodes(); ++i) {
      auto& holds = model_.hold.emplace_back();
      for (int32_t k = 1; k <= instance_.max_count(i); ++k) {
        holds.push_back(column(format("hold_{}_{}", i, k), Kind::kBinary, 1));
      }
    }
    for (const InstanceLink& link : instance_.links) {
      const std::string ends = end_name(link.from) + "_" + end_name(link.to);
      const bool inner = link.from != kSource && link.to != kSink;
      model_.flow.push_back(
          column("flow_" + ends, Kind::kContinuous, kInfinity, link.from == kSource ? 1 : 0));
      model_.open.push_back(column("switch_" + ends, Kind::kBinary, 1));
      const bool partial = inner && model_.form.partial;
      model_.before.push_back(partial ? column("before_" + ends, Kind::kBinary, 1) : -1);
      model_.after.push_back(partial ? column("after_" + ends, Kind::kBinary, 1) : -1);
    }
  }

  void add_hold_rows(int32_t i) {
    Terms one;
    for (const int32_t hold : model_.hold[i]) one.emplace_back(hold, 1);
    row(format("hold_constraint_{}", i), Sense::kEqual, 1, std::move(one));
    Terms end;
    add_end(end, i, 1);
    row(format("end_constraint_{}", i), Sense::kLess, instance_.layers, std::move(end));
  }

  void add_flow_rows() {
    std::vector<Terms> conserved(instance_.rates.size());
    std::vector<Terms> throughput(instance_.rates.size());
    for (int32_t i = 0; i < instance_.nodes(); ++i) {
      for (int32_t k = 1; k <= instance_.max_count(i); ++k) {
        throughput[i].emplace_back(model_.hold[i][k - 1], -instance_.rate(i, k));
      }
    }
    for (size_t l = 0; l < instance_.links.size(); ++l) {
      const InstanceLink& link = instance_.links[l];
      if (link.to != kSink) {
        conserved[link.to].emplace_back(model_.flow[l], 1);
        throughput[link.to].emplace_back(model_.flow[l], 1);
      }
      if (link.from != kSource) conserved[link.from].emplace_back(model_.flow[l], -1);
    }
    for (int32_t i = 0; i < instance_.nodes(); ++i) {
      row(format("node_flow_constraint_{}", i), Sense::kEqual, 0, std::move(conserved[i]));
    }
    for (int32_t i = 0; i < instance_.nodes(); ++i) {
      row(format("node_throughput_constraint_{}", i), Sense::kLess, 0, std::move(throughput[i]));
    }
  }

  void add_link_rows(size_t l) {
    const InstanceLink& link = instance_.links[l];
    const double layers = instance_.layers;
    const int32_t open = model_.open[l];
    const std::string ends = end_name(link.from) + "_" + end_name(link.to);
    row("edge_flow_constr_" + ends, Sense::kLess, 0, {{model_.flow[l], 1}, {open, -link.capacity}});
    const bool all = !model_.form.remove_redundant;
    if (link.from == kSource) {
      const int32_t start = model_.start[link.to];
      row("edge_disable_constr_" + ends, Sense::kLess, layers, {{start, 1}, {open, layers}});
      if (all) {
        row("edge_enable_constr_" + ends, Sense::kGreater, 1, {{start, 1}, {open, 1}});
      }
    } else if (link.to == kSink) {
      Terms terms = {{open, layers}};
      add_end(terms, link.from, -1);
      row("edge_disable_constr_" + ends, Sense::kLess, 0, std::move(terms));
      if (all) {
        Terms enable = {{open, 1 - layers}};
        add_end(enable, link.from, 1);
        row("edge_enable_constr_" + ends, Sense::kLess, layers - 1, std::move(enable));
      }
    } else if (model_.form.partial) {
      add_partial_rows(l, ends);
    } else {
      Terms late = {{open, layers}, {model_.start[link.to], -1}};
      add_end(late, link.from, 1);
      row("edge_disable_constr1_" + ends, Sense::kLess, layers, std::move(late));
      Terms early = {{open, layers}, {model_.start[link.to], 1}};
      add_end(early, link.from, -1);
      row("edge_disable_constr2_" + ends, Sense::kLess, layers, std::move(early));
    }
  }

  // i -> j is open only if start_j <= end_i (before) and end_i < end_j (after).
  void add_partial_rows(size_t l, const std::string& ends) {
    const InstanceLink& link = instance_.links[l];
    const double big = instance_.layers + 1;
    const int32_t before = model_.before[l];
    const int32_t after = model_.after[l];
    Terms begins = {{before, big}, {model_.start[link.to], 1}};
    add_end(begins, link.from, -1);
    row("edge_before_constr_" + ends, Sense::kLess, big, std::move(begins));
    Terms outlasts = {{after, -big}};
    add_end(outlasts, link.to, 1);
    add_end(outlasts, link.from, -1);
    row("edge_after_constr_" + ends, Sense::kGreater, 1 - big, std::move(outlasts));
    row("edge_disable_constr_" + ends, Sense::kLess, 0,
        {{model_.open[l], 2}, {before, -1}, {after, -1}});
    if (model_.form.remove_redundant) return;
    Terms before_on = {{before, big}, {model_.start[link.to], 1}};
    add_end(before_on, link.from, -1);
    row("edge_before_on_" + ends, Sense::kGreater, 1, std::move(before_on));
    Terms after_on = {{after, big}};
    add_end(after_on, link.to, -1);
    add_end(after_on, link.from, 1);
    row("edge_after_on_" + ends, Sense::kGreater, 0, std::move(after_on));
    row("edge_enable_constr_" + ends, Sense::kLess, 1,
        {{before, 1}, {after, 1}, {model_.open[l], -1}});
  }

  const Instance& instance_;
  MilpModel model_;
};

// Terms in lines of at most some 90 characters, as LP files want them.
class LpText {
 public:
  void begin(const std::string& label) {
    flush();
    line_ = " " + label + ":";
  }
  void term(double coefficient, const std::string& name) {
    const char* sign = coefficient < 0 ? "-" : "+";
    const double size = std::fabs(coefficient);
    word(size == 1 ? format("{} {}", sign, name) : format("{} {} {}", sign, size, name));
  }
  void word(const std::string& text) {
    if (line_.size() + text.size() > 90) flush();
    line_ += (line_.empty() ? "   " : " ") + text;
  }
  void flush() {
    if (!line_.empty()) text_ += line_ + "\n";
    line_.clear();
  }
  void heading(const std::string& text) {
    flush();
    text_ += text + "\n";
  }
  std::string take() {
    flush();
    return std::move(text_);
  }

 private:
  std::string text_, line_;
};

bool parse_double(std::string_view word, double& value) {
  const auto parsed = std::from_chars(word.data(), word.data() + word.size(), value);
  return parsed.ec == std::errc() && parsed.ptr == word.data() + word.size() &&
         std::isfinite(value);
}

// The words of a line, at most four of them.
std::vector<std::string_view> words_of(std::string_view line) {
  constexpr std::string_view kBlank = " \t\r";
  std::vector<std::string_view> words;
  while (words.size() < 4) {
    const size_t begin = line.find_first_not_of(kBlank);
    if (begin == std::string_view::npos) break;
    line.remove_prefix(begin);
    const size_t end = std::min(line.find_first_of(kBlank), line.size());
    words.push_back(line.substr(0, end));
    line.remove_prefix(end);
  }
  return words;
}

}  // namespace

size_t MilpModel::nonzeros() const {
  size_t count = 0;
  for (const MilpRow& row : rows) count += row.terms.size();
  return count;
}

Result<MilpModel> build_milp(const Instance& instance, const MilpForm& form) {
  if (!instance.machines.empty()) {
    return Error(Code::kUnsupported,
                 "the MILP does not know machines with several devices; use the method auto");
  }
  for (int32_t i = 0; i < instance.nodes(); ++i) {
    if (instance.max_count(i) < 1) {
      return errorf(
          Code::kInvalidArgument,
          "not one layer fits on '{}', and the MILP places every node; remove the node or "
          "use the method auto",
          instance.name(i));
    }
  }
  return Builder(instance, form).run();
}

std::vector<double> milp_values(const MilpModel& model, const Instance& instance,
                                const Placement& placement) {
  Placement full = placement;
  for (LayerRange& range : full.nodes) {
    if (range.empty()) range = {0, 1};
  }
  std::vector<double> values(model.columns.size());
  for (int32_t i = 0; i < instance.nodes(); ++i) {
    values[model.start[i]] = full.nodes[i].begin;
    values[model.hold[i][full.nodes[i].size() - 1]] = 1;
  }
  const std::vector<int32_t> links = valid_links(instance, full, model.form.partial);
  const PlanGraph graph = build_graph(instance, full, links);
  const MaxFlow flow = max_flow(graph.graph, graph.source, graph.sink);
  for (size_t v = 0; v < links.size(); ++v) {
    values[model.flow[links[v]]] = flow.flow[graph.link_arc[v]];
    values[model.open[links[v]]] = 1;
  }
  for (size_t l = 0; l < instance.links.size(); ++l) {
    if (model.before[l] < 0) continue;
    const LayerRange from = full.nodes[instance.links[l].from];
    const LayerRange to = full.nodes[instance.links[l].to];
    values[model.before[l]] = to.begin <= from.end ? 1 : 0;
    values[model.after[l]] = from.end < to.end ? 1 : 0;
  }
  return values;
}

Placement placement_of(const MilpModel& model, const std::vector<double>& values) {
  Placement placement;
  for (size_t i = 0; i < model.start.size(); ++i) {
    const auto begin = static_cast<int32_t>(std::lround(values[model.start[i]]));
    int32_t count = 0;
    for (size_t k = 0; k < model.hold[i].size(); ++k) {
      if (values[model.hold[i][k]] > 0.5) count = static_cast<int32_t>(k) + 1;
    }
    placement.nodes.push_back({begin, begin + count});
  }
  return placement;
}

Result<void> check_solution(const MilpModel& model, const std::vector<double>& values) {
  for (size_t c = 0; c < model.columns.size(); ++c) {
    const MilpColumn& column = model.columns[c];
    const double value = values[c];
    const bool whole =
        column.kind == Kind::kContinuous || std::fabs(value - std::round(value)) <= kTolerance;
    if (!whole || value < column.lower - kTolerance || value > column.upper + kTolerance) {
      return errorf(
          Code::kInvalidArgument,
          "the solution gives {} the value {}, which is not {} from {} to {}; solve again",
          column.name, value, column.kind == Kind::kContinuous ? "a number" : "a whole number",
          column.lower, column.upper);
    }
  }
  for (const MilpRow& row : model.rows) {
    double sum = 0;
    double size = 1;
    for (const auto& [column, coefficient] : row.terms) {
      // Whole numbers are taken as such: 0.9999 of a link of 1e9 is not a leak.
      const bool whole = model.columns[column].kind != Kind::kContinuous;
      const double term = coefficient * (whole ? std::round(values[column]) : values[column]);
      sum += term;
      size = std::max(size, std::fabs(term));
    }
    const double slack = kTolerance * std::max(1.0, 1e-3 * size);
    const bool low = row.sense != Sense::kGreater && sum > row.right + slack;
    const bool high = row.sense != Sense::kLess && sum < row.right - slack;
    if (low || high) {
      return errorf(
          Code::kInvalidArgument,
          "the solution breaks {}: {} against {}; it is of another problem or of a solver "
          "with loose tolerances",
          row.name, sum, row.right);
    }
  }
  return {};
}

std::string print_lp(const MilpModel& model) {
  LpText text;
  text.heading("\\ Placement of layers on nodes: the flow of tokens/s is maximised");
  text.heading("Maximize");
  text.begin("flow");
  for (const MilpColumn& column : model.columns) {
    if (column.objective != 0) text.term(column.objective, column.name);
  }
  text.heading("Subject To");
  for (const MilpRow& row : model.rows) {
    text.begin(row.name);
    for (const auto& [column, coefficient] : row.terms) {
      text.term(coefficient, model.columns[column].name);
    }
    const char* sense = row.sense == Sense::kLess ? "<=" : row.sense == Sense::kEqual ? "=" : ">=";
    text.word(format("{} {}", sense, row.right));
  }
  text.heading("Bounds");
  for (const MilpColumn& column : model.columns) {
    if (column.kind == Kind::kInteger) text.heading(format(" {} <= {}", column.name, column.upper));
  }
  for (const auto& [name, kind] :
       {std::pair("Binaries", Kind::kBinary), std::pair("Generals", Kind::kInteger)}) {
    text.heading(name);
    for (const MilpColumn& column : model.columns) {
      if (column.kind == kind) text.word(column.name);
    }
  }
  text.heading("End");
  return text.take();
}

std::string print_sol(const MilpModel& model, const std::vector<double>& values) {
  double objective = 0;
  for (size_t c = 0; c < values.size(); ++c) objective += model.columns[c].objective * values[c];
  std::string text =
      format("# Solution of the placement model\n# Objective value = {}\n", objective);
  for (size_t c = 0; c < values.size(); ++c) {
    const bool whole = model.columns[c].kind != Kind::kContinuous;
    text += format("{} {}\n", model.columns[c].name, whole ? std::round(values[c]) : values[c]);
  }
  return text;
}

Result<std::vector<double>> parse_sol(const MilpModel& model, std::string_view text,
                                      std::string_view source) {
  std::unordered_map<std::string_view, size_t> by_name;
  for (size_t c = 0; c < model.columns.size(); ++c) by_name.emplace(model.columns[c].name, c);
  std::vector<double> values(model.columns.size());
  size_t known = 0;
  int line_number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    ++line_number;
    if (line.starts_with('#')) continue;
    const std::vector<std::string_view> words = words_of(line);
    for (size_t w = 0; w + 1 < words.size() && w < 2; ++w) {
      const auto found = by_name.find(words[w]);
      if (found == by_name.end()) continue;
      if (!parse_double(words[w + 1], values[found->second])) {
        return errorf(Code::kInvalidArgument, "{}:{}: {} has the value '{}', which is not a number",
                      source, line_number, words[w], words[w + 1]);
      }
      ++known;
      break;
    }
  }
  if (known == 0) {
    return errorf(Code::kInvalidArgument,
                  "{}: no variable of this placement problem (start_0, hold_0_1, ...); give the "
                  "solution of the .lp file that was written for this cluster",
                  source);
  }
  TRY(check_solution(model, values).context(source));
  return values;
}

}  // namespace towline::plan
