// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/api_request.hpp"

#include <charconv>
#include <cmath>

#include "base/fmt.hpp"
#include "serve/api_prompt.hpp"

namespace towline::serve {
namespace {

constexpr unsigned kChat = 1u << static_cast<int>(ApiKind::kChat);
constexpr unsigned kCompletion = 1u << static_cast<int>(ApiKind::kCompletion);
constexpr unsigned kEmbedding = 1u << static_cast<int>(ApiKind::kEmbedding);
constexpr unsigned kTokenize = 1u << static_cast<int>(ApiKind::kTokenize);
constexpr unsigned kDetokenize = 1u << static_cast<int>(ApiKind::kDetokenize);
constexpr unsigned kGenerate = kChat | kCompletion;
constexpr unsigned kEvery = kGenerate | kEmbedding | kTokenize | kDetokenize;

enum class Kind { kBool, kInt, kNumber, kString, kStruct };

// What may be set, and the bounds to check against.
struct Target {
  ApiRequest& r;
  const ApiLimits& limits;
};

// Called with a value that is not null, has the kind, and lies within the bounds.
using Apply = ApiCheck (*)(const Json& value, const Target& to);

struct Field {
  std::string_view name;
  unsigned routes;
  Kind kind;
  double low, high;         // inclusive; kInt and kNumber
  std::string_view help;
  Apply apply;
  std::string_view schema;  // JSON, for kStruct
};

// For flags and numbers: set and report nothing.
#define SET(statement)                               \
  [](const Json& v, const Target& t) -> ApiCheck {   \
    statement;                                       \
    return std::nullopt;                             \
  }

ApiCheck ignore(const Json&, const Target&) { return std::nullopt; }

bool asks_nothing(const Json& v) {
  if (v.is_bool()) return !v.as_bool();
  if (v.is_number()) return v.as_double() == 0;
  if (v.is_string()) return v.as_string().empty();
  return v.is_null() || v.size() == 0;
}

ApiError not_supported(std::string_view name) {
  return unsupported_field(name,
                           format("'{}' is not supported by this server; leave it out", name));
}

// Fields that would change the answer in a way this server cannot.
#define REFUSED(routes, text)                                                                   \
  Field {                                                                                       \
    text, routes, Kind::kStruct, 0, 0, "Not supported; refused unless empty.",                  \
        [](const Json& v, const Target&) -> ApiCheck {                                          \
          if (asks_nothing(v)) return std::nullopt;                                             \
          return not_supported(text);                                                           \
        },                                                                                      \
        "{}"                                                                                    \
  }
#define IGNORED(text)                                                                           \
  Field { text, kEvery, Kind::kStruct, 0, 0, "Accepted and ignored.", ignore, "{}" }

ApiCheck set_tool_choice(const Json& v, const Target&) {
  if (v.as_string() == "none" || v.as_string() == "auto") return std::nullopt;
  return not_supported("tool_choice");
}

ApiCheck set_response_format(const Json& v, const Target&) {
  if (!v.is_object()) return invalid_field("response_format", "response_format must be an object");
  const std::string& type = v["type"].as_string();
  if (type == "text") return std::nullopt;
  return unsupported_field("response_format",
                           format("response_format of type '{}' is not supported by this server; "
                                  "use {{\"type\":\"text\"}} or leave it out", type));
}

ApiCheck set_modalities(const Json& v, const Target&) {
  for (const Json& item : v.items()) {
    if (item.as_string() != "text") return not_supported("modalities");
  }
  return std::nullopt;
}

ApiCheck set_best_of(const Json& v, const Target&) {
  if (v.is_int() && v.as_int() <= 1) return std::nullopt;
  return unsupported_field("best_of",
                           "'best_of' is not supported by this server; ask for n choices "
                           "with logprobs and choose among them");
}

ApiCheck set_stream_options(const Json& v, const Target& t) {
  if (!v.is_object()) return invalid_field("stream_options", "stream_options must be an object");
  const Json& usage = v["include_usage"];
  if (!usage.is_null() && !usage.is_bool()) {
    return invalid_field("stream_options.include_usage",
                         "stream_options.include_usage must be true or false");
  }
  t.r.include_usage = usage.as_bool();
  return std::nullopt;
}

ApiCheck add_stop(const Json& v, std::string_view param, const Target& t) {
  const auto most = static_cast<size_t>(t.limits.max_stop_bytes);
  if (!v.is_string() || v.as_string().empty() || v.as_string().size() > most) {
    return invalid_field(param, format("{} must be a string of 1 to {} bytes", param, most));
  }
  t.r.stop.push_back(v.as_string());
  return std::nullopt;
}

ApiCheck set_stop(const Json& v, const Target& t) {
  if (!v.is_array()) return add_stop(v, "stop", t);
  if (v.size() > static_cast<size_t>(t.limits.max_stop)) {
    return invalid_field("stop", format("stop has {} strings; at most {} are allowed", v.size(),
                                        t.limits.max_stop));
  }
  for (size_t i = 0; i < v.size(); ++i) {
    if (auto error = add_stop(v[i], format("stop[{}]", i), t)) return error;
  }
  return std::nullopt;
}

ApiCheck set_stop_token_ids(const Json& v, const Target& t) {
  if (!v.is_array() || v.size() > static_cast<size_t>(t.limits.max_stop)) {
    return invalid_field("stop_token_ids",
                         format("stop_token_ids must be a list of at most {} token ids",
                                t.limits.max_stop));
  }
  return read_token_list(v, "stop_token_ids", t.limits.vocab_size, t.r.stop_token_ids);
}

ApiCheck set_logit_bias(const Json& v, const Target& t) {
  if (!v.is_object() || v.size() > static_cast<size_t>(t.limits.max_logit_bias)) {
    return invalid_field("logit_bias", format("logit_bias must be an object of at most {} members, "
                                              "token id to bias", t.limits.max_logit_bias));
  }
  for (const auto& [key, bias] : v.members()) {
    int32_t token = -1;
    const char* end = key.data() + key.size();
    const auto [stop, ec] = std::from_chars(key.data(), end, token);
    if (ec != std::errc() || stop != end || token < 0 || token >= t.limits.vocab_size) {
      return invalid_field("logit_bias", format("logit_bias: '{}' is not a token id of this model "
                                                "(0 to {})", key, t.limits.vocab_size - 1));
    }
    if (!bias.is_number() || !(std::abs(bias.as_double()) <= 100)) {
      return invalid_field("logit_bias",
                           format("logit_bias: the bias of token {} must be a number from -100 to "
                                  "100, not {}", token, bias.dump()));
    }
    t.r.sampling.logit_bias.emplace_back(token, static_cast<float>(bias.as_double()));
  }
  return std::nullopt;
}

ApiCheck set_encoding_format(const Json& v, const Target& t) {
  if (v.as_string() != "float" && v.as_string() != "base64") {
    return invalid_field("encoding_format",
                         format("encoding_format must be 'float' or 'base64', not {}", v.dump()));
  }
  t.r.base64 = v.as_string() == "base64";
  return std::nullopt;
}

ApiCheck set_template_kwargs(const Json& v, const Target& t) {
  if (!v.is_object()) {
    return invalid_field("chat_template_kwargs", "chat_template_kwargs must be an object");
  }
  t.r.template_kwargs = v;
  return std::nullopt;
}

ApiCheck set_messages(const Json& v, const Target& t) { return read_messages(v, t.r.messages); }

ApiCheck read_inputs(const Json& v, std::string_view name, const Target& t) {
  return read_prompts(v, name, t.limits, t.r.prompts);
}

float to_float(const Json& v) { return static_cast<float>(v.as_double()); }

constexpr std::string_view kPromptSchema =
    R"({"oneOf":[{"type":"string"},{"type":"array","items":{"type":"string"}},)"
    R"({"type":"array","items":{"type":"integer"}},)"
    R"({"type":"array","items":{"type":"array","items":{"type":"integer"}}}]})";
constexpr std::string_view kMessagesSchema =
    R"({"type":"array","minItems":1,"items":{"type":"object","required":["role","content"],)"
    R"("properties":{"role":{"type":"string","enum":["system","developer","user","assistant"]},)"
    R"("content":{"oneOf":[{"type":"string"},{"type":"array","items":{"type":"object",)"
    R"("required":["type","text"],"properties":{"type":{"const":"text"},)"
    R"("text":{"type":"string"}}}}]},"name":{"type":"string"}}}})";
constexpr double kMaxTokens = 1 << 24;
constexpr double kInt64 = 9.2e18;

const Field kFields[] = {
    {"model", kEvery, Kind::kString, 0, 0, "Name of the served model; may be left out.",
     SET(t.r.model = v.as_string()), {}},
    {"messages", kChat | kTokenize, Kind::kStruct, 0, 0, "The conversation so far, oldest first.",
     set_messages, kMessagesSchema},
    {"prompt", kCompletion | kTokenize, Kind::kStruct, 0, 0,
     "Text, token ids, or a list of either.",
     [](const Json& v, const Target& t) { return read_inputs(v, "prompt", t); }, kPromptSchema},
    {"input", kEmbedding, Kind::kStruct, 0, 0, "Text, token ids, or a list of either.",
     [](const Json& v, const Target& t) { return read_inputs(v, "input", t); }, kPromptSchema},
    {"tokens", kDetokenize, Kind::kStruct, 0, 0, "Token ids.",
     [](const Json& v, const Target& t) {
       auto& tokens = t.r.prompts.emplace_back().emplace<std::vector<int32_t>>();
       return read_token_list(v, "tokens", t.limits.vocab_size, tokens);
     },
     R"({"type":"array","items":{"type":"integer"}})"},

    {"stream", kGenerate, Kind::kBool, 0, 0, "Send server-sent events as tokens come.",
     SET(t.r.stream = v.as_bool()), {}},
    {"stream_options", kGenerate, Kind::kStruct, 0, 0,
     "include_usage: a last chunk with the token counts.", set_stream_options,
     R"({"type":"object","properties":{"include_usage":{"type":"boolean"}}})"},
    {"max_tokens", kGenerate, Kind::kInt, 0, kMaxTokens,
     "Most tokens of output. Completions: 16 if absent; chat: what the context leaves.",
     SET(if (t.r.max_tokens < 0) t.r.max_tokens = static_cast<int32_t>(v.as_int())), {}},
    {"max_completion_tokens", kChat, Kind::kInt, 0, kMaxTokens,
     "Newer name of max_tokens; wins if both are given.",
     SET(t.r.max_tokens = static_cast<int32_t>(v.as_int())), {}},
    {"n", kGenerate, Kind::kInt, 1, kMaxTokens, "Number of choices for each prompt.",
     SET(t.r.n = static_cast<int32_t>(v.as_int())), {}},
    {"temperature", kGenerate, Kind::kNumber, 0, 2, "Randomness; 0 is greedy. Default 1.",
     SET(t.r.sampling.temperature = to_float(v)), {}},
    {"top_p", kGenerate, Kind::kNumber, 0, 1,
     "Keep the likeliest tokens of this total probability.",
     SET(t.r.sampling.top_p = std::max(to_float(v), 1e-6f)), {}},
    {"top_k", kGenerate, Kind::kInt, -1, kMaxTokens, "Keep this many tokens; 0 or -1: all.",
     SET(t.r.sampling.top_k = static_cast<int32_t>(std::max<int64_t>(v.as_int(), 0))), {}},
    {"min_p", kGenerate, Kind::kNumber, 0, 1,
     "Drop tokens less likely than this share of the likeliest.",
     SET(t.r.sampling.min_p = to_float(v)), {}},
    {"presence_penalty", kGenerate, Kind::kNumber, -2, 2,
     "Subtracted once from tokens in the output.",
     SET(t.r.sampling.presence_penalty = to_float(v)), {}},
    {"frequency_penalty", kGenerate, Kind::kNumber, -2, 2,
     "Subtracted for each time a token is in the output.",
     SET(t.r.sampling.frequency_penalty = to_float(v)), {}},
    {"repetition_penalty", kGenerate, Kind::kNumber, 0.01, 100,
     "Divides (multiplies, if negative) the logits of tokens seen. Default 1.",
     SET(t.r.sampling.repetition_penalty = to_float(v)), {}},
    {"logit_bias", kGenerate, Kind::kStruct, 0, 0, "Token id to a number added to its logit.",
     set_logit_bias,
     R"({"type":"object","additionalProperties":{"type":"number","minimum":-100,"maximum":100}})"},
    {"seed", kGenerate, Kind::kInt, -kInt64, kInt64,
     "Same seed, same request: same answer, whatever else the server does.",
     SET(t.r.seed = v.as_int()), {}},
    {"stop", kGenerate, Kind::kStruct, 0, 0, "Text that ends the answer; not part of it.", set_stop,
     R"({"oneOf":[{"type":"string"},{"type":"array","items":{"type":"string"}}]})"},
    {"stop_token_ids", kGenerate, Kind::kStruct, 0, 0, "Tokens that end the answer.",
     set_stop_token_ids, R"({"type":"array","items":{"type":"integer"}})"},
    {"ignore_eos", kGenerate, Kind::kBool, 0, 0, "Go on after the model's end tokens.",
     SET(t.r.ignore_eos = v.as_bool()), {}},
    {"logprobs", kChat, Kind::kBool, 0, 0, "Report each token's log probability.",
     SET(if (v.as_bool()) t.r.logprobs = std::max(t.r.logprobs, 0)), {}},
    {"top_logprobs", kChat, Kind::kInt, 0, 20, "Alternatives for each token; needs logprobs.",
     SET(t.r.logprobs = static_cast<int32_t>(v.as_int())), {}},
    {"logprobs", kCompletion, Kind::kInt, 0, 20,
     "Report log probabilities with this many alternatives.",
     SET(t.r.logprobs = static_cast<int32_t>(v.as_int())), {}},
    {"echo", kCompletion, Kind::kBool, 0, 0, "Begin the answer with the prompt.",
     SET(t.r.echo = v.as_bool()), {}},
    {"priority", kGenerate, Kind::kInt, -1000000, 1000000, "Lower goes first.",
     SET(t.r.priority = static_cast<int32_t>(v.as_int())), {}},
    {"return_token_ids", kGenerate, Kind::kBool, 0, 0, "Add token_ids and prompt_token_ids.",
     SET(t.r.return_token_ids = v.as_bool()), {}},
    {"add_generation_prompt", kChat | kTokenize, Kind::kBool, 0, 0,
     "Open the assistant's turn. Default true.",
     SET(t.r.add_generation_prompt = v.as_bool()), {}},
    {"chat_template_kwargs", kChat | kTokenize, Kind::kStruct, 0, 0,
     "Extra variables for the chat template.", set_template_kwargs, R"({"type":"object"})"},
    {"add_special_tokens", kCompletion | kTokenize, Kind::kBool, 0, 0,
     "Put BOS in front where the model wants it. Default true.",
     SET(t.r.add_special_tokens = v.as_bool()), {}},
    {"return_token_strs", kTokenize, Kind::kBool, 0, 0, "Add each token's text.",
     SET(t.r.return_token_strs = v.as_bool()), {}},
    {"encoding_format", kEmbedding, Kind::kString, 0, 0, "'float' or 'base64' (little-endian f32).",
     set_encoding_format, {}},
    {"dimensions", kEmbedding, Kind::kInt, 1, kMaxTokens,
     "Must equal the model's width if given.",
     SET(t.r.dimensions = static_cast<int32_t>(v.as_int())), {}},

    {"response_format", kGenerate, Kind::kStruct, 0, 0, "Only {\"type\":\"text\"}.",
     set_response_format, R"({"type":"object"})"},
    {"tool_choice", kChat, Kind::kStruct, 0, 0, "Only 'none' or 'auto'.", set_tool_choice, "{}"},
    {"modalities", kChat, Kind::kStruct, 0, 0, "Only [\"text\"].", set_modalities, "{}"},
    {"best_of", kCompletion, Kind::kStruct, 0, 0, "Not supported; refused above 1.", set_best_of,
     "{}"},
    REFUSED(kChat, "tools"), REFUSED(kChat, "functions"), REFUSED(kChat, "function_call"),
    REFUSED(kChat, "audio"), REFUSED(kChat, "prediction"), REFUSED(kChat, "web_search_options"),
    REFUSED(kCompletion, "suffix"), REFUSED(kGenerate, "min_tokens"),
    REFUSED(kGenerate, "use_beam_search"), REFUSED(kGenerate, "prompt_logprobs"),
    REFUSED(kGenerate, "guided_json"), REFUSED(kGenerate, "guided_regex"),
    REFUSED(kGenerate, "guided_choice"), REFUSED(kGenerate, "guided_grammar"),
    REFUSED(kGenerate, "structured_outputs"), REFUSED(kGenerate, "grammar"),
    REFUSED(kGenerate, "json_schema"), REFUSED(kChat, "chat_template"),
    REFUSED(kChat, "continue_final_message"),
    IGNORED("user"), IGNORED("store"), IGNORED("metadata"), IGNORED("service_tier"),
    IGNORED("safety_identifier"), IGNORED("prompt_cache_key"), IGNORED("prompt_cache_retention"),
    IGNORED("parallel_tool_calls"), IGNORED("reasoning_effort"), IGNORED("verbosity"),
    IGNORED("cache_prompt"), IGNORED("request_id"),
};
#undef SET
#undef REFUSED
#undef IGNORED

const Field* find_field(std::string_view name, unsigned route) {
  for (const Field& field : kFields) {
    if ((field.routes & route) != 0 && field.name == name) return &field;
  }
  return nullptr;
}

bool integral(const Json& v) {
  return v.is_int() || (v.is_double() && v.as_double() == std::floor(v.as_double()) &&
                        std::abs(v.as_double()) < kInt64);
}

ApiCheck check_kind(const Field& field, const Json& v) {
  const auto wrong = [&](const std::string& wanted) {
    std::string shown = v.dump();
    if (shown.size() > 64) shown = format("a value of {} bytes", shown.size());
    return invalid_field(field.name, format("{} must be {}, not {}", field.name, wanted, shown));
  };
  switch (field.kind) {
    case Kind::kBool: return v.is_bool() ? ApiCheck() : wrong("true or false");
    case Kind::kString: return v.is_string() ? ApiCheck() : wrong("a string");
    case Kind::kStruct: return std::nullopt;
    case Kind::kInt:
    case Kind::kNumber: break;
  }
  const bool whole = field.kind == Kind::kInt;
  const bool fits = (whole ? integral(v) : v.is_number()) && v.as_double() >= field.low &&
                    v.as_double() <= field.high;
  if (fits) return std::nullopt;
  return wrong(format("{} from {} to {}", whole ? "a whole number" : "a number", field.low,
                      field.high));
}

ApiError missing(std::string_view name) {
  ApiError error = invalid_field(name, format("'{}' is required", name));
  error.code = "missing_required_parameter";
  return error;
}

// What no single field can check.
ApiCheck check_whole(const Json& body, const ApiLimits& limits, const ApiRequest& r) {
  const bool has_messages = !r.messages.is_null();
  switch (r.kind) {
    case ApiKind::kChat:
      if (!has_messages) return missing("messages");
      break;
    case ApiKind::kCompletion:
      if (r.prompts.empty()) return missing("prompt");
      break;
    case ApiKind::kEmbedding:
      if (r.prompts.empty()) return missing("input");
      break;
    case ApiKind::kTokenize:
      if (r.prompts.empty() && !has_messages) return missing("prompt");
      if (r.prompts.size() > 1 || (has_messages && !r.prompts.empty())) {
        return invalid_field("prompt",
                             "one prompt or one list of messages can be tokenized at once");
      }
      break;
    case ApiKind::kDetokenize:
      if (r.prompts.empty()) return missing("tokens");
      break;
  }
  if (r.n > limits.max_choices) {
    return invalid_field("n", format("n is {}; at most {} choices can be asked for", r.n,
                                     limits.max_choices));
  }
  if (static_cast<int64_t>(r.prompts.size()) * r.n > limits.max_prompts) {
    return invalid_field("prompt", format("{} prompts with {} choices each are more than the {} "
                                          "allowed in one request; send several requests",
                                          r.prompts.size(), r.n, limits.max_prompts));
  }
  if (r.kind == ApiKind::kChat && body["top_logprobs"].as_int() > 0 &&
      !body["logprobs"].as_bool()) {
    return invalid_field("top_logprobs", "top_logprobs needs logprobs: true");
  }
  if (!r.stream && !body["stream_options"].is_null() && r.kind != ApiKind::kEmbedding) {
    return invalid_field("stream_options", "stream_options is allowed only with stream: true");
  }
  return std::nullopt;
}

}  // namespace

ApiCheck parse_api_request(ApiKind kind, const Json& body, const ApiLimits& limits,
                           ApiRequest& out) {
  out = ApiRequest{};
  out.kind = kind;
  if (!body.is_object()) {
    ApiError error = invalid_field("", format("the body must be a JSON object, not {} {}",
                                              body.is_array() ? "an" : "a", body.type_name()));
    return error;
  }
  const unsigned route = 1u << static_cast<int>(kind);
  const Target target{out, limits};
  for (const auto& [name, value] : body.members()) {
    if (value.is_null()) continue;
    const Field* field = find_field(name, route);
    if (field == nullptr) {
      if (!limits.strict_fields) continue;
      const std::string shown = name.substr(0, 64);
      ApiError error =
          invalid_field(shown, format("'{}' is not a field of this request", shown));
      error.code = "unknown_parameter";
      return error;
    }
    if (auto error = check_kind(*field, value)) return error;
    if (auto error = field->apply(value, target)) return error;
  }
  if (kind == ApiKind::kChat && !body["logprobs"].as_bool()) out.logprobs = -1;
  return check_whole(body, limits, out);
}

Json request_schema(ApiKind kind) {
  const unsigned route = 1u << static_cast<int>(kind);
  Json properties = Json::object();
  for (const Field& field : kFields) {
    if ((field.routes & route) == 0) continue;
    Json schema = Json::object();
    switch (field.kind) {
      case Kind::kBool: schema.set("type", "boolean"); break;
      case Kind::kString: schema.set("type", "string"); break;
      case Kind::kInt: schema.set("type", "integer"); break;
      case Kind::kNumber: schema.set("type", "number"); break;
      case Kind::kStruct:
        schema = parse_json(field.schema, "schema").value_or(Json::object());
        break;
    }
    if (field.kind == Kind::kInt || field.kind == Kind::kNumber) {
      if (std::abs(field.low) < kMaxTokens) schema.set("minimum", field.low);
      if (std::abs(field.high) < kMaxTokens) schema.set("maximum", field.high);
    }
    schema.set("description", field.help);
    properties.set(field.name, std::move(schema));
  }
  Json required = Json::array();
  if (kind == ApiKind::kChat) required.push("messages");
  if (kind == ApiKind::kCompletion) required.push("prompt");
  if (kind == ApiKind::kEmbedding) required.push("input");
  if (kind == ApiKind::kDetokenize) required.push("tokens");
  Json schema = Json::object({{"type", "object"}, {"properties", std::move(properties)}});
  if (required.size() > 0) schema.set("required", std::move(required));
  return schema;
}

}  // namespace towline::serve
