//! A whole run in small: documents → data → training, interrupted and resumed → checkpoint → text.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use safelmm_model::{Checkpoint, Generation, GenerationRequest, Rating, SamplingParams, Work, step};
use safelmm_trainer::config::{Initialisation, RunConfig, SourceSection};
use safelmm_trainer::data::{DataError, Sources, prepare};
use safelmm_trainer::dataset::Dataset;
use safelmm_trainer::evaluate::{measure_bits, measure_control};
use safelmm_trainer::export::export;
use safelmm_trainer::memorisation::measure_memorisation;
use safelmm_trainer::origin::Start;
use safelmm_trainer::parameters::Parameters;
use safelmm_trainer::pretrain::{Outcome, PretrainError, pretrain};
use safelmm_trainer::rating::StoryGenerator;
use safelmm_trainer::report::Report;
use safelmm_trainer::run_state::checkpoints;
use safelmm_trainer::training::lock::LOCK;
use serde_json::{Value, json};

use crate::support::{CONFIG, config, corpora, losses};

#[test]
fn from_documents_to_a_served_text() {
    let folder = tempfile::tempdir().unwrap();
    let (data, whole, cut) = (folder.path().join("data"), folder.path().join("whole"), folder.path().join("cut"));
    let (config, mut report) = (config(), Report::new());
    corpora(folder.path());
    let sources = prepare(&config, folder.path(), None, &data, &mut report).unwrap();
    let documents = &sources.sources[0];
    assert_eq!(documents.documents + documents.heldout_documents, 12, "{documents:?}");
    assert_eq!(documents.left_out["license CC-BY-NC-4.0"], 6);
    assert_eq!(documents.left_out["license GPL-3.0-only"], 6);
    assert_eq!(Sources::read(&data).unwrap().0.sources[0].sha256, documents.sha256);
    let train = Dataset::read(&data.join("train.safetensors")).unwrap();
    let heldout = Dataset::read(&data.join("heldout.safetensors")).unwrap();
    assert!(heldout.passages.iter().any(|p| p.source == 0), "whole documents are held out");
    let control = |p: &safelmm_trainer::dataset::Passage| p.source == 0 && p.tokens.iter().any(|t| *t < 7);
    assert!(!train.passages.iter().chain(&heldout.passages).any(control), "control tokens come from no document");

    let go = AtomicBool::new(false);
    assert_eq!(pretrain(&config, &data, &whole, None, &go, &mut report).unwrap(), Outcome::Finished);
    let reference = losses(&whole);
    assert_eq!(reference.len(), 6);
    assert!(reference[5] < reference[0], "{reference:?}");
    assert_eq!(checkpoints(&whole).unwrap().len(), 2, "old checkpoints are deleted");

    // Stopped after every single step, the run sees the same losses to the last bit.
    let stop = AtomicBool::new(true);
    for at in 1..6 {
        assert_eq!(
            pretrain(&config, &data, &cut, None, &stop, &mut report).unwrap(),
            Outcome::Interrupted { step: at }
        );
    }
    assert_eq!(pretrain(&config, &data, &cut, None, &stop, &mut report).unwrap(), Outcome::Finished);
    assert_eq!(losses(&cut), reference);
    // A finished run has nothing left to do.
    assert_eq!(pretrain(&config, &data, &cut, None, &go, &mut report).unwrap(), Outcome::Finished);
    assert_eq!(losses(&cut).len(), 6);
    let weights = |run: &Path| fs::read(checkpoints(run).unwrap().pop().unwrap().join("model.safetensors")).unwrap();
    assert!(weights(&cut) == weights(&whole), "the weights differ");

    let out = folder.path().join("checkpoint");
    export(&data, &cut, &out).unwrap();
    let checkpoint = Checkpoint::open(&out).unwrap();
    assert_eq!((checkpoint.name(), checkpoint.rated(), checkpoint.context_length()), ("tiny", true, 384));
    for passage in train.passages.iter().chain(&heldout.passages) {
        let text = checkpoint.tokenizer.decode(&passage.tokens, true).unwrap();
        assert!(!text.contains("Xylophonically"), "non-commercial text was taken: {text}");
    }
    let licenses = checkpoint.provenance().unwrap()["sources"][0]["licenses"].as_object().unwrap();
    assert_eq!(licenses.keys().collect::<Vec<_>>(), ["CC-BY-SA-4.0", "CC0-1.0"]);
    let text = generate(&checkpoint, Some(Rating::G));
    assert_eq!(text, generate(&checkpoint, Some(Rating::G)));

    let bits = measure_bits(&checkpoint, &train, &heldout, &sources, &mut report).unwrap();
    assert!(bits.model < bits.untrained && bits.five_gram < bits.untrained, "{bits:?}");
    assert_eq!(bits.by_language.keys().collect::<Vec<_>>(), ["en"]);
    assert!((bits.by_language["en"].model - bits.model).abs() < 1e-12);
    let memorised = measure_memorisation(&checkpoint, &train, &heldout, 5, 1, &mut report).unwrap();
    assert_eq!((memorised.passages, memorised.verbatim), (5, 0.0), "six updates are too few: {memorised:?}");
    let control = measure_control(&checkpoint, 2, 4, 2.0, 1, &mut report).unwrap();
    assert_eq!(control.above_ceiling[&Rating::X].unconditioned, 0.0);
}

