// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// BulkPort: writing large blocks (KV pages, weights) straight into a peer's memory.
//
// The verbs are those of one-sided channels (mscclpp): put, signal, flush, wait.
//   receiver  register_region(7, memory);  wait(/*signal*/ 3, /*at least*/ 1, deadline);
//   sender    link->put(7, offset, bytes, ...); link->signal(3, 1, ...); link->flush(...);
// A signal is seen after all puts before it on the same link are in memory; flush()
// returns when all that was put is in the peer's memory. Blocks travel in pieces of
// kPiece bytes over a channel of their own, so control messages do not queue behind them,
// on whatever back end the transport has.
// What the channel promises holds here too: order, exactly once over a broken line, bounded memory.
//
// A put outside a registered region ends the link with a sentence that
// names it; nothing is written.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "base/result.hpp"
#include "net/transport.hpp"

namespace towline::net {

class HubChannel;

class BulkLink {
 public:
  static constexpr size_t kPiece = 256 << 10;

  // All may be called from any thread; puts of several threads may interleave by pieces.
  Result<void> put(uint64_t region, uint64_t offset, std::span<const uint8_t> bytes,
                   Deadline deadline);
  // The peer's signal becomes at least `value`.
  Result<void> signal(uint64_t signal, uint64_t value, Deadline deadline);
  Result<void> flush(Deadline deadline);
  void close(std::string_view reason);
  PeerName peer() const;

 private:
  friend class BulkPort;
  explicit BulkLink(std::shared_ptr<HubChannel> channel) : channel_(std::move(channel)) {}
  const std::shared_ptr<HubChannel> channel_;
};

class BulkPort {
 public:
  // At most one for a transport, which must outlive it.
  static Result<std::unique_ptr<BulkPort>> open(Transport& transport);
  ~BulkPort();

  // Peers may write into `memory` until it is unregistered; it must stay valid that long.
  Result<void> register_region(uint64_t region, std::span<uint8_t> memory);
  // When this returns, nobody writes there any more.
  void unregister_region(uint64_t region);

  Result<std::unique_ptr<BulkLink>> connect(const std::string& address, Deadline deadline);

  // Waits until a peer has raised the signal to `at_least`.
  Result<void> wait(uint64_t signal, uint64_t at_least, Deadline deadline);
  uint64_t signal_value(uint64_t signal) const;

 private:
  class Receiver;
  explicit BulkPort(std::shared_ptr<class Hub> hub);
  const std::shared_ptr<class Hub> hub_;
  const std::unique_ptr<Receiver> receiver_;
};

}  // namespace towline::net
