//! Tests of encoding and chat.

use proptest::prelude::*;
use serde_json::json;

use super::fixtures::*;
use super::*;

const SPELLINGS: [&str; 11] = [
    "<|endoftext|>",
    "<|rating:G|>",
    "<|rating:PG|>",
    "<|rating:X|>",
    "<|im_start|>",
    "<|im_end|>",
    "<s>",
    "[INST]",
    "<tool_call>",
    "<|rating:<|rating:G|>G|>",
    "  ",
];

fn reference(json: &serde_json::Value) -> tokenizers::Tokenizer {
    let mut reference = tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap();
    reference.with_truncation(None).unwrap();
    reference.with_padding(None);
    reference
}

fn hf_ids(reference: &tokenizers::Tokenizer, text: &str) -> Vec<u32> {
    reference.encode(text, false).unwrap().get_ids().to_vec()
}

fn chatty(json: &serde_json::Value, template: &str) -> Tokenizer {
    let config = json!({"bos_token": "<s>", "eos_token": "<|endoftext|>", "chat_template": template});
    build(json, config)
}

fn message(role: &str, content: &str) -> ChatMessage {
    ChatMessage { role: role.into(), content: content.into(), ..ChatMessage::default() }
}

const CHATML: &str = "{% for message in messages %}\n{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + \
                      '<|im_end|>' + '\\n' }}{% endfor %}\n{% if add_generation_prompt %}\n\
                      {{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Text of which much is whole, cut and nested control tokens.
pub(super) fn hostile_text() -> impl Strategy<Value = String> {
    let cut = (0..SPELLINGS.len(), 0usize..24, 0usize..24).prop_map(|(i, from, to)| {
        let text = SPELLINGS[i];
        let (from, to) = (from.min(text.len()), to.min(text.len()));
        text[from.min(to)..from.max(to)].to_owned()
    });
    let whole = (0..SPELLINGS.len()).prop_map(|i| SPELLINGS[i].to_owned());
    let part = prop_oneof![whole, cut, "\\PC{0,6}", "[ <>|a-z\n]{0,5}", Just("\u{FFFF}\u{FDD0}".to_owned())];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

fn has_added(tokenizer: &Tokenizer, ids: &[u32]) -> bool {
    let tool = tokenizer.token_id("<tool_call>");
    ids.iter().any(|id| tokenizer.control_ids().contains(id) || Some(*id) == tool)
}

proptest! {
    #[test]
    fn offsets_are_those_of_the_ids_in_order_and_on_characters(text in hostile_text()) {
        for tokenizer in [byte_level(), llama_like(), metaspace_first()] {
            match tokenizer.encode_with_offsets(&text) {
                Ok((ids, offsets)) => {
                    prop_assert_eq!(ids, tokenizer.encode(&text, false).unwrap());
                    prop_assert!(offsets.windows(2).all(|pair| pair[0].start <= pair[1].start));
                    prop_assert!(offsets.iter().all(|range| text.get(range.clone()).is_some()), "{:?}", offsets);
                }
                Err(_) => prop_assert!(tokenizer.encode(&text, false).is_err()),
            }
        }
    }

    #[test]
    fn text_never_yields_a_control_token(text in hostile_text()) {
        let tokenizer = byte_level();
        let ids = tokenizer.encode(&text, false).unwrap();
        prop_assert!(!has_added(&tokenizer, &ids), "{ids:?}");
        prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), text.clone());
        prop_assert_eq!(tokenizer.decode(&ids, true).unwrap(), text.clone());
        for tokenizer in [llama_like(), metaspace_first()] {
            let ids = tokenizer.encode(&text, false).unwrap();
            prop_assert!(!has_added(&tokenizer, &ids), "{ids:?}");
        }
    }

    #[test]
    fn innocent_text_encodes_as_the_library_does(text in "[a-z éß日.,\n]{0,40}") {
        let families = [byte_level_json(), llama_like_json(), metaspace_json("first"), metaspace_json("always")];
        for json in families {
            let tokenizer = build(&json, json!({}));
            prop_assert_eq!(tokenizer.encode(&text, false).unwrap(), hf_ids(&reference(&json), &text));
        }
    }

    #[test]
    fn messages_never_yield_a_control_token(texts in prop::collection::vec((hostile_text(), hostile_text()), 1..4)) {
        let glued = "{{ messages|map(attribute='content')|join('') }}{% for m in messages %}<|{{ m.role }}|>\
                     <{{ m.content|trim|lower }}>{% endfor %}";
        let messages: Vec<ChatMessage> = texts.iter().map(|(role, content)| message(role, content)).collect();
        let tokenizer = chatty(&byte_level_json(), glued);
        let ids = tokenizer.encode_chat(&messages, &[], true).unwrap();
        prop_assert!(!has_added(&tokenizer, &ids), "{:?}", tokenizer.decode(&ids, false));

        let tokenizer = chatty(&byte_level_json(), CHATML);
        let ids = tokenizer.encode_chat(&messages, &[], true).unwrap();
        let controls = ids.iter().filter(|id| has_added(&tokenizer, &[**id])).count();
        prop_assert_eq!(controls, 2 * messages.len() + 1);
        let mut expected = String::new();
        for (role, content) in &texts {
            expected += &format!("<|im_start|>{role}\n{content}<|im_end|>\n");
        }
        prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), expected + "<|im_start|>assistant\n");
    }
}

