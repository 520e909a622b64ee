//! A client's JSON schema, before and after `llguidance` has looked at it.

use std::io;

use llguidance::api::StopReason;
use llguidance::{GrammarBuilder, JsonCompileOptions};
use serde_json::{Map, Value, json};

use super::{GrammarError, LIMITS, guarded};

/// Bytes of a schema as compact JSON.
const LONGEST_SCHEMA: usize = 128 * 1024;

/// Entries of one object of a schema: compiling takes time that grows with the square of an object's properties.
const MOST_FIELDS: usize = 256;

/// Schemas, arrays and objects inside each other.
const DEEPEST_SCHEMA: usize = 64;

/// Parts of a refused schema that are tried alone to find the one at fault.
const SUSPECTS: usize = 48;

/// Characters of a reason: what the client wrote may be quoted in it.
const LONGEST_REASON: usize = 400;

/// The field by which `llguidance` takes its options from the schema itself.
const OPTIONS: &str = "x-guidance";

/// The schema with our options in place of any that it carries.
pub(super) fn prepared(schema: &Value) -> Result<Value, GrammarError> {
    let refused = |reason: String| Err(GrammarError::Schema { at: String::new(), reason });
    // First of all: what follows copies the schema.
    if serde_json::to_writer(Room(LONGEST_SCHEMA), schema).is_err() {
        return refused(format!("it has more than {LONGEST_SCHEMA} bytes"));
    }
    if let Some(excess) = excess(schema, DEEPEST_SCHEMA) {
        return refused(excess);
    }
    let mut fields = match schema {
        Value::Object(fields) => fields.clone(),
        Value::Bool(true) => Map::new(),
        Value::Bool(false) => return refused("it is false, under which nothing is valid".into()),
        _ => return refused("expected an object".into()),
    };
    fields.insert(OPTIONS.into(), options());
    Ok(Value::Object(fields))
}

/// Separators are regular expressions.
fn options() -> Value {
    json!({"item_separator": ", ?", "key_separator": ": ?", "whitespace_flexible": false})
}

/// A writer that keeps nothing and fails when so many bytes are written.
struct Room(usize);

impl io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What of the schema is nested deeper than `levels`, or wider than allowed.
fn excess(value: &Value, levels: usize) -> Option<String> {
    let Some(levels) = levels.checked_sub(1) else {
        return Some(format!("it is nested deeper than {DEEPEST_SCHEMA} levels"));
    };
    match value {
        Value::Array(items) => items.iter().find_map(|item| excess(item, levels)),
        Value::Object(fields) if fields.len() > MOST_FIELDS => {
            Some(format!("an object in it has {} entries: expected at most {MOST_FIELDS}", fields.len()))
        }
        Value::Object(fields) => fields.values().find_map(|field| excess(field, levels)),
        _ => None,
    }
}

/// The error for a schema that was refused for `reason`, at the deepest part that is refused when it stands alone.
pub(super) fn blamed(schema: &Value, reason: String) -> GrammarError {
    let (mut at, mut reason, mut part) = (String::new(), reason, schema);
    let mut left = SUSPECTS;
    'descend: loop {
        for (path, child) in subschemas(part) {
            if left == 0 {
                break 'descend;
            }
            left -= 1;
            if let Err(inner) = checked(child, schema) {
                at += &path;
                (reason, part) = (inner, child);
                continue 'descend;
            }
        }
        break;
    }
    if reason.starts_with("panic") {
        reason = "it cannot be compiled".into();
    } else if reason == StopReason::NoExtensionBias.to_string() {
        reason = "nothing is valid under it".into();
    }
    if let Some((end, _)) = reason.char_indices().nth(LONGEST_REASON) {
        reason.truncate(end);
        reason.push('…');
    }
    GrammarError::Schema { at, reason }
}

/// Whether a part compiles on its own, with the definitions of the whole.
fn checked(part: &Value, whole: &Value) -> Result<(), String> {
    let mut part = part.clone();
    if let Value::Object(fields) = &mut part {
        for name in ["$defs", "definitions", "$schema"] {
            if let Some(definitions) = whole.get(name) {
                fields.entry(name).or_insert_with(|| definitions.clone());
            }
        }
    }
    guarded(|| {
        let options: JsonCompileOptions = serde_json::from_value(options())?;
        let builder = GrammarBuilder::new(None, LIMITS);
        options.json_to_llg(builder, part)?.builder.check_limits()
    })
}

/// The schemas directly inside a schema, with their pointers from it.
fn subschemas(schema: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for (keyword, value) in schema.as_object().into_iter().flatten() {
        match (keyword.as_str(), value) {
            ("items" | "additionalProperties" | "additionalItems", Value::Object(_)) => {
                found.push((format!("/{keyword}"), value));
            }
            ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(fields)) => {
                for (name, field) in fields {
                    let name = name.replace('~', "~0").replace('/', "~1");
                    found.push((format!("/{keyword}/{name}"), field));
                }
            }
            ("anyOf" | "oneOf" | "allOf" | "prefixItems", Value::Array(items)) => {
                found.extend(items.iter().enumerate().map(|(i, item)| (format!("/{keyword}/{i}"), item)));
            }
            _ => {}
        }
    }
    found
}
