// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Profile: how fast each type of machine runs one layer of one model, and what follows from it:
// T(k), the tokens/s that a machine sustains when it holds k layers.
//
// T(k) is either measured and given (DeviceProfile::rates), or derived as Helix derives it
// (Mei et al., ASPLOS'25; reference implementation's behaviour): the KV cache that k layers leave
// room for bounds the sequences in flight; the share of a round trip that a sequence spends on this
// machine gives the typical batch; the per-layer tables give its time. That share depends on the
// speed of all other machines, hence on T itself, so the tables are a fixed point over the whole
// mix of machine types: 10 iterations from a rough guess. T(k) is therefore a property of (model,
// mix), and is not always decreasing in k.
//
// Pure data and pure functions; values; thread-compatible.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"
#include "base/units.hpp"
#include "spec/model_desc.hpp"

namespace towline::spec {

// What placement and simulation need to know of a model.
struct ModelShape {
  std::string name;
  int32_t layers = 0;
  Bytes token_bytes{2};    // one token id on a link
  Bytes activation_bytes;  // the residual stream of one token on a link
  Bytes layer_bytes;       // weights of one layer

  friend bool operator==(const ModelShape&, const ModelShape&) = default;
};

// Of a model description, with 2-byte weights and activations.
ModelShape shape_of(const ModelDesc& model);

// One measurement: a batch of `tokens` takes `time` per layer.
struct LayerTime {
  double tokens = 0;
  Seconds time;

  friend bool operator==(const LayerTime&, const LayerTime&) = default;
};

// Linear interpolation in a table with ascending `tokens`. Outside of it the nearest end counts
// (the reference implementation refuses; callers that must agree with it stay inside the table).
Seconds interpolate(const std::vector<LayerTime>& table, double tokens);

// The rows that pass a layer together.
struct LayerBatch {
  int32_t prompt_tokens = 0, decodes = 0;
  int64_t prompt_context = 0, decode_context = 0;  // tokens before each of them, summed up
};

struct DeviceProfile {
  std::string type;               // MachineType::name; "T4x2" is two T4 as one group
  std::vector<LayerTime> prompt;  // by prompt tokens in the batch
  std::vector<LayerTime> decode;  // by sequences in the batch
  // [k-1], k layers held; kv_blocks also says how many layers fit at most.
  std::vector<int64_t> kv_blocks;  // KV blocks of 16 tokens, a layer
  std::vector<int32_t> prompt_max_requests;
  std::vector<int32_t> decode_max_tokens;  // sequences in a decode batch
  std::vector<double> rates;               // T(k) as measured, tokens/s; empty: derive
  // Where the fixed point starts: speed in layer-tokens/s, and layers typically held when the
  // cluster has room to spare and when it is tight.
  double start_speed = 0;
  int32_t roomy_layers = 0;
  int32_t tight_layers = 0;
  // What the context costs, in seconds a layer for each token that a row looks back on; 0: not known,
  // the tables then hold for a usual context. The decode table holds `decode_context` tokens in
  // each sequence's cache; the prompt table, if `prompt_context`, one prompt from its beginning, else
  // no context.
  double decode_context_seconds = 0, prompt_context_seconds = 0;
  int32_t decode_context = 0;
  bool prompt_context = false;
  // One pass over the weights serves a mixed batch: it costs prompt[all rows]. Else, as in Helix's
  // model, prompt[tokens] + decode[sequences], with a single decode counted twice (its tables begin
  // with an empty batch of no cost, so that interpolation halves it).
  bool shared_weights = false;
  // What follows the last layer where tokens are drawn: output norm, logits and sampling, by rows that
  // yield one; seconds of all of it, not of a layer. Empty: not known, nothing is counted.
  std::vector<LayerTime> head;

