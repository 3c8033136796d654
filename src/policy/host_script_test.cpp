// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Host under random scripts of everything that a driver may tell it, with every option: nodes that
// join, leave and come back, links closed and opened, plans awaited, lanes that begin again, time.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/for_seeds.hpp"
#include "policy/host.hpp"
#include "policy/host_journal.hpp"

namespace towline::policy {
namespace {

using Kind = HostAction::Kind;
constexpr int32_t kLayers = 6;

HostOptions random_options(Rng& rng) {
  HostOptions o;
  o.total_layers = kLayers;
  o.router = static_cast<RouterKind>(rng.below(4));
  o.seed = rng();
  o.estimator = {.high_water = 1.0, .usual_output = static_cast<double>(rng.between(0, 20))};
  o.batching.step_tokens = static_cast<int32_t>(rng.between(4, 40));
  o.batching.chunk_tokens = static_cast<int32_t>(rng.between(1, 40));
  o.batching.sequences = static_cast<int32_t>(rng.between(1, 12));
  o.batching.prefix_cache = rng.below(2) != 0;
  o.batching.spare_blocks = static_cast<int32_t>(rng.below(2));
  o.batching.ahead = static_cast<int32_t>(rng.below(3));
  o.batching.placeholders = rng.below(2) != 0;
  o.depth = rng.below(3) == 0 ? static_cast<int32_t>(rng.between(1, 3)) : 0;
  o.extra_steps = static_cast<int32_t>(rng.below(3));
  if (rng.below(3) == 0) o.most_outstanding = static_cast<int32_t>(rng.between(1, 4));
  if (rng.below(3) == 0) o.most_routes = static_cast<int32_t>(rng.between(1, 4));
  if (rng.below(2) == 0) o.wait_for_way = Duration(rng.between(0, 40));
  if (rng.below(3) == 0) o.admission.waiting = rng.between(1, 10);
  if (rng.below(4) == 0) o.admission.placed = rng.between(1, 6);
  o.admission.offline = rng.below(4) == 0;
  return o;
}

// The world that plans are made of: nodes of any range, all links that layers allow.
struct World {
  std::vector<HostNode> nodes;
  std::set<int32_t> down;
  std::set<std::pair<int32_t, int32_t>> cut, closed;
  std::map<std::pair<int32_t, int32_t>, int32_t> ids;

  void add(LayerRange layers, Rng& rng, NodeRole role = NodeRole::kBoth) {
    nodes.push_back({.layers = layers,
                     .kv_capacity = rng.between(5, 14) * kBlockTokens * layers.size(),
                     .role = role,
                     .stages = rng.below(4) == 0 ? static_cast<int32_t>(rng.between(2, 3)) : 1});
  }
  HostPlan plan(bool provisional) {
    HostPlan plan;
    plan.nodes = nodes;
    for (const int32_t node : down) plan.nodes[static_cast<size_t>(node)].layers = {};
    plan.provisional = provisional;
    std::map<int32_t, HostLink> links;
    const auto link = [&](int32_t from, int32_t to) {
      if (cut.contains({from, to})) return;
      const auto id = ids.emplace(std::pair(from, to), static_cast<int32_t>(ids.size())).first;
      links[id->second] = {id->second, from, to, 1.0 + id->second % 3, closed.contains({from, to})};
    };
    for (int32_t i = 0; i < static_cast<int32_t>(nodes.size()); ++i) {
      const LayerRange a = plan.nodes[static_cast<size_t>(i)].layers;
      if (a.empty()) continue;
      if (a.begin == 0) link(kSourceNode, i);
      if (a.end == kLayers) link(i, kSinkNode);
      for (int32_t k = 0; k < static_cast<int32_t>(nodes.size()); ++k) {
        const LayerRange b = plan.nodes[static_cast<size_t>(k)].layers;
        if (k != i && !b.empty() && b.begin <= a.end && b.end > a.end) link(i, k);
      }
    }
    for (const auto& [id, l] : links) plan.links.push_back(l);
    return plan;
  }
};

struct Script {
  Script(Host first, Host second) : host(std::move(first)), replayed(std::move(second)) {}

  Host host;
  Host replayed;  // told what went through the journal's bytes, and without fast_forward
  Digest digest, again;
  Instant now{};
  std::vector<int32_t> flying;
  std::set<int64_t> moving;           // KV caches on their way
  std::map<int64_t, int32_t> wanted, drawn;  // tokens
  std::set<int64_t> stopped;
  std::map<int64_t, HostAction> ended;
  std::set<int64_t> placed;
  std::set<LaneId> closed;
  std::vector<HostAction> actions;
  bool calm = false;  // tokens are not told: every sequence goes on
  int64_t rounds = 0;
  int64_t events = 0;

