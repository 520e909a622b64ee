//! Settings: from JSON, with errors that say where; and their schema.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use crate::SettingError;

/// Reads settings from JSON. An empty text stands for `{}`.
///
/// # Errors
/// The first thing that is not as the type wants it, with its JSON pointer.
pub fn parse<T: DeserializeOwned>(json: &str) -> Result<T, Vec<SettingError>> {
    let json = if json.trim().is_empty() { "{}" } else { json };
    // A list would do for serde: its elements are taken for the fields in their order.
    if !json.trim_start().starts_with('{') {
        return Err(vec![SettingError::new("", "Settings are a JSON object, with the settings by name.")]);
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let settings = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| vec![SettingError::new(pointer(error.path()), error.inner().to_string())])?;
    deserializer.end().map_err(|error| vec![SettingError::new("", error.to_string())])?;
    Ok(settings)
}

/// The JSON Schema (2020-12) of settings.
pub fn schema<T: JsonSchema>() -> String {
    schemars::SchemaGenerator::default().into_root_schema_for::<T>().to_value().to_string()
}

/// RFC 6901, section 3.
fn pointer(path: &serde_path_to_error::Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Segment::Unknown => {}
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, serde::Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        /// Lists of words.
        lists: Vec<List>,
        #[serde(rename = "a/b~c")]
        odd: u8,
    }

    #[derive(Debug, serde::Deserialize, JsonSchema)]
    struct List {
        #[expect(dead_code, reason = "read by serde alone")]
        words: Vec<String>,
    }

    fn wrong(json: &str) -> (String, String) {
        let mut errors = parse::<Settings>(json).unwrap_err();
        assert_eq!(errors.len(), 1);
        let SettingError { pointer, message } = errors.remove(0);
        (pointer, message)
    }

    #[test]
    fn errors_point_at_what_is_wrong() {
        let (pointer, message) = wrong(r#"{"lists": [{"words": ["a"]}, {"words": ["b", 7]}]}"#);
        assert_eq!(pointer, "/lists/1/words/1");
        assert!(message.contains("expected a string"), "{message}");
        assert_eq!(wrong(r#"{"a/b~c": 256}"#).0, "/a~1b~0c");
        assert_eq!(wrong(r#"{"lists": [{}]}"#).0, "/lists/0");
        assert!(wrong(r#"{"lits": []}"#).1.contains("unknown field `lits`"));
        assert_eq!(wrong("{} {}").0, "");
        for list in ["[", "[[]]", "null", "7", "{"] {
            assert_eq!(wrong(list).0, "", "{list}");
        }
    }

    #[test]
    fn missing_settings_are_the_defaults() {
        for json in ["", " ", "{}"] {
            let settings: Settings = parse(json).unwrap();
            assert!(settings.lists.is_empty() && settings.odd == 0);
        }
    }

    #[test]
    fn a_schema_names_its_dialect_and_what_is_documented() {
        let schema = schema::<Settings>();
        assert!(schema.contains("https://json-schema.org/draft/2020-12/schema"), "{schema}");
        assert!(schema.contains("Lists of words."), "{schema}");
        assert!(schema.contains(r#""additionalProperties":false"#), "{schema}");
    }
}
