//! How a component fails, and what its operator chose to do then.

use serde::Deserialize;
use wasmtime::Trap;

use crate::verdict::Finding;

/// The category of what is found when a policy fails.
pub const POLICY_FAILURE: &str = "policy-failure";

/// What happens to a text when a policy that should judge it has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// It does not pass.
    #[default]
    Block,
    /// It passes, and the answer says that the policy failed.
    Allow,
}

/// How a call failed. The instance that was called is gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It used up its instructions.
    #[error("it used up its {0} units of fuel")]
    Fuel(u64),
    /// It took too long.
    #[error("it took too long")]
    Deadline,
    /// It trapped: a panic, memory that it was not given, a stack that overflowed.
    #[error("it trapped: {0}")]
    Trap(String),
    /// It answered something impossible.
    #[error("its answer is impossible: {0}")]
    Answer(String),
    /// As many instances run as may run, or too many of them failed of late.
    #[error("no instance of it is free")]
    Busy,
}

impl Failure {
    /// Its kind, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Failure::Fuel(_) => "fuel",
            Failure::Deadline => "deadline",
            Failure::Trap(_) => "trap",
            Failure::Answer(_) => "answer",
            Failure::Busy => "busy",
        }
    }

    /// What went wrong in a call with so much fuel.
    pub(crate) fn of(error: &wasmtime::Error, fuel: u64) -> Failure {
        match error.downcast_ref::<Trap>() {
            Some(Trap::OutOfFuel) => Failure::Fuel(fuel),
            Some(Trap::Interrupt) => Failure::Deadline,
            Some(trap) => Failure::Trap(trap.to_string()),
            None => Failure::Trap(first_line(&error.root_cause().to_string())),
        }
    }

    /// What users are told: that a policy failed, and not how.
    pub(crate) fn finding(&self) -> Finding {
        Finding {
            category: POLICY_FAILURE.to_owned(),
            score: 1.0,
            reason: "the policy could not judge it; ask again, or tell the operator".to_owned(),
            span: None,
        }
    }
}

fn first_line(text: &str) -> String {
    const MOST: usize = 300;
    text.lines().next().unwrap_or_default().chars().take(MOST).collect()
}