fn generate(checkpoint: &Checkpoint, rating: Option<Rating>) -> String {
    let request = GenerationRequest {
        rating,
        guidance: 1.5,
        sampling: SamplingParams { seed: Some(4), ..SamplingParams::default() },
        ignore_eos: true,
        ..GenerationRequest::new(checkpoint.tokenizer.encode("Once upon a time", false).unwrap(), 12)
    };
    let mut generation = Generation::new(checkpoint, request).unwrap();
    let (mut text, mut tokens) = (String::new(), 0);
    while !generation.is_finished() {
        let work = Work { generation: &mut generation, tokens: usize::MAX };
        for step in step(checkpoint, &mut [work]).unwrap().into_iter().filter_map(|progress| progress.step) {
            text.push_str(&step.text);
            tokens += 1;
        }
    }
    assert_eq!(tokens, 12);
    text
}

#[test]
fn damaged_checkpoints_other_settings_and_unusable_sources_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) = (folder.path().join("data"), folder.path().join("run"));
    let (mut config, mut report) = (config(), Report::new());
    corpora(folder.path());
    prepare(&config, folder.path(), None, &data, &mut report).unwrap();
    config.train.steps = 2;
    let go = AtomicBool::new(false);
    pretrain(&config, &data, &run, None, &go, &mut report).unwrap();
    let fails = |config: &RunConfig, words: &[&str]| {
        let message =
            pretrain(config, &data, &run, None, &AtomicBool::new(false), &mut Report::new()).unwrap_err().to_string();
        assert!(words.iter().all(|w| message.contains(w)), "{message}");
    };
    let mut other = config.clone();
    other.train.learning_rate = 1e-3;
    fails(&other, &["another configuration", "train"]);
    other = config.clone();
    other.data.untagged = 0.2;
    fails(&other, &["safelmm-train data", "data"]);
    let newest = checkpoints(&run).unwrap().pop().unwrap();
    let file = newest.join("optimizer.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    fails(&config, &["optimizer.safetensors", "hash"]);

    let only_non_commercial = json!({"id": "n", "text": "word ".repeat(200), "lang": "en", "license": "CC-BY-NC-4.0"});
    fs::write(folder.path().join("documents.jsonl"), only_non_commercial.to_string()).unwrap();
    match prepare(&config, folder.path(), None, &data, &mut report) {
        Err(error @ DataError::NothingLeft(..)) => assert!(error.to_string().contains("CC-BY-NC-4.0"), "{error}"),
        other => panic!("{other:?}"),
    }
    config.train.learning_rate = f64::NAN;
    assert!(config.validate().unwrap_err().to_string().contains("train.learning_rate"));
    let missing = PretrainError::OtherData("x".to_owned(), "seed").to_string();
    assert!(missing.contains("safelmm-train data"));
}

