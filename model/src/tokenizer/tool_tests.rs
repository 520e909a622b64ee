//! Tools in templates, in generated text and as grammars.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::fixtures::*;
use super::*;

/// Templates of the three families in our own words, with the structure of the published ones.
pub(crate) const HERMES: &str = r#"{%- if tools %}
{{- '<|im_start|>system\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{%- endif %}
{{- "You can call these functions, listed in <tools></tools>:\n<tools>" }}
{%- for tool in tools %}{{- "\n" }}{{- tool | tojson }}{%- endfor %}
{{- "\n</tools>\nCall one so:\n<tool_call>\n{\"name\": ..., \"arguments\": ...}\n</tool_call><|im_end|>\n" }}
{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == "user" or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- elif message.role == "assistant" %}
{{- '<|im_start|>assistant' }}
{%- if message.content %}{{- '\n' + message.content }}{%- endif %}
{%- for call in message.tool_calls %}
{%- if call.function is defined %}{%- set call = call.function %}{%- endif %}
{{- '\n<tool_call>\n{"name": "' }}{{- call.name }}{{- '", "arguments": ' }}{{- call.arguments | tojson }}{{- '}\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\n' }}
{%- elif message.role == "tool" %}
{%- if loop.first or messages[loop.index0 - 1].role != "tool" %}{{- '<|im_start|>user' }}{%- endif %}
{{- '\n<tool_response>\n' + message.content + '\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != "tool" %}{{- '<|im_end|>\n' }}{%- endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"#;

pub(crate) const LLAMA: &str = r#"{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- set first = messages[0].content | trim %}
{%- if tools is not none %}
{{- "[INST]Answer with a call as {\"name\": function, \"parameters\": arguments by name}, without variables.\n" }}
{%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\n" }}{%- endfor %}
{{- first }}
{%- else %}{{- "[INST]" + first }}{%- endif %}
{%- for message in messages[1:] %}
{%- if 'tool_calls' in message %}
{%- if message.tool_calls | length != 1 %}{{- raise_exception("one call at a time") }}{%- endif %}
{%- set call = message.tool_calls[0].function %}
{{- '{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}{{- "}" }}
{%- elif message.role == "tool" or message.role == "ipython" %}
{{- "[INST]ipython: " }}
{%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}
{%- else %}{{- message.content }}{%- endif %}
{%- else %}{{- "[INST]" + message.content | trim }}{%- endif %}
{%- endfor %}"#;

pub(crate) const MISTRAL: &str = r#"{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{{- bos_token }}
{%- for message in messages %}
{%- if message.role == "user" %}
{%- if tools is not none and loop.last %}
{{- "[AVAILABLE_TOOLS] [" }}
{%- for tool in tools %}
{%- set tool = tool.function %}
{{- '{"type": "function", "function": {' }}
{%- for key, val in tool.items() if key != "return" %}
{%- if val is string %}{{- '"' + key + '": "' + val + '"' }}{%- else %}{{- '"' + key + '": ' + val | tojson }}{%- endif %}
{%- if not loop.last %}{{- ", " }}{%- endif %}
{%- endfor %}
{{- "}}" }}
{%- if not loop.last %}{{- ", " }}{%- endif %}
{%- endfor %}
{{- "][/AVAILABLE_TOOLS]" }}
{%- endif %}
{{- "[INST] " + message.content + "[/INST]" }}
{%- elif message.tool_calls is defined and message.tool_calls is not none %}
{{- "[TOOL_CALLS] [" }}
{%- for call in message.tool_calls %}
{%- set out = call.function | tojson %}
{{- out[:-1] }}
{%- if call.id is not defined or call.id | length != 9 %}{{- raise_exception("ids of calls have nine characters") }}{%- endif %}
{{- ', "id": "' + call.id + '"}' }}
{%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
{%- endfor %}
{%- elif message.role == "assistant" %}{{- " " + message.content + eos_token }}
{%- elif message.role == "tool" %}
{{- '[TOOL_RESULTS] {"content": ' + message.content + ', "call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
{%- endif %}
{%- endfor %}"#;

/// [`byte_level_json`] with Mistral's markers as control tokens.
pub(crate) fn with_markers() -> Value {
    let mut json = byte_level_json();
    let tokens = json["added_tokens"].as_array_mut().unwrap();
    let next = tokens.iter().filter_map(|t| t["id"].as_u64()).max().unwrap() as usize + 1;
    let names =
        ["[TOOL_CALLS]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"];
    tokens.extend(names.iter().enumerate().map(|(i, name)| added(next + i, name, true)));
    json
}

pub(crate) fn tokenizer(template: &str) -> Tokenizer {
    build(&with_markers(), json!({"bos_token": "<s>", "eos_token": "<|endoftext|>", "chat_template": template}))
}

fn tool(name: &str, description: &str, parameters: Value) -> Tool {
    let function = json!({"name": name, "description": description, "parameters": parameters});
    Tool::from_json(json!({"type": "function", "function": function})).unwrap()
}

pub(crate) fn tools() -> Vec<Tool> {
    let place = json!({"type": "object", "properties": {"place": {"type": "string", "maxLength": 6}, "days": {"type": "integer"}},
        "required": ["place"], "additionalProperties": false});
    vec![tool("tide", "When the tide is high", place), tool("lamp-on", "Lights the lamp", Value::Null)]
}

fn conversation(content: &str, arguments: &str, result: &str) -> Vec<ChatMessage> {
    let text =
        |role: &str, content: &str| ChatMessage { role: role.into(), content: content.into(), ..Default::default() };
    let call = ToolCall { id: "abcdEF123".into(), name: "tide".into(), arguments: arguments.into() };
    vec![
        text("user", content),
        ChatMessage { tool_calls: vec![call], ..text("assistant", "") },
        ChatMessage { tool_call_id: Some("abcdEF123".into()), ..text("tool", result) },
        text("user", content),
    ]
}

fn rendered(tokenizer: &Tokenizer, messages: &[ChatMessage], tools: &[Tool]) -> String {
    tokenizer.decode(&tokenizer.encode_chat(messages, tools, true).unwrap(), false).unwrap()
}

#[test]
fn templates_are_known_by_their_tools() {
    let chatml = "{% for m in messages %}{{ m.content }}{% endfor %} tools <tool_call>";
    for (template, format) in [
        (HERMES, Some(ToolFormat::Hermes)),
        (LLAMA, Some(ToolFormat::Llama3Json)),
        (MISTRAL, Some(ToolFormat::Mistral)),
        (chatml, None),
    ] {
        let tokenizer = tokenizer(template);
        assert_eq!((tokenizer.takes_tools(), tokenizer.tool_format()), (format.is_some(), format));
    }
    assert_eq!(ToolFormat::of_template("[TOOL_CALLS]name[ARGS]{}"), None);
    assert_eq!(ToolFormat::of_template("<tool_call><function=f>"), None);
    assert!(tokenizer(HERMES).tool_marker_ids().is_empty(), "text, as in Qwen's tokenizers");
    let mistral = tokenizer(MISTRAL);
    assert_eq!(mistral.tool_marker_ids(), [mistral.token_id("[TOOL_CALLS]").unwrap()]);
    let messages = conversation("hi", "{}", "x");
    assert_eq!(tokenizer(chatml).encode_chat(&messages, &tools(), true), Err(TokenizerError::NoTools));
    assert!(!byte_level().takes_tools());
}

#[test]
fn tools_and_calls_are_rendered_as_templates_expect() {
    let messages = conversation("when?", r#"{"place": "Föhr", "days": 2}"#, "\"noon\"");
    let tide = r#"{"type": "function", "function": {"name": "tide", "description": "When the tide is high", "parameters": {"type": "object", "properties": {"place": {"type": "string", "maxLength": 6}, "days": {"type": "integer"}}, "required": ["place"], "additionalProperties": false}}}"#;
    let text = rendered(&tokenizer(HERMES), &messages, &tools());
    assert!(text.contains(&format!("<tools>\n{tide}\n{{\"type\"")), "{text}");
    let call = "<|im_start|>assistant\n<tool_call>\n{\"name\": \"tide\", \"arguments\": {\"place\": \"Föhr\", \"days\": 2}}\n\
                </tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n\"noon\"\n</tool_response><|im_end|>\n";
    assert!(text.contains(call), "{text}");
    let text = rendered(&tokenizer(LLAMA), &messages, &tools()[..1]);
    assert!(text.contains("\n    \"type\": \"function\",\n    \"function\": {\n        \"name\": \"tide\""), "{text}");
    assert!(text.contains(r#"{"name": "tide", "parameters": {"place": "Föhr", "days": 2}}[INST]ipython: "#), "{text}");
    let text = rendered(&tokenizer(MISTRAL), &messages, &tools());
    assert!(text.contains("[AVAILABLE_TOOLS] [{\"type\": \"function\", \"function\": {\"name\": \"tide\", "), "{text}");
    let call =
        r#"[TOOL_CALLS] [{"name": "tide", "arguments": {"place": "Föhr", "days": 2}, "id": "abcdEF123"}]<|endoftext|>"#;
    assert!(text.contains(call), "{text}");
    assert!(text.contains(r#"[TOOL_RESULTS] {"content": "noon", "call_id": "abcdEF123"}[/TOOL_RESULTS]"#), "{text}");
}

#[test]
fn arguments_that_are_no_object_are_refused() {
    for arguments in ["[1]", "{", "7", "{} {}"] {
        let messages = conversation("hi", arguments, "x");
        let error = tokenizer(HERMES).encode_chat(&messages, &[], true).unwrap_err();
        assert_eq!(error, TokenizerError::ToolArguments("tide".into()), "{arguments}");
    }
    assert!(rendered(&tokenizer(HERMES), &conversation("hi", " ", "x"), &[]).contains("\"arguments\": {}}"));
}

#[test]
fn definitions_are_checked() {
    let field = |definition: Value| Tool::from_json(definition).unwrap_err().field;
    assert_eq!(field(json!(7)), "type");
    assert_eq!(field(json!({"type": "function"})), "function");
    assert_eq!(field(json!({"type": "function", "function": {"name": "a b"}})), "function.name");
    assert_eq!(field(json!({"type": "function", "function": {"name": "a", "description": 1}})), "function.description");
    assert_eq!(field(json!({"type": "function", "function": {"name": "a", "parameters": []}})), "function.parameters");
    let bare = Tool::from_json(json!({"type": "function", "function": {"name": "a"}})).unwrap();
    assert_eq!((bare.name(), bare.parameters()["type"].as_str()), ("a", Some("object")));
}

/// The pieces of a text that is pushed in parts, texts beside each other put together.
fn parsed<'a>(format: ToolFormat, parts: impl IntoIterator<Item = &'a str>) -> Vec<ToolPiece> {
    let mut parser = ToolParser::new(format, &tools());
    let mut pieces: Vec<ToolPiece> = parts.into_iter().flat_map(|part| parser.push(part)).collect();
    pieces.extend(parser.finish());
    let mut together: Vec<ToolPiece> = Vec::new();
    for piece in pieces {
        match (together.last_mut(), piece) {
            (Some(ToolPiece::Text(last)), ToolPiece::Text(text)) => *last += &text,
            (_, piece) => together.push(piece),
        }
    }
    together
}

fn text(text: &str) -> ToolPiece {
    ToolPiece::Text(text.into())
}

fn call(name: &str, arguments: &str) -> ToolPiece {
    ToolPiece::Call { name: name.into(), arguments: arguments.into() }
}

#[test]
fn calls_are_found() {
    use ToolFormat::{Hermes, Llama3Json, Mistral};
    let tide = || call("tide", r#"{"place":"a } \" </tool_call> ["}"#);
    let arguments = r#"{"place": "a } \" </tool_call> ["}"#;
    let hermes = format!("<tool_call>\n{{\"name\": \"tide\", \"arguments\": {arguments}}}\n</tool_call>");
    let one = |format, source: &str| parsed(format, [source]);
    assert_eq!(one(Hermes, &hermes), [tide()]);
    assert_eq!(one(Hermes, &format!("Let me see. \n{hermes}\n{hermes}\n")), [text("Let me see."), tide(), tide()]);
    assert_eq!(one(Hermes, &format!("{hermes}\nDone. ")), [tide(), text("\nDone. ")]);
    assert_eq!(one(Hermes, hermes.strip_suffix("\n</tool_call>").unwrap()), [tide()], "the end may be missing");
    assert_eq!(one(Hermes, r#"<tool_call>{"name": "lamp-on"}</tool_call>"#), [call("lamp-on", "{}")]);
    assert_eq!(
        one(Hermes, r#"<tool_call>{"name":"tide","arguments":"{\"days\":1}"}"#),
        [call("tide", r#"{"days":1}"#)]
    );
    let llama = format!("{{\"name\": \"tide\", \"parameters\": {arguments}}}");
    assert_eq!(one(Llama3Json, &format!(" {llama}")), [tide()]);
    assert_eq!(one(Llama3Json, &format!("{llama}; {llama}\n")), [tide(), tide()]);
    assert_eq!(one(Llama3Json, &format!("I say {llama}")), [text(&format!("I say {llama}"))]);
    let mistral =
        format!("[TOOL_CALLS] [{{\"name\": \"tide\", \"arguments\": {arguments}}}, {{\"name\": \"lamp-on\"}}]");
    assert_eq!(one(Mistral, &mistral), [tide(), call("lamp-on", "{}")]);
    let mut parser = ToolParser::new(Hermes, &tools());
    assert_eq!((parser.push("a <tool"), parser.has_call()), (vec![text("a")], false));
    assert_eq!(parser.push(" b"), [text(" <tool b")]);
    parser.push(&hermes);
    assert!(parser.has_call());
}

#[test]
fn what_is_no_call_is_text() {
    use ToolFormat::{Hermes, Llama3Json, Mistral};
    for (format, source) in [
        (Hermes, ""),
        (Hermes, " plain \n"),
        (Hermes, "a < b <tool_call"),
        (Hermes, "<tool_call>"),
        (Hermes, "x <tool_call> no </tool_call> "),
        (Hermes, "<tool_call>{\"name\": \"tide\", "),
        (Hermes, "<tool_call>{\"name\": \"unknown\", \"arguments\": {}}</tool_call>"),
        (Hermes, "<tool_call>{\"name\": \"tide\", \"arguments\": [1]}</tool_call>"),
        (Hermes, "<tool_call>{\"name\": \"tide\", }</tool_call>"),
        (Llama3Json, "{\"name\": \"Bob\", \"age\": 7}"),
        (Llama3Json, "{}"),
        (Llama3Json, "{{{"),
        (Mistral, "[TOOL_CALLS]"),
        (Mistral, "[TOOL_CALLS][]"),
        (Mistral, "[TOOL_CALLS][{\"name\": \"tide\"}, 7]"),
    ] {
        let expected = if source.is_empty() { vec![] } else { vec![text(source)] };
        assert_eq!(parsed(format, [source]), expected, "{source}");
    }
    let inner = r#"<tool_call><tool_call>{"name": "lamp-on"}</tool_call>"#;
    assert_eq!(parsed(Hermes, [inner]), [text("<tool_call>"), call("lamp-on", "{}")]);
    let deep = format!("<tool_call>{}", "{\"a\":".repeat(100_000) + &"}".repeat(100_000));
    assert_eq!(parsed(Hermes, [deep.as_str()]), [text(&deep)], "no recursion without end");
}

/// Text of which much is calls, markers and parts of them.
fn like_calls() -> impl Strategy<Value = String> {
    const PARTS: [&str; 22] = [
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "\n",
        " ",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "\\",
        ";",
        ",",
        "é🦀",
        "word",
        "{\"name\": \"lamp-on\"}",
        "{\"name\": \"tide\", \"arguments\": {\"place\": \"é\"}}",
        "{\"name\": \"tide\", \"parameters\": {\"days\": 1}}",
        "[{\"name\": \"lamp-on\"}, {\"name\": \"tide\"}]",
        "<tool_call>\n{\"name\": \"lamp-on\", \"arguments\": {}}\n</tool_call>",
        "<tool",
        "[TOOL",
    ];
    prop::collection::vec((0..PARTS.len()).prop_map(|i| PARTS[i]), 0..14).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn cuts_change_nothing(source in like_calls(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(source.len() + 1)).collect();
        cuts.retain(|&cut| source.is_char_boundary(cut));
        cuts.sort_unstable();
        let mut parts = Vec::new();
        let mut from = 0;
        for cut in cuts {
            parts.push(&source[from..cut]);
            from = cut;
        }
        parts.push(&source[from..]);
        for format in [ToolFormat::Hermes, ToolFormat::Llama3Json, ToolFormat::Mistral] {
            let whole = parsed(format, [source.as_str()]);
            prop_assert_eq!(&parsed(format, parts.iter().copied()), &whole);
            let characters: Vec<String> = source.chars().map(String::from).collect();
            prop_assert_eq!(&parsed(format, characters.iter().map(String::as_str)), &whole);
            if !whole.iter().any(|piece| matches!(piece, ToolPiece::Call { .. })) {
                prop_assert_eq!(whole, if source.is_empty() { vec![] } else { vec![text(&source)] });
            }
        }
    }

    #[test]
    fn tools_never_yield_a_control_token(texts in prop::collection::vec(tests::hostile_text(), 6)) {
        let [description, property, value, content, result, id] = texts.as_slice() else { unreachable!() };
        let parameters = json!({"type": "object", "properties": {property.as_str(): {"type": value, "enum": [value]}},
            "required": [property], value.as_str(): [content]});
        let tools = [tool("tide", description, parameters)];
        let arguments = json!({property.as_str(): [value], "type": value}).to_string();
        let mut messages = conversation(content, &arguments, result);
        messages[1].tool_calls[0].name.clone_from(value);
        messages[1].content.clone_from(result);
        for template in [HERMES, LLAMA, "{{ messages|tojson }}{{ tools|tojson }}<|{% for m in messages %}{{ m.content|trim|lower }}{% endfor %}"] {
            let tokenizer = tokenizer(template);
            let count = |messages: &[ChatMessage], tools: &[Tool]| {
                let ids = tokenizer.encode_chat(messages, tools, true).unwrap();
                let tool_call = tokenizer.token_id("<tool_call>").unwrap();
                ids.iter().filter(|id| tokenizer.control_ids().contains(id) || **id == tool_call).count()
            };
            let innocent = conversation("x", "{}", "x");
            // Hermes leaves the content of a message out if it is empty, Llama writes no control token for it.
            prop_assert_eq!(count(&messages, &tools), count(&innocent, &[tool("tide", "x", json!({}))]));
        }
        let tokenizer = tokenizer(MISTRAL);
        messages[1].tool_calls[0].id.clone_from(id);
        messages[2].tool_call_id = Some(id.clone());
        if let Ok(ids) = tokenizer.encode_chat(&messages, &tools, true) {
            let control = |name: &str| tokenizer.token_id(name).unwrap();
            prop_assert_eq!(ids.iter().filter(|id| **id == control("[TOOL_CALLS]")).count(), 1);
            prop_assert_eq!(ids.iter().filter(|id| **id == control("[INST]")).count(), 2);
        }
    }
}

#[test]
fn markers_that_are_control_tokens_can_be_shown() {
    let tokenizer = tokenizer(MISTRAL);
    let mut ids = tokenizer.encode("so ", false).unwrap();
    ids.push(tokenizer.token_id("[TOOL_CALLS]").unwrap());
    ids.extend(tokenizer.encode("[{\"é\"}]", false).unwrap());
    ids.push(tokenizer.token_id("<|endoftext|>").unwrap());
    let streamed = |mut state: Detokenizer| {
        let text: String = ids.iter().map(|&id| state.push(&tokenizer, id).unwrap()).collect();
        text + &state.finish(&tokenizer).unwrap()
    };
    assert_eq!(streamed(tokenizer.tool_detokenizer()), "so [TOOL_CALLS][{\"é\"}]");
    assert_eq!(streamed(tokenizer.detokenizer()), "so [{\"é\"}]");
}
