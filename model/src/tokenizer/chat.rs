//! Chat templates: Jinja as Hugging Face renders it, with message text that cannot forge control tokens.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::Kwargs;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use serde_json::{Value as Json, json};

use super::TokenizerError;
use super::control::Controls;
use super::tools::{Tool, ToolCall};

/// One message of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who speaks: `"system"`, `"user"`, `"assistant"`, or another role that the template knows.
    pub role: String,
    /// What is said. Empty beside tool calls, it is null for templates that take tools.
    pub content: String,
    /// The speaker's name, for templates that show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The calls that an assistant made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that a message of the role `"tool"` answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

impl ChatMessage {
    /// The message as published templates expect it: calls as in the API, but with their arguments as an object.
    fn to_json(&self, takes_tools: bool) -> Result<Json, TokenizerError> {
        let calls = self.tool_calls.iter().map(|call| {
            let arguments = match call.arguments.trim() {
                "" => Ok(Json::Object(Default::default())),
                text => serde_json::from_str(text),
            };
            match arguments {
                Ok(arguments @ Json::Object(_)) => Ok(json!({"id": call.id, "type": "function",
                    "function": {"name": call.name, "arguments": arguments}})),
                _ => Err(TokenizerError::ToolArguments(call.name.clone())),
            }
        });
        let calls = calls.collect::<Result<Vec<Json>, _>>()?;
        let mut message = json!({"role": self.role, "content": self.content});
        if !calls.is_empty() {
            if takes_tools && self.content.is_empty() {
                message["content"] = Json::Null;
            }
            message["tool_calls"] = calls.into();
        }
        for (field, text) in [("name", &self.name), ("tool_call_id", &self.tool_call_id)] {
            if let Some(text) = text {
                message[field] = text.as_str().into();
            }
        }
        Ok(message)
    }
}

/// The special tokens' texts, which templates may write.
#[derive(Clone, Debug, Default)]
pub(super) struct SpecialTexts {
    pub bos_token: Option<String>,
    pub eos_token: Option<String>,
    pub unk_token: Option<String>,
    pub pad_token: Option<String>,
}

/// Roles of the published templates, which may become part of a control token there: `'<|' + role + '|>'`.
const KNOWN_ROLES: [&str; 7] = ["system", "developer", "user", "assistant", "tool", "function", "ipython"];

/// Words of tools and calls by which templates find their way: never guarded as the name of a field or as its `type`.
const KNOWN_WORDS: [&str; 24] = [
    "role",
    "content",
    "name",
    "tool_calls",
    "tool_call_id",
    "id",
    "type",
    "function",
    "arguments",
    "description",
    "parameters",
    "properties",
    "required",
    "items",
    "enum",
    "default",
    "anyOf",
    "strict",
    "string",
    "number",
    "integer",
    "boolean",
    "object",
    "array",
];

const TEMPLATE: &str = "chat_template";

/// Reads the special tokens and the chat template from `tokenizer_config.json`.
pub(super) fn read_config(json: Option<&[u8]>) -> Result<(SpecialTexts, Option<String>), TokenizerError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum TokenText {
        Plain(String),
        Detailed { content: String },
    }
    #[derive(Deserialize)]
    struct NamedTemplate {
        name: String,
        template: String,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Templates {
        One(String),
        Named(Vec<NamedTemplate>),
    }
    #[derive(Default, Deserialize)]
    struct TokenizerConfig {
        bos_token: Option<TokenText>,
        eos_token: Option<TokenText>,
        unk_token: Option<TokenText>,
        pad_token: Option<TokenText>,
        chat_template: Option<Templates>,
    }
    let config: TokenizerConfig = match json {
        Some(json) => serde_json::from_slice(json).map_err(|e| TokenizerError::Config(e.to_string()))?,
        None => TokenizerConfig::default(),
    };
    let text = |token: Option<TokenText>| {
        token.map(|t| match t {
            TokenText::Plain(content) | TokenText::Detailed { content } => content,
        })
    };
    let texts = SpecialTexts {
        bos_token: text(config.bos_token),
        eos_token: text(config.eos_token),
        unk_token: text(config.unk_token),
        pad_token: text(config.pad_token),
    };
    let template = match config.chat_template {
        None => None,
        Some(Templates::One(template)) => Some(template),
        Some(Templates::Named(templates)) => {
            let names: Vec<&str> = templates.iter().map(|t| t.name.as_str()).collect();
            let names = names.join(", ");
            match templates.into_iter().find(|t| t.name == "default") {
                Some(default) => Some(default.template),
                None if names.is_empty() => None,
                None => {
                    return Err(TokenizerError::ChatTemplate(format!(
                        "tokenizer_config.json names the templates {names}, none of them \"default\""
                    )));
                }
            }
        }
    };
    Ok((texts, template))
}

