//! Reading a JSON body into a typed request, and telling the client what is wrong with it: the path of the parameter,
//! what was expected and what was found.
//!
//! This is how "honoured or refused, never ignored" is kept: requests are structs that deny unknown fields
//! ([`objects!`]), and code that takes a struct apart by name does not compile when it forgets a field.

use std::fmt;
use std::marker::PhantomData;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};
use serde_path_to_error::{Path, Segment};
use utoipa::ToSchema;

use super::error::ApiError;
use super::generation::blocking;
use crate::app::App;
use crate::keys::Principal;

/// Longer bodies are parsed away from the threads that serve sockets.
const PARSED_AT_ONCE: usize = 64 << 10;

/// The extractor: the body as a request, whatever content type the client names.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned + Send + 'static> FromRequest<App> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let principal = request.extensions().get::<Principal>().cloned();
        let bytes = Bytes::from_request(request, app).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::BodyTooLarge { limit: app.server_config().max_body_bytes },
            _ => ApiError::BodyUnreadable,
        })?;
        if bytes.len() <= PARSED_AT_ONCE {
            return parse(&bytes).map(Json);
        }
        blocking(move || {
            let parsed = parse(&bytes).map(Json);
            // Until here the request counts among the key's, even if its client has left.
            drop(principal);
            parsed
        })
        .await
    }
}

/// A body as a request.
///
/// # Errors
/// [`ApiError::NotJson`], and [`ApiError::Parameter`] with the path of what does not fit.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let request = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = shown(error.path());
        // A number that is one, and none of the type that is asked for.
        if error.inner().to_string().starts_with("number out of range") && serde_json::from_slice::<Value>(body).is_ok()
        {
            return ApiError::parameter(&path, format!("'{path}' is a number out of range"));
        }
        refusal(&path, error.inner())
    })?;
    json.end().map_err(|error| ApiError::NotJson(format!("the body is not valid JSON: {error}")))?;
    Ok(request)
}

/// Declares the objects of requests: they deny unknown fields, are part of the API's description, and are read from JSON
/// objects alone (serde's own structs can be read from lists too, by position).
macro_rules! objects {
    ($($(#[$meta:meta])* pub struct $name:ident { $($fields:tt)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
        #[serde(deny_unknown_fields, remote = "Self")]
        pub struct $name { $($fields)* }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::http::json::object(deserializer, std::marker::PhantomData)
            }
        }

        impl $crate::http::json::Object for $name {
            fn of_map<'de, A: serde::de::MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
                $name::deserialize(serde::de::value::MapAccessDeserializer::new(map))
            }
        }
    )*};
}
pub(super) use objects;

/// What [`objects!`] declares.
pub trait Object: Sized {
    /// Reads the fields.
    fn of_map<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error>;
}

/// Reads an object, and nothing that merely could be one.
pub fn object<'de, D: Deserializer<'de>, T: Object>(deserializer: D, _: PhantomData<T>) -> Result<T, D::Error> {
    struct Fields<T>(PhantomData<T>);

    impl<'de, T: Object> Visitor<'de> for Fields<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::of_map(map)
        }
    }

    deserializer.deserialize_map(Fields(PhantomData))
}

/// The error for the client. `serde` gives its errors as texts of a few forms; here they become those of this API.
fn refusal(path: &str, error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    if !error.is_data() {
        return ApiError::NotJson(format!("the body is not valid JSON: {text}"));
    }
    let position = format!(" at line {} column {}", error.line(), error.column());
    let text = text.strip_suffix(&position).unwrap_or(&text);
    let inside = |name: &str| match path {
        "" => shortened(name),
        _ => format!("{path}.{}", shortened(name)),
    };
    if text.starts_with("unknown field ") {
        return ApiError::parameter(path, format!("unknown parameter '{path}'"));
    }
    if let Some(name) = text.strip_prefix("missing field ") {
        let param = inside(name.trim_matches('`'));
        return ApiError::parameter(&param, format!("'{param}' is missing"));
    }
    if let Some(name) = text.strip_prefix("duplicate field ") {
        let param = inside(name.trim_matches('`'));
        return ApiError::parameter(&param, format!("'{param}' is given twice"));
    }
    let found_and_expected = ["invalid type: ", "invalid value: ", "unknown variant "]
        .iter()
        .find_map(|form| text.strip_prefix(form))
        .and_then(|rest| rest.rsplit_once(", expected "));
    match found_and_expected {
        Some((found, expected)) if path.is_empty() => {
            let (expected, found) = (expectation(expected), finding(found));
            ApiError::NotJson(format!("the body must be {expected} in JSON, found {found}"))
        }
        Some(("null", expected)) if !path.ends_with(']') => {
            ApiError::parameter(path, format!("'{path}' is missing: expected {}", expectation(expected)))
        }
        Some((found, expected)) => {
            let (expected, found) = (expectation(expected), finding(found));
            ApiError::parameter(path, format!("'{path}' must be {expected}, found {found}"))
        }
        None => ApiError::parameter(path, format!("'{path}' {text}")),
    }
}

