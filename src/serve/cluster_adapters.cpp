// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/cluster_adapters.hpp"

#include <algorithm>
#include <utility>

#include "base/fmt.hpp"

namespace towline::serve {
namespace {

using protocol::Method;

Json args_of(int32_t id, const std::string& path) {
  return Json::object({{"id", int64_t{id}}, {"path", path}});
}

const NodeCalls::Done kNobodyAsks = [](const NodeCalls::Answers&) {};

}  // namespace

std::optional<int32_t> ClusterAdapters::find(const std::string& name) const {
  for (const auto& [id, adapter] : adapters_) {
    if (adapter.name == name) return id;
  }
  return std::nullopt;
}

Result<void> ClusterAdapters::check_new(const std::string& name) const {
  if (name.empty()) return Error(Code::kInvalidArgument, "an adapter needs a name");
  if (find(name)) {
    return errorf(Code::kAlreadyExists, "an adapter '{}' is loaded; unload it first", name);
  }
  return {};
}

// --- loading ------------------------------------------------------------------------------------

Result<void> ClusterAdapters::load(const std::string& name, const std::string& path, Done done) {
  TRY(check_new(name));
  if (loading_) {
    return Error(Code::kUnavailable, "another adapter is being loaded; try again when it is done");
  }
  const std::vector<int64_t> nodes = nodes_.serving();
  if (nodes.empty()) {
    return Error(Code::kUnavailable, "no node is ready to load an adapter; try again later");
  }
  const int32_t id = next_id_++;
  loading_ = Loading{id, {name, path, 0}, std::move(done)};
  calls_.call(nodes, Method::kStageAdapter, args_of(id, path),
              [this, id](const NodeCalls::Answers& answers) { staged(id, answers); });
  return {};
}

Result<void> ClusterAdapters::expect(const std::string& name, const std::string& path) {
  TRY(check_new(name));
  adapters_[next_id_++] = {name, path, 0};
  return {};
}

// A node that went meanwhile does not count: it stages again when it comes back.
void ClusterAdapters::staged(int32_t id, const NodeCalls::Answers& answers) {
  const std::vector<int64_t> serving = nodes_.serving();
  std::vector<int64_t> nodes;
  std::optional<Error> failed;
  for (const auto& [node, answer] : answers) {
    if (std::ranges::find(serving, node) == serving.end()) continue;
    nodes.push_back(node);
    if (!answer && !failed) {
      failed = errorf(answer.error().code(), "the adapter was not loaded anywhere, because node {} "
                      "could not: {}", nodes_.name(node), answer.error().to_string());
    }
  }
  if (nodes.empty()) failed = Error(Code::kUnavailable, "all nodes went while the adapter loaded");
  const Json args = args_of(id, "");
  if (failed) {
    calls_.call(nodes, Method::kDiscardAdapter, args, kNobodyAsks);
    return finish_load(id, std::move(*failed));
  }
  // Every step that is sent from now on finds it committed.
  calls_.call(nodes, Method::kCommitAdapter, args,
              [this, id](const NodeCalls::Answers&) { finish_load(id, {}); });
}

void ClusterAdapters::finish_load(int32_t id, Result<void> outcome) {
  Loading loading = std::move(*loading_);
  loading_.reset();
  if (outcome) adapters_[id] = loading.adapter;
  loading.done(std::move(outcome));
  for (const auto& arrival : std::exchange(arrivals_, {})) bring_up(arrival);
}

// --- using and unloading ------------------------------------------------------------------------

Result<void> ClusterAdapters::unload(const std::string& name) {
  const std::optional<int32_t> id = find(name);
  if (name.empty() || !id) return errorf(Code::kNotFound, "there is no adapter '{}'", name);
  Adapter& adapter = adapters_.at(*id);
  adapter.name.clear();
  if (adapter.requests == 0) forget(*id);
  return {};
}

void ClusterAdapters::forget(int32_t id) {
  adapters_.erase(id);
  calls_.call(nodes_.serving(), Method::kRemoveAdapter, args_of(id, ""), kNobodyAsks);
}

std::vector<std::string> ClusterAdapters::names() const {
  std::vector<std::string> names;
  for (const auto& [id, adapter] : adapters_) {
    if (!adapter.name.empty()) names.push_back(adapter.name);
  }
  std::ranges::sort(names);
  return names;
}

Result<int32_t> ClusterAdapters::begin(const std::string& name) {
  const std::optional<int32_t> id = find(name);
  if (name.empty() || !id) return errorf(Code::kNotFound, "there is no adapter '{}'", name);
  ++adapters_.at(*id).requests;
  return *id;
}

void ClusterAdapters::end(int32_t id) {
  const auto at = adapters_.find(id);
  if (at == adapters_.end()) return;
  if (--at->second.requests == 0 && at->second.name.empty()) forget(id);
}

// --- nodes that come ----------------------------------------------------------------------------

void ClusterAdapters::admit(int64_t node, Done ready) {
  auto arrival = std::make_shared<Arrival>(Arrival{node, std::move(ready), {}});
  if (loading_) {
    arrivals_.push_back(std::move(arrival));
  } else {
    bring_up(std::move(arrival));
  }
}

// One adapter after the other. What was unloaded meanwhile is taken away again.
void ClusterAdapters::bring_up(std::shared_ptr<Arrival> arrival) {
  if (loading_) return arrivals_.push_back(std::move(arrival));
  const std::vector<int64_t> node = {arrival->node};
  for (const int32_t id : arrival->has) {
    if (adapters_.contains(id)) continue;
    calls_.call(node, Method::kRemoveAdapter, args_of(id, ""), kNobodyAsks);
  }
  std::erase_if(arrival->has, [&](int32_t id) { return !adapters_.contains(id); });
  for (const auto& [id, adapter] : adapters_) {
    if (std::ranges::find(arrival->has, id) != arrival->has.end()) continue;
    const auto then = [this, arrival, id = id, name = adapter.name](
                          const NodeCalls::Answers& answers) {
      const Result<Json>& answer = answers.front().second;
      if (!answer) {
        return arrival->ready(errorf(answer.error().code(), "it cannot load the adapter '{}': {}",
                                     name, answer.error().to_string()));
      }
      arrival->has.push_back(id);
      calls_.call(std::vector<int64_t>{arrival->node}, Method::kCommitAdapter, args_of(id, ""),
                  [this, arrival](const NodeCalls::Answers&) { bring_up(arrival); });
    };
    return calls_.call(node, Method::kStageAdapter, args_of(id, adapter.path), then);
  }
  arrival->ready({});
}

}  // namespace towline::serve
