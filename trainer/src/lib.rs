//! From licensed documents to a checkpoint: data preparation, tokenizer, pretraining, evaluation.

pub mod comm;
pub mod config;
pub mod passages;
pub mod presets;
pub mod rating;
pub mod report;
pub mod tokenizer;

pub mod data;
pub mod dataset;
pub mod framing;

mod exact;
pub mod machine;
pub mod parameters;
pub mod tensors;

pub mod buckets;
pub mod mesh;

pub mod gradients;

pub mod statistics;

pub mod backward;
pub mod groups;
pub mod ledger;
pub mod optimizer;
pub mod origin;
pub mod pipeline;
pub mod schedule;
pub mod stability;

pub mod snapshot;

pub mod run_state;
pub mod watch;

pub mod training;

pub mod ngram;

pub mod memorisation;

pub mod evaluate;
pub mod pretrain;

pub mod finetune;

pub mod export;

pub mod plan;

pub mod slurm;

pub mod policy_models;
