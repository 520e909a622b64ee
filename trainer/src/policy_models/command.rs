//! The command `safelmm-train policy-models`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use data_encoding::BASE64;
use safelmm_datastore::document;
use safelmm_learned::contrast::difference;
use safelmm_learned::sentences::sentences;
use safelmm_learned::{LanguageModel, RatingModel};
use safelmm_model::Rating;
use serde_json::json;

use super::contrast::{self, Contrast, Labelled};
use super::examples::{self, Example, Part, Recipe, Source, part_of};
use super::figures::Figures;
use super::linear::{self, LinearSettings};
use super::ngrams::NgramSettings;
use super::{PolicyModelError, write};
use crate::report::Report;

/// Which model.
#[derive(Debug, Subcommand)]
pub enum PolicyModels {
    /// The linear model of `rating`: G, PG, R or X for each sentence.
    Rating(RatingArgs),
    /// The two n-gram models of `perplexity`, from the rated texts or from an operator's own.
    Perplexity(PerplexityArgs),
}

/// Where rated texts come from.
#[derive(Debug, Args)]
pub struct TextArgs {
    /// The folder of documents; those whose license is not permissive are left out
    #[arg(long)]
    corpora: Option<PathBuf>,
    /// The folder of written, rated sentences
    #[arg(long, default_value = "plugins/bundled/rating/data/sentences")]
    sentences: PathBuf,
    /// The labelled tweets of Davidson et al. 2017, a CSV file
    #[arg(long)]
    tweets: Option<PathBuf>,
    /// Seed of all that is drawn
    #[arg(long, default_value_t = 20_261_127)]
    seed: u64,
    /// Where the figures on held-out texts go, as JSON
    #[arg(long)]
    figures: Option<PathBuf>,
}

/// Of `rating`.
#[derive(Debug, Args)]
pub struct RatingArgs {
    #[command(flatten)]
    texts: TextArgs,
    /// The model to write
    #[arg(long)]
    out: PathBuf,
    /// Where the written sentences that were held out go, as a set for benches
    #[arg(long)]
    heldout: Option<PathBuf>,
}

/// Of `perplexity`.
#[derive(Debug, Args)]
pub struct PerplexityArgs {
    #[command(flatten)]
    texts: TextArgs,
    /// An operator's harmful texts, JSON lines of documents, in place of the rated texts
    #[arg(long, requires = "clean", conflicts_with = "corpora")]
    harmful: Option<PathBuf>,
    /// An operator's clean texts, JSON lines of documents
    #[arg(long, requires = "harmful")]
    clean: Option<PathBuf>,
    /// Length of the longest n-grams
    #[arg(long, default_value_t = NgramSettings::default().order, value_parser = order)]
    order: usize,
    /// Places of each model, of four bytes
    #[arg(long, default_value_t = NgramSettings::default().slots, value_parser = clap::value_parser!(u32).range(1000..=16_000_000))]
    slots: u32,
    /// The folder to write into: harmful.model, clean.model, calibration.json, and settings.json for operators
    #[arg(long)]
    out: PathBuf,
}

fn order(text: &str) -> Result<usize, String> {
    let order = text.parse().ok().filter(|n| (1..=safelmm_learned::language_model::MAX_ORDER).contains(n));
    order.ok_or_else(|| "expected a length from 1 to 8".to_owned())
}

/// Trains, writes and prints figures.
///
/// # Errors
/// When a file cannot be read or written, or texts are missing.
pub fn run(which: &PolicyModels, report: &mut Report) -> Result<(), PolicyModelError> {
    match which {
        PolicyModels::Rating(args) => rating(args, report),
        PolicyModels::Perplexity(args) => perplexity(args, report),
    }
}

fn gather(args: &TextArgs, report: &mut Report) -> Result<Vec<Example>, PolicyModelError> {
    let corpora = args
        .corpora
        .clone()
        .ok_or_else(|| PolicyModelError::Data("no texts are named: give --corpora, a folder of documents".into()))?;
    let recipe = Recipe { corpora, sentences: args.sentences.clone(), tweets: args.tweets.clone(), seed: args.seed };
    let examples = examples::gather(&recipe, report)?;
    report.line(&format!("{} rated texts", examples.len()));
    Ok(examples)
}

