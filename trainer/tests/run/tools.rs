//! What a run writes, opened by the tools that it is written for. They are asked where there is a Python that has them,
//! which `SAFELMM_TEST_TRANSFORMERS` names.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use safelmm_model::{Checkpoint, Opening};
use safelmm_trainer::data::prepare;
use safelmm_trainer::finetune::{Exported, FinetuneConfig, export, finetune};
use safelmm_trainer::pretrain::pretrain;
use safelmm_trainer::report::Report;
use safelmm_trainer::training::Outcome;
use safelmm_trainer::watch::{LOG, Line, name_and_config, read_lines, write_wandb};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::support::{config, corpora};

/// The Python, where it has these modules; else the reason is printed.
fn python(modules: &[&str]) -> Option<PathBuf> {
    const FIND: &str =
        "import sys, importlib.util as u; sys.exit([m for m in sys.argv[1:] if not u.find_spec(m)] or 0)";
    let Some(python) = std::env::var_os("SAFELMM_TEST_TRANSFORMERS") else {
        println!("skipped: SAFELMM_TEST_TRANSFORMERS names no Python with {}", modules.join(", "));
        return None;
    };
    let found = Command::new(&python).args(["-c", FIND]).args(modules).output();
    if !found.is_ok_and(|output| output.status.success()) {
        println!("skipped: the Python of SAFELMM_TEST_TRANSFORMERS has not all of {}", modules.join(", "));
        return None;
    }
    Some(python.into())
}

