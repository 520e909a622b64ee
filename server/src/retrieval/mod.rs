//! Retrieval: what stores add to a request. From the bottom: what is recorded, the weights of the sources, the stage that
//! mixes them and the passages in the context, where an answer comes from, the stores of the server, and the search for
//! parameters.

mod evidence;

mod gate;
mod tuning;

mod encoder;
mod interpolation;
mod passages;

mod attribution;
mod request;

mod stores;

mod tune;

pub use attribution::{Attribution, Grain, Text, VERBATIM_TOKENS, attribute, verbatim};
pub use encoder::{ModelEncoder, PassageEncoder};
pub use evidence::{Kind, Recorder};
pub use interpolation::{Mixing, NeighbourSettings};
pub use passages::Ranking;
pub use request::{PassageSettings, Retrieval, gated};
pub use stores::{Attached, Stores, StoresError, open as open_store, settings as store_settings};
pub use tune::{Task, TuneError, tune};
pub use tuning::{Evaluation, NgramTuning, Tuning, Tunings};
