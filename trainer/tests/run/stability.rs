//! A run whose data turns bad comes through without a person.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use safelmm_model::Rating;
use safelmm_trainer::config::{RunConfig, SpikeSection};
use safelmm_trainer::data::prepare;
use safelmm_trainer::dataset::{Dataset, Order, PassageWriter};
use safelmm_trainer::framing::frame;
use safelmm_trainer::ledger::{Event, Ledger};
use safelmm_trainer::pretrain::{Outcome, pretrain};
use safelmm_trainer::rating::StoryGenerator;
use safelmm_trainer::report::Report;
use safelmm_trainer::run_state::checkpoints;
use serde_json::json;

use crate::support::{config, losses};

const STEPS: usize = 60;
/// Updates whose data is poisoned.
const POISON: std::ops::Range<usize> = 36..46;

/// Data in which the passages of the updates [`POISON`] repeat one rare token, in one epoch.
fn poisoned(folder: &Path) -> RunConfig {
    let mut config = config();
    config.train.steps = STEPS;
    config.train.warmup_steps = 5;
    config.train.checkpoint_steps = 10;
    config.train.eval_steps = 1000;
    config.train.spikes = SpikeSection {
        after: 20,
        memory: 20,
        warn: 3.0,
        skip: 4.5,
        skips: 2,
        patience: 4,
        rollbacks: 3,
        ..SpikeSection::default()
    };
    // Documents, since stories are not cut: most are longer than the context.
    let mut generator = StoryGenerator::new(5);
    let line = |i: usize| {
        let text = generator.story(Rating::ALL[i % 4]).text;
        json!({"id": format!("s{i}"), "text": text, "lang": "en", "license": "CC0-1.0", "title": "T"}).to_string()
    };
    fs::write(folder.join("documents.jsonl"), (0..500).map(line).collect::<Vec<_>>().join("\n")).unwrap();
    let data = folder.join("data");
    let sources = prepare(&config, folder, None, &data, &mut Report::new()).unwrap();
    let file = data.join("train.safetensors");
    let mut passages = Dataset::read(&file).unwrap().passages;
    let rare = 600_u32;
    let mut order = Order::new(config.seed, sources.sources.iter().map(|s| s.repeat).collect());
    let (mut place, mut update, mut tokens) = (0, 0, 0);
    let micro_batches = config.train.batch_tokens / config.train.micro_batch_tokens;
    for micro_batch in 0..STEPS * micro_batches {
        tokens = 0;
        update = micro_batch / micro_batches;
        while tokens < config.train.micro_batch_tokens {
            let visit = order.visit(&passages, 0, place, config.data.untagged).expect("all in one epoch");
            tokens += frame(&passages[visit.passage].tokens, None).0.len();
            if POISON.contains(&update) {
                passages[visit.passage].tokens.fill(rare);
            }
            place += 1;
        }
    }
    assert!(update == STEPS - 1 && tokens > 0);
    let mut writer = PassageWriter::default();
    passages.into_iter().for_each(|passage| writer.push(passage));
    writer.write(&file).unwrap();
    config
}

#[test]
fn a_poisoned_window_is_left_behind_without_a_person() {
    let folder = tempfile::tempdir().unwrap();
    let config = poisoned(folder.path());
    let (data, whole, cut) = (folder.path().join("data"), folder.path().join("whole"), folder.path().join("cut"));
    let go = AtomicBool::new(false);
    let mut report = Report::new();
    assert_eq!(pretrain(&config, &data, &whole, None, &go, &mut report).unwrap(), Outcome::Finished);
    let reference = losses(&whole);
    let ledger = Ledger::open(&whole).unwrap();
    let rollbacks: Vec<_> = ledger.rollbacks().collect();
    assert!(!rollbacks.is_empty(), "{:?}", ledger.entries());
    let (to_step, from, until) = rollbacks[0];
    assert!((20..=POISON.start).contains(&to_step) && from < until, "{rollbacks:?}");
    let skipped = ledger.entries().iter().filter(|e| matches!(e.event, Event::Skipped { .. })).count();
    assert!(skipped > 0, "updates are left out before the run goes back: {:?}", ledger.entries());
    assert_eq!(reference.len(), STEPS);
    let before = reference[25..35].iter().sum::<f64>() / 10.0;
    let after = reference[50..].iter().sum::<f64>() / 10.0;
    assert!(after < before, "the loss goes on falling: {before} before, {after} after");
    let abandoned = fs::read_to_string(whole.join("log.abandoned.jsonl")).unwrap();
    assert!(abandoned.lines().count() > 0, "what was left can be looked at");

    // Stopped after every single update, before, in and behind the window, the run sees the same losses and the same ledger.
    let stop = AtomicBool::new(true);
    while pretrain(&config, &data, &cut, None, &stop, &mut report).unwrap() != Outcome::Finished {}
    assert_eq!(losses(&cut), reference);
    let events = |run: &Path| -> Vec<Event> {
        Ledger::open(run).unwrap().entries().iter().map(|entry| entry.event.clone()).collect()
    };
    assert_eq!(events(&cut), events(&whole));

    // A process that died between the ledger's line and what follows from it: checkpoints of the course that was left.
    let newest = checkpoints(&cut).unwrap().pop().unwrap();
    let state = fs::read_to_string(newest.join("state.json")).unwrap();
    let count = format!("\"rollbacks\": {}", rollbacks.len());
    assert!(state.contains(&count), "{state}");
    fs::write(newest.join("state.json"), state.replace(&count, "\"rollbacks\": 0")).unwrap();
    assert_eq!(pretrain(&config, &data, &cut, None, &go, &mut report).unwrap(), Outcome::Finished);
    assert_eq!(losses(&cut), reference);
}

#[test]
fn a_run_that_diverges_for_ever_ends_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = poisoned(folder.path());
    config.train.spikes.rollbacks = 0;
    let (data, run) = (folder.path().join("data"), folder.path().join("run"));
    let go = AtomicBool::new(false);
    let message = pretrain(&config, &data, &run, None, &go, &mut Report::new()).unwrap_err().to_string();
    assert!(message.contains("has diverged") && message.contains("ledger.jsonl"), "{message}");
}
