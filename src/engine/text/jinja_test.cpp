// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The language is compared with Jinja itself by tests/template_oracle/compare.py; here are its
// corners that need no oracle, and its bounds.
#include <gtest/gtest.h>

#include <string>

#include "engine/text/chat_template.hpp"

namespace towline::engine {
namespace {

Result<std::string> render(std::string source, Json messages = Json::array()) {
  auto t = ChatTemplate::parse(std::move(source), "<s>", "</s>");
  if (!t) return t.error();
  return t->render(messages, Json(), {});
}

std::string text(std::string source) {
  auto out = render(std::move(source));
  return out ? *out : "ERROR " + out.error().to_string();
}

bool fails_with(std::string source, std::string_view words) {
  const std::string out = text(std::move(source));
  if (out.starts_with("ERROR") && out.find(words) != std::string::npos) return true;
  ADD_FAILURE() << out.substr(0, 300);
  return false;
}

TEST(Jinja, WhiteSpaceControl) {
  EXPECT_EQ(text("a\n  {% if true %}\nb\n  {% endif %}\nc\n"), "a\nb\nc");
  EXPECT_EQ(text("a  {%- if true -%}  b  {%- endif %}  c"), "ab  c");
  EXPECT_EQ(text("a\n  {%+ if true +%}\nb{% endif %}"), "a\n  \nb");
  EXPECT_EQ(text("a {# x #}\nb {{- 1 -}} c\r\nd"), "a b1c\nd");
  EXPECT_EQ(text("x{% raw %}\n{{ y }}{% endraw %}"), "x{{ y }}");
}

TEST(Jinja, Scopes) {
  EXPECT_EQ(text("{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}"),
            "21");
  EXPECT_EQ(text("{% if true %}{% set x = 2 %}{% endif %}{{ x }}"), "2");
  EXPECT_EQ(
      text("{% set n = namespace(x=1) %}{% for i in [1] %}{% set n.x = 2 %}{% endfor %}{{ n.x }}"),
      "2");
  EXPECT_EQ(text("{% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}"),
            "2");
}

TEST(Jinja, MethodsComeBeforeKeysOnlyWithADot) {
  EXPECT_EQ(text("{{ {'items': 1}['items'] }}{{ {'k': 2}.k }}{% for k, v in {'a': 1}.items() %}"
                 "{{ k }}{{ v }}{% endfor %}"), "12a1");
}

TEST(Jinja, RepeatsTextAndLists) {
  EXPECT_EQ(text("{{ 'ab' * 5 }}|{{ 3 * 'x' }}|{{ 'x' * 0 }}|{{ '' * 9 }}|{{ 'x' * -1 }}"),
            "ababababab|xxx|||");
  EXPECT_EQ(text("{{ [1, 2] * 2 }}{{ [] * 4000000000 }}"), "[1, 2, 1, 2][]");
}

TEST(Jinja, ErrorsSayWhatAndWhere) {
  EXPECT_TRUE(fails_with("\n\n{% if %}", "line 3"));
  EXPECT_TRUE(fails_with("{{ nope.x }}", "'nope' is undefined"));
  EXPECT_TRUE(fails_with("{{ 1 | zzz }}", "no filter 'zzz'"));
  EXPECT_TRUE(fails_with("{{ 1 is zzz }}", "no test 'zzz'"));
  EXPECT_TRUE(fails_with("{% include 'x' %}", "'include' is not supported"));
  EXPECT_TRUE(fails_with("{{ raise_exception('Roles must alternate') }}", "Roles must alternate"));
  EXPECT_TRUE(fails_with("{{ [].append(1) }}", "cannot be changed"));
  EXPECT_TRUE(fails_with("{{ 1 // 0 }}", "division by zero"));
  EXPECT_TRUE(fails_with("{{ 9223372036854775807 + 1 }}", "64 bits"));
  EXPECT_TRUE(fails_with("{% for x in 1 %}{% endfor %}", "looped over"));
  EXPECT_TRUE(fails_with("{{ 'a", "not closed"));
}

// Each of these would take for ever or all memory if nothing bounded it.
TEST(Jinja, HostileTemplatesEnd) {
  EXPECT_TRUE(
      fails_with("{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
                 "more than"));
  EXPECT_TRUE(fails_with("{{ 'x' * 4000000000 }}", "more than"));
  EXPECT_TRUE(fails_with("{{ range(1000000000) }}", "100000"));
  EXPECT_TRUE(fails_with("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "deeper"));
  EXPECT_TRUE(fails_with("{% set n = namespace(x=1) %}{% for i in range(999) %}"
                         "{% set n.x = [n.x] %}{% endfor %}", "deeper"));
  EXPECT_TRUE(fails_with("{% set n = namespace(x=['a']) %}{% for i in range(50) %}"
                         "{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x | tojson }}", "more than"));
  EXPECT_TRUE(fails_with("{% set n = namespace(x={'a': 1}) %}{% for i in range(50) %}"
                         "{% set n.x = {'l': n.x, 'r': n.x} %}{% endfor %}{{ n.x == n.x }}",
                         "more than"));
  EXPECT_TRUE(fails_with("{% set n = namespace(x='ab') %}{% for i in range(40) %}"
                         "{% set n.x = n.x ~ n.x %}{% endfor %}", "more than"));
  EXPECT_TRUE(fails_with("{{ " + std::string(9999, '(') + "1" + std::string(9999, ')') + " }}",
                         "nested"));
  std::string chain = "{{ 1";
  for (int i = 0; i < 5000; ++i) chain += "+1";
  EXPECT_TRUE(fails_with(chain + " }}", "levels"));
  std::string ifs;
  for (int i = 0; i < 5000; ++i) ifs += "{% if 1 %}";
  EXPECT_TRUE(fails_with(ifs, "nested"));
  EXPECT_EQ(text("{% set n = namespace() %}{% set n.me = n %}{{ n.me.me == n }}"), "True");
}

TEST(ChatTemplate, DefaultForModelsWithoutOne) {
  const Json messages = Json::array(
      {Json::object({{"role", "system"}, {"content", "S"}}),
       Json::object(
           {{"role", "user"},
            {"content", Json::array({Json::object({{"type", "text"}, {"text", "U"}})})}})});
  EXPECT_EQ(*render(std::string(ChatTemplate::kDefault), messages),
            "<s>system: S\n\nuser: U\n\nassistant:");
}

TEST(ChatTemplate, VariablesAndClock) {
  const auto t = ChatTemplate::parse("{{ eos_token }}{{ mood }}{{ strftime_now('%Y-%m-%d') }}"
                                     "{{ add_generation_prompt }}{{ tools }}", "", "</s>");
  ASSERT_TRUE(t);
  RenderOptions options{.add_generation_prompt = false, .now = 86400 * 365};
  options.variables = Json::object({{"mood", "calm"}});
  EXPECT_EQ(*t->render(Json::array(), Json(), options), "</s>calm1971-01-01FalseNone");
  EXPECT_FALSE(t->render(Json("x"), Json(), options));
}

}  // namespace
}  // namespace towline::engine