/// Instructions that rendering may take: thousands of messages, but no template that never ends.
const FUEL: u64 = 10_000_000;

/// A compiled chat template.
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    texts: SpecialTexts,
    takes_tools: bool,
    /// The private-use characters of its source.
    private: HashSet<char>,
}

impl ChatTemplate {
    pub fn new(source: &str, texts: SpecialTexts) -> Result<Self, TokenizerError> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", tojson);
        let private = source.chars().filter(is_private).collect();
        let source = without_generation_tags(source);
        environment.add_template_owned(TEMPLATE, source).map_err(|e| TokenizerError::ChatTemplate(format!("{e:#}")))?;
        let template = environment.get_template(TEMPLATE).map_err(|e| TokenizerError::ChatTemplate(e.to_string()))?;
        let takes_tools = template.undeclared_variables(false).contains("tools");
        Ok(Self { environment, texts, takes_tools, private })
    }

    /// Whether the template looks at `tools`.
    pub fn takes_tools(&self) -> bool {
        self.takes_tools
    }

    /// The rendered text and the guard character that stands in it wherever text of the messages or tools could be taken
    /// for a control token.
    pub fn render(
        &self,
        messages: &[ChatMessage],
        tools: &[Tool],
        add_generation_prompt: bool,
        controls: &Controls,
    ) -> Result<(String, char), TokenizerError> {
        if !tools.is_empty() && !self.takes_tools {
            return Err(TokenizerError::NoTools);
        }
        let messages = messages.iter().map(|m| m.to_json(self.takes_tools)).collect::<Result<Vec<Json>, _>>()?;
        let mut messages = Json::from(messages);
        let mut tools = match tools.is_empty() {
            true => Json::Null,
            false => tools.iter().map(|tool| tool.definition().clone()).collect(),
        };
        let mut unguardable = None;
        let mut private = self.private.clone();
        for json in [&messages, &tools] {
            each_text(json, &mut |text| {
                private.extend(text.chars().filter(is_private));
                unguardable = unguardable.take().or_else(|| controls.unguardable(text).map(str::to_owned));
            });
        }
        if let Some(control) = unguardable {
            return Err(TokenizerError::ControlToken(control));
        }
        private.extend(controls.iter().flat_map(|c| c.text.chars()).filter(is_private));
        let guard = ('\u{E000}'..='\u{F8FF}').find(|c| !private.contains(c)).ok_or(TokenizerError::NoGuard)?;
        // A role is known or not by other words than those of tools.
        for message in messages.as_array_mut().into_iter().flatten() {
            let role = message["role"].take();
            guard_texts(message, controls, guard);
            message["role"] = match role {
                Json::String(role) if !KNOWN_ROLES.contains(&role.as_str()) => controls.guarded(&role, guard).into(),
                known => known,
            };
        }
        guard_texts(&mut tools, controls, guard);
        let named = |text: &Option<String>| text.as_deref().map_or(Value::UNDEFINED, Value::from);
        let variables = context! {
            messages => messages,
            add_generation_prompt => add_generation_prompt,
            bos_token => named(&self.texts.bos_token),
            eos_token => named(&self.texts.eos_token),
            unk_token => named(&self.texts.unk_token),
            pad_token => named(&self.texts.pad_token),
            tools => tools,
            documents => Value::from(()),
        };
        let rendered = self.environment.get_template(TEMPLATE).and_then(|t| t.render(variables));
        let rendered = rendered.map_err(|error| {
            let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
            while let Some(e) = cause {
                if let Some(Refusal(message)) = e.downcast_ref() {
                    // The template may quote a message, guards and all.
                    return TokenizerError::TemplateRefused(message.replace(guard, ""));
                }
                cause = e.source();
            }
            TokenizerError::TemplateFailed(error.to_string().replace(guard, ""))
        })?;
        Ok((rendered, guard))
    }
}

fn is_private(c: &char) -> bool {
    matches!(c, '\u{E000}'..='\u{F8FF}')
}