  void tell(const HostEvent& event) {
    ++events;
    const std::string bytes = encode_event(event);
    actions.clear();
    host.step(now, event, actions);
    digest_actions(host, actions, digest);
    for (const HostAction& a : actions) carry_out(a);
    host.check_invariants();
    const Result<DecodedEvent> decoded = decode_event(bytes);
    ASSERT_TRUE(decoded) << decoded.error().to_string();
    ASSERT_TRUE(check_event(replayed, decoded->event));
    std::vector<HostAction> others;
    replayed.step(now, decoded->event, others);
    digest_actions(replayed, others, again);
    ASSERT_EQ(digest.value(), again.value());
  }
  void carry_out(const HostAction& a) {
    ASSERT_FALSE(closed.contains(a.lane));
    switch (a.kind) {
      case Kind::kLaunch:
        rounds += a.again;
        ASSERT_EQ(host.flight(a.ticket).lane, a.lane);
        flying.push_back(a.ticket);
        break;
      case Kind::kAbandon:
        ASSERT_EQ(std::erase(flying, a.ticket), 1u);
        break;
      case Kind::kPlaced:
        ASSERT_TRUE(placed.insert(a.id.value).second) << a.id.value;
        break;
      case Kind::kDisplaced:
        ASSERT_EQ(placed.erase(a.id.value), 1u) << a.id.value;
        moving.erase(a.id.value);
        break;
      case Kind::kHandOver:
        ASSERT_TRUE(placed.contains(a.id.value)) << a.id.value;
        ASSERT_TRUE(moving.insert(a.id.value).second) << a.id.value;
        ASSERT_FALSE(host.prompt_way(a.id).empty());
        ASSERT_TRUE(host.lane(a.lane).decodes);
        break;
      case Kind::kPreempted:
        ASSERT_TRUE(placed.contains(a.id.value)) << a.id.value;
        break;
      case Kind::kEnded:
        placed.erase(a.id.value);
        moving.erase(a.id.value);
        if (a.outcome == Outcome::kFinished && !stopped.contains(a.id.value)) {
          ASSERT_EQ(drawn[a.id.value], wanted[a.id.value]) << a.id.value;
        }
        ASSERT_TRUE(ended.emplace(a.id.value, a).second) << a.id.value;
        ASSERT_EQ(a.reason.empty(),
                  a.outcome == Outcome::kFinished || a.outcome == Outcome::kCancelled);
        break;
      case Kind::kLaneClosed:
        closed.insert(a.lane);
        break;
    }
  }
  // Some KV cache is where it was wanted; now and then one that nobody waits for.
  int64_t arrive_one(Rng& rng) {
    if (rng.below(10) == 0) tell(KvArrived{RequestId(100'000), false});
    if (moving.empty()) return 0;
    auto at = moving.begin();
    std::advance(at, static_cast<long>(rng.below(moving.size())));
    const int64_t id = *at;
    moving.erase(at);
    tell(KvArrived{RequestId(id), rng.below(8) == 0});
    return 1;
  }
  // Steps of one lane come back in the order in which they were sent.
  void finish(size_t which, Rng& rng) {
    const LaneId lane = host.flight(flying[which]).lane;
    size_t oldest = which;
    for (size_t i = 0; i < flying.size(); ++i) {
      const Step& step = host.flight(flying[i]);
      if (step.lane == lane && step.number < host.flight(flying[oldest]).number) oldest = i;
    }
    const int32_t ticket = flying[oldest];
    flying.erase(flying.begin() + static_cast<long>(oldest));
    if (calm) {
      for (const StepEntry& entry : host.flight(ticket).entries) {
        drawn[entry.seq.value] += entry.samples;
      }
      return tell(StepDone{ticket, {}});
    }
    std::vector<Sampled> tokens;
    for (const StepEntry& entry : host.flight(ticket).entries) {
      if (!entry.samples) continue;
      tokens.push_back({entry.seq, static_cast<int32_t>(rng.below(50)), rng.below(40) == 0,
                        rng.below(300) == 0});
      ++drawn[entry.seq.value];
      if (tokens.back().stop) stopped.insert(entry.seq.value);
    }
    tell(StepDone{ticket, tokens});
  }
};

Arrive random_request(int64_t id, Rng& rng) {
  Arrive a;
  a.id = RequestId(id);
  a.prompt_length = static_cast<int32_t>(rng.between(1, 90));
  if (rng.below(2) == 0) {
    for (int32_t i = 0; i < a.prompt_length; ++i) a.prompt.push_back(i / 30);
  }
  a.max_tokens = static_cast<int32_t>(rng.between(0, 30));
  a.priority = static_cast<int32_t>(rng.below(3));
  a.every_row = rng.below(5) == 0;
  a.cache_salt = rng.below(2);
  return a;
}

void disturb(World& world, Rng& rng) {
  const auto node = static_cast<int32_t>(rng.below(world.nodes.size()));
  HostNode& n = world.nodes[static_cast<size_t>(node)];
  switch (rng.below(5)) {
    case 0:
      if (world.down.erase(node) == 0) {
        world.down.insert(node);
        break;
      }
      [[fallthrough]];
    case 1:
      ++n.incarnation;  // back, or replaced before anybody noticed
      break;
    case 2:
      if (world.nodes.size() < 9) world.add(n.layers, rng, n.role);
      break;
    default: {
      auto& set = rng.below(2) == 0 ? world.cut : world.closed;
      std::vector<std::pair<int32_t, int32_t>> links;
      for (const auto& [link, id] : world.ids) links.push_back(link);
      if (links.empty()) break;
      const auto link = links[rng.below(links.size())];
      if (set.erase(link) == 0) set.insert(link);
    }
  }
}

void run_scripts(bool roles) {
  std::map<std::string_view, int> reasons;
  int64_t preempted = 0, rounds = 0, arrived = 0;
  for_events(kMillionEvents / 2, [&](Rng& rng, int64_t& events) {
    World world;
    for (const NodeRole role : {NodeRole::kPrompt, NodeRole::kDecode}) {
      const NodeRole of = roles ? role : NodeRole::kBoth;
      world.add({0, static_cast<int32_t>(rng.between(2, kLayers))}, rng, of);
      world.add({static_cast<int32_t>(rng.between(0, 2)), kLayers}, rng, of);
      if (!roles) break;
    }
    for (uint64_t i = rng.below(4); i > 0; --i) {
      const auto begin = static_cast<int32_t>(rng.below(kLayers));
      world.add({begin, static_cast<int32_t>(rng.between(begin + 1, kLayers))}, rng,
                !roles               ? NodeRole::kBoth
                : rng.below(2) == 0 ? NodeRole::kPrompt
                                    : NodeRole::kDecode);
    }
    const HostOptions options = random_options(rng);
    auto setup = parse_host_setup(host_setup_json(options));
    ASSERT_TRUE(setup) << setup.error().to_string();
    auto host = Host::make(options, HostPlan{});
    setup->fast_forward = false;
    auto other = Host::make(*setup, HostPlan{});
    ASSERT_TRUE(host && other);
    Script s(*std::move(host), *std::move(other));
    s.calm = rng.below(2) == 0;
    int64_t next = 0;
    for (int i = 0; i < 300 && !::testing::Test::HasFailure(); ++i) {
      s.now = s.now + Duration(rng.between(0, 3));
      if (s.host.next_deadline() <= s.now) s.tell(Tick{});
      const uint64_t dice = rng.below(100);
      if (dice < 22) {
        const Arrive request = random_request(next++, rng);
        s.wanted[request.id.value] = request.max_tokens;
        s.tell(request);
      } else if (dice < 25 && next > 0) {
        s.tell(Cancel{RequestId(rng.between(0, next - 1))});
      } else if (dice < 31) {
        if (i > 20) disturb(world, rng);
        s.tell(world.plan(rng.below(3) == 0));
      } else if (dice < 33 && !s.flying.empty()) {
        const Step& step = s.host.flight(s.flying[rng.below(s.flying.size())]);
        BreakLanes broken{{step.lane, LaneId(static_cast<int32_t>(rng.below(50)))}, {}};
        if (rng.below(2) == 0) broken.failed.push_back(RequestId(step.entries[0].seq.value));
        s.tell(broken);
      } else if (!s.moving.empty() && rng.below(3) == 0) {
        arrived += s.arrive_one(rng);
      } else if (!s.flying.empty()) {
        s.finish(rng.below(s.flying.size()), rng);
      }
      for (const HostAction& a : s.actions) preempted += a.kind == Kind::kPreempted;
      ASSERT_EQ(next, static_cast<int64_t>(s.ended.size()) + s.host.unfinished());
    }
    world.down.clear();
    world.cut.clear();
    world.closed.clear();
    s.tell(world.plan(false));
    for (int i = 0; !(s.flying.empty() && s.moving.empty()) && !::testing::Test::HasFailure();
         ++i) {
      ASSERT_LT(i, 100'000);
      if (s.flying.empty() || (!s.moving.empty() && rng.below(4) == 0)) {
        arrived += s.arrive_one(rng);
        continue;
      }
      s.finish(rng.below(s.flying.size()), rng);
    }
    events += s.events;
    EXPECT_EQ(s.host.unfinished(), 0);
    EXPECT_EQ(static_cast<int64_t>(s.ended.size()), next);
    for (const auto& [id, end] : s.ended) ++reasons[end.reason];
    rounds += s.rounds;
  });
  if (std::getenv("TOWLINE_SEED") != nullptr) return;
  EXPECT_GT(preempted, 30);
  EXPECT_GT(rounds, 1000);
  EXPECT_EQ(arrived > 500, roles) << arrived;
  for (const std::string_view reason : {kQueueFull, kTooLarge, kNoToken, kStranded, kManyRoutes,
                                        kBadStep, std::string_view()}) {
    EXPECT_GT(reasons[reason], 0) << reason;
  }
}

TEST(HostScript, EveryRequestEndsOnceAndTheJournalRepeatsIt) { run_scripts(false); }
TEST(HostScript, WithRolesToo) { run_scripts(true); }

}  // namespace
}  // namespace towline::policy
