//! The API's description: it holds together, it names every route, and every field that it names is read.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::support::TestApp;

/// Method and path of everything that can be reached.
const ROUTES: [(&str, &str); 31] = [
    ("get", "/"),
    ("post", "/detokenize"),
    ("get", "/docs"),
    ("get", "/docs/docs.js"),
    ("get", "/docs/style.css"),
    ("get", "/health"),
    ("get", "/livez"),
    ("get", "/metrics"),
    ("get", "/openapi.json"),
    ("get", "/playground/app.js"),
    ("get", "/playground/style.css"),
    ("get", "/readyz"),
    ("post", "/tokenize"),
    ("get", "/tokenizer_info"),
    ("post", "/v1/attributions"),
    ("post", "/v1/chat/completions"),
    ("post", "/v1/completions"),
    ("post", "/v1/embeddings"),
    ("get", "/v1/models"),
    ("get", "/v1/models/{id}"),
    ("get", "/v1/models/{id}/provenance"),
    ("post", "/v1/moderations"),
    ("get", "/v1/plugins"),
    ("get", "/v1/stores"),
    ("post", "/v1/stores"),
    ("get", "/v1/stores/{store}"),
    ("post", "/v1/stores/{store}/compact"),
    ("delete", "/v1/stores/{store}/documents"),
    ("post", "/v1/stores/{store}/documents"),
    ("delete", "/v1/stores/{store}/documents/{document}"),
    ("post", "/v1/stores/{store}/search"),
];

/// Paths that take a body.
const POSTS: [&str; 10] = [
    "/detokenize",
    "/tokenize",
    "/v1/attributions",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/moderations",
    "/v1/stores",
    "/v1/stores/{store}/documents",
    "/v1/stores/{store}/search",
];

async fn description(app: &TestApp) -> Value {
    let response = app.get("/openapi.json").await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"application/json".parse().unwrap())
    );
    response.json().await.unwrap()
}

/// Calls `visit` with every object of a document.
fn each_object<'a>(value: &'a Value, visit: &mut impl FnMut(&'a Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            visit(object);
            object.values().for_each(|inner| each_object(inner, visit));
        }
        Value::Array(list) => list.iter().for_each(|inner| each_object(inner, visit)),
        _ => {}
    }
}

#[tokio::test]
async fn the_description_holds_together() {
    let app = TestApp::start().await;
    let api = description(&app).await;
    assert!(api["openapi"].as_str().unwrap().starts_with("3.1"));
    assert!(api["info"]["title"].is_string() && api["info"]["version"].is_string());
    let mut used = BTreeSet::new();
    each_object(&api, &mut |object| {
        if let Some(reference) = object.get("$ref") {
            let reference = reference.as_str().unwrap();
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(api.pointer(pointer).is_some(), "{reference} leads nowhere");
            used.insert(pointer.rsplit('/').next().unwrap().to_owned());
        }
    });
    let schemas: BTreeSet<String> = api["components"]["schemas"].as_object().unwrap().keys().cloned().collect();
    // What fills in a generic schema stands in its place.
    let inlined: Vec<&String> = schemas.difference(&used).collect();
    assert_eq!(inlined, ["ChatChoice", "ChatDelta", "TextChoice"], "schemas that no route uses");
    assert_eq!(api["components"]["securitySchemes"]["key"]["scheme"], "bearer");
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{method} {path} says nothing");
            assert!(operation["responses"]["200"]["description"].is_string(), "{method} {path}");
            if method == "post" && POSTS.contains(&&path[..]) {
                for status in ["400", "401", "403", "404", "413", "429", "500", "503", "504"] {
                    let error = &operation["responses"][status]["content"]["application/json"]["schema"]["$ref"];
                    assert_eq!(error, "#/components/schemas/ErrorBody", "{path} {status}");
                }
            }
        }
    }
}

