#!/usr/bin/env node
// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// node bench/peer/start.mjs [--file build/bench-models/llama-3.2-1b-q4_0.gguf] [--rounds 5]
//
// Start to first token as a whole process, files in the page cache: ours (`towline run FILE ... -n 1`)
// and llama.cpp's binding take turns. Prints median seconds and the ratio (above 1: we are sooner).
import {spawnSync} from "node:child_process";
import {dirname, join, resolve} from "node:path";
import {createRequire} from "node:module";
import {fileURLToPath} from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const root = resolve(here, "../..");
const option = (name, fallback) => {
  const at = process.argv.indexOf("--" + name);
  return at < 0 ? fallback : process.argv[at + 1];
};
const file = resolve(option("file", join(root, "build/bench-models/llama-3.2-1b-q4_0.gguf")));

if (process.argv.includes("--peer")) {
  const bins = join(here, "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64");
  const llama = createRequire(import.meta.url)(join(bins, "llama-addon.node"));
  llama.setLogger(() => {});
  llama.setLoggerLogLevel(0);
  llama.loadBackends();
  llama.loadBackends(bins);
  await llama.init();
  const model = new llama.AddonModel(file, {gpuLayers: 0, useMmap: true, addonExports: llama});
  if (!await model.init()) throw new Error(`the peer cannot load ${file}`);
  const context = new llama.AddonContext(model, {contextSize: 512, batchSize: 512, sequences: 1, threads: 2, flashAttention: true});
  if (!await context.init()) throw new Error("the peer cannot make a context");
  context.setThreads(2);
  context.initBatch(8);
  context.addToBatch(0, 0, Uint32Array.from([100, 101, 102, 103, 104, 105, 106, 107]), Uint32Array.from([7]));
  await context.decodeBatch();
  process.exit(0);
}

// Wall seconds of one run.
function measure(program, args) {
  const begin = performance.now();
  const child = spawnSync("/usr/bin/env", ["bash", "-c", '"$@" >/dev/null 2>&1; exit $?', "run", program, ...args]);
  if (child.status !== 0) throw new Error(`${program} failed`);
  return (performance.now() - begin) / 1000;
}
const median = (list) => list.slice().sort((a, b) => a - b)[list.length >> 1];
const ours = [], theirs = [];
for (let round = 0; round < +option("rounds", "5"); round++) {
  theirs.push(measure(process.execPath, [fileURLToPath(import.meta.url), "--peer", "--file", file]));
  ours.push(measure(join(root, "build/towline"), ["run", file, "a b c d", "-n", "1", "--ctx", "512", "--temperature", "0", "--json"]));
}
console.log(JSON.stringify({file: file.split("/").pop(), towline_s: +median(ours).toFixed(2), llama_cpp_s: +median(theirs).toFixed(2),
                            ratio: +median(ours.map((t, i) => theirs[i] / t)).toFixed(2), rounds: ours.length}));
