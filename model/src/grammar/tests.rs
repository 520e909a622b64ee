//! Random walks under grammars over the demo's vocabulary, and what is refused.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::*;
use crate::logits::History;
use crate::tokenizer::TokenizerParts;

const VOCAB_SIZE: usize = 8192;

/// Tokens after which a walk prefers to close what is open.
const PATIENCE: usize = 150;

/// Tokens within which every walk ends.
const BOUND: usize = 600;

struct Demo {
    tokenizer: Tokenizer,
    grammars: Grammars,
    /// Ids of tokens of closing characters alone.
    closers: Vec<u32>,
}

fn demo() -> &'static Demo {
    static DEMO: OnceLock<Demo> = OnceLock::new();
    DEMO.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/checkpoint");
        let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
        let tokenizer = Tokenizer::from_parts(TokenizerParts {
            tokenizer_json: &read("tokenizer.json"),
            tokenizer_config: Some(&read("tokenizer_config.json")),
            eos_token_ids: vec![0, 2],
            ..TokenizerParts::default()
        })
        .unwrap();
        let bytes = tokenizer.token_bytes().unwrap();
        let is_closer = |id: &u32| {
            let token = &bytes[*id as usize];
            !token.is_empty() && token.iter().all(|b| b"\"}]".contains(b))
        };
        let closers = (0..u32::try_from(VOCAB_SIZE).unwrap()).filter(is_closer).collect();
        Demo { grammars: Grammars::new(&tokenizer, VOCAB_SIZE).unwrap(), tokenizer, closers }
    })
}

/// The text of a walk with random logits, and the tokens drawn.
fn walk(grammar: &Grammar, seed: u64) -> Result<(String, Vec<u32>), String> {
    let demo = demo();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut stage = grammar.stage();
    let mut generated = Vec::new();
    while generated.len() < BOUND {
        let mut logits: Vec<f32> = (0..VOCAB_SIZE).map(|_| random.random::<f32>()).collect();
        if generated.len() > PATIENCE {
            demo.closers.iter().for_each(|&id| logits[id as usize] += 2.0);
        }
        let before = logits.clone();
        stage
            .apply(&mut logits, &History { prompt: &[5], generated: &generated, ..History::default() })
            .map_err(|e| e.to_string())?;
        assert!(logits.iter().zip(&before).all(|(after, before)| after == before || *after == f32::NEG_INFINITY));
        let best = (0..VOCAB_SIZE).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
        assert!(logits[best].is_finite(), "nothing is allowed");
        let best = u32::try_from(best).unwrap();
        if demo.tokenizer.eos_ids().contains(&best) {
            return Ok((demo.tokenizer.decode(&generated, false).unwrap(), generated));
        }
        generated.push(best);
    }
    Err(format!("no end: {}", demo.tokenizer.decode(&generated, false).unwrap()))
}

/// What the schemas of these tests need of JSON Schema.
fn is_valid(value: &Value, schema: &Value, root: &Value) -> bool {
    if let Some(reference) = schema["$ref"].as_str() {
        return is_valid(value, root.pointer(reference.strip_prefix('#').unwrap()).unwrap(), root);
    }
    let is_type = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => unreachable!(),
    };
    let within = |size: usize, least: &str, most: &str| {
        schema[least].as_u64().is_none_or(|n| size as u64 >= n)
            && schema[most].as_u64().is_none_or(|n| size as u64 <= n)
    };
    let nothing = serde_json::Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&nothing);
    let of_type = match &schema["type"] {
        Value::String(name) => is_type(name),
        Value::Array(names) => names.iter().any(|name| is_type(name.as_str().unwrap())),
        _ => true,
    };
    of_type
        && schema.get("const").is_none_or(|c| c == value)
        && schema["enum"].as_array().is_none_or(|options| options.contains(value))
        && schema["anyOf"].as_array().is_none_or(|options| options.iter().any(|o| is_valid(value, o, root)))
        && value.as_str().is_none_or(|s| within(s.chars().count(), "minLength", "maxLength"))
        && value.as_f64().is_none_or(|n| {
            schema["minimum"].as_f64().is_none_or(|least| n >= least)
                && schema["maximum"].as_f64().is_none_or(|most| n <= most)
        })
        && value.as_array().is_none_or(|items| {
            within(items.len(), "minItems", "maxItems")
                && items.iter().all(|item| schema.get("items").is_none_or(|s| is_valid(item, s, root)))
        })
        && value.as_object().is_none_or(|fields| {
            let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
            required.iter().all(|name| fields.contains_key(name.as_str().unwrap()))
                && fields.iter().all(|(name, field)| match (properties.get(name), &schema["additionalProperties"]) {
                    (Some(property), _) => is_valid(field, property, root),
                    (None, Value::Bool(allowed)) => *allowed,
                    (None, other) => is_valid(field, other, root),
                })
        })
}

