//! Tools: their definitions, and the calls of them in a generated text.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A function that a model may call, as the API defines it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    name: String,
    definition: Value,
}

/// Characters of a function's name, as in the OpenAI API.
const LONGEST_NAME: usize = 64;

impl Tool {
    /// Reads `{"type": "function", "function": {"name", "description", "parameters", "strict"}}`; a description is text and
    /// `parameters` a JSON schema, which is not looked into here.
    ///
    /// # Errors
    /// A [`ToolError`] names the field and what was expected.
    pub fn from_json(definition: Value) -> Result<Self, ToolError> {
        let wrong = |field: &'static str, expected: &'static str| ToolError { field, expected };
        if definition["type"] != "function" {
            return Err(wrong("type", "\"function\""));
        }
        let Some(function) = definition["function"].as_object() else {
            return Err(wrong("function", "an object"));
        };
        let is_name = |name: &&str| {
            (1..=LONGEST_NAME).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        };
        let Some(name) = function.get("name").and_then(Value::as_str).filter(is_name) else {
            return Err(wrong("function.name", "1 to 64 of the characters a-z, A-Z, 0-9, _ and -"));
        };
        if !function.get("description").is_none_or(|d| d.is_string() || d.is_null()) {
            return Err(wrong("function.description", "a string"));
        }
        if !function.get("parameters").is_none_or(|p| p.is_object() || p.is_null()) {
            return Err(wrong("function.parameters", "a JSON schema, which is an object"));
        }
        Ok(Self { name: name.to_owned(), definition })
    }

    /// The function's name: ASCII letters, digits, `_` and `-`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The definition as it came.
    pub fn definition(&self) -> &Value {
        &self.definition
    }

    /// The JSON schema of the arguments, an object's; no arguments where the definition has none.
    pub fn parameters(&self) -> Value {
        let mut schema = match &self.definition["function"]["parameters"] {
            Value::Object(fields) => fields.clone(),
            _ => Map::from_iter([("additionalProperties".to_owned(), Value::Bool(false))]),
        };
        schema.entry("type").or_insert_with(|| "object".into());
        Value::Object(schema)
    }
}

/// Why a definition is no tool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{field}' of the tool is missing or wrong: expected {expected}")]
pub struct ToolError {
    /// The field, with dots between its parts.
    pub field: &'static str,
    /// What was expected.
    pub expected: &'static str,
}

/// A call of a tool, as messages carry it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// By which the tool's answer refers to the call. Published Mistral templates want nine ASCII letters and digits.
    pub id: String,
    /// The function's name.
    pub name: String,
    /// The arguments: a JSON object as text.
    pub arguments: String,
}

/// How a model writes a call, which its chat template teaches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ToolFormat {
    /// `<tool_call>⏎{"name": …, "arguments": …}⏎</tool_call>`, any number of them (Hermes, Qwen2.5, Qwen3).
    Hermes,
    /// `{"name": …, "parameters": …}` as the whole answer (Llama 3.1 to 3.3).
    Llama3Json,
    /// `[TOOL_CALLS][{"name": …, "arguments": …}, …]` (Mistral up to version 3 of its tokenizers).
    Mistral,
}

impl ToolFormat {
    /// The format that a chat template's source shows; `None` for others than these.
    pub fn of_template(source: &str) -> Option<Self> {
        let has = |part: &str| source.contains(part);
        if has("[ARGS]") || has("<function=") || has("<arg_key>") {
            None // newer formats in the same markers: Mistral's version 11, Qwen3-Coder, GLM-4.5
        } else if has("[TOOL_CALLS]") {
            Some(Self::Mistral)
        } else if has("<tool_call>") {
            Some(Self::Hermes)
        } else if has("\"parameters\"") && (has("ipython") || has("<|python_tag|>")) {
            Some(Self::Llama3Json)
        } else {
            None
        }
    }

    /// What stands before a call, and behind it.
    pub(crate) fn markers(self) -> (&'static str, &'static str) {
        match self {
            Self::Hermes => ("<tool_call>", "</tool_call>"),
            Self::Llama3Json => ("", ""),
            Self::Mistral => ("[TOOL_CALLS]", ""),
        }
    }

