// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "protocol/flat.hpp"
#include "protocol/messages.hpp"

namespace towline::protocol {
namespace {

constexpr size_t kHeadAlignment = 64;
constexpr int kLastCode = static_cast<int>(Code::kInternal);

// What the columns of Results and TokenFeed have in common: written once, row by row, into the
// buffer that is sent, and read in place.
struct TokenColumns {
  TokenColumns(flatbuffers::FlatBufferBuilder& b, size_t rows) {
    if (rows == 0) return;
    slot = b.CreateUninitializedVector(rows, &slots);
    gen = b.CreateUninitializedVector(rows, &gens);
    position = b.CreateUninitializedVector(rows, &positions);
    token = b.CreateUninitializedVector(rows, &tokens);
    // The buffer grows downwards and may have moved: the columns' places are known only now.
    uint8_t* const end = b.GetCurrentBufferPointer() + b.GetSize();
    slots = reinterpret_cast<uint32_t*>(end - slot.o + sizeof(flatbuffers::uoffset_t));
    gens = reinterpret_cast<uint32_t*>(end - gen.o + sizeof(flatbuffers::uoffset_t));
    positions = reinterpret_cast<int32_t*>(end - position.o + sizeof(flatbuffers::uoffset_t));
    tokens = reinterpret_cast<int32_t*>(end - token.o + sizeof(flatbuffers::uoffset_t));
  }
  // Before anything else is added to the buffer.
  void set(size_t row, policy::SlotGen s, int32_t at, int32_t value) {
    slots[row] = s.slot;
    gens[row] = s.gen;
    positions[row] = at;
    tokens[row] = value;
  }
  flatbuffers::Offset<flatbuffers::Vector<uint32_t>> slot, gen;
  flatbuffers::Offset<flatbuffers::Vector<int32_t>> position, token;
  uint32_t *slots = nullptr, *gens = nullptr;
  int32_t *positions = nullptr, *tokens = nullptr;
};

struct TokenView {
  size_t size = 0;
  const uint32_t *slot = nullptr, *gen = nullptr;
  const int32_t *position = nullptr, *token = nullptr;
  policy::SlotGen slot_gen(size_t i) const { return {slot[i], static_cast<uint16_t>(gen[i])}; }
};

// `row_bytes` is what a row becomes in memory.
template <class Table>
Result<TokenView> view_columns(const Table& from, size_t row_bytes, Budget& budget) {
  const size_t n = size_of(from.slot());
  if (size_of(from.gen()) != n || size_of(from.position()) != n || size_of(from.token()) != n) {
    return Error(Code::kDataCorrupt, "the columns of tokens differ in length");
  }
  if (n == 0) return TokenView{};
  if (!budget.take(n * row_bytes)) return Budget::exceeded();
  const TokenView v{n, from.slot()->data(), from.gen()->data(), from.position()->data(),
                    from.token()->data()};
  uint32_t all = 0;
  for (size_t i = 0; i < n; ++i) all |= v.gen[i];
  if (all > UINT16_MAX) return errorf(Code::kDataCorrupt, "{:#x} has bits of no generation", all);
  return v;
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
  return r.token.logprob != 0 || !r.token.top.empty() || r.extras;
}

flatbuffers::Offset<wire::RowDetail> detail(flatbuffers::FlatBufferBuilder& b, uint32_t row,
                                            const policy::RowResult& r) {
  const auto token = scored(b, r.token);
  std::vector<flatbuffers::Offset<wire::Scored>> prompt;
  const policy::RowExtras& extras = r.extras.get();
  for (const policy::ScoredToken& s : extras.prompt) prompt.push_back(scored(b, s));
  const auto prompts = column(b, prompt);
  const auto pooled = column(b, extras.pooled);
  const auto error = text(b, extras.error);
  return wire::CreateRowDetail(b, row, token, extras.prompt_from, prompts, pooled,
                               extras.pooled_rows, error);
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
  const size_t prompts = size_of(from->prompt());
  const bool more = prompts > 0 || size_of(from->pooled()) > 0 || from->prompt_from() != 0 ||
                    from->pooled_rows() != 0 || size_of(from->error()) > 0;
  if (!more) return {};
  if (!budget.take(sizeof(policy::RowExtras) / 4)) return Budget::exceeded();
  policy::RowExtras& extras = r.extras.edit();
  extras.prompt_from = from->prompt_from();
  extras.pooled_rows = from->pooled_rows();
  TRY(copy(from->pooled(), extras.pooled, budget));
  TRY(copy(from->error(), extras.error, budget));
  if (!budget.take(prompts * sizeof(policy::ScoredToken) / 4)) return Budget::exceeded();
  extras.prompt.resize(prompts);
  for (flatbuffers::uoffset_t i = 0; i < prompts; ++i) {
    TRY(read_scored(from->prompt()->Get(i), extras.prompt[i], budget));
  }
  return {};
}

}  // namespace

// --- results and tokens -------------------------------------------------------------------------

std::vector<uint8_t> encode_results(Epoch epoch, policy::LaneStep step,
                                    std::span<const policy::RowResult> rows,
                                    std::string_view error) {
  flatbuffers::FlatBufferBuilder b(256 + rows.size() * 16);
  TokenColumns c(b, rows.size());
  bool details = false;
  for (size_t i = 0; i < rows.size(); ++i) {
    const policy::RowResult& r = rows[i];
    c.set(i, r.slot, r.position, r.sampled ? r.token.token : -1);
    details = details || has_detail(r);
  }
  std::vector<flatbuffers::Offset<wire::RowDetail>> detailed;
  for (size_t i = 0; i < rows.size() && details; ++i) {
    if (has_detail(rows[i])) detailed.push_back(detail(b, static_cast<uint32_t>(i), rows[i]));
  }
  const auto failed = error.empty() ? flatbuffers::Offset<flatbuffers::String>(0)
                                    : b.CreateString(error.data(), error.size());
  const auto described = column(b, detailed);
  return finish(b, wire::CreateResults(b, 0, epoch.value, step.lane.value, step.step, failed,
                                       c.slot, c.gen, c.position, c.token, described));
}

std::vector<uint8_t> encode(const Results& m) {
  return encode_results(m.epoch, m.step, m.rows, m.error);
}

Result<void> decode(std::span<const uint8_t> bytes, Results& out) {
  ASSIGN_OR_RETURN(const auto opened, open<wire::Results>(bytes, "results message"));
  const wire::Results& from = *opened.root;
  Budget budget(bytes.size());
  out.epoch = Epoch(from.epoch());
  out.step = {LaneId(from.lane()), from.step()};
  TRY(copy(from.error(), out.error, budget));
  ASSIGN_OR_RETURN(const TokenView c, view_columns(from, 4 * sizeof(uint32_t), budget));
  out.rows.clear();
  out.rows.resize(c.size);
  for (size_t i = 0; i < c.size; ++i) {
    policy::RowResult& r = out.rows[i];
    r.step = out.step;
    r.slot = c.slot_gen(i);
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
  TokenColumns c(b, m.tokens.size());
  for (size_t i = 0; i < m.tokens.size(); ++i) {
    c.set(i, m.tokens[i].slot, m.tokens[i].position, m.tokens[i].token);
  }
  return finish(b, wire::CreateTokenFeed(b, 0, m.epoch.value, m.step.lane.value, m.step.step,
                                         c.slot, c.gen, c.position, c.token));
}

Result<void> decode(std::span<const uint8_t> bytes, TokenFeed& out) {
  ASSIGN_OR_RETURN(const auto opened, open<wire::TokenFeed>(bytes, "token feed"));
  Budget budget(bytes.size());
  out.epoch = Epoch(opened.root->epoch());
  out.step = {LaneId(opened.root->lane()), opened.root->step()};
  ASSIGN_OR_RETURN(const TokenView c,
                   view_columns(*opened.root, sizeof(policy::FedToken), budget));
  out.tokens.resize(c.size);
  for (size_t i = 0; i < c.size; ++i) out.tokens[i] = {c.slot_gen(i), c.position[i], c.token[i]};
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
