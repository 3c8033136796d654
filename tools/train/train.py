# SPDX-FileCopyrightText: 2026 The Towline Authors
# SPDX-License-Identifier: Apache-2.0
"""Trains the demo model: a small Llama on public-domain text, in well under two hours on one core.

    python3 tools/train/train.py --out /some/folder --minutes 60

Needs Debian's python3-torch, libopenblas0-pthread (the reference BLAS is 15 times slower),
bible-kjv and bible-kjv-text. Writes a Hugging Face directory, which `towline model quantize FOLDER
--type q8_0 --out models/demo.gguf` turns into the committed file. A checkpoint is written every few
minutes, so that an interrupted run still leaves a model.
"""
import argparse
import json
import math
import os
import random
import struct
import time

import numpy as np
import torch
import torch.nn.functional as F

import corpus

CONFIG = dict(hidden=256, ffn=512, layers=6, heads=8, kv_heads=4, vocab=1536, context=512)
TEMPLATE = ("{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
            "<|assistant|>{{ message['content'] }}<|eos|>{% else %}<|user|>{{ message['content'] }}"
            "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}")


class Block(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        d, hd = c["hidden"], c["hidden"] // c["heads"]
        linear = lambda i, o: torch.nn.Linear(i, o, bias=False)
        self.heads, self.kv_heads, self.hd = c["heads"], c["kv_heads"], hd
        self.q = linear(d, d)
        self.k, self.v = linear(d, c["kv_heads"] * hd), linear(d, c["kv_heads"] * hd)
        self.o, self.gate, self.up = linear(d, d), linear(d, c["ffn"]), linear(d, c["ffn"])
        self.down = linear(c["ffn"], d)
        self.norm1 = torch.nn.Parameter(torch.ones(d))
        self.norm2 = torch.nn.Parameter(torch.ones(d))

    def forward(self, x, cos, sin, mask):
        b, t, d = x.shape
        h = rms(x, self.norm1)
        q = rope(self.q(h).view(b, t, self.heads, self.hd).transpose(1, 2), cos, sin)
        k = rope(self.k(h).view(b, t, self.kv_heads, self.hd).transpose(1, 2), cos, sin)
        v = self.v(h).view(b, t, self.kv_heads, self.hd).transpose(1, 2)
        repeat = self.heads // self.kv_heads
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        scores = (q * self.hd ** -0.5) @ k.transpose(-1, -2) + mask
        x = x + self.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, d))
        h = rms(x, self.norm2)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Model(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embed = torch.nn.Embedding(c["vocab"], c["hidden"])
        self.blocks = torch.nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.norm = torch.nn.Parameter(torch.ones(c["hidden"]))
        for name, p in self.named_parameters():
            if p.dim() == 2:
                last = ".o." in name or ".down." in name
                scale = 0.02 / math.sqrt(2 * c["layers"]) if last else 0.02
                torch.nn.init.normal_(p, std=scale)

    def forward(self, ids):
        t, hd = ids.shape[1], self.c["hidden"] // self.c["heads"]
        freq = 10000.0 ** (-torch.arange(0, hd, 2) / hd)
        angle = torch.outer(torch.arange(t), freq)
        cos, sin = torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)
        mask = torch.full((t, t), float("-inf")).triu(1)
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, cos, sin, mask)
        return rms(x, self.norm) @ self.embed.weight.T


def rms(x, weight):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight


def rope(x, cos, sin):  # half-split pairs, as Hugging Face stores them
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def documents(chapters, bpe, rng):
    """One epoch of documents in random order: whole chapters, and verses as a dialogue: the user
    says how a passage begins, the assistant goes on from there."""
    plan = [("chapter", c, 0) for c in chapters]
    plan += [("dialogue", c, i) for c in chapters for i in range(len(c)) if rng.random() < 0.6]
    rng.shuffle(plan)
    for kind, chapter, i in plan:
        if kind == "chapter":
            yield [corpus.BOS] + bpe.encode(" ".join(chapter)) + [corpus.EOS]
            continue
        words = chapter[i].split()
        cut = rng.randint(2, min(9, len(words) - 1)) if len(words) > 3 else 1
        answer = " ".join(words[cut:] + chapter[i + 1:i + 2])
        yield ([corpus.BOS, corpus.USER] + bpe.encode(" ".join(words[:cut])) + [corpus.ASSISTANT] +
               bpe.encode(" " + answer) + [corpus.EOS])


def batches(chapters, bpe, rng):
    """Mostly short rows, because attention is what costs; some long ones, so that far positions
    are trained too."""
    stream, (rows, length) = [], (16, 128)
    while True:
        for doc in documents(chapters, bpe, rng):
            stream += doc
            while len(stream) > rows * length:
                yield torch.tensor(np.array(stream[:rows * length]).reshape(rows, length))
                del stream[:rows * length]
                rows, length = (5, 400) if rng.random() < 0.2 else (16, 128)


