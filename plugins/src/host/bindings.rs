//! The contract, version 1, as Rust types. One such file for each major version.

#![allow(missing_docs, reason = "the contract's own words stand in sdk/wit/policy.wit")]

wasmtime::component::bindgen!({
    path: "../sdk/wit",
    world: "policy-with-vocabulary",
    imports: { default: trappable },
});
