// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "net/wire.hpp"

namespace towline::net {
namespace {
Error absent(std::string_view what) {
  return Error(Code::kUnsupported, std::string(what) + " transport is not in this build");
}
}  // namespace
Result<std::unique_ptr<Wire>> make_shm_wire(const TransportOptions&, WireEvents&) { return absent("the shm"); }
Result<std::unique_ptr<Wire>> make_mpi_wire(const TransportOptions&, WireEvents&) { return absent("the mpi"); }
}  // namespace towline::net
