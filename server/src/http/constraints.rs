//! `response_format`: what makes an answer have a form.

use safelmm_model::{Grammar, GrammarError};
use serde_json::Value;

use super::error::ApiError;
use super::request::{FormatKind, JsonSchema, ResponseFormat};
use crate::app::App;

const SCHEMA: &str = "response_format.json_schema.schema";

/// The grammar that an answer of this form follows; none for free text.
///
/// # Errors
/// A schema that is missing, out of place or cannot be honoured.
pub fn grammar(format: Option<ResponseFormat>, app: &App) -> Result<Option<Grammar>, ApiError> {
    let Some(ResponseFormat { kind, json_schema }) = format else { return Ok(None) };
    let misplaced = |message: &str| {
        Err(ApiError::parameter("response_format.json_schema", format!("'response_format.json_schema' {message}")))
    };
    match (kind, json_schema) {
        (FormatKind::Text, None) => Ok(None),
        (FormatKind::JsonObject, None) => {
            app.grammars().and_then(|grammars| grammars.json_object()).map(Some).map_err(|e| refusal(SCHEMA, &e))
        }
        (FormatKind::JsonSchema, Some(schema)) => {
            // Neither the description nor `strict` changes anything: the answer follows the schema in any case.
            let JsonSchema { name, description: _, schema, strict: _ } = schema;
            check_name("response_format.json_schema.name", &name)?;
            let schema = schema.map_or_else(|| Value::Object(serde_json::Map::new()), |schema| schema.0);
            app.grammars()
                .and_then(|grammars| grammars.json_schema(&schema))
                .map(Some)
                .map_err(|error| refusal(SCHEMA, &error))
        }
        (FormatKind::JsonSchema, None) => misplaced("is missing: expected an object with a name and a schema"),
        (_, Some(_)) => misplaced("belongs to the type \"json_schema\""),
    }
}

/// The error for a grammar that cannot be had. `param` holds the schema.
pub fn refusal(param: &str, error: &GrammarError) -> ApiError {
    let param = match error {
        GrammarError::Tokenizer(_) => param.split('.').next().unwrap_or(param),
        _ => param,
    };
    ApiError::parameter(param, format!("'{param}': {error}"))
}

/// Checks the name of a schema.
pub fn check_name(param: &str, name: &str) -> Result<(), ApiError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if (1..=64).contains(&name.len()) && name.chars().all(allowed) {
        return Ok(());
    }
    let message = format!("'{param}' must be 1 to 64 of the characters a-z, A-Z, 0-9, _ and -");
    Err(ApiError::parameter(param, message))
}
