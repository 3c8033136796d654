// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/host_journal.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "base/fmt.hpp"

namespace towline::policy {
namespace {

enum class EventTag : uint8_t {
  kArrive = 1,
  kCancel = 2,
  kStepDone = 3,
  kPlan = 4,
  kBreakLanes = 5,
  kTick = 6,
  kKvArrived = 7,
};
constexpr int kSetupSchema = 2;  // of the setup and of the events

void put_unsigned(std::string& out, uint64_t value) {
  while (value >= 0x80) {
    out.push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<char>(value));
}

void put(std::string& out, int64_t value) {
  put_unsigned(out, (static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63));
}

void put_double(std::string& out, double value) {
  const auto bits = std::bit_cast<uint64_t>(value);
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<char>(bits >> (8 * i)));
}

constexpr int32_t kMostTokens = 1 << 24;  // of a prompt, or an output

// Reads fields; after the first fault everything reads as zero.
class Fields {
 public:
  explicit Fields(std::string_view bytes) : bytes_(bytes) {}

  bool failed() const { return failed_; }
  bool at_end() const { return bytes_.empty(); }
  size_t left() const { return bytes_.size(); }

  uint64_t get_unsigned() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (bytes_.empty()) break;
      const auto byte = static_cast<uint8_t>(bytes_[0]);
      bytes_.remove_prefix(1);
      value |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
    failed_ = true;
    return 0;
  }
  int64_t get(int64_t low = INT64_MIN, int64_t high = INT64_MAX) {
    const uint64_t raw = get_unsigned();
    const auto value = static_cast<int64_t>((raw >> 1) ^ (~(raw & 1) + 1));
    if (value < low || value > high) failed_ = true;
    return failed_ ? 0 : value;
  }
  int32_t get32(int32_t low = INT32_MIN, int32_t high = INT32_MAX) {
    return static_cast<int32_t>(get(low, high));
  }
  uint32_t get32_unsigned(uint32_t high) {
    const uint64_t value = get_unsigned();
    if (value > high) failed_ = true;
    return failed_ ? 0 : static_cast<uint32_t>(value);
  }
  bool get_flag() {
    const uint64_t value = get_unsigned();
    if (value > 1) failed_ = true;
    return !failed_ && value == 1;
  }
  double get_double() {
    if (bytes_.size() < 8) {
      failed_ = true;
      return 0;
    }
    uint64_t bits = 0;
    for (int i = 0; i < 8; ++i) {
      bits |= uint64_t{static_cast<uint8_t>(bytes_[static_cast<size_t>(i)])} << (8 * i);
    }
    bytes_.remove_prefix(8);
    const auto value = std::bit_cast<double>(bits);
    if (!std::isfinite(value) || value < 0) failed_ = true;
    return value;
  }
  // A count of items of at least one byte each.
  size_t get_count() {
    const uint64_t count = get_unsigned();
    if (count > bytes_.size()) failed_ = true;
    return failed_ ? 0 : static_cast<size_t>(count);
  }

 private:
  std::string_view bytes_;
  bool failed_ = false;
};

void encode_plan(std::string& out, const HostPlan& plan) {
  put_unsigned(out, plan.nodes.size());
  for (const HostNode& node : plan.nodes) {
    put(out, node.layers.begin);
    put(out, node.layers.end);
    put(out, node.kv_capacity);
    put(out, node.longest_prompt);
    put(out, node.incarnation);
  }
  put_unsigned(out, plan.links.size());
  for (const HostLink& link : plan.links) {
    put(out, link.id);
    put(out, link.from);
    put(out, link.to);
    put_double(out, link.flow);
    put_unsigned(out, link.closed ? 1 : 0);
  }
  put_unsigned(out, plan.provisional ? 1 : 0);
  // Nothing more where nobody has a role or several stages, as it was before there were any.
  const auto has_role = [](const HostNode& node) { return node.role != NodeRole::kBoth; };
  const auto has_stages = [](const HostNode& node) { return node.stages != 1; };
  const bool stages = std::ranges::any_of(plan.nodes, has_stages);
  if (!stages && std::ranges::none_of(plan.nodes, has_role)) return;
  for (const HostNode& node : plan.nodes) put_unsigned(out, static_cast<uint64_t>(node.role));
  if (!stages) return;
  for (const HostNode& node : plan.nodes) put(out, node.stages);
}

