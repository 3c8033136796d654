// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "base/fmt.hpp"
#include "base/log.hpp"
#include "base/printable.hpp"
#include "cli/commands.hpp"

namespace towline::cli {

std::span<const Command> commands() {
  static const Command* const kAll[] = {
      &kRun,
      &kChat,
      &kServe,
      &kUp,
      &kWorker,
      &kStatus,
      &kTop,
      &kDrain,
      &kCall,
      &kDeploy,
      &kModelInfo,
      &kModelCheck,
      &kModelQuantize,
      &kModelMakeDummy,
      &kTokenize,
      &kDetokenize,
      &kTemplate,
      &kPlan,
      &kProfile,
      &kProfileCheck,
      &kProfileLearn,
      &kReplan,
      &kFlow,
      &kClusterGenerate,
      &kClusterPrune,
      &kClusterCheck,
      &kClusterShow,
      &kSystemConfig,
      &kSimulate,
      &kCompare,
      &kJournal,
      &kReport,
      &kBenchEngine,
      &kBenchPipeline,
      &kBenchLoad,
      &kNetServe,
      &kNetPing,
      &kNetKeys,
      &kBenchSpmd,
      &kRank,
      &kDoctor,
      &kVersion,
      &kCompletions,
      &kOptions,
  };
  static const std::vector<Command> list = [] {
    std::vector<Command> all;
    for (const Command* command : kAll) all.push_back(*command);
    return all;
  }();
  return list;
}

namespace {

void print_overview(std::FILE* to) {
  std::fputs("Towline serves large language models with the machines people really have.\n\n"
             "Usage: towline COMMAND [OPTIONS]\n\nCommands:\n", to);
  for (const Command& command : commands()) {
    std::fputs(format("  {:<18}{}\n", command.name, command.summary).c_str(), to);
  }
  std::fputs("\n'towline COMMAND --help' explains a command.\n", to);
}

// The command whose name (one or two words) begins `args`, and the number of words it took.
std::pair<const Command*, size_t> find_command(std::span<const std::string> args) {
  for (size_t words = std::min<size_t>(2, args.size()); words > 0; --words) {
    const std::string name = words == 2 ? args[0] + " " + args[1] : args[0];
    for (const Command& command : commands()) {
      if (command.name == name) return {&command, words};
    }
  }
  return {nullptr, 0};
}

// The commands of two words that begin with `word`: of "model" its info, check, ...
std::vector<const Command*> family_of(std::string_view word) {
  std::vector<const Command*> family;
  for (const Command& command : commands()) {
    if (command.name.starts_with(std::string(word) + " ")) family.push_back(&command);
  }
  return family;
}

// What is not a command: help on a family of commands, or what there is instead.
Result<int> run_unknown(std::span<const std::string> args) {
  const std::vector<const Command*> family = family_of(args[0]);
  if (family.empty()) {
    return errorf(Code::kInvalidArgument, "'{}' is not a command; 'towline --help' lists them",
                  args[0]);
  }
  if (args.size() > 1 && (args[1] == "--help" || args[1] == "-h")) {
    for (const Command* command : family) {
      std::fputs(format("  towline {:<18} {}\n", command->name, command->summary).c_str(), stdout);
    }
    return 0;
  }
  std::string known;
  for (const Command* command : family) {
    known += format("{}{}", known.empty() ? "" : ", ", command->name);
  }
  return errorf(Code::kInvalidArgument, "'{}' is not a command; there are {}",
                args.size() > 1 ? args[0] + " " + args[1] : args[0], known);
}

// A message may quote what a file or a peer had in it.
int fail(const Error& error) {
  std::fputs(format("towline: {}\n", printable(error.to_string())).c_str(), stderr);
  return exit_code(error.code());
}

// Model files are mapped: one that is cut short while it is in use ends the process at its next
// read there. It ends by the signal all the same, but not without a word. Async-signal-safe.
void on_lost_page(int number) {
  constexpr std::string_view kWords =
      "towline: a file mapped into memory cannot be read any more (SIGBUS): was the model file cut "
      "short or overwritten while in use? Replace model files by renaming, and start again\n";
  [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, kWords.data(), kWords.size());
  std::signal(number, SIG_DFL);  // the read that failed is done again
}

int run(std::span<const std::string> args) {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGBUS, on_lost_page);
  if (args.empty()) {
    print_overview(stderr);
    return exit_code(Code::kInvalidArgument);
  }
  if (args[0] == "help" && args.size() > 1) {  // help model info
    std::vector<std::string> words(args.begin() + 1, args.end());
    words.push_back("--help");
    return run(words);
  }
  if (args[0] == "--help" || args[0] == "-h" || args[0] == "help") {
    print_overview(stdout);
    return 0;
  }
  const auto [command, words] = find_command(args);
  const Result<int> code = command ? command->run(args.subspan(words)) : run_unknown(args);
  return code ? *code : fail(code.error());
}

}  // namespace
}  // namespace towline::cli

int main(int argc, char** argv) {
  // The planner's solver brings OpenBLAS, whose threads spin for 50 to 100 ms in every process that
  // is started. The processes we start (workers, ranks) do no dense algebra with it.
  ::setenv("OPENBLAS_NUM_THREADS", "1", 0);
  const std::vector<std::string> args(argv + (argc > 0 ? 1 : 0), argv + argc);
  try {
    return towline::cli::run(args);
  } catch (const std::exception& e) {  // a fence: our own code does not throw
    std::fprintf(stderr, "towline: internal error: %s\n", e.what());
    return 1;
  }
}
