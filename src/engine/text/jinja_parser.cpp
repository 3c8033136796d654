// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <charconv>
#include <cstdlib>
#include <optional>

#include "base/fmt.hpp"
#include "engine/text/jinja_ast.hpp"
#include "engine/text/jinja_lexer.hpp"

namespace towline::engine::jinja {
namespace {

using TK = Token::Kind;
using Words = std::initializer_list<std::string_view>;

constexpr int kMaxNesting = 150;  // of statements and expressions together
constexpr int kMaxHeight = 400;   // of an expression's tree; a long a + b + c ... is a high one

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  Result<Template> run() {
    Template t;
    ASSIGN_OR_RETURN(t.body, statements({}));
    return t;
  }

 private:
  // --- tokens ---
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
    const std::string found = now().kind == TK::kEnd        ? "the template ends"
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

  // --- statements ---

  // Up to a block tag that begins with one of `ends`, which is left after its name.
  Result<std::vector<Stmt>> statements(Words ends) {
    const Deeper deeper(depth_);
    TRY(check_depth());
    std::vector<Stmt> out;
    for (;;) {
      const Token& token = now();
      if (token.kind == TK::kEnd) {
        if (ends.size() == 0) return out;
        return unexpected(format("'{{% {} %}}'", *(ends.end() - 1)));
      }
      if (token.kind == TK::kText) {
        Stmt s{Stmt::Kind::kText, token.line, token.text, {}, {}, {}, false, {}, {}, {}, {}, {}};
        out.push_back(std::move(s));
        ++at_;
      } else if (token.kind == TK::kOutputBegin) {
        ++at_;
        Stmt s = statement(Stmt::Kind::kOutput);
        ASSIGN_OR_RETURN(s.expr, tuple_or_expression(true));
        if (now().kind != TK::kOutputEnd) return unexpected("'}}'");
        ++at_;
        out.push_back(std::move(s));
      } else {
        ++at_;  // block begin
        for (const std::string_view end : ends) {
          if (is_word(end)) return out;
        }
        ASSIGN_OR_RETURN(Stmt s, block());
        out.push_back(std::move(s));
      }
    }
  }
  Stmt statement(Stmt::Kind kind) const {
    Stmt s{};
    s.kind = kind;
    s.line = now().line;
    return s;
  }

  Result<Stmt> block() {
    if (now().kind != TK::kName) return unexpected("a statement");
    const std::string word = now().text;
    if (word == "if") return if_block();
    if (word == "for") return for_block();
    if (word == "set") return set_block();
    if (word == "macro") return macro_block();
    if (word == "call") return call_block();
    if (word == "filter") return filter_block();
    if (word == "with") return with_block();
    if (word == "generation") return plain_block(Stmt::Kind::kBlock, "endgeneration");
    if (word == "break" || word == "continue") {
      Stmt s = statement(word == "break" ? Stmt::Kind::kBreak : Stmt::Kind::kContinue);
      if (loops_ == 0) return fail(format("'{}' outside a loop", word));
      ++at_;
      TRY(expect_block_end());
      return s;
    }
    return fail(format("the statement '{}' is not supported", word));
  }

  // After the end tag's name: the end of that tag.
  Result<void> close(std::string_view end) {
    if (!accept_word(end)) return unexpected(format("'{}'", end));
    return expect_block_end();
  }

  Result<Stmt> plain_block(Stmt::Kind kind, std::string_view end) {
    Stmt s = statement(kind);
    ++at_;
    TRY(expect_block_end());
    ASSIGN_OR_RETURN(s.body, statements({end}));
    TRY(close(end));
    return s;
  }

  Result<Stmt> if_block() {
    const Deeper deeper(depth_);
    TRY(check_depth());
    Stmt s = statement(Stmt::Kind::kIf);
    ++at_;  // if or elif
    ASSIGN_OR_RETURN(s.expr, tuple_or_expression(true));
    TRY(expect_block_end());
    ASSIGN_OR_RETURN(s.body, statements({"elif", "else", "endif"}));
    if (is_word("elif")) {
      ASSIGN_OR_RETURN(Stmt inner, if_block());
      s.orelse.push_back(std::move(inner));
      return s;
    }
    if (accept_word("else")) {
      TRY(expect_block_end());
      ASSIGN_OR_RETURN(s.orelse, statements({"endif"}));
    }
    TRY(close("endif"));
    return s;
  }

