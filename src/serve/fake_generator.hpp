// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// FakeGenerator and FakeText: a model of bytes for tests. Token b < 256 is the byte b; 256 is BOS,
// 257 ends a text. The answer to any prompt is `reply`, then the end token, one token a step.
// Steps happen on a thread of its own, freely or only when step() allows. Test code only.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/fmt.hpp"
#include "serve/generator.hpp"
#include "serve/text_model.hpp"

namespace towline::serve {

inline constexpr int32_t kFakeBos = 256, kFakeEnd = 257, kFakeVocab = 258;

class FakeStream : public TextStream {
 public:
  std::string push(int32_t token) override {
    if (token < 256) pending_ += static_cast<char>(token);
    size_t whole = pending_.size();
    for (size_t back = 1; back <= std::min<size_t>(4, pending_.size()); ++back) {
      const auto c = static_cast<unsigned char>(pending_[pending_.size() - back]);
      const size_t length = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
      if (c >= 0x80 && c < 0xc0) continue;
      if (length > back) whole = pending_.size() - back;
      break;
    }
    std::string out = pending_.substr(0, whole);
    pending_.erase(0, whole);
    return out;
  }
  std::string flush() override {
    return std::exchange(pending_, {}).empty() ? "" : "\xef\xbf\xbd";
  }

 private:
  std::string pending_;
};

class FakeText : public TextModel {
 public:
  FakeText() {
    for (int i = 0; i < 256; ++i) bytes_[static_cast<size_t>(i)] = static_cast<char>(i);
  }
  int32_t vocab_size() const override { return kFakeVocab; }
  Result<std::vector<int32_t>> encode(std::string_view text, bool add_special,
                                      bool) const override {
    std::vector<int32_t> tokens;
    if (add_special) tokens.push_back(kFakeBos);
    for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
    return tokens;
  }
  std::string decode(std::span<const int32_t> tokens) const override {
    std::string text;
    for (const int32_t t : tokens) {
      if (t < 256) text += static_cast<char>(t);
    }
    return text;
  }
  std::string_view piece(int32_t token) const override {
    if (token == kFakeBos) return "<s>";
    if (token == kFakeEnd) return "</s>";
    return {&bytes_[static_cast<size_t>(token)], 1};
  }
  std::unique_ptr<TextStream> stream(bool) const override {
    return std::make_unique<FakeStream>();
  }
  Result<std::string> render_chat(const Json& messages, bool add_generation_prompt,
                                  const Json&) const override {
    std::string text;
    for (const Json& m : messages.items()) {
      if (m["content"].as_string() == "template error") {
        return Error(Code::kInvalidArgument, "the chat template refused the messages");
      }
      text += m["role"].as_string() + ": " + m["content"].as_string() + "\n";
    }
    if (add_generation_prompt) text += "assistant: ";
    return text;
  }
  std::span<const int32_t> end_tokens() const override { return {&end_, 1}; }

 private:
  char bytes_[256];
  int32_t end_ = kFakeEnd;
};

class FakeGenerator : public Generator {
 public:
  struct Options {
    std::string reply = "Hello from a fake.";
    bool free_running = true;    // false: steps only by step()
    int32_t context = 4096;
    int32_t capacity = 1 << 20;  // submit refuses beyond
    int32_t width = 8;           // of embeddings
  };
  FakeGenerator(EventSink sink, Options options)
      : sink_(std::move(sink)), options_(std::move(options)) {
    desc_.name = "fake";
    desc_.hidden = options_.width;
    desc_.vocab = kFakeVocab;
    thread_ = std::thread([this] { run(); });
  }
  ~FakeGenerator() override {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }

  const spec::ModelDesc& model() const override { return desc_; }
  int32_t max_context() const override { return options_.context; }
  Result<void> submit(GenerationRequest request) override {
    const std::lock_guard lock(mutex_);
    if (static_cast<int32_t>(live_.size()) >= options_.capacity) {
      return Error(Code::kExhausted, "the fake is full");
    }
    submitted_.push_back(request);
    const RequestId id = request.id;
    live_.emplace(id, Sequence{std::move(request), 0, false});
    wake_.notify_all();
    return {};
  }
  void cancel(RequestId id) override {
    const std::lock_guard lock(mutex_);
    const auto at = live_.find(id);
    if (at == live_.end()) return;
    at->second.cancelled = true;
    ++cancels_;
    wake_.notify_all();
    changed_.notify_all();
  }
  // Adapters change nothing here; a path without a '/' cannot be loaded.
  Result<void> load_adapter(const std::string& name, const std::string& path,
                            AdapterDone done) override {
    if (path.find('/') == std::string::npos) {
      done(Error(Code::kNotFound, "there is no file " + path));
      return {};
    }
    {
      const std::lock_guard lock(mutex_);
      adapters_.push_back(name);
    }
    done({});
    return {};
  }
  Result<void> unload_adapter(const std::string& name) override {
    const std::lock_guard lock(mutex_);
    if (std::erase(adapters_, name) > 0) return {};
    return Error(Code::kNotFound, "there is no adapter");
  }
  std::vector<std::string> adapters() const override {
    const std::lock_guard lock(mutex_);
    return adapters_;
  }
  GeneratorStats stats() const override {
    const std::lock_guard lock(mutex_);
    GeneratorStats s = stats_;
    s.running = static_cast<int32_t>(live_.size());
    return s;
  }

