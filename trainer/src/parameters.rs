//! The trained variables: made, initialised, and handed to the decoder.

use std::collections::BTreeMap;

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Result, Storage, Tensor, Var};
use rayon::prelude::*;
use safelmm_model::{Config, Decoder, ParameterSource, Part, Slice};

use crate::config::Initialisation;
use crate::dataset::{mix, unit};

/// Every parameter by name, in the order of their names, which is the same in every process.
pub struct Parameters {
    vars: BTreeMap<String, Var>,
    /// What of a parameter is here, where others have the rest.
    slices: BTreeMap<String, Slice>,
}

/// Makes parameters when the decoder asks for them.
struct Initialiser {
    made: Parameters,
    seed: u64,
    layers: usize,
    deviation: f64,
    device: Device,
}

impl Initialiser {
    /// The values of `slice` of a parameter, each a function of its place in the whole.
    fn make(&mut self, name: &str, whole: &[usize], slice: Option<Slice>) -> Result<Tensor> {
        let shape = slice.map_or_else(|| whole.to_vec(), |slice| slice.shape(whole));
        let n: usize = shape.iter().product();
        let values: Vec<f32> = match *whole {
            [_] if name.ends_with("norm.weight") => vec![1.0; n],
            [rows, columns] => {
                // Projections into the residual stream are scaled down by their number (GPT-2, section 2.3).
                let into_residual = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
                let scale = if into_residual { 1.0 / (2.0 * self.layers as f64).sqrt() } else { 1.0 };
                let stream = stream(name, self.seed);
                let own = |dim, all| match slice {
                    Some(slice) if slice.dim == dim => {
                        slice.index * all / slice.count..(slice.index + 1) * all / slice.count
                    }
                    _ => 0..all,
                };
                let place = |row| own(1, columns).map(move |column| (row * columns + column) as u64);
                let deviation = self.deviation;
                let value = move |i| (normal(stream, i) * deviation * scale) as f32;
                own(0, rows).into_par_iter().flat_map_iter(|row| place(row).map(value)).collect()
            }
            _ => vec![0.0; n],
        };
        let var = Var::from_tensor(&Tensor::from_vec(values, shape, &self.device)?)?;
        let tensor = var.as_tensor().clone();
        self.made.vars.insert(name.to_owned(), var);
        if let Some(slice) = slice {
            self.made.slices.insert(name.to_owned(), slice);
        }
        Ok(tensor)
    }
}

impl ParameterSource for Initialiser {
    type Error = candle_core::Error;

    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.make(name, shape, None)
    }

    fn slice(&mut self, name: &str, shape: &[usize], slice: Slice) -> Result<Tensor> {
        self.make(name, shape, Some(slice))
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
        Parameters::initialise_part(config, &Part::whole(config), how, seed, &Device::Cpu)
    }

    /// The same of a part of the decoder, on a device: the numbers that stand there in the whole.
    ///
    /// # Errors
    /// Those of candle.
    pub fn initialise_part(
        config: &Config,
        part: &Part,
        how: Initialisation,
        seed: u64,
        device: &Device,
    ) -> Result<(Parameters, Decoder)> {
        let deviation = how.deviation(config.hidden_size);
        let made = Parameters::new(BTreeMap::new());
        let mut source = Initialiser { made, seed, layers: config.n_layers, deviation, device: device.clone() };
        let decoder = Decoder::part(config.clone(), &mut source, part)?;
        Ok((source.made, decoder))
    }

    /// Variables that were made elsewhere.
    pub fn new(vars: BTreeMap<String, Var>) -> Parameters {
        Parameters { vars, slices: BTreeMap::new() }
    }

    /// What of the parameter of this name is here; `None` where it is whole.
    pub fn slice(&self, name: &str) -> Option<Slice> {
        self.slices.get(name).copied()
    }

    /// What of the whole parameter of this name is here.
    ///
    /// # Errors
    /// A tensor of another shape.
    pub fn own(&self, name: &str, whole: &Tensor) -> Result<Tensor> {
        match self.slice(name) {
            None => Ok(whole.clone()),
            Some(Slice { dim, index, count }) => {
                let length = whole.dim(dim)? / count;
                whole.narrow(dim, index * length, length)?.contiguous()
            }
        }
    }

    /// Name and variable, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.vars.iter().map(|(name, var)| (name.as_str(), var))
    }

    /// The variable of this name.
    pub fn get(&self, name: &str) -> Option<&Var> {
        self.vars.get(name)
    }

    /// Where they lie.
    pub fn device(&self) -> Device {
        self.vars.values().next().map_or(Device::Cpu, |var| var.device().clone())
    }

    /// Numbers in all variables.
    pub fn count(&self) -> usize {
        self.vars.values().map(|v| v.elem_count()).sum()
    }
}

/// Copies the values of a variable.
///
/// # Errors
/// A variable that is not on the CPU in f32, or has another number of values.
pub fn read_values(var: &Var, values: &mut [f32]) -> Result<()> {
    let (storage, layout) = var.storage_and_layout();
    let (Storage::Cpu(CpuStorage::F32(from)), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
        candle_core::bail!("a variable is not f32, contiguous and on the CPU");
    };
    if end - start != values.len() {
        candle_core::bail!("a variable of {} values is read into {}", end - start, values.len());
    }
    values.copy_from_slice(&from[start..end]);
    Ok(())
}

/// Writes the values of a variable.
///
/// # Errors
/// Those of [`read_values`].
pub fn write_values(var: &Var, values: &[f32]) -> Result<()> {
    var.as_tensor().inplace_op1(&Write(values))
}

struct Write<'a>(&'a [f32]);

impl InplaceOp1 for Write<'_> {
    fn name(&self) -> &'static str {
        "write"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        match (storage, layout.contiguous_offsets()) {
            (CpuStorage::F32(to), Some((start, end))) if end - start == self.0.len() => {
                to[start..end].copy_from_slice(self.0);
                Ok(())
            }
            _ => candle_core::bail!("a variable is not f32 and contiguous, or has not {} values", self.0.len()),
        }
    }
}

/// The shape of every parameter of a decoder, by name: nothing is allocated.
///
/// # Errors
/// Those of candle.
pub fn shapes(config: &Config) -> Result<BTreeMap<String, Vec<usize>>> {
    let parts = shapes_of_part(config, &Part::whole(config))?;
    Ok(parts.into_iter().map(|(name, (shape, _))| (name, shape)).collect())
}

/// By name, the whole shape of parameters, and what of each is in a part of the model; `None` where all of it is.
pub type Shapes = BTreeMap<String, (Vec<usize>, Option<Slice>)>;

/// The whole shape of every parameter of a part of a decoder, and what of it the part has: nothing is allocated.
///
/// # Errors
/// Those of candle.
pub fn shapes_of_part(config: &Config, part: &Part) -> Result<Shapes> {
    struct Names(Shapes);
    impl ParameterSource for Names {
        type Error = candle_core::Error;

        fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
            self.0.insert(name.to_owned(), (shape.to_vec(), None));
            Tensor::from_vec(Vec::<f32>::new(), 0, &Device::Cpu)
        }

        fn slice(&mut self, name: &str, shape: &[usize], slice: Slice) -> Result<Tensor> {
            self.0.insert(name.to_owned(), (shape.to_vec(), Some(slice)));
            Tensor::from_vec(Vec::<f32>::new(), 0, &Device::Cpu)
        }
    }
    let mut names = Names(BTreeMap::new());
    Decoder::part(config.clone(), &mut names, part)?;
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
