"""Decoding speed of transformers: `transformers_decode.py FOLDER BATCH TOKENS THREADS` prints tokens/s, f32, greedy."""

import sys
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, batch, tokens, threads = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
ids = AutoTokenizer.from_pretrained(folder)("<|rating:G|>Once upon a time", return_tensors="pt")["input_ids"]
ids = ids.repeat(batch, 1)


def decode(count):
    with torch.inference_mode():
        model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, min_new_tokens=count, do_sample=False,
            temperature=None, top_p=None,
        )


decode(4)
start = time.perf_counter()
decode(tokens)
print(batch * tokens / (time.perf_counter() - start))
