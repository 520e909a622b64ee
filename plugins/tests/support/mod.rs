//! Components for tests, made of WebAssembly text and the contract: no toolchain is needed.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in helpers too")]

use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Places in the memory of every guest.
const FIRST_BYTE: u32 = 1024;

/// A component, as its functions' bodies in WebAssembly text. A body leaves the address of its answer on the stack.
pub struct Guest {
    image: Vec<u8>,
    name: &'static str,
    version: String,
    pub hooks: Vec<u8>,
    pub categories: Vec<&'static str>,
    pub schema: &'static str,
    /// Module fields: more functions and globals.
    pub fields: String,
    pub describe: Option<String>,
    pub configure: String,
    pub vectors: Option<String>,
    pub screen: String,
    pub passages: String,
    pub review: String,
    /// `(param $session i32) (param $drawn i32) (param $token i32) (param $ids i32) (param $n i32) (param $logits i32)
    /// (param $m i32)`
    pub adjust: String,
    /// `(param $session i32) (param $text i32) (param $len i32) (param $last i32) (param $sources i32) (param $n i32)`
    pub inspect: String,
    pub drop: String,
    pub vocabulary: bool,
    pub pages: u32,
}

/// The numbers of the hooks.
pub const SCREEN: u8 = 0;
pub const PASSAGES: u8 = 1;
pub const ADJUST: u8 = 2;
pub const INSPECT: u8 = 3;
pub const REVIEW: u8 = 4;

impl Guest {
    /// One that allows everything, at these hooks.
    pub fn new(hooks: &[u8]) -> Guest {
        let mut guest = Guest {
            image: Vec::new(),
            name: "guest",
            version: "1.2.3".to_owned(),
            hooks: hooks.to_vec(),
            categories: vec!["test"],
            schema: "{}",
            fields: String::new(),
            describe: None,
            configure: String::new(),
            vectors: None,
            screen: String::new(),
            passages: String::new(),
            review: String::new(),
            adjust: String::new(),
            inspect: String::new(),
            drop: String::new(),
            vocabulary: false,
            pages: 4,
        };
        let nothing = guest.words(&[0, 0, 0, 0, 0]);
        for body in [
            &mut guest.configure,
            &mut guest.screen,
            &mut guest.passages,
            &mut guest.review,
            &mut guest.adjust,
            &mut guest.inspect,
        ] {
            *body = format!("i32.const {nothing}");
        }
        guest
    }

    pub fn version(mut self, version: &str) -> Guest {
        self.version = version.to_owned();
        self
    }

