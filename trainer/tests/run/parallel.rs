//! Runs on several workers, which are threads here; `tests/mpi.sh` compares processes in the same way.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::thread;

use safelmm_trainer::comm::local;
use safelmm_trainer::config::{ParallelSection, RunConfig};
use safelmm_trainer::data::prepare;
use safelmm_trainer::pretrain::{Outcome, pretrain_with};
use safelmm_trainer::report::Report;
use safelmm_trainer::run_state::checkpoints;
use serde_json::Value;

use crate::support::{CONFIG, corpora, losses};

/// A model whose heads can be divided, on updates of four micro-batches.
fn config(steps: usize) -> RunConfig {
    let text = CONFIG
        .replace("heads = 2\nkv_heads = 1\nhead_dim = 16", "heads = 4\nkv_heads = 2\nhead_dim = 8")
        .replace("batch_tokens = 800\nmicro_", "batch_tokens = 1600\nmicro_");
    let mut config: RunConfig = toml::from_str(&text).unwrap();
    config.train.steps = steps;
    config.train.learning_rate = 2e-3;
    config.train.checkpoint_steps = steps;
    config.train.eval_steps = steps;
    config.validate().unwrap();
    config
}

fn prepared(folder: &Path, config: &RunConfig) -> PathBuf {
    let data = folder.join("data");
    corpora(folder);
    prepare(config, folder, None, &data, &mut Report::new()).unwrap();
    data
}

/// Runs `workers` threads; what each of them came to.
fn train(config: &RunConfig, workers: usize, data: &Path, run: &Path, stop: bool) -> Vec<Result<Outcome, String>> {
    let stop = &AtomicBool::new(stop);
    thread::scope(|scope| {
        let work = |world| {
            scope.spawn(move || {
                pretrain_with(&world, config, data, run, None, stop, &mut Report::silent()).map_err(|e| e.to_string())
            })
        };
        let threads: Vec<_> = local::world(workers).into_iter().map(work).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn files(run: &Path) -> [Vec<u8>; 2] {
    let newest = checkpoints(run).unwrap().pop().unwrap();
    ["model.safetensors", "optimizer.safetensors"].map(|name| fs::read(newest.join(name)).unwrap())
}

#[test]
fn copies_of_the_model_train_as_one_process_to_the_last_bit() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(50);
    let data = prepared(folder.path(), &config);
    let one = folder.path().join("one");
    assert_eq!(train(&config, 1, &data, &one, false), [Ok(Outcome::Finished)]);
    let reference = losses(&one);
    assert!(reference.len() == 50 && reference[49] < reference[0] - 0.5, "{reference:?}");
    for (workers, zero) in [(2, false), (4, false), (1, true), (2, true), (4, true)] {
        let run = folder.path().join(format!("{workers}-{zero}"));
        config.parallel = ParallelSection { data: Some(workers), zero, ..ParallelSection::default() };
        for outcome in train(&config, workers, &data, &run, false) {
            assert_eq!(outcome, Ok(Outcome::Finished));
        }
        assert_eq!(losses(&run), reference, "{workers} workers, zero = {zero}");
        assert!(files(&run) == files(&one), "the checkpoints of {workers} workers, zero = {zero}, differ");
        let logs = |run: &Path| fs::read_to_string(run.join("statistics.jsonl")).unwrap();
        assert_eq!(logs(&run), logs(&one), "{workers} workers, zero = {zero}");
    }
}

#[test]
fn a_run_goes_on_with_any_number_of_workers_to_the_last_bit() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(8);
    let data = prepared(folder.path(), &config);
    let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
    assert_eq!(train(&config, 1, &data, &whole, false), [Ok(Outcome::Finished)]);
    let layouts = [(1, false), (2, false), (4, false), (1, true), (2, true), (4, true), (2, false)];
    for (step, (workers, zero)) in layouts.into_iter().enumerate() {
        config.parallel = ParallelSection { zero, ..ParallelSection::default() };
        for outcome in train(&config, workers, &data, &cut, true) {
            assert_eq!(outcome, Ok(Outcome::Interrupted { step: step + 1 }), "{workers} workers, zero = {zero}");
        }
    }
    assert_eq!(train(&config, 1, &data, &cut, false), [Ok(Outcome::Finished)]);
    assert_eq!(losses(&cut), losses(&whole));
    assert!(files(&cut) == files(&whole), "the weights or moments differ");
}

/// (workers, tensor, pipeline, zero)
const DIVIDED: [(usize, usize, usize, bool); 6] =
    [(2, 2, 1, false), (2, 1, 2, false), (4, 2, 2, false), (4, 2, 1, true), (4, 1, 2, true), (8, 2, 2, true)];

#[test]
fn a_divided_model_trains_as_one_process_to_rounding() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(50);
    let data = prepared(folder.path(), &config);
    let one = folder.path().join("one");
    assert_eq!(train(&config, 1, &data, &one, false), [Ok(Outcome::Finished)]);
    let (reference, statistics) = (losses(&one), statistics(&one));
    for (workers, tensor, pipeline, zero) in DIVIDED {
        let run = folder.path().join(format!("{workers}-{tensor}-{pipeline}"));
        config.parallel = ParallelSection { tensor, pipeline, zero, ..ParallelSection::default() };
        for outcome in train(&config, workers, &data, &run, false) {
            assert_eq!(outcome, Ok(Outcome::Finished));
        }
        let found = losses(&run);
        assert_eq!(found.len(), reference.len());
        let most = found.iter().zip(&reference).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(most < 1e-5, "{:?}: the losses differ by {most}", config.parallel);
        for ((name, found), (expected_name, expected)) in self::statistics(&run).iter().zip(&statistics) {
            assert_eq!(name, expected_name);
            assert!((found - expected).abs() <= 1e-3 * expected.abs(), "{name}: {found} is not {expected}");
        }
        // The weights that a run begins with are the same to the last bit.
        let first = |run: &Path| fs::read(run.join("step-00000000/model.safetensors")).unwrap();
        assert!(first(&run) == first(&one), "{:?}: other first weights", config.parallel);
        let bits = |run: &Path| last_line(run)["heldout_bits_per_byte"].as_f64().unwrap();
        assert!((bits(&run) - bits(&one)).abs() < 1e-4, "{} is not {}", bits(&run), bits(&one));
    }
}

