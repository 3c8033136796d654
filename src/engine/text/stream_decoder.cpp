// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/text/stream_decoder.hpp"

#include "base/utf8.hpp"

namespace towline::engine {

std::string StreamDecoder::push(int32_t token) {
  std::string_view piece = tokenizer_->piece(token, special_);
  if (strip_ && !piece.empty() && !tokenizer_->is_special(token)) {
    if (piece.starts_with(' ')) piece.remove_prefix(1);
    strip_ = false;
  }
  held_ += piece;
  std::string out;
  size_t at = 0;
  while (at < held_.size()) {
    const size_t n = utf8_length(held_, at);
    if (n > 0) {
      out.append(held_, at, n);
      at += n;
    } else if (utf8_could_continue(std::string_view(held_).substr(at))) {
      break;
    } else {
      out += "\xef\xbf\xbd";
      ++at;
    }
  }
  held_.erase(0, at);
  return out;
}

std::string StreamDecoder::flush() {
  std::string out = to_valid_utf8(held_);
  held_.clear();
  return out;
}

}  // namespace towline::engine
