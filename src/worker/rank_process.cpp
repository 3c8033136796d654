// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/fmt.hpp"
#include "base/options.hpp"
#include "worker/rank_team.hpp"

namespace towline::worker {

namespace {

struct RankOptions {
  int steps_fd = -1, calls_fd = -1, collective_fd = -1, reader = 0, parent = 0;
  int input_fd = -1, output_fd = -1, slots = 0;
  int rank = 0, of = 1, stage = 0, stages = 1, node = 0;
};

OptionTable table_of(RankOptions& o) {
  OptionTable table("rank", "One rank of a node. Started by the node itself, not by people.");
  table.value("steps-fd", &o.steps_fd, "descriptor of the ring of steps");
  table.value("calls-fd", &o.calls_fd, "descriptor of the ring of calls");
  table.value("collective-fd", &o.collective_fd, "descriptor of the ranks' shared memory; -1: none");
  table.value("input-fd", &o.input_fd, "descriptor of the ring from the stage before; -1: none");
  table.value("output-fd", &o.output_fd, "descriptor of the ring to the stage after; -1: none");
  table.value("slots", &o.slots, "frames of steps in flight at most");
  table.value("reader", &o.reader, "number of this reader of the rings");
  table.value("rank", &o.rank, "tensor-parallel rank");
  table.value("of", &o.of, "ranks of the stage");
  table.value("stage", &o.stage, "stage of the node");
  table.value("stages", &o.stages, "stages of the node");
  table.value("node", &o.node, "the node");
  table.value("parent", &o.parent, "process that must live; 0: any");
  return table;
}

}  // namespace

void describe_rank_process(void (*sink)(const OptionTable&)) {
  RankOptions options;
  sink(table_of(options));
}

Result<int> run_rank_process(std::span<const std::string> args, const ExecutorFactory& factory) {
  RankOptions o;
  OptionTable table = table_of(o);
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table.parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  if (o.steps_fd < 0 || o.calls_fd < 0) {
    return Error(Code::kInvalidArgument,
                 "a rank is started by its node (towline worker), which gives it the rings");
  }
  // The kernel kills this process when the node's ends, also if it ended just now.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (o.parent > 0 && ::getppid() != o.parent) return 0;
  RankPlace place;
  place.rank = o.rank;
  place.of = o.of;
  place.stage = o.stage;
  place.stages = o.stages;
  place.node = o.node;
  place.collective_fd = o.collective_fd;
  ::prctl(PR_SET_NAME, format("towline-rank{}", place.world_rank()).c_str());

  ASSIGN_OR_RETURN(auto steps, net::RingReader::attach(o.steps_fd, o.reader));
  ASSIGN_OR_RETURN(auto calls, net::RingReader::attach(o.calls_fd, o.reader, {Duration(0)}));
  StageLink link;
  if (o.input_fd >= 0) {
    ASSIGN_OR_RETURN(auto input, net::RingReader::attach(o.input_fd, o.rank));
    std::shared_ptr<net::RingWriter> output;
    if (o.output_fd >= 0) {
      ASSIGN_OR_RETURN(output, net::RingWriter::attach(o.output_fd));
    }
    link = StageLink(std::move(input), std::move(output), static_cast<uint32_t>(o.slots));
  }
  RankLoop loop({std::move(steps), std::move(calls), std::move(link)}, place, factory);
  std::thread second([&loop] { loop.serve_calls(); });
  loop.run();
  loop.end_calls();
  second.join();
  return 0;
}

}  // namespace towline::worker
