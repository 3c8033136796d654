// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The one table of routes: dispatch, keys, metrics labels, /openapi.json and docs/api.md follow it.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/json.hpp"
#include "serve/api_request.hpp"

namespace towline::serve {

enum class RouteId {
  kLoadAdapter, kUnloadAdapter,
  kHealth, kLive, kReady, kModels, kModel, kChat, kCompletions, kEmbeddings, kTokenize, kDetokenize,
  kVersion, kMetrics, kOpenApi, kRequest, kCluster, kDrainNode, kCallNodes,
};

struct Route {
  RouteId id;
  std::string_view method;
  std::string_view path;       // a last segment "{id}" matches the rest
  bool probe;                  // open without a key
  std::optional<ApiKind> body; // takes a JSON body of this kind
  std::string_view summary;
  std::string_view answer;     // name of the answer's schema (openapi.cpp); empty: plain text
};

std::span<const Route> routes();

struct RouteMatch {
  const Route* route = nullptr;   // null: no such path
  bool wrong_method = false;      // `route` is the path's, for another method
  std::string_view rest;          // what "{id}" matched
};
RouteMatch find_route(std::string_view method, std::string_view path);

// The OpenAPI 3.1 description of the server.
Json openapi_document(std::string_view version);

}  // namespace towline::serve
