// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Simplex: small packing linear programs, columns added as they are found.
//
//   maximise  sum_j value_j x_j   subject to  sum_j use_ij x_j <= limit_i,  x >= 0,  limit >= 0
//
// The planner's master problems have a row per device type and per layer cut (tens of rows), so
// this is the revised primal simplex with an explicit inverse of the basis (G. B. Dantzig; the
// explicit form as in V. Chvatal, "Linear Programming", 1983, ch. 7): the start basis of slacks is
// feasible and adding a column keeps it so, which is what column generation needs. Deterministic.
// Not meant for thousands of rows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace towline::plan {

class Simplex {
 public:
  explicit Simplex(std::vector<double> limits);  // each >= 0

  // Returns the column's index. use is [rows]; entries may have either sign.
  int32_t add_column(double value, std::span<const double> use);

  // Optimises from the present basis. False if the program is unbounded or gave up after
  // `max_pivots`; then value() is a feasible point's value, not the optimum.
  bool solve(int64_t max_pivots = 20'000);

  double value() const;
  std::vector<double> solution() const;  // [columns]
  std::vector<double> prices() const;    // [rows] dual values, >= -tolerance at the optimum

  int32_t rows() const { return static_cast<int32_t>(limits_.size()); }
  int32_t columns() const { return static_cast<int32_t>(values_.size()); }

 private:
  double column_value(int32_t j) const;          // slack i is column -1 - i
  std::vector<double> reduced(int32_t j) const;  // inverse * column
  int32_t choose_entering(const std::vector<double>& prices, bool first_found) const;
  void refactor();

  std::vector<double> limits_;
  std::vector<double> values_;
  std::vector<double> uses_;     // column after column
  std::vector<int32_t> basis_;   // [row] column; slack i is -1 - i
  std::vector<double> inverse_;  // row-major [rows][rows]
  std::vector<double> level_;    // [row] value of the basic variable
  int64_t since_refactor_ = 0;
};

}  // namespace towline::plan