/// What serde expects, in the words of JSON.
fn expectation(expected: &str) -> String {
    match expected {
        "f32" => "a number".into(),
        "i64" => "an integer of 64 bits".into(),
        "u64" | "usize" => "an integer of at least 0".into(),
        "u32" => "an integer from 0 to 4294967295".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list".into(),
        "a map" => "an object".into(),
        other => other.replace('`', "\""),
    }
}

/// What serde has found: small values as they are, others by their type.
fn finding(found: &str) -> String {
    match found {
        "sequence" => "a list".into(),
        "map" => "an object".into(),
        _ => match found.split_once(['"', '`']) {
            Some((kind, value)) if value.len() > LONGEST_FINDING => match kind.trim_end() {
                "" | "string" => "a long string".into(),
                kind => format!("a long {kind}"),
            },
            // A variant of an enum is a string, and so is what it is compared with.
            Some(("", value)) => format!("\"{}\"", value.trim_end_matches('`')),
            Some(("string ", value)) => format!("\"{value}"),
            Some((_, value)) => value.trim_end_matches('`').to_owned(),
            None => found.to_owned(),
        },
    }
}

/// Longer values are not said back.
const LONGEST_FINDING: usize = 60;

/// A path as clients write it: `messages[2].content[0].text`; empty for the body itself.
fn shown(path: &Path) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => text += &format!("[{index}]"),
            Segment::Map { key } if text.is_empty() => text = shortened(key),
            Segment::Map { key } => text += &format!(".{}", shortened(key)),
            // Where an enum is read, and where the body ends too early: the parameter is named already.
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    text
}

