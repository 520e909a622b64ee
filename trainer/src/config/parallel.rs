//! The section `[parallel]`: how a run lies on its processes.

use serde::{Deserialize, Serialize};

use super::RunConfigError;

/// How a run lies on its processes. Nothing of it is part of what a run is: it goes on with any other layout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ParallelSection {
    /// Copies of the model, each with its share of an update's micro-batches; without it, as many as there are
    /// processes for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<usize>,
    /// Processes that share each layer (Shoeybi et al. 2019, section 3).
    pub tensor: usize,
    /// Stages that the layers are divided into (Narayanan et al. 2021, section 2.2).
    pub pipeline: usize,
    /// Share the optimiser's state out among the copies (ZeRO-1; Rajbhandari et al. 2020, section 5.1).
    pub zero: bool,
    /// What takes the sums over processes.
    #[serde(skip_serializing_if = "super::is_default")]
    pub backend: Backend,
}

/// What takes the sums over processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// Messages between processes: the same bits for every power of two of copies.
    #[default]
    Mpi,
    /// The GPUs of the processes (NCCL), to rounding.
    Nccl,
}

impl Default for ParallelSection {
    fn default() -> Self {
        ParallelSection { data: None, tensor: 1, pipeline: 1, zero: false, backend: Backend::Mpi }
    }
}

impl ParallelSection {
    /// Refuses what no run can have.
    ///
    /// # Errors
    /// Names the first such key.
    pub fn validate(&self) -> Result<(), RunConfigError> {
        let keys = [
            ("parallel.data", self.data),
            ("parallel.tensor", Some(self.tensor)),
            ("parallel.pipeline", Some(self.pipeline)),
        ];
        match keys.into_iter().find(|(_, value)| value.is_some_and(|value| !(1..=1 << 20).contains(&value))) {
            Some((key, value)) => {
                let got = value.unwrap_or_default().to_string();
                Err(RunConfigError::Value { key, got, expected: "from 1 to 1048576" })
            }
            None => Ok(()),
        }
    }
}