/// Gives every string in `json` to `see`, names of fields included.
fn each_text(json: &Json, see: &mut impl FnMut(&str)) {
    match json {
        Json::String(text) => see(text),
        Json::Array(items) => items.iter().for_each(|item| each_text(item, see)),
        Json::Object(fields) => {
            for (name, field) in fields {
                see(name);
                each_text(field, see);
            }
        }
        _ => {}
    }
}

/// Guards every string in `json`, names of fields included, but those by which templates find their way.
fn guard_texts(json: &mut Json, controls: &Controls, guard: char) {
    let is_known = |text: &str| KNOWN_WORDS.contains(&text);
    match json {
        Json::String(text) => *text = controls.guarded(text, guard),
        Json::Array(items) => items.iter_mut().for_each(|item| guard_texts(item, controls, guard)),
        Json::Object(fields) => {
            for (name, mut field) in std::mem::take(fields) {
                if !(name == "type" && field.as_str().is_some_and(is_known)) {
                    guard_texts(&mut field, controls, guard);
                }
                fields.insert(if is_known(&name) { name } else { controls.guarded(&name, guard) }, field);
            }
        }
        _ => {}
    }
}

/// What a template gave to `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Refusal(message)))
}

/// Hugging Face marks the assistant's part with `{% generation %}` for training masks; for rendering it is nothing.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(open) = rest.find("{%") {
        let Some(length) = rest[open..].find("%}") else { break };
        let tag = &rest[open..open + length];
        out.push_str(&rest[..open]);
        match tag.trim_start_matches("{%").trim_matches(|c: char| c.is_whitespace() || matches!(c, '-' | '+')) {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = &rest[open + length..];
    }
    out + rest
}

/// `tojson` as Hugging Face has it: Python's separators, non-ASCII kept, nothing escaped for HTML.
fn tojson(value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    if options.get::<Option<bool>>("ensure_ascii")? == Some(true) {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "tojson(ensure_ascii=true) is not supported: leave it out",
        ));
    }
    options.assert_all_used()?;
    let mut out = Vec::new();
    let written = match indent {
        Some(width) => {
            let spaces = " ".repeat(width);
            let formatter = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut out, formatter))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut out, PythonFormatter)),
    };
    let failed = |e: &dyn std::fmt::Display| Error::new(ErrorKind::InvalidOperation, format!("tojson: {e}"));
    written.map_err(|e| failed(&e))?;
    String::from_utf8(out).map(Value::from).map_err(|e| failed(&e))
}

/// `json.dumps` with its default separators `", "` and `": "`.
struct PythonFormatter;

impl Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

/// The present time in UTC; see [`strftime`].
fn strftime_now(format: String) -> Result<String, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    strftime(&format, now)
}

