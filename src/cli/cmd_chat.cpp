// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "base/log.hpp"
#include "cli/cluster_client.hpp"
#include "cli/commands.hpp"
#include "cli/line_reader.hpp"
#include "cli/solo_rows.hpp"
#include "serve/chat_session.hpp"
#include "serve/model_text.hpp"
#include "serve/remote_chat.hpp"

namespace towline::cli {
namespace {

struct ChatCommandOptions {
  std::string model, url, api_key, ca, system;
  std::vector<std::string> stop;
  int max_tokens = 0;
  SoloRows solo;
  bool stats = false, no_history = false;
};

OptionTable table(ChatCommandOptions& o) {
  OptionTable t("chat", "Talk with a model.");
  t.positional("model", &o.model,
               "GGUF file or Hugging Face directory; with --url the server's name for a model");
  t.value("url", &o.url,
          "talk to a server with OpenAI's API instead, at http:// or https://host:port");
  t.value("api-key", &o.api_key, "key that the server of --url wants").secret();
  t.value("ca", &o.ca, kCaHelp).metavar("FILE");
  t.value("system", &o.system, "system message: how the model shall behave");
  t.value("max-tokens", &o.max_tokens, "tokens of an answer at most; 0: what the context leaves")
      .alias("n")
      .range(0, 1 << 24);
  o.solo.add_drawing(t);
  t.value("stop", &o.stop, "text that ends an answer; may be repeated");
  o.solo.add_engine(t, "same seed, same answers; -1: new ones each time",
                    "the whole conversation");
  t.flag("stats", &o.stats, "after each answer print tokens and speed to stderr");
  t.flag("no-history", &o.no_history, "neither read nor keep the history of lines");
  t.flag("progress", &o.solo.progress, "show loading progress even if this is no terminal");
  t.describe("Type a message; a line that ends with '\\' goes on in the next. Ctrl-C stops an "
             "answer and keeps the conversation; Ctrl-D or /quit leaves; /help lists the commands. "
             "From a pipe each line is a message.");
  t.example("towline chat model.gguf --system \"Answer in one sentence.\"");
  t.example("towline chat --url http://127.0.0.1:8080");
  t.example("echo \"Who are you?\" | towline chat model.gguf --temperature 0");
  return t;
}

constexpr const char* kHelp =
    "/help          this\n"
    "/reset         forget the conversation\n"
    "/system TEXT   set the system message; without TEXT none\n"
    "/save FILE     write the conversation as JSON\n"
    "/quit          leave (also Ctrl-D)\n"
    "Ctrl-C stops an answer. A line that ends with '\\' goes on in the next.\n";

std::atomic<bool> interrupted{false};

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted = true; };
  ::sigaction(SIGINT, &action, nullptr);  // no SA_RESTART: the line editor shall notice
}

serve::ChatOptions chat_options(const ChatCommandOptions& o) {
  serve::ChatOptions chat;
  chat.max_tokens = o.max_tokens;
  chat.stop = o.stop;
  chat.sampling = o.solo.sampling();
  return chat;
}

// Handles a line that begins with '/'; false to leave.
template <class Chat>
bool run_slash(const std::string& line, Chat& chat) {
  const size_t space = line.find(' ');
  const std::string word = line.substr(0, space);
  std::string rest = space == std::string::npos ? "" : line.substr(space + 1);
  while (rest.ends_with(' ')) rest.pop_back();
  if (word == "/quit" || word == "/exit") return false;
  if (word == "/help") {
    std::fputs(kHelp, stdout);
  } else if (word == "/reset") {
    chat.reset();
    std::puts("(forgotten)");
  } else if (word == "/system") {
    chat.set_system(rest);
    std::puts(rest.empty() ? "(no system message)" : "(system message set)");
  } else if (word == "/save") {
    const Result<void> saved =
        rest.empty() ? Error(Code::kInvalidArgument, "/save needs a file's name")
                     : write_file_atomic(rest, chat.messages().dump(2) + "\n");
    std::puts(saved ? format("(saved to {})", rest).c_str() : saved.error().to_string().c_str());
  } else {
    std::puts(format("'{}' is not a command; /help lists them", word).c_str());
  }
  return true;
}

