# SPDX-FileCopyrightText: 2026 The Towline Authors
# SPDX-License-Identifier: Apache-2.0
"""What the cluster tests share: processes of the program under test (argv[1]), and requests."""
import concurrent.futures
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

TOWLINE = os.path.abspath(sys.argv[1])
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODEL = os.path.join(ROOT, "models", "towline-demo-3.9m-q8_0.gguf")
STARTS = ["In the beginning", "And it came to pass", "The Lord is my", "Blessed are the", "Now when",
          "He said unto them", "Behold", "And God said"]


class Server:
    """A running `towline serve` or `towline up`; `ready` is its JSON line."""

    def __init__(self, *words, wait=True):
        self.errors = tempfile.TemporaryFile(mode="w+") if wait else subprocess.PIPE
        self.process = subprocess.Popen([TOWLINE, *words, "--json"], stdout=subprocess.PIPE,
                                        stderr=self.errors, text=True)
        if wait:
            self.wait_ready()
        else:
            self.errors = self.process.stderr

    def wait_ready(self):
        line = self.process.stdout.readline()
        assert line, "did not become ready:\n" + self.stderr()
        self.ready = json.loads(line)
        self.url = self.ready["url"]

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read()

    def call(self, path, body=None, method=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method,
                                         headers={"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.loads(answer.read())

    def stop(self, signal_number=signal.SIGTERM):
        self.process.send_signal(signal_number)
        code = self.process.wait(timeout=300)
        self.process.stdout.close()
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()


def until(what, holds, seconds=300):
    """Waits for something that other processes do; the bound is only for a test that fails. -> the value"""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = holds()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


def wait_gone(pid):
    """Until the process, which is not our child, has ended."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ready, _, _ = select.select([watched], [], [], 300)
    os.close(watched)
    assert ready, f"process {pid} is left behind"


def wait_all_ready(cluster):
    """Ready means that one way is there: other nodes may still be loading."""
    while any(n["state"] != "ready" for n in cluster.call("/cluster")["nodes"]):
        pass  # each look is an exchange with the server


def bodies():
    """32 requests: greedy and seeded, several lengths, with log-probabilities."""
    out = []
    for i in range(32):
        body = {"prompt": " and ".join([STARTS[i % 8]] * (1 + i % 5)), "max_tokens": 8 + i % 17,
                "logprobs": 2, "temperature": 0 if i % 2 == 0 else 0.9, "seed": i}
        if i % 7 == 3:
            body["echo"] = True
        if i % 5 == 4:
            body["frequency_penalty"] = 0.5
        out.append(body)
    return out


def answer(server, body):
    choice = server.call("/v1/completions", body)["choices"][0]
    return {"text": choice["text"], "finish": choice["finish_reason"], "logprobs": choice["logprobs"]}


def answers(server, together):
    with concurrent.futures.ThreadPoolExecutor(max_workers=together) as pool:
        return list(pool.map(lambda body: answer(server, body), bodies()))


def scenario(folder, ranges, transport="tcp", **serving):
    path = os.path.join(folder, "scenario.toml")
    with open(path, "w") as f:
        f.write(f'schema = 1\nmodel = "{MODEL}"\n[net]\ntransport = "{transport}"\n')
        if serving:
            f.write("[serving]\n")
            for key, value in serving.items():
                f.write(f"{key} = {json.dumps(value)}\n")
        for i, layers in enumerate(ranges):
            f.write(f'[[workers]]\nname = "w{i}"\nlayers = {list(layers)}\n')
    return path


def layer_count():
    info = json.loads(subprocess.check_output([TOWLINE, "model", "info", MODEL, "--json"]))
    return info.get("layers") or info["model"]["layers"]


def splits(layers):
    """(name, ranges): unequal, overlapping, and more nodes than needed."""
    a, b = max(1, layers // 4), max(2, layers // 2)
    return [
        ("2 unequal", [(0, a), (a, layers)]),
        ("3 overlapping", [(0, b), (a, layers), (a, layers)]),
        ("5 of all kinds", [(0, layers), (0, a), (a, b), (a, layers), (b, layers)]),
    ]


def worker(address, name, *words):
    return subprocess.Popen([TOWLINE, "worker", "--connect", address, "--name", name, *words],
                            stderr=subprocess.DEVNULL)
