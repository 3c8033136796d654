// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "serve/local_engine.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include <condition_variable>
#include <future>
#include <map>
#include <mutex>

#include "base/json.hpp"
#include "base/rng.hpp"
#include "engine/format/test_files.hpp"
#include "engine/testing_lora.hpp"

namespace towline::serve {
namespace {

// What has arrived for each request; waits for requests to end.
class Inbox {
 public:
  struct Answer {
    std::vector<int32_t> tokens;
    std::vector<GeneratedToken> detailed, prompt;
    std::vector<float> embedding;
    int32_t cached = 0;
    int ends = 0;
    FinishReason finish = FinishReason::kNone;
    std::optional<Error> error;
  };

  EventSink sink() {
    return [this](std::vector<GenerationEvent>&& events) {
      const std::lock_guard lock(mutex_);
      for (GenerationEvent& event : events) {
        Answer& a = answers_[event.id];
        for (GeneratedToken& token : event.tokens) {
          a.tokens.push_back(token.token);
          a.detailed.push_back(std::move(token));
        }
        for (GeneratedToken& token : event.prompt_tokens) a.prompt.push_back(std::move(token));
        if (!event.embedding.empty()) a.embedding = std::move(event.embedding);
        a.cached = std::max(a.cached, event.cached_tokens);
        if (event.error) a.error = event.error;
        if (event.finish == FinishReason::kNone) continue;
        a.finish = event.finish;
        ++a.ends;
        ++ended_;
      }
      changed_.notify_all();
    };
  }
  void wait_for(int ended) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ended_ >= ended; });
  }
  void wait_for_tokens(RequestId id, size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock,
                  [&] { return answers_[id].tokens.size() >= count || answers_[id].ends > 0; });
  }
  std::map<RequestId, Answer> answers() {
    const std::lock_guard lock(mutex_);
    return answers_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<RequestId, Answer> answers_;
  int ended_ = 0;
};

std::shared_ptr<const engine::ModelFile> open_model(const std::string& path) {
  auto file = engine::ModelFile::open(path);
  if (!file) {
    ADD_FAILURE() << file.error().to_string();
    return nullptr;
  }
  return std::make_shared<engine::ModelFile>(std::move(file).value());
}

GenerationRequest greedy_request(int64_t id, std::vector<int32_t> prompt, int32_t max_tokens) {
  GenerationRequest request;
  request.id = RequestId(id);
  request.prompt = std::move(prompt);
  request.sampling.temperature = 0;
  request.max_tokens = max_tokens;
  return request;
}

std::vector<int32_t> story_prompt(Rng& rng, int64_t length) {
  std::vector<int32_t> prompt = {1};
  while (static_cast<int64_t>(prompt.size()) < length) {
    prompt.push_back(static_cast<int32_t>(rng.between(259, 511)));
  }
  return prompt;
}

constexpr const char* kModel = "stories260K/stories260K-f32.gguf";

TEST(LocalEngine, GreedyTokensAreTheGoldenOnes) {
  TOWLINE_SHARED_MODEL(path, kModel);
  TOWLINE_SHARED_MODEL(golden_path, "golden/stories260K-f32.json");
  const auto golden = load_json(golden_path);
  ASSERT_TRUE(golden);
  std::vector<int32_t> expected;
  for (const Json& id : (*golden)["out_ids"].items()) {
    expected.push_back(static_cast<int32_t>(id.as_int()));
  }
  Inbox inbox;
  auto engine = LocalEngine::start(open_model(path), {.threads = 2}, inbox.sink());
  ASSERT_TRUE(engine) << engine.error().to_string();
  ASSERT_TRUE((*engine)->submit(greedy_request(1, {1, 403, 407, 261, 378}, 200)));
  inbox.wait_for(1);
  const Inbox::Answer answer = inbox.answers()[RequestId(1)];
  EXPECT_EQ(answer.tokens, expected);
  EXPECT_EQ(answer.finish, FinishReason::kLength);
  EXPECT_EQ((*engine)->unfinished(), 0);
}