/// A process killed at any moment leaves lines of steps that no checkpoint holds, half a line, and half a checkpoint.
#[test]
fn what_a_killed_run_leaves_behind_is_cleared_away() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) = (folder.path().join("data"), folder.path().join("run"));
    let (config, mut report) = (config(), Report::new());
    corpora(folder.path());
    prepare(&config, folder.path(), None, &data, &mut report).unwrap();
    pretrain(&config, &data, &run, None, &AtomicBool::new(true), &mut report).unwrap();
    let first = losses(&run);
    let log = fs::read_to_string(run.join("log.jsonl")).unwrap();
    fs::write(run.join("log.jsonl"), format!("{log}{}{{\"step\":3,\"lo", log.replace(":1,", ":2,"))).unwrap();
    let half = run.join("step-00000009.part");
    fs::create_dir_all(&half).unwrap();
    assert_eq!(pretrain(&config, &data, &run, None, &AtomicBool::new(false), &mut report).unwrap(), Outcome::Finished);
    let all = losses(&run);
    assert_eq!((all.len(), all[0]), (6, first[0]));
    assert!(!half.exists());

    // Other data under the same settings is noticed, by a resumed run and by an export.
    let documents = folder.path().join("documents.jsonl");
    fs::write(&documents, fs::read_to_string(&documents).unwrap().replace(" the ", " that ")).unwrap();
    prepare(&config, folder.path(), None, &data, &mut report).unwrap();
    let message = pretrain(&config, &data, &run, None, &AtomicBool::new(false), &mut report).unwrap_err().to_string();
    assert!(message.contains("other prepared data"), "{message}");
    let message = export(&data, &run, &folder.path().join("out")).unwrap_err().to_string();
    assert!(message.contains("other prepared data"), "{message}");
}

/// A served checkpoint, the configuration that goes on from it, and data prepared with its tokenizer.
fn served(folder: &Path) -> (RunConfig, std::path::PathBuf, std::path::PathBuf) {
    let (data, base) = (folder.join("base-data"), folder.join("base"));
    let (mut config, mut report) = (config(), Report::new());
    corpora(folder);
    prepare(&config, folder, None, &data, &mut report).unwrap();
    pretrain(&config, &data, &folder.join("base-run"), None, &AtomicBool::new(false), &mut report).unwrap();
    export(&data, &folder.join("base-run"), &base).unwrap();
    let text = StoryGenerator::new(5).story(Rating::PG).text;
    let document = json!({"id": "more", "text": text, "lang": "en", "license": "CC0-1.0", "title": "More"});
    fs::write(folder.join("more.jsonl"), document.to_string()).unwrap();
    let more = SourceSection { file: "more.jsonl".into(), languages: vec![], repeat: 3.0, heldout: Some(0.0) };
    config.data.source.push(more);
    config.data.heldout = 0.5;
    config.name = "further".to_owned();
    let further = folder.join("data");
    prepare(&config, folder, Some(&base), &further, &mut report).unwrap();
    (config, base, further)
}

