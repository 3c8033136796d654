// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Template source to tokens, with white-space control as Hugging Face sets Jinja up: trim_blocks
// (a newline after a block tag goes), lstrip_blocks (white space before a block tag that begins its
// line goes), the "-" and "+" marks, and one newline at the end of the template dropped.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace towline::engine::jinja {

struct Token {
  enum class Kind { kText, kOutputBegin, kOutputEnd, kBlockBegin, kBlockEnd, kName, kString, kInt,
                    kFloat, kOperator, kEnd };
  Kind kind = Kind::kEnd;
  std::string text;  // of a string: with escapes resolved
  int line = 1;
};

Result<std::vector<Token>> lex(std::string_view source);

}  // namespace towline::engine::jinja
