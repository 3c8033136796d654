# SPDX-FileCopyrightText: 2026 The Towline Authors
# SPDX-License-Identifier: Apache-2.0
"""What the cluster tests share: processes of the program under test (argv[1]), and requests.

A verdict must be the same in every schedule: whoever is held up for seconds, by other tests or by a
machine that was suspended, must not change it. So nothing here is about times; what other processes
do is waited for; and clusters get a lease that no hold-up reaches, unless a test is about leases.
"""
import atexit
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
STARTS = ["In the beginning", "And it came to pass", "The Lord is my", "Blessed are the",
          "Now when", "He said unto them", "Behold", "And God said"]
# Seconds; a bound for a test that fails, never reached by one that does not. Sanitizers need more.
PATIENCE = int(os.environ.get("TOWLINE_TEST_PATIENCE", "300"))
LEASE = "600"


def words_file():
    """For what a process says that no test reads; kept in a folder of tools/sanitize, if there is
    one: UBSan's reports go nowhere else."""
    return tempfile.NamedTemporaryFile(mode="w+", dir=os.environ.get("TOWLINE_TEST_WORDS"),
                                       delete="TOWLINE_TEST_WORDS" not in os.environ)


class Server:
    """A running `towline serve` or `towline up`; `ready` is its JSON line."""

    def __init__(self, *words, wait=True, command=None):
        self.errors = words_file() if wait else subprocess.PIPE
        self.process = subprocess.Popen(command or [TOWLINE, *settled(words), "--json"],
                                        stdout=subprocess.PIPE, stderr=self.errors, text=True)
        # Of a test that fails nothing goes on; of one that ended, nothing is there.
        atexit.register(self.process.kill)
        if wait:
            self.wait_ready()
        else:
            self.errors = self.process.stderr

    def wait_ready(self):
        line = self.process.stdout.readline()
        assert line, "did not become ready:\n" + self.stderr()
        self.ready = json.loads(line)
        self.url = self.ready["url"]
        self.there = ["--url", self.url, "--timeout", str(PATIENCE)]  # for status, drain, call, top

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read()

    def call(self, path, body=None, method=None, raw=False):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method,
                                         headers={"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=2 * PATIENCE) as answer:
            text = answer.read()
            return text.decode() if raw else json.loads(text)

    def refused(self, path, body=None):
        """-> (status, message) of a request that must not be answered"""
        try:
            self.call(path, body, raw=True)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())["error"]["message"]
        raise AssertionError(f"{path} {body} was not refused")

    def nodes(self):
        return {n["name"]: n for n in self.call("/cluster")["nodes"]}

    def states(self):
        assert self.process.poll() is None, "the coordinator has ended:\n" + self.stderr()
        return {name: n["state"] for name, n in self.nodes().items()}

    def wait_state(self, name, state):
        until(f"{name} is {state}", lambda: self.states().get(name) == state)

    def stop(self, signal_number=signal.SIGTERM):
        self.process.send_signal(signal_number)
        code = self.process.wait(timeout=PATIENCE)
        self.process.stdout.close()
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()


def settled(words):
    """A long lease for a coordinator, and all the time to start; one compute thread for a
    server of its own: two that wait for each other have to be given both processors at once,
    for which other tests may make them wait long."""
    defaults = {"--threads": "1"}
    if words[0] == "up":
        defaults = {"--lease": LEASE, "--ready-seconds": "86400"}
    elif "--cluster" in words:
        defaults = {"--lease": LEASE}
    return [*words, *(w for option, value in defaults.items() if option not in words
                      for w in (option, value))]


def until(what, holds, seconds=PATIENCE):
    """Waits for something that other processes do. -> the value that is not false"""
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
    ready, _, _ = select.select([watched], [], [], PATIENCE)
    os.close(watched)
    assert ready, f"process {pid} is left behind"


def wait_all_ready(cluster, count=None):
    """Ready means that one way is there: other nodes may still be loading."""
    def all_ready():
        states = list(cluster.states().values())
        return states.count("ready") == (len(states) if count is None else count)

    until("all nodes are ready", all_ready)


def shared_files(pids):
    """Files in /dev/shm that these processes hold. Only what has a name there can be left behind;
    of what others have there nothing follows."""
    found = set()
    for pid in pids:
        with open(f"/proc/{pid}/maps") as f:
            found.update(line.split(None, 5)[5].strip() for line in f if "/dev/shm/" in line)
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
            except OSError:
                pass  # closed meanwhile
    return sorted(path for path in found if path.startswith("/dev/shm/"))


def free_address():
    """An address of this machine that is this process's own: nobody takes its ports between the
    life of a process that listens there and the next, as happens to free ports of 127.0.0.1."""
    pid = os.getpid()
    return f"127.{64 + (pid >> 16) % 64}.{(pid >> 8) % 256}.{pid % 256}"


def ends_saying(command, *wanted):
    """The command fails by itself, in time, with one line that has all of these in it."""
    done = subprocess.run([TOWLINE, *command], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode not in (0, None) and done.returncode > 0, (done.returncode, done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.startswith("towline:")]
    assert len(lines) == 1 and all(w in lines[0] for w in wanted), (wanted, done.stderr)


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
    return {"text": choice["text"], "finish": choice["finish_reason"],
            "logprobs": choice["logprobs"]}


def answers(server, together, requests=None):
    with concurrent.futures.ThreadPoolExecutor(max_workers=together) as pool:
        return list(pool.map(lambda body: answer(server, body), requests or bodies()))


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


def model_info(model=MODEL):
    return json.loads(subprocess.check_output([TOWLINE, "model", "info", model, "--json"]))


def layer_count(model=MODEL):
    info = model_info(model)
    return info.get("layers") or info["model"]["layers"]


def splits(layers):
    """(name, ranges): unequal, overlapping, and more nodes than needed."""
    a, b = max(1, layers // 4), max(2, layers // 2)
    return [
        ("2 unequal", [(0, a), (a, layers)]),
        ("3 overlapping", [(0, b), (a, layers), (a, layers)]),
        ("5 of all kinds", [(0, layers), (0, a), (a, b), (a, layers), (b, layers)]),
    ]


def worker(address, name, *words, cwd=None):
    return subprocess.Popen([TOWLINE, "worker", "--connect", address, "--name", name,
                             "--connect-seconds", "600", *words], stderr=words_file(), cwd=cwd)


def ended(process):
    """The exit code of a child of ours."""
    return process.wait(timeout=PATIENCE)
