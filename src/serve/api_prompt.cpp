// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/api_prompt.hpp"

#include "base/fmt.hpp"

namespace towline::serve {
namespace {

ApiCheck read_content(const Json& content, const std::string& param, std::string& out) {
  if (content.is_string()) {
    out = content.as_string();
    return std::nullopt;
  }
  if (!content.is_array()) {
    return invalid_field(param, format("{} must be a string or a list of text parts, not {}", param,
                                       content.type_name()));
  }
  for (size_t i = 0; i < content.size(); ++i) {
    const Json& part = content[i];
    const std::string at = format("{}[{}]", param, i);
    const std::string& type = part["type"].as_string();
    if (type != "text" && part.is_object() && part["type"].is_string()) {
      return unsupported_field(at + ".type", format("{}: parts of type '{}' are not supported by "
                                                    "this server; send text", at, type));
    }
    if (!part.is_object() || !part["text"].is_string()) {
      return invalid_field(at, format("{} must be {{\"type\":\"text\",\"text\":...}}", at));
    }
    if (i > 0) out += '\n';
    out += part["text"].as_string();
  }
  return std::nullopt;
}

ApiCheck read_message(const Json& v, const std::string& param, Json& out) {
  if (!v.is_object()) {
    return invalid_field(param, format("{} must be an object with role and content", param));
  }
  std::string role = v["role"].as_string();
  if (role == "tool" || role == "function" || v["tool_calls"].size() > 0) {
    return unsupported_field(param,
                             format("{}: tool calls are not supported by this server", param));
  }
  if (role == "developer") role = "system";
  if (role != "system" && role != "user" && role != "assistant") {
    return invalid_field(
        param + ".role",
        format("{}.role must be 'system', 'developer', 'user' or 'assistant', not {}", param,
               v["role"].dump().substr(0, 64)));
  }
  std::string content;
  if (auto error = read_content(v["content"], param + ".content", content)) return error;
  out = Json::object({{"role", std::move(role)}, {"content", std::move(content)}});
  if (v["name"].is_string()) out.set("name", v["name"]);
  return std::nullopt;
}

}  // namespace

ApiCheck read_token_list(const Json& v, std::string_view param, int32_t vocab_size,
                         std::vector<int32_t>& out) {
  if (!v.is_array()) {
    return invalid_field(param, format("{} must be a list of token ids", param));
  }
  out.reserve(v.size());
  for (size_t i = 0; i < v.size(); ++i) {
    if (!v[i].is_int() || v[i].as_int() < 0 || v[i].as_int() >= vocab_size) {
      return invalid_field(
          param, format("{}[{}] must be a token id of this model (0 to {}), not {}", param, i,
                        vocab_size - 1, v[i].dump().substr(0, 64)));
    }
    out.push_back(static_cast<int32_t>(v[i].as_int()));
  }
  return std::nullopt;
}

ApiCheck read_prompts(const Json& v, std::string_view param, const ApiLimits& limits,
                      std::vector<PromptInput>& out) {
  if (v.is_string()) {
    out.emplace_back(v.as_string());
    return std::nullopt;
  }
  if (!v.is_array() || v.size() == 0) {
    return invalid_field(param, format("{} must be a string, a list of token ids, or a list of "
                                       "either, and not empty", param));
  }
  if (v[0].is_number()) {
    auto& tokens = out.emplace_back().emplace<std::vector<int32_t>>();
    return read_token_list(v, param, limits.vocab_size, tokens);
  }
  if (v.size() > static_cast<size_t>(limits.max_prompts)) {
    return invalid_field(param, format("{} has {} entries; at most {} are allowed in one request",
                                       param, v.size(), limits.max_prompts));
  }
  for (size_t i = 0; i < v.size(); ++i) {
    const std::string at = format("{}[{}]", param, i);
    if (v[i].is_string()) {
      out.emplace_back(v[i].as_string());
    } else if (v[i].is_array()) {
      auto& tokens = out.emplace_back().emplace<std::vector<int32_t>>();
      if (auto error = read_token_list(v[i], at, limits.vocab_size, tokens)) return error;
    } else {
      return invalid_field(at, format("{} must be a string or a list of token ids, not {}", at,
                                      v[i].type_name()));
    }
  }
  return std::nullopt;
}

ApiCheck read_messages(const Json& v, Json& out) {
  if (!v.is_array() || v.size() == 0) {
    return invalid_field("messages", "messages must be a list of at least one message");
  }
  out = Json::array();
  for (size_t i = 0; i < v.size(); ++i) {
    Json message;
    if (auto error = read_message(v[i], format("messages[{}]", i), message)) return error;
    out.push(std::move(message));
  }
  return std::nullopt;
}

}  // namespace towline::serve
