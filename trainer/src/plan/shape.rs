//! What a decoder of some shape takes: parameters, arithmetic, bytes.

use crate::config::ModelSection;

/// Parameters and arithmetic of a decoder: the Qwen 3 layout with tied embeddings, as the trainer makes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Width of the residual stream.
    pub hidden: f64,
    /// Decoder layers.
    pub layers: f64,
    /// Parameters of one layer.
    pub layer_parameters: f64,
    /// Parameters of the embedding, which is the head too.
    pub embedding_parameters: f64,
    /// Tokens of a sequence.
    pub sequence: f64,
    /// Tokens of the vocabulary.
    pub vocabulary: f64,
    /// Width of all query heads together.
    query: f64,
    /// Numbers kept of one token in one layer between forward and backward.
    kept: f64,
}

impl Shape {
    /// The shape of a model on sequences of some length.
    pub fn new(model: &ModelSection, vocabulary: usize, sequence: usize) -> Shape {
        let [hidden, intermediate, layers, heads, kv_heads, head_dim] =
            [model.hidden_size, model.intermediate_size, model.layers, model.heads, model.kv_heads, model.head_dim]
                .map(|n| n as f64);
        let (query, kv) = (heads * head_dim, kv_heads * head_dim);
        let attention = hidden * (2.0 * query + 2.0 * kv) + 2.0 * head_dim;
        Shape {
            hidden,
            layers,
            layer_parameters: attention + 3.0 * hidden * intermediate + 2.0 * hidden,
            embedding_parameters: vocabulary as f64 * hidden + hidden,
            sequence: sequence as f64,
            vocabulary: vocabulary as f64,
            query,
            // Inputs of both norms, their outputs, q, k, v before and after their norms, what attention gave, and gate, up
            // and their product.
            kept: 4.0 * hidden + 3.0 * query + 3.0 * kv + 3.0 * intermediate,
        }
    }

    /// All parameters.
    pub fn parameters(&self) -> f64 {
        self.layers * self.layer_parameters + self.embedding_parameters
    }

    /// FLOPs of forward and backward for one token: 6 for each parameter that is multiplied, and causal attention (Narayanan
    /// et al. 2021, equation 3, without recomputation, halved for the mask).
    pub fn flops_per_token(&self) -> f64 {
        let products = self.layers * self.layer_parameters + self.vocabulary * self.hidden;
        6.0 * products + 6.0 * self.layers * self.sequence * self.query
    }

    /// Bytes of bf16 kept of one layer for the tokens of one micro-batch (in the manner of Korthikanti et al. 2022, section 4,
    /// with attention recomputed block by block).
    pub fn layer_activations(&self, tokens: f64) -> f64 {
        2.0 * tokens * self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets::presets;

    #[test]
    fn presets_have_the_parameters_that_their_names_say() {
        let billions: Vec<(&str, f64)> = presets()
            .iter()
            .map(|preset| (preset.name, Shape::new(&preset.model, preset.vocab_size, 2048).parameters() / 1e9))
            .collect();
        let expected = [0.0065, 0.163, 0.96, 6.75, 13.0, 33.7];
        for ((name, found), expected) in billions.iter().zip(expected) {
            assert!((found / expected - 1.0).abs() < 0.03, "{name}: {found} billion parameters, expected {expected}");
        }
    }
}
