// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/job_rank.hpp"

#include <charconv>
#include <cstdlib>
#include <string_view>

#include "base/fmt.hpp"

namespace towline::cli {
namespace {

std::optional<int> number_in(const char* variable) {
  const char* text = std::getenv(variable);
  if (text == nullptr) return std::nullopt;
  const std::string_view all(text);
  int value = 0;
  const auto [end, fault] = std::from_chars(all.data(), all.data() + all.size(), value);
  if (fault != std::errc() || end != all.data() + all.size() || value < 0) return std::nullopt;
  return value;
}

}  // namespace

std::optional<JobRank> job_rank() {
  static constexpr struct { const char *rank, *size; } kLaunchers[] = {
      {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
      {"PMI_RANK", "PMI_SIZE"},
      {"SLURM_PROCID", "SLURM_NTASKS"}};
  for (const auto& launcher : kLaunchers) {
    const std::optional<int> rank = number_in(launcher.rank), size = number_in(launcher.size);
    if (rank && size && *rank < *size) return JobRank{*rank, *size};
  }
  return std::nullopt;
}

Result<JobRank> job_rank_or_error(const char* what) {
  if (const std::optional<JobRank> rank = job_rank()) return *rank;
  return errorf(Code::kInvalidArgument,
                "over mpi the processes of a cluster are ranks of one job: start "
                "it as 'mpirun -n N {}'",
                what);
}

}  // namespace towline::cli
