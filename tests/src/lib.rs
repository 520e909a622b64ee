//! Everything that crosses crates, in one integration binary: see `it/main.rs`.
