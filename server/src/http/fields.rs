//! Reading a JSON body: every field is taken by name, and what is left at the end is an unknown parameter.
//!
//! This is how "honoured or refused, never ignored" is kept: a field that no code takes is refused by [`Fields::finish`].

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::error::ApiError;
use crate::app::App;

/// The fields of one JSON object that have not been taken yet. `null` is the same as absent.
#[derive(Debug, Default)]
pub struct Fields {
    /// The path of the object with a dot behind it, or nothing for the body itself.
    prefix: String,
    map: Map<String, Value>,
}

impl Fields {
    /// The fields of an object found at `path` (empty for the body itself).
    pub fn new(path: &str, map: Map<String, Value>) -> Self {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}.") };
        Fields { prefix, map }
    }

    /// The full path of a field, as errors name it.
    pub fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Takes a field of any type.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// Takes `true` or `false`.
    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        self.typed(name, "true or false", |value| value.as_bool())
    }

    /// Takes a text.
    pub fn string(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        self.typed(name, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// Takes a number that f32 can hold.
    pub fn number(&mut self, name: &str) -> Result<Option<f32>, ApiError> {
        self.typed(name, "a number", finite)
    }

    /// Takes an integer of 64 bits.
    pub fn integer(&mut self, name: &str) -> Result<Option<i64>, ApiError> {
        self.typed(name, "an integer", Value::as_i64)
    }

    /// Takes an integer that is at least `lowest`.
    pub fn count(&mut self, name: &str, lowest: usize) -> Result<Option<usize>, ApiError> {
        let expected = format!("an integer of at least {lowest}");
        let read = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n >= lowest);
        self.typed(name, &expected, read)
    }

    /// Takes an object.
    pub fn object(&mut self, name: &str) -> Result<Option<Fields>, ApiError> {
        let path = self.path(name);
        let map = self.typed(name, "an object", |value| value.as_object().cloned())?;
        Ok(map.map(|map| Fields::new(&path, map)))
    }

    /// Takes a list.
    pub fn list(&mut self, name: &str) -> Result<Option<Vec<Value>>, ApiError> {
        self.typed(name, "a list", |value| value.as_array().cloned())
    }

    /// Refuses a known field that this server cannot honour, unless it is absent or has the value that asks for nothing.
    pub fn refuse(&mut self, name: &str, neutral: &Value, why: &str) -> Result<(), ApiError> {
        match self.take(name) {
            Some(value) if value != *neutral => {
                let path = self.path(name);
                Err(ApiError::parameter(path.clone(), format!("'{path}' is not supported: {why}")))
            }
            _ => Ok(()),
        }
    }

    /// An error about one of these fields.
    pub fn error(&self, name: &str, message: impl AsRef<str>) -> ApiError {
        let path = self.path(name);
        ApiError::parameter(path.clone(), format!("'{path}' {}", message.as_ref()))
    }

    /// Refuses what was not taken.
    pub fn finish(self) -> Result<(), ApiError> {
        match self.map.keys().next() {
            Some(name) => {
                let path = self.path(&shortened(name));
                Err(ApiError::parameter(path.clone(), format!("unknown parameter '{path}'")))
            }
            None => Ok(()),
        }
    }

    fn typed<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match read(&value) {
            Some(read) => Ok(Some(read)),
            None => Err(self.error(name, format!("must be {expected}, found {}", describe(&value)))),
        }
    }
}

/// A JSON number as f32; `None` for other types and for numbers beyond f32.
pub fn finite(value: &Value) -> Option<f32> {
    #[allow(clippy::cast_possible_truncation)] // rounding to f32 is what is meant; overflow is filtered
    value.as_f64().map(|number| number as f32).filter(|number| number.is_finite())
}

/// A value as an error message names it: small ones as they are, others by their type.
pub fn describe(value: &Value) -> String {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) if text.len() <= 40 => format!("{text:?}"),
        Value::String(_) => "a string".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}

/// What a client wrote, short enough to be said back and logged.
pub fn shortened(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The extractor: the body as a JSON object, whatever content type the client names.
impl FromRequest<App> for Fields {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, app).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::BodyTooLarge { limit: app.server_config().max_body_bytes },
            _ => ApiError::BodyUnreadable,
        })?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(map)) => Ok(Fields::new("", map)),
            Ok(other) => Err(ApiError::NotJson(format!("the body must be a JSON object, found {}", describe(&other)))),
            Err(error) => Err(ApiError::NotJson(format!("the body is not valid JSON: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::new("", value.as_object().unwrap().clone())
    }

    #[test]
    fn what_is_not_taken_is_refused_with_its_full_path() {
        let mut body = fields(json!({"a": 1, "inner": {"b": true, "c": null, "d": 2}}));
        assert_eq!(body.integer("a").unwrap(), Some(1));
        let mut inner = body.object("inner").unwrap().unwrap();
        assert_eq!((inner.boolean("b").unwrap(), inner.boolean("c").unwrap()), (Some(true), None));
        assert_eq!(inner.finish().unwrap_err().to_string(), "unknown parameter 'inner.d'");
        assert!(body.finish().is_ok());
    }

    #[test]
    fn wrong_types_are_named_with_what_was_expected() {
        assert_eq!(shortened(&"ä".repeat(90)).chars().count(), 81);
        let mut body = fields(json!({"t": "hot", "n": 0, "big": 1e300, "half": 0.5}));
        let message = |error: ApiError| error.to_string();
        assert_eq!(message(body.number("t").unwrap_err()), "'t' must be a number, found \"hot\"");
        assert_eq!(message(body.count("n", 1).unwrap_err()), "'n' must be an integer of at least 1, found 0");
        assert!(message(body.number("big").unwrap_err()).starts_with("'big' must be a number, found 1e"));
        assert_eq!(message(body.integer("half").unwrap_err()), "'half' must be an integer, found 0.5");
    }
}
