// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/text/jinja_expression.hpp"

#include <charconv>
#include <cstdlib>
#include <optional>

namespace towline::engine::jinja {

Result<ExprPtr> ExpressionParser::assignment_target() {
  std::vector<ExprPtr> parts;
  const bool parentheses = accept_op("(");
  do {
    if (!parts.empty() && now().kind != TK::kName) break;
    ExprPtr name = make(Expr::Kind::kName);
    ASSIGN_OR_RETURN(name->name, expect_name());
    if (accept_op(".")) {
      ExprPtr attribute = make(Expr::Kind::kAttribute);
      ASSIGN_OR_RETURN(attribute->name, expect_name());
      attribute->args.push_back(std::move(name));
      name = std::move(attribute);
    }
    parts.push_back(std::move(name));
  } while (accept_op(","));
  if (parentheses) TRY(expect_op(")"));
  if (parts.size() == 1 && !parentheses) return std::move(parts[0]);
  ExprPtr tuple = make(Expr::Kind::kTuple);
  tuple->args = std::move(parts);
  return tuple;
}

Result<ExprPtr> ExpressionParser::tuple_or_expression(bool with_condition) {
  const auto one = [&] { return with_condition ? expression() : or_expression(); };
  ASSIGN_OR_RETURN(ExprPtr first, one());
  if (!is_op(",")) return first;
  ExprPtr tuple = make(Expr::Kind::kTuple);
  tuple->args.push_back(std::move(first));
  while (accept_op(",")) {
    if (now().kind == TK::kBlockEnd || now().kind == TK::kOutputEnd || is_op(")")) break;
    ASSIGN_OR_RETURN(ExprPtr next, one());
    tuple->args.push_back(std::move(next));
  }
  return sealed(std::move(tuple));
}

Result<ExprPtr> ExpressionParser::expression() {
  const Deeper deeper(depth_);
  TRY(check_depth());
  ASSIGN_OR_RETURN(ExprPtr value, or_expression());
  while (accept_word("if")) {
    ExprPtr e = make(Expr::Kind::kCondition);
    ASSIGN_OR_RETURN(ExprPtr test, or_expression());
    ExprPtr otherwise;
    if (accept_word("else")) {
      ASSIGN_OR_RETURN(otherwise, expression());
    }
    e->args.push_back(std::move(value));
    e->args.push_back(std::move(test));
    e->args.push_back(std::move(otherwise));
    ASSIGN_OR_RETURN(value, sealed(std::move(e)));
  }
  return value;
}

Result<ExprPtr> ExpressionParser::chain(Rule operand, Words ops, bool words) {
  ASSIGN_OR_RETURN(ExprPtr left, (this->*operand)());
  for (;;) {
    std::optional<std::string> op;
    for (const std::string_view candidate : ops) {
      if (words ? is_word(candidate) : is_op(candidate)) op = candidate;
    }
    if (!op) return left;
    ExprPtr e = make(Expr::Kind::kBinary);
    e->name = *op;
    ++at_;
    ASSIGN_OR_RETURN(ExprPtr right, (this->*operand)());
    e->args.push_back(std::move(left));
    e->args.push_back(std::move(right));
    ASSIGN_OR_RETURN(left, sealed(std::move(e)));
  }
}

Result<ExprPtr> ExpressionParser::not_expression() {
  if (!is_word("not")) return comparison();
  const Deeper deeper(depth_);
  TRY(check_depth());
  ExprPtr e = make(Expr::Kind::kUnary);
  e->name = take().text;
  ASSIGN_OR_RETURN(ExprPtr operand, not_expression());
  e->args.push_back(std::move(operand));
  return sealed(std::move(e));
}

Result<ExprPtr> ExpressionParser::comparison() {
  ASSIGN_OR_RETURN(ExprPtr left, sum());
  ExprPtr e;
  for (;;) {
    std::string op;
    for (const std::string_view candidate : {"==", "!=", "<=", ">=", "<", ">"}) {
      if (is_op(candidate)) op = candidate;
    }
    if (is_word("in")) op = "in";
    if (is_word("not") && ahead(1).kind == TK::kName && ahead(1).text == "in") op = "not in";
    if (op.empty()) return e ? sealed(std::move(e)) : std::move(left);
    at_ += op == "not in" ? 2 : 1;
    if (!e) {
      e = make(Expr::Kind::kCompare);
      e->args.push_back(std::move(left));
    }
    ASSIGN_OR_RETURN(ExprPtr right, sum());
    e->ops.push_back(std::move(op));
    e->args.push_back(std::move(right));
  }
}

Result<ExprPtr> ExpressionParser::unary(bool with_filters) {
  const Deeper deeper(depth_);
  TRY(check_depth());
  ExprPtr e;
  if (is_op("-") || is_op("+")) {
    e = make(Expr::Kind::kUnary);
    e->name = take().text;
    ASSIGN_OR_RETURN(ExprPtr operand, unary(false));
    e->args.push_back(std::move(operand));
    ASSIGN_OR_RETURN(e, sealed(std::move(e)));
  } else {
    ASSIGN_OR_RETURN(e, primary());
  }
  ASSIGN_OR_RETURN(e, postfix(std::move(e)));
  if (!with_filters) return e;
  return filters_and_tests(std::move(e));
}

Result<ExprPtr> ExpressionParser::primary() {
  const Token& token = now();
  switch (token.kind) {
    case TK::kName: return name_or_constant();
    case TK::kString: {
      std::string text;
      ExprPtr e = make(Expr::Kind::kConstant);
      while (now().kind == TK::kString) text += take().text;
      e->value = Value(std::move(text));
      return e;
    }
    case TK::kInt: {
      int64_t v = 0;
      const std::string& text = token.text;
      if (std::from_chars(text.data(), text.data() + text.size(), v).ec != std::errc()) {
        return fail(format("the integer {} does not fit 64 bits", text));
      }
      ExprPtr e = constant(Value(v));
      ++at_;
      return e;
    }
    case TK::kFloat: {
      ExprPtr e = constant(Value(std::strtod(token.text.c_str(), nullptr)));
      ++at_;
      return e;
    }
    default: break;
  }
  if (is_op("(")) return parenthesis();
  if (is_op("[")) return list();
  if (is_op("{")) return dict();
  return unexpected("a value");
}

Result<ExprPtr> ExpressionParser::name_or_constant() {
  const std::string& word = now().text;
  ExprPtr e;
  if (word == "true" || word == "True") {
    e = constant(Value(true));
  } else if (word == "false" || word == "False") {
    e = constant(Value(false));
  } else if (word == "none" || word == "None") {
    e = constant(Value(None{}));
  } else {
    e = make(Expr::Kind::kName);
    e->name = word;
  }
  ++at_;
  return e;
}

Result<ExprPtr> ExpressionParser::parenthesis() {
  ExprPtr tuple = make(Expr::Kind::kTuple);
  ++at_;
  if (accept_op(")")) return tuple;
  ASSIGN_OR_RETURN(ExprPtr inner, tuple_or_expression(true));
  TRY(expect_op(")"));
  return inner;
}

Result<ExprPtr> ExpressionParser::list() {
  ExprPtr e = make(Expr::Kind::kList);
  ++at_;
  while (!accept_op("]")) {
    if (!e->args.empty()) TRY(expect_op(","));
    if (accept_op("]")) break;
    ASSIGN_OR_RETURN(ExprPtr item, expression());
    e->args.push_back(std::move(item));
  }
  return sealed(std::move(e));
}

Result<ExprPtr> ExpressionParser::dict() {
  ExprPtr e = make(Expr::Kind::kDict);
  ++at_;
  while (!accept_op("}")) {
    if (!e->args.empty()) TRY(expect_op(","));
    if (accept_op("}")) break;
    ASSIGN_OR_RETURN(ExprPtr key, expression());
    TRY(expect_op(":"));
    ASSIGN_OR_RETURN(ExprPtr value, expression());
    e->args.push_back(std::move(key));
    e->args.push_back(std::move(value));
  }
  return sealed(std::move(e));
}

Result<ExprPtr> ExpressionParser::postfix(ExprPtr e) {
  for (;;) {
    if (is_op(".")) {
      ExprPtr next = make(Expr::Kind::kAttribute);
      ++at_;
      if (now().kind == TK::kInt) {
        next->kind = Expr::Kind::kSubscript;
        ASSIGN_OR_RETURN(ExprPtr index, primary());
        next->args.push_back(std::move(e));
        next->args.push_back(std::move(index));
      } else {
        ASSIGN_OR_RETURN(next->name, expect_name());
        next->args.push_back(std::move(e));
      }
      ASSIGN_OR_RETURN(e, sealed(std::move(next)));
    } else if (is_op("[")) {
      ASSIGN_OR_RETURN(e, subscript(std::move(e)));
    } else if (is_op("(")) {
      ExprPtr next = make(Expr::Kind::kCall);
      next->args.push_back(std::move(e));
      TRY(arguments(*next));
      ASSIGN_OR_RETURN(e, sealed(std::move(next)));
    } else {
      return e;
    }
  }
}

Result<ExprPtr> ExpressionParser::subscript(ExprPtr object) {
  ExprPtr e = make(Expr::Kind::kSubscript);
  ++at_;
  e->args.push_back(std::move(object));
  ExprPtr parts[3];
  size_t part = 0;
  while (!accept_op("]")) {
    if (accept_op(":")) {
      e->kind = Expr::Kind::kSlice;
      if (++part > 2) return fail("a slice has at most three parts");
      continue;
    }
    if (parts[part]) return unexpected("']'");
    ASSIGN_OR_RETURN(parts[part], tuple_or_expression(true));
  }
  if (e->kind == Expr::Kind::kSubscript && !parts[0]) return fail("an empty subscript");
  const size_t count = e->kind == Expr::Kind::kSlice ? 3 : 1;
  for (size_t i = 0; i < count; ++i) e->args.push_back(std::move(parts[i]));
  return sealed(std::move(e));
}

Result<void> ExpressionParser::arguments(Expr& e) {
  TRY(expect_op("("));
  bool first = true;
  while (!accept_op(")")) {
    if (!first) TRY(expect_op(","));
    first = false;
    if (accept_op(")")) break;
    if (is_op("*") || is_op("**")) return fail("argument unpacking is not supported");
    const bool named =
        now().kind == TK::kName && ahead(1).kind == TK::kOperator && ahead(1).text == "=";
    std::string name;
    if (named) {
      name = take().text;
      ++at_;
    }
    ASSIGN_OR_RETURN(ExprPtr value, expression());
    if (named) {
      e.named.emplace_back(std::move(name), std::move(value));
    } else if (!e.named.empty()) {
      return fail("a positional argument after a named one");
    } else {
      e.args.push_back(std::move(value));
    }
  }
  return {};
}

Result<std::string> ExpressionParser::dotted_name() {
  ASSIGN_OR_RETURN(std::string name, expect_name());
  while (accept_op(".")) {
    ASSIGN_OR_RETURN(const std::string part, expect_name());
    name += "." + part;
  }
  return name;
}

Result<ExprPtr> ExpressionParser::filter_chain(ExprPtr e) {
  for (;;) {
    ExprPtr filter = make(Expr::Kind::kFilter);
    ASSIGN_OR_RETURN(filter->name, dotted_name());
    filter->args.push_back(std::move(e));
    if (is_op("(")) TRY(arguments(*filter));
    ASSIGN_OR_RETURN(e, sealed(std::move(filter)));
    if (!accept_op("|")) return e;
  }
}

Result<ExprPtr> ExpressionParser::filters_and_tests(ExprPtr e) {
  for (;;) {
    if (accept_op("|")) {
      ASSIGN_OR_RETURN(e, filter_chain(std::move(e)));
    } else if (is_word("is")) {
      ASSIGN_OR_RETURN(e, test(std::move(e)));
    } else if (is_op("(")) {
      ExprPtr call = make(Expr::Kind::kCall);
      call->args.push_back(std::move(e));
      TRY(arguments(*call));
      ASSIGN_OR_RETURN(e, sealed(std::move(call)));
    } else {
      return e;
    }
  }
}

Result<ExprPtr> ExpressionParser::test(ExprPtr subject) {
  ExprPtr e = make(Expr::Kind::kTest);
  ++at_;
  const bool negated = accept_word("not");
  ASSIGN_OR_RETURN(e->name, dotted_name());
  e->args.push_back(std::move(subject));
  const TK kind = now().kind;
  if (is_op("(")) {
    TRY(arguments(*e));
  } else if ((kind == TK::kName && !is_word("else") && !is_word("or") && !is_word("and") &&
              !is_word("if") && !is_word("is") && !is_word("in") && !is_word("not") &&
              !is_word("recursive")) ||
             kind == TK::kString || kind == TK::kInt || kind == TK::kFloat || is_op("[") ||
             is_op("{")) {
    ASSIGN_OR_RETURN(ExprPtr argument, primary());
    ASSIGN_OR_RETURN(argument, postfix(std::move(argument)));
    e->args.push_back(std::move(argument));
  }
  if (!negated) return sealed(std::move(e));
  ExprPtr inverse = make(Expr::Kind::kUnary);
  inverse->name = "not";
  inverse->args.push_back(std::move(e));
  inverse->height = 2;
  return sealed(std::move(inverse));
}

}  // namespace towline::engine::jinja
