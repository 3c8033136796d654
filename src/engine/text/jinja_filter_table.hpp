// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// How filters are found by name; null if there is none.
#pragma once

#include <string_view>

#include "engine/text/jinja_interpreter.hpp"

namespace towline::engine::jinja {

using Filter = Result<Value> (*)(Interpreter&, const Value& input, const Arguments&);

Filter find_filter(std::string_view name);
Filter find_sequence_filter(std::string_view name);  // jinja_sequence_filters.cpp
bool is_known_test(std::string_view name);           // jinja_tests.cpp

}  // namespace towline::engine::jinja
