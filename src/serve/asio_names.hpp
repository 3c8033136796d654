// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Short names for what serve/ uses of Boost. Only .cpp files include this.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/error_code.hpp>

namespace boost::beast::http {}

namespace towline::serve {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using tcp = asio::ip::tcp;

// Completion token of a co_await that reports its error in `ec` instead of throwing it.
inline auto await_into(error_code& ec) { return asio::redirect_error(asio::use_awaitable, ec); }

}  // namespace towline::serve
