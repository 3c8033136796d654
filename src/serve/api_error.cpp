// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/api_error.hpp"

#include "base/json.hpp"

namespace towline::serve {
namespace {

std::string type_of(int status) {
  switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    case 503: return "service_unavailable_error";
    default: return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

Json null_if_empty(const std::string& text) { return text.empty() ? Json() : Json(text); }

}  // namespace

ApiError invalid_field(std::string_view param, std::string message) {
  ApiError error;
  error.message = std::move(message);
  error.param = param;
  error.code = "invalid_value";
  return error;
}

ApiError unsupported_field(std::string_view param, std::string message) {
  ApiError error = invalid_field(param, std::move(message));
  error.code = "unsupported_parameter";
  return error;
}

ApiError from_error(const Error& error) {
  ApiError api;
  api.status = error.code() == Code::kExhausted ? 429 : http_status(error.code());
  api.message = error.to_string();
  api.type = type_of(api.status);
  api.code = code_name(error.code());
  if (api.status == 429 || api.status == 503) api.retry_after = 1;
  return api;
}

std::string error_json(const ApiError& error) {
  return Json::object({{"error", Json::object({{"message", error.message},
                                               {"type", error.type},
                                               {"param", null_if_empty(error.param)},
                                               {"code", null_if_empty(error.code)}})}})
      .dump();
}

HttpResponse error_response(const ApiError& error) {
  HttpResponse response;
  response.status = error.status;
  response.body = error_json(error);
  if (error.retry_after > 0) {
    response.headers.emplace_back("retry-after", std::to_string(error.retry_after));
  }
  if (error.status == 401) response.headers.emplace_back("www-authenticate", "Bearer");
  return response;
}

}  // namespace towline::serve
