//! What stores give to a model that was not trained on their texts: perplexity in every mode of retrieval, and the share
//! of what training on the texts would have given; tokens that retrieval hurts; the size of a store; a document left out.
//!
//! `cargo run --release -p safelmm-benches --bin retrieval -- CORPORA --work WORK --reference DIR`

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use safelmm_benches::domains::{self, DOMAINS, Domain, Part};
use safelmm_benches::scoring::{Scores, Window, hurt, nats, score, windows};
use safelmm_benches::stores::{KeysOnly, access, build, checkpoint};
use safelmm_datastore::{Document, DocumentKey, Store};
use safelmm_model::Checkpoint;
use safelmm_server::retrieval::{
    Mixing, ModelEncoder, NeighbourSettings, PassageSettings, Ranking, Retrieval, Task, Tuning, gated, store_settings,
    tune,
};

// The server's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A token is hurt when its log-probability is lower by more than this, in nats.
const HURT: f32 = 0.01;
/// Passages are chosen anew after so many tokens: the server's default.
const STRIDE: usize = 64;
/// The share of the gap that is aimed at, SILO's share with neighbours, and what it loses without one document.
const AIM: f64 = 0.9;
const SILO_NEIGHBOURS: f64 = 0.76;
const SILO_LEFT_OUT: f64 = 0.8;
const MODES: [&str; 5] = ["parametric", "knn", "ric", "ngram", "hybrid"];

