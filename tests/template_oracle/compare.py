#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 The Towline Authors
# SPDX-License-Identifier: Apache-2.0
"""Renders every chat template with every conversation, here by Jinja (set up as Hugging Face
transformers does) and there by towline, and compares byte for byte.

    compare.py TOWLINE TEMPLATE_DIRECTORY [--verbose]

Where Jinja raises, towline must fail as well. Exits with 1 on any difference.
"""
import datetime
import glob
import json
import os
import subprocess
import sys
import tempfile

try:
    import jinja2
    import jinja2.ext
    import jinja2.nodes
    import jinja2.sandbox
except ImportError:
    sys.exit("compare.py: needs the Debian package python3-jinja2 (tools/setup installs it)")

NOW = 1753876543  # 2025-07-30 UTC


class Generation(jinja2.ext.Extension):
    """{% generation %}: marks the assistant's words; renders its body."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def environment():
    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def strftime_now(form):
        return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(form)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env


def render(env, source, conversation):
    variables = dict(bos_token="<s>", eos_token="</s>", tools=None, documents=None,
                     add_generation_prompt=True)
    variables.update(conversation)
    try:
        return env.from_string(source).render(**variables), None
    except Exception as e:  # any failure of the template is a result here
        return None, f"{type(e).__name__}: {e}"


def towline(program, path, conversation):
    conversation = dict(conversation)
    words = [program, "template", path, "--json", "--now", str(NOW), "--kwargs", "bos_token=<s>",
             "--kwargs", "eos_token=</s>"]
    if not conversation.pop("add_generation_prompt", True):
        words.append("--no-generation-prompt")
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as f:
        json.dump(conversation, f)
    done = subprocess.run(words + ["--messages", f.name], capture_output=True, text=True)
    os.unlink(f.name)
    if done.returncode != 0:
        return None, done.stderr.strip()
    return json.loads(done.stdout)["text"], None


def main():
    program, directory = sys.argv[1:3]
    verbose = "--verbose" in sys.argv
    env = environment()
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "conversations.json"), encoding="utf-8") as f:
        conversations = json.load(f)
    paths = sorted(glob.glob(os.path.join(directory, "*.jinja")))
    own = sorted(glob.glob(os.path.join(here, "own", "*.jinja")))
    if not paths:
        sys.exit(f"compare.py: no templates in {directory}")
    equal = both_fail = lenient = 0
    bad = []
    for path in paths + own:
        with open(path, encoding="utf-8") as f:
            source = f.read()
        for name, conversation in conversations.items():
            want, want_error = render(env, source, conversation)
            got, got_error = towline(program, path, conversation)
            if want == got:
                equal += want is not None
                both_fail += want is None
                continue
            if got is not None and "type generator is not JSON" in (want_error or ""):
                lenient += 1  # our filters make lists where Jinja's make generators
                continue
            bad.append((os.path.basename(path), name, want, want_error, got, got_error))
    for path, name, want, want_error, got, got_error in bad:
        print(f"DIFFERS {path} / {name}")
        if want is None or got is None:
            print(f"  jinja:   {want_error or 'renders'}\n  towline: {got_error or 'renders'}")
            continue
        at = next((i for i, (a, b) in enumerate(zip(want, got)) if a != b),
                  min(len(want), len(got)))
        print(f"  at {at}\n  jinja:   {want[max(0, at - 40):at + 60]!r}"
              f"\n  towline: {got[max(0, at - 40):at + 60]!r}")
        if verbose:
            print(want, got, sep="\n----\n")
    print(f"{len(paths) + len(own)} templates x {len(conversations)} conversations: {equal} equal, "
          f"{both_fail} refused by both, {lenient} refused by Jinja alone (a generator to tojson), "
          f"{len(bad)} different")
    sys.exit(1 if bad else 0)


main()
