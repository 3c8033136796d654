// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The chat templates of tests/template_oracle once more, against @huggingface/jinja.
//
//   node templates.mjs TOWLINE TEMPLATE_DIRECTORY
//
// A report, not a gate: @huggingface/jinja is a subset of Jinja and differs from it in places, so
// compare.py (Jinja itself) decides. Exits with 1 only if fewer than nine in ten of what it renders
// are equal.
import {spawnSync} from 'node:child_process';
import {mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';

const [program, folder] = process.argv.slice(2);
let Template;
try {
  ({Template} = await import('@huggingface/jinja'));
} catch (e) {
  console.error(`templates.mjs: ${e.message}
run 'npm ci --ignore-scripts' in tests/oracles first`);
  process.exit(2);
}
const here = dirname(fileURLToPath(import.meta.url));
const conversations =
  JSON.parse(readFileSync(join(here, '../template_oracle/conversations.json'), 'utf8'));
const scratch = mkdtempSync(join(tmpdir(), 'towline-oracle-'));
const file = join(scratch, 'messages.json');
let equal = 0, different = 0, refused = 0;
for (const name of readdirSync(folder).filter(n => n.endsWith('.jinja')).sort()) {
  const path = join(folder, name);
  for (const [title, conversation] of Object.entries(conversations)) {
    let want;
    try {
      want = new Template(readFileSync(path, 'utf8')).render({
        bos_token: '<s>', eos_token: '</s>', tools: null, documents: null,
        add_generation_prompt: true, ...conversation});
    } catch {
      ++refused;
      continue;
    }
    const {add_generation_prompt = true, ...rest} = conversation;
    writeFileSync(file, JSON.stringify(rest));
    const words = ['template', path, '--messages', file, '--json', '--kwargs', 'bos_token=<s>',
      '--kwargs', 'eos_token=</s>', ...(add_generation_prompt ? [] : ['--no-generation-prompt'])];
    const done = spawnSync(program, words, {encoding: 'utf8'});
    if (done.status === 0 && JSON.parse(done.stdout).text === want) {
      ++equal;
    } else {
      ++different;
      const refusal = done.status ? ` (towline refuses: ${done.stderr.trim()})` : '';
      console.log(`differs: ${name} / ${title}${refusal}`);
    }
  }
}
rmSync(scratch, {recursive: true});
console.log(`@huggingface/jinja: ${equal} equal, ${different} different, ${refused} refused by it`);
process.exit(equal < 9 * different ? 1 : 0);