fn schemas() -> Vec<Value> {
    vec![
        json!({"type": "object"}),
        json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
               "required": ["name", "age"], "additionalProperties": false}),
        json!({"enum": ["red", "grün", "青", "🦀", 7, null, true]}),
        json!({"type": "object", "required": ["kind", "mood"], "additionalProperties": false, "properties": {
            "kind": {"const": "crab \"é\" \\ 🦀"}, "mood": {"enum": ["calm", "cross"]}, "note": {"type": ["string", "null"]}}}),
        json!({"type": "array", "minItems": 1, "maxItems": 4, "items": {"type": "object", "required": ["at"],
            "additionalProperties": false,
            "properties": {"at": {"type": "array", "items": {"type": "number"}, "maxItems": 3}, "ok": {"type": "boolean"}}}}),
        json!({"type": "string", "minLength": 3, "maxLength": 9}),
        json!({"type": "integer", "minimum": -12, "maximum": 345}),
        json!({"$defs": {"tree": {"type": "object", "required": ["leaf"], "additionalProperties": false, "properties": {
            "leaf": {"type": "string", "maxLength": 5}, "left": {"$ref": "#/$defs/tree"}}}}, "$ref": "#/$defs/tree"}),
        json!({"anyOf": [{"type": "null"}, {"type": "object", "required": ["x"], "properties": {"x": {"type": "number"}},
               "additionalProperties": {"type": "string", "maxLength": 3}}]}),
        json!({"title": "Anything", "description": "no keyword that constrains"}),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn walks_end_in_valid_json(seed in any::<u64>()) {
        for schema in schemas() {
            let grammar = demo().grammars.json_schema(&schema).unwrap();
            let (text, tokens) = walk(&grammar, seed).map_err(|e| TestCaseError::fail(format!("{schema}: {e}")))?;
            match serde_json::from_str::<Value>(&text) {
                Ok(value) => prop_assert!(is_valid(&value, &schema, &schema), "{text} under {schema}"),
                Err(e) => prop_assert!(is_too_large(&e), "{e}: {text}"),
            }
            prop_assert_eq!(walk(&grammar.clone(), seed).unwrap().1, tokens, "a walk can be repeated");
        }
    }

    #[test]
    fn schemas_of_any_kind_do_no_harm(schema in any_schema()) {
        if let Ok(grammar) = demo().grammars.json_schema(&schema)
            && let Ok((text, _)) = walk(&grammar, 1)
        {
            let parsed = serde_json::from_str::<Value>(&text);
            prop_assert!(parsed.as_ref().err().is_none_or(is_too_large), "{text} under {schema}");
        }
    }
}

/// JSON allows numbers of any size, and a random walk writes them.
fn is_too_large(error: &serde_json::Error) -> bool {
    error.to_string().starts_with("number out of range")
}

/// JSON of which much is keywords of schemas, most of it wrong.
fn any_schema() -> impl Strategy<Value = Value> {
    const WORDS: [&str; 22] = [
        "type",
        "string",
        "object",
        "array",
        "integer",
        "number",
        "properties",
        "items",
        "required",
        "enum",
        "const",
        "anyOf",
        "allOf",
        "oneOf",
        "$ref",
        "#/$defs/a",
        "#",
        "pattern",
        "minLength",
        "multipleOf",
        "format",
        "date",
    ];
    let word = (0..WORDS.len()).prop_map(|i| WORDS[i].to_owned());
    let number = prop_oneof![-3i64..9, Just(i64::MAX), Just(1 << 40)];
    let leaf = prop_oneof![
        word.clone().prop_map(Value::from),
        number.prop_map(Value::from),
        Just(Value::Null),
        Just(json!({"type": "string"})),
        Just(json!([])),
        Just(json!(0.0)),
        "\\PC{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(word.clone(), inner, 0..5).prop_map(|fields| json!(fields)),
        ]
    })
}

