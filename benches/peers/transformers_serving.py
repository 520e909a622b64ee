"""Generation by transformers: `transformers_serving.py FOLDER THREADS`, f32, greedy.

For each line `SEQUENCES PROMPT_TOKENS NEW_TOKENS` on its input it prints the seconds that the generation took.
"""

import sys
import time

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

logging.disable_progress_bar()
folder, threads = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(threads)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
torch.manual_seed(1)
print("ready", flush=True)

for line in sys.stdin:
    sequences, prompt, count = map(int, line.split())
    ids = torch.randint(0, 256, (sequences, prompt))
    start = time.perf_counter()
    with torch.inference_mode():
        model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, min_new_tokens=count, do_sample=False,
            pad_token_id=0,
        )
    print(time.perf_counter() - start, flush=True)
