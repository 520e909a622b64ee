"""A checkpoint of Llama's layout as a GGUF file in f16: `write_gguf.py FOLDER FILE`; for the random ones of these benches."""

import json
import pathlib
import sys

import gguf
import numpy as np

folder, target = pathlib.Path(sys.argv[1]), sys.argv[2]
config = json.loads((folder / "config.json").read_text())
heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
head_dim = config["hidden_size"] // heads


def tensors():
    """Names and values in f32, from bf16."""
    path = folder / "model.safetensors"
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    data = np.memmap(path, np.uint8, "r", offset=8 + length)
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            halves = data[start:end].view(np.uint16).astype(np.uint32)
            yield name, (halves << 16).view(np.float32).reshape(entry["shape"])


def interleaved(weight, count):
    """The rows of a projection as llama.cpp turns them: the two halves of a head become pairs."""
    return weight.reshape(count, 2, head_dim // 2, -1).swapaxes(1, 2).reshape(weight.shape)


writer = gguf.GGUFWriter(target, "llama")
writer.add_context_length(config["max_position_embeddings"])
writer.add_embedding_length(config["hidden_size"])
writer.add_block_count(config["num_hidden_layers"])
writer.add_feed_forward_length(config["intermediate_size"])
writer.add_head_count(heads)
writer.add_head_count_kv(kv_heads)
writer.add_rope_dimension_count(head_dim)
writer.add_rope_freq_base(config["rope_theta"])
writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
writer.add_vocab_size(config["vocab_size"])
writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)

tokenizer = json.loads((folder / "tokenizer.json").read_text())
special = {token["content"] for token in tokenizer["added_tokens"]}
vocab = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
kinds = [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in vocab]
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("gpt-2")
writer.add_token_list(vocab)
writer.add_token_types(kinds)
writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
writer.add_eos_token_id(config["eos_token_id"])
writer.add_add_bos_token(False)

names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
for name, weight in tensors():
    if "q_proj" in name:
        weight = interleaved(weight, heads)
    elif "k_proj" in name:
        weight = interleaved(weight, kv_heads)
    kind = np.float32 if weight.ndim == 1 else np.float16
    writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), weight.astype(kind))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
