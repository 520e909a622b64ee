//! Texts with what is right to say of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::read::MultiGzDecoder;
use safelmm_trainer::policy_models::examples::{Part, Source, part_of};
use safelmm_trainer::policy_models::{languages, sources};
use serde::Deserialize;

/// A text and the category that a policy should find in it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Item {
    /// The text.
    pub text: String,
    /// ISO 639-1.
    #[serde(default)]
    pub language: String,
    /// None where nothing is to be found.
    pub category: Option<String>,
    /// `development` where the policy's writer looked at it, `held-out` where not.
    #[serde(default)]
    pub part: Option<String>,
}

/// Sets of texts by name.
#[derive(Clone, Debug, Default)]
pub struct Sets {
    /// Name and texts.
    pub sets: Vec<(String, Vec<Item>)>,
    /// What was not there, and why that is no error.
    pub skipped: Vec<String>,
}

/// The most sentences of a language of clean running text.
const CLEAN_SENTENCES: usize = 500;

impl Sets {
    /// The policies' own sets, `NAME/sets/*.jsonl` in a folder: one set of all languages for each policy and part, and the marked
    /// texts of `pii`.
    ///
    /// # Errors
    /// When a set cannot be read.
    pub fn bundled(&mut self, folder: &Path) -> Result<()> {
        for policy in entries(folder)? {
            let name = policy.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut parts: BTreeMap<String, Vec<Item>> = BTreeMap::new();
            let folder = policy.join("sets");
            let files = if folder.is_dir() { entries(&folder)? } else { Vec::new() };
            for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "jsonl")) {
                for (number, line) in fs::read_to_string(file)?.lines().enumerate() {
                    if line.trim().is_empty() {
                        continue;
                    }
                    let item: Result<Item, _> = serde_json::from_str(line);
                    let item = item.with_context(|| format!("{}:{}", file.display(), number + 1))?;
                    let set = item.part.as_ref().map_or(name.clone(), |part| format!("{name}, {part}"));
                    parts.entry(set).or_default().push(item);
                }
            }
            self.sets.extend(parts);
            let marked = policy.join("tests/labelled.txt");
            if marked.is_file() {
                self.sets.push((format!("{name}, labelled"), labelled(&fs::read_to_string(&marked)?)));
            }
        }
        Ok(())
    }

    /// The public sets of a folder. Of the tweets only those that no bundled model was trained on.
    ///
    /// # Errors
    /// When a set is there and cannot be read.
    pub fn public(&mut self, folder: &Path) -> Result<()> {
        self.add(folder, "hate-speech-davidson.csv.gz", tweets)?;
        self.add(folder, "bold-prompts.jsonl.gz", |file| lines(file, "prompt"))?;
        self.add(folder, "alice-in-wonderland-prompts.json.gz", wonderland)?;
        self.add(folder, "crows-pairs.csv.gz", |file| columns(file, b',', &["sent_more", "sent_less"]))?;
        self.add(folder, "winogender.tsv.gz", |file| columns(file, b'\t', &["sentence"]))
    }

    /// Running text in many languages, as clean: some sentences of each language.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn clean(&mut self, folder: &Path) -> Result<()> {
        self.add(folder, "treebanks-31-languages.jsonl.gz", sentences)
    }

    fn add(&mut self, folder: &Path, name: &str, read: impl Fn(&Path) -> Result<Vec<Item>>) -> Result<()> {
        let file = folder.join(name);
        if !file.is_file() {
            self.skipped.push(format!("{} is not there", file.display()));
            return Ok(());
        }
        let items = read(&file).with_context(|| file.display().to_string())?;
        self.sets.push((name.split('.').next().unwrap_or(name).to_owned(), items));
        Ok(())
    }
}

/// What is in a folder, by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut found = read.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    found.sort();
    Ok(found)
}

/// Lines with marks, `⟦kind|value⟧`: what is marked is personal data. Languages are not told apart.
fn labelled(text: &str) -> Vec<Item> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .map(|line| {
            let mut plain = String::new();
            let mut marks = line.split('⟦');
            plain.push_str(marks.next().unwrap_or_default());
            let mut category = None;
            for mark in marks {
                let (inside, behind) = mark.split_once('⟧').unwrap_or((mark, ""));
                let (kind, value) = inside.split_once('|').unwrap_or(("", inside));
                category.get_or_insert_with(|| format!("pii/{kind}"));
                plain.push_str(value);
                plain.push_str(behind);
            }
            Item { text: plain, language: "any".into(), category, part: None }
        })
        .collect()
}

