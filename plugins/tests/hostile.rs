//! Components that mean ill, or are broken: none stops the host, each is answered as its operator chose.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in helpers too")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use safelmm_plugins::host::{
    Limits, LoadError, Observer, OnError, POLICY_FAILURE, Reported, Sandbox, SandboxLimits, WasmPolicy, WasmSettings,
};
use safelmm_plugins::{
    Answer, Candidates, Document, Hook, Judgement, Passage, Pipeline, Policy, RequestContext, Selection, Verdict,
};
use support::{ADJUST, Guest, INSPECT, PASSAGES, REVIEW, SCREEN, foreign};

const ALL: &[u8] = &[SCREEN, PASSAGES, ADJUST, INSPECT, REVIEW];

fn sandbox() -> Sandbox {
    static SANDBOX: Mutex<Option<Sandbox>> = Mutex::new(None);
    let mut sandbox = SANDBOX.lock().unwrap();
    let limits = SandboxLimits { instances: 32, file_bytes: 1 << 20, ..SandboxLimits::default() };
    sandbox.get_or_insert_with(|| Sandbox::new(limits, None).unwrap()).clone()
}

fn request() -> RequestContext {
    RequestContext {
        id: "1".into(),
        model: "m".into(),
        caller: None,
        rating: None,
        declared_use: None,
        route: "/v1/completions",
        language: None,
    }
}

fn document() -> Document {
    Document {
        id: "d".into(),
        store: "s".into(),
        title: "t".into(),
        author: "a".into(),
        license: "CC-BY-4.0".into(),
        url: "u".into(),
        language: None,
        rating: None,
        obligations: vec![],
    }
}

fn passages() -> Vec<Passage> {
    ["one", "two"].map(|text| Passage { source: document(), score: 1.0, text: text.into() }).into()
}

/// Limits that make a test short.
fn limits() -> Limits {
    Limits {
        fuel: 1_000_000,
        fuel_per_byte: 1000,
        startup_fuel: 5_000_000,
        deadline: Duration::from_millis(200),
        memory_bytes: 1 << 20,
        instances: 4,
    }
}

/// Keeps the kinds of failures.
#[derive(Default)]
struct Kinds(Mutex<Vec<Result<&'static str, &'static str>>>);

impl Observer for Kinds {
    fn called(&self, call: &Reported<'_>) {
        assert_eq!(call.plugin, "hostile");
        self.0.lock().unwrap().push(call.outcome);
    }
}

fn settings(kinds: &Arc<Kinds>) -> WasmSettings {
    WasmSettings { limits: limits(), observer: Some(kinds.clone()), ..WasmSettings::new("hostile", "test") }
}

fn load(bytes: &[u8]) -> Result<WasmPolicy, LoadError> {
    WasmPolicy::load(&sandbox(), bytes, settings(&Arc::default()))
}

fn refused(bytes: &[u8]) -> String {
    match load(bytes) {
        Ok(_) => panic!("it was loaded"),
        Err(error) => error.to_string(),
    }
}

/// A body at `screen-prompt`: the kind of its failure; and it is the operator's choice that decides, each time.
fn fails_with(screen: &str, change: impl Fn(&mut Guest)) -> &'static str {
    let mut guest = Guest::new(&[SCREEN]);
    guest.screen = screen.to_owned();
    change(&mut guest);
    let bytes = guest.build();
    let kinds = Arc::<Kinds>::default();
    for (on_error, verdict) in [(OnError::Block, Verdict::Deny), (OnError::Allow, Verdict::Flag)] {
        let policy = WasmPolicy::load(&sandbox(), &bytes, WasmSettings { on_error, ..settings(&kinds) }).unwrap();
        for _ in 0..2 {
            let judgement = policy.screen_prompt(&request(), "text");
            assert_eq!(judgement.verdict(), verdict);
            assert_eq!(judgement.findings()[0].category, POLICY_FAILURE);
        }
    }
    let kinds = kinds.0.lock().unwrap();
    assert!(kinds.iter().all(|kind| kind == &kinds[0]), "{kinds:?}");
    kinds[0].unwrap_err()
}

#[test]
fn an_endless_loop_runs_out_of_fuel() {
    assert_eq!(fails_with("(loop (br 0)) unreachable", |_| {}), "fuel");
}

