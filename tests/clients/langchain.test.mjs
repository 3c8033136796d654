// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { test } from "node:test";
import { HumanMessage, SystemMessage } from "@langchain/core/messages";
import { ChatOpenAI, OpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { collect, key, model, prompt, url } from "./setup.mjs";

const options = {
  model, apiKey: key, temperature: 0, maxTokens: 12, maxRetries: 0,
  configuration: { baseURL: `${url}/v1` },
};
const chat = new ChatOpenAI(options);

test("invoke", async () => {
  const answer = await chat.invoke([new SystemMessage("Tell a story."), new HumanMessage(prompt)]);
  assert.ok(answer.content.length > 0);
  assert.ok(answer.usage_metadata.input_tokens > 0 && answer.usage_metadata.output_tokens > 0);
});

test("stream joins to the same text, with usage", async () => {
  const whole = await chat.invoke([new HumanMessage(prompt)]);
  const chunks = await collect(await chat.stream([new HumanMessage(prompt)]));
  assert.equal(chunks.map((c) => c.content).join(""), whole.content);
  assert.ok(chunks.some((c) => c.usage_metadata?.output_tokens > 0));
});

test("batch", async () => {
  const answers = await chat.batch([[new HumanMessage(prompt)], [new HumanMessage("The end")]]);
  assert.equal(answers.length, 2);
});

test("completion model with a stop string", async () => {
  const text = await new OpenAI({ ...options, maxTokens: 24 }).invoke(prompt, { stop: ["."] });
  assert.ok(text.length > 0 && !text.includes("."));
});

test("embeddings", async () => {
  const embeddings = new OpenAIEmbeddings({
    model, apiKey: key, configuration: { baseURL: `${url}/v1` },
  });
  const vectors = await embeddings.embedDocuments([prompt, "The end"]);
  assert.equal(vectors.length, 2);
  assert.ok(vectors[0].length > 0 && vectors[0].every(Number.isFinite));
});

test("tools are refused by name", async () => {
  const bound = chat.bindTools([
    { type: "function", function: { name: "f", description: "f", parameters: { type: "object" } } },
  ]);
  await assert.rejects(bound.invoke([new HumanMessage(prompt)]), /tools/);
});
