// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The clients of an HTTP server, plain and over TLS: URLs, fetch(), LoadClient and RemoteChat.
#include "serve/fetch.hpp"

#include <gtest/gtest.h>

#include "base/loop.hpp"
#include "serve/load_client.hpp"
#include "serve/remote_chat.hpp"
#include "serve/test_certificate.hpp"
#include "serve/test_server.hpp"

namespace towline::serve {
namespace {

ApiServerOptions with_tls(const TestCertificate& files) {
  ApiServerOptions options;
  options.http.tls_cert = files.cert;
  options.http.tls_key = files.key;
  return options;
}

std::string url_of(const TestServer& server, std::string_view scheme,
                   std::string_view host = "127.0.0.1") {
  return format("{}://{}:{}", scheme, host, server.port());
}

// What a GET of /version says, or the error.
std::string version_at(const std::string& url, const std::string& ca) {
  const auto server = ServerUrl::parse(url, ca);
  if (!server) return server.error().to_string();
  const auto reply =
      fetch(*server, {.target = "/version", .body = {}, .api_key = {}, .patience = seconds(300)});
  return reply ? format("{} {}", reply->status, reply->body) : reply.error().to_string();
}

TEST(ServerUrl, ReadsWhatPeopleWrite) {
  const auto plain = ServerUrl::parse("http://localhost:8000");
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->host, "localhost");
  EXPECT_EQ(plain->port, "8000");
  EXPECT_EQ(plain->path, "/v1");
  EXPECT_EQ(plain->origin(), "http://localhost:8000");
  const auto full = ServerUrl::parse("http://[::1]:80/api/v1/");
  ASSERT_TRUE(full);
  EXPECT_EQ(full->host, "::1");
  EXPECT_EQ(full->path, "/api/v1");
  EXPECT_EQ(full->origin(), "http://[::1]:80");
  const auto secure = ServerUrl::parse("https://example.org/x");
  ASSERT_TRUE(secure);
  EXPECT_EQ(secure->origin(), "https://example.org:443");
  EXPECT_EQ(secure->path, "/x");
  for (const char* url : {"", "ftp://x", "localhost:80", "http://", "https://", "http://x:", "http://x:8a",
                          "https://x:123456", "http://x:65536"}) {
    EXPECT_FALSE(ServerUrl::parse(url)) << url;
  }
}

TEST(ServerUrl, TrustIsAFileOfCertificatesForHttps) {
  const TestCertificate files;
  EXPECT_TRUE(ServerUrl::parse("https://x", files.cert));
  const auto plain = ServerUrl::parse("http://x", files.cert);
  ASSERT_FALSE(plain);
  EXPECT_NE(plain.error().message().find("--ca"), std::string::npos);
  for (const std::string& ca : {std::string("/nowhere/ca.pem"), files.key}) {
    const auto refused = ServerUrl::parse("https://x", ca);
    ASSERT_FALSE(refused) << ca;
    EXPECT_NE(refused.error().message().find(ca), std::string::npos);
  }
}

TEST(Fetch, AnswersWhateverTheStatus) {
  TestServer server;
  EXPECT_TRUE(version_at(url_of(server, "http"), "").starts_with("200 {"));
  const auto url = ServerUrl::parse(url_of(server, "http")).value();
  EXPECT_EQ(fetch(url, {.target = "/nowhere", .body = {}, .api_key = {}})->status, 404);
  EXPECT_EQ(fetch(url, {.method = "POST", .target = "/v1/completions", .body = "{}", .api_key = {}})
                ->status,
            400);
  const auto unknown = fetch(ServerUrl::parse("http://no-such-host.invalid").value(),
                             {.target = "/", .body = {}, .api_key = {}});
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code(), Code::kNotFound);
}

TEST(Fetch, SpeaksTlsWithWhoIsVouchedFor) {
  const TestCertificate files, others;
  TestServer server({}, with_tls(files));
  EXPECT_TRUE(version_at(url_of(server, "https"), files.cert).starts_with("200 {"));
  // Nobody vouches for it; somebody else does; the name is another's.
  for (const std::string& ca : {std::string(), others.cert}) {
    const std::string said = version_at(url_of(server, "https"), ca);
    EXPECT_NE(said.find("certificate is not accepted"), std::string::npos) << said;
    EXPECT_NE(said.find("--ca"), std::string::npos) << said;
  }
  const std::string said = version_at(url_of(server, "https", "localhost"), files.cert);
  EXPECT_NE(said.find("certificate is not accepted"), std::string::npos) << said;
}

TEST(Fetch, SaysWhichOfTheTwoTheServerWants) {
  const TestCertificate files;
  TestServer secure({}, with_tls(files)), plain;
  const std::string to_secure = version_at(url_of(secure, "http"), "");
  EXPECT_NE(to_secure.find("wants https://"), std::string::npos) << to_secure;
  const std::string to_plain = version_at(url_of(plain, "https"), files.cert);
  EXPECT_NE(to_plain.find("wants http://"), std::string::npos) << to_plain;
}

TEST(LoadClient, LoadsAServerOverTls) {
  const TestCertificate files;
  TestServer server({}, with_tls(files));
  LoadOptions options;
  options.target = ServerUrl::parse(url_of(server, "https"), files.cert).value();
  EXPECT_EQ(LoadClient::first_model(options.target, "").value(), "fake");
  Loop loop;
  int left = 20, good = 0;
  LoadClient client(
      loop, options,
      [&]() -> std::optional<spec::TraceRequest> {
        if (left-- <= 0) return std::nullopt;
        return spec::TraceRequest{0, 5, 4};
      },
      [&](LoadResult&& result) {
        EXPECT_EQ(result.error, "");
        EXPECT_EQ(result.output, 4);
        ++good;
      });
  client.start([&] { loop.stop(); });
  loop.run();
  EXPECT_EQ(good, 20);
}

TEST(RemoteChat, TalksOverTls) {
  const TestCertificate files;
  FakeGenerator::Options fake;
  fake.reply = "Hello there";
  TestServer server(fake, with_tls(files));
  RemoteChat chat =
      RemoteChat::connect(ServerUrl::parse(url_of(server, "https"), files.cert).value(), "", "")
          .value();
  std::atomic<bool> interrupt{false};
  ChatOptions options;
  options.max_tokens = 5;
  EXPECT_EQ(chat.ask("one", options, [](std::string_view) {}, interrupt).value().text, "Hello");
}

}  // namespace
}  // namespace towline::serve
