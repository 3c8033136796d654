// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/text/chat_template.hpp"

#include "base/fmt.hpp"
#include "engine/text/jinja_interpreter.hpp"

namespace towline::engine {
namespace {

constexpr size_t kMaxSourceBytes = 1 << 20;

}  // namespace

const std::string_view ChatTemplate::kDefault =
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.content is string %}{{ message.role + ': ' + message.content }}"
    "{% else %}{{ message.role + ': ' }}{% for part in message.content or [] %}"
    "{{ part.text or '' }}{% endfor %}{% endif %}{{ '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}";

Result<ChatTemplate> ChatTemplate::parse(std::string source, std::string bos, std::string eos) {
  if (source.size() > kMaxSourceBytes) {
    return errorf(Code::kInvalidArgument, "a chat template of {} bytes; the limit is {}",
                  source.size(), kMaxSourceBytes);
  }
  ASSIGN_OR_RETURN(jinja::Template parsed, jinja::parse_template(source));
  ChatTemplate t;
  t.parsed_ = std::make_shared<const jinja::Template>(std::move(parsed));
  t.source_ = std::move(source);
  t.bos_ = std::move(bos);
  t.eos_ = std::move(eos);
  return t;
}

Result<ChatTemplate> ChatTemplate::from_model(const ModelFile& file, const Tokenizer& tokenizer) {
  std::string source = tokenizer.chat_template();
  const bool is_default = source.empty();
  if (is_default) source = kDefault;
  Result<ChatTemplate> t =
      parse(std::move(source), std::string(tokenizer.piece(tokenizer.bos(), true)),
            std::string(tokenizer.piece(tokenizer.eos(), true)));
  if (!t) return std::move(t.error()).context("chat template of " + file.path());
  t->is_default_ = is_default;
  return t;
}

Result<std::string> ChatTemplate::render(const Json& messages, const Json& tools,
                                         const RenderOptions& options) const {
  if (!messages.is_array()) {
    return errorf(Code::kInvalidArgument, "messages must be an array, not {}",
                  messages.type_name());
  }
  jinja::Interpreter interpreter(options.now, jinja::Limits());
  ASSIGN_OR_RETURN(jinja::Value list, jinja::Value::from_json(messages));
  ASSIGN_OR_RETURN(jinja::Value tool_list, jinja::Value::from_json(tools));
  interpreter.define("messages", std::move(list));
  interpreter.define("tools", std::move(tool_list));
  interpreter.define("documents", jinja::None{});
  interpreter.define("add_generation_prompt", options.add_generation_prompt);
  interpreter.define("bos_token", bos_);
  interpreter.define("eos_token", eos_);
  for (const Json::Member& member : options.variables.members()) {
    ASSIGN_OR_RETURN(jinja::Value v, jinja::Value::from_json(member.second));
    interpreter.define(member.first, std::move(v));
  }
  return interpreter.render(*parsed_);
}

}  // namespace towline::engine
