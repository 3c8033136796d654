// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "protocol/flat.hpp"
#include "protocol/messages.hpp"

namespace towline::protocol {

std::vector<uint8_t> encode(const Handshake& m) {
  flatbuffers::FlatBufferBuilder b(512);
  const auto build = text(b, m.build);
  const auto role = text(b, m.role);
  const auto name = text(b, m.name);
  const auto address = text(b, m.address);
  const auto extra = text(b, m.extra);
  return finish(b, wire::CreateHandshake(b, 0, m.major, m.minor, build, role, name, address,
                                         m.incarnation, m.node.value, m.model_hash, m.config_hash,
                                         m.layers.begin, m.layers.end, m.kv_blocks, m.block_tokens,
                                         m.hidden_width, m.vocab, m.context, m.slots, m.max_rows,
                                         m.little_endian, m.features, extra));
}

Result<void> decode(std::span<const uint8_t> bytes, Handshake& out) {
  ASSIGN_OR_RETURN(const auto opened, open<wire::Handshake>(bytes, "handshake"));
  const wire::Handshake& from = *opened.root;
  Budget budget(bytes.size());
  out.major = from.major();
  out.minor = from.minor();
  TRY(copy(from.build(), out.build, budget));
  TRY(copy(from.role(), out.role, budget));
  TRY(copy(from.name(), out.name, budget));
  TRY(copy(from.address(), out.address, budget));
  out.incarnation = from.incarnation();
  out.node = NodeId(from.node());
  out.model_hash = from.model_hash();
  out.config_hash = from.config_hash();
  out.layers = {from.layer_begin(), from.layer_end()};
  out.kv_blocks = from.kv_blocks();
  out.block_tokens = from.block_tokens();
  out.hidden_width = from.hidden_width();
  out.vocab = from.vocab();
  out.context = from.context();
  out.slots = from.slots();
  out.max_rows = from.max_rows();
  out.little_endian = from.little_endian();
  out.features = from.features();
  return copy(from.extra(), out.extra, budget);
}

Result<void> check_handshake(const Handshake& mine, const Handshake& theirs) {
  std::string differences;
  const auto differ = [&](std::string_view what, const std::string& ours,
                          const std::string& other) {
    if (!differences.empty()) differences += "; ";
    differences += format("{} {} here, {} there", what, ours, other);
  };
  const auto hash = [&](std::string_view what, uint64_t ours, uint64_t other) {
    if (ours != 0 && other != 0 && ours != other) {
      differ(what, format("{:016x}", ours), format("{:016x}", other));
    }
  };
  const auto number = [&](std::string_view what, int32_t ours, int32_t other) {
    if (ours != 0 && other != 0 && ours != other) {
      differ(what, std::to_string(ours), std::to_string(other));
    }
  };
  if (mine.major != theirs.major) {
    differ("wire version", format("{}.{} (build {})", mine.major, mine.minor, mine.build),
           format("{}.{} (build {})", theirs.major, theirs.minor, theirs.build));
  }
  if (mine.little_endian != theirs.little_endian) {
    const auto order = [](bool little) { return little ? "little-endian" : "big-endian"; };
    differ("byte order", order(mine.little_endian), order(theirs.little_endian));
  }
  hash("model", mine.model_hash, theirs.model_hash);
  hash("configuration", mine.config_hash, theirs.config_hash);
  number("tokens a KV block", mine.block_tokens, theirs.block_tokens);
  number("hidden width", mine.hidden_width, theirs.hidden_width);
  number("vocabulary", mine.vocab, theirs.vocab);
  if (differences.empty()) return {};
  // Everything a peer sends is shown as text of bounded length.
  const auto shown = [](const std::string& s) { return s.empty() ? "(unnamed)" : s.substr(0, 64); };
  return errorf(Code::kPermissionDenied, "{} '{}' does not fit {} '{}': {}",
                shown(theirs.role), shown(theirs.name), shown(mine.role), shown(mine.name),
                differences.substr(0, 1000));
}

}  // namespace towline::protocol
