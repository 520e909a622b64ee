//! One forward and backward pass, layer by layer: the gradients of a layer are added to their sums and freed before the
//! layer below is begun. With activation checkpointing the inputs of the layers alone are kept, and each layer is run
//! again when its turn comes (Chen et al. 2016); the gradients have the same bits.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use safelmm_model::Decoder;
use safelmm_model::ops::{CrossEntropy, IGNORE, Tape, cross_entropy, record};

use crate::buckets::Part;
use crate::gradients::Sink;
use crate::parameters::Parameters;
use crate::statistics::Activations;

/// A micro-batch: inputs and targets of each sequence, packed without padding.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Tokens of each sequence.
    pub inputs: Vec<Vec<u32>>,
    /// What each of them should be followed by, or [`IGNORE`].
    pub targets: Vec<Vec<u32>>,
}

impl Batch {
    /// Adds a sequence.
    pub fn push(&mut self, (inputs, targets): (Vec<u32>, Vec<u32>)) {
        self.inputs.push(inputs);
        self.targets.push(targets);
    }

    /// Tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.inputs.iter().map(Vec::len).sum()
    }

    /// Whether any target counts.
    pub fn has_targets(&self) -> bool {
        self.targets.iter().flatten().any(|target| *target != IGNORE)
    }
}

/// How a pass is made.
#[derive(Clone, Copy)]
pub struct Options {
    /// Weight of the z-loss.
    pub z_loss: f64,
    /// Run each layer again in the backward pass instead of keeping what is inside it.
    pub checkpointing: bool,
}

/// What a pass found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loss {
    /// Sum of the negative log-likelihoods of the targets, in nats.
    pub nll: f64,
    /// Sum of the z-losses of the targets.
    pub z_loss: f64,
    /// Targets that count.
    pub targets: usize,
}

/// A loss that the device may still be computing.
pub struct Unread {
    /// Means, as [`CrossEntropy`] has them.
    parts: Tensor,
    targets: usize,
}

impl Unread {
    fn of(loss: &CrossEntropy) -> Unread {
        Unread { parts: loss.parts.clone(), targets: loss.targets }
    }

    /// Waits for the loss; that of a pass without one is zero.
    ///
    /// # Errors
    /// Those of the device.
    pub fn read(unread: Option<Unread>) -> Result<Loss> {
        let Some(Unread { parts, targets }) = unread else { return Ok(Loss::default()) };
        match parts.to_vec1::<f64>()?[..] {
            [nll, z_loss] => Ok(Loss { nll: nll * targets as f64, z_loss: z_loss * targets as f64, targets }),
            _ => candle_core::bail!("a loss has other parts than two"),
        }
    }
}

/// A micro-batch between its forward and its backward pass.
pub struct Pass<'a> {
    batch: &'a Batch,
    packed: safelmm_model::Batch,
    /// What the embedding gave, where this worker has it.
    embedded: Option<(Tensor, Tape)>,
    inputs: Vec<Tensor>,
    outputs: Vec<Option<(Tensor, Tape)>>,
    x: Tensor,
}

impl Pass<'_> {
    /// The hidden states behind the last of the layers, [rows, hidden].
    pub fn leaving(&self) -> &Tensor {
        &self.x
    }

    /// Tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.batch.tokens()
    }
}

/// Runs the layers that `decoder` has, on its embeddings or on the hidden states [rows, hidden] that enter them. `look`
/// takes what the layers' states are like.
///
/// # Errors
/// Those of the decoder.
pub fn forward<'a>(
    decoder: &Decoder,
    batch: &'a Batch,
    options: Options,
    entering: Option<Tensor>,
    mut look: Option<&mut Vec<Activations>>,
) -> Result<Pass<'a>> {
    let sequences: Vec<&[u32]> = batch.inputs.iter().map(Vec::as_slice).collect();
    let packed = decoder.batch(&sequences)?;
    let (embedded, mut x) = match entering {
        Some(x) => (None, x),
        None => {
            let embedded = record(decoder.device(), || decoder.embed(&packed))?;
            let x = embedded.0.detach();
            (Some(embedded), x)
        }
    };
    let layers = decoder.layers();
    let (mut inputs, mut outputs) = (Vec::with_capacity(layers.len()), Vec::with_capacity(layers.len()));
    for index in layers {
        let input = entering_layer(&x)?;
        let output = record(decoder.device(), || decoder.layer(index, &input, &packed))?;
        if let Some(look) = look.as_deref_mut() {
            let logit = || decoder.largest_attention_logit(index, &x, &packed);
            let (logit, _) = record(decoder.device(), logit)?;
            look.push(Activations::of(&output.0, logit)?);
        }
        x = output.0.detach();
        inputs.push(input);
        outputs.push(if options.checkpointing { None } else { Some(output) });
    }
    Ok(Pass { batch, packed, embedded, inputs, outputs, x })
}