#[test]
fn a_run_begins_with_a_checkpoint_and_goes_on_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
    let (config, base, data) = served(folder.path());
    let (go, stop, mut report) = (AtomicBool::new(false), AtomicBool::new(true), Report::new());
    let sources = Sources::read(&data).unwrap().0;
    assert_eq!(sources.sources[1].heldout_documents, 0, "its own share of held-out documents counts");
    assert!(sources.sources[0].heldout_documents > 0);
    let tokenizer = |folder: &Path| fs::read(folder.join("tokenizer.json")).unwrap();
    assert!(tokenizer(&data) == tokenizer(&base), "the tokenizer is taken as it stands");

    // The weights are those of the folder, widened.
    let (parameters, _) = Parameters::initialise(&config.decoder(), Initialisation::Fixed, config.seed).unwrap();
    Start::read(&base, &config.decoder(), &data).unwrap().load(&parameters, &config.decoder()).unwrap();
    let weights = candle_core::safetensors::load(base.join("model.safetensors"), &Device::Cpu).unwrap();
    for (name, var) in parameters.iter() {
        let values = |t: &Tensor| t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(var.as_tensor()), values(&weights[name]), "{name}");
    }

    assert_eq!(pretrain(&config, &data, &whole, Some(&base), &go, &mut report).unwrap(), Outcome::Finished);
    for at in 1..6 {
        let outcome = pretrain(&config, &data, &cut, Some(&base), &stop, &mut report).unwrap();
        assert_eq!(outcome, Outcome::Interrupted { step: at });
    }
    pretrain(&config, &data, &cut, Some(&base), &stop, &mut report).unwrap();
    assert_eq!(losses(&cut), losses(&whole));
    let weights = |run: &Path| fs::read(checkpoints(run).unwrap().pop().unwrap().join("model.safetensors")).unwrap();
    assert!(weights(&cut) == weights(&whole), "the weights differ");
    let fresh = folder.path().join("fresh");
    pretrain(&config, &data, &fresh, None, &stop, &mut report).unwrap();
    assert!(losses(&whole)[0] < losses(&fresh)[0], "it knows more than a fresh one at its first step");

    // What it was trained on before stands in its record.
    let out = folder.path().join("further");
    export(&data, &cut, &out).unwrap();
    let checkpoint = Checkpoint::open(&out).unwrap();
    let (provenance, before) = (checkpoint.provenance().unwrap(), Checkpoint::open(&base).unwrap());
    assert_eq!(provenance["init"]["model"], "tiny");
    assert_eq!(&provenance["init"]["provenance"], before.provenance().unwrap());
    assert_eq!(provenance["tokenizer"]["model"], "tiny");
    assert!(provenance.get("tokenizer_settings_sha256").is_none(), "no settings made this tokenizer");

    // A run that goes on must have begun with the same weights.
    for (run, init) in [(&cut, None), (&fresh, Some(&*base)), (&cut, Some(&*out))] {
        let message = pretrain(&config, &data, run, init, &go, &mut report).unwrap_err().to_string();
        assert!(message.contains("began with") && message.contains("--init"), "{message}");
    }
}

#[test]
fn a_checkpoint_that_does_not_fit_a_run_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (config, base, data) = served(folder.path());
    let run = folder.path().join("run");
    let fails = |config: &RunConfig, data: &Path, init: &Path, words: &[&str]| {
        let stop = AtomicBool::new(true);
        let message = pretrain(config, data, &run, Some(init), &stop, &mut Report::new()).unwrap_err().to_string();
        assert!(words.iter().all(|w| message.contains(w)), "{message}");
        assert!(checkpoints(&run).unwrap().is_empty());
    };
    let mut other = config.clone();
    other.model.intermediate_size = 64;
    fails(&other, &data, &base, &["intermediate_size", "48", "64", "shapes must be equal"]);
    other = config.clone();
    other.model.rope_theta = 5e5;
    fails(&other, &data, &base, &["rope", "shapes must be equal"]);
    fails(&config, &data, folder.path(), &["config.json", "safelmm-train export"]);

    // Data with a tokenizer of its own: its ids mean something else.
    let (learnt, mut report) = (folder.path().join("learnt"), Report::new());
    prepare(&config, folder.path(), None, &learnt, &mut report).unwrap();
    fails(&config, &learnt, &base, &["tokenizer.json", "--tokenizer"]);
    other = config.clone();
    other.tokenizer.vocab_size = 800;
    let message = prepare(&other, folder.path(), Some(&base), &learnt, &mut report).unwrap_err().to_string();
    assert!(message.contains("700 tokens") && message.contains("tokenizer.vocab_size is 800"), "{message}");
    let json = fs::read_to_string(base.join("tokenizer.json")).unwrap();
    let spelt = folder.path().join("spelt");
    fs::create_dir_all(&spelt).unwrap();
    fs::copy(base.join("safelmm.json"), spelt.join("safelmm.json")).unwrap();
    fs::write(spelt.join("tokenizer.json"), json.replace("<|im_start|>", "<|im_begin|>")).unwrap();
    let message = prepare(&config, folder.path(), Some(&spelt), &learnt, &mut report).unwrap_err().to_string();
    assert!(message.contains("<|im_start|>") && message.contains("no id: expected 1"), "{message}");

    // A weight file that is cut short, and a checkpoint of which nobody knows what it was trained on.
    let weights = fs::read(base.join("model.safetensors")).unwrap();
    fs::write(base.join("model.safetensors"), &weights[..weights.len() - 1]).unwrap();
    fails(&config, &data, &base, &["model.safetensors", "cut short"]);
    fs::write(base.join("model.safetensors"), &weights).unwrap();
    fs::remove_file(base.join("provenance.json")).unwrap();
    fails(&config, &data, &base, &["provenance.json", "safelmm-train export"]);
}

