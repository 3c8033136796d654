// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "base/fmt.hpp"
#include "serve/routes.hpp"

namespace towline::serve {
namespace {

Json schema_ref(std::string_view schema) {
  return Json::object({{"$ref", format("#/components/schemas/{}", schema)}});
}

Json content(std::string_view media, Json schema) {
  return Json::object({{std::string(media), Json::object({{"schema", std::move(schema)}})}});
}

std::string request_name(ApiKind kind) {
  switch (kind) {
    case ApiKind::kChat: return "ChatCompletionRequest";
    case ApiKind::kCompletion: return "CompletionRequest";
    case ApiKind::kEmbedding: return "EmbeddingRequest";
    case ApiKind::kTokenize: return "TokenizeRequest";
    case ApiKind::kDetokenize: return "DetokenizeRequest";
  }
  return {};
}

// The answers' schemas, as JSON text: they are fixed, unlike the requests', which follow the table.
constexpr std::string_view kAnswers = R"json({
  "Object": {"type": "object"},
  "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "object",
    "required": ["message", "type", "param", "code"], "properties": {
      "message": {"type": "string"}, "type": {"type": "string"},
      "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]}}}}},
  "Health": {"type": "object", "required": ["status"],
    "properties": {"status": {"type": "string", "enum": ["live", "ready", "draining", "asleep", "waiting for nodes"]}}},
  "Version": {"type": "object", "required": ["version"],
    "properties": {"version": {"type": "string"}}},
  "Model": {"type": "object", "required": ["id", "object", "created", "owned_by"], "properties": {
    "id": {"type": "string"}, "object": {"const": "model"}, "created": {"type": "integer"},
    "owned_by": {"type": "string"}, "max_model_len": {"type": "integer"}}},
  "ModelList": {"type": "object", "required": ["object", "data"], "properties": {
    "object": {"const": "list"},
    "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}}}},
  "Usage": {"type": "object", "required": ["prompt_tokens", "completion_tokens", "total_tokens"],
    "properties": {"prompt_tokens": {"type": "integer"}, "completion_tokens": {"type": "integer"},
      "total_tokens": {"type": "integer"}, "prompt_tokens_details": {"type": "object",
        "properties": {"cached_tokens": {"type": "integer"}}}}},
  "TokenLogprob": {"type": "object", "required": ["token", "logprob", "bytes"], "properties": {
    "token": {"type": "string"}, "logprob": {"type": "number"},
    "bytes": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
    "top_logprobs": {"type": "array", "items": {"$ref": "#/components/schemas/TokenLogprob"}}}},
  "ChatCompletion": {"type": "object",
    "required": ["id", "object", "created", "model", "choices", "usage"], "properties": {
      "id": {"type": "string"}, "object": {"const": "chat.completion"},
      "created": {"type": "integer"}, "model": {"type": "string"},
      "system_fingerprint": {"type": "string"},
      "choices": {"type": "array", "items": {"type": "object",
        "required": ["index", "message", "logprobs", "finish_reason"], "properties": {
          "index": {"type": "integer"},
          "message": {"type": "object", "required": ["role", "content"], "properties": {
            "role": {"const": "assistant"}, "content": {"type": "string"},
            "refusal": {"type": "null"}}},
          "logprobs": {"type": ["object", "null"], "properties": {
            "content": {"type": "array", "items": {"$ref": "#/components/schemas/TokenLogprob"}}}},
          "finish_reason": {"type": "string", "enum": ["stop", "length"]},
          "token_ids": {"type": "array", "items": {"type": "integer"}},
          "prompt_token_ids": {"type": "array", "items": {"type": "integer"}}}}},
      "usage": {"$ref": "#/components/schemas/Usage"}}},
  "Completion": {"type": "object",
    "required": ["id", "object", "created", "model", "choices", "usage"], "properties": {
      "id": {"type": "string"}, "object": {"const": "text_completion"},
      "created": {"type": "integer"}, "model": {"type": "string"},
      "system_fingerprint": {"type": "string"},
      "choices": {"type": "array", "items": {"type": "object",
        "required": ["index", "text", "logprobs", "finish_reason"], "properties": {
          "index": {"type": "integer"}, "text": {"type": "string"},
          "logprobs": {"type": ["object", "null"], "properties": {
            "tokens": {"type": "array", "items": {"type": "string"}},
            "token_logprobs": {"type": "array", "items": {"type": ["number", "null"]}},
            "top_logprobs": {"type": ["array", "null"], "items": {"type": ["object", "null"]}},
            "text_offset": {"type": "array", "items": {"type": "integer"}}}},
          "finish_reason": {"type": "string", "enum": ["stop", "length"]},
          "token_ids": {"type": "array", "items": {"type": "integer"}},
          "prompt_token_ids": {"type": "array", "items": {"type": "integer"}}}}},
      "usage": {"$ref": "#/components/schemas/Usage"}}},
  "EmbeddingList": {"type": "object", "required": ["object", "data", "model", "usage"],
    "properties": {"object": {"const": "list"}, "model": {"type": "string"},
      "data": {"type": "array", "items": {"type": "object",
        "required": ["object", "index", "embedding"], "properties": {
          "object": {"const": "embedding"}, "index": {"type": "integer"},
          "embedding": {"oneOf": [{"type": "string"},
                                  {"type": "array", "items": {"type": "number"}}]}}}},
      "usage": {"type": "object", "properties": {"prompt_tokens": {"type": "integer"},
                                                 "total_tokens": {"type": "integer"}}}}},
  "Tokens": {"type": "object", "required": ["count", "max_model_len", "tokens"], "properties": {
    "count": {"type": "integer"}, "max_model_len": {"type": "integer"},
    "tokens": {"type": "array", "items": {"type": "integer"}},
    "token_strs": {"type": ["array", "null"], "items": {"type": "string"}}}},
  "Text": {"type": "object", "required": ["prompt"], "properties": {"prompt": {"type": "string"}}}
})json";

Json operation(const Route& route) {
  Json op = Json::object({{"summary", route.summary}});
  std::string id(route.method == "GET" ? "get" : "post");
  for (const char c : route.path) id += c == '/' || c == '{' || c == '}' || c == '.' ? '_' : c;
  op.set("operationId", id);
  if (route.path.ends_with("{id}")) {
    op.set("parameters",
           Json::array({Json::object({{"name", "id"},
                                      {"in", "path"},
                                      {"required", true},
                                      {"schema", Json::object({{"type", "string"}})}})}));
  }
  if (route.body) {
    op.set("requestBody",
           Json::object(
               {{"required", true},
                {"content", content("application/json", schema_ref(request_name(*route.body)))}}));
  }
  Json ok = Json::object({{"description", "Success."}});
  if (route.answer.empty()) {
    ok.set("content", content("text/plain", Json::object({{"type", "string"}})));
  } else {
    Json media = content("application/json", schema_ref(route.answer));
    const bool streams = route.id == RouteId::kChat || route.id == RouteId::kCompletions;
    if (streams) {
      media.set("text/event-stream",
                Json::object({{"schema", Json::object({{"type", "string"}})}}));
    }
    ok.set("content", std::move(media));
  }
  const Json failed = Json::object({{"description", "An error."},
                                    {"content", content("application/json", schema_ref("Error"))}});
  op.set("responses", Json::object({{"200", std::move(ok)}, {"default", failed}}));
  if (route.probe) op.set("security", Json::array());
  return op;
}

}  // namespace

Json openapi_document(std::string_view version) {
  Json paths = Json::object();
  Json schemas = parse_json(kAnswers, "answer schemas").value_or(Json::object());
  for (const Route& route : routes()) {
    Json item = paths[route.path];
    item.set(route.method == "GET" ? "get" : "post", operation(route));
    paths.set(route.path, std::move(item));
    if (route.body) schemas.set(request_name(*route.body), request_schema(*route.body));
  }
  const Json bearer = Json::object({{"type", "http"}, {"scheme", "bearer"}});
  const Json header =
      Json::object({{"type", "apiKey"}, {"in", "header"}, {"name", "x-api-key"}});
  return Json::object(
      {{"openapi", "3.1.0"},
       {"info", Json::object({{"title", "Towline"},
                              {"version", version},
                              {"description", "An OpenAI-compatible API for language models."}})},
       {"paths", std::move(paths)},
       {"components", Json::object({{"schemas", std::move(schemas)},
                                    {"securitySchemes", Json::object({{"bearer", bearer},
                                                                      {"apiKey", header}})}})},
       {"security", Json::array({Json::object(), Json::object({{"bearer", Json::array()}}),
                                 Json::object({{"apiKey", Json::array()}})})}});
}

}  // namespace towline::serve
