// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Cells of comma-separated lines, without quoting: what the traces read here need.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

namespace towline::spec {

// Without blanks at either end.
std::string_view trimmed(std::string_view text);
// The whole of `text` as a finite number.
std::optional<double> csv_number(std::string_view text);
// The trimmed cells of a line; views into it.
std::vector<std::string_view> csv_cells(std::string_view line);

// Walks the lines of a text; blank ones are passed over.
class Lines {
 public:
  explicit Lines(std::string_view text) : rest_(text) {}
  // False at the end.
  bool next(std::string_view& line);
  int number() const { return number_; }  // of the line given last, from 1

 private:
  std::string_view rest_;
  int number_ = 0;
};

}  // namespace towline::spec
