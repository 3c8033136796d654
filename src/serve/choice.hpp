// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Choice: one answer being put together from tokens: text, stop strings, log probabilities.
//
// Text is held back while it could still turn out to be the beginning of a stop string, and tokens
// while their text is held back, so what has been taken never has to be taken back. When a stop
// string matches, the text ends before it, and so do the tokens reported: those that begin before
// the match stay. completion_tokens() counts every token up to and including the one that ended
// the answer, whether it shows in the text or not.
//
// A pure object: no clock, no I/O. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/text/stop_matcher.hpp"
#include "serve/generator.hpp"
#include "serve/text_model.hpp"

namespace towline::serve {

struct ShownToken {
  GeneratedToken token;
  int64_t offset = 0;  // characters of the choice's text before this token's own
};

// What became certain since the last take().
struct ChoiceDelta {
  std::string text;
  std::vector<ShownToken> tokens;
};

class Choice {
 public:
  // `stop`: texts that end the answer, none empty. `keep_tokens`: deltas carry tokens too.
  Choice(std::unique_ptr<TextStream> stream, std::vector<std::string> stop,
         bool keep_tokens);

  // Text and tokens in front of the answer (echo); not searched for stop strings.
  void echo(const std::string& text, std::vector<GeneratedToken> tokens,
            const TextModel& model);

  void push(const GeneratedToken& token);  // ignored once ended
  void end(FinishReason reason);           // ignored once ended

  bool ended() const { return finish_ != FinishReason::kNone; }
  FinishReason finish() const { return finish_; }
  int32_t completion_tokens() const { return completion_tokens_; }
  ChoiceDelta take();

 private:
  struct Held {
    ShownToken shown;
    size_t begin, end;  // bytes of the decoded text
  };
  void feed(const std::string& text);
  void settle_tokens();

  std::unique_ptr<TextStream> stream_;
  engine::StopMatcher stop_;
  const bool keep_tokens_;
  FinishReason finish_ = FinishReason::kNone;
  int32_t completion_tokens_ = 0;
  size_t decoded_ = 0;      // bytes of text so far, without the echo
  size_t settled_ = 0;      // of these, in ready_ or taken
  int64_t characters_ = 0;  // of all text so far
  std::vector<Held> held_tokens_;
  ChoiceDelta ready_;
};

}  // namespace towline::serve
