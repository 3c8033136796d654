// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Wire: what a back end has to provide, and nothing more: lines that carry whole frames in order
// until they break. Sessions, credits, faults, heartbeats and the Inbox are the Hub's, once for all
// back ends. Internal to net.
//
// Locking: one mutex, the Hub's. Every function here is called with it held and every WireEvents
// function is called with it held; poll() releases it while it sleeps or reads. So a Wire needs no
// lock of its own, and write() may come from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "net/frame.hpp"
#include "net/transport.hpp"

namespace towline::net {

using LineId = uint64_t;
inline constexpr LineId kNoLine = 0;
inline constexpr LineId kInboundLine = uint64_t{1} << 63;  // set in ids of accepted lines

// Why a line ended.
enum class LineEnd {
  kLost,     // broke, or the peer hung up
  kRefused,  // nobody there (yet): trying again may help
  kDenied,   // wrong keys, address, version: trying again cannot help
  kCorrupt,  // the bytes are no frames
};

class WireEvents {
 public:
  virtual ~WireEvents() = default;
  virtual void line_up(LineId line) = 0;  // dialled or accepted (kInboundLine)
  virtual void line_frame(LineId line, RawFrame frame) = 0;
  // The last of this line.
  virtual void line_down(LineId line, LineEnd end, std::string reason) = 0;
};

class Wire {
 public:
  virtual ~Wire() = default;
  // Before the first poll(). Returns the address that others dial.
  virtual Result<std::string> listen(const std::string& address) = 0;
  // line_up or line_down follows. The id is the caller's.
  virtual void dial(LineId line, const std::string& address) = 0;
  // Never blocks. What the line cannot take now is queued; the session's window bounds that.
  virtual void write(LineId line, FrameBytes frame) = 0;
  // Sends what is queued if that is possible at once, then ends the line. No more events of it.
  virtual void hang_up(LineId line) = 0;
  // The I/O thread: handles what is ready; if nothing is, sleeps until `until`, wake() or I/O.
  virtual void poll(std::unique_lock<std::mutex>& lock, Instant until) = 0;
  // Ends the poll() in progress or, if there is none, the next one at once.
  virtual void wake() = 0;
};

// Each in its own file; an absent one returns kUnsupported with the reason.
Result<std::unique_ptr<Wire>> make_inproc_wire(const TransportOptions& options, WireEvents& events);
Result<std::unique_ptr<Wire>> make_shm_wire(const TransportOptions& options, WireEvents& events);
Result<std::unique_ptr<Wire>> make_tcp_wire(const TransportOptions& options, WireEvents& events);
Result<std::unique_ptr<Wire>> make_zmq_wire(const TransportOptions& options, WireEvents& events);
Result<std::unique_ptr<Wire>> make_mpi_wire(const TransportOptions& options, WireEvents& events);

// "tcp://a:1" -> "a:1"; kInvalidArgument when the scheme is another one.
Result<std::string> address_rest(const std::string& address, TransportKind kind);
bool is_port(std::string_view text);  // 0 to 65535, in digits

}  // namespace towline::net
