// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Options: one table per command. A row (name, field, bounds, default, help) is written once; flags,
// TOWLINE_* environment variables, the TOML file, --help, --print-config, shell completions and
// docs/options.md all come from it.
//
//   struct ServeOptions { std::string model; std::string host = "127.0.0.1"; int port = 8080; };
//   OptionTable table("serve", "Serve a model over an OpenAI-compatible HTTP API.");
//   table.positional("model", &o.model, "GGUF file or Hugging Face directory");
//   table.value("port", &o.port, "TCP port; 0 picks a free one").range(0, 65535);
//   table.example("towline serve model.gguf --port 8000");
//   ASSIGN_OR_RETURN(ParseOutcome outcome, table.parse(args));
//
// A field's value when it is registered is its default. Precedence: flag, then environment
// (TOWLINE_<NAME>, dashes as underscores), then the file given by --config, then the default. An
// unknown flag, a value out of range or of the wrong kind is one sentence that names it.
// CLI11 parses the command line and is included by options.cpp alone.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"

namespace towline {

class OptionTable;

// One row. Returned by reference from the table so that bounds can be chained.
class OptionRow {
 public:
  OptionRow& range(double low, double high);
  OptionRow& one_of(std::vector<std::string> choices);
  OptionRow& required();
  OptionRow& alias(std::string_view short_flag);     // "n" -> -n
  OptionRow& metavar(std::string_view placeholder);  // shown in --help
  OptionRow& secret();                               // --print-config shows "***"

  const std::string& name() const { return name_; }

 private:
  friend class OptionTable;
  enum class Kind { kFlag, kInt, kDouble, kString, kStringList, kIntList };
  // Checks kind, bounds and choices, then stores into the field.
  Result<void> set(const Json& value);
  Result<void> set_words(const std::vector<std::string>& words);
  std::string label() const;  // "--port", or "model" for a positional
  std::string note() const;   // " (one of ...) [default: ...]"
  std::string name_, help_, alias_, metavar_, default_text_;
  Kind kind_ = Kind::kString;
  bool positional_ = false, required_ = false, secret_ = false, bounded_ = false, given_ = false;
  double low_ = 0, high_ = 0;
  std::vector<std::string> choices_;
  std::function<void(const Json&)> assign_;
  std::function<Json()> read_;
};

enum class ParseOutcome {
  kRun,   // go on: all fields are set
  kDone,  // --help or --print-config was answered on stdout; exit with 0
};

class OptionTable {
 public:
  OptionTable(std::string command, std::string summary);

  OptionRow& flag(std::string_view name, bool* field, std::string_view help);
  OptionRow& value(std::string_view name, int* field, std::string_view help);
  OptionRow& value(std::string_view name, int64_t* field, std::string_view help);
  OptionRow& value(std::string_view name, double* field, std::string_view help);
  OptionRow& value(std::string_view name, std::string* field, std::string_view help);
  OptionRow& value(std::string_view name, std::vector<std::string>* field, std::string_view help);
  OptionRow& value(std::string_view name, std::vector<int>* field, std::string_view help);  // 1,8,32
  // Positionals are taken in the order registered; a list takes the rest.
  OptionRow& positional(std::string_view name, std::string* field, std::string_view help);
  OptionRow& positional(std::string_view name, std::vector<std::string>* field,
                        std::string_view help);
  void example(std::string_view command_line);
  // Paragraphs printed after the summary in --help.
  void describe(std::string_view text);

  // `args` are the words after the command's name.
  Result<ParseOutcome> parse(std::span<const std::string> args);

  const std::string& command() const { return command_; }
  const std::string& summary() const { return summary_; }
  std::vector<std::string> flag_names() const;  // "--port", ... for completions
  std::string help_text() const;
  std::string markdown() const;                 // this command's part of docs/options.md
  Json effective() const;                       // name -> value, secrets masked
  // After parse(): a flag, the environment or the file said it; false: it has its default.
  bool given(std::string_view name) const;

 private:
  OptionRow& add(std::string_view name, std::string_view help, OptionRow::Kind kind);
  static void finish(OptionRow& row);
  std::string usage_line() const;
  std::string command_, summary_, description_;
  std::vector<std::string> examples_;
  std::vector<std::unique_ptr<OptionRow>> rows_;
};

}  // namespace towline