#[test]
fn a_run_goes_on_with_any_layout() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(8);
    let data = prepared(folder.path(), &config);
    let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
    assert_eq!(train(&config, 1, &data, &whole, false), [Ok(Outcome::Finished)]);
    for (step, (workers, tensor, pipeline, zero)) in DIVIDED.into_iter().enumerate() {
        config.parallel = ParallelSection { tensor, pipeline, zero, ..ParallelSection::default() };
        for outcome in train(&config, workers, &data, &cut, true) {
            assert_eq!(outcome, Ok(Outcome::Interrupted { step: step + 1 }), "{:?}", config.parallel);
        }
    }
    config.parallel = ParallelSection::default();
    assert_eq!(train(&config, 1, &data, &cut, false), [Ok(Outcome::Finished)]);
    let most = losses(&cut).iter().zip(losses(&whole)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(losses(&cut).len() == 8 && most < 1e-5, "the losses differ by {most}");
}

fn last_line(run: &Path) -> Value {
    serde_json::from_str(fs::read_to_string(run.join("log.jsonl")).unwrap().lines().last().unwrap()).unwrap()
}

/// Every figure of the looks into the layers, with its name.
fn statistics(run: &Path) -> Vec<(String, f64)> {
    let text = fs::read_to_string(run.join("statistics.jsonl")).unwrap();
    let mut figures = Vec::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        for layer in line["layers"].as_array().unwrap() {
            let numbers = layer.as_object().unwrap().iter().filter_map(|(key, value)| Some((key, value.as_f64()?)));
            figures.extend(numbers.map(|(key, n)| (format!("{} {} {key}", line["step"], layer["layer"]), n)));
        }
    }
    assert!(!figures.is_empty());
    figures
}

#[test]
fn workers_leave_the_course_and_go_back_together() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(12);
    config.train.checkpoint_steps = 2;
    // The loss counts as risen where it is above its mean at all, so that the run goes back soon.
    config.train.learning_rate = 0.5;
    config.train.warmup_steps = 6;
    config.train.spikes.after = 2;
    config.train.spikes.patience = 2;
    config.train.spikes.rise = 0.2;
    let data = prepared(folder.path(), &config);
    let ledger = |run: &Path| {
        let text = fs::read_to_string(run.join("ledger.jsonl")).unwrap();
        let strip =
            |line: &str| line.split(',').filter(|part| !part.contains("\"time\"")).collect::<Vec<_>>().join(",");
        text.lines().map(strip).collect::<Vec<String>>()
    };
    let one = folder.path().join("one");
    let outcomes = train(&config, 1, &data, &one, false);
    assert!(ledger(&one).iter().any(|line| line.contains("rolled-back")), "{:?}", ledger(&one));
    for zero in [false, true] {
        config.parallel.zero = zero;
        let run = folder.path().join(format!("two-{zero}"));
        for outcome in train(&config, 2, &data, &run, false) {
            match (&outcome, &outcomes[0]) {
                (Err(message), Err(_)) => assert!(message.contains("diverged"), "{message}"),
                (outcome, expected) => assert_eq!(outcome, expected),
            }
        }
        assert_eq!(ledger(&run), ledger(&one));
        assert_eq!(losses(&run), losses(&one));
    }
}

#[test]
fn workers_share_no_gpu() {
    let (mut config, folder) = (config(2), tempfile::tempdir().unwrap());
    config.train.device = "cuda".parse().unwrap();
    for refused in train(&config, 2, folder.path(), folder.path(), false) {
        let message = refused.unwrap_err();
        assert!(message.contains("train.device is cuda") && message.contains("2 workers"), "{message}");
    }
}

#[test]
fn a_layout_that_cannot_be_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(2);
    let data = prepared(folder.path(), &config);
    for (workers, copies, words) in [
        (2, Some(4), ["the number of processes is 2", "parallel.data = 4"]),
        (3, None, ["the number of copies of the model is 3", "a divisor of the 4 micro-batches"]),
    ] {
        config.parallel.data = copies;
        for outcome in train(&config, workers, &data, &folder.path().join("run"), false) {
            let message = outcome.unwrap_err();
            assert!(words.iter().all(|w| message.contains(w)), "{message}");
        }
    }
    let divided = |tensor, pipeline| ParallelSection { tensor, pipeline, ..ParallelSection::default() };
    for (workers, parallel, words) in [
        (3, divided(2, 1), ["the number of processes is 3", "2, the processes of one copy of the model"]),
        (4, divided(4, 1), ["4 workers cannot share a layer", "key and value heads is 2: expected a multiple of 4"]),
        (3, divided(1, 3), ["parallel.pipeline is 3", "at most the 2 layers"]),
    ] {
        config.parallel = parallel;
        for outcome in train(&config, workers, &data, &folder.path().join("run"), false) {
            let message = outcome.unwrap_err();
            assert!(words.iter().all(|w| message.contains(w)), "{message}");
        }
    }
    config.parallel.data = Some(0);
    assert!(config.validate().unwrap_err().to_string().contains("parallel.data is 0: expected from 1"));
}
