"""Training of a decoder by PyTorch: `torch_train.py FOLDER THREADS eager|compile DEVICE f32|bf16`, one update for each line of
the input.

FOLDER holds weights.safetensors, in the names of Qwen 3, shape.json, and batch.u32: [batch, context + 1] tokens. Every update is
answered by its loss before it, its seconds, and the most memory that was held (by the process, or on the GPU by its tensors),
in bytes. The same update as SafeLMM's: mean cross-entropy, AdamW without decay, no clipping. In bf16 the weights stay f32,
autocast takes the products and attention in bf16, and so are the residual stream, norms and rotation.
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

folder, threads, mode, device = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], torch.device(sys.argv[4])
dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[sys.argv[5]]
gpu = device.type == "cuda"
torch.set_num_threads(threads)
shape = json.loads((folder / "shape.json").read_text())
heads, width, eps, context = shape["heads"], shape["head_dim"], shape["eps"], shape["context"]
tensors = load_file(folder / "weights.safetensors")
weights = {name: torch.nn.Parameter(tensor.to(device)) for name, tensor in tensors.items()}
tokens = torch.from_numpy(np.fromfile(folder / "batch.u32", "<u4").astype(np.int64)).reshape(-1, context + 1).to(device)
inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].reshape(-1)

angles = torch.arange(context)[:, None] * shape["theta"] ** (-torch.arange(0, width, 2) / width)[None]
cos, sin = (torch.cat([part] * 2, -1).to(device, dtype) for part in (angles.cos(), angles.sin()))


def norm(x, name):
    return F.rms_norm(x, x.shape[-1:], weights[name].to(x.dtype), eps)


def rope(x):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def loss():
    x = F.embedding(inputs, weights["model.embed_tokens.weight"]).to(dtype)
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
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    logits = F.linear(norm(x, "model.norm.weight"), head)
    return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), targets)


optimizer = torch.optim.AdamW(
    weights.values(), lr=shape["learning_rate"], betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, fused=True
)
forward = torch.compile(loss) if mode == "compile" else loss
print("ready", flush=True)
for _ in sys.stdin:
    if gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        value = forward()
    value.backward()
    optimizer.step()
    if gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    held = torch.cuda.max_memory_allocated() if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(value.item(), seconds, held, flush=True)