def export(model, bpe, out):
    """config.json, tokenizer.json, tokenizer_config.json and model.safetensors."""
    c = model.c
    os.makedirs(out, exist_ok=True)
    tensors = {"model.embed_tokens.weight": model.embed.weight, "model.norm.weight": model.norm}
    for i, b in enumerate(model.blocks):
        p = f"model.layers.{i}."
        for name, t in (("self_attn.q_proj", b.q), ("self_attn.k_proj", b.k),
                        ("self_attn.v_proj", b.v), ("self_attn.o_proj", b.o),
                        ("mlp.gate_proj", b.gate), ("mlp.up_proj", b.up),
                        ("mlp.down_proj", b.down)):
            tensors[p + name + ".weight"] = t.weight
        tensors[p + "input_layernorm.weight"] = b.norm1
        tensors[p + "post_attention_layernorm.weight"] = b.norm2
    header, blobs, at = {}, [], 0
    for name, t in tensors.items():
        data = t.detach().float().contiguous().numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(t.shape),
                        "data_offsets": [at, at + len(data)]}
        blobs.append(data)
        at += len(data)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with open(f"{out}/model.safetensors.tmp", "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head + b"".join(blobs))
    os.replace(f"{out}/model.safetensors.tmp", f"{out}/model.safetensors")
    write = lambda name, value: open(f"{out}/{name}", "w").write(json.dumps(value, indent=1) + "\n")
    write("config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": c["hidden"],
        "intermediate_size": c["ffn"], "num_hidden_layers": c["layers"],
        "num_attention_heads": c["heads"], "num_key_value_heads": c["kv_heads"],
        "vocab_size": c["vocab"], "max_position_embeddings": c["context"], "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": True, "bos_token_id": corpus.BOS,
        "eos_token_id": corpus.EOS, "hidden_act": "silu", "torch_dtype": "float32"})
    write("tokenizer_config.json", {"bos_token": "<|bos|>", "eos_token": "<|eos|>",
                                    "add_bos_token": True, "tokenizer_class": "GPT2Tokenizer",
                                    "chat_template": TEMPLATE})
    special = [{"id": i, "content": s, "special": True, "single_word": False, "lstrip": False,
                "rstrip": False, "normalized": False} for i, s in enumerate(corpus.SPECIAL)]
    bos = {"SpecialToken": {"id": "<|bos|>", "type_id": 0}}
    write("tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
        "normalizer": None, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False,
                                              "trim_offsets": True, "use_regex": True},
        "post_processor": {"type": "TemplateProcessing",
                           "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}},
                                    {"Sequence": {"id": "B", "type_id": 1}}],
                           "special_tokens": {"<|bos|>": {"id": "<|bos|>", "ids": [corpus.BOS],
                                                          "tokens": ["<|bos|>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                    "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
                  "byte_fallback": False, "vocab": {t: i for i, t in enumerate(bpe.tokens)},
                  "merges": [" ".join(m) for m in bpe.merges]}})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, help="folder for the Hugging Face directory")
    parser.add_argument("--minutes", type=float, default=60, help="training time")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1611)
    rng = random.Random(1611)
    chapters = corpus.verses()
    bpe = corpus.Bpe.train([v for c in chapters for v in c], CONFIG["vocab"])
    held_out, chapters = chapters[::97], [c for i, c in enumerate(chapters) if i % 97]
    model = Model(CONFIG)
    size = sum(p.numel() for p in model.parameters())
    print(f"{size / 1e6:.2f} M parameters, {len(bpe.tokens)} tokens", flush=True)
    decay = [p for p in model.parameters() if p.dim() == 2]
    plain = [p for p in model.parameters() if p.dim() != 2]
    optimiser = torch.optim.AdamW([{"params": decay, "weight_decay": 0.05},
                                   {"params": plain, "weight_decay": 0.0}],
                                  lr=0, betas=(0.9, 0.95))
    spent, saved, step = 0.0, 0.0, 0
    for ids in batches(chapters, bpe, rng):
        # CPU time: a paused or crowded machine does not end training early.
        begin = time.process_time()
        done = spent / (args.minutes * 60)
        if done >= 1:
            break
        for group in optimiser.param_groups:
            cosine = 0.5 + 0.5 * math.cos(math.pi * done)
            group["lr"] = 2.5e-3 * min(1, (step + 1) / 100) * (0.05 + 0.95 * cosine)
        logits = model(ids[:, :-1])
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        spent += time.process_time() - begin
        if step % 20 == 0:
            print(f"step {step} cpu {spent / 60:.1f} min loss {loss.item():.3f}", flush=True)
        if spent - saved > 300:
            export(model, bpe, args.out)
            saved = spent
    export(model, bpe, args.out)
    model.eval()
    with torch.no_grad():
        losses = [F.cross_entropy(model(torch.tensor([d[:-1]]))[0], torch.tensor(d[1:])).item()
                  for d in documents(held_out, bpe, random.Random(7)) if 8 < len(d) <= 512]
    loss = sum(losses) / len(losses)
    print(f"held-out loss {loss:.3f} nats a token over {len(losses)} documents", flush=True)


if __name__ == "__main__":
    main()