#[tokio::test]
async fn every_route_is_described_and_every_described_route_is_there() {
    let app = TestApp::start().await;
    let api = description(&app).await;
    let mut described = Vec::new();
    for (path, item) in api["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            described.push((method.clone(), path.clone()));
        }
    }
    let mut expected = ROUTES.map(|(method, path)| (method.to_owned(), path.to_owned())).to_vec();
    described.sort();
    expected.sort();
    assert_eq!(described, expected);
    for (method, path) in described {
        let expected = match &method[..] {
            "post" if POSTS.contains(&&path[..]) => 400,
            // There is no such store.
            _ if path.contains("{store}") => 404,
            _ => 200,
        };
        let at = path.replace("{id}", app.model()).replace("{store}", "none").replace("{document}", "one/two");
        let response = match &method[..] {
            "post" => app.post(&at, json!({"unknown": 1})).await,
            "delete" => app.client.delete(format!("{}{at}?author=x", app.base)).send().await.unwrap(),
            _ => app.get(&at).await,
        };
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        assert_eq!(status, expected, "{method} {path}: {text}");
        assert!(status != 404 || text.contains("store_not_found"), "{method} {path}: {text}");
    }
    // A route that is not described would be one that is put in by another call.
    let routes = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../server/src/http/mod.rs")).unwrap();
    assert!(!routes.contains(".route(") && !routes.contains(".nest("), "routes are added with their description");
}

/// The properties of a schema, through references and nullable wrappers, with the schema of each.
fn properties<'a>(api: &'a Value, schema: &'a Value) -> Vec<(&'a String, &'a Value)> {
    let mut found = Vec::new();
    if let Some(reference) = schema["$ref"].as_str() {
        found.extend(properties(api, api.pointer(&reference[1..]).unwrap()));
    }
    for form in ["oneOf", "anyOf"] {
        found.extend(schema[form].as_array().into_iter().flatten().flat_map(|inner| properties(api, inner)));
    }
    found.extend(schema["items"].as_object().into_iter().flat_map(|_| properties(api, &schema["items"])));
    found.extend(schema["properties"].as_object().into_iter().flatten());
    found
}

/// A body in which `value` stands at the end of a path of fields; lists are put around where the schema has them.
fn nested(api: &Value, schema: &Value, path: &[&String], value: Value) -> Value {
    let resolved = schema["$ref"].as_str().map(|reference| api.pointer(&reference[1..]).unwrap());
    let schema = resolved.unwrap_or(schema);
    let branch = ["oneOf", "anyOf"].iter().find_map(|form| {
        let branches = schema[*form].as_array()?;
        branches
            .iter()
            .find(|branch| path.first().is_none_or(|name| properties(api, branch).iter().any(|p| p.0 == *name)))
    });
    if let Some(branch) = branch {
        return nested(api, branch, path, value);
    }
    let Some((name, rest)) = path.split_first() else { return value };
    if schema["items"].is_object() {
        return json!([nested(api, &schema["items"], path, value)]);
    }
    let mut object = Map::new();
    object.insert((*name).clone(), nested(api, &schema["properties"][name.as_str()], rest, value));
    Value::Object(object)
}

#[tokio::test]
async fn every_described_field_is_read_and_no_other() {
    let app = TestApp::start().await;
    let api = description(&app).await;
    for described in POSTS {
        let (schema, path) = (&api["paths"][described]["post"], &described.replace("{store}", "none")[..]);
        let schema = &schema["requestBody"]["content"]["application/json"]["schema"];
        let mut waiting: Vec<(Vec<&String>, &Value)> =
            properties(&api, schema).into_iter().map(|(name, inner)| (vec![name], inner)).collect();
        assert!(!waiting.is_empty(), "{path} has no fields");
        let mut fields = 0;
        while let Some((names, field)) = waiting.pop() {
            fields += 1;
            // A value of no type that any field has room for, except those of any type.
            let body = nested(&api, schema, &names, json!(-7.5));
            let response = app.post(path, body.clone()).await;
            let message = response.json::<Value>().await.unwrap().to_string();
            assert!(!message.contains("unknown parameter"), "{path} {body}: {message}");
            for (name, inner) in properties(&api, field) {
                waiting.push(([&names[..], &[name]].concat(), inner));
            }
        }
        assert!(fields > 0);
        let refused = app.post(path, json!({"frobnicate": 1})).await.json::<Value>().await.unwrap();
        assert_eq!(refused["error"]["message"], "unknown parameter 'frobnicate'", "{path}");
    }
}

#[tokio::test]
async fn the_page_for_people_loads_nothing_from_elsewhere() {
    let app = TestApp::start().await;
    for (path, content_type) in
        [("/docs", "text/html"), ("/docs/style.css", "text/css"), ("/docs/docs.js", "text/javascript")]
    {
        let response = app.get(path).await;
        assert_eq!(response.headers()["content-type"], format!("{content_type}; charset=utf-8"));
        assert!(response.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
        let text = response.text().await.unwrap();
        assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("innerHTML"), "{path}");
    }
}