/// Measures what stores give to a model: documents of three collections that it was not trained on are split between a
/// store (80 %), tuning (10 %) and test (10 %); test text is scored as a request with `echo` scores it.
///
/// Test text is cut into windows, the same ones in every mode and for the yardstick: context less one passage. Each is
/// scored behind the start token alone. Passages are one of a quarter of the context, by BM25, chosen anew every 64 tokens.
///
/// Prints for each domain perplexities in every mode, and with --reference the share of the gap to it that each mode closes
/// (average over domains, each capped at 100 %, of logarithms); tokens hurt by a fixed λ and by the gate; perplexity with
/// an eighth to all of the store's documents; and the share of the gain that is given back without the document that gave most.
#[derive(Parser)]
struct Args {
    /// The folder of corpora: think-python, progit-en and brown-non-commercial as .jsonl.gz
    corpora: PathBuf,
    /// Where stores are built, and found again by the next run
    #[arg(long)]
    work: PathBuf,
    /// Checkpoint folder; the embedded demo without it
    #[arg(long)]
    model: Option<PathBuf>,
    /// A checkpoint of the same size that is trained on the store parts too (see `domain_reference`)
    #[arg(long)]
    reference: Option<PathBuf>,
    /// Domains to measure
    #[arg(long, value_delimiter = ',')]
    domains: Vec<String>,
    /// Test tokens of each domain, at most
    #[arg(long, default_value_t = 8192)]
    tokens: usize,
    /// Tuning tokens of each domain, at most
    #[arg(long, default_value_t = 32_768)]
    tuning_tokens: usize,
    /// Tokens of each store, at most: of a larger domain as many documents as they hold, drawn by a hash of their ids.
    /// The default takes all of the two small domains, and a fifth of the large one
    #[arg(long, default_value_t = 300_000)]
    store_tokens: usize,
    /// Documents that are left out, one after another, in each domain
    #[arg(long, default_value_t = 5)]
    left_out: usize,
    /// Draws test windows
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A domain, ready to be measured.
struct Field {
    domain: Domain,
    store: Store,
    tuning: Tuning,
    windows: Vec<Window>,
}

/// What the modes gave in a domain, in nats for each token.
struct Row {
    name: &'static str,
    modes: Vec<f64>,
    reference: Option<f64>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let model = checkpoint(args.model.as_deref())?;
    let encoder = ModelEncoder::new(Arc::clone(&model), None)?;
    let reference = args.reference.as_deref().map(|folder| checkpoint(Some(folder))).transpose()?;
    if let Some(reference) = &reference {
        let (own, other) = (model.config().vocab_size, reference.config().vocab_size);
        ensure!(own == other, "--reference has {other} tokens, the model {own}: they must share the tokenizer");
    }
    let mut rows = Vec::new();
    let mut rest = Vec::new();
    for domain in DOMAINS.into_iter().filter(|d| args.domains.is_empty() || args.domains.iter().any(|n| n == d.name)) {
        let file = args.corpora.join(format!("{}.jsonl.gz", domain.name));
        if !file.is_file() {
            println!("skipped {}: there is no {}", domain.name, file.display());
            continue;
        }
        let field = Field::open(domain, &args, &encoder)?;
        let (row, scores) = field.perplexities(&model, reference.as_ref())?;
        let mut lines = field.hurt(&scores);
        lines.extend(field.sizes(&model)?);
        lines.push(field.left_out(&model, &args)?);
        rows.push(row);
        rest.push((domain.name, lines));
    }
    table(&rows);
    for (name, lines) in rest {
        println!("\n{name}");
        lines.iter().for_each(|line| println!("  {line}"));
    }
    Ok(())
}

impl Field {
    fn open(domain: Domain, args: &Args, encoder: &ModelEncoder) -> Result<Field> {
        let mut parts = domains::read(&args.corpora, domain)?;
        let mut take = |part: Part| parts.remove(&part).unwrap_or_default();
        let (mut kept, tuning, test) = (take(Part::Store), take(Part::Tuning), take(Part::Test));
        let whole = kept.len();
        cut(&mut kept, args.store_tokens, encoder)?;
        let name = match kept.len() < whole {
            true => format!("{}-{}", domain.name, args.store_tokens),
            false => domain.name.to_owned(),
        };
        let store =
            build(&args.work.join(&name), store_settings(&name, encoder), kept.into_iter(), &KeysOnly(encoder))?;
        let texts: Vec<String> = tuning.into_iter().map(|document| document.text).collect();
        let (access, most_tokens) = (access(), args.tuning_tokens);
        let task = Task { store: &store, encoder, access: &access, texts: &texts, most_tokens };
        let tuning = tune(&task, &|_, _| {}, &AtomicBool::new(false))?;
        let windows = test_windows(encoder.checkpoint(), &store, &test, args)?;
        let tokens: usize = windows.iter().map(|window| window.tokens.len()).sum();
        let info = store.info();
        println!(
            "{}: store of {} documents (of {whole}), {} tokens; {tokens} test tokens of {} documents; knn: k {}, λ {:.3}, \
             τ {:.2}; hybrid: k {}, τ {:.2}",
            domain.name,
            info.documents,
            info.tokens,
            test.len(),
            tuning.neighbours.k,
            tuning.neighbours.lambda,
            tuning.neighbours.temperature,
            tuning.hybrid.k,
            tuning.hybrid.temperature
        );
        if let Some(found) = tuning.evaluation {
            println!(
                "  tuned on {} tokens, crossed halves: model {:.2}, knn {:.2}, ngram {:.2}, hybrid {:.2}, which asks neighbours for \
                 {:.0} % of the tokens",
                found.tokens,
                found.model,
                found.neighbours,
                found.ngram,
                found.hybrid,
                100.0 * found.searched
            );
        }
        Ok(Field { domain, store, tuning, windows })
    }

    fn retrieval(&self, mode: &str, exclude: &[String], recorded: bool) -> Option<Retrieval> {
        let Tuning { neighbours, ngram, hybrid, .. } = &self.tuning;
        let (k, temperature) = match mode {
            "hybrid" => (hybrid.k, hybrid.temperature),
            _ => (neighbours.k, neighbours.temperature),
        };
        let settings = NeighbourSettings { k, temperature };
        let mixing = match mode {
            "parametric" => return None,
            "knn" => Some(Mixing::Neighbours { lambda: neighbours.lambda }),
            "ngram" => Some(Mixing::Ngram(*ngram)),
            "hybrid" => Some(gated(&hybrid.gate)),
            _ => None,
        };
        let tokens = self.store.settings().passage_tokens;
        let passages =
            (mode == "ric").then_some(PassageSettings { count: 1, ranking: Ranking::Words, stride: STRIDE, tokens });
        let mixing = mixing.map(|mixing| (mixing, settings));
        Some(Retrieval { view: self.store.view(&access(), exclude), mixing, passages, recorded })
    }