/// The lines of a finished run, without what depends on the clock and the machine.
fn course(run: &Path) -> Vec<Value> {
    let log = fs::read_to_string(run.join("log.jsonl")).unwrap();
    log.lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            json!([line["step"], line["loss"], line["gradient_norm"], line["learning_rate"], line["tokens"]])
        })
        .collect()
}

/// The program itself, killed without warning again and again, at moments that depend on nothing but the clock.
#[test]
fn a_run_killed_at_any_moment_goes_on_with_the_same_losses() {
    let folder = tempfile::tempdir().unwrap();
    let (data, whole, cut) = (folder.path().join("data"), folder.path().join("whole"), folder.path().join("cut"));
    let (file, words) = (folder.path().join("train.toml"), folder.path().join("stderr"));
    fs::write(&file, CONFIG).unwrap();
    let (mut config, mut report) = (config(), Report::new());
    config.train.steps = 24;
    config.train.warmup_steps = 3;
    corpora(folder.path());
    prepare(&config, folder.path(), None, &data, &mut report).unwrap();
    pretrain(&config, &data, &whole, None, &AtomicBool::new(false), &mut report).unwrap();
    let start = || {
        Command::new(env!("CARGO_BIN_EXE_safelmm-train"))
            .args(["pretrain", "--set", "train.steps=24", "--set", "train.warmup_steps=3", "--config"])
            .arg(&file)
            .arg("--data")
            .arg(&data)
            .arg("--out")
            .arg(&cut)
            .stderr(fs::File::create(&words).unwrap())
            .spawn()
            .unwrap()
    };
    let (mut kills, mut seen) = (0, 0);
    loop {
        let mut process = start();
        let began = Instant::now();
        // Not before there is something new to lose, and then after a time that is different each time.
        let ended = loop {
            if let Some(status) = process.try_wait().unwrap() {
                break Some(status);
            }
            let lines = fs::read_to_string(cut.join("log.jsonl")).map_or(0, |log| log.lines().count());
            if lines > seen + 2 {
                std::thread::sleep(Duration::from_millis(kills * 7 % 40));
                process.kill().unwrap();
                process.wait().unwrap();
                seen = lines;
                break None;
            }
            assert!(began.elapsed() < Duration::from_secs(300), "the run does not get on");
            std::thread::sleep(Duration::from_millis(2));
        };
        match ended {
            Some(status) => {
                assert!(status.success(), "{status}: {}", fs::read_to_string(&words).unwrap());
                break;
            }
            None => kills += 1,
        }
    }
    assert!(kills > 1, "the run was over before it could be killed");
    assert_eq!(course(&cut), course(&whole), "after {kills} kills");
}

#[test]
fn settings_stand_over_a_preset_and_a_file_and_mistakes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("train.toml");
    // A preset has everything but the text and the number of updates.
    let text = CONFIG.split("[tokenizer]").next().unwrap().split("[model]").next().unwrap();
    let rest = "[tokenizer]\nbytes_per_language = 1\nenglish_bytes = 1\n[data]\nheldout = 0.1\nuntagged = 0.1\nsource = []\n\
                stories = {per_rating = 1, dialogues_per_rating = 1}\n[train]\nsteps = 5000\n";
    fs::write(&file, format!("{text}{rest}")).unwrap();
    let run = |more: &[&str]| {
        let command = [&["config", "--config", file.to_str().unwrap()], more].concat();
        let output = Command::new(env!("CARGO_BIN_EXE_safelmm-train")).args(command).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let (done, printed, _) = run(&["--preset", "7b", "--set", "train.z_loss=1e-3", "--set", "model.layers=2"]);
    let config: RunConfig = toml::from_str(&printed).unwrap();
    assert!(done && config.model.hidden_size == 4096 && config.model.layers == 2, "{printed}");
    assert_eq!((config.train.z_loss, config.train.learning_rate, config.train.steps), (1e-3, 3e-4, 5000));
    for (more, words) in [
        (&["--preset", "8b"][..], "160m"),
        (&["--preset", "7b", "--set", "train.z_loss"], "KEY=VALUE"),
        (&["--preset", "7b", "--set", "train.beta3=1"], "beta3"),
        (&["--preset", "7b", "--set", "train.beta2=1.5"], "train.beta2 is 1.5"),
        (&[], "missing field"),
    ] {
        let (done, _, error) = run(more);
        assert!(!done && error.contains(words), "{more:?}: {error}");
    }
    // What does not fit the machine is told before it is tried.
    let huge: RunConfig = toml::from_str(&run(&["--preset", "34b"]).1).unwrap();
    let message = pretrain(&huge, &file, folder.path(), None, &AtomicBool::new(false), &mut Report::new())
        .unwrap_err()
        .to_string();
    assert!(message.contains("GB of memory"), "{message}");
}