/// C's `strftime` for the fields that templates use, in English. `seconds` since 1970 in UTC.
fn strftime(format: &str, seconds: u64) -> Result<String, Error> {
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let days_since_1970 = seconds / 86_400;
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut day) = (1970, days_since_1970);
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let day_of_year = day + 1;
    let mut month = 0;
    for length in [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let day = day + 1;
    let weekday = DAYS[(days_since_1970 % 7) as usize];
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let hour_12 = (hour + 11) % 12 + 1;
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut field = chars.next();
        let is_unpadded = field == Some('-');
        if is_unpadded {
            field = chars.next();
        }
        let number = |n: u64| if is_unpadded { n.to_string() } else { format!("{n:02}") };
        out += &match field {
            Some('Y') => year.to_string(),
            Some('y') => number(year % 100),
            Some('m') => number(month + 1),
            Some('B') => MONTHS[month as usize].to_owned(),
            Some('b' | 'h') => MONTHS[month as usize][..3].to_owned(),
            Some('d') => number(day),
            Some('e') => format!("{day:2}"),
            Some('j') if is_unpadded => day_of_year.to_string(),
            Some('j') => format!("{day_of_year:03}"),
            Some('A') => weekday.to_owned(),
            Some('a') => weekday[..3].to_owned(),
            Some('H') => number(hour),
            Some('I') => number(hour_12),
            Some('p') => (if hour < 12 { "AM" } else { "PM" }).to_owned(),
            Some('M') => number(minute),
            Some('S') => number(second),
            Some('F') => format!("{year}-{:02}-{day:02}", month + 1),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('Z') => "UTC".to_owned(),
            Some('z') => "+0000".to_owned(),
            Some('%') => "%".to_owned(),
            other => {
                let field = other.map_or_else(String::new, |c| c.to_string());
                let message = format!("strftime_now: the field %{field} is not supported");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        };
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(source: &str, messages: &[ChatMessage]) -> Result<String, TokenizerError> {
        let template = ChatTemplate::new(source, SpecialTexts::default())?;
        template.render(messages, &[], true, &Controls::new(Vec::new())).map(|(text, _)| text)
    }

    fn user(content: &str) -> ChatMessage {
        ChatMessage { role: "user".into(), content: content.into(), ..ChatMessage::default() }
    }

    #[test]
    fn dates_are_right() {
        let at = |seconds| strftime("%a %d %b %Y, %-d %B, day %j, %H:%M:%S, %-I %p %%", seconds).unwrap();
        assert_eq!(at(0), "Thu 01 Jan 1970, 1 January, day 001, 00:00:00, 12 AM %");
        assert_eq!(at(951_782_399), "Mon 28 Feb 2000, 28 February, day 059, 23:59:59, 11 PM %");
        assert_eq!(at(951_782_400), "Tue 29 Feb 2000, 29 February, day 060, 00:00:00, 12 AM %");
        assert_eq!(at(1_767_225_599), "Wed 31 Dec 2025, 31 December, day 365, 23:59:59, 11 PM %");
        assert!(strftime("%Q", 0).unwrap_err().to_string().contains("%Q"));
        assert_eq!(rendered("{{ strftime_now('%Y')|length }}", &[]).unwrap(), "4");
    }

    #[test]
    fn json_is_pythons() {
        let text = rendered("{{ {'a': [1, 'é<b>'], 'c': none}|tojson }}", &[]).unwrap();
        assert_eq!(text, r#"{"a": [1, "é<b>"], "c": null}"#);
        let text = rendered("{{ {'a': [1]}|tojson(indent=2) }}", &[]).unwrap();
        assert_eq!(text, "{\n  \"a\": [\n    1\n  ]\n}");
        assert!(rendered("{{ 'a'|tojson(ensure_ascii=true) }}", &[]).is_err());
    }

    #[test]
    fn blocks_are_trimmed_and_python_methods_work() {
        let source = "{% for m in messages %}\n  {% if m.content.startswith('a') %}\n{{ m['content'].strip() }};\n  \
                      {% endif %}\n{% endfor %}\n{% if tools is none and bos_token is not defined %}end{% endif %}";
        assert_eq!(rendered(source, &[user("a "), user("b")]).unwrap(), "a;\nend");
        assert_eq!(rendered("{%- generation -%} x {%- endgeneration %}y", &[]).unwrap(), "xy");
    }

    #[test]
    fn template_errors_are_told_apart() {
        let refusal = rendered("{{ raise_exception('Roles must alternate: ' + messages[0].content) }}", &[user("hm")]);
        assert_eq!(refusal.unwrap_err(), TokenizerError::TemplateRefused("Roles must alternate: hm".into()));
        assert!(matches!(rendered("{{ 1 / 'a' }}", &[]), Err(TokenizerError::TemplateFailed(_))));
        assert!(matches!(rendered("{% if %}", &[]), Err(TokenizerError::ChatTemplate(_))));
    }

    #[test]
    fn templates_come_from_the_configuration() {
        let template = |json: &str| read_config(Some(json.as_bytes())).map(|(_, template)| template);
        assert_eq!(template(r#"{"chat_template": "x"}"#).unwrap().unwrap(), "x");
        let two = r#"{"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]}"#;
        assert_eq!(template(two).unwrap().unwrap(), "d");
        let error = template(&two.replace("default", "tools")).unwrap_err().to_string();
        assert!(error.contains("rag, tools"), "{error}");
        assert!(template("[").is_err());
        let (texts, none) = read_config(Some(br#"{"bos_token": {"content": "<s>"}, "eos_token": null}"#)).unwrap();
        assert_eq!((texts.bos_token.as_deref(), texts.eos_token, none), (Some("<s>"), None, None));
    }

    #[test]
    fn messages_with_every_private_character_are_refused() {
        let all: String = ('\u{E000}'..='\u{F8FF}').collect();
        assert_eq!(rendered("x", &[user(&all)]).unwrap_err(), TokenizerError::NoGuard);
        assert_eq!(rendered("{{ messages[0].content }}", &[user(&all[3..])]).unwrap(), all[3..]);
    }
}
