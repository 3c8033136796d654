// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// JobRank: which process of a parallel job this is, as the launcher tells in the environment: Open
// MPI's mpirun, PMI launchers (MPICH, Intel MPI), or Slurm's srun. Known before MPI is started.
#pragma once

#include <optional>

#include "base/result.hpp"

namespace towline::cli {

struct JobRank {
  int rank = 0;  // 0 to size - 1
  int size = 1;
};

std::optional<JobRank> job_rank();
// The same; without a launcher an error that says how to start `what` ("towline up FILE").
Result<JobRank> job_rank_or_error(const char* what);

}  // namespace towline::cli
