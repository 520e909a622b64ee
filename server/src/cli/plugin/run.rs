//! `safelmm plugin run`.

use std::io::{self, Write};
use std::sync::Arc;

use safelmm_model::Rating;
use safelmm_plugins::host::WasmPolicy;
use safelmm_plugins::{self as plugins, Answer, Finding, Hook, Judgement, Pipeline, Policy, Selection, Verdict};

use super::{Costs, Opened, PluginFailure, RunArgs, request, settings};

/// Characters of an answer that come at once, as if they were a token.
const PIECE: usize = 4;

/// Asks a component about a prompt, an answer, or both.
pub(super) fn run(args: &RunArgs) -> Result<(), PluginFailure> {
    let opened = Opened::new(&args.component)?;
    let settings = opened.settings(settings(&args.component)?, Arc::new(Costs::default()));
    let policy = WasmPolicy::load(&opened.sandbox, &opened.bytes()?, settings).map_err(|error| opened.failed(error))?;
    let request = request(args.rating.map(|rating| match rating {
        Rating::G => plugins::Rating::G,
        Rating::PG => plugins::Rating::PG,
        Rating::R => plugins::Rating::R,
        Rating::X => plugins::Rating::X,
    }));
    let mut out = io::stdout().lock();
    let hooks = policy.hooks();
    let skipped = |hook: Hook| format!("{}: not one of its hooks\n", hook.as_str());
    if let Some(prompt) = &args.prompt {
        match hooks.has(Hook::ScreenPrompt) {
            true => tell(Hook::ScreenPrompt, &policy.screen_prompt(&request, prompt), &mut out)?,
            false => out.write_all(skipped(Hook::ScreenPrompt).as_bytes())?,
        }
    }
    let Some(text) = &args.answer else { return Ok(()) };
    let policy = Arc::new(policy);
    if hooks.has(Hook::InspectStream) {
        let pipeline = Pipeline::new(vec![policy.clone()], Vec::new(), Selection::default());
        let scope = pipeline.scope(request.clone());
        let mut guard = Answer::new(scope.clone(), args.prompt.as_deref().unwrap_or_default()).stream();
        let characters: Vec<char> = text.chars().collect();
        let mut left = String::new();
        for piece in characters.chunks(PIECE) {
            left += &guard.push(&piece.iter().collect::<String>()).text;
        }
        left += &guard.finish("", &[]).text;
        let verdict = match (guard.has_stopped(), guard.has_changed()) {
            (true, _) => Verdict::Deny,
            (false, true) => Verdict::Rewrite,
            (false, false) => Verdict::Allow,
        };
        writeln!(out, "inspect-stream: {}", verdict.as_str())?;
        for entry in scope.entries() {
            writeln!(out, "    {} {:.2}", entry.category, entry.score)?;
        }
        writeln!(out, "    what leaves: {left:?}")?;
    } else {
        out.write_all(skipped(Hook::InspectStream).as_bytes())?;
    }
    match hooks.has(Hook::ReviewResponse) {
        true => tell(Hook::ReviewResponse, &policy.review_response(&request, text, &[]), &mut out)?,
        false => out.write_all(skipped(Hook::ReviewResponse).as_bytes())?,
    }
    Ok(())
}

fn tell(hook: Hook, judgement: &Judgement, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}: {}", hook.as_str(), judgement.verdict().as_str())?;
    for Finding { category, score, reason, span } in judgement.findings() {
        let place = span.as_ref().map_or_else(String::new, |span| format!(" at bytes {}..{}", span.start, span.end));
        writeln!(out, "    {category} {score:.2}{place}: {reason}")?;
    }
    match judgement {
        Judgement::Rewrite { text, .. } => writeln!(out, "    what stands in its place: {text:?}"),
        _ => Ok(()),
    }
}
