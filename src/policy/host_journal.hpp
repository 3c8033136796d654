// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The host's part of a run's journal (obs/journal.hpp): its configuration as JSON, its events as
// bytes, its actions as a digest. A driver writes
//   kSetup    host_setup_json(options)
//   kEvent    encode_event(plan), the plan it was made with
//   kEvent    encode_event(event), for each event, before step()
//   kActions  the digest of all actions so far, now and then and at the end
// and whoever replays it (sim/replay.hpp) makes a host of the first two and tells it the rest.
//
// An event is a byte for its kind and then its fields as LEB128 varints (signed ones zigzag-coded);
// flows are 8 bytes, IEEE 754, little-endian. Decoding is safe against hostile input.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/digest.hpp"
#include "base/json.hpp"
#include "base/result.hpp"
#include "policy/host.hpp"

namespace towline::policy {

Json host_setup_json(const HostOptions& options);
// Refuses what is missing or out of range.
Result<HostOptions> parse_host_setup(const Json& json);

std::string encode_event(const HostEvent& event);

// An event together with what it points to.
struct DecodedEvent {
  HostEvent event;
  std::vector<Sampled> sampled;
};
Result<DecodedEvent> decode_event(std::string_view bytes);

// Whether a host in this state may be told the event: a ticket that is on its way with a sample for
// each of its entries, an id that is not in use, a plan of as many nodes. For events that come from
// a file; a driver's own are right by construction.
Result<void> check_event(const Host& host, const HostEvent& event);

// Adds actions, and what the launched steps hold, to `digest`. Call right after the step() that gave
// them.
void digest_actions(const Host& host, std::span<const HostAction> actions, Digest& digest);

}  // namespace towline::policy
