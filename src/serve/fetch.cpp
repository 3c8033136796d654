// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/fetch.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "base/fmt.hpp"
#include "base/loop.hpp"
#include "serve/asio_names.hpp"
#include "serve/http_stream.hpp"

namespace towline::serve {

namespace {

constexpr uint64_t kLongestAnswer = uint64_t{16} << 20;

asio::awaitable<Result<HttpReply>> exchange(asio::io_context& context, const ServerUrl& url,
                                            const HttpCall& call) {
  Result<HostAddresses> addresses = co_await look_up(context, url);
  if (!addresses) co_return std::move(addresses).error();
  HttpStream stream(context, url);
  stream.expires_after(call.patience);
  Result<void> done = co_await stream.open(*addresses);
  if (done) done = co_await stream.send(call.method, call.target, call.body, call.api_key);
  HttpStream::Parser parser;
  parser.body_limit(kLongestAnswer);
  if (done) done = co_await stream.read_head(parser);
  while (done && !parser.is_done()) done = co_await stream.read_some(parser);
  if (!done) co_return std::move(done).error();
  co_return HttpReply{static_cast<int>(parser.get().result_int()), std::move(parser.get().body())};
}

}  // namespace

Result<HttpReply> fetch(const ServerUrl& url, const HttpCall& call) {
  Loop loop;
  Result<HttpReply> reply = Error(Code::kInternal, "not asked");
  asio::co_spawn(
      loop.context(),
      [&]() -> asio::awaitable<void> {
        reply = co_await exchange(loop.context(), url, call);
        loop.stop();
      },
      asio::detached);
  loop.run();
  return std::move(reply).context(url.origin());
}

}  // namespace towline::serve
