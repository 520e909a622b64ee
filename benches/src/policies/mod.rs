//! What the bundled policies find, miss and refuse without need.

mod sets;
mod subjects;

pub use sets::{Item, Sets};
pub use subjects::{Subject, subjects};
