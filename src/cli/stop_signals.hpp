// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// StopSignals: signals as a std::stop_token, on which anything that waits can be woken; a handler
// alone could only set a flag that others would have to look at.
//
// The handler writes to an eventfd, and a thread that reads it requests the stop. (Blocking the
// signals and waiting for them would not do: libraries start threads before main(), which do not
// block them.)
#pragma once

#include <initializer_list>
#include <stop_token>
#include <thread>
#include <vector>

namespace towline::cli {

// From now until it goes, the first of the signals requests the stop; later ones change
// nothing. One at a time in a process.
class StopSignals {
 public:
  explicit StopSignals(std::initializer_list<int> numbers);
  ~StopSignals();  // their default actions are back
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  std::stop_token token() const { return source_.get_token(); }

 private:
  const std::vector<int> numbers_;
  std::stop_source source_;
  std::thread thread_;
};

}  // namespace towline::cli
