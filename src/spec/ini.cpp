// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "spec/ini.hpp"

#include <algorithm>
#include <set>

#include "base/file.hpp"
#include "base/fmt.hpp"

namespace towline::spec {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{1} << 30;

std::string_view trim(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n\f\v";
  const size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return result;
}

std::string shorten(std::string_view text) {
  constexpr size_t kShown = 60;
  return text.size() <= kShown ? std::string(text) : std::string(text.substr(0, kShown)) + "...";
}

}  // namespace

const IniEntry* IniSection::find(std::string_view key) const {
  const auto found = std::find_if(entries.begin(), entries.end(),
                                  [&](const IniEntry& entry) { return entry.key == key; });
  return found == entries.end() ? nullptr : &*found;
}

Result<std::string> read_text(const std::string& path) { return read_file(path, kMaxFileBytes); }

Result<IniFile> IniFile::load(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, read_text(path));
  return parse(text, path);
}

Result<IniFile> IniFile::parse(std::string_view text, std::string_view source) {
  IniFile file;
  file.source_ = source;
  std::set<std::string> keys;  // of the section being read
  int line_number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view raw = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    ++line_number;
    const std::string_view line = trim(raw);
    if (line.empty()) continue;
    if (line.front() == '#' || line.front() == ';') {
      if (file.sections_.empty()) file.heading_.emplace_back(line);
      continue;
    }
    if (line.front() == '[') {
      if (line.size() < 3 || line.back() != ']') {
        return file.fault(line_number, "'" + shorten(line) + "' is not a section like [Name]");
      }
      const std::string name(line.substr(1, line.size() - 2));
      if (!file.by_name_.emplace(name, file.sections_.size()).second) {
        return file.fault(line_number,
                          "section [" + shorten(name) + "] is given twice; remove one");
      }
      file.sections_.push_back({name, line_number, {}});
      keys.clear();
      continue;
    }
    const size_t divider = line.find_first_of("=:");
    if (divider == std::string_view::npos || file.sections_.empty()) {
      return file.fault(line_number,
                        "'" + shorten(line) + "' is not a 'key = value' line inside a [section]");
    }
    IniEntry entry{lower(trim(line.substr(0, divider))),
                   std::string(trim(line.substr(divider + 1))), line_number};
    if (!keys.insert(entry.key).second) {
      return file.fault(line_number, "key '" + shorten(entry.key) + "' is given twice in [" +
                                         file.sections_.back().name + "]; remove one");
    }
    file.sections_.back().entries.push_back(std::move(entry));
  }
  return file;
}

const IniSection* IniFile::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &sections_[found->second];
}

Result<const IniSection*> IniFile::section(std::string_view name) const {
  const IniSection* found = find(name);
  if (found == nullptr) {
    return errorf(Code::kInvalidArgument, "{}: there is no section [{}]; add it", source_, name);
  }
  return found;
}

Result<const IniEntry*> IniFile::entry(const IniSection& section, std::string_view key) const {
  const IniEntry* found = section.find(key);
  if (found == nullptr) {
    return fault(section.line, format("section [{}] has no '{}'; add it", section.name, key));
  }
  return found;
}

Error IniFile::fault(const IniSection& section, const IniEntry& entry,
                     std::string_view what) const {
  return fault(entry.line,
               format("[{}] {} = {}: {}", section.name, entry.key, shorten(entry.value), what));
}

Error IniFile::fault(int line, std::string_view what) const {
  return errorf(Code::kInvalidArgument, "{}:{}: {}", source_, line, what);
}

}  // namespace towline::spec
