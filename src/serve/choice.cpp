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

}  // namespace

Choice::Choice(std::unique_ptr<TextStream> stream, std::vector<std::string> stop,
               bool keep_tokens)
    : stream_(std::move(stream)), stop_(std::move(stop)), keep_tokens_(keep_tokens) {}

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
  const size_t begin = decoded_;
  const int64_t offset = characters_;
  const std::string text = stream_->push(token.token);
  if (keep_tokens_) held_tokens_.push_back({{token, offset}, begin, begin + text.size()});
  feed(text);
  settle_tokens();
}

void Choice::end(FinishReason reason) {
  if (ended()) return;
  feed(stream_->flush());
  if (!ended()) {  // the last bytes may have completed a stop string
    const std::string rest = stop_.flush();
    settled_ += rest.size();
    ready_.text += rest;
    finish_ = reason;
  }
  settle_tokens();
}

void Choice::feed(const std::string& text) {
  decoded_ += text.size();
  characters_ += count_characters(text);
  const engine::StopMatcher::Step step = stop_.push(text);
  ready_.text += step.text;
  settled_ += step.text.size();
  if (!step.matched) return;
  finish_ = FinishReason::kStop;
  std::erase_if(held_tokens_, [&](const Held& held) { return held.begin >= settled_; });
}

// Tokens whose text is settled may be shown; at the end all that are left.
void Choice::settle_tokens() {
  size_t whole = 0;
  while (whole < held_tokens_.size() && (ended() || held_tokens_[whole].end <= settled_)) {
    ready_.tokens.push_back(std::move(held_tokens_[whole++].shown));
  }
  held_tokens_.erase(held_tokens_.begin(), held_tokens_.begin() + static_cast<ptrdiff_t>(whole));
}

ChoiceDelta Choice::take() { return std::exchange(ready_, {}); }

}  // namespace towline::serve