#[test]
fn the_end_is_allowed_exactly_where_the_grammar_may_end() {
    let demo = demo();
    let mut stage = demo.grammars.json_schema(&json!({"const": "a"})).unwrap().stage();
    let ids = demo.tokenizer.encode("\"a\"", false).unwrap();
    for length in 0..=ids.len() {
        let mut logits = vec![1.0; VOCAB_SIZE];
        stage.apply(&mut logits, &History { prompt: &[], generated: &ids[..length], ..History::default() }).unwrap();
        let allowed: Vec<usize> = (0..VOCAB_SIZE).filter(|&i| logits[i] == 1.0).collect();
        if length == ids.len() {
            assert_eq!(allowed, [0, 2], "both end tokens");
        } else {
            assert!(!allowed.contains(&0) && !allowed.contains(&2));
            assert!(allowed.contains(&(ids[length] as usize)));
        }
    }
    // A sequence that goes on behind its end may end again.
    for behind in [vec![0], vec![0, 77]] {
        let all = [ids.as_slice(), &behind].concat();
        let mut logits = vec![1.0; VOCAB_SIZE];
        stage.apply(&mut logits, &History { prompt: &[], generated: &all, ..History::default() }).unwrap();
        assert_eq!(logits.iter().filter(|l| **l == 1.0).count(), 2);
    }
}

#[test]
fn control_tokens_are_never_text() {
    let demo = demo();
    let mut stage = demo.grammars.json_schema(&json!({"type": "string"})).unwrap().stage();
    let quote = demo.tokenizer.encode("\"", false).unwrap();
    let mut logits = vec![0.0; VOCAB_SIZE];
    stage.apply(&mut logits, &History { prompt: &[], generated: &quote, ..History::default() }).unwrap();
    for &id in demo.tokenizer.control_ids() {
        assert_eq!(logits[id as usize], f32::NEG_INFINITY, "{:?}", demo.tokenizer.token_text(id));
    }
    assert!(logits.iter().filter(|l| l.is_finite()).count() > VOCAB_SIZE / 2);
}

#[test]
fn what_cannot_be_followed_is_an_error() {
    let demo = demo();
    let grammar = demo.grammars.json_object().unwrap();
    let history = |generated| History { prompt: &[], generated, ..History::default() };
    let word = demo.tokenizer.encode("word", false).unwrap();
    let error = grammar.stage().apply(&mut [0.0; VOCAB_SIZE], &history(&word)).unwrap_err();
    assert!(error.to_string().starts_with("grammar: "), "{error}");
    assert!(!error.to_string().contains('\n'));
    let error = grammar.stage().apply(&mut [0.0; 8], &history(&[])).unwrap_err();
    assert!(error.to_string().contains("8 logits, expected 8192"), "{error}");
    let mut stage = grammar.stage();
    let brace = demo.tokenizer.encode("{", false).unwrap();
    stage.apply(&mut [0.0; VOCAB_SIZE], &history(&brace)).unwrap();
    assert!(stage.apply(&mut [0.0; VOCAB_SIZE], &history(&[])).is_err());
}

#[test]
fn refused_schemas_say_why_and_where() {
    let refused = |schema: Value, at: &str, word: &str| match demo().grammars.json_schema(&schema) {
        Err(GrammarError::Schema { at: found, reason }) => {
            assert_eq!(found, at, "{reason}");
            assert!(reason.contains(word), "{reason}");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted: {schema}"),
    };
    refused(json!([]), "", "expected an object");
    refused(json!(false), "", "false");
    refused(json!({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}), "", "nothing is valid");
    refused(json!({"type": "text"}), "", "text");
    refused(
        json!({"type": "object", "properties": {"a/b": {"type": "array", "items": {"not": {}}}}}),
        "/properties/a~1b/items",
        "not",
    );
    refused(json!({"anyOf": [{"type": "string"}, {"type": "array", "uniqueItems": true}]}), "/anyOf/1", "uniqueItems");
    refused(json!({"properties": {"x": {"$ref": "#/$defs/missing"}}}), "/properties/x", "missing");
    refused(json!({"$ref": "https://example.org/schema"}), "", "$ref");
    refused(json!({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}), "", "oneOf");
    refused(json!({"type": "string", "format": "haiku"}), "", "haiku");
    refused(json!({"type": "string", "pattern": "("}), "", "(");
    refused(json!({"type": "string", "minLength": 5, "maxLength": 2}), "", "5");
    refused(json!({"type": "é".repeat(300)}), "", "é");
    let error = demo().grammars.json_schema(&json!({"properties": {"a": {"type": 1}}})).map(|_| ()).unwrap_err();
    assert!(error.to_string().starts_with("the JSON schema cannot be used at /properties/a: "), "{error}");
}

#[test]
fn options_in_a_schema_are_not_the_clients() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"],
        "additionalProperties": false, "x-guidance": {"whitespace_pattern": "x+", "lenient": true}});
    let (text, _) = walk(&demo().grammars.json_schema(&schema).unwrap(), 3).unwrap();
    assert!(text == "{\"a\":null}" || text == "{\"a\": null}", "{text}");
}

