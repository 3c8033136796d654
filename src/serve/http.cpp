// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/http.hpp"

#include <algorithm>

#include "base/check.hpp"

namespace towline::serve {
namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool same_name(std::string_view a, std::string_view b) {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(),
                    [](char x, char y) { return lower(x) == lower(y); });
}

}  // namespace

std::string_view HttpRequest::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (same_name(key, name)) return value;
  }
  return {};
}

void HttpExchange::add_header(std::string name, std::string value) {
  extra_headers_.emplace_back(std::move(name), std::move(value));
}

void HttpExchange::respond(HttpResponse response) {
  if (gone_) return;
  CHECK(!started_);
  started_ = true;
  status_ = response.status;
  response.headers.insert(response.headers.end(), extra_headers_.begin(), extra_headers_.end());
  if (const auto connection = connection_.lock(); connection) {
    connection->send(std::move(response));
  }
  finish();
}

void HttpExchange::begin_stream(HttpResponse head) {
  if (gone_) return;
  CHECK(!started_);
  started_ = true;
  status_ = head.status;
  head.headers.insert(head.headers.end(), extra_headers_.begin(), extra_headers_.end());
  if (const auto connection = connection_.lock(); connection) {
    connection->begin_stream(head);
  }
}

void HttpExchange::write(std::string_view bytes) {
  if (gone_) return;
  CHECK(started_ && !ended_);
  if (const auto connection = connection_.lock()) connection->write(bytes);
}

void HttpExchange::end_stream() {
  if (gone_) return;
  CHECK(started_ && !ended_);
  if (const auto connection = connection_.lock()) connection->end_stream();
  finish();
}

void HttpExchange::peer_gone() {
  if (gone_ || ended_) return;
  gone_ = true;
  const auto task = std::move(on_disconnect_);
  on_disconnect_ = nullptr;
  if (task) task();
  finish();
}

void HttpExchange::finish() {
  ended_ = true;
  on_disconnect_ = nullptr;
  const auto task = std::move(on_done_);
  on_done_ = nullptr;
  if (task) task();
}

}  // namespace towline::serve
