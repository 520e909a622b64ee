//! Runs on an NVIDIA GPU beside the CPU. Where no GPU answers, the tests say so and pass.

#![cfg(feature = "cuda")]

use std::path::Path;
use std::sync::atomic::AtomicBool;

use safelmm_model::Checkpoint;
use safelmm_model::device::{DeviceName, Precision};
use safelmm_trainer::config::RunConfig;
use safelmm_trainer::data::prepare;
use safelmm_trainer::export::export;
use safelmm_trainer::pretrain::{Outcome, pretrain};
use safelmm_trainer::report::Report;

use crate::support::{config, corpora, losses};

fn skips() -> bool {
    DeviceName::Cuda(0).open().inspect_err(|reason| eprintln!("skipped: {reason}")).is_err()
}

/// Twenty updates of a model whose shapes every kernel takes.
fn wide() -> RunConfig {
    let mut config = config();
    (config.model.hidden_size, config.model.intermediate_size, config.model.head_dim) = (64, 96, 32);
    config.tokenizer.vocab_size = 704;
    // A rate at which no loss jumps, since what a jump makes of rounding is chance.
    config.train.learning_rate = 1e-3;
    (config.train.steps, config.train.checkpoint_steps, config.train.statistics_steps) = (20, 10, 5);
    config
}

fn on(config: &RunConfig, device: DeviceName, precision: Precision) -> RunConfig {
    let mut config = config.clone();
    (config.train.device, config.train.precision) = (device, precision);
    config.validate().unwrap();
    config
}

fn apart(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn a_run_on_a_gpu_sees_the_losses_of_the_cpu() {
    if skips() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (config, data, go) = (wide(), folder.path().join("data"), AtomicBool::new(false));
    corpora(folder.path());
    prepare(&config, folder.path(), None, &data, &mut Report::new()).unwrap();
    let train = |config: &RunConfig, name: &str, stop: &AtomicBool| {
        let run = folder.path().join(name);
        (pretrain(config, &data, &run, None, stop, &mut Report::new()).unwrap(), run)
    };
    let gpu = DeviceName::Cuda(0);
    let found = |config: &RunConfig, name: &str| losses(&train(config, name, &go).1);
    let cpu = found(&on(&config, DeviceName::Cpu, Precision::F32), "cpu");
    let f32 = found(&on(&config, gpu, Precision::F32), "f32");
    let narrow = on(&config, gpu, Precision::Bf16);
    let bf16 = found(&narrow, "bf16");
    eprintln!("losses apart: f32 {:.1e}, bf16 {:.1e}", apart(&cpu, &f32), apart(&cpu, &bf16));
    assert!(cpu[19] < cpu[0] - 0.2, "{cpu:?}");
    assert!(apart(&cpu, &f32) < 1e-3, "{cpu:?} {f32:?}");
    assert!(apart(&cpu, &bf16) < 2e-2, "{cpu:?} {bf16:?}");

    // Stopped and gone on with, a run sees the same losses to the last bit.
    let stop = AtomicBool::new(true);
    for step in [1, 2, 3] {
        assert_eq!(train(&narrow, "cut", &stop).0, Outcome::Interrupted { step });
    }
    assert_eq!(found(&narrow, "cut"), bf16);

    // What the GPU began, the CPU goes on with, and the other way round.
    for (first, second) in [(gpu, DeviceName::Cpu), (DeviceName::Cpu, gpu)] {
        let name = format!("{first} and {second}");
        train(&on(&config, first, Precision::F32), &name, &stop);
        let both = found(&on(&config, second, Precision::F32), &name);
        assert!(apart(&cpu, &both) < 1e-3, "{name}: {cpu:?} {both:?}");
    }

    let out = folder.path().join("checkpoint");
    export(&data, &folder.path().join("bf16"), &out).unwrap();
    let card = Checkpoint::open(&out).unwrap().card().unwrap().training_precision.clone();
    assert!(card.starts_with("bf16"), "{card}");
}

#[test]
fn checkpointed_activations_change_no_loss_on_a_gpu() {
    if skips() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut config = on(&wide(), DeviceName::Cuda(0), Precision::Bf16);
    config.train.steps = 4;
    corpora(folder.path());
    prepare(&config, folder.path(), None, &data, &mut Report::new()).unwrap();
    let run = |config: &RunConfig, run: &Path| {
        pretrain(config, &data, run, None, &AtomicBool::new(false), &mut Report::new()).unwrap();
        losses(run)
    };
    let kept = run(&config, &folder.path().join("kept"));
    config.train.activation_checkpointing = true;
    assert_eq!(run(&config, &folder.path().join("again")), kept);
}
