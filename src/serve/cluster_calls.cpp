// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ClusterEngine: LoRA adapters and collective calls.
#include <algorithm>
#include <array>
#include <filesystem>
#include <utility>

#include "base/fmt.hpp"
#include "serve/cluster_engine.hpp"

namespace towline::serve {
namespace {

using protocol::MessageKind;
using protocol::Method;

constexpr Duration kSendPatience = seconds(2);

// What an operator may ask of the nodes directly. The rest changes state
// that the coordinator keeps.
struct Question {
  std::string_view name;
  Method method;
};
constexpr auto kQuestions = std::to_array<Question>({{"health", Method::kHealth},
                                                     {"state_hash", Method::kStateHash},
                                                     {"dump_state", Method::kDumpState},
                                                     {"list_adapters", Method::kListAdapters},
                                                     {"warm_up", Method::kWarmUp},
                                                     {"profile", Method::kProfile}});

// 0: the method's own.
Result<Duration> patience_in(const Json& args) {
  const Json& asked = args["timeout_s"];
  if (asked.is_null()) return Duration{};
  const double most = asked.as_double(0);
  if (!(most >= 0.001 && most <= 86400)) {
    return errorf(Code::kInvalidArgument, "timeout_s {} is no time from 0.001 to 86400 seconds",
                  asked.dump());
  }
  return Duration(static_cast<int64_t>(most * 1e9));
}

// What sleep and wake take: nothing else is meant by what a caller says.
Result<void> check_sleep(bool sleeps, const Json& args) {
  for (const auto& [name, value] : args.members()) {
    if (name == "timeout_s" || (sleeps && name == "level")) continue;
    return errorf(Code::kInvalidArgument, "{} has no argument '{}'; it has {}timeout_s",
                  sleeps ? "sleep" : "wake", name, sleeps ? "level, " : "");
  }
  const Json& level = args["level"];
  const bool known = level.is_int() && (level.as_int() == 1 || level.as_int() == 2);
  if (level.is_null() || known) return {};
  return errorf(Code::kInvalidArgument, "sleep level {} is not 1 (KV) or 2 (weights too)",
                level.dump());
}

}  // namespace

void ClusterEngine::start_calls() {
  calls_ = std::make_unique<NodeCalls>(
      [this](int64_t caller, const protocol::RpcRequest& request) -> Result<void> {
        const auto at = guests_.find(caller);
        if (at == guests_.end()) return Error(Code::kUnavailable, "the node has gone");
        return at->second.channel->send(static_cast<uint16_t>(MessageKind::kRpcRequest),
                                        static_cast<uint32_t>(options_.epoch.value),
                                        protocol::encode(request), net::deadline_in(kSendPatience));
      });
  adapters_ = std::make_unique<ClusterAdapters>(
      *calls_, ClusterAdapters::Nodes{[this] { return callers(); },
                                      [this](int64_t caller) { return node_name(caller); }});
}

std::vector<int64_t> ClusterEngine::callers() const {
  std::vector<int64_t> out;
  for (const auto& [caller, guest] : guests_) {
    if (guest.node.value >= 0) out.push_back(caller);
  }
  return out;
}

std::string ClusterEngine::node_name(int64_t caller) const {
  if (const auto at = guests_.find(caller); at != guests_.end()) return at->second.theirs.name;
  const auto at = departed_.find(caller);
  return at == departed_.end() ? "that has gone" : at->second;
}

// --- adapters -----------------------------------------------------------------------------------

void ClusterEngine::publish_adapters() {
  const std::lock_guard lock(mutex_);
  adapter_names_ = adapters_->names();
}

Result<void> ClusterEngine::load_adapter(const std::string& name, const std::string& path,
                                         AdapterDone done) {
  // Nodes may have another working directory.
  std::error_code error;
  const std::string full = std::filesystem::absolute(path, error).string();
  post([this, name, full, done = std::move(done)] {
    const auto ended = [this, done](Result<void> result) {
      publish_adapters();
      done(std::move(result));
    };
    Result<void> begun = adapters_->load(name, full, ended);
    if (!begun) done(std::move(begun));
  });
  return {};
}

Result<void> ClusterEngine::unload_adapter(const std::string& name) {
  const auto told = ask<std::optional<Error>>([this, name]() -> std::optional<Error> {
    const Result<void> unloaded = adapters_->unload(name);
    publish_adapters();
    return unloaded ? std::nullopt : std::optional<Error>(unloaded.error());
  });
  if (!told) return busy();
  return *told ? Result<void>(**told) : Result<void>();
}

std::vector<std::string> ClusterEngine::adapters() const {
  const std::lock_guard lock(mutex_);
  return adapter_names_;
}

// The adapter's id for a request that begins; the request ends at once
// if it was unloaded meanwhile.
Result<int32_t> ClusterEngine::use_adapter(RequestId id, const std::string& name) {
  if (name.empty()) return -1;
  ASSIGN_OR_RETURN(const int32_t adapter, adapters_->begin(name));
  adapter_of_[id] = adapter;
  return adapter;
}

void ClusterEngine::release_adapter(RequestId id) {
  const auto used = adapter_of_.extract(id);
  if (!used.empty()) adapters_->end(used.mapped());
}

// --- calls --------------------------------------------------------------------------------------

Json ClusterEngine::by_node(const NodeCalls::Answers& answers) const {
  Json out = Json::object();
  for (const auto& [caller, answer] : answers) {
    out.set(node_name(caller), answer ? Json::object({{"ok", true}, {"answer", *answer}})
                                      : Json::object({{"ok", false},
                                                      {"error", answer.error().to_string()}}));
  }
  return out;
}

Result<void> ClusterEngine::call(const std::string& method, const Json& args, CallDone done) {
  if (method == "reset_prefix_cache") {
    post([this, done = std::move(done)] {
      ++cache_generation_;  // no sequence from now on finds what was there before
      done(Json::object());
    });
    return {};
  }
  if (!args.is_object()) {
    return errorf(Code::kInvalidArgument, "the arguments of a call are a JSON object, not {}",
                  args.dump());
  }
  ASSIGN_OR_RETURN(const Duration patience, patience_in(args));
  if (method == "sleep" || method == "wake") {
    const bool sleeps = method == "sleep";
    TRY(check_sleep(sleeps, args));
    post([this, sleeps, args, patience, done = std::move(done)] {
      sleep_or_wake(sleeps, args, patience, done);
    });
    return {};
  }
  const auto* question = std::ranges::find(kQuestions, method, &Question::name);
  if (question == kQuestions.end()) {
    std::string known = "reset_prefix_cache, sleep, wake";
    for (const Question& q : kQuestions) known += format(", {}", q.name);
    return errorf(Code::kNotFound, "there is no call '{}'; there are {}", method, known);
  }
  post([this, wanted = question->method, args, patience, done = std::move(done)] {
    calls_->call(
        callers(), wanted, args,
        [this, done](const NodeCalls::Answers& answers) { done(by_node(answers)); }, patience);
  });
  return {};
}

// Asleep, a cluster refuses requests. Only an idle one goes to sleep: KV contents are given back.
// It sleeps as a whole or not at all.
void ClusterEngine::sleep_or_wake(bool sleeps, const Json& args, Duration patience,
                                  const CallDone& done) {
  if (sleeps && unfinished_.load(std::memory_order_acquire) > 0) {
    return done(errorf(Code::kUnavailable,
                       "{} requests are running or waiting; a cluster sleeps when "
                       "it is idle",
                       unfinished_.load()));
  }
  const bool slept = asleep_.load(std::memory_order_acquire);
  if (sleeps) asleep_.store(true, std::memory_order_release);
  ++cache_generation_;
  calls_->call(callers(), sleeps ? Method::kSleep : Method::kWake, args,
               [this, sleeps, slept, done](const NodeCalls::Answers& answers) {
                 // One that has gone does not sleep on: if it comes again it is awake.
                 const std::optional<Error> fault = fault_of(answers, sleeps);
                 if (!sleeps && !fault) asleep_.store(false, std::memory_order_release);
                 if (!fault) return done(by_node(answers));
                 if (!sleeps || slept) return done(*fault);
                 calls_->call(callers(), Method::kWake, Json::object(),
                              [this, fault, done](const NodeCalls::Answers& woken) {
                                if (!fault_of(woken)) {
                                  asleep_.store(false, std::memory_order_release);
                                }
                                done(*fault);
                              });
               },
               patience);
}

// What failed where, with the code of the first; nothing if all went well. Not `of_all`: of the
// nodes that are still there.
std::optional<Error> ClusterEngine::fault_of(const NodeCalls::Answers& answers,
                                             bool of_all) const {
  std::string why;
  Code code = Code::kUnavailable;
  for (const auto& [caller, answer] : answers) {
    if (answer || (!of_all && !guests_.contains(caller))) continue;
    if (why.empty()) code = answer.error().code();
    why += format("{}node {}: {}", why.empty() ? "" : "; ", node_name(caller),
                  answer.error().to_string());
  }
  return why.empty() ? std::nullopt : std::optional(Error(code, why));
}

}  // namespace towline::serve
