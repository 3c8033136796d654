// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "protocol/flat.hpp"
#include "protocol/messages.hpp"

namespace towline::protocol {
namespace {

constexpr size_t kHeadAlignment = 64;
constexpr int kLastCode = static_cast<int>(Code::kInternal);

// What the columns of Results and TokenFeed have in common.
struct TokenColumns {
  std::vector<uint32_t> slot, gen;
  std::vector<int32_t> position, token;
  void add(policy::SlotGen s, int32_t at, int32_t value) {
    slot.push_back(s.slot);
    gen.push_back(s.gen);
    position.push_back(at);
    token.push_back(value);
  }
};

template <class Table>
Result<TokenColumns> read_columns(const Table& from, Budget& budget) {
  TokenColumns c;
  TRY(copy(from.slot(), c.slot, budget));
  TRY(copy(from.gen(), c.gen, budget));
  TRY(copy(from.position(), c.position, budget));
  TRY(copy(from.token(), c.token, budget));
  const size_t n = c.slot.size();
  if (c.gen.size() != n || c.position.size() != n || c.token.size() != n) {
    return Error(Code::kDataCorrupt, "the columns of tokens differ in length");
  }
  for (const uint32_t gen : c.gen) {
    if (gen > UINT16_MAX) return errorf(Code::kDataCorrupt, "{} is no generation", gen);
  }
  return c;
}

flatbuffers::Offset<wire::Scored> scored(flatbuffers::FlatBufferBuilder& b,
                                         const policy::ScoredToken& s) {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  for (const auto& [token, logprob] : s.top) {
    tokens.push_back(token);
    logprobs.push_back(logprob);
  }
  const auto top_token = column(b, tokens);
  const auto top_logprob = column(b, logprobs);
  return wire::CreateScored(b, s.token, s.logprob, top_token, top_logprob);
}

Result<void> read_scored(const wire::Scored* from, policy::ScoredToken& out, Budget& budget) {
  out = {};
  if (from == nullptr) return {};
  const size_t top = size_of(from->top_token());
  if (size_of(from->top_logprob()) != top) {
    return Error(Code::kDataCorrupt, "alternatives and their log-probabilities differ in number");
  }
  if (!budget.take(sizeof(policy::ScoredToken) / 4 + top * 8)) return Budget::exceeded();
  out.token = from->token();
  out.logprob = from->logprob();
  for (flatbuffers::uoffset_t i = 0; i < top; ++i) {
    out.top.emplace_back(from->top_token()->Get(i), from->top_logprob()->Get(i));
  }
  return {};
}

bool has_detail(const policy::RowResult& r) {
  return r.token.logprob != 0 || !r.token.top.empty() || !r.prompt.empty() || !r.pooled.empty() ||
         r.prompt_from != 0 || r.pooled_rows != 0 || !r.error.empty();
}

flatbuffers::Offset<wire::RowDetail> detail(flatbuffers::FlatBufferBuilder& b, uint32_t row,
                                            const policy::RowResult& r) {
  const auto token = scored(b, r.token);
  std::vector<flatbuffers::Offset<wire::Scored>> prompt;
  for (const policy::ScoredToken& s : r.prompt) prompt.push_back(scored(b, s));
  const auto prompts = column(b, prompt);
  const auto pooled = column(b, r.pooled);
  const auto error = text(b, r.error);
  return wire::CreateRowDetail(b, row, token, r.prompt_from, prompts, pooled, r.pooled_rows, error);
}

Result<void> read_detail(const wire::RowDetail* from, std::vector<policy::RowResult>& rows,
                         Budget& budget) {
  if (from == nullptr || from->row() >= rows.size()) {
    return errorf(Code::kDataCorrupt, "details of a row that is not among the {}", rows.size());
  }
  policy::RowResult& r = rows[from->row()];
  const int32_t token = r.token.token;
  TRY(read_scored(from->scored(), r.token, budget));
  r.token.token = token;
  r.prompt_from = from->prompt_from();
  r.pooled_rows = from->pooled_rows();
  TRY(copy(from->pooled(), r.pooled, budget));
  TRY(copy(from->error(), r.error, budget));
  const size_t prompts = size_of(from->prompt());
  if (!budget.take(prompts * sizeof(policy::ScoredToken) / 4)) return Budget::exceeded();
  r.prompt.resize(prompts);
  for (flatbuffers::uoffset_t i = 0; i < prompts; ++i) {
    TRY(read_scored(from->prompt()->Get(i), r.prompt[i], budget));
  }
  return {};
}

}  // namespace

// --- results and tokens -------------------------------------------------------------------------

std::vector<uint8_t> encode(const Results& m) {
  flatbuffers::FlatBufferBuilder b(256 + m.rows.size() * 16);
  TokenColumns c;
  std::vector<flatbuffers::Offset<wire::RowDetail>> details;
  for (const policy::RowResult& r : m.rows) {
    if (has_detail(r)) details.push_back(detail(b, static_cast<uint32_t>(c.slot.size()), r));
    c.add(r.slot, r.position, r.sampled ? r.token.token : -1);
  }
  const auto error = text(b, m.error);
  const auto slot = column(b, c.slot);
  const auto gen = column(b, c.gen);
  const auto position = column(b, c.position);
  const auto token = column(b, c.token);
  const auto rows = column(b, details);
  return finish(b, wire::CreateResults(b, 0, m.epoch.value, m.step.lane.value, m.step.step, error,
                                       slot, gen, position, token, rows));
}

Result<void> decode(std::span<const uint8_t> bytes, Results& out) {
  ASSIGN_OR_RETURN(const auto opened, open<wire::Results>(bytes, "results message"));
  const wire::Results& from = *opened.root;
  Budget budget(bytes.size());
  out.epoch = Epoch(from.epoch());
  out.step = {LaneId(from.lane()), from.step()};
  TRY(copy(from.error(), out.error, budget));
  ASSIGN_OR_RETURN(const TokenColumns c, read_columns(from, budget));
  out.rows.assign(c.slot.size(), {});
  for (size_t i = 0; i < c.slot.size(); ++i) {
    policy::RowResult& r = out.rows[i];
    r.step = out.step;
    r.slot = {c.slot[i], static_cast<uint16_t>(c.gen[i])};
    r.position = c.position[i];
    r.sampled = c.token[i] >= 0;
    r.token.token = std::max(c.token[i], 0);
  }
  for (flatbuffers::uoffset_t i = 0; i < size_of(from.details()); ++i) {
    TRY(read_detail(from.details()->Get(i), out.rows, budget));
  }
  return {};
}

std::vector<uint8_t> encode(const TokenFeed& m) {
  flatbuffers::FlatBufferBuilder b(128 + m.tokens.size() * 16);
  TokenColumns c;
  for (const policy::FedToken& t : m.tokens) c.add(t.slot, t.position, t.token);
  const auto slot = column(b, c.slot);
  const auto gen = column(b, c.gen);
  const auto position = column(b, c.position);
  const auto token = column(b, c.token);
  return finish(b, wire::CreateTokenFeed(b, 0, m.epoch.value, m.step.lane.value, m.step.step, slot,
                                         gen, position, token));
}

Result<void> decode(std::span<const uint8_t> bytes, TokenFeed& out) {
  ASSIGN_OR_RETURN(const auto opened, open<wire::TokenFeed>(bytes, "token feed"));
  Budget budget(bytes.size());
  out.epoch = Epoch(opened.root->epoch());
  out.step = {LaneId(opened.root->lane()), opened.root->step()};
  ASSIGN_OR_RETURN(const TokenColumns c, read_columns(*opened.root, budget));
  out.tokens.clear();
  for (size_t i = 0; i < c.slot.size(); ++i) {
    out.tokens.push_back({{c.slot[i], static_cast<uint16_t>(c.gen[i])}, c.position[i], c.token[i]});
  }
  return {};
}

// --- activations --------------------------------------------------------------------------------

// [u32 length of the table][table][zeros to a multiple of 64]
std::vector<uint8_t> encode(const ActivationsHead& m) {
  flatbuffers::FlatBufferBuilder b(128);
  const std::vector<uint8_t> table =
      finish(b, wire::CreateActivations(b, 0, m.epoch.value, m.step.lane.value, m.step.step, m.rows,
                                        m.width));
  const size_t used = sizeof(uint64_t) + table.size();
  std::vector<uint8_t> out((used + kHeadAlignment - 1) / kHeadAlignment * kHeadAlignment, 0);
  const uint64_t length = table.size();
  std::memcpy(out.data(), &length, sizeof(length));
  std::memcpy(out.data() + sizeof(length), table.data(), table.size());
  return out;
}

Result<void> decode(std::span<const uint8_t> bytes, ActivationsHead& out,
                    std::span<const float>& rows) {
  uint64_t length = 0;
  if (bytes.size() >= sizeof(length)) std::memcpy(&length, bytes.data(), sizeof(length));
  if (bytes.size() < sizeof(length) || length > bytes.size() - sizeof(length)) {
    return errorf(Code::kDataCorrupt, "an activations frame of {} bytes is cut short",
                  bytes.size());
  }
  ASSIGN_OR_RETURN(const auto opened, open<wire::Activations>(bytes.subspan(sizeof(length), length),
                                                              "activations head"));
  const wire::Activations& from = *opened.root;
  out.epoch = Epoch(from.epoch());
  out.step = {LaneId(from.lane()), from.step()};
  out.rows = from.rows();
  out.width = from.width();
  const size_t head =
      (sizeof(length) + length + kHeadAlignment - 1) / kHeadAlignment * kHeadAlignment;
  const size_t have = bytes.size() < head ? 0 : bytes.size() - head;
  if (out.rows < 1 || out.width < 1 ||
      uint64_t{static_cast<uint32_t>(out.rows)} * static_cast<uint32_t>(out.width) >
          have / sizeof(float) ||
      static_cast<size_t>(out.rows) * static_cast<size_t>(out.width) * sizeof(float) != have) {
    return errorf(Code::kDataCorrupt, "activations of {} rows of {} floats come as {} bytes",
                  out.rows, out.width, have);
  }
  const uint8_t* data = bytes.data() + head;
  if (reinterpret_cast<uintptr_t>(data) % alignof(float) != 0) {
    return Error(Code::kDataCorrupt, "activations are not aligned");
  }
  rows = {reinterpret_cast<const float*>(data), have / sizeof(float)};
  return {};
}

// --- control ------------------------------------------------------------------------------------

std::vector<uint8_t> encode(const Ack& m) {
  flatbuffers::FlatBufferBuilder b(128);
  const auto detail = text(b, m.detail);
  return finish(b, wire::CreateAck(b, 0, m.epoch.value, m.number, static_cast<uint8_t>(m.status),
                                   m.hash, detail));
}

Result<void> decode(std::span<const uint8_t> bytes, Ack& out) {
  ASSIGN_OR_RETURN(const auto opened, open<wire::Ack>(bytes, "acknowledgement"));
  Budget budget(bytes.size());
  if (opened.root->status() > static_cast<uint8_t>(Ack::Status::kFailed)) {
    return errorf(Code::kDataCorrupt, "an acknowledgement has the unknown status {}",
                  opened.root->status());
  }
  out.epoch = Epoch(opened.root->epoch());
  out.number = opened.root->number();
  out.status = static_cast<Ack::Status>(opened.root->status());
  out.hash = opened.root->hash();
  return copy(opened.root->detail(), out.detail, budget);
}

std::vector<uint8_t> encode(const Heartbeat& m) {
  flatbuffers::FlatBufferBuilder b(128);
  const auto extra = text(b, m.extra);
  return finish(b, wire::CreateHeartbeat(b, 0, m.epoch.value, m.node.value, m.incarnation, m.number,
                                         m.steps, m.pending, m.kv_blocks_used, m.sent_ns, extra));
}

Result<void> decode(std::span<const uint8_t> bytes, Heartbeat& out) {
  ASSIGN_OR_RETURN(const auto opened, open<wire::Heartbeat>(bytes, "heartbeat"));
  const wire::Heartbeat& from = *opened.root;
  Budget budget(bytes.size());
  out.epoch = Epoch(from.epoch());
  out.node = NodeId(from.node());
  out.incarnation = from.incarnation();
  out.number = from.number();
  out.steps = from.steps();
  out.pending = from.pending();
  out.kv_blocks_used = from.kv_blocks_used();
  out.sent_ns = from.sent_ns();
  return copy(from.extra(), out.extra, budget);
}

std::vector<uint8_t> encode(const RpcRequest& m) {
  flatbuffers::FlatBufferBuilder b(128 + m.args.size());
  const auto args = text(b, m.args);
  return finish(b, wire::CreateRpcRequest(b, 0, m.id, m.method, m.deadline_ms, args));
}

Result<void> decode(std::span<const uint8_t> bytes, RpcRequest& out) {
  ASSIGN_OR_RETURN(const auto opened, open<wire::RpcRequest>(bytes, "call"));
  Budget budget(bytes.size());
  out.id = opened.root->id();
  out.method = opened.root->method();
  out.deadline_ms = opened.root->deadline_ms();
  return copy(opened.root->args(), out.args, budget);
}

std::vector<uint8_t> encode(const RpcReply& m) {
  flatbuffers::FlatBufferBuilder b(128 + m.result.size());
  const auto message = text(b, m.message);
  const auto result = text(b, m.result);
  const auto code = static_cast<uint8_t>(m.ok ? 0 : 1 + static_cast<int>(m.code));
  return finish(b, wire::CreateRpcReply(b, 0, m.id, m.rank, code, message, result));
}

Result<void> decode(std::span<const uint8_t> bytes, RpcReply& out) {
  ASSIGN_OR_RETURN(const auto opened, open<wire::RpcReply>(bytes, "answer to a call"));
  Budget budget(bytes.size());
  if (opened.root->code() > kLastCode + 1) {
    return errorf(Code::kDataCorrupt, "an answer has the unknown error code {}",
                  opened.root->code());
  }
  out.id = opened.root->id();
  out.rank = opened.root->rank();
  out.ok = opened.root->code() == 0;
  out.code = out.ok ? Code::kInternal : static_cast<Code>(opened.root->code() - 1);
  TRY(copy(opened.root->message(), out.message, budget));
  return copy(opened.root->result(), out.result, budget);
}

}  // namespace towline::protocol
