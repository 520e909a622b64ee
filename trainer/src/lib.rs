//! From licensed documents to a checkpoint: data preparation, tokenizer, pretraining, evaluation.

pub mod config;
pub mod passages;
pub mod rating;
pub mod report;
pub mod tokenizer;

pub mod dataset;
pub mod data;
pub mod framing;

pub mod parameters;
pub mod optimizer;
pub mod run_state;

pub mod ngram;
pub mod evaluate;
pub mod pretrain;

pub mod export;
