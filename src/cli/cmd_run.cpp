// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <ctime>
#include <iostream>
#include <iterator>
#include <mutex>

#include "base/fmt.hpp"
#include "cli/commands.hpp"
#include "cli/solo_rows.hpp"
#include "engine/text/chat_template.hpp"
#include "engine/text/tokenizer.hpp"

namespace towline::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct RunOptions {
  std::string model;
  std::string prompt;
  int max_tokens = 256;
  double repetition_penalty = 1.0;
  SoloRows solo;
  bool ignore_end = false;
  bool chat = false;
  bool json = false;
};

OptionTable table(RunOptions& o) {
  OptionTable t("run", "Continue a text with a model, once, and print it as it comes.");
  t.positional("model", &o.model, "GGUF file or Hugging Face directory").required();
  t.positional("prompt", &o.prompt, "text to continue; '-' reads standard input").required();
  t.value("max-tokens", &o.max_tokens, "output tokens at most").alias("n").range(0, 1 << 24);
  o.solo.add_drawing(t);
  t.value("repetition-penalty", &o.repetition_penalty, "divides the logits of tokens seen; 1: off")
      .range(0.001, 1000);
  o.solo.add_engine(t, "same seed, same text; -1: a new one each time",
                    "prompt and output together");
  t.flag("ignore-end", &o.ignore_end, "go on after the model's end-of-text token");
  t.flag("chat", &o.chat, "take the prompt as a user's message: apply the model's chat template");
  t.flag("json", &o.json, "print {prompt_ids, out_ids, text} instead of streaming");
  t.flag("progress", &o.solo.progress, "show loading progress even if this is no terminal");
  t.describe("Without --chat the prompt is taken as it is: BOS is added if the model asks for it, "
             "and control tokens in it are plain text.");
  t.example("towline run model.gguf \"Once upon a time\" -n 100");
  t.example("towline run model.gguf \"Once upon a time\" -n 32 --temperature 0 --json");
  t.example("towline run model.gguf \"What is a towline?\" --chat");
  return t;
}

// Collects one request's events; hands its tokens on as they come.
class Answer {
 public:
  serve::EventSink sink() {
    return [this](std::vector<serve::GenerationEvent>&& events) {
      const std::lock_guard lock(mutex_);
      for (serve::GenerationEvent& event : events) {
        for (const serve::GeneratedToken& token : event.tokens) fresh_.push_back(token.token);
        finish_ = event.finish;
        if (event.error) error_ = event.error;
      }
      changed_.notify_one();
    };
  }
  // Waits for new tokens or the end; false at the end.
  bool next(std::vector<int32_t>& tokens) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !fresh_.empty() || finish_ != serve::FinishReason::kNone; });
    tokens = std::exchange(fresh_, {});
    return !tokens.empty();
  }
  std::optional<Error> error() const { return error_; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<int32_t> fresh_;
  serve::FinishReason finish_ = serve::FinishReason::kNone;
  std::optional<Error> error_;
};

Result<std::vector<int32_t>> encode_prompt(const RunOptions& o, const engine::ModelFile& file,
                                           const engine::Tokenizer& tokenizer) {
  std::string text = o.prompt;
  if (text == "-") text.assign(std::istreambuf_iterator<char>(std::cin), {});
  if (!o.chat) return tokenizer.encode(text, {.add_special = true});
  ASSIGN_OR_RETURN(const engine::ChatTemplate chat,
                   engine::ChatTemplate::from_model(file, tokenizer));
  if (chat.is_default()) {
    std::fputs("towline: the model has no chat template; a plain one is used\n", stderr);
  }
  const Json messages =
      Json::array({Json::object({{"role", "user"}, {"content", std::move(text)}})});
  engine::RenderOptions render;
  render.now = static_cast<int64_t>(std::time(nullptr));
  ASSIGN_OR_RETURN(const std::string prompt, chat.render(messages, Json(), render));
  return tokenizer.encode(prompt, {.parse_special = true});
}

