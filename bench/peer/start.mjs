#!/usr/bin/env node
// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// node bench/peer/start.mjs [--file build/bench-models/llama-3.2-1b-q4_0.gguf] [--rounds 5]
//
// Start to first token as a whole process, files in the page cache: ours (`towline run FILE ...
// -n 1`) and llama.cpp's binding take turns. Prints median seconds and the ratio (above 1: we are
// sooner).
import {spawnSync} from "node:child_process";
import {join, resolve} from "node:path";
import {fileURLToPath} from "node:url";

import {median, openPeer, option, root} from "./peer.mjs";

const file = resolve(option("file", join(root, "build/bench-models/llama-3.2-1b-q4_0.gguf")));

if (process.argv.includes("--peer")) {
  const context = await (await openPeer(file, 2)).context(512, 512, 1);
  context.initBatch(8);
  const prompt = Uint32Array.from([100, 101, 102, 103, 104, 105, 106, 107]);
  context.addToBatch(0, 0, prompt, Uint32Array.from([7]));
  await context.decodeBatch();
  process.exit(0);
}

// Wall seconds of one run.
function measure(program, args) {
  const begin = performance.now();
  const quietly = '"$@" >/dev/null 2>&1; exit $?';
  const child = spawnSync("/usr/bin/env", ["bash", "-c", quietly, "run", program, ...args]);
  if (child.status !== 0) throw new Error(`${program} failed`);
  return (performance.now() - begin) / 1000;
}
const ours = [], theirs = [];
for (let round = 0; round < +option("rounds", "5"); round++) {
  const self = fileURLToPath(import.meta.url);
  theirs.push(measure(process.execPath, [self, "--peer", "--file", file]));
  const words = ["-n", "1", "--ctx", "512", "--temperature", "0", "--json"];
  ours.push(measure(join(root, "build/towline"), ["run", file, "a b c d", ...words]));
}
console.log(JSON.stringify({
  file: file.split("/").pop(), towline_s: +median(ours).toFixed(2),
  llama_cpp_s: +median(theirs).toFixed(2),
  ratio: +median(ours.map((t, i) => theirs[i] / t)).toFixed(2), rounds: ours.length,
}));
