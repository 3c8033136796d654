// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/text/regex.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cstdint>

#include "base/fmt.hpp"
#include "base/utf8.hpp"

namespace towline::engine {
namespace {

constexpr size_t kMaxPatternBytes = 64 << 10;
constexpr size_t kMaxStackBytes = 4 << 20;
// Steps as PCRE2 counts them. A sound expression takes a few for each byte that it moves over; they
// are not taken from what is left. One try after another is allowed more.
constexpr int64_t kStepsOfScan = 200'000;
constexpr int64_t kStepsOfByte = 32;
constexpr int64_t kFirstTry = 256;
constexpr int64_t kNextTry = 8;  // times as many

// PCRE2's \s with UCP also takes U+180E, which White_Space lost in Unicode 6.3.
constexpr std::string_view kSpaces =
    "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}"
    "\\x{3000}";

std::string with_white_space_spelled_out(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char next = pattern[++i];
      if (next == 's') {
        out += in_class ? std::string(kSpaces) : format("[{}]", kSpaces);
      } else if (next == 'S' && !in_class) {
        out += format("[^{}]", kSpaces);
      } else {
        out += c, out += next;
      }
      continue;
    }
    if (c == '[' && !in_class) {
      in_class = true;
      out += c;
      // "[]" and "[^]": a bracket in first place is a member.
      if (pattern.substr(i + 1).starts_with("^")) out += pattern[++i];
      if (pattern.substr(i + 1).starts_with("]")) out += pattern[++i];
      continue;
    }
    if (c == ']') in_class = false;
    out += c;
  }
  return out;
}

pcre2_code* as_code(void* p) { return static_cast<pcre2_code*>(p); }
pcre2_match_data* as_data(void* p) { return static_cast<pcre2_match_data*>(p); }
pcre2_match_context* as_context(void* p) { return static_cast<pcre2_match_context*>(p); }
pcre2_jit_stack* as_stack(void* p) { return static_cast<pcre2_jit_stack*>(p); }

std::string pcre_message(int code) {
  PCRE2_UCHAR text[160] = {};
  pcre2_get_error_message(code, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

}  // namespace

void Regex::Free::operator()(void* code) const { pcre2_code_free(as_code(code)); }

Result<Regex> Regex::compile(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return errorf(Code::kUnsupported, "a pre-split expression of {} bytes; the limit is {}",
                  pattern.size(), kMaxPatternBytes);
  }
  const std::string text = with_white_space_spelled_out(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  if (code == nullptr) {
    return errorf(Code::kUnsupported, "the pre-split expression '{}' is not understood: {}",
                  to_valid_utf8(pattern), pcre_message(error));
  }
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without JIT the interpreter is used
  return Regex(std::string(pattern), code);
}

RegexScan::RegexScan(const Regex& regex)
    : regex_(regex),
      steps_left_(kStepsOfScan),
      match_data_(pcre2_match_data_create(1, nullptr)),
      context_(pcre2_match_context_create(nullptr)) {
  pcre2_set_heap_limit(as_context(context_), kMaxStackBytes / 1024);
}

RegexScan::~RegexScan() {
  pcre2_match_data_free(as_data(match_data_));
  pcre2_match_context_free(as_context(context_));
  pcre2_jit_stack_free(as_stack(stack_));
}

void RegexScan::reset(std::string_view valid_utf8) {
  text_ = valid_utf8;
  at_ = 0;
  steps_left_ += kStepsOfByte * static_cast<int64_t>(valid_utf8.size());
}

int RegexScan::match() {
  for (int64_t limit = kFirstTry;;) {
    limit = std::min({limit, steps_left_, int64_t{UINT32_MAX}});
    pcre2_set_match_limit(as_context(context_), static_cast<uint32_t>(limit));
    const int count =
        pcre2_match(as_code(regex_.code_.get()), reinterpret_cast<PCRE2_SPTR>(text_.data()),
                    text_.size(), at_, PCRE2_NO_UTF_CHECK, as_data(match_data_),
                    as_context(context_));
    // 32 KiB of the thread's own stack nearly always do; mapping another for each text costs time.
    if (count == PCRE2_ERROR_JIT_STACKLIMIT && stack_ == nullptr) {
      stack_ = pcre2_jit_stack_create(32 << 10, kMaxStackBytes, nullptr);
      if (stack_ == nullptr) return PCRE2_ERROR_NOMEMORY;
      pcre2_jit_stack_assign(as_context(context_), nullptr, as_stack(stack_));
      continue;
    }
    if (count != PCRE2_ERROR_MATCHLIMIT) return count;
    // PCRE2 does not tell how many steps a match took, only that `limit` were not enough.
    steps_left_ -= limit;
    if (steps_left_ <= 0) return count;
    limit *= kNextTry;
  }
}

Result<RegexScan::Match> RegexScan::next() {
  while (at_ < text_.size()) {
    const int count = match();
    if (count == PCRE2_ERROR_NOMATCH) break;
    if (count < 0) {
      return errorf(Code::kExhausted,
                    "the pre-split expression '{}' needs too many steps on this text: {}",
                    to_valid_utf8(regex_.pattern()), pcre_message(count));
    }
    const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(as_data(match_data_));
    // \K can put the start behind the end; such a match counts as empty.
    if (offsets[1] > offsets[0] && offsets[0] >= at_) {
      at_ = offsets[1];
      return Match{offsets[0], offsets[1], true};
    }
    at_ = std::max(at_, std::min<size_t>(offsets[1], text_.size()));
    if (at_ < text_.size()) at_ += utf8_length(text_, at_);
  }
  at_ = text_.size();
  return Match{};
}

}  // namespace towline::engine