    /// The first number: every mode, and the yardstick, on the same windows.
    fn perplexities(
        &self,
        model: &Arc<Checkpoint>,
        reference: Option<&Arc<Checkpoint>>,
    ) -> Result<(Row, BTreeMap<&'static str, Vec<Scores>>)> {
        let mut scores = BTreeMap::new();
        for mode in MODES {
            scores.insert(mode, score(model, &self.windows, self.retrieval(mode, &[], false).as_ref())?);
        }
        let reference =
            reference.map(|reference| anyhow::Ok(nats(&score(reference, &self.windows, None)?))).transpose()?;
        let modes = MODES.iter().map(|mode| nats(&scores[mode])).collect();
        Ok((Row { name: self.domain.name, modes, reference }, scores))
    }

    /// The second number.
    fn hurt(&self, scores: &BTreeMap<&'static str, Vec<Scores>>) -> Vec<String> {
        let share = |mode: &str| hurt(&scores[mode], &scores["parametric"], HURT);
        let (fixed, gate) = (share("knn"), share("hybrid"));
        vec![format!(
            "tokens hurt by more than {HURT} nats: fixed λ {:.1} %, gate {:.1} %, ratio {:.2} (ngram {:.1} %, ric {:.1} %)",
            fixed * 100.0,
            gate * 100.0,
            gate / fixed.max(f64::MIN_POSITIVE),
            share("ngram") * 100.0,
            share("ric") * 100.0
        )]
    }

    /// The third number: the store without some of its documents, with the parameters of the whole.
    fn sizes(&self, model: &Arc<Checkpoint>) -> Result<Vec<String>> {
        let mut ids: Vec<String> = self.store.documents()?.into_iter().map(|document| document.id).collect();
        ids.sort_by_key(|id| order(id));
        let mut lines = Vec::new();
        for (share, part) in [("1/8", 8), ("1/4", 4), ("1/2", 2), ("all", 1)] {
            let kept = ids.len().div_ceil(part);
            let scores = score(model, &self.windows, self.retrieval("hybrid", &ids[kept..], false).as_ref())?;
            lines.push(format!(
                "hybrid with {share:>3} of the documents ({kept}): perplexity {:.2}",
                nats(&scores).exp()
            ));
        }
        Ok(lines)
    }

    /// The fourth number: for some test documents, the store document that gave most is left out.
    fn left_out(&self, model: &Arc<Checkpoint>, args: &Args) -> Result<String> {
        let documents: BTreeSet<usize> = self.windows.iter().map(|window| window.document).collect();
        let (mut gain, mut lost, mut pairs) = (0.0, 0.0, Vec::new());
        let mut used = BTreeSet::new();
        for document in documents.into_iter().take(args.left_out) {
            let own: Vec<Window> = self.windows.iter().filter(|window| window.document == document).cloned().collect();
            let Some(all) = self.retrieval("hybrid", &[], true) else { continue };
            let with = score(model, &own, Some(&all))?;
            let mut masses: BTreeMap<DocumentKey, f32> = BTreeMap::new();
            for (key, share) in with.iter().flat_map(|scores| &scores.shares) {
                *masses.entry(*key).or_default() += share;
            }
            let Some((key, mass)) = masses.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)) else { continue };
            let info = all.view.document(key).context("a document that gave something is in the store")?;
            let without = score(model, &own, self.retrieval("hybrid", std::slice::from_ref(&info.id), false).as_ref())?;
            let alone = score(model, &own, None)?;
            let count: usize = own.iter().map(|window| window.tokens.len()).sum();
            let sum = |scores: &[Scores]| nats(scores) * count as f64;
            gain += sum(&alone) - sum(&with);
            lost += sum(&without) - sum(&with);
            pairs.push((info.id.clone(), mass));
            used.insert(info.id);
        }
        let shares: Vec<f32> = pairs.iter().map(|(_, mass)| *mass).collect();
        Ok(format!(
            "without the document that gave most ({} pairs, {} documents, mass {:.1} tokens on average): {:.1} % of the gain \
             is given back; SILO: {:.0} %",
            pairs.len(),
            used.len(),
            shares.iter().sum::<f32>() / (shares.len() as f32).max(1.0),
            100.0 * lost / f64::max(gain, f64::MIN_POSITIVE),
            SILO_LEFT_OUT * 100.0
        ))
    }
}

