//! Components as policies: what they are told, what comes of it, and what is checked before they serve.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in helpers too")]

mod support;

use std::sync::Arc;

use safelmm_plugins::host::{
    Component, Description, Limits, LoadError, Sandbox, SandboxLimits, Vocabulary, WasmPolicy, WasmSettings,
};
use safelmm_plugins::{Answer, Hook, Judgement, PerKey, Pipeline, Policy, RequestContext, Selection, Verdict};
use support::{ADJUST, Guest, INSPECT, REVIEW, SCREEN};

fn sandbox() -> Sandbox {
    Sandbox::new(SandboxLimits { instances: 16, ..SandboxLimits::default() }, None).unwrap()
}

fn request(route: &'static str) -> RequestContext {
    RequestContext {
        id: "1".into(),
        model: "m".into(),
        caller: None,
        rating: None,
        declared_use: None,
        route,
        language: None,
    }
}

fn load(guest: Guest) -> Result<WasmPolicy, LoadError> {
    WasmPolicy::load(&sandbox(), &guest.build(), WasmSettings::new("p", "test"))
}

#[test]
fn what_a_component_says_of_itself_is_read_without_running_it_and_held_against_it() {
    let bytes = Guest::new(&[SCREEN, REVIEW]).build();
    let component = Component::load(&sandbox(), "p", &bytes, None, &Limits::default(), None).unwrap();
    let said = Description::of(&component);
    assert_eq!(
        (&said.name[..], &said.hooks[..]),
        ("guest", &["screen-prompt".to_owned(), "review-response".to_owned()][..])
    );
    assert_eq!(Description::read(&bytes).unwrap(), None);
    let load = |bytes: &[u8]| WasmPolicy::load(&sandbox(), bytes, WasmSettings::new("p", "test"));
    let described = said.write(&bytes).unwrap();
    assert_eq!(Description::read(&described).unwrap(), Some(said.clone()));
    load(&described).unwrap();
    let other = Description { languages: vec!["cy".to_owned()], ..said };
    let refused = load(&other.write(&described).unwrap()).err().unwrap().to_string();
    assert!(refused.contains("safelmm plugin describe"), "{refused}");
}

#[test]
fn every_verdict_arrives() {
    let judged = |change: &dyn Fn(&mut Guest) -> String| {
        let mut guest = Guest::new(&[SCREEN]);
        guest.screen = change(&mut guest);
        load(guest).unwrap().screen_prompt(&request("/"), "text")
    };
    assert_eq!(judged(&|guest| guest.screen.clone()), Judgement::Allow);
    assert_eq!(judged(&|guest| format!("i32.const {}", guest.words(&[4]))), Judgement::Abstain);
    let flagged = judged(&|guest| {
        let findings = guest.finding("test", 0.25, Some((1, 3)));
        guest.flag(findings)
    });
    assert_eq!(flagged.verdict(), Verdict::Flag);
    let finding = &flagged.findings()[0];
    assert_eq!((&finding.category[..], finding.score, &finding.reason[..]), ("test", 0.25, "because"));
    assert_eq!(finding.span, Some(1..3));
    assert!(matches!(judged(&|guest| guest.rewrite("other")), Judgement::Rewrite { text, .. } if text == "other"));
    let denied = judged(&|guest| {
        let findings = guest.finding("test", 1.0, None);
        guest.deny(findings)
    });
    assert_eq!(denied.verdict(), Verdict::Deny);
}

#[test]
fn a_rewritten_prompt_goes_on_and_a_denial_ends_it() {
    let policy = |name: &str, change: &dyn Fn(&mut Guest) -> String| {
        let mut guest = Guest::new(&[SCREEN]);
        guest.screen = change(&mut guest);
        let policy = WasmPolicy::load(&sandbox(), &guest.build(), WasmSettings::new(name, "test")).unwrap();
        Arc::new(policy) as Arc<dyn Policy>
    };
    let rewrites = policy("first", &|guest| guest.rewrite("clean"));
    let denies = policy("second", &|guest| {
        let findings = guest.finding("test", 1.0, Some((0, 5)));
        guest.deny(findings)
    });
    let scope = |policies| Pipeline::new(policies, vec![], Selection::default()).scope(request("/"));
    let one = scope(vec![rewrites.clone()]);
    assert_eq!(one.screen_prompt("dirty!!").unwrap(), "clean");
    assert_eq!(one.entries()[0].verdict, Verdict::Rewrite);
    // The span of the second lies in what the first has made of it.
    let denial = scope(vec![rewrites, denies.clone()]).screen_prompt("dirty!!").unwrap_err();
    assert_eq!(denial.to_string(), "the policy 'second' refuses this text (test): because");
    assert!(scope(vec![denies]).screen_prompt("dirt").is_err());
}

