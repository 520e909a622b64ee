//! `tools`, `tool_choice` and `parallel_tool_calls`: what the model may call, and the calls in its answer.

use std::borrow::Cow;
use std::collections::HashSet;

use safelmm_model::{Grammar, TokenizerError, Tool, ToolFormat, ToolParser, ToolPiece};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::constraints::{check_name, refusal};
use super::error::ApiError;
use super::request::{self, Function, FunctionName, NamedTool, ToolChoice, ToolMode};
use super::screener::Screener;
use crate::app::App;

/// The most functions of one request.
const MAX_TOOLS: usize = 128;

/// The functions that the model may call in an answer.
#[derive(Clone, Debug)]
pub struct Calling {
    /// Those that the template shows; the one that was asked for by name, where one was.
    pub tools: Vec<Tool>,
    format: ToolFormat,
    required: bool,
    parallel: bool,
}

/// Reads what the model may call; none where it may call nothing.
///
/// # Errors
/// A model that calls no functions, a definition or a choice that is wrong, a policy's refusal.
pub fn calling(
    tools: Vec<request::Tool>,
    choice: Option<ToolChoice>,
    parallel: Option<bool>,
    app: &App,
    screener: &Screener,
) -> Result<Option<Calling>, ApiError> {
    let choice = choice.unwrap_or(ToolChoice::Mode(ToolMode::Auto));
    if tools.is_empty() {
        return match choice {
            ToolChoice::Mode(ToolMode::Auto | ToolMode::None) if parallel.is_some() => {
                let message = "'parallel_tool_calls' is given, but 'tools' names no function";
                Err(ApiError::parameter("parallel_tool_calls", message))
            }
            ToolChoice::Mode(ToolMode::Auto | ToolMode::None) => Ok(None),
            _ => {
                Err(ApiError::parameter("tool_choice", "'tool_choice' asks for a call, but 'tools' names no function"))
            }
        };
    }
    let required = !matches!(choice, ToolChoice::Mode(ToolMode::Auto));
    let mut tools = check_tools(tools, required, screener)?;
    if let ToolChoice::Mode(ToolMode::None) = choice {
        return Ok(None);
    }
    let tokenizer = &app.checkpoint().tokenizer;
    if !tokenizer.takes_tools() {
        return Err(ApiError::Tokenizer { source: TokenizerError::NoTools, param: "tools" });
    }
    let format = tokenizer.tool_format().ok_or_else(|| {
        let message = "'tools' is not supported: this model writes calls in a form that the server does not read";
        ApiError::parameter("tools", message)
    })?;
    if let ToolChoice::Named(NamedTool { kind: _, function: FunctionName { name } }) = choice {
        tools.retain(|tool| tool.name() == name);
        if tools.is_empty() {
            let name = super::json::shortened(&name);
            let message = format!("'tool_choice.function.name' is {name:?}, which 'tools' does not have");
            return Err(ApiError::parameter("tool_choice.function.name", message));
        }
    }
    Ok(Some(Calling { tools, format, required, parallel: parallel.unwrap_or(true) }))
}

fn check_tools(tools: Vec<request::Tool>, required: bool, screener: &Screener) -> Result<Vec<Tool>, ApiError> {
    if tools.len() > MAX_TOOLS {
        let message = format!("'tools' has {} functions: at most {MAX_TOOLS} are possible", tools.len());
        return Err(ApiError::parameter("tools", message));
    }
    let mut names = HashSet::new();
    tools
        .into_iter()
        .enumerate()
        .map(|(index, request::Tool { kind: _, function })| {
            let path = |field: &str| format!("tools[{index}].function.{field}");
            let Function { name, description, parameters, strict } = function;
            check_name(&path("name"), &name)?;
            if strict == Some(true) && !required {
                let path = path("strict");
                let message = format!(
                    "'{path}' cannot be honoured where the model is free to call: set 'tool_choice' to \"required\" or \
                     name a function, or leave 'strict' out"
                );
                return Err(ApiError::parameter(path, message));
            }
            if !names.insert(name.clone()) {
                let message = format!("'{}' is {name:?} a second time", path("name"));
                return Err(ApiError::parameter(path("name"), message));
            }
            let mut definition = json!({"type": "function", "function": {"name": name}});
            if let Some(mut description) = description {
                screener.screened(&mut description, "tools")?;
                definition["function"]["description"] = description.into();
            }
            if let Some(parameters) = parameters {
                definition["function"]["parameters"] =
                    screened_parameters(parameters.0, &path("parameters"), screener)?;
            }
            Tool::from_json(definition).map_err(|error| {
                let path = format!("tools[{index}].{}", error.field);
                ApiError::parameter(&path, format!("'{path}' must be {}", error.expected))
            })
        })
        .collect()
}