  int32_t max_layers() const {
    return static_cast<int32_t>(rates.empty() ? kv_blocks.size() : rates.size());
  }
  friend bool operator==(const DeviceProfile&, const DeviceProfile&) = default;
};

// A batch's context in excess of what the tables hold. `mixed`: prompts and decodes were looked up as
// rows of one prompt; `prompts_own`: the prompt table holds what the tokens of a prompt from its
// beginning look back on; `decode_context`: the decode table's, of each sequence.
struct ContextBeyond {
  double prompt = 0, decode = 0;
};
constexpr ContextBeyond context_beyond(const LayerBatch& batch, bool mixed, bool prompts_own,
                                       int32_t decode_context) {
  const double n = batch.prompt_tokens + (mixed ? batch.decodes : 0);
  const double held = mixed ? 0 : static_cast<double>(batch.decodes) * decode_context;
  return {static_cast<double>(batch.prompt_context) - (prompts_own ? n * (n - 1) / 2 : 0),
          static_cast<double>(batch.decode_context) - held};
}
inline constexpr double kLeastShareOfTable = 0.1;  // however little context there is

// What a layer takes for a batch, by the tables. The simulator (sim/stage_cost.hpp) does the same.
Seconds layer_time(const DeviceProfile& device, const LayerBatch& batch);
// What drawing `rows` tokens takes after the last layer; beyond the table in proportion (they are
// drawn in turns).
Seconds head_time(const DeviceProfile& device, int32_t rows);

struct Profile {
  ModelShape model;
  std::vector<DeviceProfile> devices;

  const DeviceProfile* find(std::string_view type) const;
  friend bool operator==(const Profile&, const Profile&) = default;
};

// What a machine does when it holds k layers.
struct OperatingPoint {
  int32_t layers = 0;
  TokensPerSec rate;            // T(k), before the NIC is considered
  int64_t kv_layer_tokens = 0;  // KV capacity: tokens x layers held
  int32_t prompt_max_requests = 0;
  int64_t prompt_max_tokens = 0;
  double prompt_typical_requests = 0;
  int64_t prompt_typical_tokens = 0;
  int64_t decode_max_context = 0;
  int32_t decode_max_tokens = 0;
  int64_t decode_typical_tokens = 0;
};

struct RateTable {
  std::string type;
  int32_t typical_layers = 0;
  std::vector<OperatingPoint> points;  // [k-1]

  int32_t max_layers() const { return static_cast<int32_t>(points.size()); }
};

// How many machines of each type there are; the order is of no consequence.
using MachineMix = std::vector<std::pair<std::string, int32_t>>;

// The tables of every type in `mix`, in the order of profile.devices. Fails if a type of the mix is
// not in the profile, has neither tables nor rates, or if its numbers are absurd.
Result<std::vector<RateTable>> derive_rates(const Profile& profile, const MachineMix& mix);
const RateTable* find_table(const std::vector<RateTable>& tables, std::string_view type);

// Built in: "llama1-30b" and "llama2-70b" with the tables that Helix's authors measured on T4,
// T4x2, T4x4, L4, L4x2, V100 and A100 machines (spec/helix_tables.cpp).
Result<Profile> builtin_profile(std::string_view model);
std::vector<std::string> builtin_models();

// Native files (JSON; a TOML file of the same shape is read too). parse_profile(profile_to_json(p))
// == p. `source` names the text in errors.
Result<Profile> parse_profile(const Json& tree, std::string_view source);
Result<Profile> load_profile(const std::string& path);
Json profile_to_json(const Profile& profile);
// The same as TOML text; parses to the same profile.
std::string profile_to_toml(const Profile& profile);

// Constants of the derivation, in tokens.
inline constexpr int32_t kBlockTokens = 16;    // a KV block
inline constexpr int32_t kAverageInput = 750;  // prompt
inline constexpr int32_t kAverageOutput = 240;
inline constexpr int32_t kMaxInput = 2048;
inline constexpr int32_t kDecodeContextPerToken = 1000;

}  // namespace towline::spec