/// Gives the gradients of the **sum** of the targets' losses to `sink`, so that an update's mean is over its tokens
/// however they are cut into passes. `leaving`: the gradient of the hidden states behind the layers; without it the
/// loss follows them. Returns the loss, where it does, and the gradient of the states that entered, [rows, hidden].
///
/// # Errors
/// Those of the decoder.
pub fn backward(
    decoder: &Decoder,
    parameters: &Parameters,
    pass: Pass<'_>,
    options: Options,
    leaving: Option<Tensor>,
    sink: &mut dyn Sink,
) -> Result<(Option<Unread>, Tensor)> {
    let Pass { batch, packed, embedded, mut inputs, mut outputs, x } = pass;
    let (found, mut dx) = match leaving {
        Some(gradient) => (None, gradient),
        None => {
            let last = entering_layer(&x)?;
            let targets: Vec<u32> = batch.targets.concat();
            let (loss, tape) = record(decoder.device(), || {
                cross_entropy(&decoder.last_norm(&last)?, decoder.head()?, &targets, options.z_loss)
            })?;
            let n = Tensor::new(loss.targets as f32, decoder.device())?;
            let mut grads = tape.backward(&loss.loss, &n)?;
            let dx = take(&mut grads, &last)?;
            sink.add(parameters, &grads)?;
            sink.complete(Part::Head);
            sink.complete(Part::Norm);
            (Some(Unread::of(&loss)), dx)
        }
    };
    drop(x);
    let first = decoder.layers().start;
    while let (Some(input), Some(output)) = (inputs.pop(), outputs.pop()) {
        let index = first + inputs.len();
        let output = match output {
            Some(output) => output,
            None => record(decoder.device(), || decoder.layer(index, &input, &packed))?,
        };
        let (output, tape) = output;
        let mut grads = tape.backward(&output, &dx)?;
        drop(output);
        dx = take(&mut grads, &input)?;
        sink.add(parameters, &grads)?;
        sink.complete(Part::Layer(index));
    }
    if let Some((embedded, tape)) = embedded.filter(|(embedded, _)| tape_or_graph(embedded)) {
        sink.add(parameters, &tape.backward(&embedded, &dx)?)?;
    }
    sink.complete(Part::Embedding);
    Ok((found, dx))
}

/// Hidden states on their way into a layer: on the CPU candle's graph begins with them, elsewhere a tape.
fn entering_layer(x: &Tensor) -> Result<Tensor> {
    match x.device().is_cpu() {
        true => Ok(Var::from_tensor(x)?.into_inner()),
        false => Ok(x.clone()),
    }
}

/// Whether gradients go back from the embedding: it is trained, or on a device, whose tape finds out.
fn tape_or_graph(embedded: &Tensor) -> bool {
    !embedded.device().is_cpu() || embedded.track_op()
}

fn take(grads: &mut GradStore, input: &Tensor) -> Result<Tensor> {
    match grads.remove(input) {
        Some(gradient) => Ok(gradient),
        None => candle_core::bail!("no gradient reaches the input of a layer"),
    }
}

#[cfg(test)]
mod tests {
    use safelmm_model::Config;

    use super::*;
    use crate::buckets::Place;
    use crate::config::Initialisation;
    use crate::gradients::{Gradients, Summing, Sums};
    use crate::mesh::Mesh;

    fn model(layers: usize, tied: bool) -> (Parameters, Decoder) {
        let json = serde_json::json!({
            "architectures": ["Qwen3ForCausalLM"], "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
            "rms_norm_eps": 1e-6, "max_position_embeddings": 64, "tie_word_embeddings": tied,
        });
        let config = Config::from_json(&serde_json::to_vec(&json).unwrap()).unwrap();
        Parameters::initialise(&config, Initialisation::Fixed, 1).unwrap()
    }

    fn batch() -> Batch {
        let mut batch = Batch::default();
        batch.push((vec![3, 5, 8, 13, 21, 34, 1], vec![5, 8, 13, IGNORE, 34, 1, 2]));
        batch.push((vec![7, 7, 9], vec![7, 9, 30]));
        batch
    }

    fn gradients(tied: bool, checkpointing: bool) -> (Loss, Vec<Vec<f32>>, Vec<Activations>) {
        let (parameters, decoder) = model(3, tied);
        let (mut sums, mut seen) = (Gradients::new(&parameters, tied), Vec::new());
        let options = Options { z_loss: 1e-2, checkpointing };
        let batch = batch();
        let pass = forward(&decoder, &batch, options, None, Some(&mut seen)).unwrap();
        let passes = |sums: &mut Summing<'_>| backward(&decoder, &parameters, pass, options, None, sums);
        let loss = Unread::read(sums.sum(&Mesh::alone(), 1, passes).unwrap().0).unwrap();
        let Sums::Host(found) = sums.sums() else { panic!("on the CPU") };
        let of = |place: &Place| found[place.bucket][place.range.clone()].to_vec();
        (loss, sums.buckets().places().iter().map(of).collect(), seen)
    }

    #[test]
    fn layer_by_layer_the_gradients_are_those_of_the_whole() {
        for tied in [true, false] {
            let (loss, sums, seen) = gradients(tied, false);
            assert_eq!(gradients(tied, true), (loss, sums.clone(), seen.clone()), "the same bits with checkpointing");
            assert_eq!((loss.targets, seen.len()), (9, 3));
            let (parameters, decoder) = model(3, tied);
            let batch = batch();
            let sequences: Vec<&[u32]> = batch.inputs.iter().map(Vec::as_slice).collect();
            let hidden = decoder.forward(&sequences).unwrap();
            let whole = cross_entropy(&hidden, decoder.head().unwrap(), &batch.targets.concat(), 1e-2).unwrap();
            assert!((whole.read().unwrap().0 * 9.0 - loss.nll).abs() < 1e-9);
            let grads = whole.loss.backward().unwrap();
            for ((name, var), sum) in parameters.iter().zip(&sums) {
                let want: Vec<f32> = grads.get(var).unwrap().flatten_all().unwrap().to_vec1().unwrap();
                let largest = want.iter().fold(0.0_f32, |m, g| m.max(g.abs()));
                for (got, want) in sum.iter().zip(&want) {
                    assert!((got / 9.0 - want).abs() <= 1e-5 * largest, "{name}: {got} / 9 against {want}");
                }
            }
        }
    }
}
