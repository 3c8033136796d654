// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "base/fmt.hpp"
#include "spec/profile.hpp"
#include "spec/toml_text.hpp"

namespace towline::spec {
namespace {

void rows_to_toml(std::string& out, std::string_view key, const std::vector<LayerTime>& table) {
  if (table.empty()) return;
  out += format("{} = [  # [batch, seconds{}]\n", key, key == "head" ? "" : " a layer");
  for (const LayerTime& row : table) {
    out += format("  [{}, {}],\n", toml_number(row.tokens), toml_number(row.time.value));
  }
  out += "]\n";
}

template <class T>
void numbers_to_toml(std::string& out, std::string_view key, const std::vector<T>& values) {
  if (values.empty()) return;
  std::string list;
  for (const T value : values) {
    if (!list.empty()) list += ", ";
    if constexpr (std::is_floating_point_v<T>) {
      list += toml_number(value);
    } else {
      list += format("{}", value);
    }
  }
  out += format("{} = [{}]\n", key, list);
}

}  // namespace

std::string profile_to_toml(const Profile& profile) {
  std::string out = "schema = 1\n\n[model]\n";
  out +=
      format("name = {}\nlayers = {}\ntoken_bytes = {}\nactivation_bytes = {}\nlayer_bytes = {}\n",
             toml_string(profile.model.name), profile.model.layers, profile.model.token_bytes.value,
             profile.model.activation_bytes.value, profile.model.layer_bytes.value);
  for (const DeviceProfile& device : profile.devices) {
    out += format("\n[[devices]]\ntype = {}\n", toml_string(device.type));
    rows_to_toml(out, "prompt", device.prompt);
    rows_to_toml(out, "decode", device.decode);
    rows_to_toml(out, "head", device.head);
    numbers_to_toml(out, "kv_blocks", device.kv_blocks);
    numbers_to_toml(out, "prompt_max_requests", device.prompt_max_requests);
    numbers_to_toml(out, "decode_max_tokens", device.decode_max_tokens);
    numbers_to_toml(out, "rates", device.rates);
    out += format("start_speed = {}\nroomy_layers = {}\ntight_layers = {}\n",
                  toml_number(device.start_speed), device.roomy_layers, device.tight_layers);
    if (device.decode_context_seconds > 0 || device.prompt_context_seconds > 0) {
      out += format(
          "decode_context_seconds = {}\nprompt_context_seconds = {}\ndecode_context = {}\n"
          "prompt_context = {}\n",
          toml_number(device.decode_context_seconds), toml_number(device.prompt_context_seconds),
          device.decode_context, device.prompt_context);
    }
    if (device.shared_weights) out += "shared_weights = true\n";
  }
  return out;
}

}  // namespace towline::spec