    /// The field of a call that holds the arguments.
    pub(crate) fn arguments_field(self) -> &'static str {
        match self {
            Self::Llama3Json => "parameters",
            Self::Hermes | Self::Mistral => "arguments",
        }
    }
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolPiece {
    /// Text for the reader, never empty.
    Text(String),
    /// A call of a known tool, complete.
    Call {
        /// The function's name.
        name: String,
        /// The arguments: a JSON object as text, not checked against the tool's schema.
        arguments: String,
    },
}

/// Finds the calls in a generated text while it is generated. Text that may turn out to begin a call is held back, and
/// whitespace that may turn out to stand beside one, where it is dropped. What looks like a call but is none (JSON that
/// does not parse, an unknown function) is text. However the text is cut, the pieces are the same, put together.
#[derive(Clone, Debug)]
pub struct ToolParser {
    format: ToolFormat,
    names: Vec<String>,
    /// What is not decided yet.
    held: String,
    /// How far `held` has been searched for the end of a call's JSON.
    scan: JsonScan,
    state: State,
    /// Whether any text, or a call, has been given out, and whether the last was a call. Whitespace does not count.
    has_text: bool,
    has_call: bool,
    follows_call: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Text, in which a call may begin.
    Text,
    /// `held` begins with a call's marker, or for [`ToolFormat::Llama3Json`] with `{`.
    Call,
    /// Behind a call, whose end marker may follow.
    Ended,
}

impl ToolParser {
    /// A parser for one answer; only `tools` can be called.
    pub fn new(format: ToolFormat, tools: &[Tool]) -> Self {
        Self {
            format,
            names: tools.iter().map(|tool| tool.name.clone()).collect(),
            held: String::new(),
            scan: JsonScan::default(),
            state: State::Text,
            has_text: false,
            has_call: false,
            follows_call: false,
        }
    }

