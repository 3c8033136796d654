// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, streamText, tool, jsonSchema } from "ai";
import { key, model, prompt, url } from "./setup.mjs";

const towline = createOpenAICompatible({ name: "towline", baseURL: `${url}/v1`, apiKey: key });
const settings = { model: towline(model), temperature: 0, maxOutputTokens: 12, maxRetries: 0 };

test("generateText", async () => {
  const { text, usage, finishReason } = await generateText({ ...settings, prompt });
  assert.ok(text.length > 0);
  assert.ok(usage.inputTokens > 0 && usage.outputTokens > 0);
  assert.ok(["stop", "length"].includes(finishReason));
});

test("generateText with a system prompt and a conversation", async () => {
  const { text } = await generateText({
    ...settings, system: "Tell a story.",
    messages: [
      { role: "user", content: "Hello" }, { role: "assistant", content: "Hi" },
      { role: "user", content: prompt },
    ],
  });
  assert.ok(text.length > 0);
});

test("streamText gives the same text", async () => {
  const { text } = await generateText({ ...settings, prompt });
  const stream = streamText({ ...settings, prompt });
  let joined = "";
  for await (const delta of stream.textStream) joined += delta;
  assert.equal(joined, text);
});

test("completion model", async () => {
  const completion = towline.completionModel(model);
  const { text } = await generateText({ ...settings, model: completion, prompt });
  assert.ok(text.length > 0);
});

test("embedMany", async () => {
  const { embeddings } = await embedMany({
    model: towline.embeddingModel(model), values: [prompt, "The end"],
  });
  assert.equal(embeddings.length, 2);
  assert.ok(embeddings[0].every(Number.isFinite));
});

test("tools are refused by name", async () => {
  await assert.rejects(
    generateText({
      ...settings, prompt,
      tools: { f: tool({ description: "f", inputSchema: jsonSchema({ type: "object" }) }) },
    }),
    (e) => e.statusCode === 400 && /tools/.test(e.message));
});

test("abort ends the stream", async () => {
  const controller = new AbortController();
  const stream = streamText({
    ...settings, maxOutputTokens: 300, prompt, abortSignal: controller.signal, onError() {},
  });
  for await (const _ of stream.textStream) {
    controller.abort();
    break;
  }
});