  Result<Stmt> for_block() {
    Stmt s = statement(Stmt::Kind::kFor);
    ++at_;
    ASSIGN_OR_RETURN(s.target, assignment_target());
    if (!accept_word("in")) return unexpected("'in'");
    ASSIGN_OR_RETURN(s.expr, tuple_or_expression(false));
    if (accept_word("if")) {
      ASSIGN_OR_RETURN(s.test, expression());
    }
    s.recursive = accept_word("recursive");
    TRY(expect_block_end());
    ++loops_;
    ASSIGN_OR_RETURN(s.body, statements({"else", "endfor"}));
    --loops_;
    if (accept_word("else")) {
      TRY(expect_block_end());
      ASSIGN_OR_RETURN(s.orelse, statements({"endfor"}));
    }
    TRY(close("endfor"));
    return s;
  }

  Result<Stmt> set_block() {
    Stmt s = statement(Stmt::Kind::kSet);
    ++at_;
    ASSIGN_OR_RETURN(s.target, assignment_target());
    if (accept_op("=")) {
      ASSIGN_OR_RETURN(s.expr, tuple_or_expression(true));
      TRY(expect_block_end());
      return s;
    }
    s.kind = Stmt::Kind::kSetBlock;
    if (accept_op("|")) {
      ASSIGN_OR_RETURN(s.expr, filter_chain(nullptr));
    }
    TRY(expect_block_end());
    ASSIGN_OR_RETURN(s.body, statements({"endset"}));
    TRY(close("endset"));
    return s;
  }

  Result<void> parameter_list(Stmt& s) {
    TRY(expect_op("("));
    while (!accept_op(")")) {
      if (!s.parameters.empty()) TRY(expect_op(","));
      if (accept_op(")")) break;
      ASSIGN_OR_RETURN(std::string name, expect_name());
      s.parameters.push_back(std::move(name));
      if (accept_op("=")) {
        ASSIGN_OR_RETURN(ExprPtr value, expression());
        s.defaults.push_back(std::move(value));
      } else if (!s.defaults.empty()) {
        return fail("a parameter without a default after one with");
      }
    }
    return {};
  }

  Result<Stmt> macro_block() {
    Stmt s = statement(Stmt::Kind::kMacro);
    ++at_;
    ASSIGN_OR_RETURN(s.text, expect_name());
    TRY(parameter_list(s));
    TRY(expect_block_end());
    const int loops = std::exchange(loops_, 0);
    ASSIGN_OR_RETURN(s.body, statements({"endmacro"}));
    loops_ = loops;
    TRY(close("endmacro"));
    return s;
  }

  Result<Stmt> call_block() {
    Stmt s = statement(Stmt::Kind::kCall);
    ++at_;
    if (is_op("(")) TRY(parameter_list(s));
    ASSIGN_OR_RETURN(s.expr, expression());
    if (s.expr->kind != Expr::Kind::kCall) return fail("'call' needs a call of a macro");
    TRY(expect_block_end());
    const int loops = std::exchange(loops_, 0);
    ASSIGN_OR_RETURN(s.body, statements({"endcall"}));
    loops_ = loops;
    TRY(close("endcall"));
    return s;
  }

  Result<Stmt> filter_block() {
    Stmt s = statement(Stmt::Kind::kFilter);
    ++at_;
    ASSIGN_OR_RETURN(s.expr, filter_chain(nullptr));
    TRY(expect_block_end());
    ASSIGN_OR_RETURN(s.body, statements({"endfilter"}));
    TRY(close("endfilter"));
    return s;
  }

  Result<Stmt> with_block() {
    Stmt s = statement(Stmt::Kind::kWith);
    ++at_;
    while (now().kind != TK::kBlockEnd) {
      if (!s.assignments.empty()) TRY(expect_op(","));
      ASSIGN_OR_RETURN(ExprPtr target, assignment_target());
      TRY(expect_op("="));
      ASSIGN_OR_RETURN(ExprPtr value, expression());
      s.assignments.emplace_back(std::move(target), std::move(value));
    }
    TRY(expect_block_end());
    ASSIGN_OR_RETURN(s.body, statements({"endwith"}));
    TRY(close("endwith"));
    return s;
  }

