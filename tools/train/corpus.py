# SPDX-FileCopyrightText: 2026 The Towline Authors
# SPDX-License-Identifier: Apache-2.0
"""The demo model's text and tokenizer: the King James Bible from Debian, and a byte-level BPE.

The text is public domain (Debian packages bible-kjv and bible-kjv-text; the program prints verses).
The tokenizer is trained here: byte-level BPE with the GPT-2 pre-split rule, written for clarity,
fast enough because it merges over distinct words rather than over the text.
"""
import collections
import re
import subprocess

SPECIAL = ["<|bos|>", "<|eos|>", "<|user|>", "<|assistant|>"]
BOS, EOS, USER, ASSISTANT = range(4)
# GPT-2's rule; the text is ASCII, so letters and digits need no Unicode classes here.
SPLIT = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")


def verses():
    """Lists of verses, a list a chapter, in the order of the book."""
    out = subprocess.run(["bible", "-f", "ge1:1-re22:21"], stdin=subprocess.DEVNULL,
                         capture_output=True, text=True, check=True).stdout
    chapters = collections.OrderedDict()
    for line in out.splitlines():
        place, _, text = line.partition(" ")
        if ":" in place and text:
            chapters.setdefault(place.rsplit(":", 1)[0], []).append(" ".join(text.split()))
    return list(chapters.values())


def byte_alphabet():
    """GPT-2's printable stand-in for each byte."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, spare = {}, 256
    for b in range(256):
        if b in keep:
            table[b] = chr(b)
        else:
            table[b] = chr(spare)
            spare += 1
    return table


class Bpe:
    """Byte-level BPE: tokens (strings in the byte alphabet) and merges, best first."""

    def __init__(self, tokens, merges):
        self.tokens, self.merges = tokens, merges
        self.ids = {t: i for i, t in enumerate(tokens)}
        self.rank = {pair: i for i, pair in enumerate(merges)}
        self.alphabet = byte_alphabet()
        self.cache = {}

    @staticmethod
    def train(texts, vocab):
        alphabet = byte_alphabet()
        counts = collections.Counter(w for t in texts for w in SPLIT.findall(t))
        words = [[list("".join(alphabet[b] for b in w.encode())), n] for w, n in counts.items()]
        tokens = SPECIAL + [alphabet[b] for b in range(256)]
        merges = []
        while len(tokens) < vocab:
            pairs = collections.Counter()
            for symbols, n in words:
                for pair in zip(symbols, symbols[1:]):
                    pairs[pair] += n
            best = max(pairs, key=lambda p: (pairs[p], p))
            merges.append(best)
            tokens.append(best[0] + best[1])
            for word in words:
                word[0] = Bpe._merge(word[0], best)
        return Bpe(tokens, merges)

    @staticmethod
    def _merge(symbols, pair):
        out, i = [], 0
        while i < len(symbols):
            if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == pair:
                out.append(symbols[i] + symbols[i + 1])
                i += 2
            else:
                out.append(symbols[i])
                i += 1
        return out

    def encode(self, text):
        ids = []
        for word in SPLIT.findall(text):
            if word not in self.cache:
                symbols = [self.alphabet[b] for b in word.encode()]
                while len(symbols) > 1:
                    best = min(zip(symbols, symbols[1:]),
                               key=lambda p: self.rank.get(p, len(self.merges)))
                    if best not in self.rank:
                        break
                    symbols = self._merge(symbols, best)
                self.cache[word] = [self.ids[s] for s in symbols]
            ids += self.cache[word]
        return ids
