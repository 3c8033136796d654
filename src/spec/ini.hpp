// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// IniFile: the sections and keys of an INI file in the order written, with the line of each, so
// that an error can name the place. Read as Python's ConfigParser reads (which is what wrote the
// files): '#' and ';' begin a comment line, keys are case-blind, '=' or ':' divides key and value.
// Continuation lines are not accepted, duplicate sections and keys are errors. Memory is a small
// multiple of the text's size.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace towline::spec {

struct IniEntry {
  std::string key;  // lower case
  std::string value;
  int line = 0;
};

struct IniSection {
  std::string name;
  int line = 0;
  std::vector<IniEntry> entries;

  const IniEntry* find(std::string_view key) const;
};

class IniFile {
 public:
  // `source` names the text in errors.
  static Result<IniFile> parse(std::string_view text, std::string_view source);
  static Result<IniFile> load(const std::string& path);

  const std::string& source() const { return source_; }
  const std::vector<std::string>& heading() const { return heading_; }  // comments before [first]
  const std::vector<IniSection>& sections() const { return sections_; }
  const IniSection* find(std::string_view name) const;

  // The value of a key that must be there. The errors name file, line, section, key and remedy.
  Result<const IniSection*> section(std::string_view name) const;
  Result<const IniEntry*> entry(const IniSection& section, std::string_view key) const;
  // A fault in one value: "file:line: [section] key = value: what".
  Error fault(const IniSection& section, const IniEntry& entry, std::string_view what) const;
  Error fault(int line, std::string_view what) const;

 private:
  std::string source_;
  std::vector<std::string> heading_;
  std::vector<IniSection> sections_;
  std::map<std::string, size_t, std::less<>> by_name_;
};

// The text of one of these files; a gigabyte is refused.
Result<std::string> read_text(const std::string& path);

}  // namespace towline::spec
