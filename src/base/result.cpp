// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "base/result.hpp"

#include <array>

namespace towline {
namespace {

struct CodeRow {
  Code code;
  std::string_view name;
  int http;
  int exit;
};

constexpr std::array<CodeRow, 12> kCodes = {{
    {Code::kInvalidArgument, "invalid_argument", 400, 2},
    {Code::kNotFound, "not_found", 404, 3},
    {Code::kAlreadyExists, "already_exists", 409, 4},
    {Code::kPermissionDenied, "permission_denied", 401, 5},
    {Code::kDataCorrupt, "data_corrupt", 422, 6},
    {Code::kUnsupported, "unsupported", 501, 7},
    {Code::kExhausted, "exhausted", 429, 8},
    {Code::kUnavailable, "unavailable", 503, 9},
    {Code::kDeadline, "deadline", 504, 10},
    {Code::kCancelled, "cancelled", 499, 11},
    {Code::kIo, "io", 507, 12},
    {Code::kInternal, "internal", 500, 1},
}};

const CodeRow& row(Code code) { return kCodes[static_cast<size_t>(code)]; }

}  // namespace

std::string_view code_name(Code code) { return row(code).name; }
int http_status(Code code) { return row(code).http; }
int exit_code(Code code) { return row(code).exit; }

Error&& Error::context(std::string_view where) && {
  std::string& chain = rep_->where;
  chain = chain.empty() ? std::string(where) : std::string(where) + ": " + chain;
  return std::move(*this);
}

std::string Error::to_string() const {
  return rep_->where.empty() ? rep_->message : rep_->where + ": " + rep_->message;
}

}  // namespace towline
