// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline top`: `towline status` again and again, in place.
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>

#include "base/fmt.hpp"
#include "cli/cluster_client.hpp"
#include "cli/commands.hpp"

namespace towline::cli {
namespace {

struct TopOptions {
  ClusterClient client;
  double interval = 1;
  bool once = false, json = false;
};

OptionTable table(TopOptions& o) {
  OptionTable t("top",
                "A live table of a running cluster: what `towline status` says, again and again.");
  o.client.add_rows(t);
  t.value("interval", &o.interval, "seconds between two looks").range(0.1, 3600);
  t.flag("once", &o.once, "one look, then end");
  t.flag("json", &o.json, "a line of JSON for each look");
  t.describe("On a terminal the table is drawn in place until Ctrl-C; elsewhere tables follow each "
             "other, with a blank line between.");
  t.example("towline top --url http://127.0.0.1:8080");
  t.example("towline top --json --interval 10 >> flow.jsonl");
  return t;
}

// Draws `lines` over what was drawn before. A line too long for the terminal is cut, so that one
// line stays one line.
class Screen {
 public:
  void draw(std::vector<std::string> lines) {
    winsize size{};
    const bool known = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    std::string text = drawn_ > 0 ? format("\x1b[{}A\r", drawn_) : "";
    const size_t rows = known ? std::max<size_t>(size.ws_row, 2) - 1 : lines.size();
    if (lines.size() > rows) lines.resize(rows);
    for (const std::string& line : lines) {
      text += (known ? line.substr(0, size.ws_col) : line) + "\x1b[K\n";
    }
    text += "\x1b[J";  // what the table before had below
    drawn_ = lines.size();
    std::fputs(text.c_str(), stdout);
    std::fflush(stdout);
  }

 private:
  size_t drawn_ = 0;
};

Result<int> run(std::span<const std::string> args) {
  TopOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  const bool in_place = !o.json && !o.once && ::isatty(STDOUT_FILENO) == 1;
  Screen screen;
  for (bool first = true;; first = false) {
    if (!first) ::poll(nullptr, 0, static_cast<int>(o.interval * 1000));
    const Result<Json> status = o.client.status();
    if (!status) {
      // On a terminal somebody watches: the cluster may come back.
      if (first || !in_place) return status.error();
      screen.draw({status.error().to_string()});
      continue;
    }
    if (in_place) {
      screen.draw(status_lines(*status));
    } else if (o.json) {
      std::puts(status->dump().c_str());
    } else {
      if (!first) std::puts("");
      for (const std::string& line : status_lines(*status)) std::puts(line.c_str());
    }
    if (o.once || std::fflush(stdout) != 0) return 0;
  }
}

}  // namespace

const Command kTop = {"top", "a live table of a running cluster", run,
                      [](void (*sink)(const OptionTable&)) {
                        TopOptions o;
                        sink(table(o));
                      }};

}  // namespace towline::cli
