// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as a chat template, rendered for a conversation with tools. Time and memory are bounded
// by the interpreter itself; libFuzzer's limits catch it if they are not.
#include <cstdint>
#include <string>

#include "engine/text/chat_template.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace towline;
  using namespace towline::engine;
  const Result<ChatTemplate> t =
      ChatTemplate::parse(std::string(reinterpret_cast<const char*>(data), size), "<s>", "</s>");
  if (!t) return 0;
  const Json messages = Json::array(
      {Json::object({{"role", "system"}, {"content", "Be brief."}}),
       Json::object({{"role", "user"}, {"content", "H\xc3\xa9llo <b>\n"}}),
       Json::object({{"role", "assistant"}, {"content", nullptr}})});
  const Json tools = Json::array({Json::object({{"type", "function"}, {"n", 1.5}})});
  (void)t->render(messages, tools, {});
  (void)t->render(Json::array(), Json(), {.add_generation_prompt = false});
  return 0;
}
