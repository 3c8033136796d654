// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "base/options.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "base/fmt.hpp"

namespace towline {
namespace {

std::string env_name(std::string_view flag) {
  std::string name = "TOWLINE_";
  for (const char c : flag) {
    name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return name;
}

// One word of the command line, the environment or a list, as the kind the row wants.
Result<Json> word_to_json(std::string_view word, bool integer, bool number) {
  if (!number) return Json(word);
  const std::string text(word);
  char* end = nullptr;
  errno = 0;
  if (integer) {
    const long long v = std::strtoll(text.c_str(), &end, 10);
    if (errno == 0 && !text.empty() && *end == '\0') return Json(v);
  } else {
    const double v = std::strtod(text.c_str(), &end);
    if (!text.empty() && *end == '\0' && std::isfinite(v)) return Json(v);
  }
  return errorf(Code::kInvalidArgument, "'{}' is not {}", word,
                integer ? "a whole number" : "a number");
}

std::string show(const Json& value) {
  if (value.is_string()) return value.as_string();
  if (!value.is_array()) return value.dump();
  std::string text;
  for (const Json& item : value.items()) text += (text.empty() ? "" : ",") + show(item);
  return text;
}

}  // namespace

OptionRow& OptionRow::range(double low, double high) {
  bounded_ = true;
  low_ = low;
  high_ = high;
  return *this;
}
OptionRow& OptionRow::one_of(std::vector<std::string> choices) {
  choices_ = std::move(choices);
  return *this;
}
OptionRow& OptionRow::required() {
  required_ = true;
  return *this;
}
OptionRow& OptionRow::alias(std::string_view short_flag) {
  alias_ = short_flag;
  return *this;
}
OptionRow& OptionRow::metavar(std::string_view placeholder) {
  metavar_ = placeholder;
  return *this;
}
OptionRow& OptionRow::secret() {
  secret_ = true;
  return *this;
}

Result<void> OptionRow::set(const Json& value) {
  const auto reject = [&](std::string_view why) {
    return errorf(Code::kInvalidArgument, "{}: {}", label(), why);
  };
  const auto check_one = [&](const Json& item) -> Result<void> {
    if (bounded_ && (item.as_double() < low_ || item.as_double() > high_)) {
      return reject(
          format("{} is out of range; it must be from {} to {}", show(item), low_, high_));
    }
    if (!choices_.empty() && std::ranges::find(choices_, item.as_string()) == choices_.end()) {
      return reject(format("'{}' is not one of: {}", show(item),
                           fmt::format("{}", fmt::join(choices_, ", "))));
    }
    return {};
  };
  const auto kind_ok = [&](const Json& item) {
    switch (kind_) {
      case Kind::kFlag: return item.is_bool();
      case Kind::kInt:
      case Kind::kIntList: return item.is_int();
      case Kind::kDouble: return item.is_number();
      default: return item.is_string();
    }
  };
  const bool list = kind_ == Kind::kStringList || kind_ == Kind::kIntList;
  Json whole = value;
  if (list && !value.is_array()) whole = Json::array({value});
  for (const Json& item : list ? whole.items() : Json::Array{whole}) {
    if (!kind_ok(item)) {
      return reject(format("'{}' is a {}, which does not fit here", show(item), item.type_name()));
    }
    TRY(check_one(item));
  }
  assign_(whole);
  return {};
}

Result<void> OptionRow::set_words(const std::vector<std::string>& words) {
  const bool integer = kind_ == Kind::kInt || kind_ == Kind::kIntList;
  const bool number = integer || kind_ == Kind::kDouble;
  if (kind_ == Kind::kFlag) {
    const std::string& word = words.empty() ? "true" : words.front();
    if (word != "true" && word != "1" && word != "false" && word != "0") {
      return errorf(Code::kInvalidArgument, "{}: '{}' is neither true nor false", label(), word);
    }
    return set(Json(word == "true" || word == "1"));
  }
  Json list = Json::array();
  for (const std::string& word : words) {
    size_t begin = 0;
    // 1,8,32; and words that are to be chosen from some.
    const bool splits =
        kind_ == Kind::kIntList || (kind_ == Kind::kStringList && !choices_.empty());
    while (true) {
      const size_t comma = splits ? word.find(',', begin) : std::string::npos;
      Result<Json> one = word_to_json(std::string_view(word).substr(begin, comma - begin), integer,
                                      number);
      if (!one) return std::move(one).error().context(label());
      list.push(*std::move(one));
      if (comma == std::string::npos) break;
      begin = comma + 1;
    }
  }
  const bool wants_list = kind_ == Kind::kStringList || kind_ == Kind::kIntList;
  return set(wants_list ? list : list[list.size() - 1]);
}

std::string OptionRow::label() const { return positional_ ? name_ : "--" + name_; }

OptionTable::OptionTable(std::string command, std::string summary)
    : command_(std::move(command)), summary_(std::move(summary)) {}

OptionRow& OptionTable::add(std::string_view name, std::string_view help, OptionRow::Kind kind) {
  rows_.push_back(std::make_unique<OptionRow>());
  OptionRow& row = *rows_.back();
  row.name_ = name;
  row.help_ = help;
  row.kind_ = kind;
  return row;
}

void OptionTable::finish(OptionRow& row) { row.default_text_ = show(row.read_()); }

OptionRow& OptionTable::flag(std::string_view name, bool* field, std::string_view help) {
  OptionRow& row = add(name, help, OptionRow::Kind::kFlag);
  row.assign_ = [field](const Json& v) { *field = v.as_bool(); };
  row.read_ = [field] { return Json(*field); };
  finish(row);
  return row;
}
OptionRow& OptionTable::value(std::string_view name, int* field, std::string_view help) {
  OptionRow& row = add(name, help, OptionRow::Kind::kInt);
  row.assign_ = [field](const Json& v) { *field = static_cast<int>(v.as_int()); };
  row.read_ = [field] { return Json(*field); };
  row.range(-2147483648.0, 2147483647.0);
  finish(row);
  return row;
}
OptionRow& OptionTable::value(std::string_view name, int64_t* field, std::string_view help) {
  OptionRow& row = add(name, help, OptionRow::Kind::kInt);
  row.assign_ = [field](const Json& v) { *field = v.as_int(); };
  row.read_ = [field] { return Json(*field); };
  finish(row);
  return row;
}
OptionRow& OptionTable::value(std::string_view name, double* field, std::string_view help) {
  OptionRow& row = add(name, help, OptionRow::Kind::kDouble);
  row.assign_ = [field](const Json& v) { *field = v.as_double(); };
  row.read_ = [field] { return Json(*field); };
  finish(row);
  return row;
}
OptionRow& OptionTable::value(std::string_view name, std::string* field, std::string_view help) {
  OptionRow& row = add(name, help, OptionRow::Kind::kString);
  row.assign_ = [field](const Json& v) { *field = v.as_string(); };
  row.read_ = [field] { return Json(*field); };
  finish(row);
  return row;
}
OptionRow& OptionTable::value(std::string_view name, std::vector<std::string>* field,
                              std::string_view help) {
  OptionRow& row = add(name, help, OptionRow::Kind::kStringList);
  row.assign_ = [field](const Json& v) {
    field->clear();
    for (const Json& item : v.items()) field->push_back(item.as_string());
  };
  row.read_ = [field] { return Json(Json::Array(field->begin(), field->end())); };
  finish(row);
  return row;
}
OptionRow& OptionTable::value(std::string_view name, std::vector<int>* field,
                              std::string_view help) {
  OptionRow& row = add(name, help, OptionRow::Kind::kIntList);
  row.assign_ = [field](const Json& v) {
    field->clear();
    for (const Json& item : v.items()) field->push_back(static_cast<int>(item.as_int()));
  };
  row.read_ = [field] { return Json(Json::Array(field->begin(), field->end())); };
  row.range(-2147483648.0, 2147483647.0);
  finish(row);
  return row;
}
OptionRow& OptionTable::positional(std::string_view name, std::string* field,
                                   std::string_view help) {
  OptionRow& row = value(name, field, help);
  row.positional_ = true;
  return row;
}
OptionRow& OptionTable::positional(std::string_view name, std::vector<std::string>* field,
                                   std::string_view help) {
  OptionRow& row = value(name, field, help);
  row.positional_ = true;
  return row;
}
void OptionTable::example(std::string_view command_line) { examples_.emplace_back(command_line); }
void OptionTable::describe(std::string_view text) {
  description_ += (description_.empty() ? "" : "\n\n") + std::string(text);
}

Result<ParseOutcome> OptionTable::parse(std::span<const std::string> args) {
  CLI::App app(summary_, "towline " + command_);
  app.set_help_flag("");
  bool help = false, print_config = false;
  std::string config;
  app.add_flag("-h,--help", help);
  app.add_flag("--print-config", print_config);
  app.add_option("--config", config);
  std::vector<CLI::Option*> parsed;
  std::vector<std::vector<std::string>> words(rows_.size());
  std::vector<int64_t> flags(rows_.size());
  for (size_t i = 0; i < rows_.size(); ++i) {
    const OptionRow& row = *rows_[i];
    const std::string flag =
        row.positional_ ? row.name_
                        : (row.alias_.empty() ? "" : "-" + row.alias_ + ",") + "--" + row.name_;
    if (row.kind_ == OptionRow::Kind::kFlag) {
      parsed.push_back(app.add_flag(flag + ",!--no-" + row.name_, flags[i]));
      continue;
    }
    const bool list = row.kind_ == OptionRow::Kind::kStringList;
    parsed.push_back(app.add_option(flag, words[i]));
    parsed.back()->expected(1);
    if (list && row.positional_) parsed.back()->expected(0, 1 << 20);
    if (list && !row.positional_) parsed.back()->allow_extra_args(false)->take_all();
    if (!list) parsed.back()->take_last();
    // Or an option or a positional swallows the words meant for the positionals after it.
    if (!list) parsed.back()->allow_extra_args(false);
  }
  try {
    app.parse(std::vector<std::string>(args.rbegin(), args.rend()));
  } catch (const CLI::ParseError& e) {
    if (!help) {
      return errorf(Code::kInvalidArgument, "{}; see 'towline {} --help'", e.what(), command_);
    }
  }
  if (help) {
    std::fputs(help_text().c_str(), stdout);
    return ParseOutcome::kDone;
  }
  Json file;
  if (!config.empty()) {
    ASSIGN_OR_RETURN(file, load_json(config));
    if (const Json* section = file.find(command_); section && section->is_object()) {
      file = Json(*section);
    }
    for (const Json::Member& member : file.members()) {
      if (member.second.is_object() || member.first == "schema") continue;
      if (std::ranges::none_of(rows_, [&](const auto& r) { return r->name_ == member.first; })) {
        return errorf(Code::kInvalidArgument, "{}: '{}' is not an option of 'towline {}'", config,
                      member.first, command_);
      }
    }
  }
  for (size_t i = 0; i < rows_.size(); ++i) {
    OptionRow& row = *rows_[i];
    const char* env = row.positional_ ? nullptr : std::getenv(env_name(row.name_).c_str());
    row.given_ = true;
    if (parsed[i]->count() > 0) {
      if (row.kind_ == OptionRow::Kind::kFlag) {
        TRY(row.set(Json(flags[i] > 0)));
      } else {
        TRY(row.set_words(words[i]));
      }
    } else if (env != nullptr && *env != '\0') {
      TRY(row.set_words({env}).context("environment variable " + env_name(row.name_)));
    } else if (const Json* value = file.find(row.name_)) {
      TRY(row.set(*value).context(config));
    } else if (row.required_) {
      return errorf(Code::kInvalidArgument, "{} is needed; see 'towline {} --help'", row.label(),
                    command_);
    } else {
      row.given_ = false;
    }
  }
  if (print_config) {
    std::fputs((effective().dump(2) + "\n").c_str(), stdout);
    return ParseOutcome::kDone;
  }
  return ParseOutcome::kRun;
}

std::vector<std::string> OptionTable::flag_names() const {
  std::vector<std::string> names;
  for (const auto& row : rows_) {
    if (!row->positional_) names.push_back("--" + row->name_);
  }
  for (const char* common : {"--config", "--print-config", "--help"}) names.emplace_back(common);
  return names;
}

std::string OptionTable::usage_line() const {
  std::string line = "towline " + command_ + " [OPTIONS]";
  for (const auto& row : rows_) {
    if (!row->positional_) continue;
    std::string name;
    for (const char c : row->name_) {
      name += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    }
    if (row->kind_ == OptionRow::Kind::kStringList) name += "...";
    line += row->required_ ? " " + name : " [" + name + "]";
  }
  return line;
}

std::string OptionTable::help_text() const {
  std::string text = summary_ + "\n";
  if (!description_.empty()) text += "\n" + description_ + "\n";
  text += "\nUsage: " + usage_line() + "\n\nOptions:\n";
  const auto line = [&](const std::string& left, const std::string& right) {
    text += left.size() < 28 ? fmt::format("  {:<28}{}\n", left, right)
                             : fmt::format("  {}\n  {:<28}{}\n", left, "", right);
  };
  for (const auto& row : rows_) {
    std::string left = row->positional_ ? row->name_ : "--" + row->name_;
    if (!row->alias_.empty()) left = "-" + row->alias_ + ", " + left;
    if (!row->metavar_.empty()) left += " " + row->metavar_;
    line(left, row->help_ + row->note());
  }
  line("--config FILE", "read options from a TOML or JSON file (flags and environment win)");
  line("--print-config", "print the options in effect and exit");
  line("-h, --help", "print this help and exit");
  if (!examples_.empty()) {
    text += "\nExamples:\n";
    for (const std::string& example : examples_) text += "  " + example + "\n";
  }
  return text;
}

std::string OptionRow::note() const {
  std::string text;
  if (!choices_.empty()) text += fmt::format(" (one of: {})", fmt::join(choices_, ", "));
  if (required_) return text + " [required]";
  if (kind_ == Kind::kFlag || default_text_.empty()) return text;
  return text + " [default: " + default_text_ + "]";
}

std::string OptionTable::markdown() const {
  std::string text = fmt::format("## `towline {}`\n\n{}\n\n", command_, summary_);
  if (!description_.empty()) text += description_ + "\n\n";
  text += "```\n" + usage_line() + "\n```\n\n";
  if (!rows_.empty()) text += "| option | environment | meaning | default |\n|---|---|---|---|\n";
  for (const auto& row : rows_) {
    const std::string name = row->label() + (row->alias_.empty() ? "" : "`, `-" + row->alias_);
    const std::string environment = row->positional_ ? "" : "`" + env_name(row->name_) + "`";
    std::string choices, fallback;
    if (!row->choices_.empty()) {
      choices = fmt::format(" (one of: {})", fmt::join(row->choices_, ", "));
    }
    if (!row->default_text_.empty()) fallback = "`" + row->default_text_ + "`";
    text += fmt::format("| `{}` | {} | {}{} | {} |\n", name, environment, row->help_, choices,
                        row->required_ ? "required" : fallback);
  }
  if (!examples_.empty()) {
    text += "\n```sh\n";
    for (const std::string& example : examples_) text += example + "\n";
    text += "```\n";
  }
  return text + "\n";
}

bool OptionTable::given(std::string_view name) const {
  return std::ranges::any_of(rows_, [&](const auto& r) { return r->name_ == name && r->given_; });
}

Json OptionTable::effective() const {
  Json out = Json::object();
  for (const auto& row : rows_) {
    const Json value = row->read_();
    const bool mask = row->secret_ && !show(value).empty();
    out.set(row->name_, mask ? Json("***") : value);
  }
  return out;
}

}  // namespace towline