#[test]
fn time_without_instructions_ends_at_the_deadline() {
    let begun = Instant::now();
    // A megabyte for one instruction, again and again.
    let fill = "(loop (memory.fill (i32.const 0) (i32.const 0) (i32.const 1048576)) (br 0)) unreachable";
    let kind = fails_with(fill, |guest| guest.pages = 16);
    assert!(["deadline", "fuel"].contains(&kind), "{kind}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn memory_deep_recursion_and_panics_trap() {
    let bomb = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 8)) (i32.const -1)))) unreachable";
    assert_eq!(fails_with(bomb, |_| {}), "trap");
    let recursion = "(drop (call $deep (i64.const 1))) unreachable";
    let deep = "(func $deep (param i64) (result i64)
                  (i64.add (local.get 0) (call $deep (i64.add (local.get 0) (i64.const 1)))))";
    assert_eq!(fails_with(recursion, |guest| guest.fields = deep.to_owned()), "trap");
    assert_eq!(fails_with("unreachable", |_| {}), "trap");
    assert_eq!(fails_with("(i32.div_u (i32.const 1) (i32.const 0))", |_| {}), "trap");
    assert_eq!(fails_with("i32.const 0x7ffffff0", |_| {}), "trap", "an answer outside its memory");
    assert_eq!(fails_with("i32.const 1", |_| {}), "trap", "an answer that is not aligned");
}

#[test]
fn huge_and_lying_strings_are_not_copied() {
    // A reason of half a megabyte in its memory, and one that would reach beyond it.
    for (len, expected) in [(500_000_u32, "answer"), (0x7fff_0000, "trap"), (u32::MAX, "trap")] {
        let kind = fails_with("", |guest| {
            guest.pages = 12;
            let category = guest.string("test");
            let finding = guest.words(&[category[0], category[1], 1.0_f32.to_bits(), 131_072, len, 0, 0, 0]);
            guest.screen = guest.deny([finding, 1]);
        });
        assert_eq!(kind, expected, "{len}");
    }
    for findings in [1_u32 << 14, 1 << 27, u32::MAX] {
        let kind = fails_with("", |guest| guest.screen = guest.deny([0, findings]));
        assert!(["trap", "answer"].contains(&kind), "{findings}: {kind}");
    }
    // More than one call may bring over.
    let limits = Limits { memory_bytes: 32 << 20, fuel: 100_000_000, ..limits() };
    let mut guest = Guest::new(&[SCREEN]);
    guest.pages = 256;
    let findings = guest.finding("test", 1.0, None);
    let rewriting = guest.words(&[2, 65536, 10 << 20, findings[0], findings[1]]);
    guest.screen = format!("i32.const {rewriting}");
    let kinds = Arc::<Kinds>::default();
    let settings = WasmSettings { limits, ..settings(&kinds) };
    let policy = WasmPolicy::load(&sandbox(), &guest.build(), settings).unwrap();
    assert_eq!(policy.screen_prompt(&request(), "x").verdict(), Verdict::Deny);
    assert_eq!(*kinds.0.lock().unwrap(), [Err("trap")]);
}

#[test]
fn impossible_findings_are_failures() {
    for (category, score, span) in [
        ("other", 1.0, None),
        ("test", 1.5, None),
        ("test", f32::NAN, None),
        ("test", 1.0, Some((0, 5))),
        ("test", 1.0, Some((3, 2))),
    ] {
        let kind = fails_with("", |guest| {
            let findings = guest.finding(category, score, span);
            guest.screen = guest.flag(findings);
        });
        assert_eq!(kind, "answer", "{category} {score} {span:?}");
    }
    assert_eq!(fails_with("", |guest| guest.screen = guest.deny([0, 0])), "answer", "a denial without a reason");
    // Between the two bytes of a character.
    let mut guest = Guest::new(&[SCREEN]);
    let findings = guest.finding("test", 1.0, Some((0, 1)));
    guest.screen = guest.flag(findings);
    let policy = load(&guest.build()).unwrap();
    assert_eq!(policy.screen_prompt(&request(), "é").findings()[0].category, POLICY_FAILURE);
    assert_eq!(policy.screen_prompt(&request(), "ee").findings()[0].category, "test");
}

