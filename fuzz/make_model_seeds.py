#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 The Towline Authors
# SPDX-License-Identifier: Apache-2.0
"""Writes the hand-made seeds of fuzz/corpus/gguf, safetensors and
hf_directory: tiny, whole models."""
import json
import pathlib
import struct

ROOT = pathlib.Path(__file__).parent / "corpus"
U8, I8, U32, F32, BOOL, STRING, ARRAY, F64 = 0, 1, 4, 6, 7, 8, 9, 12


def text(s):
    s = s.encode()
    return struct.pack("<Q", len(s)) + s


def array(element, values):
    return struct.pack("<IQ", element, len(values)) + b"".join(values)


def key(name, kind, value):
    return text(name) + struct.pack("<I", kind) + value


def u32(name, v):
    return key(name, U32, struct.pack("<I", v))


def gguf(version, keys, tensors):
    """tensors: (name, dims, type, bytes)"""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys)
    offset, data = 0, b""
    for name, dims, kind, size in tensors:
        head += text(name) + struct.pack("<I", len(dims))
        head += b"".join(struct.pack("<Q", d) for d in dims) + struct.pack("<IQ", kind, offset)
        data += bytes(-(-size // 32) * 32)
        offset = len(data)
    return head + bytes(-len(head) % 32) + data


def model(arch, version=3, kind=0, block=(1, 4), extra=(), bias=False, norm=False):
    hidden = max(8, block[0])
    vocab = 3
    keys = [key("general.architecture", STRING, text(arch)),
            u32(arch + ".block_count", 1), u32(arch + ".embedding_length", hidden),
            u32(arch + ".feed_forward_length", hidden), u32(arch + ".attention.head_count", 2),
            u32(arch + ".context_length", 16), *extra]
    size = lambda r, c: r * c // block[0] * block[1]
    mat = lambda name, r, c: (name, [c, r], kind, size(r, c))
    vec = lambda name, n: (name, [n], 0, 4 * n)
    layer = [vec("attn_norm.weight", hidden), mat("attn_q.weight", hidden, hidden),
             mat("attn_k.weight", hidden, hidden), mat("attn_v.weight", hidden, hidden),
             mat("attn_output.weight", hidden, hidden), vec("ffn_norm.weight", hidden),
             mat("ffn_gate.weight", hidden, hidden), mat("ffn_up.weight", hidden, hidden),
             mat("ffn_down.weight", hidden, hidden)]
    if bias:
        layer += [vec(f"attn_{p}.bias", hidden) for p in "qkv"]
    if norm:
        layer += [vec(f"attn_{p}_norm.weight", hidden // 2) for p in "qk"]
    tensors = [mat("token_embd.weight", vocab, hidden), vec("output_norm.weight", hidden)]
    tensors += [("blk.0." + n, d, k, s) for n, d, k, s in layer]
    return gguf(version, keys, tensors)


tokens = [key("tokenizer.ggml.model", STRING, text("llama")),
          key("tokenizer.ggml.tokens", ARRAY, array(STRING, [text("<unk>"), text("a"), text("b")])),
          key("tokenizer.ggml.scores", ARRAY, array(F32, [struct.pack("<f", 0)] * 3)),
          key("tokenizer.ggml.add_bos_token", BOOL, b"\1"),
          key("odd.nested", ARRAY, struct.pack("<IQ", ARRAY, 1) + array(U8, [b"x"])),
          key("odd.f64", F64, struct.pack("<d", 0.5))]
seeds = {
    "llama-f32": model("llama", extra=tokens),
    "llama-v2-q8_0": model("llama", 2, 8, (32, 34)),
    "qwen2-q4_0": model("qwen2", 3, 2, (32, 18), bias=True),
    "qwen3-bf16": model("qwen3", 3, 30, (1, 2), norm=True),
    "scaled": model("llama", extra=[key("llama.rope.scaling.type", STRING, text("linear")),
                                    key("llama.rope.scaling.factor", F32, struct.pack("<f", 2))]),
    "vocabulary": gguf(3, tokens, []),
    "shard": model("llama", extra=[u32("split.count", 2), u32("split.no", 0)]),
}
(ROOT / "gguf").mkdir(parents=True, exist_ok=True)
for name, data in seeds.items():
    (ROOT / "gguf" / name).write_bytes(data)


def safetensors(entries):
    """entries: (name, dtype, shape, bytes)"""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape, size in entries:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + bytes(at)


config = {"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
          "num_attention_heads": 2, "vocab_size": 3, "rms_norm_eps": 1e-5}
scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 8192}
seeds = {
    "two": safetensors([("model.layers.0.self_attn.q_proj.weight", "BF16", [8, 8], 128),
                        ("lm_head.weight", "F32", [3, 8], 96)]),
    "empty": safetensors([]),
    "config-llama": json.dumps(config | {"rope_scaling": scaling}).encode(),
    "config-mistral": json.dumps(config | {"model_type": "mistral", "sliding_window": 4}).encode(),
    "config-qwen2": json.dumps(config | {"model_type": "qwen2", "use_sliding_window": True,
                                         "sliding_window": 4, "max_window_layers": 0}).encode(),
    "config-qwen3": json.dumps(config | {"model_type": "qwen3", "head_dim": 16, "rope_parameters":
                                         scaling | {"rope_theta": 1e6}}).encode(),
}
(ROOT / "safetensors").mkdir(parents=True, exist_ok=True)
for name, data in seeds.items():
    (ROOT / "safetensors" / name).write_bytes(data)


def directory(**files):
    """The input of hf_directory_fuzz: double underscores in names are points."""
    return b"".join(f"== {name.replace('__', '.')}\n".encode() + data + b"\n"
                    for name, data in files.items())


def matrix(name, rows, cols):
    return (name + ".weight", "F32", [rows, cols], 4 * rows * cols)


layer = "model.layers.0."
whole = safetensors([matrix("model.embed_tokens", 3, 8), ("model.norm.weight", "F32", [8], 32),
                     (layer + "input_layernorm.weight", "F32", [8], 32),
                     (layer + "post_attention_layernorm.weight", "F32", [8], 32),
                     *[matrix(f"{layer}self_attn.{p}_proj", 8, 8) for p in "qkvo"],
                     *[matrix(f"{layer}mlp.{p}_proj", 8, 8) for p in ("gate", "up", "down")]])
plain = json.dumps(config | {"tie_word_embeddings": True}).encode()
tokenizer = (ROOT / "tokenizer" / "bpe").read_bytes().split(b"\0")[0]
settings = {"eos_token": {"content": "<s>"}, "add_bos_token": True,
            "chat_template": "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"}
seeds = {
    "whole": directory(config__json=plain, model__safetensors=whole, tokenizer__json=tokenizer,
                       chat_template__jinja=b"{{ messages[0].content }}"),
    "sharded": directory(config__json=plain, part__safetensors=whole,
                         model__safetensors__index__json=json.dumps(
                             {"weight_map": {"model.norm.weight": "part.safetensors"}}).encode()),
    "vocabulary": directory(tokenizer__json=tokenizer,
                            tokenizer_config__json=json.dumps(settings).encode(),
                            generation_config__json=b'{"eos_token_id": [0, 1]}'),
    "pickle": directory(config__json=plain, pytorch_model__bin=b"x"),
}
(ROOT / "hf_directory").mkdir(parents=True, exist_ok=True)
for name, data in seeds.items():
    (ROOT / "hf_directory" / name).write_bytes(data)
