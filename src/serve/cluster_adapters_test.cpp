// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/cluster_adapters.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <set>

#include "base/fmt.hpp"
#include "base/for_seeds.hpp"

namespace towline::serve {
namespace {

using protocol::Method;

// Nodes that keep adapters as real ones do. Requests wait in their queues until deliver().
class Cluster {
 public:
  struct Node {
    std::set<int32_t> staged, committed;
    std::deque<protocol::RpcRequest> queue;
    bool serving = true, broken = false;  // broken: cannot read any file
  };

  Cluster()
      : calls([this](int64_t node, const protocol::RpcRequest& request) -> Result<void> {
          if (!nodes.contains(node)) return Error(Code::kUnavailable, "no such node");
          nodes[node].queue.push_back(request);
          return {};
        }),
        adapters(calls, {[this] { return serving(); },
                         [](int64_t node) { return format("n{}", node); }}) {}

  std::vector<int64_t> serving() const {
    std::vector<int64_t> out;
    for (const auto& [id, node] : nodes) {
      if (node.serving) out.push_back(id);
    }
    return out;
  }

  bool deliver(int64_t id) {
    Node& node = nodes[id];
    if (node.queue.empty()) return false;
    const protocol::RpcRequest request = node.queue.front();
    node.queue.pop_front();
    const auto args = parse_json(request.args, "args");
    const auto adapter = static_cast<int32_t>((*args)["id"].as_int());
    protocol::RpcReply reply;
    reply.id = request.id;
    switch (static_cast<Method>(request.method)) {
      case Method::kStageAdapter:
        if (node.broken) {
          reply.ok = false;
          reply.code = Code::kNotFound;
          reply.message = (*args)["path"].as_string() + " does not exist";
        } else {
          node.staged.insert(adapter);
        }
        break;
      case Method::kCommitAdapter:
        EXPECT_EQ(node.staged.erase(adapter), 1u) << "committed without being staged";
        node.committed.insert(adapter);
        break;
      case Method::kDiscardAdapter:
        node.staged.erase(adapter);
        break;
      case Method::kRemoveAdapter:
        EXPECT_EQ(node.committed.erase(adapter), 1u);
        break;
      default:
        ADD_FAILURE();
    }
    calls.on_reply(id, reply);
    return true;
  }
  void deliver_all() {
    for (bool any = true; any;) {
      any = false;
      std::vector<int64_t> ids;  // an arrival that fails leaves
      for (const auto& [id, node] : nodes) ids.push_back(id);
      for (const int64_t id : ids) any = (nodes.contains(id) && deliver(id)) || any;
    }
  }
  void lose(int64_t id) {
    nodes.erase(id);
    calls.on_gone(id, "killed");
  }

  std::map<int64_t, Node> nodes;
  NodeCalls calls;
  ClusterAdapters adapters;
};

TEST(ClusterAdapters, OneNodeThatCannotMeansNoneHasIt) {
  Cluster c;
  for (const int64_t id : {1, 2, 3}) c.nodes[id] = {};
  c.nodes[2].broken = true;
  std::optional<Result<void>> outcome;
  const auto done = [&](Result<void> result) { outcome = std::move(result); };
  ASSERT_TRUE(c.adapters.load("a", "/adapters/a", done));
  EXPECT_EQ(c.adapters.load("b", "/b", done).error().code(), Code::kUnavailable);
  EXPECT_EQ(c.adapters.begin("a").error().code(), Code::kNotFound);
  c.deliver_all();
  ASSERT_TRUE(outcome && !*outcome);
  EXPECT_EQ(outcome->error().code(), Code::kNotFound);
  const std::string says = outcome->error().to_string();
  EXPECT_NE(says.find("not loaded anywhere, because node n2 could not: /adapters/a does not exist"),
            std::string::npos) << says;
  for (const auto& [id, node] : c.nodes) EXPECT_TRUE(node.staged.empty() && node.committed.empty());
  c.nodes[2].broken = false;
  outcome.reset();
  ASSERT_TRUE(c.adapters.load("a", "/adapters/a", done));
  c.deliver_all();
  ASSERT_TRUE(outcome && *outcome);
  for (const auto& [id, node] : c.nodes) EXPECT_EQ(node.committed.size(), 1u);
  EXPECT_EQ(c.adapters.load("a", "/x", done).error().code(), Code::kAlreadyExists);
}

TEST(ClusterAdapters, StaysUntilItsLastRequestHasEnded) {
  Cluster c;
  c.nodes[1] = {};
  ASSERT_TRUE(c.adapters.load("a", "/a", [](const Result<void>& r) { EXPECT_TRUE(r); }));
  c.deliver_all();
  const Result<int32_t> id = c.adapters.begin("a");
  ASSERT_TRUE(id);
  ASSERT_TRUE(c.adapters.unload("a"));
  c.deliver_all();
  EXPECT_EQ(c.nodes[1].committed.size(), 1u);
  EXPECT_FALSE(c.adapters.begin("a"));
  EXPECT_EQ(c.adapters.unload("a").error().code(), Code::kNotFound);
  c.adapters.end(*id);
  c.deliver_all();
  EXPECT_TRUE(c.nodes[1].committed.empty());
}

// Random loads, unloads, requests, arrivals and losses: when all is quiet, every serving node has
// exactly the adapters that may be named or still run, and every load has had its answer.
TEST(ClusterAdapters, NodesHoldWhatTheClusterHas) {
  for_seeds(200, [](Rng& rng) {
    Cluster c;
    int64_t next_node = 1, loads = 0, answers = 0;
    std::vector<int32_t> running;
    const auto join = [&] {
      const int64_t id = next_node++;
      c.nodes[id].serving = false;
      c.nodes[id].broken = rng.below(8) == 0;
      c.adapters.admit(id, [&c, id](const Result<void>& ready) {
        if (!c.nodes.contains(id)) return;
        if (ready) {
          c.nodes[id].serving = true;
        } else {
          c.nodes.erase(id);  // its conversation is ended
        }
      });
    };
    join();
    c.deliver_all();
    for (int i = 0; i < 80; ++i) {
      const std::string name(1, static_cast<char>('a' + rng.below(3)));
      switch (rng.below(7)) {
        case 0:
          join();
          break;
        case 1:
          if (c.nodes.size() > 1) c.lose(std::next(c.nodes.begin(), rng.below(2))->first);
          break;
        case 2:
          if (c.adapters.load(name, "/" + name, [&](const Result<void>&) { ++answers; })) ++loads;
          break;
        case 3:
          (void)c.adapters.unload(name);
          break;
        case 4:
          if (const Result<int32_t> id = c.adapters.begin(name)) running.push_back(*id);
          break;
        case 5:
          if (!running.empty()) {
            c.adapters.end(running.back());
            running.pop_back();
          }
          break;
        default:
          if (!c.nodes.empty()) {
            const auto at = std::next(c.nodes.begin(), rng.below(c.nodes.size()));
            c.deliver(at->first);
          }
      }
    }
    c.deliver_all();
    EXPECT_EQ(c.calls.under_way(), 0u);
    EXPECT_EQ(answers, loads);
    std::set<int32_t> wanted(running.begin(), running.end());
    for (const std::string& name : c.adapters.names()) {
      const Result<int32_t> id = c.adapters.begin(name);
      wanted.insert(*id);
    }
    for (const int64_t id : c.serving()) {
      EXPECT_EQ(c.nodes[id].committed, wanted);
      EXPECT_TRUE(c.nodes[id].staged.empty());
    }
  });
}

}  // namespace
}  // namespace towline::serve
