#include "engine/text/vocabulary.hpp"
namespace towline::engine {
Result<Vocabulary> vocabulary_from_hf(const Json&, const Json&) {
  return Error(Code::kUnsupported, "tokenizer.json is not read yet");
}
}
