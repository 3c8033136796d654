// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include <cerrno>
#include <cstring>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "net/keys.hpp"

namespace towline::net {
namespace {

constexpr std::string_view kFirstLine = "towline-keys 1\n";

// The word after "name " at the beginning of a line; empty if there is none.
std::string word_after(const std::string& text, const std::string& name) {
  const size_t at = text.find("\n" + name + " ");
  if (at == std::string::npos) return {};
  const size_t begin = at + name.size() + 2;
  return text.substr(begin, text.find('\n', begin) - begin);
}

}  // namespace

Result<ClusterKeys> make_keys() {
  char public_key[41] = {}, secret_key[41] = {};
  if (::zmq_curve_keypair(public_key, secret_key) != 0) {
    return errorf(Code::kUnsupported,
                  "this libzmq makes no CURVE keys ({}); install one with libsodium",
                  ::zmq_strerror(::zmq_errno()));
  }
  return ClusterKeys{public_key, secret_key};
}

std::string print_keys(const ClusterKeys& keys) {
  return format("{}public {}\nsecret {}\n", kFirstLine, keys.public_key, keys.secret_key);
}

Result<void> write_keys(const std::string& path, const ClusterKeys& keys) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) {
    return errno == EEXIST
               ? errorf(Code::kAlreadyExists, "'{}' exists; keys are never overwritten", path)
               : errorf(Code::kIo, "cannot write '{}': {}", path, std::strerror(errno));
  }
  const std::string text = print_keys(keys);
  const bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const bool synced = ::fsync(fd) == 0;
  ::close(fd);
  if (written && synced) return {};
  ::unlink(path.c_str());
  return errorf(Code::kIo, "cannot write '{}': {}", path, std::strerror(errno));
}

Result<ClusterKeys> read_keys(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    return errorf(
        Code::kNotFound,
        "key file '{}' cannot be read ({}); make one with 'towline net keys FILE' and copy "
        "it to all nodes",
        path, std::strerror(errno));
  }
  if ((info.st_mode & 077) != 0) {
    return errorf(Code::kPermissionDenied, "key file '{}' is open to others; run 'chmod 600 {}'",
                  path, path);
  }
  ASSIGN_OR_RETURN(const std::string text, read_file(path, 4096));
  ClusterKeys keys{word_after(text, "public"), word_after(text, "secret")};
  char derived[41] = {};
  uint8_t binary[32];
  if (!text.starts_with(kFirstLine) || keys.public_key.size() != 40 ||
      keys.secret_key.size() != 40 ||
      ::zmq_z85_decode(binary, keys.secret_key.c_str()) == nullptr ||
      ::zmq_curve_public(derived, keys.secret_key.c_str()) != 0 || keys.public_key != derived) {
    return errorf(Code::kDataCorrupt,
                  "'{}' is no key file of Towline; make one with 'towline net keys'", path);
  }
  return keys;
}

}  // namespace towline::net
