//! Reading and making rated texts.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use safelmm_datastore::document;
use safelmm_datastore::license::LicenseClass;
use safelmm_learned::sentences::sentences as each_sentence;
use safelmm_model::Rating;

use super::examples::{Example, Source};
use super::{PolicyModelError, languages};
use crate::passages;
use crate::rating::{self, StoryGenerator, rating_of};
use crate::report::Report;

/// Shorter sentences of documents say too little.
const SHORTEST: usize = 12;

/// The sentences of the permissive documents of a folder, by language.
pub fn documents(folder: &Path, report: &mut Report) -> Result<BTreeMap<&'static str, Vec<Example>>, PolicyModelError> {
    let mut found: BTreeMap<&'static str, Vec<Example>> = BTreeMap::new();
    let files = files_in(folder, &[".jsonl", ".jsonl.gz", ".jsonl.zst"])?;
    for (done, file) in files.iter().enumerate() {
        let error = |source| PolicyModelError::Documents { file: file.clone(), source };
        let (mut taken, mut left_out) = (0, 0);
        for document in document::read_jsonl(file).map_err(error)? {
            let document = document.map_err(error)?;
            if document.license.class() != LicenseClass::Permissive || !document.train() {
                left_out += 1;
                continue;
            }
            let Some(language) = languages::two_letters(&document.lang) else { continue };
            taken += 1;
            let text = passages::clean(&document.text);
            each_sentence(&text, |_, sentence| {
                let sentence = sentence.trim();
                if sentence.len() >= SHORTEST {
                    let rating = rating_of(sentence);
                    let example = Example::new(sentence.to_owned(), language, rating, Source::Documents);
                    found.entry(language).or_default().push(example);
                }
            });
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        report.line(&format!("{name}: {taken} documents, {left_out} left out for their license"));
        report.progress(done + 1, files.len(), "files of documents");
    }
    Ok(found)
}

/// The files of rated sentences: lines of a rating, a space, and the sentence.
pub fn sentences(folder: &Path) -> Result<Vec<Example>, PolicyModelError> {
    let mut examples = Vec::new();
    for file in files_in(folder, &[".txt"])? {
        let error = |source| PolicyModelError::File { file: file.clone(), source };
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let language = languages::two_letters(&stem).ok_or_else(|| {
            PolicyModelError::Data(format!("{}: named by no language; expected such as de.txt", file.display()))
        })?;
        for (number, line) in fs::read_to_string(&file).map_err(error)?.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let wrong = |what: String| PolicyModelError::Line { file: file.clone(), line: number + 1, what };
            let (rating, text) = line
                .split_once(' ')
                .ok_or_else(|| wrong("expected a rating, a space and a sentence, such as 'PG Some text.'".into()))?;
            let rating = rating.parse::<Rating>().map_err(|e| wrong(e.to_string()))?;
            examples.push(Example::new(text.trim().to_owned(), language, rating, Source::Sentences));
        }
    }
    match examples.is_empty() {
        true => Err(PolicyModelError::Data(format!(
            "{}: no rated sentences, expected files such as de.txt",
            folder.display()
        ))),
        false => Ok(examples),
    }
}

