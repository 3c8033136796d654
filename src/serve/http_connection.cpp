// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/status.hpp>
#include <boost/beast/http/string_body.hpp>

#include "base/fmt.hpp"
#include "base/log.hpp"
#include "serve/asio_names.hpp"
#include "serve/http_server_state.hpp"

namespace towline::serve {

using TlsStream = asio::ssl::stream<tcp::socket>;

namespace {

constexpr size_t kReadAhead = 64 << 10;     // bytes of later requests kept while answering
constexpr int64_t kLingerBytes = 64 << 20;  // discarded after an error answer, so that it arrives
constexpr size_t kWriteProgress = 4 << 10;  // bytes in write_timeout that a reader must take
constexpr Duration kLingerTime = seconds(5);

struct Failure {
  int status = 0;
  std::string why;
};

// What to answer to a request that could not be read; nullopt: the peer is simply gone.
std::optional<Failure> read_failure(const error_code& ec, const HttpServerOptions& limits) {
  if (ec == http::error::header_limit) {
    return Failure{431, format("the request's header is longer than {} bytes",
                               limits.max_header_bytes)};
  }
  if (ec == http::error::body_limit) {
    return Failure{413, format("the request's body is longer than {} bytes",
                               limits.max_body_bytes)};
  }
  if (ec == http::error::buffer_overflow) return Failure{431, "the request's header is too long"};
  if (ec == http::error::end_of_stream || ec == http::error::partial_message) return std::nullopt;
  if (ec.category() == http::make_error_code(http::error::bad_value).category()) {
    return Failure{400, format("the request is not valid HTTP/1.1: {}", ec.message())};
  }
  return std::nullopt;
}

HttpRequest to_request(http::request<http::string_body>&& message, std::string peer) {
  HttpRequest request;
  request.method = std::string(message.method_string());
  const std::string target(message.target());
  const size_t mark = target.find('?');
  request.path = target.substr(0, mark);
  if (mark != std::string::npos) request.query = target.substr(mark + 1);
  for (const auto& field : message) {
    request.headers.emplace_back(std::string(field.name_string()), std::string(field.value()));
  }
  request.body = std::move(message.body());
  request.peer = std::move(peer);
  return request;
}

template <class Stream>
class StreamConnection final : public Connection,
                               public std::enable_shared_from_this<StreamConnection<Stream>> {
 public:
  using Server = std::shared_ptr<HttpServer::State>;

  template <class... Args>
  StreamConnection(HttpServer::State& server, Args&&... args)
      : server_(server.weak_from_this()), loop_(server.loop), options_(server.options),
        stream_(std::forward<Args>(args)...), slot_(server.loop.context()) {
    error_code ec;
    const auto remote = socket().remote_endpoint(ec);
    if (!ec) peer_ = format("{}:{}", remote.address().to_string(), remote.port());
    socket().set_option(tcp::no_delay(true), ec);
  }

  void start() override {
    read_deadline_ = loop_.now() + options_.idle_timeout;
    asio::co_spawn(
        loop_.context(), [self = this->shared_from_this()] { return self->read_loop(); },
        asio::detached);
  }

  // HttpConnection: the answer of the current exchange.

  void send(HttpResponse response) override {
    const bool head_only = head_request_;
    append_http_head(out_, response, http10_, close_after_);
    out_ += format("content-length: {}\r\n\r\n", response.body.size());
    if (!head_only) out_ += response.body;
    answer_complete_ = true;
    flush();
  }

  void begin_stream(const HttpResponse& head) override {
    // HTTP/1.0 has no chunks: the body ends where the connection does.
    chunked_ = !http10_;
    if (!chunked_) close_after_ = true;
    append_http_head(out_, head, http10_, close_after_);
    out_ += chunked_ ? "transfer-encoding: chunked\r\n\r\n" : "\r\n";
    streaming_ = true;
    sse_ = head.content_type.starts_with("text/event-stream");
    last_write_ = loop_.now();
    flush();
  }

  void write(std::string_view bytes) override {
    if (bytes.empty() || head_request_ || cutting_) return;
    append_chunk(bytes);
    last_write_ = loop_.now();
    flush();
    if (static_cast<int64_t>(unsent()) > options_.max_unsent_bytes) {
      return cut_slow_reader("further behind than one stream may be");
    }
    const Server server = server_.lock();
    if (server && server->stats.unsent_bytes > options_.max_unsent_bytes_total) {
      server->cut_furthest_behind();
    }
  }

  void end_stream() override {
    if (chunked_ && !head_request_) out_ += "0\r\n\r\n";
    streaming_ = false;
    answer_complete_ = true;
    flush();
  }

  // The server's side.

  void sweep(Instant now) override {
    if (write_deadline_ <= now) return cut_slow_reader("takes next to nothing");
    if (read_deadline_ <= now) {
      if (const Server server = server_.lock()) ++server->stats.timed_out;
      return cut();
    }
    if (streaming_ && sse_ && !writing_ && now >= last_write_ + options_.sse_comment_after) {
      write(": keep-alive\n\n");
    }
  }

  void forgive(Duration time) override {
    if (read_deadline_ != kNever) read_deadline_ = read_deadline_ + time;
    if (write_deadline_ != kNever) write_deadline_ = write_deadline_ + time;
  }

  void drain() override {
    close_after_ = true;
    // One that has not asked anything yet is about to: it shall get its answer.
    const bool idle = served_ && !current_ && !pending_ && !writing_ && buffer_.size() == 0 &&
                      !reading_request_;
    if (idle) cut();
  }

  // One that is being cut holds nothing any more: the next to be cut is another.
  size_t unsent() const override {
    return cutting_ ? 0 : out_.size() + sending_.size() - sent_;
  }

  void cut_slow_reader(std::string_view why) override {
    if (cut_ || cutting_) return;
    if (const Server server = server_.lock()) ++server->stats.slow_readers_cut;
    log_info("http", "cut a reader that is too slow",
             {{"peer", peer_}, {"why", why}, {"unsent", unsent()}});
    cutting_ = true;
    // Not at once: the caller may be in the middle of writing to this very exchange.
    out_.clear();
    count_unsent();
    loop_.post([self = this->shared_from_this()] { self->cut(); });
  }

  void cut() override {
    if (cut_) return;
    cut_ = true;
    error_code ignored;
    socket().close(ignored);
    slot_.cancel();
    release();
  }

 private:
  static constexpr bool kTls = std::is_same_v<Stream, TlsStream>;
  struct Pending {
    HttpRequest request;
    bool close, http10;
    int64_t reserved;
  };

  tcp::socket& socket() {
    if constexpr (kTls) {
      return stream_.next_layer();
    } else {
      return stream_;
    }
  }

  void append_chunk(std::string_view bytes) {
    if (chunked_) out_ += format("{:x}\r\n", bytes.size());
    out_ += bytes;
    if (chunked_) out_ += "\r\n";
  }

  // --- reading -------------------------------------------------------------------------------

  asio::awaitable<void> read_loop() {
    const auto self = this->shared_from_this();
    error_code ec;
    if constexpr (kTls) {
      read_deadline_ = loop_.now() + options_.handshake_timeout;
      co_await stream_.async_handshake(asio::ssl::stream_base::server, await_into(ec));
      if (ec) {
        cut();
        co_return;
      }
      read_deadline_ = loop_.now() + options_.idle_timeout;
    }
    while (!cut_ && !peer_closed_) {
      if (pending_) {
        co_await watch();
      } else if (!co_await read_request()) {
        break;
      }
    }
  }

  // One request is being answered and the next is read already: only notice the peer leaving.
  asio::awaitable<void> watch() {
    error_code ec;
    if (buffer_.size() >= kReadAhead) {
      slot_.expires_at(asio::steady_timer::time_point::max());
      co_await slot_.async_wait(await_into(ec));
      co_return;
    }
    watching_ = true;
    const size_t n = co_await stream_.async_read_some(buffer_.prepare(4096), await_into(ec));
    watching_ = false;
    buffer_.commit(n);
    if (ec == asio::error::operation_aborted || lingering_ || cut_) co_return;
    if (ec) on_peer_closed();
  }

  // False when there will be no further request.
  asio::awaitable<bool> read_request() {
    error_code ec;
    http::request_parser<http::string_body> parser;
    parser.header_limit(static_cast<uint32_t>(options_.max_header_bytes));
    parser.body_limit(static_cast<uint64_t>(options_.max_body_bytes));
    co_await http::async_read_header(stream_, buffer_, parser, await_into(ec));
    if (ec) co_return refuse(ec);
    const http::request<http::string_body>& head = parser.get();
    if (head.version() != 11 && head.version() != 10) {
      co_return refuse(Failure{505, format("HTTP version {}.{} is not supported; use HTTP/1.1",
                                           head.version() / 10, head.version() % 10)});
    }
    reading_request_ = true;
    read_deadline_ = loop_.now() + options_.body_timeout;
    const uint64_t declared = parser.content_length().value_or(
        parser.chunked() ? static_cast<uint64_t>(options_.max_body_bytes) : 0);
    if (!reserve(static_cast<int64_t>(declared))) {
      co_return refuse(Failure{503, "too many request bodies are being read; try again"});
    }
    if (beast::iequals(head[http::field::expect], "100-continue")) {
      while (current_ && !cut_) {
        slot_.expires_at(asio::steady_timer::time_point::max());
        co_await slot_.async_wait(await_into(ec));
      }
      out_ += "HTTP/1.1 100 Continue\r\n\r\n";
      flush();
    }
    co_await http::async_read(stream_, buffer_, parser, await_into(ec));
    reading_request_ = false;
    if (ec) co_return refuse(ec);
    read_deadline_ = kNever;
    const bool http10 = parser.get().version() == 10;
    const bool close = !parser.keep_alive();
    Pending next{to_request(parser.release(), peer_), close, http10,
                 std::exchange(reading_reserved_, 0)};
    if (current_) {
      pending_ = std::move(next);
    } else {
      dispatch(std::move(next));
    }
    co_return !cut_;
  }

  bool reserve(int64_t bytes) {
    const Server server = server_.lock();
    if (!server || server->body_bytes + bytes > options_.max_body_bytes_total) return false;
    server->body_bytes += bytes;
    reading_reserved_ = bytes;
    return true;
  }

  void unreserve(int64_t bytes) {
    if (const Server server = server_.lock()) server->body_bytes -= bytes;
  }

  void dispatch(Pending next) {
    served_ = true;
    head_request_ = next.request.method == "HEAD";
    http10_ = next.http10;
    const Server server = server_.lock();
    close_after_ = close_after_ || next.close || !server || server->draining;
    answer_complete_ = false;
    current_reserved_ = next.reserved;
    current_ = std::make_shared<HttpExchange>(std::move(next.request), this->weak_from_this());
    if (server) server->handler(current_);
  }

  bool refuse(const error_code& ec) {
    if (lingering_ || cut_) return false;
    reading_request_ = false;
    const std::optional<Failure> failure = read_failure(ec, options_);
    if (failure) return refuse(*failure);
    on_peer_closed();
    return false;
  }

  // Answers what never became a request, after the answers still due, and closes.
  bool refuse(const Failure& failure) {
    reading_request_ = false;
    close_after_ = true;
    refusal_ = failure;
    read_deadline_ = kNever;
    if (const Server server = server_.lock()) ++server->stats.bad_requests;
    if (!current_) send_refusal();
    return false;
  }

  void send_refusal() {
    const Server server = server_.lock();
    const Failure failure = *std::exchange(refusal_, std::nullopt);
    if (!server) return cut();
    log_info("http", "refused", {{"peer", peer_}, {"status", failure.status},
                                 {"why", failure.why}});
    http10_ = head_request_ = false;
    send(server->bad_request(failure.status, failure.why));
  }

  void on_peer_closed() {
    peer_closed_ = true;
    read_deadline_ = kNever;
    close_after_ = true;
    pending_.reset();
    // Whatever is complete already is still sent: a client may close its sending half early.
    if (current_ && !answer_complete_) return cut();
    if (!writing_ && out_.empty()) cut();
  }

  // --- writing -------------------------------------------------------------------------------

  void flush() {
    if (cut_ || cutting_) return;
    count_unsent();
    if (writing_) return;
    if (out_.empty()) {
      write_deadline_ = kNever;
      return after_flush();
    }
    sending_.swap(out_);
    sent_ = 0;
    writing_ = true;
    // A deadline that runs already goes on: a reader that takes a byte now and then is too slow.
    if (write_deadline_ == kNever) extend_write_deadline();
    send_some();
  }

  void extend_write_deadline() {
    write_deadline_ = loop_.now() + options_.write_timeout;
    progress_ = 0;
  }

  void count_unsent() {
    const auto bytes = static_cast<int64_t>(unsent());
    const int64_t more = bytes - std::exchange(counted_unsent_, bytes);
    if (more == 0) return;
    if (const Server server = server_.lock()) server->stats.unsent_bytes += more;
  }

  void send_some() {
    stream_.async_write_some(asio::buffer(sending_.data() + sent_, sending_.size() - sent_),
                             [self = this->shared_from_this()](const error_code& ec, size_t n) {
                               self->on_sent(ec, n);
                             });
  }

  void on_sent(const error_code& ec, size_t n) {
    if (cut_ || cutting_) return;
    if (ec) return cut();
    sent_ += n;
    if ((progress_ += n) >= kWriteProgress) extend_write_deadline();
    if (sent_ < sending_.size()) {
      count_unsent();
      return send_some();
    }
    sending_.clear();
    sent_ = 0;
    if (sending_.capacity() > (64 << 10)) sending_.shrink_to_fit();
    writing_ = false;
    flush();
  }

  // Everything queued has been handed to the system.
  void after_flush() {
    if (!answer_complete_) return;
    answer_complete_ = false;
    unreserve(std::exchange(current_reserved_, 0));
    current_.reset();
    if (pending_) {
      Pending next = *std::exchange(pending_, std::nullopt);
      slot_.cancel();
      // The reader waits for new bytes, but the request after this one may be here already.
      // Nothing is being written at this moment, so this ends the read alone.
      error_code ignored;
      if (watching_) socket().cancel(ignored);
      return dispatch(std::move(next));
    }
    slot_.cancel();
    if (refusal_) return send_refusal();
    if (close_after_) return linger();
    if (!reading_request_) read_deadline_ = loop_.now() + options_.idle_timeout;
  }

  // Closes so that the peer still receives what was sent: says goodbye, then discards what it is
  // sending until it closes too. Closing with unread input would reset the connection.
  void linger() {
    if (lingering_) return;
    lingering_ = true;
    if (peer_closed_) return cut();
    read_deadline_ = loop_.now() + kLingerTime;
    asio::co_spawn(
        loop_.context(), [self = this->shared_from_this()] { return self->linger_loop(); },
        asio::detached);
  }

  asio::awaitable<void> linger_loop() {
    const auto self = this->shared_from_this();
    error_code ec;
    socket().cancel(ec);  // the reader's pending read
    if constexpr (kTls) {
      // Without close_notify the peer could not tell a whole answer from a cut one.
      co_await stream_.async_shutdown(await_into(ec));
      if (cut_) co_return;
    }
    socket().shutdown(tcp::socket::shutdown_send, ec);
    std::vector<char> discard(16 << 10);
    for (int64_t total = 0; !ec && !cut_ && total < kLingerBytes;) {
      total += static_cast<int64_t>(
          co_await socket().async_read_some(asio::buffer(discard), await_into(ec)));
    }
    cut();
  }

  void release() {
    read_deadline_ = write_deadline_ = kNever;
    streaming_ = false;
    if (const Server server = server_.lock()) {
      server->stats.unsent_bytes -= std::exchange(counted_unsent_, 0);
    }
    unreserve(std::exchange(current_reserved_, 0) + std::exchange(reading_reserved_, 0) +
              (pending_ ? pending_->reserved : 0));
    pending_.reset();
    if (const auto exchange = std::exchange(current_, nullptr)) exchange->peer_gone();
    if (const Server server = server_.lock()) server->remove(this->shared_from_this());
  }

  const std::weak_ptr<HttpServer::State> server_;
  Loop& loop_;
  const HttpServerOptions& options_;
  Stream stream_;
  std::string peer_;
  beast::flat_buffer buffer_;
  asio::steady_timer slot_;  // wakes a reader that stopped because it was far enough ahead

  std::shared_ptr<HttpExchange> current_;
  std::optional<Pending> pending_;
  std::optional<Failure> refusal_;
  int64_t reading_reserved_ = 0, current_reserved_ = 0;

  std::string out_;      // queued
  std::string sending_;  // being written
  size_t sent_ = 0;
  size_t progress_ = 0;         // bytes taken since write_deadline_ was set
  int64_t counted_unsent_ = 0;  // our part of the server's unsent_bytes
  Instant read_deadline_ = kNever, write_deadline_ = kNever, last_write_{};
  bool writing_ = false, streaming_ = false, sse_ = false, chunked_ = false;
  bool answer_complete_ = false, close_after_ = false, http10_ = false, head_request_ = false;
  bool reading_request_ = false, watching_ = false, peer_closed_ = false, lingering_ = false;
  bool served_ = false, cut_ = false, cutting_ = false;
};

}  // namespace

void append_http_head(std::string& out, const HttpResponse& response, bool http10, bool close) {
  const auto reason = http::obsolete_reason(static_cast<http::status>(response.status));
  out +=
      format("HTTP/1.1 {} {}\r\n", response.status, std::string_view(reason.data(), reason.size()));
  if (!response.content_type.empty()) out += format("content-type: {}\r\n", response.content_type);
  for (const auto& [name, value] : response.headers) out += format("{}: {}\r\n", name, value);
  if (close) {
    out += "connection: close\r\n";
  } else if (http10) {
    out += "connection: keep-alive\r\n";
  }
}

std::shared_ptr<Connection> make_connection(HttpServer::State& server, tcp::socket socket) {
  if (server.tls) {
    return std::make_shared<StreamConnection<TlsStream>>(server, std::move(socket), *server.tls);
  }
  return std::make_shared<StreamConnection<tcp::socket>>(server, std::move(socket));
}

}  // namespace towline::serve
