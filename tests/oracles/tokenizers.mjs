// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Random texts through Hugging Face's tokenizers (the Rust library, and tokenizers.js) and ours.
//
//   node tokenizers.mjs TOWLINE SHARED [TEXTS=1000] [SEED=1]
//
// For every tokenizer.json: ids of each text, special tokens parsed, none added. The Rust library
// is the judge; tokenizers.js is reported beside it. Exits with 1 if ours differs from the judge.
import {execFileSync} from 'node:child_process';
import {mkdtempSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {tmpdir} from 'node:os';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';

const require = createRequire(import.meta.url);
const [program, shared, texts = '1000', seed = '1'] = process.argv.slice(2);
if (!program || !shared) {
  console.error('usage: node tokenizers.mjs TOWLINE SHARED [TEXTS] [SEED]');
  process.exit(2);
}
let rust, js;
try {
  rust = require('@anush008/tokenizers');
  js = await import('@huggingface/tokenizers');
} catch (e) {
  console.error(`tokenizers.mjs: ${e.message}
run 'npm ci --ignore-scripts' in tests/oracles first`);
  process.exit(2);
}

const here = dirname(fileURLToPath(import.meta.url));
const lenml = name => join(here, 'node_modules/@lenml', name, 'models/tokenizer.json');
const files = {
  'Llama-3': lenml('tokenizer-llama3'),
  'Qwen3': lenml('tokenizer-qwen3'),
  'TinyStories-656K': join(shared, 'data/models/TinyStories-656K/hf/tokenizer.json'),
};

// mulberry32: a small generator, so that a seed names a run.
function generator(state) {
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
const random = generator(Number(seed));
const pick = list => list[Math.floor(random() * list.length)];

const words = ['the', ' quick', 'Brown', ' fox', "don't", "we'LL", "'s", ' 123', '4567890', '3.14',
  '\n', '\n\n', '\r\n', '\t', ' ', '  ', '        ', ' \n ', '!!!', '...', ' (', ');', '{"a": 1}',
  '<b>', '</b>', '#include', 'naïve', ' Äpfel', 'cafe\u0301', ' ñandú', 'Привет', ' мир', '中文',
  '字符', '日本語', 'ひらがな', '한국어', 'العربية',
  'हिन्दी', 'ไทย', '😀', '👩‍👩‍👧', '🏳️‍🌈', '½', '²', 'Ⅷ', 'ﬁ', '\u00a0', '\u3000',
  '\u200b', '\u2028', 'Å', 'Å',
  '<|im_start|>', '<|im_end|>', '<|eot_id|>', '<s>', '</s>', '<unk>', '<|endoftext|>', '<think>',
  '_', '__init__', 'ABCdefGHI', 'x'.repeat(40), '\u0000', '\u007f', '▁', '▁▁', 'Ġ'];
function text() {
  let s = '';
  const n = Math.floor(random() * 24);
  for (let i = 0; i < n; ++i) {
    if (random() < 0.75) {
      s += pick(words);
    } else if (random() < 0.5) {
      s += String.fromCharCode(32 + Math.floor(random() * 95));
    } else {
      // Letters, marks, digits and signs of the common blocks; unassigned ones depend on Unicode's
      // version and are left out.
      const [from, to] = pick([[0xa1, 0x24f], [0x391, 0x3c9], [0x410, 0x44f], [0x5d0, 0x5ea],
        [0x621, 0x64a], [0x905, 0x939], [0x4e00, 0x9fa5], [0xac00, 0xd7a3], [0x1f600, 0x1f64f],
        [0x2190, 0x21ff], [0x300, 0x36f]]);
      s += String.fromCodePoint(from + Math.floor(random() * (to - from)));
    }
  }
  return s;
}

const same = (a, b) => a.length === b.length && a.every((x, i) => x === b[i]);
const scratch = mkdtempSync(join(tmpdir(), 'towline-oracle-'));
let failed = false;
for (const [name, path] of Object.entries(files)) {
  const samples = Array.from({length: Number(texts)}, text);
  writeFileSync(join(scratch, 'texts.json'), JSON.stringify(samples));
  const lines = execFileSync(program, ['tokenize', path, '--file', join(scratch, 'texts.json'),
    '--texts', '--special', '--json'], {maxBuffer: 1 << 30}).toString().trimEnd().split('\n');
  const ours = lines.map(line => JSON.parse(line));
  const judge = rust.Tokenizer.fromFile(path);
  const other = new js.Tokenizer(JSON.parse(readFileSync(path, 'utf8')), {});
  let equal = 0, equalJs = 0;
  for (let i = 0; i < samples.length; ++i) {
    const encoded = await judge.encode(samples[i], null, {addSpecialTokens: false});
    const want = Array.from(encoded.getIds());
    if (same(want, ours[i])) {
      ++equal;
    } else {
      failed = true;
      if (i - equal < 8) {
        console.log(`${name} DIFFERS on ${JSON.stringify(samples[i])}
  judge   ${want}
  towline ${ours[i]}`);
      }
    }
    try {
      equalJs += same(other.encode(samples[i], {add_special_tokens: false}).ids, ours[i]);
    } catch {
      // counted as different
    }
  }
  console.log(`${name}: ${equal} of ${samples.length} equal to Hugging Face's Rust library, ` +
    `${equalJs} to tokenizers.js`);
}
rmSync(scratch, {recursive: true});
process.exit(failed ? 1 : 0);
