//! What [`policy!`](crate::policy) stands on: one configured policy, and the answers that are being written.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use crate::{Action, Biases, Candidates, Description, Document, Policy, Request, Session, SettingError, log, settings};

/// The description of a policy, with the schema of its settings.
pub fn describe<P: Policy>() -> Description {
    let mut description = P::describe();
    if description.settings_schema.is_empty() {
        description.settings_schema = settings::schema::<P::Settings>();
    }
    description
}

/// A policy once it is configured.
pub struct Configured<P>(OnceCell<Rc<P>>);

impl<P: Policy> Configured<P> {
    /// Not configured yet.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Configured(OnceCell::new())
    }

    /// Configures the policy.
    ///
    /// # Errors
    /// What is wrong with the settings, or that it was configured before.
    pub fn configure(&self, json: &str) -> Result<(), Vec<SettingError>> {
        report_panics();
        let policy = P::configure(settings::parse(json)?)?;
        self.0.set(Rc::new(policy)).map_err(|_| {
            vec![SettingError::new("", "This instance was configured before; a policy is configured once.")]
        })
    }

    /// The policy.
    ///
    /// # Panics
    /// Before it was configured: the contract says that no hook is called then.
    #[allow(clippy::panic, reason = "a host that breaks the contract gets a trap")]
    pub fn get(&self) -> Rc<P> {
        match self.0.get() {
            Some(policy) => policy.clone(),
            None => panic!("a hook was called before `configure`"),
        }
    }
}

/// An answer that is being written.
pub struct Running<P: Policy> {
    policy: Rc<P>,
    session: RefCell<P::Session>,
}

impl<P: Policy> Running<P> {
    /// Its beginning.
    pub fn new(policy: Rc<P>, request: &Request, prompt: &str) -> Self {
        let session = RefCell::new(policy.session(request, prompt));
        Running { policy, session }
    }

    /// See [`Session::adjust_logits`].
    pub fn adjust_logits(&self, drawn: Option<u32>, candidates: &Candidates) -> Biases {
        self.session.borrow_mut().adjust_logits(&self.policy, drawn, candidates)
    }

    /// See [`Session::inspect_stream`].
    pub fn inspect_stream(&self, pending: &str, sources: Option<&[Document]>) -> Action {
        self.session.borrow_mut().inspect_stream(&self.policy, pending, sources)
    }
}

/// Says in the operator's log where a component panicked. The message is left out where it was put together at run
/// time: that of a wrong slice, for instance, quotes the text.
fn report_panics() {
    if cfg!(target_arch = "wasm32") {
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            let message = panic.payload().downcast_ref::<&str>().copied().unwrap_or("a panic");
            log::error(&format!("{place}: {message}"));
        }));
    }
}
