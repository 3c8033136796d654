// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/choice.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace towline::serve {
namespace {

int64_t count_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}

// Bytes at the end of `text` that could begin the stop string.
size_t partial_match(std::string_view text, std::string_view stop) {
  for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n) {
    if (text.ends_with(stop.substr(0, n))) return n;
  }
  return 0;
}

}  // namespace

Choice::Choice(std::unique_ptr<TextStream> stream, const std::vector<std::string>& stop,
               bool keep_tokens)
    : stream_(std::move(stream)), stop_(stop), keep_tokens_(keep_tokens) {}

void Choice::echo(const std::string& text, std::vector<GeneratedToken> tokens,
                  const TextModel& model) {
  // Nothing precedes the first token, so it has no probability.
  if (!tokens.empty()) tokens[0].logprob = std::numeric_limits<float>::quiet_NaN();
  for (GeneratedToken& token : tokens) {
    const std::string piece(model.decode({&token.token, 1}));
    ready_.tokens.push_back({std::move(token), characters_});
    characters_ += count_characters(piece);
  }
  ready_.text += text;
  characters_ = count_characters(text);
}

void Choice::push(const GeneratedToken& token) {
  if (ended()) return;
  ++completion_tokens_;
  if (token.is_stop) return end(FinishReason::kStop);
  const size_t begin = settled_ + held_.size();
  if (keep_tokens_) held_tokens_.push_back({{token, characters_}, begin, begin});
  append(stream_->push(token.token));
  if (keep_tokens_ && !held_tokens_.empty()) held_tokens_.back().end = settled_ + held_.size();
  if (!ended()) {
    size_t hold = 0;
    for (const std::string& stop : stop_) hold = std::max(hold, partial_match(held_, stop));
    settle(held_.size() - hold);
  }
}

void Choice::end(FinishReason reason) {
  if (ended()) return;
  append(stream_->flush());
  if (ended()) return;  // the last bytes completed a stop string
  finish_ = reason;
  settle(held_.size());
}

// Adds decoded text and looks for a stop string in what is held.
void Choice::append(std::string text) {
  if (text.empty()) return;
  held_ += text;
  characters_ += count_characters(text);
  size_t at = std::string::npos;
  for (const std::string& stop : stop_) at = std::min(at, held_.find(stop));
  if (at == std::string::npos) return;
  finish_ = FinishReason::kStop;
  held_.resize(at);
  const size_t cut = settled_ + at;
  std::erase_if(held_tokens_, [&](const Held& held) { return held.begin >= cut; });
  settle(at);
}

// Makes the first `bytes` of the held text final, and the tokens that lie within.
void Choice::settle(size_t bytes) {
  ready_.text.append(held_, 0, bytes);
  held_.erase(0, bytes);
  settled_ += bytes;
  size_t whole = 0;
  while (whole < held_tokens_.size() && (ended() || held_tokens_[whole].end <= settled_)) {
    ready_.tokens.push_back(std::move(held_tokens_[whole++].shown));
  }
  held_tokens_.erase(held_tokens_.begin(), held_tokens_.begin() + static_cast<ptrdiff_t>(whole));
}

ChoiceDelta Choice::take() { return std::exchange(ready_, {}); }

}  // namespace towline::serve
