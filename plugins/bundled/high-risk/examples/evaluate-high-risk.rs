//! Recall and over-refusal on the sets: `cargo run --release --example evaluate-high-risk -- [--show LANG] [--part PART] [FILE…]`.

#[path = "../../../../sdk/intent/evaluate.rs"]
mod evaluate;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    evaluate::evaluate(&safelmm_policy_high_risk::judge()?, concat!(env!("CARGO_MANIFEST_DIR"), "/sets"))
}
