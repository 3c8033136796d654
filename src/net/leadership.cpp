// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "net/leadership.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/fmt.hpp"
#include "base/log.hpp"

namespace towline::net {
namespace {

constexpr Duration kWatchEvery = seconds(1);           // while nothing is wanted
constexpr Duration kWatchSoon = milliseconds(200);     // while somebody waits for a leader
constexpr Duration kWatchPatience = seconds(2);        // with a registry that does not answer
constexpr Duration kComplainEvery = seconds(30);
constexpr Duration kResignPatience = milliseconds(500);

std::chrono::nanoseconds chrono_of(Duration d) { return std::chrono::nanoseconds(d.value); }

// One line when an outage begins, one now and then, and one when it is over.
void note_outage(std::optional<Instant>& since, std::optional<Instant>& complained,
                 const std::string& url, const Error* error, std::string_view meanwhile) {
  const Instant now = steady_now();
  if (error != nullptr) {
    if (!since) since = now;
    if (complained && now < *complained + kComplainEvery) return;
    complained = now;
    log_warn("registry", "does not answer", {{"url", url}, {"why", error->to_string()},
                                             {"meanwhile", meanwhile}});
  } else if (since) {
    log_info("registry", "answers again",
             {{"url", url}, {"after_s", format("{:.1f}", to_seconds(now - *since))}});
    since.reset();
    complained.reset();
  }
}

// False if a stop was requested, before or meanwhile.
bool sleep_unless(const std::stop_token& stop, Duration length) {
  std::mutex mutex;
  std::condition_variable_any stopped;
  std::unique_lock lock(mutex);
  stopped.wait_for(lock, stop, chrono_of(length), [] { return false; });
  return !stop.stop_requested();
}

}  // namespace

// --- Leadership ---------------------------------------------------------------------------------

Result<std::unique_ptr<Leadership>> Leadership::take(
    const LeadershipOptions& options,
    const std::function<bool(const std::optional<LeaderRecord>& other)>& go_on,
    const std::stop_token& stop) {
  ASSIGN_OR_RETURN(std::unique_ptr<Registry> registry, Registry::open(options.registry));
  auto seat = std::make_unique<LeaderSeat>(*registry, options.name, options.lease, options.floor);
  const Duration pause = std::clamp(options.lease / 4, milliseconds(100), seconds(1));
  std::optional<Instant> silent, complained;
  for (;;) {
    const Result<bool> won = seat->campaign(deadline_in(options.lease));
    note_outage(silent, complained, options.registry, won ? nullptr : &won.error(),
                "waiting for it");
    if (won && *won) break;
    if (go_on(seat->other()) && sleep_unless(stop, pause)) continue;
    if (!won) return won.error();
    return Error(Code::kCancelled, "told to stop while another process leads");
  }
  log_info("registry", "this process leads",
           {{"registry", options.registry}, {"epoch", seat->epoch()}});
  return std::unique_ptr<Leadership>(
      new Leadership(options, std::move(registry), std::move(seat)));
}

Leadership::Leadership(const LeadershipOptions& options, std::unique_ptr<Registry> registry,
                       std::unique_ptr<LeaderSeat> seat)
    : options_(options), registry_(std::move(registry)), seat_(std::move(seat)),
      epoch_(seat_->epoch()), trusted_until_ns_(seat_->held_until().ns),
      nodes_(Json::array().dump()) {
  thread_ = std::thread([this] { keep(); });
}

Leadership::~Leadership() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
  if (!lost_) seat_->resign(deadline_in(kResignPatience));
}

void Leadership::publish(std::string address, std::string url, const Json& nodes) {
  {
    const std::lock_guard lock(mutex_);
    std::string text = nodes.dump();
    if (address == address_ && url == url_ && text == nodes_) return;
    address_ = std::move(address);
    url_ = std::move(url);
    nodes_ = std::move(text);
    dirty_ = true;
  }
  changed_.notify_all();
}

Result<void> Leadership::check() {
  if (registry_now().ns < trusted_until_ns_.load(std::memory_order_acquire)) return {};
  std::unique_lock lock(mutex_);
  for (;;) {
    const Instant began = registry_now();
    asked_ = true;
    changed_.notify_all();
    const bool told = changed_.wait_for(lock, chrono_of(options_.lease / 2), [&] {
      return lost_ || registry_now().ns < trusted_until_ns_.load(std::memory_order_acquire);
    });
    if (lost_) return Error(Code::kUnavailable, reason_);
    if (told) return {};
    const Instant now = registry_now();
    if (now - began >= options_.lease * 3 / 4) continue;  // the process was stopped again
    // No answer for so long: an outage, in which a leader goes on.
    trusted_until_ns_.store((now + options_.lease).ns, std::memory_order_release);
    return {};
  }
}

void Leadership::on_lost(std::function<void(const std::string&)> tell) {
  std::unique_lock lock(mutex_);
  if (!lost_) {
    tell_ = std::move(tell);
    return;
  }
  lock.unlock();
  tell(reason_);
}

Json Leadership::status() const {
  const std::lock_guard lock(mutex_);
  Json status = Json::object({{"registry", options_.registry},
                              {"name", options_.name},
                              {"epoch", epoch_},
                              {"state", lost_ ? "lost" : silent_since_ ? "unanswered" : "held"}});
  if (silent_since_) status.set("since_s", to_seconds(steady_now() - *silent_since_));
  return status;
}

