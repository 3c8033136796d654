// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/tenure.hpp"

#include <unistd.h>

#include <optional>
#include <utility>

#include "base/fmt.hpp"
#include "base/log.hpp"
#include "net/transport.hpp"

namespace towline::cli {
namespace {

std::string process_name() {
  char host[256] = "unknown";
  ::gethostname(host, sizeof(host) - 1);
  return format("{}:{}", host, ::getpid());
}

// Without --standby: how long the lease of a predecessor that died may still be there.
constexpr int kLeasesToWait = 3;

}  // namespace

void add_tenure_rows(OptionTable& t, TenureOptions& o) {
  t.value("registry", &o.registry,
          "where processes find the coordinator: etcd://HOST:PORT[,HOST:PORT]/PREFIX (etcds:// "
          "over TLS, docs/cluster.md), or file:///FOLDER for one machine");
  t.value("registry-lease", &o.registry_lease,
          "seconds after which another process may take over from one that is silent")
      .range(2, 600);
  t.value("advertise", &o.advertise,
          "the coordinator's address as the registry shall tell it; default: --listen with this "
          "machine's name");
  t.value("state", &o.state,
          "folder in which the coordinator remembers its epoch and nodes, for its next start");
}

Result<std::unique_ptr<Tenure>> Tenure::start(Loop& loop, const TenureOptions& options,
                                              std::function<void(Result<void>)> begin) {
  if (options.standby && options.registry.empty()) {
    return Error(Code::kInvalidArgument,
                 "--standby waits for a lead in a registry: it needs --registry");
  }
  if (!options.advertise.empty()) TRY(net::check_address(options.advertise));
  std::unique_ptr<Tenure> self(new Tenure(loop, options));
  if (!options.state.empty()) {
    ASSIGN_OR_RETURN(self->state_, serve::CoordinatorState::open(options.state));
  }
  if (options.registry.empty()) {
    Result<void> begun;
    if (self->state_) begun = self->state_->begin(self->state_->past().epoch + 1);
    loop.post([begin = std::move(begin), begun = std::move(begun)]() mutable {
      begin(std::move(begun));
    });
    return self;
  }
  TRY(net::Registry::open(options.registry));  // what is wrong with the URL is told at once
  self->seeker_ = std::thread([tenure = self.get(), begin = std::move(begin)]() mutable {
    tenure->seek(std::move(begin));
  });
  return self;
}

Tenure::~Tenure() {
  stop_.request_stop();
  if (seeker_.joinable()) seeker_.join();
}

void Tenure::seek(std::function<void(Result<void>)> begin) {
  net::LeadershipOptions options;
  options.registry = options_.registry;
  options.name = process_name();
  options.lease = Duration(static_cast<int64_t>(options_.registry_lease * 1e9));
  options.floor = state_ ? state_->past().epoch : 0;
  std::optional<net::LeaderRecord> blocking;  // the one waited for
  net::Deadline patience = kNever;
  const auto go_on = [&](const std::optional<net::LeaderRecord>& other) {
    if (other && (!blocking || other->holder != blocking->holder)) {
      log_info("registry", "another process leads; standing by",
               {{"leader", other->name}, {"epoch", other->epoch}, {"url", other->url}});
      patience = net::deadline_in(options.lease * kLeasesToWait);
    }
    if (other) blocking = other;
    return options_.standby || !other || net::steady_now() < patience;
  };
  auto taken = net::Leadership::take(options, go_on, stop_.get_token());
  Result<void> outcome;
  if (taken) {
    leadership_ = std::move(*taken);
    if (state_) outcome = state_->begin(leadership_->epoch());
  } else if (blocking && !stop_.stop_requested()) {
    outcome =
        errorf(Code::kAlreadyExists, "{} is led by {} (epoch {}, {}); --standby waits for its end",
               options.registry, blocking->name, blocking->epoch, blocking->url);
  } else {
    outcome = taken.error();
  }
  loop_.post([begin = std::move(begin), outcome = std::move(outcome)]() mutable {
    begin(std::move(outcome));
  });
}

void Tenure::settle(serve::ClusterOptions& options, std::function<void(std::string)> on_deposed) {
  if (state_) {
    options.epoch = Epoch(state_->past().epoch + 1);
    for (const serve::CoordinatorMemory::Node& node : state_->past().nodes) {
      for (const uint64_t incarnation : node.incarnations) {
        options.fenced.emplace_back(node.name, incarnation);
      }
    }
  }
  if (leadership_) {
    options.epoch = Epoch(leadership_->epoch());
    options.may_act = [this] { return leadership_->check(); };
  }
  options.on_deposed = [this, told = std::move(on_deposed)](const std::string& reason) {
    loop_.post([told, reason] { told(reason); });
  };
  options.on_nodes = [this](const std::vector<policy::NodeView>& nodes) { on_nodes(nodes); };
}

void Tenure::on_nodes(const std::vector<policy::NodeView>& nodes) {
  Json list = Json::array();
  for (const policy::NodeView& node : nodes) {
    if (node.incarnation == 0) continue;  // nobody of that name was ever here
    if (state_ && node.state == "ready") state_->note(node.name, node.incarnation);
    list.push(Json::object({{"name", node.name},
                            {"state", node.state},
                            {"incarnation", format("{:016x}", node.incarnation)},
                            {"layers", Json::array({Json(int64_t{node.layers.begin}),
                                                    Json(int64_t{node.layers.end})})}}));
  }
  if (!leadership_) return;
  const std::lock_guard lock(mutex_);
  nodes_ = std::move(list);
  if (!address_.empty()) leadership_->publish(address_, url_, nodes_);
}

void Tenure::publish(const std::string& address, const std::string& url,
                     std::function<void()> wake) {
  if (!leadership_) return;
  const std::lock_guard lock(mutex_);
  address_ = options_.advertise.empty() ? address : options_.advertise;
  url_ = url;
  leadership_->publish(address_, url_, nodes_);
  leadership_->on_lost([this, wake = std::move(wake)](const std::string&) { loop_.post(wake); });
}

}  // namespace towline::cli
