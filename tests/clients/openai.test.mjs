// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { busyUrl, collect, key, model, prompt, url } from "./setup.mjs";

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
const messages = [{ role: "user", content: prompt }];
const greedy = { model, temperature: 0, max_tokens: 12 };

test("models: list and retrieve", async () => {
  const list = await collect(client.models.list());
  assert.deepEqual(list.map((m) => m.id), [model]);
  assert.equal((await client.models.retrieve(model)).object, "model");
});

test("chat: whole answer with usage and request id", async () => {
  const answer = await client.chat.completions.create({ ...greedy, messages });
  assert.equal(answer.object, "chat.completion");
  assert.equal(answer.choices[0].message.role, "assistant");
  assert.ok(answer.choices[0].message.content.length > 0);
  assert.ok(["stop", "length"].includes(answer.choices[0].finish_reason));
  assert.ok(answer.usage.prompt_tokens > 0);
  assert.ok(answer.usage.completion_tokens > 0 && answer.usage.completion_tokens <= 12);
  assert.equal(answer.usage.total_tokens,
    answer.usage.prompt_tokens + answer.usage.completion_tokens);
  assert.match(answer._request_id, /^req-/);
});

test("chat: the stream joins to the whole answer, with a usage chunk", async () => {
  const whole = await client.chat.completions.create({ ...greedy, messages });
  const chunks = await collect(await client.chat.completions.create({
    ...greedy, messages, stream: true, stream_options: { include_usage: true },
  }));
  const text = chunks.map((c) => c.choices[0]?.delta.content ?? "").join("");
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(chunks[0].choices[0].delta.role, "assistant");
  assert.deepEqual(chunks.at(-1).choices, []);
  assert.deepEqual(chunks.at(-1).usage, whole.usage.prompt_tokens_details
    ? { ...whole.usage, prompt_tokens_details: chunks.at(-1).usage.prompt_tokens_details }
    : whole.usage);
});

test("chat: the stream helper", async () => {
  const runner = client.chat.completions.stream({ ...greedy, messages });
  const deltas = [];
  runner.on("content", (delta) => deltas.push(delta));
  const final = await runner.finalChatCompletion();
  assert.equal(deltas.join(""), final.choices[0].message.content);
});

test("chat: developer role and text parts", async () => {
  const answer = await client.chat.completions.create({
    ...greedy,
    messages: [
      { role: "developer", content: "Tell a story." },
      { role: "user", content: [{ type: "text", text: prompt }] },
    ],
  });
  assert.ok(answer.choices[0].message.content);
});

test("tools: a clear error that names the field", async () => {
  await assert.rejects(
    client.chat.completions.create({
      ...greedy, messages,
      tools: [{ type: "function", function: { name: "f", parameters: { type: "object" } } }],
    }),
    (e) => e instanceof OpenAI.BadRequestError && e.param === "tools" &&
      e.code === "unsupported_parameter" && /tools/.test(e.message));
});

test("response_format json_schema: a clear error", async () => {
  await assert.rejects(
    client.chat.completions.create({
      ...greedy, messages,
      response_format: { type: "json_schema", json_schema: { name: "x", schema: {} } },
    }),
    (e) => e.status === 400 && e.param === "response_format");
});

test("logprobs: chat form, consistent with its own text", async () => {
  const answer = await client.chat.completions.create({
    ...greedy, messages, logprobs: true, top_logprobs: 3,
  });
  const { content } = answer.choices[0].logprobs;
  const bytes = Buffer.concat(content.map((t) => Buffer.from(t.bytes)));
  assert.equal(bytes.toString("utf8"), answer.choices[0].message.content);
  for (const token of content) {
    assert.ok(token.logprob <= 0);
    assert.equal(token.top_logprobs.length, 3);
    // Greedy: the token is the likeliest, and the alternatives are sorted.
    assert.equal(token.logprob, token.top_logprobs[0].logprob);
    assert.ok(token.top_logprobs[0].logprob >= token.top_logprobs[1].logprob);
  }
});

test("logprobs: completion form, echo and offsets", async () => {
  const answer = await client.completions.create({
    ...greedy, prompt, max_tokens: 4, echo: true, logprobs: 2,
  });
  const { text, logprobs } = answer.choices[0];
  assert.ok(text.startsWith(prompt));
  assert.equal(logprobs.token_logprobs[0], null);
  assert.equal(logprobs.tokens.length,
    answer.usage.prompt_tokens + answer.usage.completion_tokens);
  assert.equal(logprobs.text_offset.length, logprobs.tokens.length);
  for (let i = answer.usage.prompt_tokens; i < logprobs.tokens.length; ++i) {
    assert.equal(text.slice(logprobs.text_offset[i], logprobs.text_offset[i + 1]),
      logprobs.tokens[i]);
  }
});

test("stop: text ends before it, in both forms", async () => {
  const whole = await client.completions.create({ ...greedy, prompt, max_tokens: 24 });
  const stop = whole.choices[0].text.slice(6, 9);
  const expected = whole.choices[0].text.slice(0, whole.choices[0].text.indexOf(stop));
  const stopped = await client.completions.create({ ...greedy, prompt, max_tokens: 24, stop });
  assert.equal(stopped.choices[0].text, expected);
  assert.equal(stopped.choices[0].finish_reason, "stop");
  const chunks = await collect(await client.completions.create({
    ...greedy, prompt, max_tokens: 24, stop: [stop, "never seen"], stream: true,
  }));
  assert.equal(chunks.map((c) => c.choices[0].text).join(""), expected);
});

