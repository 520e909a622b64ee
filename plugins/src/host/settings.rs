//! Settings of a policy, held against its own schema.

use std::fmt;

use serde_json::Value;

/// One thing that is wrong with settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: a JSON pointer (RFC 6901); empty for the whole.
    pub pointer: String,
    /// What.
    pub message: String,
}

/// All that is wrong with the settings of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError(pub Vec<Problem>);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Problem { pointer, message }) in self.0.iter().enumerate() {
            let place = if pointer.is_empty() { "the whole" } else { pointer };
            write!(f, "{}{place}: {message}", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingsError {}

/// The most problems that are told of.
const MAX_PROBLEMS: usize = 20;

/// The schema of a policy's settings.
pub(crate) struct Schema(jsonschema::Validator);

impl Schema {
    /// Reads a schema (draft 2020-12). Nothing that it refers to elsewhere is fetched.
    pub fn new(text: &str) -> Result<Schema, String> {
        let schema: Value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
        let validator = jsonschema::draft202012::options().build(&schema).map_err(|error| error.to_string())?;
        Ok(Schema(validator))
    }

    /// Holds settings against it.
    pub fn check(&self, settings: &Value) -> Result<(), SettingsError> {
        let problems: Vec<Problem> = self
            .0
            .iter_errors(settings)
            .take(MAX_PROBLEMS)
            .map(|error| Problem { pointer: error.instance_path().to_string(), message: error.to_string() })
            .collect();
        if problems.is_empty() { Ok(()) } else { Err(SettingsError(problems)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_problem_is_named_by_its_pointer() {
        let schema = Schema::new(
            r#"{"type": "object", "additionalProperties": false,
                "properties": {"patterns": {"type": "array", "items": {"type": "string"}}, "n": {"minimum": 1}}}"#,
        )
        .unwrap();
        assert_eq!(schema.check(&json!({"patterns": ["a"], "n": 1})), Ok(()));
        let wrong = schema.check(&json!({"patterns": ["a", 3], "n": 0})).unwrap_err();
        let mut pointers: Vec<&str> = wrong.0.iter().map(|problem| &problem.pointer[..]).collect();
        pointers.sort_unstable();
        assert_eq!(pointers, ["/n", "/patterns/1"]);
        assert!(wrong.to_string().contains("/patterns/1: "), "{wrong}");
        assert!(schema.check(&json!({"other": 1})).unwrap_err().to_string().contains("other"));
        assert!(Schema::new("{").is_err() && Schema::new(r#"{"type": "nothing"}"#).is_err());
        assert!(Schema::new(r#"{"$ref": "file:///etc/passwd"}"#).is_err(), "nothing is fetched");
    }
}
