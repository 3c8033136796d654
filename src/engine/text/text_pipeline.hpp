// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// TextPipeline: a compiled list of TextSteps. Works on Pieces: one text with the places where it is
// cut. Rewriting steps rewrite each piece; cutting steps add cuts or drop stretches.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "engine/text/regex.hpp"
#include "engine/text/vocabulary.hpp"

namespace towline::engine {

struct Pieces {
  std::string text;
  std::vector<size_t> ends;  // piece k is text[ends[k-1], ends[k]); none is empty
  bool at_start = true;      // the first piece begins where the whole text begins

  static Pieces whole(std::string text, bool at_start) {
    Pieces p{std::move(text), {}, at_start};
    if (!p.text.empty()) p.ends.push_back(p.text.size());
    return p;
  }
  size_t size() const { return ends.size(); }
  std::string_view operator[](size_t k) const {
    const size_t begin = k == 0 ? 0 : ends[k - 1];
    return std::string_view(text).substr(begin, ends[k] - begin);
  }
  void add(std::string_view piece) {
    if (piece.empty()) return;
    text += piece;
    ends.push_back(text.size());
  }
};

class TextPipeline {
 public:
  TextPipeline() = default;
  static Result<TextPipeline> compile(const std::vector<TextStep>& steps);
  Result<void> run(Pieces& pieces) const;

 private:
  struct Compiled {
    TextStep step;
    std::optional<Regex> regex;
  };
  std::vector<Compiled> steps_;
};

}  // namespace towline::engine
