// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// A plain blocking HTTP client over POSIX sockets, so that tests see the bytes that the server
// sends. Test code only.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "base/fmt.hpp"
#include "base/json.hpp"

namespace towline::serve {

struct Answer {
  int status = 0;  // 0: the connection ended before an answer
  std::string head, body;
  bool complete = false;
  Json json() const { return parse_json(body, "answer").value_or(Json()); }
  // The value of a header written in lower case.
  std::string header(const std::string& name) const {
    const size_t at = head.find("\r\n" + name + ": ");
    if (at == std::string::npos) return {};
    const size_t begin = at + name.size() + 4;
    return head.substr(begin, head.find("\r\n", begin) - begin);
  }
  // The payloads of "data: " lines.
  std::vector<std::string> events() const {
    std::vector<std::string> out;
    for (size_t at = 0; (at = body.find("data: ", at)) != std::string::npos;) {
      const size_t end = body.find("\n\n", at);
      out.push_back(body.substr(at + 6, end - at - 6));
      at = end;
    }
    return out;
  }
};

class Client {
 public:
  explicit Client(int port, int receive_buffer = 0) {
    fd_ = ::socket(AF_INET, SOCK_STREAM, 0);
    if (receive_buffer > 0) {
      ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    }
    timeval limit{300, 0};  // a test that hangs fails instead
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(port));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0;
  }
  Client(Client&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), connected_(other.connected_),
        buffer_(std::move(other.buffer_)) {}
  ~Client() { close(); }

  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  // RST instead of FIN.
  void reset() {
    linger now{1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close();
  }
  void half_close() { ::shutdown(fd_, SHUT_WR); }
  bool connected() const { return connected_; }
  int fd() const { return fd_; }

  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }
  void send_get(const std::string& path, const std::string& headers = "") {
    send(format("GET {} HTTP/1.1\r\nhost: x\r\n{}\r\n", path, headers));
  }
  void send_post(const std::string& path, const std::string& body,
                 const std::string& headers = "content-type: application/json\r\n") {
    send(format("POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n{}\r\n{}", path, body.size(),
                headers, body));
  }
  Answer get(const std::string& path, const std::string& headers = "") {
    send_get(path, headers);
    return read();
  }
  Answer post(const std::string& path, const std::string& body,
              const std::string& headers = "content-type: application/json\r\n") {
    send_post(path, body, headers);
    return read();
  }

  // One whole answer, chunks joined.
  Answer read(bool head_request = false) {
    Answer answer;
    size_t end;
    while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
      if (!more()) return answer;
    }
    answer.head = buffer_.substr(0, end + 2);
    buffer_.erase(0, end + 4);
    answer.status = std::atoi(answer.head.c_str() + 9);
    if (head_request) {
      answer.complete = true;
    } else if (answer.header("transfer-encoding") == "chunked") {
      answer.complete = read_chunks(answer.body);
    } else if (const std::string length = answer.header("content-length"); !length.empty()) {
      const size_t n = std::strtoul(length.c_str(), nullptr, 10);
      while (buffer_.size() < n && more()) {
      }
      answer.complete = buffer_.size() >= n;
      answer.body = buffer_.substr(0, n);
      buffer_.erase(0, n);
    } else {
      while (more()) {
      }
      answer.body = std::exchange(buffer_, {});
      answer.complete = true;
    }
    return answer;
  }

  // Reads until `text` has been received; false if the connection ended before.
  bool read_until(std::string_view text) {
    while (buffer_.find(text) == std::string::npos) {
      if (!more()) return false;
    }
    return true;
  }
  // True if the server closed the connection with nothing more to read.
  bool closed() {
    return buffer_.empty() && !more();
  }
  const std::string& received() const { return buffer_; }

 private:
  bool more() {
    char chunk[16384];
    const ssize_t n = ::recv(fd_, chunk, sizeof chunk, 0);
    if (n <= 0) return false;
    buffer_.append(chunk, static_cast<size_t>(n));
    return true;
  }
  bool read_chunks(std::string& body) {
    while (true) {
      size_t line;
      while ((line = buffer_.find("\r\n")) == std::string::npos) {
        if (!more()) return false;
      }
      const size_t n = std::strtoul(buffer_.c_str(), nullptr, 16);
      while (buffer_.size() < line + 2 + n + 2) {
        if (!more()) return false;
      }
      body += buffer_.substr(line + 2, n);
      buffer_.erase(0, line + 2 + n + 2);
      if (n == 0) return true;
    }
  }
  int fd_ = -1;
  bool connected_ = false;
  std::string buffer_;
};

}  // namespace towline::serve