    /// Takes the next part of the text and returns what is certain.
    pub fn push(&mut self, text: &str) -> Vec<ToolPiece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        while self.advance(&mut pieces, false) {}
        pieces
    }

    /// Ends the text and returns what was held back.
    pub fn finish(mut self) -> Vec<ToolPiece> {
        let mut pieces = Vec::new();
        while self.advance(&mut pieces, true) {}
        pieces
    }

    /// Whether a call has been found so far: the answer's finish reason is then `tool_calls`.
    pub fn has_call(&self) -> bool {
        self.has_call
    }

    /// Decides one thing about `held`; false where more text is needed.
    fn advance(&mut self, pieces: &mut Vec<ToolPiece>, is_end: bool) -> bool {
        match self.state {
            State::Text => self.advance_text(pieces, is_end),
            State::Call => self.advance_call(pieces, is_end),
            State::Ended => {
                let rest = self.held.trim_start();
                let (_, end) = self.format.markers();
                let separator = if self.format == ToolFormat::Llama3Json { ";" } else { end };
                if !separator.is_empty() && rest.starts_with(separator) {
                    self.held = rest[separator.len()..].to_owned();
                } else if !is_end && separator.starts_with(rest) {
                    return false;
                }
                self.state = State::Text;
                true
            }
        }
    }

    fn advance_text(&mut self, pieces: &mut Vec<ToolPiece>, is_end: bool) -> bool {
        let (begin, _) = self.format.markers();
        let found = match self.format {
            ToolFormat::Llama3Json => {
                let at = self.held.len() - self.held.trim_start().len();
                (!self.has_text && self.held[at..].starts_with('{')).then_some(at)
            }
            ToolFormat::Hermes | ToolFormat::Mistral => self.held.find(begin),
        };
        if let Some(at) = found {
            let call = self.held.split_off(at);
            let before = std::mem::replace(&mut self.held, call);
            // Whitespace before the call is part of the call until it is known to be one.
            let text = before.trim_end();
            self.held.insert_str(0, &before[text.len()..]);
            self.give_text(pieces, text);
            self.scan = JsonScan::at(before.len() - text.len() + begin.len());
            self.state = State::Call;
            return true;
        }
        // Whitespace at the end, and behind it the beginning of a marker.
        let cut = (0..begin.len()).rev().find(|&n| self.held.ends_with(&begin[..n])).unwrap_or_default();
        let certain = if is_end { &self.held } else { self.held[..self.held.len() - cut].trim_end() };
        let rest = self.held[certain.len()..].to_owned();
        let text = std::mem::replace(&mut self.held, rest);
        let text = &text[..text.len() - self.held.len()];
        if !(is_end && self.follows_call && text.trim().is_empty()) {
            self.give_text(pieces, text);
        }
        false
    }

    fn advance_call(&mut self, pieces: &mut Vec<ToolPiece>, is_end: bool) -> bool {
        let calls = match self.scan.run(&self.held, self.format == ToolFormat::Mistral) {
            Scanned::More if !is_end => return false,
            Scanned::End { from, to } => self.calls(&self.held[from..to]).map(|calls| (calls, to)),
            Scanned::More | Scanned::NotJson => None,
        };
        match calls {
            Some((calls, to)) => {
                (self.has_call, self.follows_call) = (true, true);
                pieces.extend(calls);
                self.held.drain(..to);
                self.state = State::Ended;
            }
            None => {
                // No call. Behind the marker everything is open again; without a marker the rest is text.
                let space = self.held.len() - self.held.trim_start().len();
                let (begin, _) = self.format.markers();
                let rest = self.held.split_off(space + begin.len().max(1));
                let text = std::mem::replace(&mut self.held, rest);
                self.give_text(pieces, &text);
                self.state = State::Text;
            }
        }
        true
    }

    /// The calls that a JSON text makes; `None` if it is anything else.
    fn calls(&self, json: &str) -> Option<Vec<ToolPiece>> {
        let calls = match serde_json::from_str(json).ok()? {
            Value::Array(calls) if self.format == ToolFormat::Mistral => calls,
            call => vec![call],
        };
        let calls: Option<Vec<ToolPiece>> = calls.into_iter().map(|call| self.call(call)).collect();
        calls.filter(|calls| !calls.is_empty())
    }

    fn call(&self, mut call: Value) -> Option<ToolPiece> {
        let name = call.get("name")?.as_str()?.to_owned();
        if !self.names.contains(&name) {
            return None;
        }
        let arguments = match call.get_mut(self.format.arguments_field()).map(Value::take) {
            None | Some(Value::Null) => Value::Object(Map::new()),
            Some(Value::String(text)) => serde_json::from_str(&text).ok()?,
            Some(other) => other,
        };
        arguments.is_object().then(|| ToolPiece::Call { name, arguments: arguments.to_string() })
    }

    fn give_text(&mut self, pieces: &mut Vec<ToolPiece>, text: &str) {
        if text.is_empty() {
            return;
        }
        if !text.trim().is_empty() {
            (self.has_text, self.follows_call) = (true, false);
        }
        match pieces.last_mut() {
            Some(ToolPiece::Text(last)) => last.push_str(text),
            _ => pieces.push(ToolPiece::Text(text.to_owned())),
        }
    }
}

/// The search for the end of a JSON object or array, which reads each byte once.
#[derive(Clone, Copy, Debug, Default)]
struct JsonScan {
    at: usize,
    from: Option<usize>,
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

enum Scanned {
    /// The text ends before the JSON does.
    More,
    NotJson,
    /// The bytes that may be JSON: their brackets are even.
    End {
        from: usize,
        to: usize,
    },
}

impl JsonScan {
    fn at(at: usize) -> Self {
        Self { at, ..Self::default() }
    }

    fn run(&mut self, text: &str, may_be_array: bool) -> Scanned {
        while let Some(&byte) = text.as_bytes().get(self.at) {
            self.at += 1;
            let Some(from) = self.from else {
                match byte {
                    b'{' => (self.from, self.depth) = (Some(self.at - 1), 1),
                    b'[' if may_be_array => (self.from, self.depth) = (Some(self.at - 1), 1),
                    b' ' | b'\n' | b'\r' | b'\t' => {}
                    _ => return Scanned::NotJson,
                }
                continue;
            };
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.in_string => self.is_escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Scanned::End { from, to: self.at };
                    }
                }
                _ => {}
            }
        }
        Scanned::More
    }
}
