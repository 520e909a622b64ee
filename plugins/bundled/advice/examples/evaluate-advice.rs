//! Recall and over-refusal on the sets: `cargo run --release --example evaluate-advice -- [--show LANG] [--part PART] [FILE…]`.

#[path = "../../../../sdk/intent/evaluate.rs"]
mod evaluate;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    evaluate::evaluate(&safelmm_policy_advice::judge()?, concat!(env!("CARGO_MANIFEST_DIR"), "/sets"))
}
