//! From licensed documents to a checkpoint: data preparation, tokenizer, pretraining, evaluation.

pub mod config;
pub mod passages;
pub mod presets;
pub mod rating;
pub mod report;
pub mod tokenizer;

pub mod data;
pub mod dataset;
pub mod framing;

pub mod optimizer;
pub mod origin;
pub mod parameters;
pub mod run_state;

pub mod evaluate;
pub mod ngram;
pub mod pretrain;

pub mod export;

pub mod plan;

pub mod policy_models;