Result<serve::GenerationRequest> make_request(const RunOptions& o, const engine::ModelFile& file,
                                              const engine::Tokenizer& tokenizer) {
  serve::GenerationRequest request;
  ASSIGN_OR_RETURN(request.prompt, encode_prompt(o, file, tokenizer));
  request.max_tokens = o.max_tokens;
  request.sampling = o.solo.sampling();
  request.sampling.repetition_penalty = static_cast<float>(o.repetition_penalty);
  if (!o.ignore_end) {
    request.stop_tokens.assign(tokenizer.end_tokens().begin(), tokenizer.end_tokens().end());
    if (tokenizer.bos() >= 0) request.stop_tokens.push_back(tokenizer.bos());
  }
  return request;
}

Json json_of(const std::vector<int32_t>& ids) {
  Json list = Json::array();
  for (const int32_t id : ids) list.push(id);
  return list;
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void print_summary(size_t prompt, size_t output, double load, double first, double all) {
  const double rest = all - first;
  std::fputs(format("\n[loaded in {:.2f} s; prompt of {} tokens in {:.2f} s ({:.1f} tokens/s); "
                    "{} tokens in {:.2f} s ({:.1f} tokens/s)]\n",
                    load, prompt, first, first > 0 ? static_cast<double>(prompt) / first : 0.0,
                    output, all,
                    output > 1 && rest > 0 ? static_cast<double>(output - 1) / rest : 0.0)
                 .c_str(),
             stderr);
}

Result<int> run(std::span<const std::string> args) {
  RunOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  const Clock::time_point start = Clock::now();
  ASSIGN_OR_RETURN(engine::ModelFile opened, engine::ModelFile::open(o.model));
  const auto file = std::make_shared<engine::ModelFile>(std::move(opened));
  ASSIGN_OR_RETURN(const engine::Tokenizer tokenizer, engine::Tokenizer::from_model(*file));
  ASSIGN_OR_RETURN(serve::GenerationRequest request, make_request(o, *file, tokenizer));

  Answer answer;
  ASSIGN_OR_RETURN(const std::unique_ptr<serve::LocalEngine> engine,
                   o.solo.start(file, answer.sink()));
  const double load = seconds_since(start);
  const Clock::time_point asked = Clock::now();
  const std::vector<int32_t> prompt = request.prompt;
  const std::vector<int32_t> stops = request.stop_tokens;
  TRY(engine->submit(std::move(request)));
  if (!o.json && !o.chat) {
    std::fputs(tokenizer.decode(prompt).c_str(), stdout);
    std::fflush(stdout);
  }
  std::vector<int32_t> output, fresh;
  double first = 0;
  while (answer.next(fresh)) {
    if (output.empty()) first = seconds_since(asked);
    for (const int32_t token : fresh) {
      output.push_back(token);
      const bool stop = std::ranges::find(stops, token) != stops.end();
      if (o.json || stop) continue;
      const std::string_view piece = tokenizer.piece(token);  // bytes: the terminal joins them
      std::fwrite(piece.data(), 1, piece.size(), stdout);
      std::fflush(stdout);
    }
  }
  if (answer.error()) return *answer.error();
  if (o.json) {
    std::vector<int32_t> all = prompt;
    all.insert(all.end(), output.begin(), output.end());
    std::puts(Json::object({{"prompt_ids", json_of(prompt)},
                            {"out_ids", json_of(output)},
                            {"text", tokenizer.decode(all)}})
                  .dump()
                  .c_str());
    return 0;
  }
  std::fputs("\n", stdout);
  print_summary(prompt.size(), output.size(), load, first, seconds_since(asked));
  return 0;
}

}  // namespace

const Command kRun = {"run", "continue a text with a model", run,
                      [](void (*sink)(const OptionTable&)) {
                        RunOptions o;
                        sink(table(o));
                      }};

}  // namespace towline::cli
