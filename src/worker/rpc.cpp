// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/rpc.hpp"

#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/fmt.hpp"
#include "net/clock.hpp"

namespace towline::worker {
namespace {

struct Nothing {
  static Result<Nothing> parse(const Json&) { return Nothing{}; }
};

struct SleepArgs {
  int level = 1;
  static Result<SleepArgs> parse(const Json& args) {
    const int64_t level = args["level"].as_int(1);
    if (level < 1 || level > 2) {
      return errorf(Code::kInvalidArgument, "sleep level {} is not 1 (KV) or 2 (weights too)",
                    level);
    }
    return SleepArgs{static_cast<int>(level)};
  }
};

struct ProfileArgs {
  bool on = false;
  static Result<ProfileArgs> parse(const Json& args) {
    if (!args["on"].is_bool()) return Error(Code::kInvalidArgument, "profile needs \"on\"");
    return ProfileArgs{args["on"].as_bool()};
  }
};

struct DummyArgs {
  int32_t rows = 1;
  static Result<DummyArgs> parse(const Json& args) {
    return DummyArgs{static_cast<int32_t>(std::clamp<int64_t>(args["rows"].as_int(1), 1, 1 << 20))};
  }
};

template <class Request, Result<Json> (*Handle)(RankContext&, const Request&)>
Result<Json> typed(RankContext& rank, const Json& args) {
  ASSIGN_OR_RETURN(const Request request, Request::parse(args));
  return Handle(rank, request);
}

Result<Json> done(Result<void> outcome) {
  TRY(std::move(outcome));
  return Json::object();
}

Result<Json> init_model(RankContext& rank, const InitModel& init) {
  if (rank.ready) return Error(Code::kAlreadyExists, "the model is loaded already");
  ASSIGN_OR_RETURN(rank.executor, rank.factory(init.executor, rank.place));
  policy::MirrorLimits limits = init.limits;
  const Executor& e = *rank.executor;
  limits.blocks = std::min(limits.blocks, e.kv_blocks());
  limits.layers = e.layers();
  if (rank.place.stages > 1) {  // messages are of the whole node
    const Json& layers = init.executor["layers"];
    limits.layers = {static_cast<int32_t>(layers[size_t{0}].as_int()),
                     static_cast<int32_t>(layers[size_t{1}].as_int())};
  }
  rank.mirror = std::make_unique<policy::StepMirror>(limits);
  rank.ready.store(true, std::memory_order_release);
  return Geometry{e.hidden_width(), e.max_rows(), limits.blocks, e.layers(), ::getpid()}.json();
}

Result<Adapters*> adapters_of(RankContext& rank) {
  Adapters* adapters = rank.executor->adapters();
  if (adapters == nullptr) {
    return Error(Code::kUnsupported, "this executor does not take LoRA adapters");
  }
  return adapters;
}

Result<Json> stage_adapter(RankContext& rank, const AdapterArgs& args) {
  ASSIGN_OR_RETURN(Adapters* const adapters, adapters_of(rank));
  return done(adapters->stage(args.id, args.path));
}

Result<Json> commit_adapter(RankContext& rank, const AdapterArgs& args) {
  ASSIGN_OR_RETURN(Adapters* const adapters, adapters_of(rank));
  adapters->commit(args.id);
  return Json::object();
}

Result<Json> discard_adapter(RankContext& rank, const AdapterArgs& args) {
  ASSIGN_OR_RETURN(Adapters* const adapters, adapters_of(rank));
  adapters->discard(args.id);
  return Json::object();
}

Result<Json> remove_adapter(RankContext& rank, const AdapterArgs& args) {
  ASSIGN_OR_RETURN(Adapters* const adapters, adapters_of(rank));
  return done(adapters->remove(args.id));
}

Result<Json> list_adapters(RankContext& rank, const Nothing&) {
  ASSIGN_OR_RETURN(Adapters* const adapters, adapters_of(rank));
  Json list = Json::array();
  for (const int32_t id : adapters->list()) list.push(id);
  return list;
}

Result<Json> warm_up(RankContext& rank, const Nothing&) { return done(rank.executor->warm_up()); }
Result<Json> reset_kv(RankContext& rank, const Nothing&) { return done(rank.executor->reset_kv()); }
Result<Json> forget(RankContext& rank, const Nothing&) {
  if (Adapters* const adapters = rank.executor->adapters()) {
    for (const int32_t id : adapters->list()) TRY(adapters->remove(id));
  }
  *rank.mirror = policy::StepMirror(rank.mirror->limits());
  return done(rank.executor->reset_kv());
}
Result<Json> sleep(RankContext& rank, const SleepArgs& a) {
  return done(rank.executor->sleep(a.level));
}
Result<Json> wake(RankContext& rank, const Nothing&) { return done(rank.executor->wake()); }
// The file's place is the rank's choice: who may call does not get to write anywhere.
Result<Json> profile(RankContext& rank, const ProfileArgs& a) {
  if (a.on) {
    rank.trace.start();
    return Json::object({{"rank", rank.place.world_rank()}, {"recording", true}});
  }
  const LayerRange layers = rank.executor->layers();
  std::error_code error;
  const std::string folder = std::filesystem::temp_directory_path(error).string();
  return rank.trace.finish(rank.place, format("layers [{}, {})", layers.begin, layers.end),
                           error ? "/tmp" : folder);
}

// Rows of a sequence that nobody asked for: the cost of a step. Only where the executor does not
// mind blocks of its pool being overwritten: with no sequence alive.
Result<Json> dummy_batch(RankContext& rank, const DummyArgs& args) {
  const policy::StepMirror& mirror = *rank.mirror;
  const auto live = std::ranges::count_if(mirror.slots(), &policy::SlotState::live);
  if (live > 0) {
    return errorf(Code::kUnavailable, "a dummy batch needs an idle node; {} sequences live", live);
  }
  Executor& e = *rank.executor;
  const int32_t rows = std::min({args.rows, e.max_rows(), e.kv_blocks() * 16});
  policy::SlotState state;
  state.live = true;
  state.serial = kDummySerial;
  state.spec.prompt_length = rows;
  state.tokens.assign(static_cast<size_t>(rows), 0);
  for (int32_t b = 0; b * 16 < rows; ++b) state.blocks.push_back(b);
  const Row row{0, &state, 0, rows, rows, false};
  RunItem item;
  item.hop.layers = e.layers();
  item.hop.previous = NodeId(e.layers().begin == 0 ? -1 : 0);
  item.hop.next = NodeId(e.layers().end == e.model_layers() ? -1 : 0);
  item.rows = {&row, 1};
  std::vector<float> hidden(static_cast<size_t>(rows) * static_cast<size_t>(e.hidden_width()));
  std::vector<RowResult> results;
  const Instant begin = net::steady_now();
  TRY(e.run({&item, 1}, hidden, results));
  return Json::object({{"rows", rows}, {"seconds", to_seconds(net::steady_now() - begin)}});
}

Result<Json> dump_state(RankContext& rank, const Nothing&) {
  const policy::StepMirror& mirror = *rank.mirror;
  Json slots = Json::array();
  for (uint32_t i = 0; const policy::SlotState& s : mirror.slots()) {
    if (s.live) {
      slots.push(Json::object({{"slot", int64_t{i}},
                               {"generation", int64_t{s.gen}},
                               {"sequence", s.spec.seq.value},
                               {"lane", int64_t{s.lane.value}},
                               {"tokens", s.tokens.size()},
                               {"computed", s.computed},
                               {"blocks", s.blocks.size()}}));
    }
    ++i;
  }
  return Json::object({{"epoch", mirror.epoch().value},
                       {"number", mirror.number()},
                       {"hash", format("{:016x}", mirror.hash())},
                       {"pending", mirror.all_pending().size()},
                       {"slots", std::move(slots)},
                       {"executor", rank.executor->status()}});
}

Result<Json> shutdown(RankContext& rank, const Nothing&) {
  rank.leave = true;
  return Json::object();
}

Result<Json> health(RankContext& rank, const Nothing&) {
  static constexpr const char* kPhases[] = {"idle", "apply", "compute", "reply", "call"};
  const RankProgress& p = rank.progress;
  return Json::object({{"rank", rank.place.world_rank()},
                       {"pid", int64_t{::getpid()}},
                       {"phase", kPhases[std::min(p.phase.load(), 4u)]},
                       {"sequence", static_cast<int64_t>(p.sequence.load())},
                       {"steps", p.steps.load()}});
}

Result<Json> state_hash(RankContext& rank, const Nothing&) {
  return Json::object({{"hash", format("{:016x}", rank.progress.hash.load())}});
}

Result<Json> abort_step(RankContext& rank, const Nothing&) {
  rank.executor->abort();
  return Json::object();
}

constexpr MethodRow kMethods[] = {
    {Method::kInitModel, "init_model", Band::kIn, Reduction::kEach, typed<InitModel, init_model>,
     "load this rank's part of the model", R"({"executor":{"kind":"null"}})"},
    {Method::kWarmUp, "warm_up", Band::kIn, Reduction::kSame, typed<Nothing, warm_up>,
     "touch memory before the first request", "{}"},
    {Method::kStageAdapter, "stage_adapter", Band::kOut, Reduction::kSame,
     typed<AdapterArgs, stage_adapter>, "read a LoRA adapter's files", R"({"id":1,"path":"a"})"},
    {Method::kCommitAdapter, "commit_adapter", Band::kIn, Reduction::kSame,
     typed<AdapterArgs, commit_adapter>, "make a staged adapter usable", R"({"id":1})"},
    {Method::kDiscardAdapter, "discard_adapter", Band::kIn, Reduction::kSame,
     typed<AdapterArgs, discard_adapter>, "forget a staged adapter", R"({"id":2})"},
    {Method::kRemoveAdapter, "remove_adapter", Band::kIn, Reduction::kSame,
     typed<AdapterArgs, remove_adapter>, "unload an adapter", R"({"id":1})"},
    {Method::kListAdapters, "list_adapters", Band::kIn, Reduction::kSame,
     typed<Nothing, list_adapters>, "ids of the adapters that rows may name", "{}"},
    {Method::kResetKv, "reset_kv", Band::kIn, Reduction::kSame, typed<Nothing, reset_kv>,
     "forget all KV contents", "{}"},
    {Method::kSleep, "sleep", Band::kIn, Reduction::kSame, typed<SleepArgs, sleep>,
     "give memory back", R"({"level":1})"},
    {Method::kWake, "wake", Band::kIn, Reduction::kSame, typed<Nothing, wake>,
     "take the memory again", "{}"},
    {Method::kProfile, "profile", Band::kIn, Reduction::kEach, typed<ProfileArgs, profile>,
     "record a span for each run; off: write them to a file and say which", R"({"on":false})"},
    {Method::kDummyBatch, "dummy_batch", Band::kIn, Reduction::kEach, typed<DummyArgs, dummy_batch>,
     "evaluate rows of no request, and how long that takes", R"({"rows":4})"},
    {Method::kDumpState, "dump_state", Band::kIn, Reduction::kEach, typed<Nothing, dump_state>,
     "what the rank holds, for people", "{}"},
    {Method::kHealth, "health", Band::kOut, Reduction::kEach, typed<Nothing, health>,
     "what the rank is at, also while it hangs", "{}"},
    {Method::kStateHash, "state_hash", Band::kOut, Reduction::kEach, typed<Nothing, state_hash>,
     "hash of the mirror after the last frame", "{}"},
    {Method::kAbort, "abort", Band::kOut, Reduction::kSame, typed<Nothing, abort_step>,
     "leave the collective that is under way", "{}"},
    {Method::kForget, "forget", Band::kIn, Reduction::kSame, typed<Nothing, forget>,
     "be as after loading: no sequences, no adapters", "{}"},
    {Method::kShutdown, "shutdown", Band::kIn, Reduction::kSame, typed<Nothing, shutdown>,
     "leave the loop", "{}"},
};

}  // namespace

std::span<const MethodRow> methods() { return kMethods; }

const MethodRow* find_method(uint16_t method) {
  const auto* row = std::ranges::find(kMethods, static_cast<Method>(method), &MethodRow::method);
  return row == std::end(kMethods) ? nullptr : row;
}

const MethodRow* find_method(std::string_view name) {
  const auto* row = std::ranges::find(kMethods, name, &MethodRow::name);
  return row == std::end(kMethods) ? nullptr : row;
}

Result<Json> call_method(RankContext& rank, uint16_t method, std::string_view args) {
  const MethodRow* row = find_method(method);
  if (row == nullptr) return errorf(Code::kUnsupported, "method {} is not known here", method);
  if (row->method != Method::kInitModel && !rank.ready.load(std::memory_order_acquire)) {
    return errorf(Code::kUnavailable, "{} before the model is loaded", row->name);
  }
  ASSIGN_OR_RETURN(const Json parsed, parse_json(args.empty() ? "{}" : args, row->name));
  return row->handle(rank, parsed);
}

// --- arguments ----------------------------------------------------------------------------------

Json InitModel::json() const {
  return Json::object({{"executor", executor},
                       {"slots", limits.slots},
                       {"blocks", limits.blocks},
                       {"context", limits.context},
                       {"vocab", limits.vocab},
                       {"step_rows", limits.step_rows},
                       {"pending", limits.pending}});
}

Result<InitModel> InitModel::parse(const Json& args) {
  InitModel init;
  init.executor = args["executor"];
  if (!init.executor.is_object()) {
    return Error(Code::kInvalidArgument, "init_model needs an \"executor\" description");
  }
  const auto read = [&](std::string_view name, int32_t* field) {
    const int64_t value = args[name].as_int(*field);
    *field = static_cast<int32_t>(std::clamp<int64_t>(value, 1, INT32_MAX));
  };
  read("slots", &init.limits.slots);
  read("blocks", &init.limits.blocks);
  read("context", &init.limits.context);
  read("vocab", &init.limits.vocab);
  read("step_rows", &init.limits.step_rows);
  read("pending", &init.limits.pending);
  return init;
}

Json Geometry::json() const {
  return Json::object({{"hidden_width", hidden_width},
                       {"max_rows", max_rows},
                       {"kv_blocks", kv_blocks},
                       {"layers", Json::array({layers.begin, layers.end})},
                       {"pid", pid}});
}

Result<Geometry> Geometry::parse(const Json& answer) {
  const auto number = [&](std::string_view name) {
    return static_cast<int32_t>(answer[name].as_int());
  };
  const Json& layers = answer["layers"];
  return Geometry{number("hidden_width"), number("max_rows"), number("kv_blocks"),
                  {static_cast<int32_t>(layers[size_t{0}].as_int()),
                   static_cast<int32_t>(layers[size_t{1}].as_int())},
                  answer["pid"].as_int()};
}

Json AdapterArgs::json() const { return Json::object({{"id", id}, {"path", path}}); }

Result<AdapterArgs> AdapterArgs::parse(const Json& args) {
  const int64_t id = args["id"].as_int(-1);
  if (id < 0 || id > INT32_MAX) {
    return errorf(Code::kInvalidArgument, "adapter id {} is not 0 or more", id);
  }
  return AdapterArgs{static_cast<int32_t>(id), args["path"].as_string()};
}

}  // namespace towline::worker