#[test]
fn routes_and_keys_choose_among_the_policies() {
    let policy = |name: &str| {
        let mut guest = Guest::new(&[SCREEN]);
        let findings = guest.finding("test", 1.0, None);
        guest.screen = guest.flag(findings);
        let policy = WasmPolicy::load(&sandbox(), &guest.build(), WasmSettings::new(name, "test")).unwrap();
        Arc::new(policy) as Arc<dyn Policy>
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let selection = Selection {
        routes: [("/a".to_owned(), names(&["one", "two"])), ("/none".to_owned(), vec![])].into(),
        keys: PerKey::new(None, [("web".to_owned(), Some(names(&["two", "three"])))].into()),
    };
    let pipeline = Pipeline::new(vec![policy("always")], ["one", "two", "three"].map(policy).into(), selection);
    let asked = |route, key: Option<&str>| {
        let caller = key.map(|key| safelmm_plugins::Caller { key_id: "01".into(), key_name: key.to_owned() });
        let scope = pipeline.scope(RequestContext { caller, ..request(route) });
        scope.screen_prompt("x").unwrap();
        scope.entries().into_iter().map(|entry| entry.plugin).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(asked("/b", None), "always one two three");
    assert_eq!(asked("/a", None), "always one two");
    assert_eq!(asked("/a", Some("web")), "always two");
    assert_eq!(asked("/b", Some("web")), "always two three");
    assert_eq!(asked("/none", Some("other")), "always");
}

#[test]
fn a_policy_is_asked_at_its_hooks_alone() {
    // It would trap at the hook that it does not name.
    let mut guest = Guest::new(&[REVIEW, SCREEN]);
    let findings = guest.finding("test", 1.0, None);
    guest.review = guest.deny(findings);
    guest.inspect = "unreachable".to_owned();
    guest.adjust = "unreachable".to_owned();
    let bytes = guest.build();
    let load = |hooks| WasmPolicy::load(&sandbox(), &bytes, WasmSettings { hooks, ..WasmSettings::new("p", "test") });
    let policy = load(None).unwrap();
    let both = [Hook::ScreenPrompt, Hook::ReviewResponse];
    assert_eq!(policy.about().hooks, both);
    assert_eq!(load(Some(vec![Hook::ScreenPrompt])).unwrap().about().hooks, both[..1]);
    assert!(matches!(load(Some(vec![Hook::InspectStream])), Err(LoadError::Hook(Hook::InspectStream))));
    let scope = Pipeline::new(vec![Arc::new(policy)], vec![], Selection::default()).scope(request("/"));
    let answer = Answer::new(scope, "");
    assert!(!answer.adjusts());
    let mut guard = answer.guard();
    assert_eq!(guard.push("text").text, "");
    let cleared = guard.finish("", &[]);
    assert!(cleared.stopped && cleared.text.is_empty());
}

#[test]
fn settings_are_held_against_the_schema_and_shown_to_the_policy() {
    let load = |settings: serde_json::Value, change: &dyn Fn(&mut Guest)| {
        let mut guest = Guest::new(&[SCREEN]);
        guest.schema = r#"{"type": "object", "properties": {"words": {"items": {"type": "string"}}}}"#;
        change(&mut guest);
        let settings = WasmSettings { settings, ..WasmSettings::new("p", "test") };
        WasmPolicy::load(&sandbox(), &guest.build(), settings).map(drop).map_err(|error| error.to_string())
    };
    let fine = serde_json::json!({"words": ["a"]});
    assert_eq!(load(fine.clone(), &|_| {}), Ok(()));
    let error = load(serde_json::json!({"words": ["a", 1]}), &|_| {}).unwrap_err();
    assert!(error.contains("settings are wrong: /words/1: "), "{error}");
    let error = load(fine, &|guest| guest.configure = guest.setting_error("/words/0", "too short")).unwrap_err();
    assert_eq!(error, "its settings are wrong: /words/0: too short");
}

#[test]
fn a_policy_that_fails_its_own_examples_does_not_serve() {
    let with_vector = |expected| {
        let mut guest = Guest::new(&[SCREEN]);
        guest.vector("harmless", "hello", expected);
        guest
    };
    assert!(load(with_vector(0)).is_ok());
    let error = load(with_vector(3)).map(drop).unwrap_err().to_string();
    assert_eq!(error, "it fails 1 of its 1 golden vectors: \"harmless\": allow, expected deny;");
    let component = Component::load(&sandbox(), "p", &with_vector(3).build(), None, &Limits::default(), None).unwrap();
    let results = component.try_vectors().unwrap();
    assert!(results[0].wrong.is_some() && results[0].fuel > 0);
    assert_eq!((component.wants_vocabulary, &component.version[..]), (false, "1.2.3"));
    assert!(component.imports.iter().any(|import| import.contains("/log@")), "{:?}", component.imports);
}

struct Letters;

impl Vocabulary for Letters {
    fn len(&self) -> u32 {
        26
    }
    fn piece(&self, id: u32) -> Option<Vec<u8>> {
        (id < 26).then(|| vec![b'a' + id as u8])
    }
    fn tokenize(&self, text: &str) -> Vec<u32> {
        text.bytes().map(|byte| u32::from(byte - b'a')).collect()
    }
}

#[test]
fn the_vocabulary_is_there_for_those_who_were_granted_it() {
    let guest = || {
        let mut guest = Guest::new(&[ADJUST]);
        guest.vocabulary = true;
        // Forbids the last token of the vocabulary.
        let bias = guest.words(&[f32::NEG_INFINITY.to_bits()]);
        guest.adjust = format!(
            "(i32.store (i32.const 60000) (i32.sub (call $vocabulary_len) (i32.const 1)))
             (i32.store (i32.const 60004) (i32.const 60000)) (i32.store (i32.const 60008) (i32.const 1))
             (i32.store (i32.const 60012) (i32.const {bias})) (i32.store (i32.const 60016) (i32.const 1))
             i32.const 60004"
        );
        guest.build()
    };
    let error = WasmPolicy::load(&sandbox(), &guest(), WasmSettings::new("p", "test")).map(drop).unwrap_err();
    assert!(matches!(error, LoadError::NotGranted("vocabulary")), "{error}");
    let settings = WasmSettings { vocabulary: Some(Arc::new(Letters)), ..WasmSettings::new("p", "test") };
    let policy = WasmPolicy::load(&sandbox(), &guest(), settings).unwrap();
    let pipeline = Pipeline::new(vec![Arc::new(policy)], vec![], Selection::default());
    let mut logits = [0.5; 26];
    Answer::new(pipeline.scope(request("/")), "").adjust(None, &mut logits).unwrap();
    assert_eq!((logits[24], logits[25]), (0.5, f32::NEG_INFINITY));
}

#[test]
fn compiled_code_is_kept_and_damaged_or_foreign_files_are_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("compiled");
    let limits = SandboxLimits { instances: 4, ..SandboxLimits::default() };
    let load = || {
        let sandbox = Sandbox::new(limits, Some(cache.clone())).unwrap();
        let bytes = Guest::new(&[INSPECT]).build();
        WasmPolicy::load(&sandbox, &bytes, WasmSettings::new("p", "test")).unwrap()
    };
    let files = || std::fs::read_dir(&cache).unwrap().map(|file| file.unwrap().path()).collect::<Vec<_>>();
    load();
    let [file] = &files()[..] else { panic!("{:?}", files()) };
    let whole = std::fs::read(file).unwrap();
    load();
    assert_eq!(std::fs::read(file).unwrap(), whole);
    // Cut short, changed, or writable for others: compiled anew and written again.
    for damaged in [whole[..whole.len() / 2].to_vec(), [&whole[..100], &[0xff; 8], &whole[108..]].concat(), vec![]] {
        std::fs::write(file, damaged).unwrap();
        load();
        assert_eq!(std::fs::read(file).unwrap().len(), whole.len());
    }
    std::fs::set_permissions(file, PermissionsExt::from_mode(0o666)).unwrap();
    load();
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&cache, PermissionsExt::from_mode(0o777)).unwrap();
    assert!(Sandbox::new(limits, Some(cache.clone())).map(drop).unwrap_err().to_string().contains("chmod 700"));
}
