// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The small part of Python's literals that Helix's ini files are made of: numbers with units
// ("14.2 * mbps"), lists of integers and of strings, and how Python prints a float.
//
// THE UNITS TRAP: Helix calls speeds kbps, mbps and gbps and means kilo-, mega- and gigaBYTES a
// second (its unit "Byte" is 1). "1000 * mbps" is 1e9 bytes/s; a real 100 Mb/s link is written
// "12.5 * mbps". The names mean the same here, so that the same file says the same thing.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace towline::spec {

// A Python int or float: they print differently (1000000000 and 1000000000.0), and Helix's files
// print both.
struct PyNumber {
  bool is_integer = true;
  int64_t integer = 0;
  double real = 0;

  static PyNumber of(int64_t v) { return {true, v, 0}; }
  static PyNumber of(double v) { return {false, 0, v}; }
  double value() const { return is_integer ? static_cast<double>(integer) : real; }
  std::string repr() const;
};

// Evaluates numbers, + - * / ( ) and the unit names Byte KB MB GB, kbps mbps gbps, Sec MilliSec.
// Errors say what was found where a number was wanted; infinities, overflow and nesting beyond 64
// are errors.
Result<PyNumber> evaluate_py(std::string_view expression);

// repr(float): the shortest text that reads back as the same number, "1e-06", "1250000000.0".
std::string py_repr(double value);

// "[1, 2]" and "['source', 1, 'sink']". Strings may use either quote and no escapes.
struct PyItem {
  bool is_string = false;
  int64_t integer = 0;
  std::string text;
};
Result<std::vector<PyItem>> parse_py_list(std::string_view text);
std::string print_py_list(const std::vector<PyItem>& items);

}  // namespace towline::spec
