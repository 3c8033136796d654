// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/routes.hpp"

namespace towline::serve {
namespace {

constexpr Route kRoutes[] = {
    {RouteId::kHealth, "GET", "/health", true, {}, "200 while the process serves.", ""},
    {RouteId::kLive, "GET", "/health/live", true, {}, "200 while the process lives.", "Health"},
    {RouteId::kReady, "GET", "/health/ready", true, {}, "200 when requests are welcome, else 503.",
     "Health"},
    {RouteId::kModels, "GET", "/v1/models", false, {}, "The served models.", "ModelList"},
    {RouteId::kModel, "GET", "/v1/models/{id}", false, {}, "One served model.", "Model"},
    {RouteId::kChat, "POST", "/v1/chat/completions", false, ApiKind::kChat,
     "Answer a conversation.", "ChatCompletion"},
    {RouteId::kCompletions, "POST", "/v1/completions", false, ApiKind::kCompletion,
     "Continue a text.", "Completion"},
    {RouteId::kEmbeddings, "POST", "/v1/embeddings", false, ApiKind::kEmbedding,
     "Embed texts as vectors.", "EmbeddingList"},
    {RouteId::kTokenize, "POST", "/tokenize", false, ApiKind::kTokenize, "Tokens of a text.",
     "Tokens"},
    {RouteId::kDetokenize, "POST", "/detokenize", false, ApiKind::kDetokenize, "Text of tokens.",
     "Text"},
    {RouteId::kRequest, "GET", "/v1/requests/{id}", false, {},
     "What became of a recent answer: its way through the cluster, times, recoveries.", "Object"},
    {RouteId::kCluster, "GET", "/cluster", false, {},
     "Nodes of the cluster: epochs, layers, KV use, planned and achieved flow.", "Object"},
    {RouteId::kDrainNode, "POST", "/cluster/drain/{id}", false, {},
     "No new requests through this node.", "Object"},
    {RouteId::kCallNodes, "POST", "/cluster/call/{id}", false, {},
     "A collective call to all ranks of all nodes, by name; the body has its arguments.", "Object"},
    {RouteId::kVersion, "GET", "/version", false, {}, "Version of the server.", "Version"},
    {RouteId::kMetrics, "GET", "/metrics", false, {}, "Metrics as Prometheus text.", ""},
    {RouteId::kOpenApi, "GET", "/openapi.json", false, {}, "This description.", "Object"},
    {RouteId::kLoadAdapter, "POST", "/v1/load_lora_adapter", false, {},
     "Load a LoRA adapter: {\"lora_name\", \"lora_path\"}; needs --lora-updates.", ""},
    {RouteId::kUnloadAdapter, "POST", "/v1/unload_lora_adapter", false, {},
     "Unload a LoRA adapter: {\"lora_name\"}; needs --lora-updates.", ""},
};

bool matches(const Route& route, std::string_view path, std::string_view& rest) {
  const size_t brace = route.path.find('{');
  if (brace == std::string_view::npos) return route.path == path;
  if (!path.starts_with(route.path.substr(0, brace)) || path.size() == brace) return false;
  rest = path.substr(brace);
  return true;
}

}  // namespace

std::span<const Route> routes() { return kRoutes; }

RouteMatch find_route(std::string_view method, std::string_view path) {
  if (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  RouteMatch match;
  for (const Route& route : kRoutes) {
    std::string_view rest;
    if (!matches(route, path, rest)) continue;
    match.route = &route;
    match.rest = rest;
    match.wrong_method = route.method != method && !(method == "HEAD" && route.method == "GET");
    if (!match.wrong_method) break;
  }
  return match;
}

}  // namespace towline::serve
