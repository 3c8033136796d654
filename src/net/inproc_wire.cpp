// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The inproc back end: lines between threads of one process. A line is a pair of ends; each hub has
// a mailbox of (line, message) under its own small mutex, so that no hub ever takes another's lock.
// No thread of its own.
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/fmt.hpp"
#include "net/wait.hpp"
#include "net/wire.hpp"

namespace towline::net {
namespace {

class Mailbox;

// What travels between two hubs.
struct Message {
  enum Kind { kCall, kAnswer, kFrame, kGone } kind = kFrame;
  LineId line = kNoLine;           // the receiver's name for the line; kCall: none yet
  LineId sender_line = kNoLine;    // kCall, kAnswer: the sender's name for it
  std::shared_ptr<Mailbox> sender;  // kCall, kAnswer
  FrameBytes frame;
};

class Mailbox {
 public:
  // False when the owner is gone.
  bool put(Message message) {
    const std::lock_guard lock(mutex_);
    if (closed_) return false;
    queue_.push_back(std::move(message));
    ready_.notify_one();
    return true;
  }
  void wake() {
    const std::lock_guard lock(mutex_);
    woken_ = true;
    ready_.notify_one();
  }
  std::deque<Message> take(Instant until) {
    std::unique_lock lock(mutex_);
    const auto ready = [this] { return woken_ || !queue_.empty(); };
    wait_for(ready_, lock, until, ready);
    woken_ = false;
    return std::exchange(queue_, {});
  }
  // Takes no more; returns what was not read.
  std::deque<Message> close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    return std::exchange(queue_, {});
  }

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<Message> queue_;    // guarded by mutex_
  bool woken_ = false;           // guarded by mutex_
  bool closed_ = false;          // guarded by mutex_
};

}  // namespace

class InprocNet {
 public:
  bool add(const std::string& name, std::shared_ptr<Mailbox> mailbox) {
    const std::lock_guard lock(mutex_);
    return mailboxes_.emplace(name, std::move(mailbox)).second;
  }
  void remove(const std::string& name) {
    const std::lock_guard lock(mutex_);
    mailboxes_.erase(name);
  }
  std::shared_ptr<Mailbox> find(const std::string& name) {
    const std::lock_guard lock(mutex_);
    const auto found = mailboxes_.find(name);
    return found == mailboxes_.end() ? nullptr : found->second;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Mailbox>> mailboxes_;  // guarded by mutex_
};

std::shared_ptr<InprocNet> make_inproc_net() { return std::make_shared<InprocNet>(); }

namespace {

class InprocWire final : public Wire {
 public:
  InprocWire(const TransportOptions& options, WireEvents& events)
      : net_(options.inproc), max_frame_(options.max_frame_bytes), events_(events) {}

  ~InprocWire() override {
    if (!name_.empty()) net_->remove(name_);
    for (const Message& unread : mailbox_->close()) {
      if (unread.kind == Message::kCall) say_gone({unread.sender, unread.sender_line});
    }
    for (const auto& [id, end] : ends_) say_gone(end);
  }

  Result<std::string> listen(const std::string& address) override {
    ASSIGN_OR_RETURN(const std::string name, address_rest(address, TransportKind::kInproc));
    if (!net_->add(name, mailbox_)) {
      return errorf(Code::kAlreadyExists, "address '{}' is taken", address);
    }
    name_ = name;
    return address;
  }

  void dial(LineId line, const std::string& address) override {
    const Result<std::string> name = address_rest(address, TransportKind::kInproc);
    const std::shared_ptr<Mailbox> there = name ? net_->find(*name) : nullptr;
    ends_[line] = {there, kNoLine};
    Message call;
    call.kind = Message::kCall;
    call.sender_line = line;
    call.sender = mailbox_;
    if (!there || !there->put(std::move(call))) {
      failed_.emplace_back(line, format("nobody listens on '{}'", address));
      mailbox_->wake();
    }
  }

  void write(LineId line, FrameBytes frame) override {
    const auto found = ends_.find(line);
    if (found == ends_.end() || found->second.their_line == kNoLine) return;
    Message message;
    message.line = found->second.their_line;
    message.frame = std::move(frame);
    found->second.there->put(std::move(message));
  }

  void hang_up(LineId line) override {
    const auto found = ends_.find(line);
    if (found == ends_.end()) return;
    say_gone(found->second);
    ends_.erase(found);
  }

  void poll(std::unique_lock<std::mutex>& lock, Instant until) override {
    lock.unlock();
    std::deque<Message> messages = mailbox_->take(until);
    lock.lock();
    for (auto& [line, reason] : std::exchange(failed_, {})) {
      if (ends_.erase(line) > 0) events_.line_down(line, LineEnd::kRefused, std::move(reason));
    }
    for (Message& message : messages) handle(std::move(message));
  }

  void wake() override { mailbox_->wake(); }

 private:
  struct End {
    std::shared_ptr<Mailbox> there;
    LineId their_line = kNoLine;
  };

  static void say_gone(const End& end) {
    if (!end.there || end.their_line == kNoLine) return;
    Message gone;
    gone.kind = Message::kGone;
    gone.line = end.their_line;
    end.there->put(std::move(gone));
  }

  void handle(Message message) {
    if (message.kind == Message::kCall) {
      const LineId line = kInboundLine | ++last_inbound_;
      ends_[line] = {message.sender, message.sender_line};
      Message answer;
      answer.kind = Message::kAnswer;
      answer.line = message.sender_line;
      answer.sender_line = line;
      answer.sender = mailbox_;
      message.sender->put(std::move(answer));
      events_.line_up(line);
      return;
    }
    const auto found = ends_.find(message.line);
    if (found == ends_.end()) {  // hung up meanwhile
      if (message.kind == Message::kAnswer) say_gone({message.sender, message.sender_line});
      return;
    }
    switch (message.kind) {
      case Message::kAnswer:
        found->second.their_line = message.sender_line;
        events_.line_up(message.line);
        return;
      case Message::kGone:
        ends_.erase(found);
        events_.line_down(message.line, LineEnd::kLost, "the peer hung up");
        return;
      case Message::kFrame: {
        Result<RawFrame> frame = decode_frame(*message.frame, max_frame_);
        if (frame) return events_.line_frame(message.line, std::move(*frame));
        say_gone(found->second);
        ends_.erase(found);
        events_.line_down(message.line, LineEnd::kCorrupt, frame.error().message());
        return;
      }
      case Message::kCall: return;
    }
  }

  const std::shared_ptr<InprocNet> net_;
  const uint32_t max_frame_;
  WireEvents& events_;
  const std::shared_ptr<Mailbox> mailbox_ = std::make_shared<Mailbox>();
  std::string name_;
  std::unordered_map<LineId, End> ends_;
  std::vector<std::pair<LineId, std::string>> failed_;  // dials to report in the next poll()
  uint64_t last_inbound_ = 0;
};

}  // namespace

Result<std::unique_ptr<Wire>> make_inproc_wire(const TransportOptions& options,
                                               WireEvents& events) {
  if (!options.inproc) {
    return Error(Code::kInvalidArgument, "an inproc transport needs TransportOptions::inproc");
  }
  return std::unique_ptr<Wire>(std::make_unique<InprocWire>(options, events));
}

}  // namespace towline::net