/// Keeps as many documents as some tokens hold, in an order that has nothing to do with their names.
fn cut(documents: &mut Vec<Document>, most: usize, encoder: &ModelEncoder) -> Result<()> {
    documents.sort_by_key(|document| order(&document.id));
    let mut room = most;
    let mut kept = 0;
    for document in documents.iter() {
        let tokens = encoder.checkpoint().tokenizer.encode(&document.text, false)?.len();
        if tokens > room {
            break;
        }
        room -= tokens;
        kept += 1;
    }
    ensure!(kept > 0, "--store-tokens {most} holds no document: give more");
    documents.truncate(kept);
    Ok(())
}

/// Windows of the test documents, all of a document next to each other.
fn test_windows(model: &Checkpoint, store: &Store, test: &[Document], args: &Args) -> Result<Vec<Window>> {
    let length = model.context_length() - 2 - store.settings().passage_tokens;
    let texts: Vec<&str> = test.iter().map(|document| &document.text[..]).collect();
    let mut windows = windows(model, &texts, length, args.tokens, args.seed)?;
    windows.sort_by_key(|window| window.document);
    Ok(windows)
}

/// An order of documents that has nothing to do with their names.
fn order(id: &str) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    Sha256::digest(id).into()
}

fn table(rows: &[Row]) {
    println!("\nperplexity");
    print!("{:<22}", "domain");
    MODES.iter().for_each(|mode| print!(" {mode:>11}"));
    println!(" {:>11}", "reference");
    for row in rows {
        print!("{:<22}", row.name);
        row.modes.iter().for_each(|nats| print!(" {:>11.2}", nats.exp()));
        println!(" {:>11}", row.reference.map_or("-".to_owned(), |nats| format!("{:.2}", nats.exp())));
    }
    if rows.iter().any(|row| row.reference.is_none()) {
        println!("\nwithout --reference there is no gap to measure against");
        return;
    }
    println!(
        "\nshare of the gap to the reference that a mode closes, over the domains\n\
         perplexity: (P_parametric − P_mode) / (P_parametric − P_reference); log: the same of log-perplexities\n\
         average: mean of the shares; capped: of the shares, each at most 100 %"
    );
    println!("{:<12} {:>10} {:>10} {:>13} {:>12}", "mode", "average", "capped", "log, average", "log, capped");
    for (i, mode) in MODES.iter().enumerate().skip(1) {
        let shares = |of: &dyn Fn(f64) -> f64| -> Vec<f64> {
            let gap =
                |row: &Row| row.reference.map(|r| (of(row.modes[0]) - of(row.modes[i])) / (of(row.modes[0]) - of(r)));
            rows.iter().filter_map(gap).collect()
        };
        let (plain, log) = (shares(&f64::exp), shares(&|nats| nats));
        let mean = |shares: &[f64]| shares.iter().sum::<f64>() / (shares.len() as f64).max(1.0);
        let capped = |shares: &[f64]| mean(&shares.iter().map(|share| share.min(1.0)).collect::<Vec<_>>());
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        print!("{mode:<12} {:>10} {:>10}", percent(mean(&plain)), percent(capped(&plain)));
        println!(" {:>13} {:>12}", percent(mean(&log)), percent(capped(&log)));
        if *mode == "hybrid" {
            println!(
                "aim: {:.0} % capped, ratio to the aim {:.2}; SILO's neighbours: {:.0} %",
                AIM * 100.0,
                capped(&plain) / AIM,
                SILO_NEIGHBOURS * 100.0
            );
        }
        if plain.len() > 1 {
            let each: Vec<String> =
                rows.iter().zip(&plain).map(|(r, s)| format!("{} {}", r.name, percent(*s))).collect();
            println!("  {}", each.join(", "));
        }
    }
}
