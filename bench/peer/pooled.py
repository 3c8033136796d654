#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 The Towline Authors
# SPDX-License-Identifier: Apache-2.0
"""Decode speed of llama.cpp with its threads kept alive between tokens, at batch 1.

    bench/peer/pooled.py MODEL.gguf [threads=2] [tokens=32] [depth=0]

The node binding starts new threads for every token, which costs small models up to half of their
speed; the peer's own command-line tool keeps a pool of polling threads. This drives the same
libraries (npm ci in this folder) through their C interface with such a pool, and prints one JSON
line. Structures are passed as opaque bytes, larger than they are, which the x86-64 calling
convention allows for a last argument; the one assumption is where the first fields of the context's
parameters stand, and llama_n_ctx() is asked whether it holds.
"""
import ctypes
import json
import pathlib
import sys
import time

BINS = pathlib.Path(__file__).parent / "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64"


class Opaque(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint64 * 160)]


class Batch(ctypes.Structure):
    _fields_ = [("tokens", ctypes.c_int64), ("arrays", ctypes.c_void_p * 6)]


def function(library, name, result, *arguments):
    f = getattr(library, name)
    f.restype, f.argtypes = result, arguments
    return f


def main():
    arguments = sys.argv[1:]
    path = arguments[0]
    threads, tokens, depth = (int(a) for a in arguments[1:] + ["2", "32", "0"][len(arguments) - 1:])
    pointer, i32, u32 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_uint32
    base = ctypes.CDLL(str(BINS / "libggml-base.so"), ctypes.RTLD_GLOBAL)
    ggml = ctypes.CDLL(str(BINS / "libggml.v0.5.0.so"), ctypes.RTLD_GLOBAL)
    llama = ctypes.CDLL(str(BINS / "libllama.v0.5.0.so"), ctypes.RTLD_GLOBAL)
    quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, pointer)(lambda *_: None)
    function(llama, "llama_log_set", None, pointer, pointer)(quiet, None)
    function(ggml, "ggml_backend_load_all_from_path", None, ctypes.c_char_p)(str(BINS).encode())
    llama.llama_backend_init()

    params = function(llama, "llama_model_default_params", Opaque)()
    model = function(llama, "llama_model_load_from_file", pointer, ctypes.c_char_p, Opaque)(
        path.encode(), params)
    if not model:
        sys.exit(f"the peer cannot load {path}")
    size = depth + tokens + 8
    params = function(llama, "llama_context_default_params", Opaque)()
    fields = ctypes.cast(ctypes.byref(params), ctypes.POINTER(u32))
    fields[0], fields[1] = size, 512  # n_ctx, n_batch
    context = function(llama, "llama_init_from_model", pointer, pointer, Opaque)(model, params)
    if not context or function(llama, "llama_n_ctx", u32, pointer)(context) < size:
        sys.exit("the peer cannot make a context")

    cpu = function(ggml, "ggml_backend_dev_by_type", pointer, ctypes.c_int)(0)
    registry = function(base, "ggml_backend_dev_backend_reg", pointer, pointer)(cpu)
    find = function(base, "ggml_backend_reg_get_proc_address", pointer, pointer, ctypes.c_char_p)
    make_pool = ctypes.CFUNCTYPE(pointer, pointer)(find(registry, b"ggml_threadpool_new"))
    params = function(base, "ggml_threadpool_params_default", Opaque, ctypes.c_int)(threads)
    pool = make_pool(ctypes.cast(ctypes.byref(params), pointer))
    function(llama, "llama_attach_threadpool", None, pointer, pointer, pointer)(context, pool, pool)
    function(llama, "llama_set_n_threads", None, pointer, i32, i32)(context, threads, threads)

    one = function(llama, "llama_batch_get_one", Batch, pointer, i32)
    decode = function(llama, "llama_decode", i32, pointer, Batch)
    wait = function(llama, "llama_synchronize", None, pointer)
    memory = function(llama, "llama_get_memory", pointer, pointer)(context)
    clear = function(llama, "llama_memory_clear", None, pointer, ctypes.c_bool)

    def evaluate(ids):
        batch = (i32 * len(ids))(*ids)
        if decode(context, one(ctypes.cast(batch, pointer), len(ids))) != 0:
            sys.exit("the peer cannot decode")
        wait(context)

    for timed in (False, True):
        clear(memory, True)
        for at in range(0, depth, 512):
            evaluate([100 + (i * 7919 + 13) % 400 for i in range(min(512, depth - at))])
        begin = time.monotonic()
        for i in range(tokens):
            evaluate([100 + (i * 7919 + 13) % 400])
        if timed:
            print(json.dumps({"test": f"tg{tokens}", "batch": 1, "depth": depth, "threads": threads,
                              "median": tokens / (time.monotonic() - begin)}))


main()
