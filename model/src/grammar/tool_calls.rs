//! Answers that are calls of tools and nothing else.

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use serde_json::Value;

use super::{Grammar, GrammarError, Grammars, schema};
use crate::tokenizer::{Tool, ToolFormat};

/// Calls in one answer.
const MOST_CALLS: usize = 8;

/// Tools of which an answer may choose.
const MOST_TOOLS: usize = 128;

impl Grammars {
    /// An answer that calls one of `tools`, with arguments valid under its schema: `tool_choice: "required"`, or with one
    /// tool alone a named function. With `is_parallel` up to eight calls, where the format has a way to write more than
    /// one; Llama's has none.
    ///
    /// The markers that [`Tokenizer::tool_marker_ids`](crate::Tokenizer::tool_marker_ids) lists must not be banned.
    ///
    /// # Errors
    /// [`GrammarError::Schema`], whose pointer begins at the list of tools: `/0/function/parameters/…`.
    pub fn tool_calls(&self, format: ToolFormat, tools: &[Tool], is_parallel: bool) -> Result<Grammar, GrammarError> {
        let refused = |reason: String| GrammarError::Schema { at: String::new(), reason };
        if tools.is_empty() || tools.len() > MOST_TOOLS {
            return Err(refused(format!("{} tools: expected 1 to {MOST_TOOLS}", tools.len())));
        }
        let schemas: Vec<Value> = tools.iter().map(Tool::parameters).collect();
        let mut grammars = vec![GrammarWithLexer::from_lark(self.lark(format, tools, is_parallel))];
        for (i, schema) in schemas.iter().enumerate() {
            let schema = schema::prepared(schema).map_err(|e| in_tool(i, e))?;
            let name = Some(format!("arguments{i}"));
            grammars.push(GrammarWithLexer { name, ..GrammarWithLexer::from_json_schema(schema) });
        }
        self.compile(TopLevelGrammar { grammars, max_tokens: None }).map_err(|reason| {
            // All of them were compiled together: which one is refused alone?
            let alone = |(i, schema)| self.json_schema(schema).err().map(|e| in_tool(i, e));
            schemas.iter().enumerate().find_map(alone).unwrap_or_else(|| refused(reason))
        })
    }

    /// The grammar around the arguments. Names of tools need no escapes: they are letters, digits, `_` and `-`.
    fn lark(&self, format: ToolFormat, tools: &[Tool], is_parallel: bool) -> String {
        let (begin, end) = format.markers();
        let (begin, end) = (self.marker(begin), self.marker(end));
        let more = |separator: &str, one: &str| match is_parallel {
            true => format!("(\"{separator}\" {one}){{0,{}}}", MOST_CALLS - 1),
            false => String::new(),
        };
        let start = match format {
            ToolFormat::Hermes => {
                format!("start: one {}\none: {begin} \"\\n\" call \"\\n\" {end}\n", more("\\n", "one"))
            }
            ToolFormat::Llama3Json => "start: call\n".to_owned(),
            ToolFormat::Mistral => format!("start: {begin} \"[\" call {} \"]\"\n", more(", ", "call")),
        };
        let field = format.arguments_field();
        let calls: Vec<String> = (0..tools.len()).map(|i| format!("call{i}")).collect();
        let mut lark = format!("{start}call: {}\n", calls.join(" | "));
        for (i, tool) in tools.iter().enumerate() {
            let name = tool.name();
            let head = format!(r#""{{\"name\": \"{name}\", \"{field}\": ""#);
            lark += &format!("call{i}: {head} @arguments{i} \"}}\"\n");
        }
        lark
    }

    /// A marker as a terminal of the grammar: a control token by its id, else text.
    fn marker(&self, text: &str) -> String {
        match self.control_markers.iter().find(|(marker, _)| marker == text) {
            Some((_, id)) => format!("<[{id}]>"),
            None => format!("\"{text}\""),
        }
    }
}

fn in_tool(position: usize, error: GrammarError) -> GrammarError {
    match error {
        GrammarError::Schema { at, reason } => {
            GrammarError::Schema { at: format!("/{position}/function/parameters{at}"), reason }
        }
        other => other,
    }
}
