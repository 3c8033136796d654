// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ApiError: an error as OpenAI's clients expect it,
//   {"error":{"message":...,"type":...,"param":...,"code":...}}
// with the HTTP status that makes them raise the right exception and retry the right ones.
#pragma once

#include <optional>
#include <string>

#include "base/result.hpp"
#include "serve/http.hpp"

namespace towline::serve {

struct ApiError {
  int status = 400;
  std::string message;  // one sentence: the thing, the value, the remedy
  std::string type = "invalid_request_error";
  std::string param;    // the field at fault; empty prints null
  std::string code;     // machine-readable; empty prints null
  int retry_after = 0;  // seconds; 0: no header
};

// nullopt: all is well.
using ApiCheck = std::optional<ApiError>;

ApiError invalid_field(std::string_view param, std::string message);
ApiError unsupported_field(std::string_view param, std::string message);
// Status from http_status(error.code()), type and code from the same.
ApiError from_error(const Error& error);

std::string error_json(const ApiError& error);
HttpResponse error_response(const ApiError& error);

}  // namespace towline::serve