  // Lets `n` steps happen. Cancelled sequences always end at once.
  void step(int64_t n = 1) {
    const std::lock_guard lock(mutex_);
    allowed_ += n;
    wake_.notify_all();
  }
  // Blocks until `ready` holds of (live sequences, cancels); false after five minutes.
  bool wait_until(const std::function<bool(size_t live, int64_t cancels)>& ready) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::minutes(5),
                             [&] { return ready(live_.size(), cancels_); });
  }
  std::vector<GenerationRequest> submitted() const {
    const std::lock_guard lock(mutex_);
    return submitted_;
  }
  // The next event of every live sequence is this error.
  void break_down() {
    const std::lock_guard lock(mutex_);
    broken_ = true;
    wake_.notify_all();
  }

 private:
  struct Sequence {
    GenerationRequest request;
    int32_t made;
    bool cancelled;
  };

  void run() {
    std::unique_lock lock(mutex_);
    while (true) {
      wake_.wait(lock, [this] { return stop_ || has_work(); });
      if (stop_) return;
      std::vector<GenerationEvent> events = make_step();
      changed_.notify_all();
      lock.unlock();
      if (!events.empty()) sink_(std::move(events));
      std::this_thread::yield();
      lock.lock();
    }
  }

  bool has_work() const {
    if (live_.empty()) return false;
    if (options_.free_running || allowed_ > 0 || broken_) return true;
    for (const auto& [id, s] : live_) {
      if (s.cancelled) return true;
    }
    return false;
  }

  std::vector<GenerationEvent> make_step() {
    const bool may_go = options_.free_running || allowed_ > 0;
    if (may_go && !options_.free_running) --allowed_;
    std::vector<GenerationEvent> events;
    for (auto at = live_.begin(); at != live_.end();) {
      GenerationEvent event = next_event(at->second, may_go);
      const bool ended = event.finish != FinishReason::kNone;
      if (ended || !event.tokens.empty() || !event.prompt_tokens.empty()) {
        events.push_back(std::move(event));
      }
      at = ended ? live_.erase(at) : std::next(at);
    }
    ++stats_.steps;
    return events;
  }

  GenerationEvent next_event(Sequence& s, bool may_go) {
    GenerationEvent event;
    event.id = s.request.id;
    if (s.cancelled) {
      event.finish = FinishReason::kCancelled;
      return event;
    }
    if (broken_) {
      event.finish = FinishReason::kError;
      event.error = Error(Code::kInternal, "the fake broke down");
      return event;
    }
    if (!may_go) return event;
    if (s.request.embed) {
      for (int32_t i = 0; i < options_.width; ++i) {
        event.embedding.push_back(static_cast<float>(s.request.prompt.size()) +
                                  static_cast<float>(i) * 0.25f);
      }
      event.finish = FinishReason::kStop;
      return event;
    }
    if (s.made == 0 && s.request.prompt_logprobs) {
      for (const int32_t t : s.request.prompt) event.prompt_tokens.push_back(token(s, t));
    }
    if (s.request.max_tokens == 0) {
      event.finish = FinishReason::kLength;
      return event;
    }
    const size_t at = static_cast<size_t>(s.made++);
    const auto& stops = s.request.stop_tokens;
    const int32_t next = at < options_.reply.size()
                             ? static_cast<unsigned char>(options_.reply[at])
                             : stops.empty() ? 'x' : stops.back();
    event.tokens.push_back(token(s, next));
    ++stats_.generation_tokens;
    if (std::find(stops.begin(), stops.end(), next) != stops.end()) {
      event.tokens.back().is_stop = true;
      event.finish = FinishReason::kStop;
    } else if (s.made >= s.request.max_tokens) {
      event.finish = FinishReason::kLength;
    }
    return event;
  }

  GeneratedToken token(const Sequence& s, int32_t id) const {
    GeneratedToken t;
    t.token = id;
    if (s.request.sampling.logprobs >= 0) {
      t.logprob = -0.25f * static_cast<float>(id % 4);
      for (int32_t i = 0; i < s.request.sampling.logprobs; ++i) {
        t.top.push_back({(id + i) % 256, t.logprob - static_cast<float>(i)});
      }
    }
    return t;
  }

  const EventSink sink_;
  const Options options_;
  spec::ModelDesc desc_;
  mutable std::mutex mutex_;
  std::condition_variable wake_, changed_;
  std::map<RequestId, Sequence> live_;
  std::vector<GenerationRequest> submitted_;
  std::vector<std::string> adapters_;
  GeneratorStats stats_;
  int64_t allowed_ = 0, cancels_ = 0;
  bool stop_ = false, broken_ = false;
  std::thread thread_;
};

}  // namespace towline::serve