HostPlan decode_plan(Fields& in) {
  HostPlan plan;
  const size_t nodes = in.get_count();
  for (size_t i = 0; i < nodes && !in.failed(); ++i) {
    HostNode node;
    node.layers.begin = in.get32(0);
    node.layers.end = in.get32(0);
    node.kv_capacity = in.get(0, int64_t{1} << 48);
    node.longest_prompt = in.get32(0);
    node.incarnation = in.get32();
    plan.nodes.push_back(node);
  }
  const size_t links = in.get_count();
  int32_t last = -1;
  for (size_t i = 0; i < links && !in.failed(); ++i) {
    HostLink link;
    link.id = in.get32(last + 1);
    last = link.id == INT32_MAX ? INT32_MAX - 1 : link.id;
    const auto places = static_cast<int32_t>(nodes);
    link.from = in.get32(kSourceNode, places - 1);
    link.to = in.get32(kSinkNode, places - 1);
    link.flow = in.get_double();
    link.closed = in.get_flag();
    plan.links.push_back(link);
  }
  plan.provisional = in.get_flag();
  if (in.at_end()) return plan;
  for (HostNode& node : plan.nodes) node.role = static_cast<NodeRole>(in.get32_unsigned(2));
  if (in.at_end()) return plan;
  for (HostNode& node : plan.nodes) node.stages = in.get32(1, 64);
  return plan;
}

}  // namespace

// --- setup --------------------------------------------------------------------------------------

Json host_setup_json(const HostOptions& o) {
  return Json::object({{"schema", kSetupSchema},
                       {"machine", "host"},
                       {"total_layers", o.total_layers},
                       {"high_water", o.estimator.high_water},
                       {"usual_output", o.estimator.usual_output},
                       {"output_ratio", o.estimator.output_ratio},
                       {"most_waiting", o.admission.waiting},
                       {"most_placed", o.admission.placed},
                       {"feed_high_water", o.admission.feed_high_water},
                       {"offline", o.admission.offline},
                       {"step_tokens", o.batching.step_tokens},
                       {"sequences", o.batching.sequences},
                       {"chunk_tokens", o.batching.chunk_tokens},
                       {"prefix_cache", o.batching.prefix_cache},
                       {"ahead", o.batching.ahead},
                       {"placeholders", o.batching.placeholders},
                       {"spare_blocks", o.batching.spare_blocks},
                       {"depth", o.depth},
                       {"extra_steps", o.extra_steps},
                       {"most_outstanding", o.most_outstanding},
                       {"most_routes", o.most_routes},
                       {"wait_for_way_ns", o.wait_for_way.value},
                       {"router", std::string(router_name(o.router))},
                       {"seed", static_cast<int64_t>(o.seed)},
                       {"minimum_share", o.minimum_share}});
}

Result<HostOptions> parse_host_setup(const Json& json) {
  if (json["machine"].as_string() != "host" || json["schema"].as_int() != kSetupSchema) {
    return errorf(Code::kUnsupported,
                  "the journal's setup is that of {}, schema {}; this program replays host, schema "
                  "{}: use the version that wrote it", json["machine"].dump(),
                  json["schema"].dump(), kSetupSchema);
  }
  HostOptions o;
  Error fault(Code::kInvalidArgument, "");
  bool good = true;
  const auto number = [&](std::string_view name, auto& field, double low, double high) {
    const Json& value = json[name];
    const double v = value.as_double(std::nan(""));
    if (!good) return;
    if (!value.is_number() || !(v >= low && v <= high)) {
      good = false;
      fault =
          errorf(Code::kInvalidArgument, "the journal's setup has {} = {}; {} to {} is possible",
                 name, value.dump(), low, high);
      return;
    }
    using Field = std::remove_reference_t<decltype(field)>;
    if constexpr (std::is_floating_point_v<Field>) {
      field = v;
    } else {
      field = static_cast<Field>(value.as_int());
    }
  };
  constexpr double kInt = 2147483647.0, kLong = 9.3e18;
  number("total_layers", o.total_layers, 1, 4096);
  number("high_water", o.estimator.high_water, 0, 1);
  number("usual_output", o.estimator.usual_output, 0, 1e7);
  number("output_ratio", o.estimator.output_ratio, 0, 100);
  number("most_waiting", o.admission.waiting, 0, kLong);
  number("most_placed", o.admission.placed, 0, kLong);
  number("feed_high_water", o.admission.feed_high_water, 0, 1);
  number("step_tokens", o.batching.step_tokens, 1, kInt);
  number("sequences", o.batching.sequences, 1, kInt);
  number("chunk_tokens", o.batching.chunk_tokens, 1, kInt);
  number("ahead", o.batching.ahead, 0, 4096);
  if (json.contains("spare_blocks")) number("spare_blocks", o.batching.spare_blocks, 0, kInt);
  number("depth", o.depth, 0, 4096);
  number("extra_steps", o.extra_steps, 0, 4096);
  number("most_outstanding", o.most_outstanding, 1, kInt);
  number("most_routes", o.most_routes, 1, kInt);
  number("wait_for_way_ns", o.wait_for_way.value, 0, kLong);
  number("minimum_share", o.minimum_share, 0, 1);
  o.batching.prefix_cache = json["prefix_cache"].as_bool();
  o.batching.placeholders = json["placeholders"].as_bool();
  o.admission.offline = json["offline"].as_bool();
  o.seed = static_cast<uint64_t>(json["seed"].as_int());
  ASSIGN_OR_RETURN(o.router, router_named(json["router"].as_string()));
  if (!good) return fault;
  return o;
}