/// What a program of the folder `tools` prints last.
fn ask<T: DeserializeOwned>(python: &Path, program: &str, arguments: &[&dyn AsRef<OsStr>]) -> T {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/run/tools").join(program);
    let output = Command::new(python).arg(file).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().unwrap_or_default())
        .unwrap_or_else(|e| panic!("{program}: {e}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// A run of six updates; the last two were made a second time, as after a kill behind the checkpoint of the fourth.
fn resumed_run(folder: &Path) -> PathBuf {
    let (data, run) = (folder.join("data"), folder.join("run"));
    let (mut config, mut report, go) = (config(), Report::new(), AtomicBool::new(false));
    config.train.statistics_steps = 3;
    report.peak = Some(1e12);
    corpora(folder);
    prepare(&config, folder, None, &data, &mut report).unwrap();
    pretrain(&config, &data, &run, None, &go, &mut report).unwrap();
    fs::remove_dir_all(run.join("step-00000006")).unwrap();
    pretrain(&config, &data, &run, None, &go, &mut report).unwrap();
    run
}

#[test]
fn tensorboard_reads_every_scalar_of_the_log_once() {
    let Some(python) = python(&["tensorboard"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let run = resumed_run(folder.path());
    let scalars: BTreeMap<String, Vec<(usize, f64)>> =
        ask(&python, "tensorboard_scalars.py", &[&run.join("tensorboard")]);
    let lines: Vec<Line> = read_lines(&run.join(LOG));
    type Figure = fn(&Line) -> Option<f64>;
    let of_log: [(&str, Figure); 8] = [
        ("train/loss", |line| Some(line.loss)),
        ("train/z_loss", |line| Some(line.z_loss)),
        ("train/gradient_norm", |line| Some(line.gradient_norm)),
        ("train/learning_rate", |line| Some(line.learning_rate)),
        ("speed/tokens_per_second", |line| Some(line.tokens_per_second)),
        ("speed/mfu", |line| line.mfu),
        ("machine/memory_bytes", |line| Some(line.memory_bytes as f64)),
        ("heldout/bits_per_byte", |line| line.heldout_bits_per_byte),
    ];
    assert_eq!(lines.len(), 6);
    for (tag, of) in of_log {
        // Event files hold f32.
        let expected: Vec<(usize, f64)> =
            lines.iter().filter_map(|line| Some((line.step, f64::from(of(line)? as f32)))).collect();
        assert!(!expected.is_empty());
        assert_eq!(scalars[tag], expected, "{tag}");
    }
    for tag in ["gradient_norm/0", "weight_norm/embedding", "activation_rms/1", "attention_logit/0"] {
        assert_eq!(scalars[tag].iter().map(|(step, _)| *step).collect::<Vec<_>>(), [1, 3, 6], "{tag}");
    }
}

#[test]
fn wandb_uploads_every_line_of_the_log() {
    #[derive(Deserialize)]
    struct Uploaded {
        synced: bool,
        runs: Vec<Value>,
        history: Vec<Value>,
        summary: Value,
        exitcode: Option<i32>,
    }
    let Some(python) = python(&["wandb"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let run = resumed_run(folder.path());
    let (name, config) = name_and_config(&run).unwrap();
    let offline = write_wandb(&run, &folder.path().join("wandb"), "trials", &name, config.as_ref()).unwrap();
    let uploaded: Uploaded = ask(&python, "wandb_sync.py", &[&offline]);
    assert!(uploaded.synced && uploaded.exitcode == Some(0));
    let first = &uploaded.runs[0];
    assert_eq!((&first["project"], &first["displayName"]), (&"trials".into(), &"tiny".into()));
    let theirs: Value = serde_json::from_str(first["config"].as_str().unwrap()).unwrap();
    let config = config.unwrap();
    for key in ["name", "seed", "model", "train"] {
        assert_eq!(plain(&theirs[key]["value"]), plain(&config[key]), "{key}");
    }
    let mut lines: Vec<Value> = read_lines(&run.join(LOG));
    assert_eq!(lines.len(), 6);
    for line in &mut lines {
        line["_step"] = line["step"].clone();
    }
    for (theirs, ours) in uploaded.history.iter().zip(&lines) {
        assert_eq!(plain(theirs), plain(ours));
    }
    assert_eq!(uploaded.history.len(), 6);
    assert_eq!(plain(&uploaded.summary), plain(&lines[5]));
}

/// Without the difference between 1 and 1.0, which others do not write.
fn plain(value: &Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().into(),
        Value::Array(values) => values.iter().map(plain).collect(),
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), plain(value))).collect(),
        other => other.clone(),
    }
}

/// A fine-tuning of the demo that is over soon.
const CHAT: &str = r#"
name = "soon"
seed = 5
context = 200
heldout = 0.1
[lora]
rank = 4
alpha = 8.0
target_modules = ["*_proj"]
[train]
steps = 3
batch_tokens = 1000
micro_batch_tokens = 500
learning_rate = 1e-2
final_learning_rate = 0.1
warmup_steps = 1
weight_decay = 0.0
beta1 = 0.9
beta2 = 0.99
clip_norm = 1.0
z_loss = 0.0
checkpoint_steps = 3
eval_steps = 3
"#;

#[test]
fn peft_finds_the_logits_and_the_weights_of_an_adapter_of_the_demo() {
    #[derive(Deserialize)]
    struct Theirs {
        adapter: Vec<f32>,
        merged: Vec<f32>,
        other: usize,
        far: usize,
        all: usize,
    }
    let Some(python) = python(&["torch", "transformers", "peft"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let demo = home.join("../demo/checkpoint");
    let config: FinetuneConfig = toml::from_str(CHAT).unwrap();
    let files = [home.join("instructions")];
    let done = finetune(&config, &demo, &files, &path("run"), &AtomicBool::new(false), &mut Report::new()).unwrap();
    assert_eq!(done, Outcome::Finished);
    assert_eq!(export(&demo, &path("run"), &path("adapter"), false).unwrap(), Exported::Adapter);
    assert_eq!(export(&demo, &path("run"), &path("merged"), true).unwrap(), Exported::Checkpoint);

    let plain = Checkpoint::open(&demo).unwrap();
    let tokens: Vec<u32> = plain.tokenizer.encode("The harbour was quiet, and the old captain said", false).unwrap();
    let logits = |checkpoint: Checkpoint| -> Vec<f32> {
        let hidden = checkpoint.decoder.forward(&[&tokens]).unwrap();
        checkpoint.decoder.logits(&hidden).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let distance = |a: &[f32], b: &[f32]| {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max)
    };
    let with = logits(
        Checkpoint::open_with(&demo, Opening { adapter: Some(&path("adapter")), ..Opening::default() }).unwrap(),
    );
    let merged = logits(Checkpoint::open(&path("merged")).unwrap());
    let plain = logits(plain);
    let tokens = serde_json::to_string(&tokens).unwrap();
    let theirs: Theirs = ask(&python, "peft_logits.py", &[&demo, &path("adapter"), &tokens, &path("merged")]);
    let learnt = distance(&plain, &with);
    assert!(learnt > 0.1, "the adapter changes something: {learnt}");
    // Logits of up to 20, in f32.
    let (adapter, whole) = (distance(&with, &theirs.adapter), distance(&merged, &theirs.merged));
    assert!(adapter < 1e-4 && whole < 1e-4, "peft: {adapter}, transformers: {whole}");
    // The merged folder holds peft's own merge, rounded to bf16: but for sums that lie where rounding turns.
    let (other, all) = (theirs.other, theirs.all);
    assert!(
        theirs.far == 0 && other * 1000 < all,
        "{other} of {all} weights differ, {} by more than a step",
        theirs.far
    );
    let rounding = distance(&with, &merged);
    assert!(rounding < 0.2 * learnt, "merging moved the logits by {rounding}, the adapter by {learnt}");
    println!("peft {adapter:e}, merged {whole:e}, {other} of {all} weights one step apart, rounding {rounding}");
}
