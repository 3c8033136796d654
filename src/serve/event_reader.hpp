// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// EventReader: takes a stream of server-sent events apart, for clients of OpenAI's API. The caller
// bounds held(): what has come of a line that has not ended.
#pragma once

#include <string>
#include <string_view>

namespace towline::serve {

class EventReader {
 public:
  // Calls each(payload) for every complete "data:" line.
  template <class Each>
  void feed(std::string_view bytes, Each&& each) {
    size_t begin = 0, unseen = pending_.size();  // what came before has no end of line
    pending_.append(bytes);
    for (size_t end; (end = pending_.find('\n', unseen)) != std::string::npos;
         unseen = begin = end + 1) {
      std::string_view line(pending_.data() + begin, end - begin);
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (!line.starts_with("data:")) continue;
      line.remove_prefix(5);
      if (line.starts_with(' ')) line.remove_prefix(1);
      each(line);
    }
    pending_.erase(0, begin);
  }
  size_t held() const { return pending_.size(); }

 private:
  std::string pending_;
};

}  // namespace towline::serve
