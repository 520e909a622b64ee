//! The decoder as a function to train: every parameter of every family has a gradient, and it is the right one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in helpers too")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor, Var};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safelmm_model::ops::{IGNORE, TensorGroup, cross_entropy, from_divided, to_divided};
use safelmm_model::{Config, Decoder, ParameterSource, Part};

struct Variables {
    vars: BTreeMap<String, Var>,
    rng: ChaCha8Rng,
}

impl ParameterSource for Variables {
    type Error = candle_core::Error;

    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let centre = if name.ends_with("norm.weight") { 1.0 } else { 0.0 };
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|_| centre + self.rng.random_range(-0.3_f32..0.3)).collect();
        let var = Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu)?)?;
        let tensor = var.as_tensor().clone();
        self.vars.insert(name.to_owned(), var);
        Ok(tensor)
    }
}

fn loss(decoder: &Decoder) -> Result<Tensor> {
    let (a, b) = ([5_u32, 9, 2, 7, 7, 30, 12], [1_u32, 40, 3]);
    let targets = [9, 2, 7, 7, 30, 12, IGNORE, 40, 3, 8];
    Ok(cross_entropy(&decoder.forward(&[&a, &b])?, decoder.head()?, &targets, 1e-2)?.loss)
}

#[test]
fn every_parameter_of_every_family_has_the_right_gradient() -> Result<()> {
    for family in ["llama", "llama-linear", "mistral", "qwen2", "qwen3", "olmo2"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(family).join("config.json");
        let config = Config::from_json(&std::fs::read(path).unwrap()).unwrap();
        let mut source = Variables { vars: BTreeMap::new(), rng: ChaCha8Rng::seed_from_u64(3) };
        let decoder = Decoder::new(config, &mut source)?;
        let grads = loss(&decoder)?.backward()?;
        for (name, var) in &source.vars {
            let gradient: Vec<f32> =
                grads.get(var).unwrap_or_else(|| panic!("{family}: {name}: no gradient")).flatten_all()?.to_vec1()?;
            assert!(gradient.iter().all(|g| g.is_finite()), "{family}: {name}");
            // Along its own direction the loss must change by h · |gradient|.
            let norm = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
            assert!(norm > 0.0, "{family}: {name}: the gradient is zero");
            let start = var.as_tensor().copy()?;
            let direction = (Tensor::from_slice(&gradient, var.shape(), &Device::Cpu)? * f64::from(1.0 / norm))?;
            let at = |h: f64| -> Result<f32> {
                var.set(&(&start + (&direction * h)?)?)?;
                loss(&decoder)?.to_scalar()
            };
            let h = 3e-3;
            let slope = (at(h)? - at(-h)?) / (2.0 * h as f32);
            var.set(&start)?;
            assert!((slope - norm).abs() < 0.02 * norm + 2e-3, "{family}: {name}: slope {slope}, gradient {norm}");
        }
    }
    Ok(())
}

/// A group of workers that all have the same values.
struct Equals(usize);

impl TensorGroup for Equals {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        self.0
    }

    fn all_reduce(&self, values: &mut [f32]) -> Result<()> {
        values.iter_mut().for_each(|value| *value *= self.0 as f32);
        Ok(())
    }
}

#[test]
fn what_is_divided_is_summed_on_its_way_out_and_its_gradient_on_its_way_in() -> Result<()> {
    let group: Arc<dyn TensorGroup> = Arc::new(Equals(3));
    let x = Var::from_tensor(&Tensor::new(&[[1.0_f32, -2.0], [4.0, 0.5]], &Device::Cpu)?)?;
    let values = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
    let (into, out) = (to_divided(&x, &group)?, from_divided(&x, &group)?);
    assert_eq!(values(&into)?, [1.0, -2.0, 4.0, 0.5]);
    assert_eq!(values(&out)?, [3.0, -6.0, 12.0, 1.5]);
    for (y, expected) in [(into, [6.0, -12.0, 24.0, 3.0]), (out, [6.0, -12.0, 24.0, 3.0])] {
        // The gradient of the sum of squares is 2 y.
        let grads = y.sqr()?.sum_all()?.backward()?;
        assert_eq!(values(grads.get(&x).unwrap())?, expected);
    }
    Ok(())
}

#[test]
fn what_cannot_be_divided_is_refused_with_its_reason() {
    let config = |family: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(family).join("config.json");
        Config::from_json(&std::fs::read(path).unwrap()).unwrap()
    };
    assert!(Part::check(&config("qwen3"), 1).is_ok() && Part::check(&config("olmo2"), 1).is_ok());
    let message = Part::check(&config("qwen3"), 7).unwrap_err().to_string();
    assert!(message.contains("7 workers cannot share a layer: the number of heads is"), "{message}");
    let mut whole_norm = config("olmo2");
    whole_norm.intermediate_size = 84;
    let message = Part::check(&whole_norm, 2).unwrap_err().to_string();
    assert!(message.contains("over all heads at once"), "{message}");
}
