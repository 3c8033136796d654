// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What the simulator's Helix mode reads (sim/helix_load.hpp). The first byte chooses:
//   w  a simulator_cluster.ini, a line "---", a solution: the input is made, its flow planned, and
//      a short run ends with a report or a sentence
//   f  the same and, after another such line, the flows as JSON
//   l  a list of lengths       a  a list of arrivals
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.hpp"
#include "base/fmt.hpp"
#include "sim/helix_engine.hpp"
#include "sim/helix_load.hpp"

namespace {

using namespace towline;

constexpr size_t kMostNodes = 40;

// A file in memory, with a name while it lives.
class File {
 public:
  explicit File(std::string_view text) : fd_(::memfd_create("fuzz", MFD_CLOEXEC)) {
    CHECK(fd_ >= 0 && ::write(fd_, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  }
  ~File() { ::close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  std::string path() const { return format("/proc/self/fd/{}", fd_); }

 private:
  int fd_;
};

void simulate(sim::HelixInput input, bool online) {
  sim::HelixOptions options;
  options.online = online;
  options.initial_queries = 3;
  options.warm_up = 1;
  options.duration = 5;
  options.feed_rate = 50;
  auto engine = sim::HelixEngine::make(std::move(input), options, {{{20, 4}, {3, 9}}, {2, 3}});
  if (!engine) return;
  const auto report = engine->run({}, nullptr);
  if (!report) return;
  CHECK(!std::isnan(report->decode_tps) && report->finished_queries >= 0, report->decode_tps);
}

void world(std::string_view text) {
  const size_t split = text.find("---\n");
  if (split == std::string_view::npos) return;
  const auto cluster = spec::parse_helix_sim_cluster(text.substr(0, split), "cluster.ini");
  const auto solution = spec::parse_helix_solution(text.substr(split + 4), "plan_sol.ini");
  if (!cluster || !solution || cluster->nodes.size() > kMostNodes) return;
  static const auto profile = spec::builtin_profile("llama1-30b");
  auto input = sim::make_helix_input(*cluster, *solution, *profile, {});
  if (!input) {
    CHECK(!input.error().message().empty());
    return;
  }
  sim::plan_flow(*input);
  CHECK(input->flow.size() == input->links.size() && !std::isnan(input->max_flow), input->max_flow);
  simulate(*input, false);
  simulate(*std::move(input), true);
}

// The three files as they come from a disk.
void files(std::string_view text) {
  const size_t first = text.find("---\n");
  if (first == std::string_view::npos) return;
  const size_t second = text.find("---\n", first + 4);
  if (second == std::string_view::npos) return;
  const File cluster(text.substr(0, first)), flows(text.substr(second + 4));
  const File solution(text.substr(first + 4, second - first - 4));
  auto input = sim::load_helix_input(
      {cluster.path(), solution.path(), "llama1-30b", "", flows.path(), ""}, false);
  if (input && input->nodes.size() <= kMostNodes) simulate(*std::move(input), false);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 20'000) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 'w': world(text); break;
    case 'f': files(text); break;
    case 'l':
      if (const auto lengths = sim::load_lengths(File(text).path())) {
        for (const auto& [input, output] : *lengths) {
          CHECK(input >= 1 && output >= 1, input, output);
        }
      }
      break;
    case 'a':
      if (const auto bins = sim::load_arrival_bins(File(text).path())) CHECK(!bins->empty());
      break;
    default: break;
  }
  return 0;
}
