// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The language is compared with Jinja itself by tests/template_oracle/compare.py; here are its
// corners that need no oracle, and its bounds.
#include <gtest/gtest.h>

#include <string>

#include "base/for_seeds.hpp"
#include "engine/text/chat_template.hpp"
#include "engine/text/jinja_text.hpp"

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

// Work that makes little or no output, or all of it in one operation: each of these ran for minutes
// or took all memory when only what an operation made was counted, and only after it was made.
TEST(Jinja, HostileOperationsAreCountedBeforeTheyAreDone) {
  const std::string heavy = "{% set n = namespace(x=[1]) %}{% for i in range(50) %}"
                            "{% set n.x = [n.x, n.x] %}{% endfor %}";
  for (const char* use :
       {"{{ n.x < n.x }}", "{{ n.x is lt(n.x) }}", "{{ [n.x, n.x] | sort }}",
        "{{ [n.x, n.x] | max }}",
        "{{ n.x is upper }}", "{{ ('x' * 300) | truncate(255, end=n.x) }}",
        "{{ [1] | tojson(separators=(n.x, ':')) }}",
        "{% for i in [1, 2] %}{{ loop.changed(n.x) }}{% endfor %}"}) {
    EXPECT_TRUE(fails_with(heavy + use, "more than")) << use;
  }
  const std::string large = "{% set s = ' ' * 20000000 %}{% for i in range(99999) %}";
  for (const char* use :
       {"{{ s | length }}", "{{ s.strip() }}", "{{ s | trim }}", "{{ s.strip(' ') }}",
        "{{ s | int }}", "{{ s | float }}", "{{ s.startswith(s) }}", "{{ s.endswith((s, s)) }}",
        "{{ s.removeprefix(s) }}", "{{ s.split() }}", "{{ s < s }}", "{{ s.isdigit() }}",
        "{{ s | wordcount }}", "{{ s.zfill(3) | length }}", "{{ s[5] }}", "{{ {s: 1}[s] }}"}) {
    EXPECT_TRUE(fails_with(large + use + "{% endfor %}", "more than")) << use;
  }
  for (const char* use :
       {"{{ ('a' * 20000000).split('a') }}", "{{ (' a' * 20000000).split() }}",
        "{{ ('\\n' * 20000000).splitlines() }}", "{{ (['x' * 1000000] * 99999) | sort }}",
        "{{ (['x' * 1000000] * 99999) | unique }}", "{{ ('&' * 60000000) | escape }}",
        "{{ (range(99999) | list) | tojson(separators=('x' * 1000000, ':')) }}",
        "{{ ('x' * 40000000)[::1] }}", "{{ ('x' * 40000000).replace('x', 'yy') }}"}) {
    EXPECT_TRUE(fails_with(use, "more than")) << use;
  }
  EXPECT_TRUE(fails_with("{{ '%99999d' % 1 }}", "too wide"));
  EXPECT_TRUE(fails_with("{{ '%.99999f' % 1 }}", "too wide"));
}

TEST(Jinja, SearchesTakeTimeByLengthNotByTheirProduct) {
  const std::string s = "{% set s = 'a' * 1000000 %}{% set t = s ~ s %}";
  EXPECT_EQ(text(s + "{{ (s ~ 'b') in t }} {{ t.find(s ~ 'b') }} {{ t.rfind('b' ~ s) }} "
                     "{{ t.count(s) }} {{ t.split(s ~ 'b') | length }} "
                     "{{ t.rpartition('b' ~ s)[2] | length }} {{ t.replace(s, 'c') }}"),
            "False -1 -1 2 1 2000000 cc");
}

TEST(Jinja, SearchesFindWhatTryingEveryPlaceFinds) {
  for_seeds(300, [](Rng& rng) {
    const auto random_text = [&](uint64_t most) {
      std::string s(rng.below(most), 'a');
      for (char& c : s) c = rng.below(8) == 0 ? 'b' : 'a';
      return s;
    };
    const std::string text = random_text(5000);
    const std::string what = random_text(rng.below(2) == 0 ? 12 : 700);
    const size_t from = rng.below(text.size() + 2);
    EXPECT_EQ(jinja::find_text(text, what, from), text.find(what, from));
    EXPECT_EQ(jinja::rfind_text(text, what), text.rfind(what));
  });
}

TEST(Jinja, SplitsAndFindsFromBothEnds) {
  EXPECT_EQ(text("{{ 'a,b,,c'.split(',') }}{{ 'a,b,,c'.split(',', 2) }}"
                 "{{ 'a,b,,c'.rsplit(',', 2) }}"),
            "['a', 'b', '', 'c']['a', 'b', ',c']['a,b', '', 'c']");
  EXPECT_EQ(text("{{ 'aaa'.split('aa') }}{{ 'aaa'.rsplit('aa') }}{{ 'aaa'.rfind('aa') }}"),
            "['', 'a']['a', '']1");
  EXPECT_EQ(text("{{ '  a b  c '.split() }}{{ ' a b  c '.split(none, 1) }}"
                 "{{ ' a b  c '.rsplit(none, 1) }}{{ '  '.split() }}"),
            "['a', 'b', 'c']['a', 'b  c '][' a b', 'c'][]");
  EXPECT_EQ(text("{{ '\u00e9a\u00e9'.strip('\u00e9') }}{{ 'xxyxx'.lstrip('x') }}"
                 "{{ 'xx'.rstrip('x') }}|"), "ayxx|");
}

// What a client may send along as variables.
TEST(ChatTemplate, AHundredThousandVariablesAreNotLookedThroughOneByOne) {
  std::string many = "{\"v0\": 0";
  for (int i = 1; i < 100'000; ++i) {
    const std::string n = std::to_string(i);
    many += ", \"v" + n + "\": " + n;
  }
  auto variables = parse_json(many + "}", "variables");
  ASSERT_TRUE(variables);
  RenderOptions options;
  options.variables = std::move(*variables);
  const auto t = ChatTemplate::parse("{{ v0 }} {{ v99999 }} {% set v7 = 1 %}{{ v7 }}", "", "");
  ASSERT_TRUE(t);
  EXPECT_EQ(*t->render(Json::array(), Json(), options), "0 99999 1");
}

TEST(Jinja, LoopTellsWhereItIs) {
  EXPECT_EQ(text("{% for x in 'abc' %}{{ loop.index }}{{ loop.revindex0 }}{{ loop.first }}"
                 "{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('p', 'q') }}"
                 "{{ loop.changed(x == 'a') }} {% endfor %}"),
            "12TruebpTrue 21FalseacqTrue 30FalsebpFalse ");
  EXPECT_EQ(text("{% for x in [1, [2, [3]]] recursive %}{{ loop(x) if x is iterable else x }}"
                 "{{ loop.depth }}{% endfor %}"), "11223321");
  EXPECT_TRUE(fails_with("{% for x in [1] %}{% set loop.index = 5 %}{% endfor %}", "namespaces"));
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