/// Pieces of innocent sentences, as they are and with terms of the rule's lists: `count` for each rating. A text that holds two
/// terms of severity X, one of severity R and perhaps more is X, as the rule asks for several.
pub fn terms(language: &'static str, innocent: &[&str], count: usize, random: &mut ChaCha8Rng) -> Vec<Example> {
    let of = |severity: Rating| -> Vec<&str> {
        rating::terms().filter(|t| t.language == language && t.severity == severity).map(|t| t.text).collect()
    };
    let (mild, strong, extreme) = (of(Rating::PG), of(Rating::R), of(Rating::X));
    let mut out = Vec::new();
    for rating in Rating::ALL {
        for _ in 0..count {
            let mut chosen: Vec<&str> = Vec::new();
            let add = |list: &[&'static str], chosen: &mut Vec<&'static str>, random: &mut ChaCha8Rng| {
                if !list.is_empty() {
                    chosen.push(list[random.random_range(0..list.len())]);
                }
            };
            match rating {
                Rating::G => {}
                Rating::PG => add(&mild, &mut chosen, random),
                Rating::R if random.random_range(0..5) == 0 => add(&extreme, &mut chosen, random),
                Rating::R => {
                    add(&strong, &mut chosen, random);
                    if random.random_range(0..3) == 0 {
                        add(if random.random_range(0..2) == 0 { &strong } else { &mild }, &mut chosen, random);
                    }
                }
                Rating::X => {
                    add(&extreme, &mut chosen, random);
                    add(&extreme, &mut chosen, random);
                    add(&strong, &mut chosen, random);
                }
            }
            if chosen.is_empty() && rating > Rating::G {
                continue; // this list has no terms of the severity
            }
            let text = set_in(innocent[random.random_range(0..innocent.len())], &chosen, random);
            out.push(Example::new(text, language, rating, Source::Terms));
        }
    }
    out
}

/// A piece of a sentence with these terms in it.
fn set_in(sentence: &str, terms: &[&str], random: &mut ChaCha8Rng) -> String {
    let spaced = sentence.split_whitespace().count() > 3;
    let (mut units, between): (Vec<String>, &str) = match spaced {
        true => (sentence.split_whitespace().map(str::to_owned).collect(), " "),
        false => (sentence.chars().map(String::from).collect(), ""),
    };
    let length = random.random_range(3..=10) * if spaced { 1 } else { 2 };
    let start = random.random_range(0..units.len().saturating_sub(length).max(1));
    units = units.into_iter().skip(start).take(length).collect();
    for term in terms {
        units.insert(random.random_range(0..=units.len()), (*term).to_owned());
    }
    units.join(between)
}

/// Sentences of generated stories.
pub fn stories(seed: u64, per_rating: usize) -> Vec<Example> {
    let mut generator = StoryGenerator::new(seed);
    let mut out = Vec::new();
    for rating in Rating::ALL {
        for _ in 0..per_rating {
            each_sentence(&generator.story(rating).text, |_, sentence| {
                let sentence = sentence.trim();
                if sentence.len() >= SHORTEST {
                    out.push(Example::new(sentence.to_owned(), "en", rating_of(sentence), Source::Stories));
                }
            });
        }
    }
    out
}

/// A tweet as the file has it.
#[derive(serde::Deserialize)]
struct Tweet {
    class: u8,
    tweet: String,
}

/// Labelled tweets as rated texts.
pub fn tweets(file: &Path) -> Result<Vec<Example>, PolicyModelError> {
    let rated = labelled_tweets(file)?.into_iter().map(|(class, text)| {
        let rating = if class < 2 { Rating::R } else { rating_of(&text).min(Rating::PG) };
        Example::new(text, "en", rating, Source::Tweets)
    });
    Ok(rated.collect())
}

/// The class (0: hate speech, 1: offensive language, 2: neither, by most of its judges) and the text of labelled tweets: a CSV
/// file, perhaps compressed by gzip, with columns `class` and `tweet`.
///
/// # Errors
/// When it cannot be read, or a class is another.
pub fn labelled_tweets(file: &Path) -> Result<Vec<(u8, String)>, PolicyModelError> {
    let error = |source| PolicyModelError::File { file: file.to_owned(), source };
    let opened = fs::File::open(file).map_err(error)?;
    let reader: Box<dyn Read> = match file.extension().is_some_and(|e| e == "gz") {
        true => Box::new(MultiGzDecoder::new(opened)),
        false => Box::new(opened),
    };
    let mut out = Vec::new();
    for (number, row) in csv::Reader::from_reader(reader).deserialize().enumerate() {
        let wrong = |what: String| PolicyModelError::Line { file: file.to_owned(), line: number + 2, what };
        let Tweet { class, tweet } = row.map_err(|e| wrong(format!("{e}; expected columns 'class' and 'tweet'")))?;
        if class > 2 {
            return Err(wrong(format!("the class is {class}, expected 0 (hate), 1 (offensive) or 2 (neither)")));
        }
        out.push((class, readable(&tweet)));
    }
    Ok(out)
}

/// A tweet without names, links and escapes.
pub fn readable(tweet: &str) -> String {
    let plain = tweet.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
    let keep = |word: &&str| {
        let escape = word.starts_with("&#") && word.ends_with(';');
        !(escape || word.starts_with('@') || word.contains("://") || *word == "RT")
    };
    plain.split_whitespace().filter(keep).collect::<Vec<_>>().join(" ")
}

/// The files of a folder with one of these endings, by name.
fn files_in(folder: &Path, endings: &[&str]) -> Result<Vec<PathBuf>, PolicyModelError> {
    let error = |source| PolicyModelError::File { file: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(error)? {
        let path = entry.map_err(error)?.path();
        if path.file_name().is_some_and(|name| endings.iter().any(|e| name.to_string_lossy().ends_with(e))) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn term_texts_have_their_terms_in_every_language() {
        for language in languages::all() {
            let innocent = ["one two three four five six seven", "天地玄黄宇宙洪荒"];
            let texts = terms(language, &innocent, 20, &mut ChaCha8Rng::seed_from_u64(1));
            for rating in [Rating::G, Rating::R, Rating::X] {
                assert_eq!(texts.iter().filter(|e| e.rating == rating).count(), 20, "{language} {rating}");
            }
            assert!(texts.iter().any(|e| e.rating == Rating::PG), "{language}");
            // What was set in is found by the rule, but for terms that count in a text of their language alone.
            let missed = texts.iter().filter(|e| e.rating >= Rating::R && rating_of(&e.text) == Rating::G).count();
            assert!(missed <= 30, "{language}: {missed} of 40");
        }
    }

    #[test]
    fn tweets_are_read_without_names_and_links() {
        assert_eq!(readable("!! RT @a_b: so &amp; so http://t.co/x &#8220; end"), "!! so & so end");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "a,class,tweet\n1,2,\"a quiet, nice day\"\n2,1,damn\n").unwrap();
        let read = tweets(file.path()).unwrap();
        assert_eq!(read.iter().map(|e| e.rating).collect::<Vec<_>>(), [Rating::G, Rating::R]);
        fs::write(file.path(), "a,class,tweet\n1,7,x\n").unwrap();
        assert!(tweets(file.path()).unwrap_err().to_string().contains("the class is 7"));
    }

    #[test]
    fn a_bad_line_of_sentences_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("de.txt"), "G Ein Satz.\n\nQ Noch einer.\n").unwrap();
        let error = sentences(folder.path()).unwrap_err().to_string();
        assert!(error.contains("de.txt:3: unknown rating \"Q\""), "{error}");
        fs::write(folder.path().join("de.txt"), "G Ein Satz.\n").unwrap();
        assert_eq!(sentences(folder.path()).unwrap().len(), 1);
        fs::write(folder.path().join("xx.txt"), "G Ein Satz.\n").unwrap();
        assert!(sentences(folder.path()).unwrap_err().to_string().contains("named by no language"));
    }
}