#[test]
fn ten_megabytes_of_log_are_cut() {
    // One line of ten megabytes does not come over at all; ten thousand lines are cut off after a few.
    let line = "(call $log (i32.const 1) (i32.const 0) (i32.const 10485760)) unreachable";
    let limits = Limits { memory_bytes: 32 << 20, ..limits() };
    let mut guest = Guest::new(&[SCREEN]);
    (guest.screen, guest.pages) = (line.to_owned(), 200);
    let kinds = Arc::<Kinds>::default();
    let policy = WasmPolicy::load(&sandbox(), &guest.build(), WasmSettings { limits, ..settings(&kinds) }).unwrap();
    assert_eq!(policy.screen_prompt(&request(), "x").verdict(), Verdict::Deny);
    assert_eq!(*kinds.0.lock().unwrap(), [Err("trap")]);

    let mut guest = Guest::new(&[SCREEN]);
    guest.screen = format!(
        "(loop (call $log (i32.const 1) (i32.const 0) (i32.const 1024))
           (global.set $lines (i32.add (global.get $lines) (i32.const 1)))
           (br_if 0 (i32.lt_u (global.get $lines) (i32.const 10000)))) {}",
        guest.screen
    );
    guest.fields = "(global $lines (mut i32) (i32.const 0))".to_owned();
    let begun = Instant::now();
    assert_eq!(load(&guest.build()).unwrap().screen_prompt(&request(), "x"), Judgement::Allow);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn lies_about_lengths_are_failures() {
    let mut guest = Guest::new(ALL);
    let one = guest.words(&[0; 8]);
    // One verdict on two passages; biases of two lengths; more held than there is.
    guest.passages = format!("i32.const {}", guest.words(&[one, 1]));
    let (ids, values) = (guest.words(&[1, 2]), guest.words(&[0]));
    guest.adjust = format!("i32.const {}", guest.words(&[ids, 2, values, 1]));
    guest.inspect = guest.hold(3);
    let policy = load(&guest.build()).unwrap();
    let judged = policy.filter_passages(&request(), &passages());
    assert!(judged.len() == 2 && judged.iter().all(|judgement| judgement.verdict() == Verdict::Deny));

    let pipeline = Pipeline::new(vec![Arc::new(policy)], vec![], Selection::default());
    let scope = pipeline.scope(request());
    let answer = Answer::new(scope.clone(), "prompt");
    let mut logits = [0.5, 0.25];
    assert!(answer.adjust(None, &mut logits).is_err());
    assert_eq!(logits, [0.5, 0.25]);
    let cleared = Answer::new(scope.clone(), "prompt").guard().push("ab");
    assert!(cleared.stopped && cleared.text.is_empty());
    let hooks: Vec<Hook> = scope.entries().iter().map(|entry| entry.hook).collect();
    assert_eq!(hooks, [Hook::AdjustLogits, Hook::InspectStream]);
    assert!(scope.entries().iter().all(|entry| entry.category == POLICY_FAILURE && entry.verdict == Verdict::Deny));
}

#[test]
fn biases_that_are_no_numbers_are_failures_and_minus_infinity_is_one() {
    for (value, allowed) in [(f32::NAN, false), (f32::INFINITY, false), (f32::NEG_INFINITY, true), (2.5, true)] {
        let mut guest = Guest::new(&[ADJUST]);
        guest.adjust = guest.biases(&[7], &[value]);
        let policy = load(&guest.build()).unwrap();
        let mut session = policy.session(&request(), "").unwrap();
        let biases = session.adjust_logits(Some(1), &Candidates { ids: vec![7, 8], logits: vec![1.0, 0.0] });
        assert_eq!(biases.as_deref().ok(), allowed.then_some(&[(7, value)][..]), "{value}");
    }
}

#[test]
fn nothing_is_held_at_the_end() {
    let mut guest = Guest::new(&[INSPECT]);
    guest.inspect = guest.hold(1);
    let bytes = guest.build();
    for (on_error, text) in [(OnError::Block, ""), (OnError::Allow, "b")] {
        let policy =
            WasmPolicy::load(&sandbox(), &bytes, WasmSettings { on_error, ..settings(&Arc::default()) }).unwrap();
        let pipeline = Pipeline::new(vec![Arc::new(policy)], vec![], Selection::default());
        let mut guard = Answer::new(pipeline.scope(request()), "").guard();
        assert_eq!(guard.push("ab").text, "a");
        let cleared = guard.finish("", &[]);
        assert_eq!((&cleared.text[..], cleared.stopped), (text, on_error == OnError::Block));
    }
}

#[test]
fn what_cannot_be_a_policy_is_refused_with_the_reason() {
    let good = Guest::new(&[SCREEN]).build();
    assert!(load(&good).is_ok());
    for cut in [0, 3, 4, 9, good.len() / 2, good.len() - 1] {
        assert!(refused(&good[..cut]).contains("no WebAssembly component"), "{cut}");
    }
    assert!(refused(b"#!/bin/sh").contains("no WebAssembly component"));
    assert!(refused(&wat::parse_str("(module)").unwrap()).contains("core module"));
    let mut flipped = good.clone();
    for at in (8..flipped.len()).step_by(7) {
        flipped[at] ^= 0x55;
        let _ = load(&flipped);
        flipped[at] ^= 0x55;
    }
    assert!(refused(&vec![0; (1 << 20) + 1]).contains("at most 1048576"));
    let other = foreign(
        "package a:b; world w { export f: func() -> u32; }",
        r#"(module (func (export "f") (result i32) i32.const 1))"#,
    );
    assert!(refused(&other).contains("safelmm:policy/"), "{}", refused(&other));
    let network = foreign(
        "package wasi:sockets@0.2.0; interface tcp { connect: func(to: u32); } world w { import tcp; }",
        r#"(module (import "wasi:sockets/tcp@0.2.0" "connect" (func (param i32))))"#,
    );
    assert!(refused(&network).contains("wasi:sockets/tcp@0.2.0"), "{}", refused(&network));
    let digest = "sha256:00".to_owned();
    let settings = WasmSettings { digest: Some(digest), ..settings(&Arc::default()) };
    assert!(matches!(WasmPolicy::load(&sandbox(), &good, settings), Err(LoadError::Digest { .. })));
}