test("seed: the same seed gives the same text, alone or in company", async () => {
  const ask = (seed) => client.completions.create({
    model, prompt, max_tokens: 16, temperature: 1.2, seed,
  }).then((a) => a.choices[0].text);
  const alone = await ask(7);
  const company = await Promise.all([ask(1), ask(7), ask(2), ask(7), ask(3)]);
  assert.equal(company[1], alone);
  assert.equal(company[3], alone);
  assert.ok(new Set(company).size > 1, "different seeds differ");
});

test("n: choices are many, and the first is the one of n = 1", async () => {
  const request = { model, prompt, max_tokens: 12, temperature: 1.2, seed: 11 };
  const one = await client.completions.create(request);
  const three = await client.completions.create({ ...request, n: 3 });
  assert.deepEqual(three.choices.map((c) => c.index), [0, 1, 2]);
  assert.equal(three.choices[0].text, one.choices[0].text);
  assert.ok(new Set(three.choices.map((c) => c.text)).size > 1);
  const chunks = await collect(await client.completions.create({ ...request, n: 3, stream: true }));
  for (const { index, text } of three.choices) {
    const joined = chunks.filter((c) => c.choices[0].index === index)
      .map((c) => c.choices[0].text).join("");
    assert.equal(joined, text);
  }
});

test("prompts: lists of texts and of tokens", async () => {
  const answer = await client.completions.create({ ...greedy, prompt: [prompt, "The end"] });
  assert.equal(answer.choices.length, 2);
  const tokens = await fetch(`${url}/tokenize`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${key}` },
    body: JSON.stringify({ model, prompt }),
  }).then((r) => r.json());
  const same = await client.completions.create({ ...greedy, prompt: tokens.tokens });
  assert.equal(same.choices[0].text, answer.choices[0].text);
});

test("embeddings: base64 (the client's default) equals float", async () => {
  const base64 = await client.embeddings.create({ model, input: [prompt, "The end"] });
  const floats = await client.embeddings.create({ model, input: prompt, encoding_format: "float" });
  assert.equal(base64.data.length, 2);
  assert.equal(base64.data[0].embedding.length, floats.data[0].embedding.length);
  base64.data[0].embedding.forEach((v, i) => {
    assert.equal(Math.fround(floats.data[0].embedding[i]), v);
  });
  const norm = Math.hypot(...floats.data[0].embedding);
  assert.ok(Math.abs(norm - 1) < 1e-3, `norm ${norm}`);
});

test("errors: classes follow the status", async () => {
  const wrong = new OpenAI({ baseURL: `${url}/v1`, apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(wrong.models.list(), OpenAI.AuthenticationError);
  await assert.rejects(client.completions.create({ model: "gpt-4", prompt }), OpenAI.NotFoundError);
  await assert.rejects(client.completions.create({ model, prompt, temperature: -1 }),
    (e) => e instanceof OpenAI.BadRequestError && e.param === "temperature");
  await assert.rejects(client.chat.completions.create({ model, messages: [] }),
    (e) => e instanceof OpenAI.BadRequestError && e.param === "messages");
  await assert.rejects(client.completions.create({ model, prompt: "a ".repeat(100000) }),
    (e) => e instanceof OpenAI.BadRequestError && e.code === "context_length_exceeded");
});

const running = async () => {
  const text = await fetch(`${url}/metrics`, { headers: { authorization: `Bearer ${key}` } })
    .then((r) => r.text());
  return Number(/^vllm:num_requests_running\{[^}]*\} (\S+)$/m.exec(text)[1]);
};

test("abort: the server stops working on it", async () => {
  const stream = await client.completions.create({
    model, prompt, max_tokens: 400, stream: true, ignore_eos: true,
  });
  for await (const _ of stream) break;  // leaving the loop aborts the request
  while (await running() > 0) await new Promise((done) => setTimeout(done, 20));
  // Without a stream: aborted when the server works on it; again if it was done before that.
  for (let aborted = false; !aborted;) {
    const controller = new AbortController();
    let ended = false;
    const pending = client.completions.create(
      { model, prompt, max_tokens: 400, ignore_eos: true }, { signal: controller.signal })
      .then(() => false, (e) => {
        assert.ok(e instanceof OpenAI.APIUserAbortError, e);
        return true;
      })
      .finally(() => { ended = true; });
    while (!ended && await running() === 0) ;  // each look is an exchange with the server
    controller.abort();
    aborted = await pending;
  }
  while (await running() > 0) await new Promise((done) => setTimeout(done, 20));
});

test("429: the client waits and tries again", async () => {
  let occupant = null;
  let refusals = 0;
  const patient = new OpenAI({
    baseURL: `${busyUrl}/v1`, apiKey: "any", maxRetries: 8,
    fetch: async (...args) => {
      const response = await fetch(...args);
      if (response.status === 429) {
        ++refusals;
        assert.equal(response.headers.get("retry-after"), "1");
        occupant.controller.abort();  // make room
      }
      return response;
    },
  });
  const plain = new OpenAI({ baseURL: `${busyUrl}/v1`, apiKey: "any" });
  for (let tries = 0; tries < 50 && refusals === 0; ++tries) {
    occupant = await plain.completions.create({
      model, prompt, max_tokens: 400, stream: true, ignore_eos: true,
    });
    const answer = await patient.completions.create({ ...greedy, prompt, max_tokens: 2 });
    assert.equal(answer.usage.completion_tokens, 2);
    occupant.controller.abort();
  }
  assert.ok(refusals > 0, "the busy server refused at least once");
});

test("many at once: every answer is the one given alone", async () => {
  const ask = (i) => client.completions.create({ ...greedy, prompt: `${prompt} ${i}` })
    .then((a) => a.choices[0].text);
  const alone = [];
  for (let i = 0; i < 4; ++i) alone.push(await ask(i));
  const together = await Promise.all(Array.from({ length: 32 }, (_, i) => ask(i % 4)));
  together.forEach((text, i) => assert.equal(text, alone[i % 4]));
});
