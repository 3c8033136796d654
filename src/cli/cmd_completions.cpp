// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline completions SHELL` and `towline options`: both are printed from the option tables, so
// neither can fall behind the program.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>

#include "base/fmt.hpp"
#include "cli/commands.hpp"

namespace towline::cli {
namespace {

std::vector<std::string>* g_flags = nullptr;  // where the sink below collects; main thread only

std::vector<std::string> flags_of(const Command& command) {
  std::vector<std::string> flags;
  g_flags = &flags;
  command.describe([](const OptionTable& table) { *g_flags = table.flag_names(); });
  g_flags = nullptr;
  return flags;
}

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

// First words of commands, and for two-word commands the second words under each first.
std::map<std::string, std::vector<std::string>> command_tree() {
  std::map<std::string, std::vector<std::string>> tree;
  for (const Command& command : commands()) {
    const std::string name(command.name);
    const size_t space = name.find(' ');
    std::vector<std::string>& seconds = tree[name.substr(0, space)];
    if (space != std::string::npos) seconds.push_back(name.substr(space + 1));
  }
  return tree;
}

// "bench spmd" before "bench", which begins what is typed of both.
std::vector<Command> longest_first() {
  std::vector<Command> sorted(commands().begin(), commands().end());
  std::ranges::stable_sort(sorted, std::greater(), [](const Command& c) { return c.name.size(); });
  return sorted;
}

// For fish, between single quotes.
std::string quoted(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

// bash and zsh (through bashcompinit): flags of the command typed so far, else files.
std::string bash_script() {
  std::string firsts, cases;
  for (const auto& [first, seconds] : command_tree()) {
    firsts += (firsts.empty() ? "" : " ") + first;
    if (!seconds.empty()) {
      cases += format("    \"{}\") [ \"$COMP_CWORD\" -eq 2 ] && words=\"{}\" ;;\n", first,
                      join(seconds));
    }
  }
  std::string flags;
  for (const Command& command : longest_first()) {
    flags +=
        format("    \"{0}\"|\"{0} \"*) flags=\"{1}\" ;;\n", command.name, join(flags_of(command)));
  }
  return format(
      R"(# towline completion; install: towline completions bash > /etc/bash_completion.d/towline
_towline() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" words="" flags=""
  local typed="${{COMP_WORDS[*]:1:COMP_CWORD}}"
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{} --help" -- "$current")); return
  fi
  case "${{COMP_WORDS[1]}}" in
{}  esac
  if [ -n "$words" ]; then COMPREPLY=($(compgen -W "$words" -- "$current")); return; fi
  case "$typed" in
{}  esac
  case "$current" in
    -*) COMPREPLY=($(compgen -W "$flags" -- "$current")) ;;
    *) COMPREPLY=($(compgen -f -- "$current")) ;;
  esac
}}
complete -o filenames -F _towline towline
)",
      firsts, cases, flags);
}

std::string fish_script() {
  std::string text = "# towline completion; install: towline completions fish > "
                     "~/.config/fish/completions/towline.fish\n";
  for (const Command& command : commands()) {
    const std::string name(command.name);
    const size_t space = name.find(' ');
    const std::string condition =
        space == std::string::npos ? "__fish_use_subcommand"
                                   : "__fish_seen_subcommand_from " + name.substr(0, space);
    const std::string last = space == std::string::npos ? name : name.substr(space + 1);
    text += format("complete -c towline -n '{}' -a '{}' -d '{}'\n", condition, last,
                   quoted(command.summary));
    const std::string typed = format("__fish_seen_subcommand_from {}", last);
    for (const std::string& flag : flags_of(command)) {
      text +=
          format("complete -c towline -n '{}' -l '{}'\n",
                 space == std::string::npos ? typed : condition + "; and " + typed, flag.substr(2));
    }
  }
  return text;
}

struct CompletionOptions {
  std::string shell;
};

OptionTable completion_table(CompletionOptions& o) {
  OptionTable t("completions", "Print a completion script for a shell.");
  t.positional("shell", &o.shell, "which shell").one_of({"bash", "zsh", "fish"}).required();
  t.example("towline completions bash > /etc/bash_completion.d/towline");
  t.example("towline completions zsh >> ~/.zshrc");
  return t;
}

Result<int> run_completions(std::span<const std::string> args) {
  CompletionOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, completion_table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  std::string text = o.shell == "fish" ? fish_script() : bash_script();
  if (o.shell == "zsh") {
    text = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }\n"
           "autoload -U +X bashcompinit && bashcompinit\n" + text;
  }
  std::fputs(text.c_str(), stdout);
  return 0;
}

struct OptionsOptions {};

OptionTable options_table(OptionsOptions&) {
  return {"options", "Print the reference of all options as Markdown (docs/options.md)."};
}

Result<int> run_options(std::span<const std::string> args) {
  OptionsOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, options_table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  std::fputs("# Options\n\nGenerated by `towline options`; do not edit. A flag wins over its "
             "environment variable, that over the file given by `--config` (TOML or JSON, keys are "
             "option names), that over the default. Every command also takes `--config FILE`, "
             "`--print-config` and `--help`.\n\n", stdout);
  for (const Command& command : commands()) {
    command.describe(
        [](const OptionTable& table) { std::fputs(table.markdown().c_str(), stdout); });
  }
  return 0;
}

}  // namespace

const Command kCompletions = {"completions", "print a shell completion script", run_completions,
                              [](void (*sink)(const OptionTable&)) {
                                CompletionOptions o;
                                sink(completion_table(o));
                              }};

const Command kOptions = {"options", "print the reference of all options", run_options,
                          [](void (*sink)(const OptionTable&)) {
                            OptionsOptions o;
                            sink(options_table(o));
                          }};

}  // namespace towline::cli