fn open(file: &Path) -> Result<Box<dyn Read>> {
    Ok(Box::new(MultiGzDecoder::new(File::open(file)?)))
}

fn english(text: &str) -> Item {
    Item { text: text.to_owned(), language: "en".into(), category: None, part: None }
}

/// Class 0 is hate speech, 1 offensive language, 2 neither.
fn tweets(file: &Path) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for (class, text) in sources::labelled_tweets(file)? {
        if part_of(&text, Source::Tweets) == Part::HeldOut {
            let category = ["hate", "offensive"].get(usize::from(class)).map(|c| (*c).to_owned());
            items.push(Item { category, ..english(&text) });
        }
    }
    Ok(items)
}

/// One member of each line's object.
fn lines(file: &Path, member: &str) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for line in BufReader::new(open(file)?).lines() {
        let value: serde_json::Value = serde_json::from_str(&line?)?;
        items.push(english(value[member].as_str().with_context(|| format!("a line without '{member}'"))?));
    }
    Ok(items)
}

fn wonderland(file: &Path) -> Result<Vec<Item>> {
    #[derive(Deserialize)]
    struct Puzzle {
        prompt: Prompt,
    }
    /// One text, or what is said turn by turn.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Prompt {
        One(String),
        Turns(Vec<String>),
    }
    let puzzles: Vec<Puzzle> = serde_json::from_reader(open(file)?)?;
    let texts = puzzles.into_iter().flat_map(|puzzle| match puzzle.prompt {
        Prompt::One(text) => vec![text],
        Prompt::Turns(texts) => texts,
    });
    Ok(texts.map(|text| english(&text)).collect())
}

/// These columns of a table.
fn columns(file: &Path, delimiter: u8, names: &[&str]) -> Result<Vec<Item>> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(open(file)?);
    let headers = reader.headers()?.clone();
    let places: Vec<usize> = names
        .iter()
        .map(|name| headers.iter().position(|h| h == *name).with_context(|| format!("no column '{name}'")))
        .collect::<Result<_>>()?;
    let mut items = Vec::new();
    for row in reader.records() {
        let row = row?;
        items.extend(places.iter().filter_map(|place| row.get(*place)).map(english));
    }
    Ok(items)
}

/// The first sentences of each language.
fn sentences(file: &Path) -> Result<Vec<Item>> {
    let mut items: Vec<Item> = Vec::new();
    let mut counts = BTreeMap::<String, usize>::new();
    for line in BufReader::new(open(file)?).lines() {
        let value: serde_json::Value = serde_json::from_str(&line?)?;
        let language = value["lang"].as_str().and_then(languages::two_letters).context("a line of another language")?;
        safelmm_learned::sentences::sentences(value["text"].as_str().unwrap_or_default(), |_, sentence| {
            let count = counts.entry(language.to_owned()).or_default();
            if *count < CLEAN_SENTENCES && sentence.trim().len() >= 12 {
                *count += 1;
                items.push(Item { language: language.to_owned(), ..english(sentence.trim()) });
            }
        });
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_sets_are_named_and_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let mut sets = Sets::default();
        sets.public(folder.path()).unwrap();
        sets.clean(folder.path()).unwrap();
        assert_eq!((sets.sets.len(), sets.skipped.len()), (0, 6));
        assert!(sets.skipped[0].ends_with("hate-speech-davidson.csv.gz is not there"));
    }

    #[test]
    fn bundled_sets_are_read_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let of_one = folder.path().join("one/sets");
        fs::create_dir_all(&of_one).unwrap();
        fs::write(of_one.join("a.jsonl"), "{\"text\": \"x\", \"language\": \"de\", \"category\": null}\n\n").unwrap();
        let mut sets = Sets::default();
        sets.bundled(folder.path()).unwrap();
        assert_eq!(sets.sets[0].0, "one");
        assert_eq!(sets.sets[0].1[0].language, "de");
        let marked = labelled("# no\nplain\nto ⟦email|a@b.example⟧, please");
        assert_eq!((marked[0].text.as_str(), marked[0].category.clone()), ("plain", None));
        assert_eq!(
            (marked[1].text.as_str(), marked[1].category.as_deref()),
            ("to a@b.example, please", Some("pii/email"))
        );
        fs::write(of_one.join("b.jsonl"), "{}").unwrap();
        assert!(format!("{:#}", Sets::default().bundled(folder.path()).unwrap_err()).contains("b.jsonl:1"));
    }
}