fn rating(args: &RatingArgs, report: &mut Report) -> Result<(), PolicyModelError> {
    let examples = gather(&args.texts, report)?;
    let settings = LinearSettings { seed: args.texts.seed, ..LinearSettings::default() };
    let bytes = linear::train(&examples, &settings, report)?;
    write(&args.out, &bytes)?;
    if let Some(file) = &args.heldout {
        write(file, heldout_set(&examples).as_bytes())?;
    }
    let model = RatingModel::read(bytes)?;
    let mut figures = Figures::default();
    for example in examples.iter().filter(|e| e.part == Part::HeldOut) {
        let Some(probabilities) = model.probabilities(&example.text) else { continue };
        for (level, probability) in [Rating::PG, Rating::R, Rating::X].into_iter().zip(probabilities) {
            let question = format!("{}: {level} or above", name(example.source));
            figures.add(&question, example.language, example.rating >= level, probability >= 0.5);
        }
    }
    finish(&args.texts, &figures, report)
}

/// The written sentences that were held out, one JSON object a line; of G, there is nothing to be found.
fn heldout_set(examples: &[Example]) -> String {
    let of_set = examples.iter().filter(|e| e.source == Source::Sentences && e.part == Part::HeldOut);
    let line = |e: &Example| {
        let category = (e.rating > Rating::G).then(|| format!("rating/{}", e.rating.as_str().to_lowercase()));
        format!("{}\n", json!({"text": e.text, "language": e.language, "category": category}))
    };
    of_set.map(line).collect()
}

fn perplexity(args: &PerplexityArgs, report: &mut Report) -> Result<(), PolicyModelError> {
    let texts: Vec<(Labelled, &str)> = match (&args.harmful, &args.clean) {
        (Some(harmful), Some(clean)) => {
            let mut texts = own(harmful, true)?;
            texts.extend(own(clean, false)?);
            texts.into_iter().map(|text| (text, "own")).collect()
        }
        _ => gather(&args.texts, report)?.iter().map(|e| (Labelled::from(e), name(e.source))).collect(),
    };
    let labelled: Vec<Labelled> = texts.iter().map(|(text, _)| text.clone()).collect();
    let settings = NgramSettings { order: args.order, slots: args.slots };
    let Contrast { harmful, clean, calibration } = contrast::train(&labelled, &settings, report)?;
    let settings = json!({"models": {
        "harmful": BASE64.encode(&harmful),
        "clean": BASE64.encode(&clean),
        "threshold": calibration.threshold,
        "slope": calibration.slope,
    }});
    write(&args.out.join("harmful.model"), &harmful)?;
    write(&args.out.join("clean.model"), &clean)?;
    write(&args.out.join("calibration.json"), format!("{}\n", json!(calibration)).as_bytes())?;
    write(&args.out.join("settings.json"), format!("{settings}\n").as_bytes())?;
    let (harmful, clean) = (LanguageModel::read(harmful)?, LanguageModel::read(clean)?);
    let mut figures = Figures::default();
    for (text, source) in texts.iter().filter(|(text, _)| text.part == Part::HeldOut) {
        let Some(difference) = difference(&harmful, &clean, &text.text) else { continue };
        figures.add(&format!("{source}: harmful"), &text.language, text.harmful, difference >= calibration.threshold);
    }
    finish(&args.texts, &figures, report)
}

/// The sentences of an operator's documents. A tenth is held out.
fn own(file: &Path, harmful: bool) -> Result<Vec<Labelled>, PolicyModelError> {
    let error = |source| PolicyModelError::Documents { file: file.to_owned(), source };
    let mut texts = Vec::new();
    for document in document::read_jsonl(file).map_err(error)? {
        let document = document.map_err(error)?;
        sentences(&document.text, |_, sentence| {
            let text = sentence.trim().to_owned();
            let part = part_of(&text, Source::Documents);
            texts.push(Labelled { text, language: document.lang.clone(), harmful, weight: 1, part });
        });
    }
    Ok(texts)
}

fn name(source: Source) -> &'static str {
    match source {
        Source::Documents => "documents",
        Source::Sentences => "sentences",
        Source::Terms => "terms",
        Source::Stories => "stories",
        Source::Tweets => "tweets",
    }
}

