"""Decoding by llama.cpp: `llama_decode.py F16.GGUF FORMAT THREADS`, FORMAT being Q8_0, Q4_0 or Q4_K_S; random tokens.

The file is quantised beside itself at first. For each line `SEQUENCES PROMPT_TOKENS NEW_TOKENS` on its input it prints the
seconds that the generation took; with 0 new tokens, those of the prompts alone.
"""

import ctypes
import pathlib
import random
import sys
import time

import llama_cpp

source, form, threads = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
target = source.with_name(f"model-{form}.gguf")
if not target.exists():
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{form}")
    parameters.nthread = threads
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters)):
        sys.exit(f"{source} cannot be quantised")

llama_cpp.llama_backend_init()
model = llama_cpp.llama_model_load_from_file(str(target).encode(), llama_cpp.llama_model_default_params())
settings = llama_cpp.llama_context_default_params()
settings.n_ctx, settings.n_batch, settings.n_ubatch, settings.n_seq_max = 8 * 1024, 1024, 512, 8
settings.n_threads = settings.n_threads_batch = threads
context = llama_cpp.llama_init_from_model(model, settings)
batch = llama_cpp.llama_batch_init(1024, 0, 8)
random.seed(1)


def run(tokens, first):
    """One call: `tokens[s]` are the next ones of sequence s, which has `first` before them."""
    places, batch.n_tokens = [], 0
    for sequence, row in enumerate(tokens):
        for i, token in enumerate(row):
            at = batch.n_tokens
            batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.seq_id[at][0] = token, first + i, 1, sequence
            batch.logits[at] = i == len(row) - 1
            if batch.logits[at]:
                places.append(at)
            batch.n_tokens += 1
    if llama_cpp.llama_decode(context, batch):
        sys.exit("llama_decode failed")
    return places


print("ready", flush=True)
for line in sys.stdin:
    sequences, prompt, count = map(int, line.split())
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    rows = [[random.randrange(256) for _ in range(prompt)] for _ in range(sequences)]
    start = time.perf_counter()
    places = run(rows, 0)
    for step in range(count):
        # Which token goes on does not matter for the time; a search for the best one in Python would.
        llama_cpp.llama_get_logits_ith(context, places[0])
        places = run([[random.randrange(256)] for _ in range(sequences)], prompt + step)
    print(time.perf_counter() - start, flush=True)
