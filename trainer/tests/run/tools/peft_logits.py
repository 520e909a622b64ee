"""python peft_logits.py BASE ADAPTER TOKENS [MERGED]: logits as peft and transformers find them, as JSON.

adapter: those of the checkpoint BASE with the adapter folder ADAPTER, for the ids TOKENS (a JSON list).
merged: those of the checkpoint folder MERGED. other, far, all: its weights that are not those of peft's own merge,
those more than one step of bf16 away, and all of them.
"""

import json
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

base, adapter, tokens = sys.argv[1], sys.argv[2], torch.tensor([json.loads(sys.argv[3])])
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter)
found = {"adapter": model(tokens).logits.flatten().tolist()}
if len(sys.argv) > 4:
    merged = AutoModelForCausalLM.from_pretrained(sys.argv[4], dtype=torch.float32)
    found["merged"] = merged(tokens).logits.flatten().tolist()
    ours, theirs = merged.state_dict(), model.merge_and_unload().state_dict()
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    bits = lambda weights: weights.to(torch.bfloat16).view(torch.int16).int()
    steps = torch.cat([(bits(ours[name]) - bits(theirs[name])).abs().flatten() for name in ours])
    found.update(other=int((steps > 0).sum()), far=int((steps > 1).sum()), all=steps.numel())
print(json.dumps(found))