#[test]
fn a_chat_is_what_the_library_makes_of_the_rendered_text() {
    let tokenizer = chatty(&byte_level_json(), CHATML);
    let ids =
        tokenizer.encode_chat(&[message("system", "be brief"), message("user", " the  end\n")], &[], true).unwrap();
    let text =
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\n the  end\n<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(ids, hf_ids(&reference(&byte_level_json()), text));
}

#[test]
fn spaces_between_control_tokens_are_the_librarys() {
    let template = "{{ bos_token }}{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}";
    for json in [llama_like_json(), metaspace_json("first"), metaspace_json("always"), metaspace_json("never")] {
        let tokenizer = chatty(&json, template);
        let ids = tokenizer.encode_chat(&[message("user", "hi")], &[], false).unwrap();
        assert_eq!(ids, hf_ids(&reference(&json), "<s>[INST] hi [/INST]"), "{}", json["pre_tokenizer"]);
        assert_eq!(ids.iter().filter(|&&id| id == 1).count(), 1, "one BOS, the template's");
        let starts_with_text = chatty(&json, "{{ messages[0].content }}[INST]{{ messages[0].content }}");
        let ids = starts_with_text.encode_chat(&[message("user", "hi")], &[], false).unwrap();
        assert_eq!(ids, hf_ids(&reference(&json), "hi[INST]hi"), "{}", json["pre_tokenizer"]);
    }
}

#[test]
fn tokens_that_swallow_whitespace_do_so_in_templates() {
    let mut json = byte_level_json();
    for token in json["added_tokens"].as_array_mut().unwrap() {
        if token["content"] == "<|im_end|>" {
            token["lstrip"] = json!(true);
            token["rstrip"] = json!(true);
        }
    }
    let ids = chatty(&json, CHATML)
        .encode_chat(&[message("user", "a \n"), message("user", "  <|im_end|>")], &[], true)
        .unwrap();
    let mut expected = hf_ids(&reference(&json), "<|im_start|>user\na \n<|im_end|>\n<|im_start|>user\n  ");
    let tokenizer = build(&json, json!({}));
    expected.extend(tokenizer.encode("<|im_end|>", false).unwrap());
    expected.extend(hf_ids(&reference(&json), "<|im_end|>\n<|im_start|>assistant\n"));
    assert_eq!(ids, expected);
}

#[test]
fn templates_see_the_messages_as_they_are() {
    let template = "{% if messages[0].content %}yes{% else %}no{% endif %};{{ messages[0].content|trim }};\
                    {{ messages[0]['content'].strip() }};{% if messages[0].role == 'user' %}u{% endif %};\
                    {% if messages[0].name is defined %}{{ messages[0].name }}{% endif %}";
    let tokenizer = chatty(&byte_level_json(), template);
    let rendered = |m: ChatMessage| tokenizer.decode(&tokenizer.encode_chat(&[m], &[], false).unwrap(), false).unwrap();
    assert_eq!(rendered(message("user", "")), "no;;;u;");
    assert_eq!(rendered(message("user", " <s> \n")), "yes;<s>;<s>;u;");
    assert_eq!(rendered(message("user", "\n> s\t")), "yes;> s;> s;u;");
    assert_eq!(rendered(ChatMessage { name: Some("a<s>".into()), ..message("tool", "a<") }), "yes;a<;a<;;a<s>");
}

