//! What the layers are like: the activations and gradients that tell of trouble before the loss does.

use candle_core::{DType, Result, Tensor};
use serde::{Deserialize, Serialize};

use crate::buckets::{Buckets, Part};
use crate::comm::all_numbers;
use crate::mesh::Mesh;
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
        let values: Vec<f32> = x.detach().to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
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

/// What one worker knows of its buckets at one update.
pub struct Own<'a> {
    /// Its parameters.
    pub parameters: &'a Parameters,
    /// Where they lie.
    pub buckets: &'a Buckets,
    /// The sums of the squares of the buckets' gradients.
    pub squares: &'a [f64],
    /// Its layers' states in the last micro-batch, where it ran that.
    pub activations: &'a [Activations],
    /// Its first layer.
    pub first_layer: usize,
}

/// Figures of every part of a model of `layers` layers at one update, out of what each worker knows. `scale` takes the
/// summed gradients to their mean.
///
/// # Errors
/// Those of candle and of the exchange.
pub fn layers(own: &Own<'_>, layers: usize, scale: f64, mesh: &Mesh) -> Result<Vec<LayerStatistics>> {
    const FIGURES: usize = 6; // whether it is there, gradient, weights; and of a layer its states
    let parts: Vec<Part> = (0..layers).map(Part::Layer).chain([Part::Embedding, Part::Head, Part::Norm]).collect();
    let mut weights = vec![0.0; own.squares.len()];
    for ((_, var), place) in own.parameters.iter().zip(own.buckets.places()) {
        let values: Vec<f32> = var.as_tensor().flatten_all()?.to_vec1()?;
        weights[place.bucket] += values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>();
    }
    let mut figures = vec![[0.0, 0.0, 0.0, f64::NEG_INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY]; parts.len()];
    for (bucket, part) in own.buckets.parts().iter().enumerate() {
        let place = parts.iter().position(|known| known == part);
        let counts = mesh.data.rank() == 0 && mesh.counts(mesh.model.rank(), *part, own.buckets.divided()[bucket]);
        if let Some(figures) = place.and_then(|place| figures.get_mut(place)).filter(|_| counts) {
            figures[0] = 1.0;
            figures[1] += own.squares[bucket];
            figures[2] += weights[bucket];
        }
    }
    for (figures, states) in figures.iter_mut().skip(own.first_layer).zip(own.activations) {
        figures[3..].copy_from_slice(&[states.rms, states.largest, states.attention_logit]);
    }
    let all = all_numbers(&*mesh.world, figures.as_flattened()).map_err(candle_core::Error::wrap)?;
    let of = |(place, part): (usize, &Part)| {
        let each = || all.iter().map(|numbers| &numbers[place * FIGURES..][..FIGURES]);
        let sum = |figure: usize| each().map(|figures| figures[figure]).sum::<f64>();
        let most = |figure: usize| each().map(|figures| figures[figure]).fold(f64::NEG_INFINITY, f64::max);
        let states = Activations { rms: most(3), largest: most(4), attention_logit: most(5) };
        (sum(0) > 0.0).then(|| LayerStatistics {
            layer: part.to_string(),
            gradient_norm: sum(1).sqrt() * scale,
            weight_norm: sum(2).sqrt(),
            activations: (states.rms >= 0.0).then_some(states),
        })
    };
    Ok(parts.iter().enumerate().filter_map(of).collect())
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
        let buckets = Buckets::new(&parameters);
        let squares: Vec<f64> = buckets.lengths().iter().map(|length| 50.0 * *length as f64).collect();
        let x = Tensor::new(&[[1.0_f32, -7.0], [1.0, 1.0]], &Device::Cpu).unwrap();
        let seen = vec![Activations::of(&x, 2.5).unwrap(); 3];
        assert_eq!(seen[0], Activations { rms: 13.0_f64.sqrt(), largest: 7.0, attention_logit: 2.5 });
        let own =
            Own { parameters: &parameters, buckets: &buckets, squares: &squares, activations: &seen, first_layer: 0 };
        let layers = layers(&own, 11, 0.5, &Mesh::alone()).unwrap();
        let names: Vec<&str> = layers.iter().map(|l| &l.layer[..]).collect();
        assert_eq!(names, ["2", "10", "embedding"]);
        assert!((layers[0].gradient_norm - 200.0_f64.sqrt() / 2.0).abs() < 1e-9);
        assert!((layers[1].weight_norm - 5.0).abs() < 1e-9);
        assert!(layers[0].activations.is_some() && layers[1].activations.is_none());
        let line = serde_json::to_value(&layers[0]).unwrap();
        assert_eq!(line["attention_logit"], 2.5);
    }
}
