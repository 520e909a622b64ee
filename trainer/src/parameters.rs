//! The trained variables: made, initialised, and handed to the decoder.

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor, Var};
use safelmm_model::{Config, Decoder, ParameterSource};

use crate::config::Initialisation;
use crate::dataset::{mix, unit};

/// Every parameter by name, in the order of their names, which is the same in every process.
pub struct Parameters {
    vars: BTreeMap<String, Var>,
}

/// Makes parameters when the decoder asks for them.
struct Initialiser {
    vars: BTreeMap<String, Var>,
    seed: u64,
    layers: usize,
    deviation: f64,
}

impl ParameterSource for Initialiser {
    type Error = candle_core::Error;

    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let n: usize = shape.iter().product();
        let values: Vec<f32> = match shape {
            [_] if name.ends_with("norm.weight") => vec![1.0; n],
            [_] => vec![0.0; n],
            _ => {
                // Projections into the residual stream are scaled down by their number (GPT-2, section 2.3).
                let into_residual = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
                let scale = if into_residual { 1.0 / (2.0 * self.layers as f64).sqrt() } else { 1.0 };
                let stream = stream(name, self.seed);
                (0..n as u64).map(|i| (normal(stream, i) * self.deviation * scale) as f32).collect()
            }
        };
        let var = Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu)?)?;
        let tensor = var.as_tensor().clone();
        self.vars.insert(name.to_owned(), var);
        Ok(tensor)
    }
}

/// What the numbers of the parameter `name` are a function of.
pub(crate) fn stream(name: &str, seed: u64) -> u64 {
    mix(&name.bytes().map(u64::from).chain([seed]).collect::<Vec<_>>())
}

/// A standard normal number, a function of (stream, index) alone (Box and Muller 1958).
pub(crate) fn normal(stream: u64, index: u64) -> f64 {
    let radius = (-2.0 * (1.0 - unit(mix(&[stream, index, 0]))).ln()).sqrt();
    radius * (2.0 * std::f64::consts::PI * unit(mix(&[stream, index, 1]))).cos()
}

impl Parameters {
    /// Fresh parameters and the decoder that uses them: what is written to a variable, the decoder sees.
    ///
    /// # Errors
    /// Those of candle.
    pub fn initialise(config: &Config, how: Initialisation, seed: u64) -> Result<(Parameters, Decoder)> {
        let deviation = how.deviation(config.hidden_size);
        let mut source = Initialiser { vars: BTreeMap::new(), seed, layers: config.n_layers, deviation };
        let decoder = Decoder::new(config.clone(), &mut source)?;
        Ok((Parameters { vars: source.vars }, decoder))
    }

    /// Variables that were made elsewhere.
    pub fn new(vars: BTreeMap<String, Var>) -> Parameters {
        Parameters { vars }
    }

    /// Name and variable, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.vars.iter().map(|(name, var)| (name.as_str(), var))
    }

    /// The variable of this name.
    pub fn get(&self, name: &str) -> Option<&Var> {
        self.vars.get(name)
    }

    /// Numbers in all variables.
    pub fn count(&self) -> usize {
        self.vars.values().map(|v| v.elem_count()).sum()
    }
}

/// The shape of every parameter of a decoder, by name: nothing is allocated.
///
/// # Errors
/// Those of candle.
pub fn shapes(config: &Config) -> Result<BTreeMap<String, Vec<usize>>> {
    struct Names(BTreeMap<String, Vec<usize>>);
    impl ParameterSource for Names {
        type Error = candle_core::Error;

        fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
            self.0.insert(name.to_owned(), shape.to_vec());
            Tensor::from_vec(Vec::<f32>::new(), 0, &Device::Cpu)
        }
    }
    let mut names = Names(BTreeMap::new());
    Decoder::new(config.clone(), &mut names)?;
    Ok(names.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_mean_zero_and_deviation_one() {
        let numbers: Vec<f64> = (0..20_000).map(|i| normal(7, i)).collect();
        let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
        let variance = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / numbers.len() as f64;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
        assert!(numbers.iter().all(|x| x.is_finite()));
    }
}