    /// Puts bytes into the memory; returns where they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> u32 {
        self.image.resize(self.image.len().next_multiple_of(4), 0);
        let at = FIRST_BYTE + self.image.len() as u32;
        self.image.extend(bytes);
        at
    }

    pub fn words(&mut self, words: &[u32]) -> u32 {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.bytes(&bytes)
    }

    /// Address and length of a string.
    pub fn string(&mut self, text: &str) -> [u32; 2] {
        [self.bytes(text.as_bytes()), text.len() as u32]
    }

    pub fn strings(&mut self, texts: &[&str]) -> [u32; 2] {
        let words: Vec<u32> = texts.iter().flat_map(|text| self.string(text)).collect();
        [self.words(&words), texts.len() as u32]
    }

    /// A list of one finding.
    pub fn finding(&mut self, category: &str, score: f32, span: Option<(u32, u32)>) -> [u32; 2] {
        let (category, reason) = (self.string(category), self.string("because"));
        let (there, (start, end)) = (u32::from(span.is_some()), span.unwrap_or_default());
        let words = [category[0], category[1], score.to_bits(), reason[0], reason[1], there, start, end];
        [self.words(&words), 1]
    }

    pub fn flag(&mut self, findings: [u32; 2]) -> String {
        format!("i32.const {}", self.words(&[1, findings[0], findings[1]]))
    }

    pub fn rewrite(&mut self, text: &str) -> String {
        let (text, findings) = (self.string(text), self.finding("test", 1.0, None));
        format!("i32.const {}", self.words(&[2, text[0], text[1], findings[0], findings[1]]))
    }

    pub fn deny(&mut self, findings: [u32; 2]) -> String {
        format!("i32.const {}", self.words(&[3, findings[0], findings[1]]))
    }

    pub fn hold(&mut self, bytes: u32) -> String {
        format!("i32.const {}", self.words(&[1, bytes]))
    }

    pub fn replace(&mut self, text: &str, hold: u32) -> String {
        let (text, findings) = (self.string(text), self.finding("test", 1.0, None));
        format!("i32.const {}", self.words(&[2, text[0], text[1], hold, findings[0], findings[1]]))
    }

    pub fn stop(&mut self, message: &str) -> String {
        let (text, findings) = (self.string(message), self.finding("test", 1.0, None));
        format!("i32.const {}", self.words(&[3, text[0], text[1], findings[0], findings[1]]))
    }

    pub fn biases(&mut self, ids: &[u32], values: &[f32]) -> String {
        let values: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
        let (at_ids, at_values) = (self.words(ids), self.words(&values));
        format!("i32.const {}", self.words(&[at_ids, ids.len() as u32, at_values, values.len() as u32]))
    }

    /// An answer that is the error of a setting.
    pub fn setting_error(&mut self, pointer: &str, message: &str) -> String {
        let (pointer, message) = (self.string(pointer), self.string(message));
        let list = self.words(&[pointer[0], pointer[1], message[0], message[1]]);
        format!("i32.const {}", self.words(&[1, list, 1]))
    }

    /// One golden vector: a prompt and what is expected (0 allow, 1 flag, 2 rewrite, 3 deny, 4 abstain).
    pub fn vector(&mut self, name: &str, prompt: &str, expected: u8) {
        let (name, prompt) = (self.string(name), self.string(prompt));
        // name, settings: none, probe: variant (its largest case, a passage, decides its size), expected, category, text,
        // sources
        let mut record = Vec::new();
        let mut put = |words: &[u32]| record.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        put(&[name[0], name[1], 0, 0, 0]);
        put(&[0, prompt[0], prompt[1]]);
        // A passage: ids, store, title, author, license, url (48), language (12), rating (2), obligations (8 at 64),
        // score, text (8): 84 bytes.
        put(&[0; 19]);
        record.extend([expected, 0, 0, 0]);
        let mut put = |words: &[u32]| record.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        put(&[0, 0, 0, 0, 0, 0, 0, 0]);
        let at = self.bytes(&record);
        let list = self.words(&[at, 1]);
        self.vectors = Some(format!("i32.const {list}"));
    }

    /// The component.
    pub fn build(mut self) -> Vec<u8> {
        let description = {
            let (name, version, summary) =
                (self.string(self.name), self.string(&self.version.clone()), self.string("s"));
            let hooks = [self.bytes(&self.hooks.clone()), self.hooks.len() as u32];
            let categories = self.strings(&self.categories.clone());
            let capabilities = [self.bytes(&[0]), u32::from(self.vocabulary)];
            let schema = self.string(self.schema);
            let words: Vec<u32> = [name, version, summary, hooks, categories, [0, 0], capabilities, schema].concat();
            self.words(&words)
        };
        let no_vectors = self.words(&[0, 0]);
        let describe = self.describe.take().unwrap_or(format!("i32.const {description}"));
        let vectors = self.vectors.take().unwrap_or(format!("i32.const {no_vectors}"));
        let data: String = self.image.iter().map(|byte| format!("\\{byte:02x}")).collect();
        let Guest { fields, configure, screen, passages, review, adjust, inspect, drop, pages, .. } = &self;
        let package = |interface: &str| format!("safelmm:policy/{interface}@1.0.0");
        let (meta, texts, generation) = (package("meta"), package("texts"), package("generation"));
        let vocabulary = match self.vocabulary {
            true => format!("(import \"{}\" \"len\" (func $vocabulary_len (result i32)))", package("vocabulary")),
            false => String::new(),
        };
        let text = format!(
            r#"(module
              (import "{log}" "log" (func $log (param i32 i32 i32)))
              {vocabulary}
              (import "[export]{generation}" "[resource-new]session" (func $new (param i32) (result i32)))
              (memory (export "memory") {pages})
              (global $free (mut i32) (i32.const 65536))
              {fields}
              (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                global.get $free local.set $at
                global.get $free local.get 3 i32.add i32.const 7 i32.add i32.const -8 i32.and global.set $free
                (block (loop
                  (br_if 1 (i32.le_u (global.get $free) (i32.mul (memory.size) (i32.const 65536))))
                  (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))
                  (br 0)))
                local.get $at)
              (func $reset i32.const 65536 global.set $free)
              (func (export "{meta}#describe") (result i32) {describe})
              (func (export "{meta}#configure") (param $settings i32) (param $len i32) (result i32) {configure})
              (func (export "{meta}#vectors") (result i32) {vectors})
              (func (export "{texts}#screen-prompt") (param $asked i32) (result i32) call $reset {screen})
              (func (export "{texts}#filter-passages") (param $asked i32) (result i32) call $reset {passages})
              (func (export "{texts}#review-response") (param $asked i32) (result i32) call $reset {review})
              (func (export "{generation}#[constructor]session") (param $asked i32) (result i32)
                call $reset i32.const 1 call $new)
              (func (export "{generation}#[method]session.adjust-logits") (param $session i32) (param $drawn i32)
                (param $token i32) (param $ids i32) (param $n i32) (param $logits i32) (param $m i32) (result i32)
                call $reset {adjust})
              (func (export "{generation}#[method]session.inspect-stream") (param $session i32) (param $text i32)
                (param $len i32) (param $last i32) (param $sources i32) (param $count i32) (result i32)
                call $reset {inspect})
              (func (export "{generation}#[dtor]session") (param $session i32) {drop})
              (data (i32.const {FIRST_BYTE}) "{data}"))"#,
            log = package("log"),
        );
        let world = if self.vocabulary { "policy-with-vocabulary" } else { "policy" };
        encode(&wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}")), world)
    }
}

/// A core module as a component of a world of the contract.
fn encode(module: &[u8], world: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let contract = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .find_map(|folder| Some(folder.join("sdk/wit")).filter(|folder| folder.is_dir()));
    let (package, _) = resolve.push_path(contract.unwrap()).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    component_of(module, &resolve, world)
}

fn component_of(module: &[u8], resolve: &Resolve, world: wit_parser::WorldId) -> Vec<u8> {
    let mut module = module.to_vec();
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8, false).unwrap();
    ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
}

/// A component of another world.
pub fn foreign(wit: &str, module: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("foreign.wit", wit).unwrap();
    let world = resolve.select_world(&[package], None).unwrap();
    component_of(&wat::parse_str(module).unwrap(), &resolve, world)
}
