//! Any body is either a plan or a refusal of the client: the same as the fuzz target, with bodies near to valid ones.

use proptest::prelude::*;
use safelmm_server::fuzzing::{PATHS, request_body};
use serde_json::{Value, json};

/// A body for each path with most of its fields.
fn valid() -> [Value; PATHS.len()] {
    let message = json!({"role": "user", "content": [{"type": "text", "text": "Hello"}], "name": "n"});
    let safelmm = json!({"rating": "G", "guidance": 1.0, "use": "non-commercial", "stores": [],
                         "retrieval": {"mode": "off", "k": null}, "attribution": "none", "exclude_documents": []});
    let tool =
        json!({"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}});
    let schema = json!({"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]});
    [
        json!({"prompt": ["A", "B"], "max_tokens": 3, "echo": true, "logprobs": 2, "best_of": 2, "suffix": "", "n": 1,
               "temperature": 0.5, "top_k": 5, "top_p": 0.9, "min_p": 0.1, "presence_penalty": 1, "frequency_penalty": -1,
               "repetition_penalty": 1.1, "logit_bias": {"300": 5}, "seed": -1, "stop": ["x", "yy"], "ignore_eos": true,
               "user": "u", "stream": false, "stream_options": null, "safelmm": safelmm}),
        json!({"messages": [message], "max_completion_tokens": 4, "logprobs": true, "top_logprobs": 3, "stop": "x",
               "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
               "tools": [tool], "tool_choice": "none", "store": false, "metadata": {}, "modalities": ["text"],
               "stream": true, "stream_options": {"include_usage": true}, "safelmm": {"rating": "PG"}}),
        json!({"input": [[300, 301], [302]], "encoding_format": "base64", "user": "u"}),
        json!({"messages": [message], "add_generation_prompt": false, "add_special_tokens": false, "return_token_strs": true}),
        json!({"tokens": [300, 301, 302]}),
    ]
}

#[test]
fn bodies_that_are_right_are_taken() {
    for (path, body) in valid().iter().enumerate() {
        assert_eq!(request_body(path, body.to_string().as_bytes()), Ok(()), "{} {body}", PATHS[path]);
    }
}

/// Any JSON value of modest size, with the numbers and texts that programs stumble over.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![0_i64, 1, -1, 16, 17, 20, 21, 256, 257, 8192, 4_294_967_295, 4_294_967_296])
            .prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "text",
            "auto",
            "required",
            "G",
            "X",
            "off",
            "<|im_end|>",
            "\u{E000}",
            "function"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let name = prop_oneof![
            "[a-z_]{1,8}",
            prop::sample::select(vec!["type", "text", "role", "content", "name", "k", "5"]).prop_map(str::to_owned),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Puts a value somewhere into a body: the numbers choose the place.
fn mutate(body: &mut Value, mut at: usize, value: Value) {
    let mut place = body;
    loop {
        let children = match &*place {
            Value::Object(object) => object.len(),
            Value::Array(list) => list.len(),
            _ => 0,
        };
        if children == 0 || at.is_multiple_of(4) {
            *place = value;
            return;
        }
        let child = (at / 4) % children;
        at /= 4 * children;
        place = match place {
            Value::Object(object) => match object.values_mut().nth(child) {
                Some(inner) => inner,
                None => return,
            },
            Value::Array(list) => &mut list[child],
            _ => return,
        };
    }
}

fn is_plan_or_refusal(outcome: Result<(), u16>) -> bool {
    outcome.is_ok() || outcome.is_err_and(|status| (400..500).contains(&status))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes(path in 0..PATHS.len(), body in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(is_plan_or_refusal(request_body(path, &body)));
    }

    #[test]
    fn any_json(path in 0..PATHS.len(), body in any_value()) {
        let body = body.to_string();
        prop_assert!(is_plan_or_refusal(request_body(path, body.as_bytes())), "{}", body);
    }

    #[test]
    fn bodies_with_one_value_changed(path in 0..PATHS.len(), at in 1usize.., value in any_value()) {
        let mut body = valid()[path].clone();
        mutate(&mut body, at, value);
        let outcome = request_body(path, body.to_string().as_bytes());
        prop_assert!(is_plan_or_refusal(outcome), "{:?} {}", outcome, body);
    }

    #[test]
    fn bodies_with_bytes_changed(path in 0..PATHS.len(), changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..6)) {
        let mut body = valid()[path].to_string().into_bytes();
        for (at, byte) in changes {
            let length = body.len();
            body[at % length] = byte;
        }
        let outcome = request_body(path, &body);
        prop_assert!(is_plan_or_refusal(outcome), "{:?} {}", outcome, String::from_utf8_lossy(&body));
    }
}
