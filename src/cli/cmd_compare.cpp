// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline compare A B`: two results of simulate (or any JSON of numbers), field by field.
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <set>

#include "base/fmt.hpp"
#include "base/json.hpp"
#include "cli/commands.hpp"

namespace towline::cli {
namespace {

struct CompareOptions {
  std::string first, second;
  double tolerance = 0;
  std::vector<std::string> ignore = {"cpu_seconds", "max_rss_mb"};
  bool json = false, common = false;
};

OptionTable table(CompareOptions& o) {
  OptionTable t("compare", "Compare two results of simulate.");
  t.describe(
      "Prints every number that differs by more than the tolerance, and exits "
      "with 1 if any does, or if a field is missing in one of them. Takes files, "
      "or folders written by simulate --out.");
  t.positional("first", &o.first, "summary.json, or the folder with it").required();
  t.positional("second", &o.second, "the other").required();
  t.value("tolerance", &o.tolerance, "relative difference that counts as equal").range(0, 10);
  t.value("ignore", &o.ignore, "fields to leave out");
  t.flag("common", &o.common,
         "only fields that both have: a simulation against what `towline bench` measured");
  t.flag("json", &o.json, "print JSON");
  t.example("towline compare before after --tolerance 0.01");
  t.example("towline compare simulated.json measured.json --common --tolerance 0.1");
  return t;
}

struct Difference {
  std::string field;
  Json first, second;
  double relative = 0;  // infinite if not both are numbers
};

class Comparison {
 public:
  Comparison(double tolerance, bool common, const std::vector<std::string>& ignore)
      : tolerance_(tolerance), common_(common), ignore_(ignore.begin(), ignore.end()) {}

  void walk(const std::string& path, const Json& a, const Json& b) {
    if (a.is_object() && b.is_object()) {
      for (const auto& [key, value] : a.members()) visit(path, key, value, b[key]);
      for (const auto& [key, value] : b.members()) {
        if (!a.contains(key)) visit(path, key, Json(), value);
      }
    } else if (a.is_array() && b.is_array() && a.size() == b.size()) {
      for (size_t i = 0; i < a.size(); ++i) walk(format("{}[{}]", path, i), a[i], b[i]);
    } else if (a.is_number() && b.is_number()) {
      ++compared_;
      const double x = a.as_double(), y = b.as_double();
      const double scale = std::max(std::abs(x), std::abs(y));
      const double relative = scale > 0 ? std::abs(x - y) / scale : 0;
      if (relative > tolerance_) differences_.push_back({path, a, b, relative});
    } else if (!(a == b)) {
      differences_.push_back({path, a, b, INFINITY});
    } else {
      ++compared_;
    }
  }

  const std::vector<Difference>& differences() const { return differences_; }
  int64_t compared() const { return compared_; }

 private:
  void visit(const std::string& path, const std::string& key, const Json& a, const Json& b) {
    if (ignore_.contains(key) || (common_ && (a.is_null() || b.is_null()))) return;
    walk(path.empty() ? key : path + "." + key, a, b);
  }

  double tolerance_;
  bool common_;
  std::set<std::string> ignore_;
  std::vector<Difference> differences_;
  int64_t compared_ = 0;
};

Result<Json> load_result(const std::string& path) {
  std::error_code error;
  const bool folder = std::filesystem::is_directory(path, error);
  return load_json(folder ? path + "/summary.json" : path);
}

Result<int> run(std::span<const std::string> args) {
  CompareOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  ASSIGN_OR_RETURN(const Json first, load_result(o.first));
  ASSIGN_OR_RETURN(const Json second, load_result(o.second));
  Comparison comparison(o.tolerance, o.common, o.ignore);
  comparison.walk("", first, second);
  Json list = Json::array();
  for (const Difference& d : comparison.differences()) {
    if (o.json) {
      list.push(Json::object({{"field", d.field},
                              {"first", d.first},
                              {"second", d.second},
                              {"relative", d.relative}}));
    } else {
      std::puts(format("{:<28} {:>20} {:>20}  {}", d.field, d.first.dump(), d.second.dump(),
                       std::isfinite(d.relative) ? format("{:.3f} %", 100 * d.relative)
                                                 : std::string("not the same kind"))
                    .c_str());
    }
  }
  const bool equal = comparison.differences().empty();
  if (o.json) {
    Json json = Json::object({{"equal", equal}, {"fields", comparison.compared()}});
    json.set("differences", std::move(list));
    std::puts(json.dump(2).c_str());
  } else if (equal) {
    std::puts(format("equal: {} fields", comparison.compared()).c_str());
  }
  return equal ? 0 : 1;
}

}  // namespace

const Command kCompare = {"compare", "compare two results of simulate", run,
                          [](void (*sink)(const OptionTable&)) {
                            CompareOptions o;
                            sink(table(o));
                          }};

}  // namespace towline::cli