// --- events -------------------------------------------------------------------------------------

std::string encode_event(const HostEvent& event) {
  std::string out;
  const auto tag = [&](EventTag t) { out.push_back(static_cast<char>(t)); };
  if (const auto* arrival = std::get_if<Arrive>(&event)) {
    tag(EventTag::kArrive);
    put(out, arrival->id.value);
    put(out, arrival->prompt_length);
    put(out, arrival->max_tokens);
    put(out, arrival->priority);
    put_unsigned(out, arrival->every_row ? 1 : 0);
    put_unsigned(out, arrival->cache_salt);
    put_unsigned(out, arrival->prompt.size());
    for (const int32_t token : arrival->prompt) put(out, token);
  } else if (const auto* cancelled = std::get_if<Cancel>(&event)) {
    tag(EventTag::kCancel);
    put(out, cancelled->id.value);
  } else if (const auto* done = std::get_if<StepDone>(&event)) {
    tag(EventTag::kStepDone);
    put(out, done->ticket);
    put_unsigned(out, done->sampled.size());
    for (const Sampled& s : done->sampled) {
      put(out, s.seq.value);
      put(out, s.token);
      put_unsigned(out, (s.stop ? 1u : 0u) | (s.failed ? 2u : 0u));
    }
  } else if (const auto* plan = std::get_if<HostPlan>(&event)) {
    tag(EventTag::kPlan);
    encode_plan(out, *plan);
  } else if (const auto* broken = std::get_if<BreakLanes>(&event)) {
    tag(EventTag::kBreakLanes);
    put_unsigned(out, broken->lanes.size());
    for (const LaneId lane : broken->lanes) put(out, lane.value);
    put_unsigned(out, broken->failed.size());
    for (const RequestId id : broken->failed) put(out, id.value);
  } else if (const auto* arrived = std::get_if<KvArrived>(&event)) {
    tag(EventTag::kKvArrived);
    put(out, arrived->id.value);
    put_unsigned(out, arrived->lost ? 1 : 0);
  } else {
    tag(EventTag::kTick);
  }
  return out;
}