  // name | name.attribute | a, b | (a, b)
  Result<ExprPtr> assignment_target() {
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

  // --- expressions, loosest binding first ---

  Result<ExprPtr> tuple_or_expression(bool with_condition) {
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

  Result<ExprPtr> expression() {
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

  using Rule = Result<ExprPtr> (Parser::*)();

  // operand (op operand)*, left to right.
  Result<ExprPtr> chain(Rule operand, Words ops, bool words) {
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
  Result<ExprPtr> or_expression() { return chain(&Parser::and_expression, {"or"}, true); }
  Result<ExprPtr> and_expression() { return chain(&Parser::not_expression, {"and"}, true); }
  Result<ExprPtr> not_expression() {
    if (!is_word("not")) return comparison();
    const Deeper deeper(depth_);
    TRY(check_depth());
    ExprPtr e = make(Expr::Kind::kUnary);
    e->name = take().text;
    ASSIGN_OR_RETURN(ExprPtr operand, not_expression());
    e->args.push_back(std::move(operand));
    return sealed(std::move(e));
  }
  Result<ExprPtr> comparison() {
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
  Result<ExprPtr> sum() { return chain(&Parser::concatenation, {"+", "-"}, false); }
  Result<ExprPtr> concatenation() { return chain(&Parser::product, {"~"}, false); }
  Result<ExprPtr> product() { return chain(&Parser::power, {"*", "/", "//", "%"}, false); }
  Result<ExprPtr> power() { return chain(&Parser::unary_with_filters, {"**"}, false); }
  Result<ExprPtr> unary_with_filters() { return unary(true); }

  Result<ExprPtr> unary(bool with_filters) {
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

  Result<ExprPtr> primary() {
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

  Result<ExprPtr> name_or_constant() {
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

  Result<ExprPtr> parenthesis() {
    ExprPtr tuple = make(Expr::Kind::kTuple);
    ++at_;
    if (accept_op(")")) return tuple;
    ASSIGN_OR_RETURN(ExprPtr inner, tuple_or_expression(true));
    TRY(expect_op(")"));
    return inner;
  }
  Result<ExprPtr> list() {
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
  Result<ExprPtr> dict() {
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

  // .name  [subscript]  (arguments), any number.
  Result<ExprPtr> postfix(ExprPtr e) {
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

  Result<ExprPtr> subscript(ExprPtr object) {
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

  // ( a, b, name=c ) appended to e.
  Result<void> arguments(Expr& e) {
    TRY(expect_op("("));
    bool first = true;
    while (!accept_op(")")) {
      if (!first) TRY(expect_op(","));
      first = false;
      if (accept_op(")")) break;
      if (is_op("*") || is_op("**")) return fail("argument unpacking is not supported");
      const bool named = now().kind == TK::kName && ahead(1).kind == TK::kOperator &&
                         ahead(1).text == "=";
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

  Result<std::string> dotted_name() {
    ASSIGN_OR_RETURN(std::string name, expect_name());
    while (accept_op(".")) {
      ASSIGN_OR_RETURN(const std::string part, expect_name());
      name += "." + part;
    }
    return name;
  }

  // name(args) | name | ...: after a "|", or in a filter block, where args[0] is null.
  Result<ExprPtr> filter_chain(ExprPtr e) {
    for (;;) {
      ExprPtr filter = make(Expr::Kind::kFilter);
      ASSIGN_OR_RETURN(filter->name, dotted_name());
      filter->args.push_back(std::move(e));
      if (is_op("(")) TRY(arguments(*filter));
      ASSIGN_OR_RETURN(e, sealed(std::move(filter)));
      if (!accept_op("|")) return e;
    }
  }

  Result<ExprPtr> filters_and_tests(ExprPtr e) {
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

  Result<ExprPtr> test(ExprPtr subject) {
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

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  int loops_ = 0;
};

}  // namespace

Result<Template> parse_template(std::string_view source) {
  ASSIGN_OR_RETURN(std::vector<Token> tokens, lex(source));
  return Parser(std::move(tokens)).run();
}

}  // namespace towline::engine::jinja
