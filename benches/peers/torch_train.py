"""Training of a small decoder by PyTorch: `torch_train.py FOLDER THREADS eager|compile`, one update for each line of the input.

FOLDER holds weights.safetensors, in the names of Qwen 3, shape.json, and batch.u32: [batch, context + 1] tokens. Every update is
answered by its loss before it, its seconds, and the most memory that the process has held, in bytes. The same update as
SafeLMM's: f32, mean cross-entropy, AdamW without decay, no clipping.
"""

import json
import pathlib
import resource
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

folder, threads, mode = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(threads)
shape = json.loads((folder / "shape.json").read_text())
heads, width, eps, context = shape["heads"], shape["head_dim"], shape["eps"], shape["context"]
weights = {name: torch.nn.Parameter(tensor) for name, tensor in load_file(folder / "weights.safetensors").items()}
tokens = torch.from_numpy(np.fromfile(folder / "batch.u32", "<u4").astype(np.int64)).reshape(-1, context + 1)
inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].reshape(-1)

angles = torch.arange(context)[:, None] * shape["theta"] ** (-torch.arange(0, width, 2) / width)[None]
cos, sin = torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)


def norm(x, name):
    return F.rms_norm(x, x.shape[-1:], weights[name], eps)


def rope(x):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def loss():
    x = F.embedding(inputs, weights["model.embed_tokens.weight"])
    rows, length, _ = x.shape
    for layer in range(shape["layers"]):
        name = f"model.layers.{layer}."
        project = lambda h, part: F.linear(h, weights[f"{name}{part}_proj.weight"])
        h = norm(x, name + "input_layernorm.weight")
        q, k, v = (project(h, f"self_attn.{part}").view(rows, length, heads, width).transpose(1, 2) for part in "qkv")
        q, k = (rope(norm(t, f"{name}self_attn.{part}_norm.weight")) for t, part in ((q, "q"), (k, "k")))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(rows, length, -1)
        x = x + project(attended, "self_attn.o")
        h = norm(x, name + "post_attention_layernorm.weight")
        x = x + project(F.silu(project(h, "mlp.gate")) * project(h, "mlp.up"), "mlp.down")
    logits = F.linear(norm(x, "model.norm.weight"), weights["lm_head.weight"])
    return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets)


optimizer = torch.optim.AdamW(
    weights.values(), lr=shape["learning_rate"], betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, fused=True
)
forward = torch.compile(loss) if mode == "compile" else loss
print("ready", flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    value = forward()
    value.backward()
    optimizer.step()
    seconds = time.perf_counter() - start
    print(value.item(), seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)
