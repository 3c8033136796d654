// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <cstdio>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "cli/commands.hpp"
#include "engine/text/chat_template.hpp"

namespace towline::cli {
namespace {

using engine::ChatTemplate;

struct TemplateOptions {
  std::string model, messages, tools;
  std::vector<std::string> kwargs;
  int64_t now = -1;
  bool generation_prompt = true, show = false, json = false;
};

OptionTable table(TemplateOptions& o) {
  OptionTable t("template", "Render a model's chat template.");
  t.describe(
      "--messages is a JSON array of {\"role\", \"content\"} objects, or an object with "
      "\"messages\" and, if wanted, \"tools\" and further variables of the template.");
  t.positional("model", &o.model, "GGUF file, Hugging Face directory, or a .jinja file").required();
  t.value("messages", &o.messages, "the conversation").metavar("F.json");
  t.value("tools", &o.tools, "a JSON array of tool descriptions").metavar("F.json");
  t.value("kwargs", &o.kwargs, "name=value for the template; the value is JSON, or else text");
  t.value("now", &o.now, "the time for strftime_now(), in seconds since 1970; -1 is the clock's");
  t.flag("generation-prompt", &o.generation_prompt, "end with what begins the assistant's turn");
  t.flag("show", &o.show, "print the template itself");
  t.flag("json", &o.json, "print {\"text\": ...}");
  t.example("towline template model.gguf --messages chat.json");
  t.example("towline template llama3.jinja --messages chat.json --kwargs bos_token='<s>' --json");
  return t;
}

Result<ChatTemplate> open_template(const std::string& path) {
  if (path.ends_with(".jinja") || path.ends_with(".j2")) {
    ASSIGN_OR_RETURN(std::string source, read_file(path, 1 << 24));
    Result<ChatTemplate> t = ChatTemplate::parse(std::move(source), "", "");
    return std::move(t).context(path);
  }
  ASSIGN_OR_RETURN(const engine::ModelFile file, engine::ModelFile::open(path));
  ASSIGN_OR_RETURN(const engine::Tokenizer tokenizer, engine::Tokenizer::from_model(file));
  return ChatTemplate::from_model(file, tokenizer);
}

Result<void> add_kwargs(const std::vector<std::string>& words, Json& variables) {
  for (const std::string& word : words) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos || equals == 0) {
      return errorf(Code::kInvalidArgument, "--kwargs {}: not name=value", word);
    }
    const std::string text = word.substr(equals + 1);
    Result<Json> value = parse_json(text, "--kwargs");
    variables.set(word.substr(0, equals), value ? *value : Json(text));
  }
  return {};
}

Result<int> run(std::span<const std::string> args) {
  TemplateOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  ASSIGN_OR_RETURN(const ChatTemplate chat, open_template(o.model));
  if (chat.is_default()) {
    std::fputs("towline: the model has no chat template; this is a plain default\n", stderr);
  }
  if (o.show) {
    std::fputs(chat.source().c_str(), stdout);
    return 0;
  }
  if (o.messages.empty()) {
    return errorf(Code::kInvalidArgument,
                  "--messages is missing: a JSON file with the conversation");
  }
  ASSIGN_OR_RETURN(Json messages, load_json(o.messages));
  engine::RenderOptions options;
  options.variables = Json::object();
  Json tools;
  if (messages.is_object()) {
    for (const Json::Member& member : messages.members()) {
      if (member.first == "tools") tools = member.second;
      if (member.first != "tools" && member.first != "messages") {
        options.variables.set(member.first, member.second);
      }
    }
    messages = Json(messages["messages"]);
  }
  if (!o.tools.empty()) {
    ASSIGN_OR_RETURN(tools, load_json(o.tools));
  }
  TRY(add_kwargs(o.kwargs, options.variables));
  options.add_generation_prompt = o.generation_prompt;
  options.now = o.now >= 0 ? o.now
                           : std::chrono::duration_cast<std::chrono::seconds>(
                                 std::chrono::system_clock::now().time_since_epoch())
                                 .count();
  ASSIGN_OR_RETURN(const std::string text, chat.render(messages, tools, options));
  if (o.json) {
    std::puts(Json::object({{"text", text}}).dump().c_str());
  } else {
    std::fwrite(text.data(), 1, text.size(), stdout);
  }
  return 0;
}

}  // namespace

const Command kTemplate = {"template", "render a model's chat template", run,
                           [](void (*sink)(const OptionTable&)) {
                             TemplateOptions o;
                             sink(table(o));
                           }};

}  // namespace towline::cli
