// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The expressions of a chat template, read by recursive descent over its tokens. The parser of
// statements (jinja_parser.cpp) is built on it: both move through the same tokens and count the
// same nesting. Every error names its line; nesting and height are bounded, so that neither parsing
// nor evaluating nor freeing a tree can overflow the stack.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fmt.hpp"
#include "base/result.hpp"
#include "engine/text/jinja_ast.hpp"
#include "engine/text/jinja_lexer.hpp"

namespace towline::engine::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

 protected:
  using TK = Token::Kind;
  using Words = std::initializer_list<std::string_view>;
  static constexpr int kMaxNesting = 150;  // of statements and expressions together
  static constexpr int kMaxHeight = 400;   // of a tree; a long a + b + c ... is a high one

  const Token& now() const { return tokens_[at_]; }
  const Token& ahead(size_t n) const { return tokens_[std::min(at_ + n, tokens_.size() - 1)]; }
  Token take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool is(TK kind, std::string_view text) const { return now().kind == kind && now().text == text; }
  bool is_op(std::string_view text) const { return is(TK::kOperator, text); }
  bool is_word(std::string_view text) const { return is(TK::kName, text); }
  bool accept_op(std::string_view text) { return is_op(text) ? (++at_, true) : false; }
  bool accept_word(std::string_view text) { return is_word(text) ? (++at_, true) : false; }

  Error fail(std::string_view what) const {
    return errorf(Code::kInvalidArgument, "chat template, line {}: {}", now().line, what);
  }
  Error unexpected(std::string_view wanted) const {
    const std::string found = now().kind == TK::kEnd         ? "the template ends"
                              : now().kind == TK::kBlockEnd  ? "the tag ends"
                              : now().kind == TK::kOutputEnd ? "the tag ends"
                                                             : "'" + now().text + "' stands";
    return fail(format("{} where {} is expected", found, wanted));
  }
  Result<void> expect_op(std::string_view text) {
    if (!accept_op(text)) return unexpected(format("'{}'", text));
    return {};
  }
  Result<std::string> expect_name() {
    if (now().kind != TK::kName) return unexpected("a name");
    return take().text;
  }
  Result<void> expect_block_end() {
    if (now().kind != TK::kBlockEnd) return unexpected("the end of the tag");
    ++at_;
    return {};
  }

  // Counts nesting while in scope.
  struct Deeper {
    explicit Deeper(int& depth) : depth_(depth) { ++depth_; }
    ~Deeper() { --depth_; }
    int& depth_;
  };
  Result<void> check_depth() const {
    if (depth_ > kMaxNesting) return fail(format("nested deeper than {} levels", kMaxNesting));
    return {};
  }

  ExprPtr make(Expr::Kind kind) const {
    auto e = std::make_unique<Expr>();
    e->kind = kind;
    e->line = now().line;
    return e;
  }
  // A node whose children are complete.
  Result<ExprPtr> sealed(ExprPtr e) const {
    for (const ExprPtr& arg : e->args) {
      if (arg) e->height = std::max(e->height, arg->height + 1);
    }
    for (const auto& [name, arg] : e->named) e->height = std::max(e->height, arg->height + 1);
    if (e->height > kMaxHeight) {
      return fail(format("an expression of more than {} levels", kMaxHeight));
    }
    return e;
  }
  ExprPtr constant(Value value) const {
    ExprPtr e = make(Expr::Kind::kConstant);
    e->value = std::move(value);
    return e;
  }

  // name | name.attribute | a, b | (a, b)
  Result<ExprPtr> assignment_target();
  Result<ExprPtr> tuple_or_expression(bool with_condition);
  Result<ExprPtr> expression();
  // name(args) | name | ...: after a "|", or in a filter block, where args[0] is null.
  Result<ExprPtr> filter_chain(ExprPtr e);

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;

 private:
  using Rule = Result<ExprPtr> (ExpressionParser::*)();

  // operand (op operand)*, left to right.
  Result<ExprPtr> chain(Rule operand, Words ops, bool words);
  Result<ExprPtr> or_expression() { return chain(&ExpressionParser::and_expression, {"or"}, true); }
  Result<ExprPtr> and_expression() {
    return chain(&ExpressionParser::not_expression, {"and"}, true);
  }
  Result<ExprPtr> not_expression();
  Result<ExprPtr> comparison();
  Result<ExprPtr> sum() { return chain(&ExpressionParser::concatenation, {"+", "-"}, false); }
  Result<ExprPtr> concatenation() { return chain(&ExpressionParser::product, {"~"}, false); }
  Result<ExprPtr> product() {
    return chain(&ExpressionParser::power, {"*", "/", "//", "%"}, false);
  }
  Result<ExprPtr> power() { return chain(&ExpressionParser::unary_with_filters, {"**"}, false); }
  Result<ExprPtr> unary_with_filters() { return unary(true); }
  Result<ExprPtr> unary(bool with_filters);
  Result<ExprPtr> primary();
  Result<ExprPtr> name_or_constant();
  Result<ExprPtr> parenthesis();
  Result<ExprPtr> list();
  Result<ExprPtr> dict();
  // .name  [subscript]  (arguments), any number.
  Result<ExprPtr> postfix(ExprPtr e);
  Result<ExprPtr> subscript(ExprPtr object);
  // ( a, b, name=c ) appended to e.
  Result<void> arguments(Expr& e);
  Result<std::string> dotted_name();
  Result<ExprPtr> filters_and_tests(ExprPtr e);
  Result<ExprPtr> test(ExprPtr subject);
};

}  // namespace towline::engine::jinja