#[test]
fn a_device_or_a_precision_that_cannot_be_is_refused_before_anything_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let set = |device: &str, precision: &str| -> RunConfig {
        let settings = format!("device = \"{device}\"\nprecision = \"{precision}\"\n");
        toml::from_str(&format!("{CONFIG}{settings}")).unwrap()
    };
    let message = set("cpu", "bf16").validate().unwrap_err().to_string();
    assert!(message.contains("train.precision") && message.contains("train.device"), "{message}");
    set("cuda:1", "bf16").validate().unwrap();
    assert!(toml::from_str::<RunConfig>(&format!("{CONFIG}device = \"gpu\"\n")).is_err());
    if cfg!(not(feature = "metal")) {
        let (config, nothing) = (set("metal", "f32"), folder.path());
        let refused = pretrain(&config, nothing, nothing, None, &AtomicBool::new(false), &mut Report::silent());
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("train.device") && message.contains("--features metal"), "{message}");
    }
}

#[test]
fn a_folder_in_which_another_process_trains_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run, file) = (folder.path().join("data"), folder.path().join("run"), folder.path().join("train.toml"));
    let mut report = Report::silent();
    corpora(folder.path());
    fs::write(&file, CONFIG).unwrap();
    prepare(&config(), folder.path(), None, &data, &mut report).unwrap();
    fs::create_dir(&run).unwrap();
    let lock = fs::File::create(run.join(LOCK)).unwrap();
    lock.lock().unwrap();
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_safelmm-train"));
        let command = command.args(["pretrain", "--config"]).arg(&file).arg("--data").arg(&data);
        command.arg("--out").arg(&run).output().unwrap()
    };
    let refused = start();
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && message.contains("another process is training"), "{message}");
    assert!(checkpoints(&run).unwrap().is_empty());
    drop(lock);
    assert!(start().status.success());
    assert_eq!(losses(&run).len(), 6);
}

/// The most memory that a run in a process of its own held, in bytes.
fn peak_memory(folder: &Path, name: &str, settings: &[&str]) -> (u64, Vec<f64>) {
    let out = folder.join(name);
    let status = Command::new(env!("CARGO_BIN_EXE_safelmm-train"))
        .args(["pretrain", "--config"])
        .arg(folder.join("train.toml"))
        .args(settings.iter().flat_map(|setting| ["--set", setting]))
        .arg("--data")
        .arg(folder.join("data"))
        .arg("--out")
        .arg(&out)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let log = fs::read_to_string(out.join("log.jsonl")).unwrap();
    let last: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    (last["peak_memory_bytes"].as_u64().unwrap(), losses(&out))
}

#[test]
fn activation_checkpointing_takes_less_memory_and_sees_the_same_losses() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config();
    fs::write(folder.path().join("train.toml"), CONFIG).unwrap();
    corpora(folder.path());
    config.model.layers = 12;
    prepare(&config, folder.path(), None, &folder.path().join("data"), &mut Report::new()).unwrap();
    let settings = [
        "model.layers=12",
        "model.hidden_size=96",
        "model.intermediate_size=320",
        "train.steps=2",
        "train.batch_tokens=4096",
        "train.micro_batch_tokens=4096",
        "train.statistics_steps=0",
    ];
    let (plain, reference) = peak_memory(folder.path(), "plain", &settings);
    let with = [&settings[..], &["train.activation_checkpointing=true"]].concat();
    let (less, losses) = peak_memory(folder.path(), "less", &with);
    assert_eq!(losses, reference);
    assert!(less * 10 < plain * 7, "{less} bytes with, {plain} without");
}