Result<DecodedEvent> decode_event(std::string_view bytes) {
  const Error bad(Code::kDataCorrupt, "an event of the journal breaks its own format");
  if (bytes.empty()) return bad;
  Fields in(bytes.substr(1));
  DecodedEvent decoded;
  switch (static_cast<EventTag>(bytes[0])) {
    case EventTag::kArrive: {
      Arrive a;
      a.id = RequestId(in.get());
      a.prompt_length = in.get32(0, kMostTokens);
      a.max_tokens = in.get32(0, kMostTokens);
      a.priority = in.get32();
      a.every_row = in.get_flag();
      a.cache_salt = in.get_unsigned();
      const size_t tokens = in.get_count();
      a.prompt.reserve(tokens);
      for (size_t i = 0; i < tokens && !in.failed(); ++i) a.prompt.push_back(in.get32());
      if (a.prompt.empty() && a.prompt_length < 1) return bad;
      decoded.event = std::move(a);
      break;
    }
    case EventTag::kCancel:
      decoded.event = Cancel{RequestId(in.get())};
      break;
    case EventTag::kStepDone: {
      StepDone done;
      done.ticket = in.get32(0);
      const size_t count = in.get_count();
      for (size_t i = 0; i < count && !in.failed(); ++i) {
        Sampled s;
        s.seq = SeqId(in.get());
        s.token = in.get32();
        const uint64_t flags = in.get_unsigned();
        s.stop = (flags & 1) != 0;
        s.failed = (flags & 2) != 0;
        decoded.sampled.push_back(s);
      }
      done.sampled = decoded.sampled;  // moves with the vector: its storage stays where it is
      decoded.event = done;
      break;
    }
    case EventTag::kPlan:
      decoded.event = decode_plan(in);
      break;
    case EventTag::kBreakLanes: {
      BreakLanes broken;
      const size_t lanes = in.get_count();
      for (size_t i = 0; i < lanes && !in.failed(); ++i) broken.lanes.push_back(LaneId(in.get32()));
      const size_t failed = in.get_count();
      for (size_t i = 0; i < failed && !in.failed(); ++i) {
        broken.failed.push_back(RequestId(in.get()));
      }
      decoded.event = std::move(broken);
      break;
    }
    case EventTag::kKvArrived: {
      KvArrived arrived;
      arrived.id = RequestId(in.get());
      arrived.lost = in.get_flag();
      decoded.event = arrived;
      break;
    }
    case EventTag::kTick:
      decoded.event = Tick{};
      break;
    default:
      return bad;
  }
  if (in.failed() || !in.at_end()) return bad;
  return decoded;
}

Result<void> check_event(const Host& host, const HostEvent& event) {
  const auto bad = [](std::string_view what) {
    return errorf(Code::kDataCorrupt, "the journal tells of {}, which cannot be at this point",
                  what);
  };
  if (const auto* arrival = std::get_if<Arrive>(&event)) {
    if (host.knows(arrival->id)) return bad("a request that is there already");
  } else if (const auto* done = std::get_if<StepDone>(&event)) {
    if (!host.is_flying(done->ticket)) return bad("the end of a step that is not on its way");
    if (!host.batcher().in_order(host.flight(done->ticket))) {
      return bad("the end of a step before that of an earlier one");
    }
    if (!done->sampled.empty()) {
      size_t next = 0;
      for (const StepEntry& entry : host.flight(done->ticket).entries) {
        if (!entry.samples) continue;
        if (next == done->sampled.size() || done->sampled[next].seq != entry.seq) {
          return bad("tokens of other sequences than the step holds");
        }
        ++next;
      }
      if (next != done->sampled.size()) return bad("more tokens than the step samples");
    }
  } else if (const auto* plan = std::get_if<HostPlan>(&event)) {
    TRY(host.check_plan(*plan));
  }
  return {};
}

// --- actions ------------------------------------------------------------------------------------

void digest_actions(const Host& host, std::span<const HostAction> actions, Digest& digest) {
  for (const HostAction& action : actions) {
    digest.add(static_cast<int64_t>(action.kind));
    digest.add(action.lane.value);
    if (action.kind == HostAction::Kind::kAbandon) {
      digest.add(action.ticket);
    } else if (action.kind == HostAction::Kind::kLaneClosed) {
      continue;
    } else if (action.kind != HostAction::Kind::kLaunch) {
      digest.add(action.id.value);
      digest.add(static_cast<int64_t>(action.outcome));
      if (!action.reason.empty()) digest.add(action.reason);
    } else {
      const Step& step = host.flight(action.ticket);
      digest.add(action.ticket);
      digest.add(step.number.value);
      for (const Hop& hop : host.lane(step.lane).pipeline) digest.add(hop.link);
      for (const SeqId seq : step.dropped) digest.add(seq.value);
      for (const StepEntry& entry : step.entries) {
        digest.add(entry.seq.value);
        digest.add((int64_t{entry.from} << 32) + entry.to);
        digest.add((int64_t{entry.logits_from} << 2) + (entry.samples ? 2 : 0) +
                   (entry.fresh ? 1 : 0));
        for (const BlockId block : entry.blocks) digest.add(block.value);
        for (const int32_t token : entry.tokens) digest.add(token);
      }
    }
  }
}

}  // namespace towline::policy
