// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/profile.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/check.hpp"
#include "base/fmt.hpp"
#include "spec/helix_tables.hpp"

namespace towline::spec {
namespace {

constexpr double kTypicalKvShare = 0.3;  // of the KV capacity, in the typical state
constexpr int kFixedPointIterations = 10;
constexpr double kRoomToSpare = 1.2;  // layers that fit / layers wanted
constexpr int32_t kMaxLayersOfModel = 10'000;

// Grids of the published measurements.
std::vector<LayerTime> prompt_table(const std::vector<double>& ms) {
  std::vector<LayerTime> table;
  for (size_t i = 0; i < ms.size(); ++i) {
    table.push_back({250.0 * static_cast<double>(i), Seconds(ms[i] * 1e-3)});
  }
  return table;
}

std::vector<LayerTime> decode_table(const std::vector<double>& ms) {
  std::vector<LayerTime> table;
  double tokens = 0;
  for (const double time : ms) {
    table.push_back({tokens, Seconds(time * 1e-3)});
    tokens += tokens < 20 ? 2 : tokens < 100 ? 5 : 20;
  }
  return table;
}

// The order of operations below is that of the reference implementation wherever it can be seen in
// the last bit: placements break ties between sums of these numbers.

// One type of the mix while the fixed point runs.
struct MixedType {
  const DeviceProfile* device = nullptr;
  double machines = 0;
  double typical_layers = 0;
  double speed = 0;  // layer-tokens/s
};

// Seconds that a token spends on an average layer of the cluster.
double mean_layer_seconds(const std::vector<MixedType>& types) {
  double seconds = 0;
  double layers = 0;
  for (const MixedType& type : types) {
    seconds += type.machines * type.typical_layers * (1 / type.speed);
    layers += type.machines * type.typical_layers;
  }
  return seconds / layers;
}

OperatingPoint derive_point(const MixedType& type, int32_t layers, int32_t model_layers,
                            double mean_seconds) {
  const DeviceProfile& device = *type.device;
  const int64_t blocks = device.kv_blocks[layers - 1];
  OperatingPoint point;
  point.layers = layers;
  point.kv_layer_tokens = kBlockTokens * blocks * layers;
  point.prompt_max_requests = device.prompt_max_requests[layers - 1];
  point.prompt_max_tokens = int64_t{point.prompt_max_requests} * kMaxInput;
  point.decode_max_tokens = device.decode_max_tokens[layers - 1];
  point.decode_max_context = int64_t{point.decode_max_tokens} * kDecodeContextPerToken;

  // The share of its round trip that a sequence spends here.
  const double here = layers * (1 / type.speed);
  const double share = here / ((model_layers - layers) * mean_seconds + here);
  const double entries =
      std::floor(kTypicalKvShare * static_cast<double>(point.kv_layer_tokens) / layers);
  const double sequences = entries / (kAverageInput + kAverageOutput);
  double requests = sequences * share / kAverageOutput;
  // Python's round(): half to even, as nearbyint does in the default mode.
  double prompt_tokens = std::nearbyint(requests * kAverageInput);
  double decode_tokens = std::nearbyint(sequences * share);
  if (requests > 1) {
    requests = 1;
    prompt_tokens = kAverageInput;
    decode_tokens = kAverageOutput;
  }
  point.prompt_typical_requests = requests;
  point.prompt_typical_tokens = static_cast<int64_t>(prompt_tokens);
  point.decode_typical_tokens = static_cast<int64_t>(decode_tokens);

  // Less than one prompt a batch: 1/requests batches, of which one carries the whole prompt.
  const double batches = requests >= 1 ? 1 : 1 / requests;
  const double tokens = batches * (prompt_tokens + decode_tokens);
  const double prompt_batch = requests >= 1 ? prompt_tokens : std::floor(prompt_tokens * batches);
  const double seconds = layers * (interpolate(device.prompt, prompt_batch).value +
                                   interpolate(device.decode, decode_tokens).value * batches);
  point.rate = TokensPerSec(seconds > 0 && std::isfinite(batches) ? tokens / seconds : 0);
  return point;
}

OperatingPoint measured_point(const DeviceProfile& device, int32_t layers) {
  const auto at = [&](const auto& table, auto fallback) {
    return static_cast<size_t>(layers) <= table.size() ? table[layers - 1] : fallback;
  };
  OperatingPoint point;
  point.layers = layers;
  point.rate = TokensPerSec(device.rates[layers - 1]);
  point.kv_layer_tokens = kBlockTokens * at(device.kv_blocks, int64_t{0}) * layers;
  point.prompt_max_requests = at(device.prompt_max_requests, 1);
  point.prompt_max_tokens = int64_t{point.prompt_max_requests} * kMaxInput;
  point.decode_max_tokens = at(device.decode_max_tokens, 1);
  point.decode_max_context = int64_t{point.decode_max_tokens} * kDecodeContextPerToken;
  return point;
}

RateTable derive_table(const MixedType& type, int32_t model_layers, double mean_seconds) {
  RateTable table;
  table.type = type.device->type;
  table.typical_layers = static_cast<int32_t>(type.typical_layers);
  const bool measured = !type.device->rates.empty();
  for (int32_t k = 1; k <= std::min(type.device->max_layers(), model_layers); ++k) {
    table.points.push_back(measured ? measured_point(*type.device, k)
                                    : derive_point(type, k, model_layers, mean_seconds));
  }
  return table;
}

Result<void> check_table(const DeviceProfile& device, std::string_view key,
                         const std::vector<LayerTime>& table) {
  for (size_t i = 0; i < table.size(); ++i) {
    const bool ascending = i == 0 || table[i - 1].tokens < table[i].tokens;
    const bool sane = table[i].tokens >= 0 && table[i].tokens < 1e9 && table[i].time.value >= 0 &&
                      table[i].time.value < 1e6;
    if (!ascending || !sane) {
      return errorf(Code::kInvalidArgument,
                    "device '{}', {}[{}]: batch sizes must ascend from 0 and times lie between 0 "
                    "and 1e9 ms; correct the table",
                    device.type, key, i);
    }
  }
  return {};
}

Result<void> check_device(const DeviceProfile& device) {
  TRY(check_table(device, "prompt", device.prompt));
  TRY(check_table(device, "decode", device.decode));
  TRY(check_table(device, "head", device.head));
  const auto fail = [&](std::string_view what) {
    return errorf(Code::kInvalidArgument, "device '{}': {}", device.type, what);
  };
  if (device.max_layers() < 1 || device.max_layers() > kMaxLayersOfModel) {
    return fail("give kv_blocks or rates, a value for each number of layers that fits");
  }
  if (device.head.size() == 1 || (!device.head.empty() && device.head.front().tokens != 0)) {
    return fail("head must begin with 0 rows and have a further row, or be left out");
  }
  for (const double seconds : {device.decode_context_seconds, device.prompt_context_seconds}) {
    if (!(seconds >= 0 && seconds < 1)) return fail("a token of context costs 0 to 1 s a layer");
  }
  for (const double rate : device.rates) {
    if (!(rate >= 0) || rate > 1e12) return fail("rates must lie between 0 and 1e12 tokens/s");
  }
  for (const int64_t blocks : device.kv_blocks) {
    if (blocks < 0 || blocks > (int64_t{1} << 40)) return fail("kv_blocks must lie in 0..2^40");
  }
  for (const auto* table : {&device.prompt_max_requests, &device.decode_max_tokens}) {
    for (const int32_t limit : *table) {
      if (limit < 1) return fail("prompt_max_requests and decode_max_tokens must be 1 or above");
    }
  }
  if (!device.rates.empty()) return {};
  if (device.prompt.size() < 2 || device.decode.size() < 2) {
    return fail("give measured rates, or prompt and decode tables of two rows and more");
  }
  if (device.prompt_max_requests.size() != device.kv_blocks.size() ||
      device.decode_max_tokens.size() != device.kv_blocks.size()) {
    return fail(
        "kv_blocks, prompt_max_requests and decode_max_tokens must have a value for each "
        "number of layers");
  }
  if (!(device.start_speed > 0) || device.start_speed > 1e12 || device.roomy_layers < 1 ||
      device.tight_layers < 1 || device.roomy_layers > device.max_layers() ||
      device.tight_layers > device.max_layers()) {
    return fail(
        "start_speed must be above 0, and roomy_layers and tight_layers numbers of layers "
        "that fit");
  }
  return {};
}

}  // namespace

ModelShape shape_of(const ModelDesc& model) {
  return {model.name, model.layers, Bytes(2), Bytes(int64_t{2} * model.hidden),
          Bytes(2 * model.layer_parameters())};
}

Seconds interpolate(const std::vector<LayerTime>& table, double tokens) {
  if (table.empty()) return Seconds(0);
  if (tokens <= table.front().tokens) return table.front().time;
  if (tokens >= table.back().tokens) return table.back().time;
  const auto above =
      std::upper_bound(table.begin(), table.end(), tokens,
                       [](double wanted, const LayerTime& row) { return wanted < row.tokens; });
  const LayerTime& high = *above;
  const LayerTime& low = *(above - 1);
  return Seconds(low.time.value + (tokens - low.tokens) * (high.time.value - low.time.value) /
                                      (high.tokens - low.tokens));
}

Seconds layer_time(const DeviceProfile& device, const LayerBatch& batch) {
  const int32_t rows = batch.prompt_tokens + batch.decodes;
  const bool mixed = device.shared_weights && batch.prompt_tokens > 0;
  double table;
  if (mixed) {
    table = interpolate(device.prompt, rows).value;
  } else {
    const bool doubled = !device.shared_weights && batch.decodes == 1;
    table = interpolate(device.prompt, batch.prompt_tokens).value +
            (doubled ? 2 : 1) * interpolate(device.decode, batch.decodes).value;
  }
  const ContextBeyond beyond = context_beyond(
      batch, mixed, device.prompt_context, device.decode_context);
  const double seconds = table + device.prompt_context_seconds * beyond.prompt +
                         device.decode_context_seconds * beyond.decode;
  return Seconds(std::max(seconds, kLeastShareOfTable * table));
}

Seconds head_time(const DeviceProfile& device, int32_t rows) {
  const Seconds time = interpolate(device.head, rows);
  if (device.head.empty() || rows <= device.head.back().tokens) return time;
  return Seconds(time.value * rows / device.head.back().tokens);
}

const DeviceProfile* Profile::find(std::string_view type) const {
  const auto found = std::find_if(devices.begin(), devices.end(),
                                  [&](const DeviceProfile& device) { return device.type == type; });
  return found == devices.end() ? nullptr : &*found;
}

const RateTable* find_table(const std::vector<RateTable>& tables, std::string_view type) {
  const auto found = std::find_if(tables.begin(), tables.end(),
                                  [&](const RateTable& table) { return table.type == type; });
  return found == tables.end() ? nullptr : &*found;
}

Result<std::vector<RateTable>> derive_rates(const Profile& profile, const MachineMix& mix) {
  std::map<std::string, int32_t, std::less<>> counts;
  for (const auto& [type, count] : mix) {
    if (profile.find(type) == nullptr) {
      std::string known;
      for (const DeviceProfile& device : profile.devices) {
        known += (known.empty() ? "" : ", ") + device.type;
      }
      return errorf(Code::kInvalidArgument,
                    "the profile of '{}' has no table for the machine type '{}' (it has {}); "
                    "measure one with 'towline profile' and add it",
                    profile.model.name, type, known);
    }
    counts[type] += count;
  }
  std::vector<MixedType> types;  // in the profile's order, so that sums do not depend on the mix's
  double roomy = 0;
  for (const DeviceProfile& device : profile.devices) {
    const auto found = counts.find(device.type);
    if (found == counts.end() || found->second <= 0) continue;
    TRY(check_device(device));
    types.push_back({&device, static_cast<double>(found->second), 0, device.start_speed});
    roomy += found->second * device.roomy_layers;
  }
  const bool spare = roomy >= kRoomToSpare * profile.model.layers;
  for (MixedType& type : types) {
    type.typical_layers = spare ? type.device->roomy_layers : type.device->tight_layers;
    if (type.device->rates.empty()) continue;
    // A measured type takes part in the mix with its best product of layers and speed.
    type.typical_layers = 1;
    type.speed = 0;
    for (size_t k = 1; k <= type.device->rates.size(); ++k) {
      const double speed = type.device->rates[k - 1] * static_cast<double>(k);
      if (speed > type.speed) {
        type.typical_layers = static_cast<double>(k);
        type.speed = speed;
      }
    }
    if (!(type.speed > 0)) {
      return errorf(Code::kInvalidArgument, "device '{}': all measured rates are 0; measure again",
                    type.device->type);
    }
  }
  for (int i = 0; i < kFixedPointIterations; ++i) {
    const double mean = mean_layer_seconds(types);
    std::vector<double> speeds;
    for (const MixedType& type : types) {
      if (!type.device->rates.empty()) {
        speeds.push_back(type.speed);
        continue;
      }
      const auto layers = static_cast<int32_t>(type.typical_layers);
      const double rate = derive_point(type, layers, profile.model.layers, mean).rate.value;
      if (!(rate > 0) || !std::isfinite(rate)) {
        return errorf(Code::kInvalidArgument,
                      "device '{}' comes to a speed of {} tokens/s with {} layers; its tables or "
                      "kv_blocks are too small, correct them",
                      type.device->type, rate, layers);
      }
      speeds.push_back(rate * type.typical_layers);
    }
    for (size_t t = 0; t < types.size(); ++t) types[t].speed = speeds[t];
  }
  std::vector<RateTable> tables;
  const double mean = types.empty() ? 0 : mean_layer_seconds(types);
  for (const MixedType& type : types) {
    tables.push_back(derive_table(type, profile.model.layers, mean));
  }
  return tables;
}

Result<Profile> builtin_profile(std::string_view model) {
  for (const HelixModelTables& tables : helix_tables()) {
    if (tables.model.name != model) continue;
    Profile profile{tables.model, {}};
    for (const HelixDeviceTables& source : tables.devices) {
      const size_t layers = source.kv_blocks.size();
      profile.devices.push_back({source.type,
                                 prompt_table(source.prompt_ms),
                                 decode_table(source.decode_ms),
                                 source.kv_blocks,
                                 std::vector<int32_t>(layers, source.prompt_max_requests),
                                 source.decode_max_tokens,
                                 {},
                                 source.start_speed,
                                 source.roomy_layers,
                                 source.tight_layers,
                                 0, 0, 0, false, false, {}});
    }
    return profile;
  }
  std::string known;
  for (const std::string& name : builtin_models()) known += (known.empty() ? "" : ", ") + name;
  return errorf(Code::kInvalidArgument,
                "'{}' is not a built-in model profile (there are {}); give a "
                "profile file",
                model, known);
}

std::vector<std::string> builtin_models() {
  std::vector<std::string> names;
  for (const HelixModelTables& tables : helix_tables()) names.push_back(tables.model.name);
  return names;
}

namespace {

Json table_to_json(const std::vector<LayerTime>& table) {
  Json rows = Json::array();
  for (const LayerTime& row : table) {
    rows.push(Json::array({row.tokens, row.time.value}));
  }
  return rows;
}

template <class T>
Json numbers_to_json(const std::vector<T>& values) {
  Json list = Json::array();
  for (const T value : values) list.push(value);
  return list;
}

Result<std::vector<LayerTime>> read_rows(const Json& rows, std::string_view where) {
  std::vector<LayerTime> table;
  for (const Json& row : rows.items()) {
    if (row.size() != 2 || !row[size_t{0}].is_number() || !row[size_t{1}].is_number()) {
      return errorf(Code::kInvalidArgument, "{} must be a list of [batch tokens, seconds] pairs",
                    where);
    }
    table.push_back({row[size_t{0}].as_double(), Seconds(row[size_t{1}].as_double())});
  }
  return table;
}

template <class T>
Result<std::vector<T>> read_numbers(const Json& list, std::string_view where) {
  std::vector<T> values;
  if (!list.is_null() && !list.is_array()) {
    return errorf(Code::kInvalidArgument, "{} must be a list of numbers", where);
  }
  for (const Json& item : list.items()) {
    const bool whole = item.is_int() && std::abs(item.as_int()) <= (int64_t{1} << 40);
    if (std::is_floating_point_v<T> ? !item.is_number() : !whole) {
      return errorf(Code::kInvalidArgument, "{} must be a list of numbers, not {}", where,
                    item.type_name());
    }
    if constexpr (std::is_floating_point_v<T>) {
      values.push_back(item.as_double());
    } else {
      values.push_back(
          static_cast<T>(std::min<int64_t>(item.as_int(), std::numeric_limits<T>::max())));
    }
  }
  return values;
}

Result<DeviceProfile> read_device(const Json& tree) {
  DeviceProfile device;
  device.type = tree["type"].as_string();
  if (device.type.empty()) {
    return Error(Code::kInvalidArgument, "every entry of 'devices' needs a 'type'");
  }
  const auto where = [&](std::string_view key) {
    return format("device '{}', {}", device.type, key);
  };
  ASSIGN_OR_RETURN(device.prompt, read_rows(tree["prompt"], where("prompt")));
  ASSIGN_OR_RETURN(device.decode, read_rows(tree["decode"], where("decode")));
  ASSIGN_OR_RETURN(device.head, read_rows(tree["head"], where("head")));
  ASSIGN_OR_RETURN(device.kv_blocks, read_numbers<int64_t>(tree["kv_blocks"], where("kv_blocks")));
  ASSIGN_OR_RETURN(device.prompt_max_requests, read_numbers<int32_t>(tree["prompt_max_requests"],
                                                                     where("prompt_max_requests")));
  ASSIGN_OR_RETURN(device.decode_max_tokens,
                   read_numbers<int32_t>(tree["decode_max_tokens"], where("decode_max_tokens")));
  ASSIGN_OR_RETURN(device.rates, read_numbers<double>(tree["rates"], where("rates")));
  const auto layers_or = [&](std::string_view key) {
    return static_cast<int32_t>(
        std::clamp<int64_t>(tree[key].as_int(device.max_layers()), 0, kMaxLayersOfModel));
  };
  device.start_speed = tree["start_speed"].as_double(1);
  device.roomy_layers = layers_or("roomy_layers");
  device.tight_layers = layers_or("tight_layers");
  device.decode_context_seconds = tree["decode_context_seconds"].as_double(0);
  device.prompt_context_seconds = tree["prompt_context_seconds"].as_double(0);
  device.decode_context =
      static_cast<int32_t>(std::clamp<int64_t>(tree["decode_context"].as_int(0), 0, 1 << 30));
  device.prompt_context = tree["prompt_context"].as_bool(false);
  device.shared_weights = tree["shared_weights"].as_bool(false);
  TRY(check_device(device));
  return device;
}

Result<ModelShape> read_shape(const Json& tree) {
  ModelShape shape;
  shape.name = tree["name"].as_string();
  const int64_t layers = tree["layers"].as_int();
  shape.activation_bytes = Bytes(tree["activation_bytes"].as_int());
  shape.token_bytes = Bytes(tree["token_bytes"].as_int(2));
  shape.layer_bytes = Bytes(tree["layer_bytes"].as_int());
  if (layers < 1 || layers > kMaxLayersOfModel || shape.activation_bytes.value < 1 ||
      shape.token_bytes.value < 1 || shape.layer_bytes.value < 1) {
    return Error(Code::kInvalidArgument,
                 "'model' needs a name, layers (1 to 10000), activation_bytes and layer_bytes, all "
                 "above 0");
  }
  shape.layers = static_cast<int32_t>(layers);
  return shape;
}

}  // namespace

Result<Profile> parse_profile(const Json& tree, std::string_view source) {
  if (tree["schema"].as_int() != 1) {
    return errorf(Code::kInvalidArgument, "{}: schema must be 1 (this build reads no other)",
                  source);
  }
  Profile profile;
  Result<ModelShape> shape = read_shape(tree["model"]);
  if (!shape) return std::move(shape).error().context(source);
  profile.model = *shape;
  for (const Json& item : tree["devices"].items()) {
    Result<DeviceProfile> device = read_device(item);
    if (!device) return std::move(device).error().context(source);
    if (profile.find(device->type) != nullptr) {
      return errorf(Code::kInvalidArgument, "{}: device '{}' is given twice; remove one", source,
                    device->type);
    }
    profile.devices.push_back(*std::move(device));
  }
  if (profile.devices.empty()) {
    return errorf(Code::kInvalidArgument, "{}: 'devices' is empty; add a machine type", source);
  }
  return profile;
}

Result<Profile> load_profile(const std::string& path) {
  ASSIGN_OR_RETURN(const Json tree, load_json(path));
  return parse_profile(tree, path);
}

Json profile_to_json(const Profile& profile) {
  Json devices = Json::array();
  for (const DeviceProfile& device : profile.devices) {
    Json tree = Json::object({{"type", device.type}});
    if (!device.prompt.empty()) tree.set("prompt", table_to_json(device.prompt));
    if (!device.decode.empty()) tree.set("decode", table_to_json(device.decode));
    if (!device.head.empty()) tree.set("head", table_to_json(device.head));
    if (!device.kv_blocks.empty()) tree.set("kv_blocks", numbers_to_json(device.kv_blocks));
    if (!device.prompt_max_requests.empty()) {
      tree.set("prompt_max_requests", numbers_to_json(device.prompt_max_requests));
    }
    if (!device.decode_max_tokens.empty()) {
      tree.set("decode_max_tokens", numbers_to_json(device.decode_max_tokens));
    }
    if (!device.rates.empty()) tree.set("rates", numbers_to_json(device.rates));
    tree.set("start_speed", device.start_speed);
    tree.set("roomy_layers", device.roomy_layers);
    tree.set("tight_layers", device.tight_layers);
    if (device.decode_context_seconds > 0 || device.prompt_context_seconds > 0) {
      tree.set("decode_context_seconds", device.decode_context_seconds);
      tree.set("prompt_context_seconds", device.prompt_context_seconds);
      tree.set("decode_context", device.decode_context);
      tree.set("prompt_context", device.prompt_context);
    }
    if (device.shared_weights) tree.set("shared_weights", true);
    devices.push(std::move(tree));
  }
  return Json::object(
      {{"schema", 1},
       {"model", Json::object({{"name", profile.model.name},
                               {"layers", profile.model.layers},
                               {"token_bytes", profile.model.token_bytes.value},
                               {"activation_bytes", profile.model.activation_bytes.value},
                               {"layer_bytes", profile.model.layer_bytes.value}})},
       {"devices", std::move(devices)}});
}

}  // namespace towline::spec
