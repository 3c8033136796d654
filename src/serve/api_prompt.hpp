// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The structured fields of a request: prompts, token lists, messages. Used by api_request.cpp.
#pragma once

#include <string_view>
#include <vector>

#include "serve/api_request.hpp"

namespace towline::serve {

// A list of token ids in [0, vocab_size); `param` names it in errors.
ApiCheck read_token_list(const Json& v, std::string_view param, int32_t vocab_size,
                         std::vector<int32_t>& out);

// A string, a list of strings, a list of token ids, or a list of lists of token ids.
ApiCheck read_prompts(const Json& v, std::string_view param, const ApiLimits& limits,
                      std::vector<PromptInput>& out);

// Roles system, developer (becomes system), user, assistant. Content is text or a list of text
// parts, which are joined by line breaks. The result has just role, content and name.
ApiCheck read_messages(const Json& v, Json& out);

}  // namespace towline::serve
