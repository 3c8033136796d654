// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The HTTP layer over real sockets: framing, limits, hostile and slow peers.
#include "serve/http_server.hpp"

#include <openssl/ssl.h>

#include "serve/test_certificate.hpp"
#include "serve/test_server.hpp"

namespace towline::serve {
namespace {

constexpr const char* kShort = R"({"prompt":"hi","max_tokens":5})";

TEST(HttpServer, KeepsAConnectionAlive) {
  TestServer server;
  Client client = server.client();
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(client.get("/health/live").json()["status"].as_string(), "live");
    EXPECT_EQ(client.post("/v1/completions", kShort).status, 200);
  }
}

TEST(HttpServer, ClosesWhenAsked) {
  TestServer server;
  Client client = server.client();
  const Answer answer = client.get("/health/live", "connection: close\r\n");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.header("connection"), "close");
  EXPECT_TRUE(client.closed());
}

TEST(HttpServer, AnswersPipelinedRequestsInOrder) {
  TestServer server;
  Client client = server.client();
  std::string all;
  for (int i = 0; i < 20; ++i) {
    const std::string body = format(R"({{"prompt":"{}","max_tokens":{}}})", i, i % 5 + 1);
    all += format("POST /v1/completions HTTP/1.1\r\nhost: x\r\nx-request-id: r{}\r\n"
                  "content-type: application/json\r\ncontent-length: {}\r\n\r\n{}",
                  i, body.size(), body);
  }
  client.send(all);
  for (int i = 0; i < 20; ++i) {
    const Answer answer = client.read();
    ASSERT_EQ(answer.status, 200);
    EXPECT_EQ(answer.header("x-request-id"), format("r{}", i));
    EXPECT_EQ(answer.json()["usage"]["completion_tokens"].as_int(), i % 5 + 1);
  }
}

TEST(HttpServer, ReadsARequestByteByByteAndInChunks) {
  TestServer server;
  Client client = server.client();
  const std::string head =
      "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
  for (const char c : head + format("content-length: {}\r\n\r\n{}", 30, kShort)) {
    ASSERT_TRUE(client.send({&c, 1}));
  }
  EXPECT_EQ(client.read().status, 200);
  client.send(head + "transfer-encoding: chunked\r\n\r\n5\r\n" + std::string(kShort, 5) +
              "\r\n19\r\n" + std::string(kShort + 5) + "\r\n0\r\n\r\n");
  EXPECT_EQ(client.read().status, 200);
}

TEST(HttpServer, ContinuesWhenExpected) {
  TestServer server;
  Client client = server.client();
  client.send(format("POST /v1/completions HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"
                     "content-type: application/json\r\ncontent-length: 30\r\n\r\n"));
  EXPECT_EQ(client.read(true).status, 100);
  client.send(kShort);
  EXPECT_EQ(client.read().status, 200);
}

TEST(HttpServer, SpeaksHttp10) {
  TestServer server;
  Client client = server.client();
  client.send(format("POST /v1/completions HTTP/1.0\r\ncontent-type: application/json\r\n"
                     "content-length: {}\r\n\r\n{}", 45,
                     R"({"prompt":"hi","max_tokens":5,"stream":true} )"));
  const Answer answer = client.read();
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.header("transfer-encoding"), "");
  ASSERT_EQ(answer.events().size(), 6u) << answer.body;  // five tokens and [DONE]
}

TEST(HttpServer, HeadHasNoBody) {
  TestServer server;
  Client client = server.client();
  client.send("HEAD /v1/models HTTP/1.1\r\nhost: x\r\n\r\n");
  const Answer answer = client.read(true);
  EXPECT_EQ(answer.status, 200);
  EXPECT_NE(answer.header("content-length"), "0");
  EXPECT_EQ(client.get("/health").status, 200);
}