/// What a client wrote, short enough to be said back and logged.
pub fn shortened(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A JSON value of any form, as it stands; a key that is given twice is refused in it too.
#[derive(Clone, Debug, PartialEq, ToSchema)]
pub struct Any(pub Value);

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyVisitor;

        impl<'de> Visitor<'de> for AnyVisitor {
            type Value = Any;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Any, E> {
                Ok(Any(Value::Null))
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Any, E> {
                Ok(Any(value.into()))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Any, E> {
                Ok(Any(value.into()))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Any, E> {
                Ok(Any(value.into()))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Any, E> {
                Ok(Any(value.into()))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Any, E> {
                Ok(Any(value.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Any, A::Error> {
                let mut list = Vec::new();
                while let Some(Any(value)) = seq.next_element()? {
                    list.push(value);
                }
                Ok(Any(Value::Array(list)))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Any, A::Error> {
                let mut object = Map::new();
                while let Some(key) = map.next_key::<String>()? {
                    if object.contains_key(&key) {
                        return Err(de::Error::custom(format!("has the key {:?} twice", shortened(&key))));
                    }
                    let Any(value) = map.next_value()?;
                    object.insert(key, value);
                }
                Ok(Any(Value::Object(object)))
            }
        }

        deserializer.deserialize_any(AnyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    objects! {
        /// Outer.
        pub struct Outer { a: Option<i64>, t: Option<f32>, flag: Option<bool>, list: Option<Vec<Inner>>, any: Option<Any> }
        /// Inner.
        pub struct Inner { name: String, size: Option<usize> }
    }

    fn refused(body: &str) -> (Option<String>, String) {
        match parse::<Outer>(body.as_bytes()).map(|outer| format!("{outer:?}")).unwrap_err() {
            ApiError::Parameter { param, message } => (Some(param), message),
            other => (None, other.to_string()),
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_full_path() {
        for (body, param, message) in [
            (r#"{"b": 1}"#, "b", "unknown parameter 'b'"),
            (r#"{"list": [{"name": "x"}, {"nome": 1}]}"#, "list[1].nome", "unknown parameter 'list[1].nome'"),
            (r#"{"list": [{"size": 1}]}"#, "list[0].name", "'list[0].name' is missing"),
            (r#"{"list": [{"name": null}]}"#, "list[0].name", "'list[0].name' is missing: expected a string"),
            (r#"{"list": [null]}"#, "list[0]", "'list[0]' must be an object, found null"),
            (r#"{"list": [["x", 1]]}"#, "list[0]", "'list[0]' must be an object, found a list"),
            (r#"{"list": {}}"#, "list", "'list' must be a list, found an object"),
            (
                r#"{"list": [{"name": "x", "size": -1}]}"#,
                "list[0].size",
                "'list[0].size' must be an integer of at least 0, found -1",
            ),
            (r#"{"a": 1, "a": 2}"#, "a", "'a' is given twice"),
            (r#"{"a": 0.5}"#, "a", "'a' must be an integer of 64 bits, found 0.5"),
            (r#"{"a": 99999999999999999999}"#, "a", "'a' must be an integer of 64 bits, found 1e+20"),
            (r#"{"a": 9999999999999999999}"#, "a", "'a' must be an integer of 64 bits, found 9999999999999999999"),
            (r#"{"t": "hot, expected a pot"}"#, "t", r#"'t' must be a number, found "hot, expected a pot""#),
            (r#"{"flag": 1}"#, "flag", "'flag' must be true or false, found 1"),
            (r#"{"any": {"x": [{"y": 1, "y": 2}]}}"#, "any.x[0]", r#"'any.x[0]' has the key "y" twice"#),
        ] {
            assert_eq!(refused(body), (Some(param.to_owned()), message.to_owned()), "{body}");
        }
        let long = format!(r#"{{"t": "{}", "{}": 1}}"#, "x".repeat(9000), "y".repeat(9000));
        assert_eq!(refused(&long).1, "'t' must be a number, found a long string");
        let long = format!(r#"{{"{}": 1}}"#, "ä".repeat(9000));
        assert_eq!(refused(&long).1, format!("unknown parameter '{}…'", "ä".repeat(80)));
    }

    #[test]
    fn what_is_no_object_or_no_json_is_said_to_be_so() {
        for (body, message) in [
            ("", "EOF"),
            ("[]", "the body must be an object in JSON, found a list"),
            ("7", "the body must be an object in JSON, found 7"),
            (r#"{"a": 1} {"#, "trailing characters"),
            (r#"{"t": NaN}"#, "expected value"),
            (r#"{"t": 1e999}"#, "number out of range"),
            (r#"{"any": [1e999]}"#, "number out of range"),
            (r#"{"t": -Infinity}"#, "invalid number"),
        ] {
            let (param, found) = refused(body);
            assert!(param.is_none() && found.contains(message) && found.contains("JSON"), "{body}: {found}");
        }
        assert!(refused(&format!("{{\"any\": {}", "[".repeat(3000))).1.contains("recursion limit"));
    }

    #[test]
    fn null_is_absent_and_any_value_is_kept_as_it_stands() {
        let read: Outer =
            parse(br#"{"a": null, "t": 3, "list": [], "any": {"k": [1, -2, 0.5, "s", true, null]}}"#).unwrap();
        assert_eq!((read.a, read.t, read.flag, read.list.map(|l| l.len())), (None, Some(3.0), None, Some(0)));
        assert_eq!(read.any.unwrap().0, serde_json::json!({"k": [1, -2, 0.5, "s", true, null]}));
        let inner: Inner = parse(br#"{"name": "x"}"#).unwrap();
        assert_eq!((&inner.name[..], inner.size), ("x", None));
    }
}
