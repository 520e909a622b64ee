//! Parameters in buckets, one for each part of the model: what is summed and exchanged at once.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::ops::Range;

use crate::parameters::Parameters;

/// A part of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A layer.
    Layer(usize),
    /// The embedding, which is the head too where they are tied.
    Embedding,
    /// The output projection.
    Head,
    /// The last norm.
    Norm,
}

impl Part {
    /// The part that the parameter of this name belongs to.
    pub fn of(name: &str) -> Part {
        let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next()?.parse().ok());
        match layer {
            Some(layer) => Part::Layer(layer),
            None if name.contains("embed_tokens") => Part::Embedding,
            None if name.contains("lm_head") => Part::Head,
            None => Part::Norm,
        }
    }
}

impl Display for Part {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Part::Layer(layer) => write!(f, "{layer}"),
            Part::Embedding => f.write_str("embedding"),
            Part::Head => f.write_str("head"),
            Part::Norm => f.write_str("norm"),
        }
    }
}

/// Where a parameter lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The number of its bucket.
    pub bucket: usize,
    /// Its values there.
    pub range: Range<usize>,
}

/// Which parameters lie in which bucket.
#[derive(Clone, Debug)]
pub struct Buckets {
    parts: Vec<Part>,
    divided: Vec<bool>,
    lengths: Vec<usize>,
    places: Vec<Place>,
}

/// Values of all buckets.
pub type Buffers = Vec<Vec<f32>>;

impl Buckets {
    /// The parameters of each part one after another, in the order of names; of a part that workers share, what is
    /// divided and what all of them have.
    pub fn new(parameters: &Parameters) -> Buckets {
        let whole = !parameters.iter().any(|(name, _)| parameters.slice(name).is_some());
        let key = |name: &str| (Part::of(name), whole || parameters.slice(name).is_some());
        let mut numbers: BTreeMap<(Part, bool), usize> = parameters.iter().map(|(name, _)| (key(name), 0)).collect();
        numbers.values_mut().enumerate().for_each(|(number, value)| *value = number);
        let mut lengths = vec![0; numbers.len()];
        let place = |(name, var): (&str, &candle_core::Var)| {
            let bucket = numbers[&key(name)];
            let start = lengths[bucket];
            lengths[bucket] += var.elem_count();
            Place { bucket, range: start..lengths[bucket] }
        };
        let places = parameters.iter().map(place).collect();
        let (parts, divided) = numbers.into_keys().unzip();
        Buckets { parts, divided, lengths, places }
    }

    /// Whether each bucket is this worker's alone, as in a run without others; the rest are those of which everyone who
    /// shares a layer has a copy.
    pub fn divided(&self) -> &[bool] {
        &self.divided
    }

    /// The part of each bucket.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Values of each bucket.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Where each parameter lies, in the order of names.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Zeros.
    pub fn zeros(&self) -> Buffers {
        self.lengths.iter().map(|length| vec![0.0; *length]).collect()
    }
}

/// The common part of two ranges; an empty one where there is none.
pub fn common(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor, Var};

    use super::*;

    #[test]
    fn every_value_has_one_place() {
        let var =
            |n: usize| Var::from_tensor(&Tensor::zeros(n, candle_core::DType::F32, &Device::Cpu).unwrap()).unwrap();
        let names =
            ["lm_head.weight", "model.layers.10.a", "model.layers.2.a", "model.layers.2.b", "model.norm.weight"];
        let vars = names.iter().zip([5, 7, 2, 3, 1]).map(|(name, n)| ((*name).to_owned(), var(n)));
        let buckets = Buckets::new(&Parameters::new(vars.collect()));
        assert_eq!(buckets.parts(), [Part::Layer(2), Part::Layer(10), Part::Head, Part::Norm]);
        assert_eq!(buckets.lengths(), [5, 7, 5, 1]);
        let places: Vec<(usize, Range<usize>)> = buckets.places().iter().map(|p| (p.bucket, p.range.clone())).collect();
        assert_eq!(places, [(2, 0..5), (1, 0..7), (0, 0..2), (0, 2..5), (3, 0..1)]);
        assert_eq!((common(&(0..3), &(2..9)), common(&(0..3), &(5..9)).len()), (2..3, 0));
    }
}
