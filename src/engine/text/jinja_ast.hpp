// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The parsed form of a chat template, and the parser. Grammar: Jinja 3.1's, less inheritance,
// includes, imports and autoescaping (docs/tokenizers.md lists what is there).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "engine/text/jinja_value.hpp"

namespace towline::engine::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
  enum class Kind {
    kConstant,   // value
    kName,       // name
    kList,       // args
    kTuple,      // args
    kDict,       // args: key, value, key, value, ...
    kAttribute,  // args[0].name
    kSubscript,  // args[0][args[1]]
    kSlice,      // args[0][args[1]:args[2]:args[3]], null where left out
    kCall,       // args[0](args[1..], named)
    kFilter,     // args[0] | name(args[1..], named); args[0] null inside a filter block
    kTest,       // args[0] is name(args[1..])
    kUnary,      // name: "-", "+", "not"
    kBinary,     // name: "+", "-", "*", "/", "//", "%", "**", "~", "and", "or"
    kCompare,    // args[0] ops[0] args[1] ops[1] args[2] ...
    kCondition,  // args[0] if args[1] else args[2] (null: undefined)
  };
  Kind kind;
  int line = 0;
  int height = 1;  // of this tree; bounded by the parser
  std::string name;
  Value value;
  std::vector<ExprPtr> args;
  std::vector<std::pair<std::string, ExprPtr>> named;
  std::vector<std::string> ops;
};

struct Stmt {
  enum class Kind {
    kText,      // text
    kOutput,    // expr
    kIf,        // expr, body, orelse
    kFor,       // target in expr [if test]: body, else: orelse
    kSet,       // target = expr
    kSetBlock,  // target = rendered body, through filter expr if not null
    kMacro,     // name, parameters, defaults, body
    kCall,      // expr is a call, caller() renders body; parameters of caller
    kFilter,    // body through filter expr
    kWith,      // targets = exprs for body
    kBlock,     // body as it is: generation, raw, block
    kBreak,
    kContinue,
  };
  Kind kind;
  int line = 0;
  std::string text;  // or name
  ExprPtr target, expr, test;
  bool recursive = false;
  std::vector<Stmt> body, orelse;
  std::vector<std::string> parameters;
  std::vector<ExprPtr> defaults;  // of the last parameters
  std::vector<std::pair<ExprPtr, ExprPtr>> assignments;  // kWith
};

struct Template {
  std::vector<Stmt> body;
};

// Errors give the line.
Result<Template> parse_template(std::string_view source);

}  // namespace towline::engine::jinja