/// Each must be refused or compiled soon, and each token's mask be soon there or an error.
/// Walks over a small byte-level vocabulary in which Mistral's marker is a control token and `<tool_call>` is text.
#[test]
fn forced_calls_are_calls() {
    use crate::tokenizer::{ToolPiece, tool_tests as fixtures};
    for (template, seeds) in [(fixtures::HERMES, 12), (fixtures::LLAMA, 12), (fixtures::MISTRAL, 12)] {
        let tokenizer = fixtures::tokenizer(template);
        let format = tokenizer.tool_format().unwrap();
        let size = tokenizer.vocab_size() + 5;
        let grammars = Grammars::new(&tokenizer, size).unwrap();
        for (tools, is_parallel) in [(&fixtures::tools()[..], true), (&fixtures::tools()[1..], false)] {
            let grammar = grammars.tool_calls(format, tools, is_parallel).unwrap();
            for seed in 0..seeds {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                let (mut stage, mut generated) = (grammar.stage(), Vec::new());
                loop {
                    let mut logits: Vec<f32> = (0..size).map(|_| random.random::<f32>()).collect();
                    stage
                        .apply(&mut logits, &History { prompt: &[], generated: &generated, ..History::default() })
                        .unwrap();
                    let best = (0..size).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
                    assert!(logits[best].is_finite());
                    let best = u32::try_from(best).unwrap();
                    if tokenizer.eos_ids().contains(&best) {
                        break;
                    }
                    let is_control = tokenizer.control_ids().contains(&best);
                    assert!(!is_control || tokenizer.tool_marker_ids() == [best]);
                    generated.push(best);
                    assert!(generated.len() < 3000, "{:?}", tokenizer.decode(&generated, false));
                }
                let mut detokenizer = tokenizer.tool_detokenizer();
                let text: String = generated.iter().map(|&id| detokenizer.push(&tokenizer, id).unwrap()).collect();
                let mut parser = crate::ToolParser::new(format, tools);
                let mut pieces = parser.push(&text);
                pieces.extend(parser.finish());
                assert!((1..=if is_parallel { 8 } else { 1 }).contains(&pieces.len()), "{text}");
                for piece in pieces {
                    let ToolPiece::Call { name, arguments } = piece else { panic!("{piece:?} in {text}") };
                    let tool = tools.iter().find(|tool| tool.name() == name).unwrap();
                    let arguments: Value = serde_json::from_str(&arguments).unwrap();
                    assert!(is_valid(&arguments, &tool.parameters(), &Value::Null), "{arguments}");
                }
            }
        }
        let tools = |parameters: Value| {
            let definition = json!({"type": "function", "function": {"name": "f", "parameters": parameters}});
            [fixtures::tools()[0].clone(), crate::Tool::from_json(definition).unwrap()]
        };
        let error = grammars.tool_calls(format, &tools(json!({"properties": {"a": {"not": {}}}})), true).map(|_| ());
        let Err(GrammarError::Schema { at, .. }) = error else { panic!("{error:?}") };
        assert_eq!(at, "/1/function/parameters/properties/a");
        assert!(grammars.tool_calls(format, &[], true).is_err());
        let shared = json!({"$defs": {"n": {"type": "integer"}}, "properties": {"n": {"$ref": "#/$defs/n"}}});
        assert!(grammars.tool_calls(format, &tools(shared), true).is_ok());
    }
}

