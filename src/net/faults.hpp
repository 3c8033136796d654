// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Faults: a bad network, made on purpose and by seed.
//
// A FaultyEgress stands between a session and its line and decides for each outgoing frame when it
// arrives, how often, and whether the line is cut. It is a pure machine: (now, frame) in, (due,
// frame) out, so a run with one seed and one order of sends has one fate. It sits below the session
// layer: whatever it does, a Channel still delivers each frame once and in order, or closes.
//
// Also the way to emulate distant machines on one: delay and bandwidth per peer. A frame costs one
// heap operation; no thread, no copy.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "base/units.hpp"

namespace towline::net {

// All for one direction (frames sent by this side to one peer). Default: a perfect line.
struct Faults {
  Duration delay;                  // added to each frame
  Duration jitter;                 // plus uniform in [0, jitter); frames do not overtake each other
  double bytes_per_second = 0;     // serialisation on a line of this speed; 0 = infinite
  double loss = 0;                 // probability that a frame vanishes
  double duplicate = 0;            // ... arrives twice
  double reorder = 0;              // ... is overtaken by those sent up to 2 ms (+ jitter) after it
  double corrupt = 0;              // ... has one bit flipped
  double cut = 0;                  // ... takes the line down with it (it may be dialled again)
  uint64_t seed = 1;

  bool any() const;
  // Frames may fail to arrive while the line stays up, so a retransmission timer is needed.
  bool lossy() const { return loss > 0; }
  friend bool operator==(const Faults&, const Faults&) = default;
};

// "delay=50ms,jitter=5ms,rate=100Mbit,loss=0.01,duplicate=P,reorder=P,corrupt=P,cut=P,seed=7";
// rates in bit, kbit, Mbit, Gbit (per second) or B, kB, MB; times in us, ms, s. Empty: perfect.
Result<Faults> parse_faults(std::string_view text);
std::string to_string(const Faults& faults);

// The fate of each frame of one direction of one line.
class FaultyEgress {
 public:
  FaultyEgress() = default;
  // `peer` is mixed into the seed, so that links of one node differ.
  FaultyEgress(const Faults& faults, std::string_view peer);

  struct Fate {
    int copies = 1;        // 0: lost
    Instant due[2];        // arrival of each copy
    bool cut = false;      // hang up the line instead of sending
    int64_t flip_bit = -1;  // bit of the frame to flip in the first copy, if >= 0
  };
  Fate next(Instant now, size_t frame_bytes);
  const Faults& faults() const { return faults_; }

 private:
  Faults faults_;
  uint64_t key_ = 0;
  uint64_t counter_ = 0;
  Instant line_free_{0};   // when the emulated line has sent all before
  Instant last_due_{0};    // frames do not overtake
};

}  // namespace towline::net
