// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/scenario.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <functional>
#include <set>
#include <span>

#include "base/fmt.hpp"
#include "spec/cluster_desc.hpp"
#include "spec/toml_text.hpp"
#include "spec/workload.hpp"

namespace towline::spec {
namespace {

constexpr std::string_view kCoordinator = "coordinator";
constexpr size_t kMaxWorkers = 100'000;
constexpr size_t kMaxName = 64;
constexpr int64_t kMaxKvTokens = int64_t{1} << 30;

// One key of a table: how its value is checked and stored.
struct Key {
  std::string_view name;
  std::function<Result<void>(const Json&)> store;
};

Error wrong(const Json& value, std::string_view wanted) {
  // JSON has no nan.
  const bool finite = !value.is_number() || std::isfinite(value.as_double());
  return errorf(Code::kInvalidArgument, "{} is not {}",
                finite ? value.dump() : format("{}", value.as_double()), wanted);
}

auto text(std::string& field) {
  return [&field](const Json& v) -> Result<void> {
    if (!v.is_string()) return wrong(v, "a text in quotes");
    field = v.as_string();
    return {};
  };
}
auto flag(bool& field) {
  return [&field](const Json& v) -> Result<void> {
    if (!v.is_bool()) return wrong(v, "true or false");
    field = v.as_bool();
    return {};
  };
}
template <class Int>
auto whole(Int& field, int64_t low, int64_t high) {
  return [&field, low, high](const Json& v) -> Result<void> {
    if (!v.is_int() || v.as_int() < low || v.as_int() > high) {
      return wrong(v, format("a whole number from {} to {}", low, high));
    }
    field = static_cast<Int>(v.as_int());
    return {};
  };
}
auto number(double& field, double low, double high) {
  return [&field, low, high](const Json& v) -> Result<void> {
    if (!v.is_number() || !(v.as_double() >= low) || !(v.as_double() <= high)) {
      return wrong(v, format("a number from {} to {}", low, high));
    }
    field = v.as_double();
    return {};
  };
}
auto time(Seconds& field) {
  return [&field](const Json& v) -> Result<void> {
    ASSIGN_OR_RETURN(field, parse_seconds(v));
    if (!(field.value >= 0) || field.value > 3600) return wrong(v, "a time from 0 to 3600 s");
    return {};
  };
}
auto speed(BytesPerSec& field) {
  return [&field](const Json& v) -> Result<void> {
    ASSIGN_OR_RETURN(field, parse_speed(v));
    if (!(field.value >= 0) || !std::isfinite(field.value)) return wrong(v, "a speed of 0 or more");
    return {};
  };
}
auto one_of(std::string& field, std::initializer_list<std::string_view> choices) {
  return [&field, choices = std::vector<std::string_view>(choices)](const Json& v) -> Result<void> {
    if (std::find(choices.begin(), choices.end(), v.as_string()) == choices.end()) {
      std::string list;
      for (const std::string_view c : choices) list += (list.empty() ? "" : ", ") + std::string(c);
      return wrong(v, "one of " + list);
    }
    field = v.as_string();
    return {};
  };
}

// Stores every member of `table`; a key that is not listed is an error that lists what there is.
Result<void> read_table(const Json& table, std::string_view where, std::span<const Key> keys) {
  if (table.is_null()) return {};
  if (!table.is_object()) return errorf(Code::kInvalidArgument, "{} is not a table", where);
  for (const auto& [name, value] : table.members()) {
    const auto key = std::find_if(keys.begin(), keys.end(),
                                  [&](const Key& k) { return k.name == name; });
    if (key == keys.end()) {
      std::string known;
      for (const Key& k : keys) known += format("{}{}", known.empty() ? "" : ", ", k.name);
      return errorf(Code::kInvalidArgument, "{} has no key '{}'; it has {}", where, name, known);
    }
    TRY(key->store(value).context(format("{}, {}", where, name)));
  }
  return {};
}

Result<ScenarioWorker> read_worker(const Json& item, size_t index) {
  ScenarioWorker w;
  const auto layers = [&w](const Json& v) -> Result<void> {
    const auto in_range = [](const Json& n) {
      return n.is_int() && n.as_int() >= 0 && n.as_int() <= 100'000;
    };
    if (v.size() != 2 || !in_range(v[0]) || !in_range(v[1]) || v[0].as_int() >= v[1].as_int()) {
      return wrong(v, "[begin, end) with begin below end, as [0, 4]");
    }
    w.layers = {static_cast<int32_t>(v[0].as_int()), static_cast<int32_t>(v[1].as_int())};
    return {};
  };
  const std::array<Key, 10> keys = {
      {{"name", text(w.name)},
       {"layers", layers},
       {"threads", whole(w.threads, 1, 1024)},
       {"tensor_parallel", whole(w.tensor_parallel, 1, 64)},
       {"stages", whole(w.stages, 1, 64)},
       {"kv_tokens", whole(w.kv_tokens, 0, kMaxKvTokens)},
       {"speed", number(w.speed, 1e-6, 1e6)},
       {"type", text(w.type)},
       {"emulate", flag(w.emulate)},
       {"site", text(w.site)}}};
  TRY(read_table(item, format("[[workers]] {}", index + 1), keys));
  if (w.name.empty()) w.name = format("worker-{}", index + 1);
  return w;
}

Result<ScenarioLink> read_link(const Json& item, size_t index) {
  ScenarioLink link;
  const auto between = [&link](const Json& v) -> Result<void> {
    if (v.size() != 2 || !v[0].is_string() || !v[1].is_string()) {
      return wrong(v, "two names, as [\"attic\", \"cellar\"]");
    }
    link.from = v[0].as_string();
    link.to = v[1].as_string();
    return {};
  };
  const std::array<Key, 10> keys = {{{"between", between},
                                     {"latency", time(link.latency)},
                                     {"jitter", time(link.jitter)},
                                     {"bandwidth", speed(link.bandwidth)},
                                     {"loss", number(link.loss, 0, 0.99)},
                                     {"duplicate", number(link.duplicate, 0, 0.99)},
                                     {"reorder", number(link.reorder, 0, 0.99)},
                                     {"corrupt", number(link.corrupt, 0, 0.99)},
                                     {"cut", number(link.cut, 0, 0.99)},
                                     {"seed", whole(link.seed, 0, INT64_MAX)}}};
  const std::string where = format("[[links]] {}", index + 1);
  TRY(read_table(item, where, keys));
  if (link.from.empty()) {
    return errorf(Code::kInvalidArgument, "{}: 'between' is missing; give two sites or workers",
                  where);
  }
  return link;
}

// What travels in greetings, logs and URLs.
Result<void> check_name(std::string_view name) {
  const bool printable = std::ranges::all_of(name, [](char c) { return c > ' ' && c < 127; });
  if (printable && name.size() <= kMaxName) return {};
  return errorf(Code::kInvalidArgument,
                "a worker is called {}; a name has 1 to {} printable ASCII characters, no spaces",
                Json(std::string(name.substr(0, kMaxName))).dump(), kMaxName);
}

// One link between two ends, and two ends.
Result<void> check_links(const Scenario& s) {
  std::set<std::pair<std::string_view, std::string_view>> seen;
  std::set<std::string_view> workers = {kCoordinator};
  for (const ScenarioWorker& w : s.workers) workers.insert(w.name);
  for (const ScenarioLink& link : s.links) {
    // The workers of one site may be that far from each other; a worker is not from itself.
    if (link.from == link.to && workers.contains(link.from)) {
      return errorf(Code::kInvalidArgument, "a link leads from '{}' to itself; give two ends",
                    link.from);
    }
    if (!seen.insert(std::minmax<std::string_view>(link.from, link.to)).second) {
      return errorf(Code::kInvalidArgument,
                    "the link between '{}' and '{}' is given twice; one [[links]] is for both ways",
                    link.from, link.to);
    }
  }
  return {};
}

Result<void> check(const Scenario& s) {
  std::set<std::string_view> names = {kCoordinator}, places = {kCoordinator};
  TRY(check_links(s));
  for (const ScenarioWorker& w : s.workers) {
    TRY(check_name(w.name));
    if (!names.insert(w.name).second) {
      return errorf(Code::kInvalidArgument, "two workers are called '{}'; names must differ",
                    w.name);
    }
    places.insert(w.name);
    if (!w.site.empty()) places.insert(w.site);
    if (w.emulate && w.type.empty()) {
      return errorf(Code::kInvalidArgument,
                    "worker '{}' is to be emulated; give the machine type whose times it shall "
                    "take", w.name);
    }
  }
  if (s.emulation.plan_workers) {
    if (!s.workers.empty()) {
      return Error(Code::kInvalidArgument,
                   "plan_workers takes the workers from the plan; remove it, or the [[workers]]");
    }
    if (s.cluster.empty() || s.plan.empty()) {
      return Error(Code::kInvalidArgument,
                   "plan_workers needs 'cluster' (the machines' types) and 'plan' (their layers)");
    }
  }
  // Links may lead to workers that the plan will name.
  for (const ScenarioLink& link : s.links) {
    if (s.emulation.plan_workers) break;
    for (const std::string& end : {link.from, link.to}) {
      if (!places.contains(end)) {
        return errorf(Code::kInvalidArgument,
                      "a link leads to '{}', which is neither a worker nor a site of one", end);
      }
    }
  }
  return {};
}

Result<Scenario> read_scenario(const Json& tree) {
  Scenario s;
  ScenarioServing& v = s.serving;
  ScenarioWorkload& load = s.workload;
  const auto schema = [](const Json& value) -> Result<void> {
    if (!value.is_int() || value.as_int() != 1) return wrong(value, "1, the schema of this build");
    return {};
  };
  const std::array<Key, 10> serving_keys = {
      {{"context", whole(v.context, 0, 1 << 30)},
       {"sequences", whole(v.sequences, 1, 1 << 20)},
       {"step_tokens", whole(v.step_tokens, 1, 1 << 20)},
       {"chunk_tokens", whole(v.chunk_tokens, 1, 1 << 20)},
       {"prefix_cache", flag(v.prefix_cache)},
       {"router", one_of(v.router, {"iwrr", "swarm", "random", "shortest_queue", "flow", "maxflow",
                             "shortest-queue"})},
       {"queue", whole(v.queue, 0, 1 << 30)},
       {"async", flag(v.async)},
       {"extra_steps", whole(v.extra_steps, 0, 4096)}}};
  const std::array<Key, 2> net_keys = {
      {{"transport", one_of(s.transport, {"tcp", "shm", "zmq", "mpi", "inproc"})},
       {"curve", flag(s.curve)}}};
  ScenarioEmulation& e = s.emulation;
  const std::array<Key, 4> emulation_keys = {{{"profile", text(e.profile)},
                                              {"slowness", number(e.slowness, 1e-3, 1e6)},
                                              {"full_floats", flag(e.full_floats)},
                                              {"plan_workers", flag(e.plan_workers)}}};
  const std::array<Key, 6> load_keys = {
      {{"trace", text(load.trace)},
       {"rate", number(load.rate, 0, 1e9)},
       {"requests", whole(load.requests, 0, INT64_MAX)},
       {"seed", whole(load.seed, 0, INT64_MAX)},
       {"input", whole(load.input, 0, TraceReader::kMaxTokens)},
       {"output", whole(load.output, 0, TraceReader::kMaxTokens)}}};
  const auto workers = [&s](const Json& list) -> Result<void> {
    if (!list.is_array() || list.size() > kMaxWorkers) return wrong(list, "a list of workers");
    for (const Json& item : list.items()) {
      ASSIGN_OR_RETURN(ScenarioWorker worker, read_worker(item, s.workers.size()));
      s.workers.push_back(std::move(worker));
    }
    return {};
  };
  const auto links = [&s](const Json& list) -> Result<void> {
    if (!list.is_array()) return wrong(list, "a list of links");
    for (const Json& item : list.items()) {
      ASSIGN_OR_RETURN(ScenarioLink link, read_link(item, s.links.size()));
      s.links.push_back(std::move(link));
    }
    return {};
  };
  const std::array<Key, 11> keys = {
      {{"schema", schema},
       {"model", text(s.model)},
       {"name", text(s.name)},
       {"cluster", text(s.cluster)},
       {"plan", text(s.plan)},
       {"serving", [&](const Json& t) { return read_table(t, "[serving]", serving_keys); }},
       {"net", [&](const Json& t) { return read_table(t, "[net]", net_keys); }},
       {"emulation", [&](const Json& t) { return read_table(t, "[emulation]", emulation_keys); }},
       {"workload", [&](const Json& t) { return read_table(t, "[workload]", load_keys); }},
       {"workers", workers},
       {"links", links}}};
  if (!tree.contains("schema")) {
    return Error(Code::kInvalidArgument, "'schema' is missing; write schema = 1 at the top");
  }
  TRY(read_table(tree, "the file", keys));
  TRY(check(s));
  return s;
}

}  // namespace

const ScenarioLink* Scenario::link_between(std::string_view a, std::string_view b) const {
  const auto site_of = [this](std::string_view who) -> std::string_view {
    for (const ScenarioWorker& w : workers) {
      if (w.name == who) return w.site;
    }
    return who;
  };
  const auto find = [this](std::string_view x, std::string_view y) -> const ScenarioLink* {
    for (const ScenarioLink& link : links) {
      if ((link.from == x && link.to == y) || (link.from == y && link.to == x)) return &link;
    }
    return nullptr;
  };
  if (const ScenarioLink* direct = find(a, b)) return direct;
  const std::string_view x = site_of(a), y = site_of(b);
  if (const ScenarioLink* half = find(a, y)) return half;
  if (const ScenarioLink* half = find(x, b)) return half;
  return x.empty() || y.empty() ? nullptr : find(x, y);
}

Result<Scenario> parse_scenario(const Json& tree, std::string_view source) {
  return read_scenario(tree).context(source);
}

Result<Scenario> load_scenario(const std::string& path) {
  ASSIGN_OR_RETURN(const Json tree, load_json(path));
  ASSIGN_OR_RETURN(Scenario s, parse_scenario(tree, path));
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  const auto resolve = [&folder](std::string& file, bool may_be_a_name) {
    if (file.empty() || file.front() == '/' || folder.empty()) return;
    const std::filesystem::path full = folder / file;
    std::error_code error;
    // A model may be given by a built-in name: then there is no such file.
    if (!may_be_a_name || std::filesystem::exists(full, error)) file = full.string();
  };
  resolve(s.model, true);
  resolve(s.cluster, false);
  resolve(s.plan, false);
  resolve(s.emulation.profile, true);
  resolve(s.workload.trace, false);
  return s;
}

std::string print_scenario(const Scenario& s) {
  std::string out = format("schema = 1\nmodel = {}\n", toml_string(s.model));
  const auto text_line = [&out](std::string_view key, const std::string& value) {
    if (!value.empty()) out += format("{} = {}\n", key, toml_string(value));
  };
  text_line("name", s.name);
  text_line("cluster", s.cluster);
  text_line("plan", s.plan);
  const ScenarioServing& v = s.serving;
  out += format(
      "\n[serving]\ncontext = {}\nsequences = {}\nstep_tokens = {}\nchunk_tokens = {}\n"
      "prefix_cache = {}\nrouter = {}\nqueue = {}\nasync = {}\nextra_steps = {}\n"
      "\n[net]\ntransport = {}\ncurve = {}\n",
      v.context, v.sequences, v.step_tokens, v.chunk_tokens, v.prefix_cache, toml_string(v.router),
      v.queue, v.async, v.extra_steps, toml_string(s.transport), s.curve);
  for (const ScenarioWorker& w : s.workers) {
    out += format("\n[[workers]]\nname = {}\n", toml_string(w.name));
    if (w.layers) out += format("layers = [{}, {}]\n", w.layers->begin, w.layers->end);
    out += format("threads = {}\ntensor_parallel = {}\nkv_tokens = {}\nspeed = {}\n", w.threads,
                  w.tensor_parallel, w.kv_tokens, toml_number(w.speed));
    if (w.stages != 1) out += format("stages = {}\n", w.stages);
    text_line("type", w.type);
    if (w.emulate) out += "emulate = true\n";
    text_line("site", w.site);
  }
  for (const ScenarioLink& link : s.links) {
    out += format("\n[[links]]\nbetween = [{}, {}]\nlatency = {}\njitter = {}\n",
                  toml_string(link.from), toml_string(link.to), toml_number(link.latency.value),
                  toml_number(link.jitter.value));
    if (link.bandwidth.value > 0) {
      out += format("bandwidth = {}\n", toml_number(link.bandwidth.value));
    }
    out += format("loss = {}\nduplicate = {}\nreorder = {}\ncorrupt = {}\ncut = {}\nseed = {}\n",
                  toml_number(link.loss), toml_number(link.duplicate), toml_number(link.reorder),
                  toml_number(link.corrupt), toml_number(link.cut), link.seed);
  }
  const ScenarioEmulation& e = s.emulation;
  if (!(e == ScenarioEmulation{})) {
    out += "\n[emulation]\n";
    text_line("profile", e.profile);
    out += format("slowness = {}\nfull_floats = {}\nplan_workers = {}\n", toml_number(e.slowness),
                  e.full_floats, e.plan_workers);
  }
  const ScenarioWorkload& load = s.workload;
  if (!(load == ScenarioWorkload{})) {
    out += "\n[workload]\n";
    text_line("trace", load.trace);
    out += format("rate = {}\nrequests = {}\nseed = {}\n", toml_number(load.rate), load.requests,
                  load.seed);
    if (load.input > 0) out += format("input = {}\n", load.input);
    if (load.output > 0) out += format("output = {}\n", load.output);
  }
  return out;
}

}  // namespace towline::spec