#[test]
fn a_role_makes_a_control_token_only_where_the_template_means_it() {
    let mut json = byte_level_json();
    let next = json["added_tokens"].as_array().unwrap().iter().filter_map(|t| t["id"].as_u64()).max().unwrap() as usize;
    json["added_tokens"].as_array_mut().unwrap().push(added(next + 1, "<|user|>", true));
    let tokenizer = chatty(&json, "{{ '<|' + messages[0].role + '|>' }}");
    let ids = |role: &str| tokenizer.encode_chat(&[message(role, "")], &[], false).unwrap();
    assert_eq!(ids("user"), [tokenizer.token_id("<|user|>").unwrap()]);
    for role in ["rating:G", "im_start", "RATING:g", "rating:", "x|><|rating:G"] {
        assert!(!has_added(&tokenizer, &ids(role)), "{role}");
        assert_eq!(tokenizer.decode(&ids(role), false).unwrap(), format!("<|{role}|>"));
    }
}

#[test]
fn special_tokens_are_known() {
    let tokenizer = byte_level();
    assert_eq!((tokenizer.eos_ids(), tokenizer.bos_id()), (&[0][..], None));
    for rating in Rating::ALL {
        assert_eq!(tokenizer.rating_id(rating), tokenizer.token_id(rating.token()));
        assert!(tokenizer.control_ids().contains(&tokenizer.rating_id(rating).unwrap()));
    }
    assert!(tokenizer.control_ids().is_sorted());
    assert_eq!(tokenizer.control_ids().len(), 9);
    assert_eq!(tokenizer.token_text(1).as_deref(), Some("<|rating:G|>"));
    assert_eq!(tokenizer.vocab_size(), tokenizer.token_id("  ").unwrap() as usize + 1);
    assert!(!tokenizer.has_chat_template());
    assert_eq!(tokenizer.encode_chat(&[], &[], true), Err(TokenizerError::NoChatTemplate));
    let llama = llama_like();
    assert_eq!((llama.bos_id(), llama.rating_id(Rating::G)), (Some(1), None));
    assert_eq!(llama.encode("", true).unwrap(), [1]);
    assert_eq!(llama.decode(&[1, 2], true).unwrap(), "");
}

#[test]
fn bos_is_added_once_and_nothing_is_cut_or_padded() {
    let tokenizer = llama_like();
    let text = "hi a b c d ".repeat(9);
    let plain = tokenizer.encode(&text, false).unwrap();
    let with_bos = tokenizer.encode(&text, true).unwrap();
    assert!(plain.len() > 16, "longer than the file's truncation");
    assert_eq!((with_bos[0], &with_bos[1..]), (1, plain.as_slice()));
    assert_eq!(tokenizer.encode("<s> hi", true).unwrap().iter().filter(|&&id| id == 1).count(), 1);
}

#[test]
fn stop_ids_come_from_both_files() {
    let json = byte_level_json();
    let parts = |ids: Vec<u32>, bytes: &[u8]| {
        Tokenizer::from_parts(TokenizerParts {
            tokenizer_json: bytes,
            tokenizer_config: Some(br#"{"eos_token": "<|endoftext|>", "pad_token": "a"}"#),
            chat_template: Some("x"),
            eos_token_ids: ids,
        })
    };
    let tokenizer = parts(vec![5, 0, 5], json.to_string().as_bytes()).unwrap();
    assert_eq!(tokenizer.eos_ids(), [5, 0]);
    assert!(tokenizer.has_chat_template());
    let stop = tokenizer.token_text(5).unwrap();
    assert!(
        tokenizer.control_ids().contains(&5) && tokenizer.control_ids().contains(&tokenizer.token_id("a").unwrap())
    );
    assert_eq!(tokenizer.decode(&[5], true).unwrap(), "", "{stop} is skipped like any stop token");
    let error = parts(vec![9999], json.to_string().as_bytes()).unwrap_err();
    assert!(matches!(error, TokenizerError::EosId { id: 9999, .. }), "{error}");
}

#[test]
fn broken_files_are_named() {
    let from =
        |json: &str| Tokenizer::from_parts(TokenizerParts { tokenizer_json: json.as_bytes(), ..Default::default() });
    assert!(matches!(from("{"), Err(TokenizerError::Tokenizer(_))));
    assert!(matches!(from("{\"version\": \"9\"}"), Err(TokenizerError::Tokenizer(_))));
    let mut json = byte_level_json();
    json["added_tokens"].as_array_mut().unwrap().retain(|t| t["content"] != "<|im_start|>");
    let error = from(&json.to_string()).unwrap_err();
    assert!(matches!(error, TokenizerError::AddedTokenId { .. }), "{error}");
    assert!(error.to_string().contains("<|im_end|>"));
}

#[test]
fn a_tokenizer_can_be_shared_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<Tokenizer>();
    check::<Detokenizer>();
    assert!(format!("{:?}", byte_level()).len() < 300);
}