TEST(LocalEngine, RefusesBadRequestsAndOverload) {
  TOWLINE_SHARED_MODEL(path, kModel);
  Inbox inbox;
  auto made = LocalEngine::start(open_model(path),
                                 {.threads = 1, .context = 64, .sequences = 1, .queue = 1},
                                 inbox.sink());
  ASSERT_TRUE(made) << made.error().to_string();
  LocalEngine& engine = **made;
  EXPECT_EQ(engine.max_context(), 64);
  const auto code = [&](GenerationRequest request) {
    const auto result = engine.submit(std::move(request));
    return result ? Code::kInternal : result.error().code();
  };
  EXPECT_EQ(code(greedy_request(1, {}, 4)), Code::kInvalidArgument);
  EXPECT_EQ(code(greedy_request(1, {1, 512}, 4)), Code::kInvalidArgument);
  EXPECT_EQ(code(greedy_request(1, {1, -1}, 4)), Code::kInvalidArgument);
  EXPECT_EQ(code(greedy_request(1, std::vector<int32_t>(64, 5), 4)), Code::kInvalidArgument);
  EXPECT_EQ(code(greedy_request(1, {1}, -4)), Code::kInvalidArgument);
  GenerationRequest nan = greedy_request(1, {1}, 4);
  nan.sampling.temperature = std::nanf("");
  EXPECT_EQ(code(nan), Code::kInvalidArgument);
  // One may run and one may wait: of three long ones that arrive together, the third is refused
  // unless an earlier one has ended meanwhile, which 60 tokens each make impossible to count on;
  // so ask until a refusal comes.
  int refused = 0, taken = 0;
  for (int64_t id = 1; id < 2000 && refused == 0; ++id) {
    const auto result = engine.submit(greedy_request(id, {1, 403}, 60));
    refused += result ? 0 : 1;
    taken += result ? 1 : 0;
    if (!result) {
      EXPECT_EQ(result.error().code(), Code::kExhausted);
    }
  }
  EXPECT_EQ(refused, 1);
  engine.drain();
  EXPECT_EQ(code(greedy_request(5000, {1}, 4)), Code::kUnavailable);
  inbox.wait_for(taken);  // draining ends what was taken
  for (const auto& [id, answer] : inbox.answers()) EXPECT_EQ(answer.finish, FinishReason::kLength);
}

TEST(LocalEngine, CancelAndDestructionEndEveryRequestOnce) {
  TOWLINE_SHARED_MODEL(path, kModel);
  Inbox inbox;
  {
    // The engine's thread stands here, a few tokens on its way, until all
    // is cancelled that shall be.
    std::promise<void> cancelled;
    const auto stand = [sink = inbox.sink(), &inbox, go_on = cancelled.get_future().share()](
                           std::vector<GenerationEvent>&& events) {
      sink(std::move(events));
      if (inbox.answers()[RequestId(0)].tokens.size() >= 3) go_on.wait();
    };
    auto made = LocalEngine::start(open_model(path), {.threads = 1, .sequences = 4}, stand);
    ASSERT_TRUE(made);
    for (int64_t id = 0; id < 40; ++id) {
      ASSERT_TRUE((*made)->submit(greedy_request(id, {1, 403, 407}, 500)));
    }
    inbox.wait_for_tokens(RequestId(0), 3);
    for (int64_t id = 0; id < 40; id += 2) (*made)->cancel(RequestId(id));
    (*made)->cancel(RequestId(0));
    (*made)->cancel(RequestId(4711));
    cancelled.set_value();
    inbox.wait_for(20);
  }
  const auto answers = inbox.answers();
  ASSERT_EQ(answers.size(), 40u);
  for (const auto& [id, answer] : answers) {
    EXPECT_EQ(answer.ends, 1) << id.value;
    if (id.value % 2 == 0) {
      EXPECT_EQ(answer.finish, FinishReason::kCancelled) << id.value;
    }
  }
}

TEST(LocalEngine, ReportsStopTokensLogprobsAndCachedTokens) {
  TOWLINE_SHARED_MODEL(path, kModel);
  Inbox inbox;
  auto made = LocalEngine::start(open_model(path), {.threads = 1}, inbox.sink());
  ASSERT_TRUE(made);
  Rng rng(3);
  const std::vector<int32_t> prompt = story_prompt(rng, 40);
  GenerationRequest plain = greedy_request(1, prompt, 8);
  plain.sampling.logprobs = 3;
  plain.prompt_logprobs = true;
  ASSERT_TRUE((*made)->submit(plain));
  inbox.wait_for(1);
  const Inbox::Answer first = inbox.answers()[RequestId(1)];
  ASSERT_EQ(first.tokens.size(), 8u);
  ASSERT_EQ(first.prompt.size(), prompt.size());
  for (size_t i = 0; i < prompt.size(); ++i) {
    EXPECT_EQ(first.prompt[i].token, prompt[i]);
    EXPECT_EQ(first.prompt[i].top.size(), i == 0 ? 0u : 3u);
  }
  for (const GeneratedToken& token : first.detailed) {
    ASSERT_EQ(token.top.size(), 3u);
    EXPECT_EQ(token.top[0].token, token.token) << "greedy takes the best";
    EXPECT_EQ(token.top[0].logprob, token.logprob);
    EXPECT_LE(token.logprob, 0);
    EXPECT_GE(token.top[0].logprob, token.top[1].logprob);
  }
  // The fifth token as a stop token ends the same answer there (or where it first appears); the
  // prompt's full blocks come from the cache.
  GenerationRequest stopped = greedy_request(2, prompt, 8);
  stopped.stop_tokens = {first.tokens[4]};
  ASSERT_TRUE((*made)->submit(stopped));
  inbox.wait_for(2);
  const Inbox::Answer second = inbox.answers()[RequestId(2)];
  EXPECT_EQ(second.finish, FinishReason::kStop);
  EXPECT_EQ(second.tokens.back(), first.tokens[4]);
  EXPECT_TRUE(second.detailed.back().is_stop);
  EXPECT_EQ(second.cached, 32);
  EXPECT_EQ((*made)->stats().prefix_hits, 32);
}

