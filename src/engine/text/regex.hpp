// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Regex: the expressions by which vocabularies cut text, on PCRE2 (UTF, Unicode properties, JIT).
//
// The dialect is that of the files: Oniguruma / Rust as Hugging Face tokenizers use them. \s means
// Unicode's White_Space. Matching is bounded in steps and memory: all matches of one scan together
// may take steps in proportion to the text. An expression that needs more is an error, not a hang.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace towline::engine {

class Regex {
 public:
  static Result<Regex> compile(std::string_view pattern);
  const std::string& pattern() const { return pattern_; }

 private:
  friend class RegexScan;
  struct Free {
    void operator()(void* code) const;
  };
  Regex(std::string pattern, void* code) : pattern_(std::move(pattern)), code_(code) {}
  std::string pattern_;
  std::unique_ptr<void, Free> code_;
};

// Finds successive matches. Holds scratch memory: make one, reset it for each text. One thread.
class RegexScan {
 public:
  explicit RegexScan(const Regex& regex);
  ~RegexScan();
  RegexScan(const RegexScan&) = delete;
  RegexScan& operator=(const RegexScan&) = delete;

  void reset(std::string_view valid_utf8);  // adds to the steps that are left
  struct Match {
    size_t begin = 0, end = 0;
    bool found = false;
  };
  // The next match that is not empty; found == false at the end.
  Result<Match> next();

 private:
  int match();  // pcre2_match at at_, within the steps that are left
  const Regex& regex_;
  int64_t steps_left_;
  void* match_data_;
  void* context_;
  void* stack_ = nullptr;
  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace towline::engine
