// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ClusterKeys: the one CURVE key pair (elliptic curve 25519, as in ZeroMQ's RFC 26) that all nodes
// of a cluster hold. Who has the file may talk; who has not is refused before a byte of ours is
// exchanged, and everything is encrypted. Make it once, copy it to each node, keep it secret.
//
// The file is text: a first line "towline-keys 1", then "public KEY" and
// "secret KEY" in Z85 (RFC 32).
#pragma once

#include <string>

#include "base/result.hpp"

namespace towline::net {

struct ClusterKeys {
  std::string public_key, secret_key;  // 40 characters of Z85 each
};

Result<ClusterKeys> make_keys();
std::string print_keys(const ClusterKeys& keys);  // as the file has it
// Writes a new file that only its owner can read. kAlreadyExists: nothing is overwritten.
Result<void> write_keys(const std::string& path, const ClusterKeys& keys);
// kPermissionDenied when others can read the file, kDataCorrupt when it is not a matching pair.
Result<ClusterKeys> read_keys(const std::string& path);

}  // namespace towline::net
