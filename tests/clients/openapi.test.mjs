// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Every answer of the server is what its own /openapi.json says.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import Ajv from "ajv/dist/2020.js";
import { key, model, prompt, url } from "./setup.mjs";

const headers = { "content-type": "application/json", authorization: `Bearer ${key}` };
let ajv, document;

before(async () => {
  document = await fetch(`${url}/openapi.json`, { headers }).then((r) => r.json());
  ajv = new Ajv({ strict: true, strictTypes: false, strictRequired: false, allErrors: true });
  ajv.addVocabulary(["components"]);
  ajv.addSchema({ $id: "towline", components: document.components });
});

const validator = (name) => ajv.compile({ $ref: `towline#/components/schemas/${name}` });

test("the schemas compile, and every operation has an answer", () => {
  assert.equal(document.openapi, "3.1.0");
  for (const name of Object.keys(document.components.schemas)) validator(name);
  const ids = new Set();
  for (const path of Object.values(document.paths)) {
    for (const operation of Object.values(path)) {
      assert.ok(operation.responses["200"] && operation.responses.default);
      assert.ok(!ids.has(operation.operationId));
      ids.add(operation.operationId);
    }
  }
});

const messages = [{ role: "user", content: prompt }];
const cases = [
  ["GET", "/health/live", null, "Health"],
  ["GET", "/health/ready", null, "Health"],
  ["GET", "/version", null, "Version"],
  ["GET", "/v1/models", null, "ModelList"],
  ["GET", `/v1/models/${model}`, null, "Model"],
  ["POST", "/v1/chat/completions",
    { messages, max_tokens: 4, logprobs: true, top_logprobs: 2, n: 2, return_token_ids: true },
    "ChatCompletion"],
  ["POST", "/v1/completions",
    { prompt, max_tokens: 4, logprobs: 2, echo: true }, "Completion"],
  ["POST", "/v1/embeddings", { input: prompt }, "EmbeddingList"],
  ["POST", "/v1/embeddings", { input: [prompt], encoding_format: "base64" }, "EmbeddingList"],
  ["POST", "/tokenize", { prompt, return_token_strs: true }, "Tokens"],
  ["POST", "/detokenize", { tokens: [1, 2, 3] }, "Text"],
  ["POST", "/v1/completions", { prompt: 3 }, "Error"],
  ["GET", "/v1/nothing", null, "Error"],
];
for (const [method, path, body, schema] of cases) {
  const sent = body ? JSON.stringify(body).slice(0, 60) : "";
  test(`${method} ${path} ${sent} is a ${schema}`, async () => {
    const kind = path.startsWith("/v1/chat") ? "ChatCompletionRequest"
      : path === "/v1/completions" ? "CompletionRequest" : null;
    if (kind && schema !== "Error") assert.ok(validator(kind)(body), "the request fits its schema");
    const answer = await fetch(url + path, {
      method, headers, body: body && JSON.stringify(body),
    }).then((r) => r.json());
    const validate = validator(schema);
    assert.ok(validate(answer), JSON.stringify(validate.errors) + JSON.stringify(answer));
  });
}
