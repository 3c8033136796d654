// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// A model's directory as Hugging Face lays it out (engine/format/model_file.hpp). The input is
// files: a line "== NAME", then the file's bytes up to the next such line. What opens has whole
// tensors, and its tokenizer and chat template work or say why not.
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.hpp"
#include "base/fmt.hpp"
#include "engine/format/model_file.hpp"
#include "engine/text/chat_template.hpp"
#include "engine/text/tokenizer.hpp"

namespace {

using namespace towline;
namespace fs = std::filesystem;

constexpr std::array<std::string_view, 9> kNames = {
    "config.json",           "tokenizer.json",    "tokenizer_config.json",
    "generation_config.json", "model.safetensors", "model.safetensors.index.json",
    "part.safetensors",      "pytorch_model.bin", "chat_template.jinja"};

class Folder {
 public:
  Folder() : path_(fs::temp_directory_path() / format("towline-fuzz-hf-{}", ::getpid())) {
    fs::create_directories(path_);
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  std::string path() const { return path_.string(); }

  // Exactly the files of `text`; of two with one name the last.
  void fill(std::string_view text) {
    for (const std::string_view name : kNames) {
      std::error_code ignored;
      fs::remove(path_ / name, ignored);
    }
    while (text.starts_with("== ")) {
      const size_t line = text.find('\n');
      if (line == std::string_view::npos) return;
      const std::string_view name = text.substr(3, line - 3);
      const size_t next = std::min(text.find("\n== ", line), text.size());
      for (const std::string_view known : kNames) {
        if (known != name) continue;
        std::ofstream(path_ / known, std::ios::binary)
            << text.substr(line + 1, next > line ? next - line - 1 : 0);
      }
      text.remove_prefix(std::min(next + 1, text.size()));
    }
  }

 private:
  fs::path path_;
};

void use(const engine::ModelFile& model) {
  for (const engine::Tensor& t : model.tensors()) {
    CHECK(model.find(t.name) == &t, t.name);
    std::vector<float> row(static_cast<size_t>(t.cols));
    for (const int64_t r : {int64_t{0}, t.rows - 1}) dequantize_row(t.dtype, t.row(r), row);
  }
  if (model.desc().layers > 0) (void)model.check({0, model.desc().layers});
  const auto tokenizer = engine::Tokenizer::from_model(model);
  if (!tokenizer) {
    CHECK(!tokenizer.error().message().empty());
    return;
  }
  (void)tokenizer->encode("one two", {.add_special = true, .parse_special = true});
  const auto chat = engine::ChatTemplate::from_model(model, *tokenizer);
  if (!chat) return;
  Json messages = Json::array();
  messages.push(Json::object({{"role", "user"}, {"content", "hello"}}));
  (void)chat->render(messages, Json(), {});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 50'000) return 0;
  static Folder folder;
  folder.fill({reinterpret_cast<const char*>(data), size});
  const auto model = engine::ModelFile::open(folder.path());
  if (!model) {
    CHECK(!model.error().message().empty());
    return 0;
  }
  use(*model);
  return 0;
}