// Joins lines that end with a backslash.
std::optional<std::string> read_message(LineReader& reader) {
  std::optional<std::string> line = reader.read("> ");
  while (line && line->ends_with('\\')) {
    line->back() = '\n';
    const std::optional<std::string> more = reader.read("  ");
    if (!more) break;
    *line += *more;
  }
  return line;
}

template <class Chat>
void answer(Chat& chat, const std::string& message, serve::ChatOptions& options,
            bool stats) {
  using Clock = std::chrono::steady_clock;
  interrupted = false;
  const Clock::time_point start = Clock::now();
  Clock::time_point first{};
  const auto show = [&](std::string_view text) {
    if (first == Clock::time_point{}) first = Clock::now();
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  };
  const Result<serve::ChatAnswer> result = chat.ask(message, options, show, interrupted);
  std::puts("");
  if (!result) {
    std::fputs(format("towline: {}\n", result.error().to_string()).c_str(), stderr);
    return;
  }
  ++options.sampling.seed;  // the next answer is drawn anew, and as reproducibly
  if (result->finish == serve::FinishReason::kCancelled) {
    std::fputs("(stopped)\n", stderr);
  } else if (result->finish == serve::FinishReason::kLength) {
    std::fputs("(cut at the limit of tokens)\n", stderr);
  }
  if (!stats) return;
  const double wait = std::chrono::duration<double>(first - start).count();
  const double rest = std::chrono::duration<double>(Clock::now() - first).count();
  const std::string line = format(
      "[prompt {} tokens, {} cached, first after {:.2f} s; {} tokens, {:.1f} tokens/s; "
      "{} messages forgotten]\n",
      result->prompt_tokens, result->cached_tokens, std::max(0.0, wait), result->output_tokens,
      rest > 0 ? static_cast<double>(result->output_tokens - 1) / rest : 0.0, result->forgotten);
  std::fputs(line.c_str(), stderr);
}

// The conversation, to the end of input; `chat` is a ChatSession or a RemoteChat.
template <class Chat>
void talk(Chat& chat, const ChatCommandOptions& o, std::string_view name, std::string_view remark) {
  chat.set_system(o.system);
  LineReader reader(o.no_history ? std::string() : state_file("chat_history"));
  if (reader.terminal()) {
    std::puts(format("{}; /help lists commands, Ctrl-D leaves.", name).c_str());
    if (!remark.empty()) std::puts(std::string(remark).c_str());
    catch_interrupts();
  }
  serve::ChatOptions options = chat_options(o);
  while (const std::optional<std::string> message = read_message(reader)) {
    if (message->find_first_not_of(" \t\n") == std::string::npos) continue;
    if (message->starts_with('/')) {
      if (!run_slash(*message, chat)) break;
      continue;
    }
    answer(chat, *message, options, o.stats);
  }
}

Result<int> talk_to_server(const ChatCommandOptions& o) {
  ASSIGN_OR_RETURN(serve::ServerUrl target, serve::ServerUrl::parse(o.url, o.ca));
  ASSIGN_OR_RETURN(serve::RemoteChat chat,
                   serve::RemoteChat::connect(std::move(target), o.api_key, o.model));
  talk(chat, o, format("{} at {}", chat.model(), o.url), "");
  return 0;
}

Result<int> run(std::span<const std::string> args) {
  ChatCommandOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  if (!o.url.empty()) return talk_to_server(o);
  if (o.model.empty()) {
    return Error(Code::kInvalidArgument,
                 "chat needs a model, or the address of a server with --url");
  }
  ASSIGN_OR_RETURN(engine::ModelFile opened, engine::ModelFile::open(o.model));
  const auto file = std::make_shared<engine::ModelFile>(std::move(opened));
  ASSIGN_OR_RETURN(const std::unique_ptr<serve::ModelText> text, serve::ModelText::open(*file));
  serve::ChatSession chat(*text);
  ASSIGN_OR_RETURN(const std::unique_ptr<serve::LocalEngine> engine,
                   o.solo.start(file, chat.sink()));
  chat.attach(*engine);
  talk(chat, o, file->desc().name,
       text->has_chat_template()
           ? ""
           : "(the model has no chat template: it is shown a plain dialogue)");
  return 0;
}

}  // namespace

const Command kChat = {"chat", "talk with a model", run,
                       [](void (*sink)(const OptionTable&)) {
                         ChatCommandOptions o;
                         sink(table(o));
                       }};

}  // namespace towline::cli
