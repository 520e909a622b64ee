//! `safelmm plugin check`.

use std::io::{self, Write};
use std::sync::Arc;

use safelmm_plugins::host::{Component, Description, LoadError, VectorResult, WasmPolicy};
use safelmm_plugins::{Answer, Document, Hook, Passage, Pipeline, Policy, Selection};

use super::{CheckArgs, Costs, Opened, PluginFailure, request, settings};

/// A text of one KiB, of words and whole sentences.
fn sample() -> String {
    const SENTENCE: &str = "The committee met on Monday to talk about the new library and its opening hours. ";
    SENTENCE.chars().cycle().take(1024).collect()
}

/// Checks a component as the server does, and says what it found.
pub(super) fn check(args: &CheckArgs) -> Result<(), PluginFailure> {
    let settings = settings(&args.component)?;
    let opened = Opened::new(&args.component)?;
    let bytes = opened.bytes()?;
    let component = opened.component_of(&bytes)?;
    let mut out = io::stdout().lock();
    describe(&component, &mut out)?;
    // A section that says something else is not loaded.
    let wrong = |error| opened.failed(LoadError::Section(error));
    match Description::read(&bytes).map_err(wrong)? {
        Some(_) => writeln!(out, "section       says the same without being run")?,
        None => writeln!(out, "section       none: `safelmm plugin describe FILE --write` writes one")?,
    }
    let mut failed = 0;
    match component.check_settings(&settings) {
        Ok(()) => writeln!(out, "settings      accepted: {settings}")?,
        Err(LoadError::Settings(wrong)) => {
            failed += 1;
            writeln!(out, "settings      REFUSED")?;
            for problem in &wrong.0 {
                let place = if problem.pointer.is_empty() { "the whole" } else { &problem.pointer };
                writeln!(out, "    {place}: {}", problem.message)?;
            }
        }
        Err(error) => {
            failed += 1;
            writeln!(out, "settings      FAILED: {error}")?;
        }
    }
    failed += vectors(&component.try_vectors().map_err(|error| opened.failed(error))?, &mut out)?;
    if failed > 0 {
        return Err(PluginFailure::Checks(failed));
    }
    let costs = Arc::new(Costs::default());
    let policy = WasmPolicy::load(&opened.sandbox, &bytes, opened.settings(settings, costs.clone()));
    let policy = policy.map_err(|error| opened.failed(error))?;
    let failed = measure(policy, &costs, &mut out)?;
    if failed > 0 { Err(PluginFailure::Checks(failed)) } else { Ok(()) }
}

fn describe(component: &Component, out: &mut impl Write) -> io::Result<()> {
    let list = |items: &[String]| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
    writeln!(out, "{} {}: {}", component.name, component.version, component.summary)?;
    writeln!(out, "digest        {}", component.digest)?;
    writeln!(out, "imports       {}", list(&component.imports))?;
    writeln!(out, "exports       {}", list(&component.exports))?;
    let asks = if component.wants_vocabulary { "vocabulary (grants = [\"vocabulary\"])" } else { "nothing" };
    writeln!(out, "asks for      {asks}")?;
    let hooks: Vec<&str> = component.hooks.iter().map(Hook::as_str).collect();
    writeln!(out, "hooks         {}", hooks.join(", "))?;
    writeln!(out, "categories    {}", list(&component.categories))?;
    let languages = if component.languages.is_empty() { "any".to_owned() } else { component.languages.join(", ") };
    writeln!(out, "languages     {languages}")?;
    writeln!(out, "schema        {}", component.settings_schema)
}

/// Tells what came of the golden vectors; returns how many failed.
fn vectors(results: &[VectorResult], out: &mut impl Write) -> io::Result<usize> {
    let failed = results.iter().filter(|result| result.wrong.is_some()).count();
    writeln!(out, "vectors       {} of {} as expected", results.len() - failed, results.len())?;
    for VectorResult { name, wrong, fuel } in results {
        match wrong {
            None => writeln!(out, "    ok    {name} (fuel {fuel})")?,
            Some(wrong) => writeln!(out, "    WRONG {name}: {wrong}")?,
        }
    }
    Ok(failed)
}

/// Asks each hook about one KiB and tells what it cost; returns how many calls failed.
fn measure(policy: WasmPolicy, costs: &Costs, out: &mut impl Write) -> io::Result<usize> {
    let (text, request) = (sample(), request(None));
    let hooks = policy.hooks();
    if hooks.has(Hook::ScreenPrompt) {
        policy.screen_prompt(&request, &text);
    }
    if hooks.has(Hook::FilterPassages) {
        policy.filter_passages(&request, &[passage(&text)]);
    }
    if hooks.has(Hook::ReviewResponse) {
        policy.review_response(&request, &text, &[]);
    }
    let pipeline = Pipeline::new(vec![Arc::new(policy)], Vec::new(), Selection::default());
    if hooks.in_sessions() {
        let answer = Answer::new(pipeline.scope(request), "");
        let mut logits: Vec<f32> = (0_u16..1024).map(|id| -f32::from(id) / 64.0).collect();
        let _ = answer.adjust(None, &mut logits);
        // 32 bytes at a time, as if they were a few tokens.
        let mut guard = answer.guard();
        for piece in text.as_bytes().chunks(32) {
            guard.push(&String::from_utf8_lossy(piece));
        }
        guard.finish("", &[]);
    }
    let calls = costs.take();
    writeln!(out, "fuel for 1 KiB")?;
    for hook in hooks.iter() {
        let of_hook: Vec<_> = calls.iter().filter(|(at, ..)| *at == hook).collect();
        let fuel: u64 = of_hook.iter().map(|(_, fuel, _)| fuel).sum();
        let what = match hook {
            Hook::AdjustLogits => " for 256 candidates".to_owned(),
            Hook::InspectStream => format!(" in {} calls", of_hook.len()),
            _ => String::new(),
        };
        let failed = of_hook.iter().find_map(|(.., failed)| *failed);
        let failed = failed.map_or_else(String::new, |kind| format!(" FAILED: {kind}"));
        writeln!(out, "    {:<16} {fuel}{what}{failed}", hook.as_str())?;
    }
    Ok(calls.iter().filter(|(.., failed)| failed.is_some()).count())
}

fn passage(text: &str) -> Passage {
    let of = |text: &str| text.to_owned();
    let source = Document {
        id: of("document"),
        store: of("store"),
        title: of("Title"),
        author: of("Author"),
        license: of("CC-BY-4.0"),
        url: of("about:blank"),
        language: None,
        rating: None,
        obligations: Vec::new(),
    };
    Passage { source, score: 1.0, text: of(text) }
}
