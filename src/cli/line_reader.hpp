// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// LineReader: a line from the user, with editing and history when standard input is a terminal, and
// plainly from a pipe otherwise. libedit is behind line_reader.cpp.
// One at a time: libedit is global.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace towline::cli {

class LineReader {
 public:
  // `history_file`: read now and written at the end; empty: none is kept.
  explicit LineReader(std::string history_file);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  bool terminal() const { return terminal_; }
  // Without the line break; nullopt at the end of input.
  std::optional<std::string> read(const std::string& prompt);

 private:
  std::string history_file_;
  bool terminal_;
};

// Where a program keeps its history: $XDG_STATE_HOME/towline/NAME, or ~/.local/state/towline/NAME.
// Makes the directory; empty if there is no home.
std::string state_file(std::string_view name);

}  // namespace towline::cli
