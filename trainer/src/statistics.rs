//! What the layers are like: the activations and gradients that tell of trouble before the loss does.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use crate::parameters::Parameters;

/// The hidden states behind one layer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Activations {
    /// Root of the mean square.
    pub rms: f64,
    /// Largest magnitude.
    pub largest: f64,
    /// The largest attention score before the softmax, in this layer.
    pub attention_logit: f64,
}

impl Activations {
    /// Of the states `x`, [rows, hidden], and the largest attention score of their layer.
    ///
    /// # Errors
    /// Those of candle.
    pub fn of(x: &Tensor, attention_logit: f32) -> Result<Activations> {
        let values: Vec<f32> = x.detach().flatten_all()?.to_vec1()?;
        let squares: f64 = values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        Ok(Activations {
            rms: (squares / values.len().max(1) as f64).sqrt(),
            largest: values.iter().fold(0.0, |m, v| f64::max(m, f64::from(v.abs()))),
            attention_logit: attention_logit.into(),
        })
    }
}

/// One layer at one update; one line's element of `statistics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerStatistics {
    /// The layer's number, or "embedding", "norm", "head".
    pub layer: String,
    /// Euclidean norm of the gradient of the layer's parameters, before clipping.
    pub gradient_norm: f64,
    /// Euclidean norm of the parameters.
    pub weight_norm: f64,
    /// The hidden states behind it, where it is a layer.
    #[serde(flatten)]
    pub activations: Option<Activations>,
}

/// Figures of every part of the model at one update. `scale` takes the summed gradients to their mean.
///
/// # Errors
/// Those of candle.
pub fn layers(
    parameters: &Parameters,
    gradients: &[Vec<f32>],
    scale: f64,
    activations: &[Activations],
) -> Result<Vec<LayerStatistics>> {
    let mut parts: Vec<(String, f64, f64)> = Vec::new();
    for ((name, var), gradient) in parameters.iter().zip(gradients) {
        let square = |values: &[f32]| values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>();
        let weights: Vec<f32> = var.as_tensor().flatten_all()?.to_vec1()?;
        let (part, gradient, weight) = (part(name), square(gradient), square(&weights));
        match parts.iter_mut().find(|(known, ..)| *known == part) {
            Some((_, g, w)) => (*g, *w) = (*g + gradient, *w + weight),
            None => parts.push((part, gradient, weight)),
        }
    }
    parts.sort_by_key(|(part, ..)| (part.parse::<usize>().unwrap_or(usize::MAX), part.clone()));
    Ok(parts
        .into_iter()
        .map(|(layer, gradient, weight)| LayerStatistics {
            activations: layer.parse::<usize>().ok().and_then(|i| activations.get(i).copied()),
            gradient_norm: gradient.sqrt() * scale,
            weight_norm: weight.sqrt(),
            layer,
        })
        .collect())
}

/// Which part of the model a parameter belongs to.
fn part(name: &str) -> String {
    match name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next()) {
        Some(layer) => layer.to_owned(),
        None if name.contains("embed_tokens") => "embedding".to_owned(),
        None if name.contains("lm_head") => "head".to_owned(),
        None => "norm".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn figures_are_those_of_the_parts() {
        let var = |values: &[f32]| Var::from_tensor(&Tensor::new(values, &Device::Cpu).unwrap()).unwrap();
        let names = ["model.layers.10.a", "model.layers.2.a", "model.layers.2.b", "model.embed_tokens.weight"];
        let vars = names.map(|name| (name.to_owned(), var(&[3.0, 4.0])));
        let parameters = Parameters::new(vars.into_iter().collect());
        let gradients: Vec<Vec<f32>> = parameters.iter().map(|_| vec![6.0, 8.0]).collect();
        let x = Tensor::new(&[[1.0_f32, -7.0], [1.0, 1.0]], &Device::Cpu).unwrap();
        let seen = vec![Activations::of(&x, 2.5).unwrap(); 3];
        assert_eq!(seen[0], Activations { rms: 13.0_f64.sqrt(), largest: 7.0, attention_logit: 2.5 });
        let layers = layers(&parameters, &gradients, 0.5, &seen).unwrap();
        let names: Vec<&str> = layers.iter().map(|l| &l.layer[..]).collect();
        assert_eq!(names, ["2", "10", "embedding"]);
        assert!((layers[0].gradient_norm - 200.0_f64.sqrt() / 2.0).abs() < 1e-9);
        assert!((layers[1].weight_norm - 5.0).abs() < 1e-9);
        assert!(layers[0].activations.is_some() && layers[1].activations.is_none());
        let line = serde_json::to_value(&layers[0]).unwrap();
        assert_eq!(line["attention_logit"], 2.5);
    }
}
