// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "worker/rank_group.hpp"

#include <algorithm>

#include "base/fmt.hpp"
#include "worker/executor_factory.hpp"

namespace towline::worker {
namespace {

// How long the other ranks may take to acknowledge a step that one rank failed, before they are torn
// out of the collective they may be waiting in, which ends the group. A rank that computes, or that has
// to wait for a processor, acknowledges by itself.
constexpr Duration kLeaveWithin = seconds(2);

}  // namespace

// --- starting and stopping ----------------------------------------------------------------------

Result<std::unique_ptr<RankGroup>> RankGroup::start(RankGroupOptions options) {
  std::unique_ptr<RankGroup> group(new RankGroup(std::move(options)));
  RankTeamOptions team = group->options_.team;
  ASSIGN_OR_RETURN(team.collective_floats, shared_floats(group->options_.executor, team.ranks));
  ASSIGN_OR_RETURN(group->team_, RankTeam::start(std::move(team)));
  TRY(group->load_model());
  group->start_collectors();
  return group;
}

Result<void> RankGroup::load_model() {
  const InitModel init{options_.executor, options_.limits};
  ASSIGN_OR_RETURN(const uint64_t id, call(Method::kInitModel, init.json()));
  const Deadline deadline = net::deadline_in(options_.start_within);
  while (ready_.empty() && net::steady_now() < deadline) {
    const auto& flight = steps_;
    if (flight.empty()) break;
    team_->steps().wait_acks(flight.front().sequence, deadline);
    harvest(team_->steps(), steps_);
    look_for_deaths();
  }
  if (ready_.empty()) {
    return errorf(Code::kDeadline, "the ranks did not load the model within {} s",
                  to_seconds(options_.start_within));
  }
  const GroupEvent event = std::move(ready_.front());
  ready_.pop_front();
  awaited_step_.store(next_awaited());  // taken here: collectors are not to wake anybody for it
  if (!event.ok() || event.id != id) return Error(event.code, event.error);
  return take_geometry(event.answer);
}

// Stages follow each other; the ranks of one are alike.
Result<void> RankGroup::take_geometry(const Json& answers) {
  int32_t stage_begin = 0;
  for (int32_t reader = 0; const Json& answer : answers.items()) {
    ASSIGN_OR_RETURN(const Geometry rank, Geometry::parse(answer));
    if (reader == 0) {
      geometry_ = rank;
      stage_begin = rank.layers.begin;
    }
    const bool stage_begins = reader > 0 && reader % team_->ranks() == 0;
    const LayerRange layers = stage_begins ? LayerRange{geometry_.layers.end, rank.layers.end}
                                           : LayerRange{stage_begin, geometry_.layers.end};
    if (rank.hidden_width != geometry_.hidden_width || rank.layers != layers) {
      return errorf(Code::kInternal, "ranks disagree: {} and {}", geometry_.json().dump(),
                    rank.json().dump());
    }
    if (stage_begins) stage_begin = rank.layers.begin;
    geometry_.layers.end = rank.layers.end;
    ++reader;
    geometry_.kv_blocks = std::min(geometry_.kv_blocks, rank.kv_blocks);
    geometry_.max_rows = std::min(geometry_.max_rows, rank.max_rows);
  }
  return {};
}

RankGroup::~RankGroup() { stop(Duration(0)); }

void RankGroup::stop(Duration drain) {
  if (stopped_ || !team_) return;
  stopped_ = true;
  stop_collecting_ = true;
  const Deadline deadline = net::deadline_in(drain);
  if (!options_.team.notify) {
    while (usable() && !steps_.empty() && net::steady_now() < deadline) {
      team_->steps().wait_acks(steps_.front().sequence, deadline);
      harvest(team_->steps(), steps_);
      look_for_deaths();
    }
  }
  // Closing the rings wakes the collectors; they must not outlive the rings.
  team_->steps().close();
  team_->calls().close();
  takes_.fetch_add(1);
  takes_.notify_all();
  for (std::atomic<uint64_t>* awaited : {&awaited_step_, &awaited_call_}) {
    awaited->store(UINT64_MAX);
    awaited->notify_all();
  }
  for (std::thread& t : collectors_) t.join();
  collectors_.clear();
  team_->stop();
  if (broken_.empty()) broken_ = "it was stopped";
}

// --- collectors: sleep on a ring for an owner that sleeps elsewhere -----------------------------

void RankGroup::start_collectors() {
  // Ranks that are threads tell by themselves.
  if (!options_.team.notify || !options_.team.processes) return;
  collectors_.emplace_back([this] { collect(team_->steps(), awaited_step_); });
  collectors_.emplace_back([this] { collect(team_->calls(), awaited_call_); });
}

void RankGroup::collect(net::RingWriter& ring, std::atomic<uint64_t>& awaited) {
  while (!stop_collecting_) {
    const uint64_t sequence = awaited.load();
    if (sequence == 0) {
      awaited.wait(0);
      continue;
    }
    if (stop_collecting_ || !ring.wait_acks(sequence, kNever)) return;
    const uint32_t before = takes_.load();
    options_.team.notify();
    takes_.wait(before);  // what woke us is still there until it has been taken
  }
}

// The frame of the steps ring whose acks the owner is told of. A frame that runs nothing is not
// worth a wake-up, if the owner need not hear that there is room in the ring again: with less than
// half of it in flight, and nothing that runs, the next one is awaited, which is not sent yet. So is
// it when nothing is in flight, which spares waking the collector for each frame that is sent.
// Whatever is awaited has been sent, and is acknowledged some time, before the ring can be full.
uint64_t RankGroup::next_awaited() const {
  const auto told = std::ranges::find(steps_, false, &InFlight::quiet);
  if (told != steps_.end()) return told->sequence;
  const bool few = steps_.size() <= options_.team.ring.slots / 2;
  return few ? team_->steps().published() + 1 : steps_.front().sequence;
}

// --- sending ------------------------------------------------------------------------------------

Result<void> RankGroup::check_usable() const {
  if (usable()) return {};
  return errorf(Code::kUnavailable, "the node's ranks are gone: {}", broken_);
}

Result<uint64_t> RankGroup::submit(const RankCommand& command) {
  TRY(check_usable());
  Result<uint64_t> sequence = team_->steps().publish(draft_.steps(command), net::kNoWait);
  if (!sequence) {
    if (sequence.error().code() != Code::kDeadline) return std::move(sequence).error();
    return errorf(Code::kExhausted, "{} commands are in flight", steps_.size());
  }
  InFlight frame;
  frame.sequence = *sequence;
  frame.id = next_id_++;
  frame.quiet = command.runs.empty();
  frame.replies.resize(static_cast<size_t>(team_->readers()));
  steps_.push_back(std::move(frame));
  return steps_.back().id;
}

Result<uint64_t> RankGroup::call(Method method, const Json& args) {
  TRY(check_usable());
  return send_call(method, args, next_id_++);
}

Result<uint64_t> RankGroup::send_call(Method method, const Json& args, uint64_t id) {
  const MethodRow* row = find_method(static_cast<uint16_t>(method));
  if (row == nullptr) {
    return errorf(Code::kUnsupported, "method {} is not known", static_cast<int>(method));
  }
  const bool in_band = row->band == Band::kIn;
  net::RingWriter& ring = in_band ? team_->steps() : team_->calls();
  std::deque<InFlight>& flight = in_band ? steps_ : calls_;
  // In band a call may have to wait for a slot; the ranks are working, so that is short.
  ASSIGN_OR_RETURN(const uint64_t sequence,
                   ring.publish(draft_.call(id, static_cast<uint16_t>(method), args.dump()),
                                net::kNoWait));
  InFlight frame;
  frame.sequence = sequence;
  frame.id = id;
  frame.method = row;
  frame.replies.resize(static_cast<size_t>(team_->readers()));
  flight.push_back(std::move(frame));
  if (!in_band && awaited_call_.load() == 0) {
    awaited_call_.store(sequence);
    awaited_call_.notify_all();
  }
  return id;
}

Result<uint64_t> RankGroup::load_adapter(int32_t id, const std::string& path) {
  TRY(check_usable());
  const AdapterArgs args{id, path};
  ASSIGN_OR_RETURN(const uint64_t call,
                   send_call(Method::kStageAdapter, args.json(), next_id_++));
  calls_.back().adapter = call;
  adapters_[call] = {args, {}, Code::kInternal};
  return call;
}

// --- receiving ----------------------------------------------------------------------------------

std::optional<GroupEvent> RankGroup::take() {
  harvest(team_->steps(), steps_);
  harvest(team_->calls(), calls_);
  look_for_deaths();
  send_waiting_phases();
  awaited_step_.store(next_awaited());
  awaited_call_.store(calls_.empty() ? 0 : calls_.front().sequence);
  takes_.fetch_add(1);
  takes_.notify_all();
  if (ready_.empty()) return std::nullopt;
  GroupEvent event = std::move(ready_.front());
  ready_.pop_front();
  return event;
}

std::optional<GroupEvent> RankGroup::wait(Deadline deadline) {
  for (;;) {
    if (std::optional<GroupEvent> event = take()) return event;
    if (stopped_ || !usable()) return std::nullopt;
    const Instant now = net::steady_now();
    if (now >= deadline) return std::nullopt;
    if (steps_.empty() && calls_.empty()) return std::nullopt;
    // Two rings, one sleeper: with both in use, look at the calls now and then.
    Deadline until = deadline;
    if (!steps_.empty() && !calls_.empty()) until = std::min(until, now + milliseconds(1));
    if (stuck_since_) until = std::min(until, now + kLeaveWithin);
    net::RingWriter& ring = steps_.empty() ? team_->calls() : team_->steps();
    // With another step in the ring the ranks go on at once; they need not stop to wake us.
    const bool ahead = steps_.size() > 1 && calls_.empty();
    ring.wait_acks((steps_.empty() ? calls_ : steps_).front().sequence, until,
                   ahead ? net::Patience::kSome : net::Patience::kNone);
  }
}

Result<Json> RankGroup::call_now(Method method, const Json& args, Duration within) {
  ASSIGN_OR_RETURN(const uint64_t id, call(method, args));
  const Deadline deadline = net::deadline_in(within);
  std::deque<GroupEvent> others;
  Result<Json> answer = errorf(Code::kDeadline, "the ranks did not answer within {} s",
                               to_seconds(within));
  for (;;) {
    std::optional<GroupEvent> event = wait(deadline);
    if (!event) break;
    if (event->id != id) {
      others.push_back(std::move(*event));
      continue;
    }
    answer = event->ok() ? Result<Json>(std::move(event->answer))
                         : Result<Json>(Error(event->code, event->error));
    break;
  }
  std::move(others.rbegin(), others.rend(), std::front_inserter(ready_));
  return answer;
}

void RankGroup::harvest(net::RingWriter& ring, std::deque<InFlight>& flight) {
  if (flight.empty()) return;
  take_failures(ring, flight);
  // All, not all that live: what a dead rank did not answer fails with its death.
  const auto answered = [&](uint64_t sequence) {
    for (int r = 0; r < ring.readers(); ++r) {
      if (ring.acked(r) < sequence) return false;
    }
    return true;
  };
  while (!flight.empty() && answered(flight.front().sequence)) {
    take_replies(ring, flight);  // visible no later than the ack that follows them
    InFlight frame = std::move(flight.front());
    flight.pop_front();
    if (&flight == &steps_) stuck_since_.reset();
    if (!frame.told) finish(ring, frame);
  }
  if (!flight.empty()) take_replies(ring, flight);
  if (stuck_since_ && net::steady_now() - *stuck_since_ > kLeaveWithin && usable()) {
    team_->abort_waits();
    broken_ = "ranks were torn out of a collective after one of them failed";
  }
}

void RankGroup::take_replies(net::RingWriter& ring, std::deque<InFlight>& flight) {
  for (int r = 0; r < ring.readers(); ++r) {
    while (const auto bytes = ring.next_result(r)) {
      Result<RankReply> reply = RankReply::parse(*bytes);
      if (!reply) {
        fail_all(reply.error().to_string());
        return;
      }
      const auto frame = std::ranges::find(flight, reply->head.sequence, &InFlight::sequence);
      if (frame != flight.end()) frame->replies[static_cast<size_t>(r)] = std::move(*reply);
    }
  }
}

void RankGroup::take_failures(net::RingWriter& ring, std::deque<InFlight>& flight) {
  // One stage's failure makes others fail, which is not the reason. The cause was acknowledged before
  // what it caused: when nobody new is found, the causes of all that were found are among them.
  std::vector<std::pair<net::Ack, int>> failures;  // with the reader
  uint64_t seen = 0, before = 0;
  do {
    before = seen;
    for (int r = 0; r < ring.readers(); ++r) {
      if ((seen >> r & 1) != 0) continue;
      const std::optional<net::Ack> ack = ring.take_failure(r);
      if (!ack) continue;
      seen |= uint64_t{1} << r;
      failures.emplace_back(*ack, r);
    }
  } while (seen != before);
  if (failures.empty()) return;
  std::ranges::sort(failures, {}, [](const auto& f) { return std::pair(f.first.sequence, f.second); });
  take_replies(ring, flight);
  for (const auto& [ack, r] : failures) {
    const auto frame = std::ranges::find(flight, ack.sequence, &InFlight::sequence);
    if (frame == flight.end() || frame->told) continue;
    fail_at(*frame, r, ack.status);
    if (!ring.all_acked(ack.sequence)) stuck_since_ = net::steady_now();
  }
}

// The rank has said why before it acked. Ranks that wait for one that died are torn out after its
// death is known; then that is the reason.
void RankGroup::fail_at(InFlight& frame, int reader, uint32_t status) {
  const auto& reply = frame.replies[static_cast<size_t>(reader)];
  const std::optional<std::string> death = team_->death();
  fail(frame, static_cast<RankStatus>(std::min(status, 2u)), team_->first() + reader,
       death ? *death : reply ? reply->text : "no reason was given");
}

void RankGroup::fail(InFlight& frame, RankStatus status, int32_t rank, std::string error) {
  frame.told = true;
  GroupEvent event;
  event.kind = frame.method == nullptr ? GroupEvent::Kind::kStep : GroupEvent::Kind::kCall;
  event.id = frame.id;
  event.status = status;
  event.rank = rank;
  event.error = std::move(error);
  event.code = Code::kUnavailable;
  if (frame.adapter) adapters_.erase(*frame.adapter);
  ready_.push_back(std::move(event));
}

void RankGroup::finish(net::RingWriter& ring, InFlight& frame) {
  if (frame.method != nullptr) {
    finish_call(frame);
  } else {
    finish_step(ring, frame);
  }
}

void RankGroup::finish_step(net::RingWriter& ring, InFlight& frame) {
  GroupEvent event;
  event.id = frame.id;
  std::optional<uint64_t> hash;  // of the stage: the first one knows of tokens later than the last
  int first = 0;
  for (int r = 0; r < ring.readers(); ++r) {
    if (r % team_->ranks() == 0) {
      hash.reset();
      first = r;
    }
    const std::optional<net::Ack> ack = ring.ack_of(r, frame.sequence);
    if (!ack) continue;
    if (ack->status != 0) {  // since the failures were taken; or two failed, and the other was told
      fail_at(frame, r, ack->status);
      return;
    }
    if (hash && *hash != ack->hash) {
      fail(frame, RankStatus::kNeedSync, team_->first() + r,
           format("rank {} has state {:016x}, rank {} has {:016x}", team_->first() + r, ack->hash,
                  team_->first() + first, *hash));
      return;
    }
    hash = ack->hash;
    event.work_us = std::max(event.work_us, ack->work_us);
  }
  event.hash = hash.value_or(0);
  const auto output = static_cast<size_t>((team_->stages() - 1) * team_->ranks());
  if (output < frame.replies.size() && frame.replies[output]) {
    event.outputs = std::move(frame.replies[output]->outputs);
  }
  ready_.push_back(std::move(event));
}

void RankGroup::finish_call(InFlight& frame) {
  GroupEvent event;
  event.kind = GroupEvent::Kind::kCall;
  event.id = frame.id;
  event.answer = Json::array();
  for (size_t r = 0; r < frame.replies.size() && event.ok(); ++r) {
    const int32_t rank = team_->first() + static_cast<int32_t>(r);
    const auto& reply = frame.replies[r];
    Result<Json> answer = errorf(Code::kInternal, "rank {} gave no answer", rank);
    if (reply && reply->head.code != 0) {
      const int code = std::min<int>(reply->head.code - 1, static_cast<int>(Code::kInternal));
      answer = Error(static_cast<Code>(code), reply->text);
    } else if (reply) {
      answer = parse_json(reply->text, frame.method->name);
    }
    if (!answer) {
      event.status = RankStatus::kFailed;
      event.rank = rank;
      event.code = answer.error().code();
      event.error = format("{} on rank {}: {}", frame.method->name, rank,
                           answer.error().to_string());
    } else {
      event.answer.push(std::move(*answer));
    }
  }
  if (event.ok() && frame.method->reduction == Reduction::kSame) {
    Json first = event.answer[size_t{0}];
    for (const Json& other : event.answer.items()) {
      if (other == first) continue;
      event.status = RankStatus::kFailed;
      event.error = format("{}: the ranks' answers differ: {} and {}", frame.method->name,
                           first.dump(), other.dump());
    }
    event.answer = std::move(first);
  }
  if (frame.adapter) {
    finish_adapter_phase(*frame.adapter, frame.method->method, event);
  } else {
    ready_.push_back(std::move(event));
  }
}

// stage -> commit, or discard -> the error of stage.
void RankGroup::finish_adapter_phase(uint64_t id, Method phase, const GroupEvent& event) {
  AdapterLoad& load = adapters_[id];
  if (phase == Method::kStageAdapter) {
    if (!event.ok()) {
      load.error = event.error;
      load.code = event.code;
      load.rank = event.rank;
    }
    const Method next = event.ok() ? Method::kCommitAdapter : Method::kDiscardAdapter;
    const Result<uint64_t> sent = send_call(next, load.args.json(), id);
    if (sent) {
      steps_.back().adapter = id;
      return;
    }
    if (sent.error().code() == Code::kDeadline) {  // the ring is full: again at the next take()
      waiting_phases_.emplace_back(id, next);
      return;
    }
    load.error = sent.error().to_string();
  }
  GroupEvent done = event;
  done.id = id;
  if (!load.error.empty()) {
    done.status = RankStatus::kFailed;
    done.rank = load.rank;
    done.error = load.error;
    done.code = load.code;
  }
  adapters_.erase(id);
  ready_.push_back(std::move(done));
}

void RankGroup::send_waiting_phases() {
  while (!waiting_phases_.empty() && usable()) {
    const auto [id, phase] = waiting_phases_.front();
    if (!send_call(phase, adapters_[id].args.json(), id)) return;
    steps_.back().adapter = id;
    waiting_phases_.pop_front();
  }
}

void RankGroup::look_for_deaths() {
  if (!usable()) return;
  const std::optional<std::string> death = team_->death();
  if (!death || left_as_told()) return;
  // What it answered before it ended counts: an answer to shutdown is one.
  harvest(team_->steps(), steps_);
  harvest(team_->calls(), calls_);
  fail_all(*death);
}

// A rank that has answered shutdown and is gone has not died; the others' answers are on their way.
bool RankGroup::left_as_told() const {
  const auto told = std::ranges::find_if(steps_, [](const InFlight& frame) {
    return frame.method != nullptr && frame.method->method == Method::kShutdown;
  });
  if (told == steps_.end()) return false;
  net::RingWriter& ring = team_->steps();
  for (int r = 0; r < ring.readers(); ++r) {
    if ((ring.dead_mask() >> r & 1) != 0 && ring.acked(r) < told->sequence) return false;
  }
  return true;
}

void RankGroup::fail_all(const std::string& why) {
  if (broken_.empty()) broken_ = why;
  for (std::deque<InFlight>* flight : {&steps_, &calls_}) {
    for (InFlight& frame : *flight) {
      if (!frame.told) fail(frame, RankStatus::kFailed, -1, why);
    }
    flight->clear();
  }
  for (const auto& [id, phase] : waiting_phases_) {
    InFlight frame;
    frame.id = id;
    frame.method = find_method(static_cast<uint16_t>(phase));
    frame.adapter = id;
    fail(frame, RankStatus::kFailed, -1, why);
  }
  waiting_phases_.clear();
  stuck_since_.reset();
}

}  // namespace towline::worker