Result<void> load_and_wait(LocalEngine& engine, const std::string& name, const std::string& path) {
  const auto done = std::make_shared<std::promise<Result<void>>>();
  TRY(engine.load_adapter(name, path, [done](Result<void> r) { done->set_value(std::move(r)); }));
  return done->get_future().get();
}

TEST(LocalEngine, AdaptersAreLoadedWhileServingAndChosenByRequest) {
  TOWLINE_SHARED_MODEL(path, kModel);
  const engine::TempDir dir;
  Rng rng(9);
  std::vector<engine::LoraEntry> entries;
  for (const char* half : {"A", "B"}) {
    engine::LoraEntry e;
    e.name =
        std::string("base_model.model.model.layers.2.self_attn.q_proj.lora_") + half + ".weight";
    e.rows = half[0] == 'A' ? 4 : 64;
    e.cols = half[0] == 'A' ? 64 : 4;
    for (int64_t i = 0; i < e.rows * e.cols; ++i) {
      e.values.push_back(static_cast<float>(rng.unit() - 0.5));
    }
    entries.push_back(std::move(e));
  }
  engine::write_lora(dir / "tuned", R"({"lora_alpha":32})", entries);
  Inbox inbox;
  auto made = LocalEngine::start(open_model(path), {.threads = 1}, inbox.sink());
  ASSERT_TRUE(made);
  LocalEngine& engine = **made;
  const std::vector<int32_t> prompt = story_prompt(rng, 40);
  const auto ask = [&](int64_t id, const std::string& adapter) {
    GenerationRequest request = greedy_request(id, prompt, 60);
    request.adapter = adapter;
    return engine.submit(std::move(request));
  };
  ASSERT_TRUE(ask(0, ""));  // runs while the adapter is loaded
  EXPECT_EQ(ask(9, "tuned").error().code(), Code::kNotFound);
  EXPECT_FALSE(load_and_wait(engine, "tuned", dir / "nowhere"));
  ASSERT_TRUE(load_and_wait(engine, "tuned", dir / "tuned"));
  EXPECT_EQ(load_and_wait(engine, "tuned", dir / "tuned").error().code(), Code::kAlreadyExists);
  EXPECT_EQ(engine.adapters(), (std::vector<std::string>{"tuned"}));
  inbox.wait_for(1);
  // Both together: the prompt of one must not be found in the other's prefix cache.
  ASSERT_TRUE(ask(1, "tuned"));
  ASSERT_TRUE(ask(2, ""));
  inbox.wait_for(3);
  ASSERT_TRUE(ask(3, "tuned"));
  ASSERT_TRUE(engine.unload_adapter("tuned"));  // request 3 keeps it
  EXPECT_FALSE(engine.unload_adapter("tuned"));
  EXPECT_EQ(ask(9, "tuned").error().code(), Code::kNotFound);
  inbox.wait_for(4);
  const auto answers = inbox.answers();
  const auto tokens = [&](int64_t id) { return answers.at(RequestId(id)).tokens; };
  EXPECT_EQ(tokens(2), tokens(0));
  EXPECT_NE(tokens(1), tokens(0));
  EXPECT_EQ(tokens(3), tokens(1));
  EXPECT_EQ(answers.at(RequestId(1)).cached, 0);
  EXPECT_GT(answers.at(RequestId(2)).cached, 0);
  EXPECT_GT(answers.at(RequestId(3)).cached, 0);
}

TEST(LocalEngine, EmbeddingsHaveLengthOneAndDependOnTheTextAlone) {
  TOWLINE_SHARED_MODEL(path, kModel);
  Inbox inbox;
  auto made = LocalEngine::start(open_model(path), {.threads = 2, .step_tokens = 16}, inbox.sink());
  ASSERT_TRUE(made);
  Rng rng(5);
  std::vector<std::vector<int32_t>> prompts;
  for (int i = 0; i < 6; ++i) prompts.push_back(story_prompt(rng, rng.between(1, 50)));
  for (int64_t id = 0; id < 12; ++id) {
    GenerationRequest request = greedy_request(id, prompts[static_cast<size_t>(id % 6)], 5);
    request.embed = true;
    ASSERT_TRUE((*made)->submit(request));
  }
  inbox.wait_for(12);
  auto answers = inbox.answers();
  for (int64_t id = 0; id < 6; ++id) {
    const Inbox::Answer& a = answers[RequestId(id)];
    EXPECT_TRUE(a.tokens.empty());
    ASSERT_EQ(a.embedding.size(), 64u);
    double square = 0;
    for (const float v : a.embedding) square += static_cast<double>(v) * static_cast<double>(v);
    EXPECT_NEAR(square, 1.0, 1e-5);
    EXPECT_EQ(a.embedding, answers[RequestId(id + 6)].embedding);
  }
}

}  // namespace
}  // namespace towline::serve
