// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// ChatHistory: what has been said in a conversation, as OpenAI's messages. Plain data.
#pragma once

#include <string>
#include <vector>

#include "base/json.hpp"

namespace towline::serve {

struct ChatHistory {
  struct Turn {
    std::string role, content;
  };
  std::string system;  // empty: none
  std::vector<Turn> turns;

  Json messages() const {  // [{role, content}], system first
    Json list = Json::array();
    if (!system.empty()) list.push(Json::object({{"role", "system"}, {"content", system}}));
    for (const Turn& turn : turns) {
      list.push(Json::object({{"role", turn.role}, {"content", turn.content}}));
    }
    return list;
  }
};

}  // namespace towline::serve
