#!/usr/bin/env node
// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// node bench/peer/engine.mjs [--shapes llama-3.2-1b:q4_0,...] [--rounds 3] [--depth 2048]
//                            [--pooled yes]
//
// Speed of the engine as a ratio to llama.cpp on the same GGUF file, cores and minute. The
// machine's memory bandwidth drifts by a factor of two over minutes, so the two take turns (peer,
// ours, peer, ours) and the figure is the median of the ratios of the rounds. With --pooled a third
// one takes part at batch 1: the peer with a pool of threads that poll (pooled.py). Needs `npm ci
// --ignore-scripts --omit=optional` in this folder and a built program; dummy weights are made on
// first use.
import {execFileSync} from "node:child_process";
import {existsSync, mkdirSync} from "node:fs";
import {join} from "node:path";
import {fileURLToPath} from "node:url";

import {here, median, openPeer, option, root} from "./peer.mjs";

const towline = join(root, "build/towline");
const self = fileURLToPath(import.meta.url);

// `engine.mjs --peer FILE ...` is this script as the peer's process: one JSON line a test.
if (process.argv.includes("--peer")) {
  await peer(option("peer"), +option("threads"), +option("pp"), +option("tg"),
             option("batch").split(",").map(Number), +option("depth"));
  process.exit(0);
}

const shapes = option("shapes", "llama-3.2-1b:q4_0,llama-3.2-1b:q8_0,qwen2.5-0.5b:q4_0").split(",");
const settings = {threads: option("threads", "2"), pp: option("pp", "512"), tg: option("tg", "32"),
                  batch: option("batch", "1,8,16,32"), depth: option("depth", "0")};
const flags = Object.entries(settings).flatMap(([name, value]) => ["--" + name, value]);
const cache = option("cache", join(root, "build/bench-models"));
const quietly = {encoding: "utf8", stdio: ["ignore", "pipe", "ignore"]};
const lines = (program, args) => execFileSync(program, args, quietly)
  .split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
const key = (row) => row.test.startsWith("pp") ? row.test : `${row.test} b${row.batch}`;

mkdirSync(cache, {recursive: true});
for (const entry of shapes) {
  const [shape, type] = entry.split(":");
  const file = join(cache, `${shape}-${type}.gguf`);
  if (!existsSync(file)) {
    execFileSync(towline, ["model", "make-dummy", "--shape", shape, "--type", type, "--out", file]);
  }
  const table = new Map();
  for (let round = 0; round < +option("rounds", "3"); round++) {
    const by_test = (rows) => new Map(rows.map((r) => [key(r), r.median]));
    const theirs = by_test(lines(process.execPath, [self, "--peer", file, ...flags]));
    const {threads, tg, depth} = settings;
    const pooled = option("pooled") && settings.batch.split(",").includes("1");
    const pool = by_test(
        pooled ? lines("python3", [join(here, "pooled.py"), file, threads, tg, depth]) : []);
    const words = ["bench", "engine", file, ...flags, "--reps", "1", "--json"];
    for (const row of lines(towline, words)) {
      const test = key(row), ours = row.median;
      if (!theirs.has(test)) continue;
      const rows = table.get(test) ?? table.set(test, []).get(test);
      rows.push({ours, theirs: theirs.get(test), ratio: ours / theirs.get(test),
                 pool: pool.get(test), poolRatio: ours / pool.get(test)});
    }
  }
  for (const [test, rows] of table) {
    const of = (field) => +median(rows.map((row) => row[field])).toFixed(2);
    const pooled = {llama_cpp_pooled: of("pool"), ratio_pooled: of("poolRatio")};
    console.log(JSON.stringify({
      model: `${shape} ${type}`, test, depth: +settings.depth, towline: of("ours"),
      llama_cpp: of("theirs"), ratio: of("ratio"), ...(rows[0].pool ? pooled : {}),
      rounds: rows.length,
    }));
  }
}

async function peer(file, threads, pp, tg, batches, depth) {
  const {model, context} = await openPeer(file, threads);
  const tokens = (n, k = 0) =>
      Uint32Array.from({length: n}, (_, i) => 100 + (i * 7919 + 13 + k) % 400);
  const report = (test, rate, more) => console.log(JSON.stringify({test, ...more, median: rate}));
  const now = () => performance.now() / 1000;
  if (pp > 0) {
    const c = await context(pp + 8, pp, 1);
    for (const timed of [false, true]) {
      c.disposeSequence(0);
      const begin = now();
      c.initBatch(pp);
      c.addToBatch(0, 0, tokens(pp), Uint32Array.from([pp - 1]));
      await c.decodeBatch();
      if (timed) report(`pp${pp}`, pp / (now() - begin), {});
    }
    await c.dispose();
  }
  for (const batch of tg > 0 ? batches : []) {
    const c = await context(depth + tg + 8, Math.max(512, batch), batch);
    for (const timed of [false, true]) {
      for (let s = 0; s < batch; s++) {
        c.disposeSequence(s);
        for (let at = 0; at < depth; at += 512) {
          const n = Math.min(512, depth - at);
          c.initBatch(n);
          c.addToBatch(s, at, tokens(n, s), new Uint32Array(0));
          await c.decodeBatch();
        }
      }
      const begin = now();
      for (let k = 0; k < tg; k++) {
        c.initBatch(batch);
        for (let s = 0; s < batch; s++) {
          c.addToBatch(s, depth + k, tokens(1, k * 31 + s * 17), Uint32Array.from([0]));
        }
        await c.decodeBatch();
      }
      if (timed) report(`tg${tg}`, batch * tg / (now() - begin), {batch, depth});
    }
    await c.dispose();
  }
  await model.dispose();
}
