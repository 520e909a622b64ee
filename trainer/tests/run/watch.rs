//! What a run leaves for people and their tools.

use std::fs;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use safelmm_trainer::data::prepare;
use safelmm_trainer::pretrain::pretrain;
use safelmm_trainer::report::Report;
use safelmm_trainer::watch::{Look, read_lines};

use crate::support::{config, corpora};

#[test]
fn a_run_leaves_logs_events_statistics_and_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) = (folder.path().join("data"), folder.path().join("run"));
    let (mut config, mut report) = (config(), Report::new());
    config.train.statistics_steps = 3;
    report.peak = Some(1e12);
    corpora(folder.path());
    prepare(&config, folder.path(), None, &data, &mut report).unwrap();
    pretrain(&config, &data, &run, None, &AtomicBool::new(false), &mut report).unwrap();
    let looks: Vec<Look> = read_lines(&run.join("statistics.jsonl"));
    assert_eq!(looks.iter().map(|look| look.step).collect::<Vec<_>>(), [1, 3, 6]);
    for look in &looks {
        let parts: Vec<&str> = look.layers.iter().map(|layer| &layer.layer[..]).collect();
        assert_eq!(parts, ["0", "1", "embedding", "norm"]);
        assert!(look.layers.iter().all(|layer| layer.gradient_norm > 0.0 && layer.weight_norm > 0.0));
        let activations = look.layers[1].activations.unwrap();
        // With norms on queries and keys whose weights are about 1, no score is far beyond √d.
        assert!(activations.rms > 0.0 && activations.largest >= activations.rms, "{activations:?}");
        assert!(activations.attention_logit > 0.0 && activations.attention_logit < 5.0, "{activations:?}");
    }
    // The parts' norms are those of the whole.
    let log = fs::read_to_string(run.join("log.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    let whole = looks[0].layers.iter().map(|layer| layer.gradient_norm.powi(2)).sum::<f64>().sqrt();
    assert!((whole / first["gradient_norm"].as_f64().unwrap() - 1.0).abs() < 1e-6);
    assert!(first["mfu"].as_f64().unwrap() > 0.0 && first["memory_bytes"].as_u64().unwrap() > 1_000_000);
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("<h1>tiny</h1>") && page.matches("<svg").count() >= 10, "{}", page.len());
    assert!(!page.contains("http://") && !page.contains("https://"), "nothing comes from elsewhere");
    let events = fs::read_dir(run.join("tensorboard")).unwrap().count();
    assert_eq!(events, 1);

    let output = Command::new(env!("CARGO_BIN_EXE_safelmm-train"))
        .arg("report")
        .arg(&run)
        .arg("--wandb")
        .arg(folder.path().join("wandb"))
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && told.contains("wandb sync"), "{told}");
    let output = Command::new(env!("CARGO_BIN_EXE_safelmm-train")).arg("report").arg(folder.path()).output().unwrap();
    assert!(!output.status.success() && String::from_utf8(output.stderr).unwrap().contains("log.jsonl"));
}
