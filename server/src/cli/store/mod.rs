//! `safelmm store`.

mod args;
mod progress;

use std::fs;
use std::io::{self, Read, Write, stdout};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use safelmm_datastore::gate::GateTable;
use safelmm_datastore::sources::{self, SourceDefaults};
use safelmm_datastore::{
    Access, AddOptions, DocumentError, EncodeError, Rating, Receipt, ReceiptError, Selector, Store, StoreError,
    StoreInfo, StoreSettings, Use,
};
use safelmm_model::{CheckpointError, Encoder, EncoderError};

pub use args::{
    AccessArgs, AddArgs, CreateArgs, InspectArgs, ModelArgs, RemoveArgs, SearchArgs, StoreCommand, TraceArgs, TuneArgs,
    VerifyArgs, WhichArgs,
};

use super::load::load;
use super::log::say;
use crate::retrieval::{
    Attached, Evaluation, ModelEncoder, StoresError, Task, Text, TuneError, Tuning, Tunings, open_store,
    store_settings, tune, verbatim,
};
use progress::Progress;

/// Why a command on stores failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreFailure {
    /// The store cannot do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store cannot be opened with this model.
    #[error(transparent)]
    Stores(#[from] StoresError),
    /// A source cannot be read.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The model cannot be opened.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The encoder of passages cannot be opened.
    #[error("--embeddings: {0}")]
    Encoder(#[from] EncoderError),
    /// The model cannot encode.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// No parameters were found.
    #[error(transparent)]
    Tune(#[from] TuneError),
    /// A receipt does not hold.
    #[error("{}: the receipt does not hold: {source}", file.display())]
    Receipt {
        /// The file.
        file: PathBuf,
        /// Why.
        source: ReceiptError,
    },
    /// A file is no receipt.
    #[error("{}: not a receipt: {source}", file.display())]
    NoReceipt {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Something is damaged.
    #[error("{0} problems found: restore the store from a copy, or make it again from its documents")]
    Damaged(usize),
    /// The folder has no name that a store could have.
    #[error("{}: a store needs a folder with a name, or --name", .0.display())]
    NoName(PathBuf),
    /// A file cannot be read, or nothing can be written.
    #[error("{}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Parameters cannot be written down.
    #[error("the parameters cannot be written: {0}")]
    Json(#[from] serde_json::Error),
    /// By Ctrl-C.
    #[error("stopped; what was committed stays, and the same command goes on from there")]
    Interrupted,
}

type Outcome = Result<(), StoreFailure>;

/// Runs a command on stores.
///
/// # Errors
/// [`StoreFailure`].
pub fn store(command: StoreCommand) -> Outcome {
    match command {
        StoreCommand::Create(args) => create(args),
        StoreCommand::Add(args) => add(args),
        StoreCommand::List { folder } => list(&folder),
        StoreCommand::Inspect(args) => inspect(args),
        StoreCommand::Search(args) => search(args),
        StoreCommand::Remove(args) => remove(args),
        StoreCommand::Compact { store } => compact(&store),
        StoreCommand::Verify(args) => verify(args),
        StoreCommand::Tune(args) => tune_store(args),
        StoreCommand::Trace(args) => trace(args),
    }
}

fn print(text: &str) -> Outcome {
    let mut out = stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        // A reader that has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|source| StoreFailure::Io { file: "standard output".into(), source }),
    }
}

fn encoder(args: &ModelArgs) -> Result<ModelEncoder, StoreFailure> {
    let sentences = args.embeddings.as_deref().map(Encoder::open).transpose()?.map(Arc::new);
    Ok(ModelEncoder::new(Arc::new(load(args.model.as_deref(), None, args.quantize)?), sentences)?)
}

fn access(args: &AccessArgs) -> Access {
    Access {
        declared_use: args.declared_use.into(),
        rating_ceiling: Some(args.rating),
        attributed: true,
        table: GateTable::default(),
    }
}

fn create(args: CreateArgs) -> Outcome {
    let CreateArgs { store, name, passage_tokens, model } = args;
    let of_folder = || store.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.or_else(of_folder).ok_or_else(|| StoreFailure::NoName(store.clone()))?;
    let encoder = encoder(&model)?;
    let mut settings = store_settings(&name, &encoder);
    if let Some(tokens) = passage_tokens {
        settings = StoreSettings { passage_tokens: tokens, passage_stride: tokens.div_ceil(2), ..settings };
    }
    let made = Store::create(&store, settings)?;
    print(&format!("made the store '{name}' in {}; its receipts' key is {}\n", store.display(), made.public_key()))
}

fn add(args: AddArgs) -> Outcome {
    let encoder = encoder(&args.model)?;
    let attached = open_store(&args.store, &encoder)?;
    attached.check_passages(&encoder)?;
    let Attached { store, .. } = attached;
    let defaults = SourceDefaults {
        license: args.license,
        rating: args.rating,
        author: args.author,
        lang: args.lang,
        rights_holder: args.rights_holder,
        url: args.url,
        source: args.collection,
        permissions: None,
    };
    let sources = args.sources.iter().map(|path| sources::open(path, &defaults)).collect::<Result<Vec<_>, _>>()?;
    let options =
        AddOptions { skip_bad: args.skip_bad, commit_every_tokens: args.commit_every.max(1), ..AddOptions::default() };
    let (progress, stop) = (Progress::new("tokens"), watch_interrupt());
    let added = store.add(
        &mut sources.into_iter().flatten(),
        &encoder,
        &options,
        &|at| progress.at(at.tokens, None, &format!("{} documents read, {} committed", at.read, at.committed)),
        &stop,
    );
    progress.finish();
    let added = added?;
    added.skipped.iter().for_each(|why| say(&format!("passed over: {why}\n")));
    print(&format!(
        "{} added, {} replaced, {} unchanged, {} passed over; {} tokens\n",
        added.added, added.replaced, added.unchanged, added.skipped_count, added.tokens
    ))?;
    if store.documents()?.iter().any(|document| document.rating == Rating::X) && args.rating.is_none() {
        say(
            "some documents count as X, for requests up to X alone: name a rating with --rating where they bear none\n",
        );
    }
    store.close()?;
    if added.stopped { Err(StoreFailure::Interrupted) } else { Ok(()) }
}

fn list(folder: &Path) -> Outcome {
    let failed = |source| StoreFailure::Io { file: folder.to_owned(), source };
    let mut entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for path in entries.iter().map(fs::DirEntry::path).filter(|path| path.join("manifest.json").is_file()) {
        match Store::open(&path) {
            Ok(store) => print(&format!("{}\n", line(&store.info())))?,
            Err(error) => print(&format!("{}: {error}\n", path.display()))?,
        }
    }
    Ok(())
}

fn line(info: &StoreInfo) -> String {
    let licenses: Vec<String> = info.licenses.iter().map(|(license, n)| format!("{n} {license}")).collect();
    let mut line = format!("{}: {} documents, {} tokens", info.settings.name, info.documents, info.tokens);
    if !licenses.is_empty() {
        line += &format!(" ({})", licenses.join(", "));
    }
    if info.dead > 0 {
        line += &format!(", {} removed ones to be erased by compaction", info.dead);
    }
    line
}

fn inspect(args: InspectArgs) -> Outcome {
    let store = Store::open(&args.store)?;
    if args.receipts {
        for receipt in store.receipts()? {
            print(&format!("{}\n", serde_json::to_string(&receipt)?))?;
        }
        return Ok(());
    }
    let info = store.info();
    let StoreSettings { model_fingerprint, dim, key_layer, passage_tokens, .. } = &info.settings;
    print(&format!(
        "{}\nmodel {model_fingerprint}\nkeys of {dim} numbers, layer {key_layer}; passages of {passage_tokens} tokens\n\
         {} segments, commit {}\nreceipts signed by {}\n",
        line(&info),
        info.segments,
        info.sequence,
        info.public_key,
    ))?;
    let Tunings(tunings) = Tunings::of(&info)?;
    for (set, tuning) in &tunings {
        print(&format!("tuned for {set}: {}\n", described(tuning)))?;
    }
    if args.documents {
        for document in store.documents()? {
            let title = if document.title.is_empty() { String::new() } else { format!(", {:?}", document.title) };
            let (id, license, rating, tokens) = (&document.id, &document.license, document.rating, document.tokens);
            print(&format!("{id}{title}, {license}, {rating}, {tokens} tokens\n"))?;
        }
    }
    Ok(())
}

fn search(args: SearchArgs) -> Outcome {
    let (view, passages) = match args.dense {
        false => {
            let view = Store::open(&args.store)?.view(&access(&args.access), &[]);
            let passages = view.passages_bm25(&args.query, args.n)?;
            (view, passages)
        }
        true => {
            let encoder = encoder(&args.model)?;
            let attached = open_store(&args.store, &encoder)?;
            attached.check_passages(&encoder)?;
            let view = attached.store.view(&access(&args.access), &[]);
            let passages = view.passages_dense(&encoder.passages().embed(&args.query)?, args.n)?;
            (view, passages)
        }
    };
    for passage in &passages {
        if let (Some(info), Some(text)) = (view.document(passage.document), view.passage_text(passage)) {
            print(&format!(
                "{:.3}  {}, {:?}, {}\n{}\n\n",
                passage.score,
                info.id,
                info.title,
                info.license,
                text.trim()
            ))?;
        }
    }
    if passages.is_empty() {
        say("nothing found that this use and this rating may see\n");
    }
    Ok(())
}

fn remove(args: RemoveArgs) -> Outcome {
    let store = Store::open(&args.store)?;
    let WhichArgs { id, author, rights_holder, url } = args.which;
    let selector = id.map(Selector::Id).or(author.map(Selector::Author)).or(rights_holder.map(Selector::RightsHolder));
    // The group of arguments has exactly one of them.
    let selector = selector.unwrap_or_else(|| Selector::Url(url.unwrap_or_default()));
    match store.remove(&selector)? {
        None => say("no such document: nothing was removed\n"),
        Some(receipt) => {
            let count = receipt.statement.documents.len();
            print(&format!("{}\n", serde_json::to_string_pretty(&receipt)?))?;
            say(&format!("{count} removed; `safelmm store compact` erases the bytes\n"));
        }
    }
    Ok(store.close()?)
}

fn compact(folder: &Path) -> Outcome {
    let store = Store::open(folder)?;
    let (progress, stop) = (Progress::new("tokens"), watch_interrupt());
    let compacted = store.compact(&|at| progress.at(at.done, Some(at.total), ""), &stop);
    progress.finish();
    let compacted = compacted?;
    if let Some(receipt) = &compacted.receipt {
        print(&format!("{}\n", serde_json::to_string_pretty(receipt)?))?;
    }
    say(&format!(
        "{} documents erased; {} segments became {}\n",
        compacted.erased, compacted.segments_before, compacted.segments_after
    ));
    Ok(store.close()?)
}

fn verify(args: VerifyArgs) -> Outcome {
    if let Some(file) = args.receipt {
        let text = fs::read_to_string(&file).map_err(|source| StoreFailure::Io { file: file.clone(), source })?;
        let parsed: Result<Receipt, _> = serde_json::from_str(&text);
        let receipt = parsed.map_err(|source| StoreFailure::NoReceipt { file: file.clone(), source })?;
        let key = match args.public_key {
            Some(key) => key,
            None => Store::open(&args.store)?.public_key(),
        };
        receipt.verify(&key).map_err(|source| StoreFailure::Receipt { file, source })?;
        let statement = &receipt.statement;
        let (event, count, time) = (&statement.event, statement.documents.len(), &statement.time);
        return print(&format!("the receipt holds: {event:?}, {count} documents, at {time}\n"));
    }
    let report = Store::verify(&args.store)?;
    for problem in &report.problems {
        print(&format!("{problem}\n"))?;
    }
    say(&format!("{} files, {} bytes, {} documents read\n", report.files, report.bytes, report.documents));
    match report.problems.len() {
        0 => print("everything is as it was written\n"),
        problems => Err(StoreFailure::Damaged(problems)),
    }
}

fn tune_store(args: TuneArgs) -> Outcome {
    let encoder = encoder(&args.model)?;
    let Attached { store, .. } = open_store(&args.store, &encoder)?;
    // Their licenses do not matter here: they are read once, and nothing of them is kept but a few weights.
    let defaults = SourceDefaults { license: "LicenseRef-tuning".parse().ok(), ..SourceDefaults::default() };
    let mut texts = Vec::new();
    for source in &args.texts {
        for document in sources::open(source, &defaults)? {
            texts.push(document?.text);
        }
    }
    let stop = watch_interrupt();
    let mut tunings = Tunings::default();
    // One search for each set of documents that requests can meet.
    for declared_use in [Use::Commercial, Use::NonCommercial] {
        for rating in Rating::ALL {
            let access =
                Access { declared_use, rating_ceiling: Some(rating), attributed: true, table: GateTable::default() };
            let view = store.view(&access, &[]);
            if view.is_empty() || tunings.has(&view) {
                continue;
            }
            let licenses: Vec<String> = view.licenses().iter().map(ToString::to_string).collect();
            say(&format!(
                "for what {} requests up to {rating} may use ({})\n",
                name(declared_use),
                licenses.join(", ")
            ));
            let progress = Progress::new("tokens");
            let (store, encoder, texts, most_tokens) = (&store, &encoder, &texts[..], args.tokens);
            let task = Task { store, encoder, access: &access, texts, most_tokens };
            let found = tune(&task, &|done, total| progress.at(done as u64, Some(total as u64), ""), &stop);
            progress.finish();
            match found {
                Ok(tuning) => {
                    print(&format!("{}\n", described(&tuning)))?;
                    tunings.insert(&view, tuning);
                }
                Err(TuneError::TooLittle(found, expected)) if !tunings.0.is_empty() => {
                    say(&format!("left at the defaults: {}\n", TuneError::TooLittle(found, expected)));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    store.set_tuning(Some(serde_json::to_value(&tunings)?))?;
    Ok(store.close()?)
}

fn name(declared: Use) -> &'static str {
    match declared {
        Use::Commercial => "commercial",
        Use::NonCommercial => "non-commercial",
    }
}

fn described(tuning: &Tuning) -> String {
    let Tuning { neighbours: near, ngram, hybrid, evaluation } = tuning;
    let mut text = format!(
        "knn: k {}, lambda {:.3}, temperature {:.3}; ngram: lambda {:.3} sparse, {:.3} dense; hybrid: k {}, temperature {:.3}",
        near.k, near.lambda, near.temperature, ngram.sparse, ngram.dense, hybrid.k, hybrid.temperature
    );
    if let Some(Evaluation { tokens, model, neighbours, ngram, hybrid, searched }) = evaluation {
        text += &format!(
            "; perplexity of {tokens} tokens: model {model:.2}, knn {neighbours:.2}, ngram {ngram:.2}, hybrid {hybrid:.2}, \
             which asks neighbours for {:.0} % of the tokens",
            100.0 * searched
        );
    }
    text
}

fn trace(args: TraceArgs) -> Outcome {
    let encoder = encoder(&args.model)?;
    let Attached { store, .. } = open_store(&args.store, &encoder)?;
    let text = match args.text.as_str() {
        "-" => {
            let mut text = String::new();
            let read = io::stdin().lock().read_to_string(&mut text);
            read.map_err(|source| StoreFailure::Io { file: "standard input".into(), source })?;
            text
        }
        text => text.to_owned(),
    };
    let (tokens, bytes) = safelmm_datastore::StoreEncoder::tokenize(&encoder, &text)?;
    let view = store.view(&access(&args.access), &[]);
    let found = verbatim(&Text::of_bytes(&text, tokens, &bytes), args.min_tokens.max(2), &view, None);
    for stretch in &found {
        print(&format!(
            "{}..{}  {}, {:?}, {}\n{:?}\n",
            stretch.start, stretch.end, stretch.document, stretch.title, stretch.license, stretch.text
        ))?;
    }
    if found.is_empty() {
        say(&format!("no stretch of {} tokens stands in what this use and this rating may see\n", args.min_tokens));
    }
    Ok(())
}

/// A flag that the first Ctrl-C sets; the second ends the program at once.
fn watch_interrupt() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    // Where signals cannot be watched, Ctrl-C ends the program as usual; the store is built to survive that.
    let watched = super::interrupt::watch(&stop);
    if let Err(error) = watched {
        say(&format!("Ctrl-C cannot be watched ({error})\n"));
    }
    stop
}