#[test]
fn hostile_schemas_are_bounded() {
    let nested = |depth: usize, wrap: fn(Value) -> Value| (0..depth).fold(json!({"type": "string"}), |s, _| wrap(s));
    let doubled: serde_json::Map<String, Value> = (0..40)
        .map(|i| {
            (
                format!("d{i}"),
                json!({"allOf": [{"$ref": format!("#/$defs/d{}", i + 1)}, {"$ref": format!("#/$defs/d{}", i + 1)}]}),
            )
        })
        .chain([("d40".to_owned(), json!({"type": "string"}))])
        .collect();
    let wide = |width: usize| json!({"anyOf": (0..width).map(|i| json!({"type": "object", "properties": {(format!("p{i}")): {"type": "string"}}})).collect::<Vec<_>>()});
    let hostile = vec![
        nested(5000, |s| json!([s])),
        nested(30, |s| json!({"type": "array", "items": s})),
        nested(6, |s| json!({"anyOf": [s, s, {"type": "object", "properties": {"a": s}}]})),
        json!({"$defs": doubled, "$ref": "#/$defs/d0"}),
        json!({"allOf": [wide(200), wide(200), wide(200)]}),
        json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        json!({"type": "string", "pattern": "^(a|b|ab)*(c{1,900}){1,900}$"}),
        json!({"type": "string", "pattern": "^(.*a.{60}|.*b.{60}|.*c.{60}){20}$"}),
        json!({"type": "string", "minLength": 1_000_000_000u64}),
        json!({"type": "string", "maxLength": u64::MAX}),
        json!({"type": "array", "items": {"type": "string", "pattern": "[a-z]{1,4000}x"}, "minItems": 3_000_000}),
        json!({"type": "number", "multipleOf": 1e-300}),
        json!({"type": "integer", "minimum": 1e300, "maximum": -1e300}),
        json!({"enum": (0..8000).map(|i| format!("{i}{}", "x".repeat(20))).collect::<Vec<_>>()}),
        json!({"properties": (0..3000).map(|i| (format!("p{i}"), json!({"type": "string"}))).collect::<serde_json::Map<_, _>>()}),
        json!({"anyOf": (0..13).map(|i| json!({"properties": (0..250).map(|j| (format!("p{i}.{j}"), json!(true))).collect::<serde_json::Map<_, _>>()})).collect::<Vec<_>>()}),
        json!({"items": {"items": {"items": wide(250)}}}),
        json!({"patternProperties": (0..200).map(|i| (format!(".*{i}.*"), json!({"type": "string"}))).collect::<serde_json::Map<_, _>>()}),
    ];
    for (i, schema) in hostile.into_iter().enumerate() {
        let start = Instant::now();
        let compiled = demo().grammars.json_schema(&schema);
        let compiling = start.elapsed();
        let outcome = match &compiled {
            Err(error) => error.to_string(),
            Ok(grammar) => {
                let walked = walk(grammar, 7);
                walked.map_or_else(
                    |e| e.chars().take(60).collect(),
                    |(text, ids)| format!("{} bytes, {} tokens", text.len(), ids.len()),
                )
            }
        };
        println!("{i}: {compiling:?}, {:?} in all: {outcome}", start.elapsed());
        assert!(compiling < Duration::from_secs(5), "{i} took {compiling:?}");
    }
}

/// `cargo test --release -p safelmm-model -- --ignored --nocapture masks_are_fast`
#[test]
#[ignore = "a measurement"]
fn masks_are_fast() {
    let start = Instant::now();
    let grammars = Grammars::new(&demo().tokenizer, VOCAB_SIZE).unwrap();
    println!("the trie of {VOCAB_SIZE} tokens: {:?}", start.elapsed());
    for schema in schemas() {
        let start = Instant::now();
        let grammar = grammars.json_schema(&schema).unwrap();
        let compiling = start.elapsed();
        let start = Instant::now();
        let copies: Vec<_> = (0..20).map(|_| grammar.stage()).collect();
        let copying = start.elapsed() / 20;
        drop(copies);
        let (mut masks, mut time, mut slowest) = (0, Duration::ZERO, Duration::ZERO);
        for seed in 0..20 {
            let Ok((_, ids)) = walk(&grammar, seed) else { continue };
            let mut stage = grammar.stage();
            for length in 0..=ids.len() {
                let mut logits = vec![0.0; VOCAB_SIZE];
                let start = Instant::now();
                stage
                    .apply(&mut logits, &History { prompt: &[], generated: &ids[..length], ..History::default() })
                    .unwrap();
                masks += 1;
                time += start.elapsed();
                slowest = slowest.max(start.elapsed());
            }
        }
        let mean = time.as_secs_f64() * 1e6 / f64::from(masks);
        println!(
            "{mean:.0} µs a mask, at most {slowest:?}; compiled in {compiling:?}, a stage in {copying:?}: {schema}"
        );
    }
    let words: Vec<Vec<u8>> =
        (0..150_000u32).map(|i| format!("{:x}", i.wrapping_mul(2_654_435_761)).into_bytes()).collect();
    let start = Instant::now();
    let trie = toktrie::TokTrie::from(&toktrie::TokRxInfo::new(150_000, 0), &words);
    let env: toktrie::TokEnv = Arc::new(toktrie::ApproximateTokEnv::new(trie));
    ParserFactory::new_simple(&env).unwrap();
    println!("a trie of 150,000 tokens: {:?}", start.elapsed());
}
