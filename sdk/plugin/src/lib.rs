//! What a safety policy for SafeLMM is written with.
//!
//! A policy is a type that implements [`Policy`], and [`policy!`] makes a WebAssembly component of it. Every hook has a
//! default that lets everything pass, so that a policy is as long as what it does:
//!
//! ```
//! use safelmm_plugin::{Description, Finding, Hook, Outcome, Policy, Request, SettingError, Vector, Verdict, policy};
//! use schemars::JsonSchema;
//! use serde::Deserialize;
//!
//! #[derive(Default, Deserialize, JsonSchema)]
//! #[serde(default, deny_unknown_fields)]
//! struct Settings {
//!     /// The longest prompt, in bytes; 0 stands for any.
//!     limit: usize,
//! }
//!
//! struct Short {
//!     limit: usize,
//! }
//!
//! impl Policy for Short {
//!     type Settings = Settings;
//!     type Session = ();
//!
//!     fn describe() -> Description {
//!         Description::new("short", "0.1.0", "Refuses long prompts.").hooks([Hook::ScreenPrompt]).categories(["long"])
//!     }
//!
//!     fn configure(settings: Settings) -> Result<Self, Vec<SettingError>> {
//!         Ok(Short { limit: settings.limit })
//!     }
//!
//!     fn vectors() -> Vec<Vector> {
//!         vec![
//!             Vector::prompt("short", "hello", Outcome::Allow),
//!             Vector::prompt("long", "hello", Outcome::Deny).settings(r#"{"limit": 4}"#).category("long"),
//!         ]
//!     }
//!
//!     fn session(&self, _: &Request, _: &str) {}
//!
//!     fn screen_prompt(&self, _: &Request, text: &str) -> Verdict {
//!         if self.limit == 0 || text.len() <= self.limit {
//!             return Verdict::Allow;
//!         }
//!         Verdict::Deny(vec![Finding::new("long", 1.0, format!("The prompt is longer than {} bytes.", self.limit))])
//!     }
//! }
//!
//! policy!(Short);
//! # fn main() {
//! safelmm_plugin::testing::assert_vectors::<Short>();
//! # }
//! ```
//!
//! The contract itself, with what each value means, is `sdk/wit/policy.wit`; the types here are generated from it and
//! carry its words. The same code runs natively, so `cargo test` needs no WebAssembly. Spans are bytes of UTF-8.

#[doc(hidden)]
pub mod bindings;

mod policy;
mod values;

#[doc(hidden)]
pub mod guest;
pub mod log;
pub mod settings;
pub mod testing;
pub mod vocabulary;

pub use policy::{Policy, Session};
pub use schemars;
pub use serde;

pub use bindings::exports::safelmm::policy::generation::{Action, Biases, Candidates};
pub use bindings::exports::safelmm::policy::meta::{Description, SettingError, Vector};
pub use bindings::exports::safelmm::policy::texts::{Document, Passage, Request, Verdict};
pub use bindings::safelmm::policy::types::{
    Capability, DeclaredUse, Finding, Hook, Obligation, Outcome, Probe, Rating, Replacement, Rewriting, Span, Stopping,
};

/// Makes a component of a [`Policy`]: `policy!(MyPolicy);`, once in a crate of the type `cdylib`.
///
/// On other targets than WebAssembly nothing is exported, so that several policies fit into one program.
#[macro_export]
macro_rules! policy {
    ($policy:ty) => {
        #[allow(dead_code)]
        const _: () = {
            use $crate::bindings::exports::safelmm::policy as exports;

            ::std::thread_local! {
                static CONFIGURED: $crate::guest::Configured<$policy> = const { $crate::guest::Configured::new() };
            }

            struct Component;

            impl exports::meta::Guest for Component {
                fn describe() -> $crate::Description {
                    $crate::guest::describe::<$policy>()
                }
                fn configure(settings: String) -> Result<(), Vec<$crate::SettingError>> {
                    CONFIGURED.with(|c| c.configure(&settings))
                }
                fn vectors() -> Vec<$crate::Vector> {
                    <$policy as $crate::Policy>::vectors()
                }
            }

            impl exports::texts::Guest for Component {
                fn screen_prompt(request: $crate::Request, text: String) -> $crate::Verdict {
                    $crate::Policy::screen_prompt(&*CONFIGURED.with($crate::guest::Configured::get), &request, &text)
                }
                fn filter_passages(request: $crate::Request, passages: Vec<$crate::Passage>) -> Vec<$crate::Verdict> {
                    $crate::Policy::filter_passages(
                        &*CONFIGURED.with($crate::guest::Configured::get),
                        &request,
                        &passages,
                    )
                }
                fn review_response(
                    request: $crate::Request,
                    text: String,
                    sources: Vec<$crate::Document>,
                ) -> $crate::Verdict {
                    $crate::Policy::review_response(
                        &*CONFIGURED.with($crate::guest::Configured::get),
                        &request,
                        &text,
                        &sources,
                    )
                }
            }

            impl exports::generation::Guest for Component {
                type Session = Running;
            }

            struct Running($crate::guest::Running<$policy>);

            impl exports::generation::GuestSession for Running {
                fn new(request: $crate::Request, prompt: String) -> Self {
                    let policy = CONFIGURED.with($crate::guest::Configured::get);
                    Running($crate::guest::Running::new(policy, &request, &prompt))
                }
                fn adjust_logits(&self, drawn: Option<u32>, candidates: $crate::Candidates) -> $crate::Biases {
                    self.0.adjust_logits(drawn, &candidates)
                }
                fn inspect_stream(&self, pending: String, sources: Option<Vec<$crate::Document>>) -> $crate::Action {
                    self.0.inspect_stream(&pending, sources.as_deref())
                }
            }

            #[cfg(target_arch = "wasm32")]
    $crate::bindings::export!(Component with_types_in $crate::bindings);
        };
    };
}
