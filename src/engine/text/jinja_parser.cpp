// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/text/jinja_expression.hpp"

namespace towline::engine::jinja {
namespace {

class Parser : ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Result<Template> run() {
    Template t;
    ASSIGN_OR_RETURN(t.body, statements({}));
    return t;
  }

 private:
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

  int loops_ = 0;
};

}  // namespace

Result<Template> parse_template(std::string_view source) {
  ASSIGN_OR_RETURN(std::vector<Token> tokens, lex(source));
  return Parser(std::move(tokens)).run();
}

}  // namespace towline::engine::jinja
