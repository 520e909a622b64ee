//! Small tokenizers for tests, one for each family.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::{Tokenizer, TokenizerParts};

pub(super) fn added(id: usize, content: &str, special: bool) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
           "normalized": false, "special": special})
}

/// A vocabulary with these pieces in front, `merges` applied in order, and what each merge makes.
fn bpe(first: Vec<String>, merges: &[(&str, &str)], options: Value) -> Value {
    let mut vocab = serde_json::Map::new();
    for piece in first.into_iter().chain(merges.iter().map(|(a, b)| format!("{a}{b}"))) {
        let id = vocab.len();
        vocab.entry(piece).or_insert(json!(id));
    }
    let merges: Vec<String> = merges.iter().map(|(a, b)| format!("{a} {b}")).collect();
    let mut model = json!({"type": "BPE", "vocab": vocab, "merges": merges});
    for (name, value) in options.as_object().into_iter().flatten() {
        model[name] = value.clone();
    }
    model
}

/// Byte-level BPE as in Qwen: ids 0 and 1 are control tokens in the model's own vocabulary, the others follow it;
/// `<tool_call>` is an added token that is not special, and two spaces are an ordinary one.
pub(super) fn byte_level_json() -> Value {
    let alphabet: BTreeSet<char> = ByteLevel::alphabet().into_iter().collect();
    let first = ["<|endoftext|>".to_owned(), "<|rating:G|>".to_owned()].into_iter();
    let first: Vec<String> = first.chain(alphabet.into_iter().map(String::from)).collect();
    // The last merges would spell a control token that the vocabulary holds.
    let merges = [
        ("t", "h"),
        ("th", "e"),
        ("Ġ", "the"),
        ("Ġ", "a"),
        ("i", "n"),
        ("<", "|"),
        ("|", ">"),
        ("r", "a"),
        ("ra", "t"),
        ("<|", "rat"),
        ("e", "n"),
        ("en", "d"),
        ("<|", "end"),
        ("o", "f"),
        ("<|end", "of"),
        ("t", "e"),
        ("te", "x"),
        ("tex", "t"),
        ("<|endof", "text"),
        ("<|endoftext", "|>"),
    ];
    let model = bpe(first, &merges, json!({"ignore_merges": true}));
    let next = model["vocab"].as_object().unwrap().len();
    let names = ["<|rating:PG|>", "<|rating:R|>", "<|rating:X|>", "<|im_start|>", "<|im_end|>", "<s>", "[INST]"];
    let mut tokens = vec![added(0, "<|endoftext|>", true), added(1, "<|rating:G|>", true)];
    tokens.extend(names.iter().enumerate().map(|(i, name)| added(next + i, name, true)));
    tokens.push(added(next + 7, "<tool_call>", false));
    tokens.push(added(next + 8, "  ", false));
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": tokens, "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "model": model,
    })
}

/// SentencePiece-like BPE with byte fallback: `<unk>`, `<s>`, `</s>`, `[INST]`, `[/INST]` in the model's vocabulary.
fn sentence_piece_json(normalizer: Value, pre_tokenizer: Value) -> Value {
    let names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"];
    let mut first: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
    first.extend((0..=255).map(|b| format!("<0x{b:02X}>")));
    first.extend("▁abcdhinsuINST[]/<>".chars().map(String::from));
    first.push(String::new()); // a token without text, which the detokenizer must see through
    let merges = [("h", "i"), ("▁", "hi"), ("▁", "a"), ("▁", "▁"), ("<", "s"), ("<s", ">"), ("▁", "<s>")];
    let model = bpe(first, &merges, json!({"unk_token": "<unk>", "byte_fallback": true, "fuse_unk": true}));
    let tokens: Vec<Value> = names.iter().enumerate().map(|(i, name)| added(i, name, true)).collect();
    json!({
        "version": "1.0", "added_tokens": tokens,
        "truncation": {"max_length": 16, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "<unk>"},
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": model,
    })
}

/// Llama 2: the normaliser prepends `▁` to each piece.
pub(super) fn llama_like_json() -> Value {
    let steps = json!([{"type": "Prepend", "prepend": "▁"},
                       {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]);
    sentence_piece_json(json!({"type": "Sequence", "normalizers": steps}), Value::Null)
}

/// Metaspace in place of the normaliser; `scheme` is `"first"`, `"always"` or `"never"`.
pub(super) fn metaspace_json(scheme: &str) -> Value {
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false});
    sentence_piece_json(Value::Null, metaspace)
}

pub(super) fn build(json: &Value, config: Value) -> Tokenizer {
    Tokenizer::from_parts(TokenizerParts {
        tokenizer_json: json.to_string().as_bytes(),
        tokenizer_config: Some(config.to_string().as_bytes()),
        ..TokenizerParts::default()
    })
    .unwrap()
}

pub(super) fn byte_level() -> Tokenizer {
    build(&byte_level_json(), json!({"eos_token": "<|endoftext|>"}))
}

pub(super) fn llama_like() -> Tokenizer {
    build(&llama_like_json(), json!({"bos_token": "<s>", "eos_token": "</s>"}))
}

/// Metaspace `"first"`, decoded by Metaspace too.
pub(super) fn metaspace_first() -> Tokenizer {
    let mut json = metaspace_json("first");
    json["decoder"] = json["pre_tokenizer"].clone();
    build(&json, json!({"bos_token": "<s>", "eos_token": "</s>"}))
}
