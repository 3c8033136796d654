// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What the scripts of this folder share: llama.cpp by its binding, options, medians.
import {createRequire} from "node:module";
import {dirname, join, resolve} from "node:path";
import {fileURLToPath} from "node:url";

export const here = dirname(fileURLToPath(import.meta.url));
export const root = resolve(here, "../..");

export const option = (name, fallback) => {
  const at = process.argv.indexOf("--" + name);
  return at < 0 ? fallback : process.argv[at + 1];
};

export const median = (list) => list.slice().sort((a, b) => a - b)[list.length >> 1];

// The model of a GGUF file in llama.cpp: {model, context(size, batch, sequences)}.
export async function openPeer(file, threads) {
  const bins = join(here, "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64");
  const llama = createRequire(import.meta.url)(join(bins, "llama-addon.node"));
  llama.setLogger(() => {});
  llama.setLoggerLogLevel(0);
  llama.loadBackends();
  llama.loadBackends(bins);
  await llama.init();
  const how = {gpuLayers: 0, useMmap: true, addonExports: llama};
  const model = new llama.AddonModel(resolve(file), how);
  if (!await model.init()) throw new Error(`the peer cannot load ${file}`);
  const context = async (size, batch, sequences) => {
    const made = new llama.AddonContext(
        model, {contextSize: size, batchSize: batch, sequences, threads, flashAttention: true});
    if (!await made.init()) throw new Error("the peer cannot make a context");
    made.setThreads(threads);
    return made;
  };
  return {model, context};
}
