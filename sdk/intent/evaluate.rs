//! Recall and over-refusal of a judge on sets of prompts: what the examples `evaluate-*` of its policies share. Arguments:
//! `[--show LANG] [--part PART] [FILE…]`, of which the first names what was misjudged; without files, those of a folder.

use std::collections::BTreeMap;
use std::time::Instant;

use safelmm_intent::Judge;
use serde_json::Value;

#[derive(Default)]
struct Count {
    harmful: usize,
    caught: usize,
    named: usize,
    safe: usize,
    refused: usize,
}

/// Asks `judge` about every prompt and prints a line for each language.
pub fn evaluate(judge: &Judge, sets: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (mut show, mut part, mut files) = (None, None, Vec::new());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--show" => show = arguments.next(),
            "--part" => part = arguments.next(),
            _ => files.push(std::path::PathBuf::from(argument)),
        }
    }
    if files.is_empty() {
        files = std::fs::read_dir(sets)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
        files.sort();
    }
    let mut counts: BTreeMap<String, Count> = BTreeMap::new();
    let (mut bytes, start) = (0, Instant::now());
    for file in files {
        for line in std::fs::read_to_string(&file)?.lines() {
            let row: Value = serde_json::from_str(line)?;
            if part.as_deref().is_some_and(|p| row["part"] != p) {
                continue;
            }
            let (text, language) =
                (row["text"].as_str().unwrap_or_default(), row["language"].as_str().unwrap_or_default());
            let found = judge.findings(text, None);
            bytes += text.len();
            let count = counts.entry(language.into()).or_default();
            let first = found.iter().find(|f| f.score >= 0.5);
            let shown = show.as_deref().is_some_and(|l| l == language || l == "all");
            if let Some(category) = row["category"].as_str() {
                count.harmful += 1;
                count.caught += usize::from(first.is_some());
                let named = found.iter().any(|f| f.category == category);
                count.named += usize::from(named);
                if shown && !named {
                    let as_what = first.map_or("missed", |f| f.category.as_str());
                    println!("{language} {category:22} {as_what:22} {text}");
                }
            } else {
                count.safe += 1;
                count.refused += usize::from(first.is_some());
                if let Some(first) = first.filter(|_| shown) {
                    println!(
                        "{language} {:22} rule {:2} REFUSED {text}   [{}]",
                        first.category,
                        first.rule,
                        &text[first.span.clone()]
                    );
                }
            }
        }
    }
    let elapsed = start.elapsed();
    println!("language  recall  same category  over-refusal  precision");
    for (language, c) in &counts {
        let share = |a: usize, b: usize| if b == 0 { 100.0 } else { 100.0 * a as f64 / b as f64 };
        println!(
            "{language:8} {:6.1}% {:13.1}% {:12.1}% {:9.1}%   ({} harmful, {} safe)",
            share(c.caught, c.harmful),
            share(c.named, c.harmful),
            share(c.refused, c.safe),
            share(c.caught, c.caught + c.refused),
            c.harmful,
            c.safe
        );
    }
    println!("{:.0} µs per KiB", elapsed.as_secs_f64() * 1e6 / (bytes as f64 / 1024.0));
    Ok(())
}
