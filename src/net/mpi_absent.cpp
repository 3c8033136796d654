// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Built instead of mpi_wire.cpp when there is no MPI (TOWLINE_WITH_MPI).
#include "net/wire.hpp"

namespace towline::net {

Result<std::unique_ptr<Wire>> make_mpi_wire(const TransportOptions&, WireEvents&) {
  return Error(Code::kUnsupported,
               "this build has no MPI: install libopenmpi-dev and configure with "
               "-DTOWLINE_WITH_MPI=ON, or use tcp:// or zmq://");
}

}  // namespace towline::net