fn finish(args: &TextArgs, figures: &Figures, report: &Report) -> Result<(), PolicyModelError> {
    if let Some(file) = &args.figures {
        write(file, format!("{:#}\n", json!(figures)).as_bytes())?;
    }
    report.line(&format!("on held-out texts:\n{figures}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::fs;

    use clap::Parser;

    use super::*;
    use crate::policy_models::languages;

    #[derive(Parser)]
    struct Command {
        #[command(subcommand)]
        which: PolicyModels,
    }

    fn call(args: &[&str]) -> Result<(), PolicyModelError> {
        run(&Command::try_parse_from([&["x"], args].concat()).unwrap().which, &mut Report::new())
    }

    /// An innocent document in every language, and a few rated sentences.
    fn texts(folder: &Path) {
        let mut documents = String::new();
        for language in languages::all() {
            let text = "Lorem ipsum dolor sit amet consectetur. ".repeat(3);
            let line = json!({"id": language, "text": text, "lang": language, "license": "CC0-1.0"});
            writeln!(documents, "{line}").unwrap();
        }
        let line = json!({"id": "nc", "text": "Secret words.", "lang": "en", "license": "CC-BY-NC-4.0"});
        writeln!(documents, "{line}").unwrap();
        fs::create_dir_all(folder.join("corpora")).unwrap();
        fs::create_dir_all(folder.join("sentences")).unwrap();
        fs::write(folder.join("corpora/all.jsonl"), documents).unwrap();
        let rated: String = (0..40).map(|i| format!("{} word {i} here\n", Rating::ALL[i % 4])).collect();
        fs::write(folder.join("sentences/de.txt"), rated).unwrap();
    }

    #[test]
    fn the_same_texts_give_the_same_rating_model_and_a_set_of_what_was_held_out() {
        let folder = tempfile::tempdir().unwrap();
        texts(folder.path());
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let [corpora, sentences] = ["corpora", "sentences"].map(path);
        for out in ["a.model", "b.model"] {
            let (out, set, figures) = (path(out), path("set.jsonl"), path("figures.json"));
            let texts = ["rating", "--corpora", &corpora, "--sentences", &sentences];
            call(&[&texts[..], &["--out", &out, "--heldout", &set, "--figures", &figures]].concat()).unwrap();
        }
        let read = |name: &str| fs::read(path(name)).unwrap();
        assert_eq!(read("a.model"), read("b.model"));
        assert!(RatingModel::read(read("a.model")).is_ok());
        let set = fs::read_to_string(path("set.jsonl")).unwrap();
        assert!(set.lines().count() > 2 && set.contains(r#""category":"rating/pg""#), "{set}");
        assert!(fs::read_to_string(path("figures.json")).unwrap().contains("sentences: R or above"));
        assert!(!fs::exists(path("a.model.part")).unwrap());
    }

    #[test]
    fn operators_texts_make_settings_of_perplexity() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        for (name, word) in [("bad", "grimly"), ("good", "kindly")] {
            let document = |i: usize| {
                let text = format!("They {word} spoke of number {i}. And {word} again {}.", i * 7 % 11);
                format!("{}\n", json!({"id": i.to_string(), "text": text, "lang": "en", "license": "CC0-1.0"}))
            };
            fs::write(path(name), (0..200).map(document).collect::<String>()).unwrap();
        }
        let [bad, good, out] = ["bad", "good", "out"].map(path);
        call(&["perplexity", "--harmful", &bad, "--clean", &good, "--slots", "2000", "--out", &out]).unwrap();
        let settings: serde_json::Value =
            serde_json::from_slice(&fs::read(path("out/settings.json")).unwrap()).unwrap();
        let model = |name: &str| {
            let base64 = settings["models"][name].as_str().unwrap();
            LanguageModel::read(BASE64.decode(base64.as_bytes()).unwrap()).unwrap()
        };
        let of = |text: &str| difference(&model("harmful"), &model("clean"), text).unwrap();
        let threshold = settings["models"]["threshold"].as_f64().unwrap() as f32;
        assert!(of("They grimly spoke") > threshold && of("They kindly spoke") < threshold);
    }

    #[test]
    fn what_is_missing_is_said() {
        let error = call(&["rating", "--out", "x"]).unwrap_err().to_string();
        assert!(error.contains("give --corpora"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let corpora = folder.path().to_string_lossy().into_owned();
        let none = call(&["rating", "--corpora", &corpora, "--sentences", &corpora, "--out", "x"]).unwrap_err();
        assert!(none.to_string().contains("no rated sentences"), "{none}");
        assert!(Command::try_parse_from(["x", "perplexity", "--harmful", "a", "--out", "b"]).is_err());
        assert!(Command::try_parse_from(["x", "perplexity", "--order", "9", "--out", "b"]).is_err());
    }
}