/// Parameters as a policy leaves them: its text must still be JSON.
fn screened_parameters(parameters: Value, path: &str, screener: &Screener) -> Result<Value, ApiError> {
    let text = parameters.to_string();
    match screener.screen(&text, "tools")? {
        Cow::Borrowed(_) => Ok(parameters),
        Cow::Owned(other) => serde_json::from_str(&other).map_err(|_| {
            let message = format!("'{path}' holds what a policy takes out, and would be no JSON without it: change it");
            ApiError::parameter(path, message)
        }),
    }
}

impl Calling {
    /// The grammar of an answer that must call; none where the model is free.
    ///
    /// # Errors
    /// Parameters that cannot be honoured.
    pub fn grammar(&self, app: &App) -> Result<Option<Grammar>, ApiError> {
        if !self.required {
            return Ok(None);
        }
        let grammar = app.grammars().and_then(|grammars| grammars.tool_calls(self.format, &self.tools, self.parallel));
        grammar.map(Some).map_err(|error| refusal("tools", &error))
    }

    /// What finds the calls in one answer.
    pub fn reader(&self) -> CallReader {
        let parser = ToolParser::new(self.format, &self.tools);
        CallReader { parser: Some(parser), format: self.format, parallel: self.parallel, calls: 0 }
    }
}

/// A call in an answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Call {
    /// Its place among the calls of the answer; in chunks alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    /// By which the function's result refers to it.
    id: String,
    /// What is called.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Which function, and with what.
    function: Called,
}

impl Call {
    /// The call as a whole answer has it.
    pub fn whole(self) -> Self {
        Call { index: None, ..self }
    }
}

/// A function and its arguments.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Called {
    name: String,
    /// A JSON object, as text.
    arguments: String,
}

/// Finds the calls in one answer.
pub struct CallReader {
    parser: Option<ToolParser>,
    format: ToolFormat,
    parallel: bool,
    calls: usize,
}

impl CallReader {
    /// Takes the next part of the answer; returns the text and the calls that are certain.
    pub fn push(&mut self, text: &str) -> (String, Vec<Call>) {
        let pieces = self.parser.as_mut().map(|parser| parser.push(text)).unwrap_or_default();
        self.sort(pieces)
    }

    /// Ends the answer; returns what was held back.
    pub fn finish(&mut self) -> (String, Vec<Call>) {
        let pieces = self.parser.take().map(ToolParser::finish).unwrap_or_default();
        self.sort(pieces)
    }

    /// Whether the answer has called.
    pub fn has_call(&self) -> bool {
        self.calls > 0
    }

    fn sort(&mut self, pieces: Vec<ToolPiece>) -> (String, Vec<Call>) {
        let (mut text, mut calls) = (String::new(), Vec::new());
        for piece in pieces {
            match piece {
                ToolPiece::Text(more) => text += &more,
                // More than one call was not wanted.
                ToolPiece::Call { .. } if self.calls > 0 && !self.parallel => {}
                ToolPiece::Call { name, arguments } => {
                    let function = Called { name, arguments };
                    let id = call_id(self.format);
                    calls.push(Call { index: Some(self.calls), id, kind: "function", function });
                    self.calls += 1;
                }
            }
        }
        (text, calls)
    }
}

/// A new id. Published Mistral templates take nine letters and digits and nothing else.
fn call_id(format: ToolFormat) -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    match format {
        ToolFormat::Mistral => id[..9].to_owned(),
        _ => format!("call_{}", &id[..24]),
    }
}