// What is not HTTP gets one clear answer and is closed; the server goes on.
TEST(HttpServer, RefusesWhatIsNotHttp) {
  ApiServerOptions options;
  options.http.max_header_bytes = 8192;
  options.http.max_body_bytes = 10000;
  TestServer server({}, options);
  const std::string big(20000, 'a');
  const std::pair<std::string, int> kCases[] = {
      {"\r\n\r\n\r\n", 400},
      {"hello\r\n\r\n", 400},
      {"GET / HTTP/9.9\r\n\r\n", 400},
      {"GET / HTTP/2.0\r\n\r\n", 400},
      {"GET /\x01 HTTP/1.1\r\n\r\n", 400},
      {std::string("GET / HTTP/1.1\r\nA\0b: c\r\n\r\n", 26), 400},
      {"GET / HTTP/1.1\r\n: novalue\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400},
      {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400},
      {"GET / HTTP/1.1\r\nx: " + big + "\r\n\r\n", 431},
      {"GET /" + big + " HTTP/1.1\r\n\r\n", 431},
      {"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\ncontent-length: 10001\r\n\r\n" + big, 413},
      {"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400},
      {"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n", 413},
      {"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n4e20\r\n" + big + "\r\n0\r\n\r\n",
       413},
  };
  for (const auto& [bytes, status] : kCases) {
    Client client = server.client();
    client.send(bytes);
    const Answer answer = client.read();
    EXPECT_EQ(answer.status, status) << bytes.substr(0, 60);
    EXPECT_EQ(answer.header("connection"), "close");
    EXPECT_TRUE(answer.json()["error"]["message"].is_string()) << answer.body;
    EXPECT_TRUE(client.closed());
  }
  EXPECT_EQ(server.client().get("/health").status, 200);
}

// Requests cut at every byte: the server neither answers nor hangs on to the connection.
TEST(HttpServer, SurvivesRequestsCutAnywhere) {
  TestServer server;
  const std::string whole =
      format("POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
             "content-length: 30\r\n\r\n{}", kShort);
  for (size_t n = 0; n < whole.size(); ++n) {
    Client client = server.client();
    client.send(whole.substr(0, n));
    client.half_close();
    EXPECT_TRUE(client.closed()) << n;
  }
  Client client = server.client();
  EXPECT_EQ(client.post("/v1/completions", kShort).status, 200);
  // Those that were cut are let go when the server has seen their ends, which nobody waits for.
  const auto open = [&] {
    return server.on_loop([&] { return server.server().http_stats().connections; });
  };
  while (open() > 1) std::this_thread::yield();
  EXPECT_EQ(open(), 1);
}

TEST(HttpServer, BoundsTheBytesOfBodiesOverAllConnections) {
  ApiServerOptions options;
  options.http.max_body_bytes = 1 << 20;
  options.http.max_body_bytes_total = 1 << 20;
  TestServer server({}, options);
  Client first = server.client();
  first.send("POST /v1/completions HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"
             "content-length: 1000000\r\n\r\n");
  EXPECT_EQ(first.read(true).status, 100);  // its body is being read
  Client second = server.client();
  second.send_post("/v1/completions", std::string(100000, ' '));
  const Answer refused = second.read();
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.header("retry-after"), "1");
  first.close();
  server.on_loop([] {});
  // The first's share comes back once the server has seen it go.
  int status = 503;
  while (status == 503) status = server.client().post("/v1/completions", kShort).status;
  EXPECT_EQ(status, 200);
}

TEST(HttpServer, RefusesConnectionsOverTheLimit) {
  ApiServerOptions options;
  options.http.max_connections = 3;
  TestServer server({}, options);
  std::vector<Client> open;
  for (int i = 0; i < 3; ++i) {
    open.push_back(server.client());
    EXPECT_EQ(open.back().get("/health").status, 200);
  }
  Client over = server.client();
  const Answer refused = over.read();  // without asking
  EXPECT_EQ(refused.status, 503);
  EXPECT_TRUE(over.closed());
  EXPECT_EQ(open[0].get("/health").status, 200);
}

TEST(HttpServer, ClosesSilentConnections) {
  ApiServerOptions options;
  options.http.idle_timeout = milliseconds(20);
  options.http.body_timeout = milliseconds(20);
  options.http.sweep_interval = milliseconds(5);
  TestServer server({}, options);
  Client silent = server.client();
  Client half = server.client();
  half.send("GET / HT");
  Client body = server.client();
  body.send("POST /v1/completions HTTP/1.1\r\ncontent-length: 10\r\n\r\nabc");
  EXPECT_TRUE(silent.closed());
  EXPECT_TRUE(half.closed());
  EXPECT_TRUE(body.closed());
  EXPECT_EQ(server.on_loop([&] { return server.server().http_stats().timed_out; }), 3);
}

TEST(HttpServer, CommentsKeepASilentStreamAlive) {
  FakeGenerator::Options fake;
  fake.free_running = false;
  ApiServerOptions options;
  options.http.sse_comment_after = milliseconds(1);
  options.http.sweep_interval = milliseconds(5);
  TestServer server(fake, options);
  Client client = server.client();
  client.send_post("/v1/completions", R"({"prompt":"hi","max_tokens":2,"stream":true})");
  EXPECT_TRUE(client.read_until(": keep-alive\n\n"));
  server.generator().step(2);
  const Answer answer = client.read();
  EXPECT_TRUE(answer.complete);
  EXPECT_EQ(answer.events().back(), "[DONE]");
}

// The slow readers below are behind by less than their answers' bare text, which is the least that
// is sent: tokens that wait for the loop together may go out in one event.
constexpr int kSmallBuffer = 4096;

// A client that stops reading is cut when its share of memory is full; its generation is cancelled
// and another client's answer, made at the same time, is whole.
TEST(HttpServer, CutsASlowReaderAlone) {
  FakeGenerator::Options fake;
  fake.reply = std::string(100000, 'a');
  fake.context = 1 << 20;
  ApiServerOptions options;
  options.http.send_buffer_bytes = kSmallBuffer;
  options.http.max_unsent_bytes = 16 << 10;
  TestServer server(fake, options);
  Client slow(server.port(), 4096);
  slow.send_post("/v1/completions", R"({"prompt":"hi","max_tokens":100000,"stream":true})");
  Client other = server.client();
  const Answer whole = other.post("/v1/completions", R"({"prompt":"hi","max_tokens":2000})");
  EXPECT_EQ(whole.json()["usage"]["completion_tokens"].as_int(), 2000);
  EXPECT_TRUE(server.generator().wait_until(
      [](size_t live, int64_t cancels) { return live == 0 && cancels == 1; }));
  EXPECT_EQ(server.on_loop([&] { return server.server().http_stats().slow_readers_cut; }), 1);
}

TEST(HttpServer, CutsAReaderThatStalls) {
  FakeGenerator::Options fake;
  fake.reply = std::string(50000, 'a');
  fake.context = 1 << 20;
  ApiServerOptions options;
  options.http.send_buffer_bytes = kSmallBuffer;
  options.http.max_unsent_bytes = int64_t{1} << 40;
  options.http.write_timeout = milliseconds(20);
  options.http.sweep_interval = milliseconds(5);
  TestServer server(fake, options);
  Client slow(server.port(), 4096);
  slow.send_post("/v1/completions", R"({"prompt":"hi","max_tokens":50000,"stream":true})");
  EXPECT_TRUE(server.generator().wait_until([](size_t live, int64_t) { return live == 0; }));
  int64_t cut = 0;
  while (cut == 0 && !::testing::Test::HasFailure()) {
    cut = server.on_loop([&] { return server.server().http_stats().slow_readers_cut; });
  }
  EXPECT_EQ(cut, 1);
}

TEST(HttpServer, BoundsWhatAllSlowReadersTogetherHold) {
  FakeGenerator::Options fake;
  fake.reply = std::string(50000, 'a');
  fake.context = 1 << 20;
  ApiServerOptions options;
  options.http.max_unsent_bytes = int64_t{1} << 40;
  options.http.send_buffer_bytes = kSmallBuffer;
  options.http.max_unsent_bytes_total = 16 << 10;
  TestServer server(fake, options);
  std::vector<Client> slow;
  for (int i = 0; i < 4; ++i) {
    slow.emplace_back(server.port(), 4096);
    slow.back().send_post("/v1/completions",
                          R"({"prompt":"hi","max_tokens":50000,"stream":true})");
  }
  HttpServerStats stats;
  while (stats.slow_readers_cut < 3) {
    stats = server.on_loop([&] { return server.server().http_stats(); });
    std::this_thread::yield();
  }
  EXPECT_GE(stats.slow_readers_cut, 3);
  EXPECT_LE(stats.unsent_bytes, options.http.max_unsent_bytes_total + (64 << 10));
  Client other = server.client();
  EXPECT_EQ(other.post("/v1/completions", kShort).status, 200);
}

TEST(HttpServer, HoldsManyIdleConnections) {
  TestServer server;
  std::vector<Client> idle;
  for (int i = 0; i < 2000; ++i) {
    idle.push_back(server.client());
    ASSERT_TRUE(idle.back().connected()) << i;
  }
  EXPECT_EQ(idle.front().get("/health").status, 200);
  EXPECT_EQ(idle.back().post("/v1/completions", kShort).status, 200);
  EXPECT_EQ(server.on_loop([&] { return server.server().http_stats().connections; }), 2000);
}

// --- TLS -----------------------------------------------------------------------------------------

std::string tls_exchange(int port, const std::string& request) {
  Client client(port);
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  SSL* ssl = SSL_new(context);
  SSL_set_fd(ssl, client.fd());
  std::string received;
  if (SSL_connect(ssl) == 1) {
    SSL_write(ssl, request.data(), static_cast<int>(request.size()));
    char chunk[4096];
    for (int n; (n = SSL_read(ssl, chunk, sizeof chunk)) > 0;) {
      received.append(chunk, static_cast<size_t>(n));
    }
  }
  // The server said goodbye: nothing was cut off.
  EXPECT_TRUE(received.empty() || (SSL_get_shutdown(ssl) & SSL_RECEIVED_SHUTDOWN) != 0);
  SSL_free(ssl);
  SSL_CTX_free(context);
  return received;
}

TEST(HttpServer, ServesTls) {
  const TestCertificate files;
  ApiServerOptions options;
  options.http.tls_cert = files.cert;
  options.http.tls_key = files.key;
  TestServer server({}, options);
  EXPECT_TRUE(server.server().url().starts_with("https://"));
  const std::string body = R"({"prompt":"hi","max_tokens":100,"stream":true})";
  const auto post = [&](std::string_view connection) {
    return format("POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: {}\r\ncontent-type: "
                  "application/json\r\ncontent-length: {}\r\n\r\n{}",
                  connection, body.size(), body);
  };
  // Two requests on one connection, sent at once; the second closes it.
  const std::string received = tls_exchange(server.port(), post("keep-alive") + post("close"));
  size_t ends = 0;
  for (size_t at = 0; (at = received.find("data: [DONE]", at)) != std::string::npos; ++at) ++ends;
  EXPECT_EQ(ends, 2u);
  EXPECT_TRUE(received.ends_with("0\r\n\r\n"));
  // Plain HTTP to a TLS port is closed without harm.
  Client plain = server.client();
  plain.send("GET /health HTTP/1.1\r\n\r\n");
  EXPECT_EQ(plain.read().status, 0);
}

TEST(HttpServer, SaysWhatIsWrongWithItsOptions) {
  Loop loop;
  const auto refusal = [&](auto change) {
    HttpServerOptions options;
    change(options);
    const auto server = HttpServer::start(loop, std::move(options), {}, {});
    return server ? std::string() : server.error().to_string();
  };
  const auto mentions = [](const std::string& text, std::string_view what) {
    return text.find(what) != std::string::npos;
  };
  EXPECT_TRUE(mentions(refusal([](auto& o) { o.tls_cert = "a.pem"; }), "--tls-key"));
  EXPECT_TRUE(mentions(refusal([](auto& o) { o.tls_cert = o.tls_key = "no.pem"; }), "no.pem"));
  EXPECT_TRUE(mentions(refusal([](auto& o) { o.host = "192.0.2.1"; }), "192.0.2.1"));
  TestServer other;
  EXPECT_TRUE(mentions(refusal([&](auto& o) { o.port = other.port(); }), "--port"));
}

}  // namespace
}  // namespace towline::serve
