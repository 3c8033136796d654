// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/text/text_pipeline.hpp"

#include <algorithm>

#include "base/fmt.hpp"
#include "base/utf8.hpp"
#include "engine/text/characters.hpp"

namespace towline::engine {
namespace {

using Kind = TextStep::Kind;
using Behavior = TextStep::Behavior;

// A rewriting step may make text longer (NFKD: 18-fold at worst); a chain of them must not explode.
constexpr size_t kMaxGrowth = 64;

struct Segment {
  size_t begin, end;
  bool match;
};

// Covers [0, text.size()) with matches and the text between them. Invalid UTF-8 never matches.
Result<void> find_regex(std::string_view text, RegexScan& scan, std::vector<Segment>& out) {
  size_t done = 0;
  for (size_t run = 0; run < text.size();) {
    const size_t length = utf8_valid_run(text, run);
    scan.reset(text.substr(run, length));
    while (length > 0) {
      ASSIGN_OR_RETURN(const RegexScan::Match match, scan.next());
      if (!match.found) break;
      if (run + match.begin > done) out.push_back({done, run + match.begin, false});
      out.push_back({run + match.begin, run + match.end, true});
      done = run + match.end;
    }
    run += length;
    if (run > done) out.push_back({done, run, false});
    done = run;
    while (run < text.size() && utf8_length(text, run) == 0) ++run;
    if (run > done) out.push_back({done, run, false});
    done = run;
  }
  return {};
}

void find_literal(std::string_view text, std::string_view what, std::vector<Segment>& out) {
  size_t done = 0;
  while (!what.empty()) {
    const size_t at = text.find(what, done);
    if (at == std::string_view::npos) break;
    if (at > done) out.push_back({done, at, false});
    out.push_back({at, at + what.size(), true});
    done = at + what.size();
  }
  if (done < text.size()) out.push_back({done, text.size(), false});
}

// Turns segments into pieces, as Hugging Face's SplitDelimiterBehavior does.
void apply_behavior(Behavior behavior, std::vector<Segment>& segments) {
  std::vector<Segment> out;
  out.reserve(segments.size());
  const auto join = [&](bool (*joins)(const Segment&, const Segment&)) {
    bool last_was_match = false;
    for (const Segment& s : segments) {
      if (!out.empty() && joins(Segment{0, 0, last_was_match}, s)) {
        out.back().begin = std::min(out.back().begin, s.begin);
        out.back().end = std::max(out.back().end, s.end);
      } else {
        out.push_back(s);
      }
      last_was_match = s.match;
    }
  };
  switch (behavior) {
    case Behavior::kIsolated: return;
    case Behavior::kRemoved:
      std::erase_if(segments, [](const Segment& s) { return s.match; });
      return;
    case Behavior::kContiguous:
      join([](const Segment& last, const Segment& s) { return last.match == s.match; });
      break;
    case Behavior::kMergedWithPrevious:
      join([](const Segment& last, const Segment& s) { return s.match && !last.match; });
      break;
    case Behavior::kMergedWithNext:
      std::reverse(segments.begin(), segments.end());
      join([](const Segment& last, const Segment& s) { return s.match && !last.match; });
      std::reverse(out.begin(), out.end());
      break;
  }
  segments = std::move(out);
}

std::string replaced(std::string_view text, const std::vector<Segment>& segments,
                     std::string_view with) {
  std::string out;
  for (const Segment& s : segments) out += s.match ? with : text.substr(s.begin, s.end - s.begin);
  return out;
}

std::string collapsed_spaces(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c != ' ' || (!out.empty() && out.back() != ' ')) out += c;
  }
  if (out.ends_with(' ')) out.pop_back();
  return out;
}

std::string stripped(std::string_view text, const TextStep& step) {
  if (step.left) text = trimmed_left(text);
  if (step.right) text = trimmed_right(text);
  return std::string(text);
}

// Steps that need no matching.
std::string rewritten(std::string_view text, const TextStep& step, bool at_start) {
  switch (step.kind) {
    case Kind::kPrepend:
      return (step.when == TextStep::When::kFirst && !at_start ? "" : step.content) +
             std::string(text);
    case Kind::kMetaspacePrefix:
      return ((step.when == TextStep::When::kFirst && !at_start) || text.starts_with(step.content)
                  ? ""
                  : step.content) +
             std::string(text);
    case Kind::kPrefixSpace: return (text.starts_with(' ') ? "" : " ") + std::string(text);
    case Kind::kNfc: return normalized(text, NormalForm::kNfc);
    case Kind::kNfd: return normalized(text, NormalForm::kNfd);
    case Kind::kNfkc: return normalized(text, NormalForm::kNfkc);
    case Kind::kNfkd: return normalized(text, NormalForm::kNfkd);
    case Kind::kLowercase: return lower_case(text);
    case Kind::kStripAccents: return without_accents(text);
    case Kind::kStrip: return stripped(text, step);
    case Kind::kCollapseSpaces: return collapsed_spaces(text);
    case Kind::kByteMap: return byte_map(text);
    case Kind::kByteUnmap: {
      std::string bytes;
      return byte_unmap(text, bytes) ? bytes : std::string(text);
    }
    default: return std::string(text);
  }
}

bool needs_regex(const TextStep& step) {
  return step.kind == Kind::kReplaceRegex || (step.kind == Kind::kSplit && !step.literal);
}
bool finds(const TextStep& step) {
  return step.kind == Kind::kReplace || step.kind == Kind::kReplaceRegex ||
         step.kind == Kind::kSplit;
}

}  // namespace

Result<TextPipeline> TextPipeline::compile(const std::vector<TextStep>& steps) {
  TextPipeline pipeline;
  for (const TextStep& step : steps) {
    Compiled compiled{step, std::nullopt};
    if (needs_regex(step)) {
      ASSIGN_OR_RETURN(compiled.regex, Regex::compile(step.pattern));
    }
    pipeline.steps_.push_back(std::move(compiled));
  }
  return pipeline;
}

Result<void> TextPipeline::run(Pieces& pieces) const {
  const size_t limit = (pieces.text.size() + 1024) * kMaxGrowth;
  for (const Compiled& compiled : steps_) {
    const TextStep& step = compiled.step;
    std::optional<RegexScan> scan;
    if (compiled.regex) scan.emplace(*compiled.regex);
    Pieces next;
    next.at_start = pieces.at_start;
    next.text.reserve(pieces.text.size());
    next.ends.reserve(pieces.ends.size());
    std::vector<Segment> segments;
    for (size_t k = 0; k < pieces.size(); ++k) {
      const std::string_view piece = pieces[k];
      if (!finds(step)) {
        next.add(rewritten(piece, step, pieces.at_start && k == 0));
        continue;
      }
      segments.clear();
      if (scan) {
        TRY(find_regex(piece, *scan, segments));
      } else {
        find_literal(piece, step.pattern, segments);
      }
      if (step.kind != Kind::kSplit) {
        next.add(replaced(piece, segments, step.content));
        continue;
      }
      if (step.invert) {
        for (Segment& s : segments) s.match = !s.match;
      }
      apply_behavior(step.behavior, segments);
      for (const Segment& s : segments) next.add(piece.substr(s.begin, s.end - s.begin));
    }
    pieces = std::move(next);
    if (pieces.text.size() > limit) {
      return errorf(Code::kExhausted, "the vocabulary's rules make this text more than {} times "
                    "longer", kMaxGrowth);
    }
  }
  return {};
}

}  // namespace towline::engine