void Leadership::keep() {
  std::unique_lock lock(mutex_);
  Deadline next = deadline_in(options_.lease / 3);
  while (!stop_ && !lost_) {
    changed_.wait_for(lock, chrono_of(next - steady_now()), [&] {
      return stop_ || asked_ || (dirty_ && !silent_since_);
    });
    if (stop_) return;
    asked_ = false;
    lock.unlock();
    keep_once();
    lock.lock();
    next = deadline_in(options_.lease / 3);
    changed_.notify_all();
  }
}

void Leadership::keep_once() {
  const Instant began = registry_now();
  const Deadline deadline = deadline_in(options_.lease / 3);
  Result<bool> holds = seat_->renew(deadline);
  if (holds && *holds) {
    // Clocks of two machines differ in speed too.
    const Instant until = seat_->held_until() - options_.lease / 10;
    trusted_until_ns_.store(until.ns, std::memory_order_release);
    std::unique_lock lock(mutex_);
    if (std::exchange(dirty_, false)) {
      const std::string address = address_, url = url_, nodes = nodes_;
      lock.unlock();
      const Result<bool> published = seat_->publish(address, url, nodes, deadline);
      lock.lock();
      if (!published || !*published) dirty_ = true;
      if (!published) holds = published.error();
    }
  }
  if (holds && !*holds) return lose(seat_->reason());
  const std::lock_guard lock(mutex_);
  note_outage(silent_since_, complained_, options_.registry, holds ? nullptr : &holds.error(),
              "requests go on; no other process can take over by it");
  if (holds) return;
  // A question that took longer than it may was asked before the process was stopped.
  const Instant now = registry_now();
  if (now - began < options_.lease / 2) {
    trusted_until_ns_.store((now + options_.lease).ns, std::memory_order_release);
  } else {
    asked_ = true;
  }
}

void Leadership::lose(const std::string& reason) {
  std::function<void(const std::string&)> tell;
  {
    const std::lock_guard lock(mutex_);
    lost_ = true;
    reason_ = format("this process led epoch {} and has lost the lead: {}", epoch_, reason);
    trusted_until_ns_.store(0, std::memory_order_release);
    tell = std::move(tell_);
  }
  log_error("registry", "the lead is lost", {{"epoch", epoch_}, {"why", reason}});
  changed_.notify_all();
  if (tell) tell(reason_);
}

// --- LeaderWatch --------------------------------------------------------------------------------

Result<std::unique_ptr<LeaderWatch>> LeaderWatch::start(const std::string& registry) {
  ASSIGN_OR_RETURN(std::unique_ptr<Registry> opened, Registry::open(registry));
  std::unique_ptr<LeaderWatch> self(new LeaderWatch(std::move(opened)));
  self->thread_ = std::thread([watch = self.get()] { watch->watch(); });
  return self;
}

LeaderWatch::~LeaderWatch() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::optional<LeaderRecord> LeaderWatch::leader() const {
  const std::lock_guard lock(mutex_);
  return leader_;
}

void LeaderWatch::watch() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    lock.unlock();
    look();
    lock.lock();
    changed_.notify_all();
    // Somebody who begins to wait ends the long pause.
    const Deadline long_end = deadline_in(kWatchEvery), short_end = deadline_in(kWatchSoon);
    changed_.wait_for(lock, chrono_of(kWatchSoon), [&] { return stop_; });
    changed_.wait_for(lock, chrono_of(long_end - short_end), [&] { return stop_ || waiting_ > 0; });
  }
}

void LeaderWatch::look() {
  const auto entries = registry_->list("coordinator/leader", deadline_in(kWatchPatience));
  std::optional<LeaderRecord> found;
  std::optional<Error> failure;
  if (!entries) {
    failure = entries.error();
  } else if (!entries->empty()) {
    Result<LeaderRecord> record = LeaderRecord::parse(entries->front().value);
    if (!record) {
      failure = record.error();
    } else if (!record->address.empty()) {
      found = std::move(*record);
    }
  }
  const std::lock_guard lock(mutex_);
  note_outage(silent_since_, complained_, registry_->url(), failure ? &*failure : nullptr,
              "what is known of the coordinator stays");
  if (!failure) leader_ = found;
  failure_ = std::move(failure);
  if (found) highest_.store(std::max(highest_.load(), found->epoch), std::memory_order_relaxed);
}

Result<LeaderRecord> LeaderWatch::wait(int64_t epoch, Deadline deadline,
                                       const std::stop_token& stop) {
  const auto found = [&] { return leader_ && leader_->epoch >= epoch; };
  std::unique_lock lock(mutex_);
  ++waiting_;
  changed_.notify_all();
  if (deadline == kNever) {
    changed_.wait(lock, stop, found);
  } else {
    changed_.wait_until(
        lock, stop, std::chrono::steady_clock::time_point(chrono_of(Duration(deadline.ns))), found);
  }
  --waiting_;
  if (stop.stop_requested()) {
    return Error(Code::kCancelled, "told to stop while looking for a leader");
  }
  if (found()) return *leader_;
  const std::string why = failure_ ? failure_->to_string()
                          : leader_
                              ? format("the one there is has epoch {}, an old one", leader_->epoch)
                              : std::string("nobody leads there");
  return errorf(Code::kDeadline, "no coordinator at {}: {}", registry_->url(), why);
}

}  // namespace towline::net