#[test]
fn what_hangs_or_lies_before_it_serves_does_not_serve() {
    let build = |change: &dyn Fn(&mut Guest)| {
        let mut guest = Guest::new(&[SCREEN]);
        change(&mut guest);
        refused(&guest.build())
    };
    let endless = "(loop (br 0)) unreachable";
    for (name, error) in [
        ("configure", build(&|guest| guest.configure = endless.to_owned())),
        ("describe", build(&|guest| guest.describe = Some(endless.to_owned()))),
        ("vectors", build(&|guest| guest.vectors = Some(endless.to_owned()))),
        ("start", build(&|guest| guest.fields = "(func $s (loop (br 0))) (start $s)".to_owned())),
    ] {
        assert!(error.contains("fuel"), "{name}: {error}");
    }
    assert!(build(&|guest| guest.describe = Some("unreachable".to_owned())).contains("trapped"));
    assert!(build(&|guest| guest.hooks.clear()).contains("hook"));
    assert!(build(&|guest| guest.schema = "{").contains("schema"));
    assert!(build(&|guest| guest.hooks = vec![9]).contains("cannot be started"));
    let wants_more = Limits { memory_bytes: 1 << 16, ..limits() };
    let small = WasmSettings { limits: wants_more, ..settings(&Arc::default()) };
    assert!(WasmPolicy::load(&sandbox(), &Guest::new(&[SCREEN]).build(), small).is_err());
    // An interpreter and its adapters have a memory each, which count together.
    let several = |memories: &str| {
        let mut guest = Guest::new(&[SCREEN]);
        guest.fields = memories.to_owned();
        guest.build()
    };
    load(&several("(memory 1) (memory 1) (memory 1)")).unwrap();
    assert!(build(&|guest| guest.fields = "(memory 8) (memory 8)".to_owned()).contains("memory"));
    assert!(build(&|guest| guest.fields = "(memory 1)".repeat(4)).contains("memories"));
    assert!(build(&|guest| guest.pages = 60_000).contains("memory"), "more memory than there is for anyone");
}

#[test]
fn a_destructor_that_traps_harms_its_instance_alone() {
    let mut guest = Guest::new(&[INSPECT]);
    guest.drop = "unreachable".to_owned();
    let policy = load(&guest.build()).unwrap();
    for _ in 0..10 {
        let mut session = policy.session(&request(), "").unwrap();
        assert_eq!(format!("{:?}", session.inspect_stream("a", None)), "Act(Pass)");
    }
}

#[test]
fn failures_do_not_crash_loop_and_others_are_answered_meanwhile() {
    // Fails for texts of two bytes or more.
    let mut guest = Guest::new(&[SCREEN]);
    guest.screen = format!(
        "(if (i32.gt_u (i32.load (i32.add (local.get $asked) (i32.const 68))) (i32.const 1)) (then unreachable)) {}",
        guest.screen
    );
    let kinds = Arc::<Kinds>::default();
    let policy = WasmPolicy::load(&sandbox(), &guest.build(), settings(&kinds)).unwrap();
    assert_eq!(policy.screen_prompt(&request(), "a"), Judgement::Allow);
    let begun = Instant::now();
    let storm = std::thread::scope(|threads| {
        let failing = (0..4).map(|_| {
            threads.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(policy.screen_prompt(&request(), "ab").verdict(), Verdict::Deny);
                }
            })
        });
        let failing: Vec<_> = failing.collect();
        failing.into_iter().for_each(|thread| thread.join().unwrap());
        begun.elapsed()
    });
    let kinds = kinds.0.lock().unwrap();
    let trapped = kinds.iter().filter(|kind| **kind == Err("trap")).count();
    // A burst of 32 and one instance that was there, then 16 a second.
    assert!(trapped as f64 <= 40.0 + 16.0 * storm.as_secs_f64(), "{trapped} in {storm:?}");
    assert!(kinds.contains(&Err("busy")), "instances were made without end");
    drop(kinds);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(policy.screen_prompt(&request(), "a"), Judgement::Allow, "it recovers");
}
