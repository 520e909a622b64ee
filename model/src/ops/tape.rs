//! The backward pass of the operations on a GPU. candle's graph adds every gradient to zeros that it makes first, which costs
//! as much as the operations themselves; a tape hands gradients on as they are, and adds where two meet.
//!
//! While a tape runs, the operations of this module write themselves down on it, and candle's graph sees nothing of them:
//! what is computed in between must be an operation of this module too. On the CPU there is no tape, but candle's graph.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor, TensorId, Var, bail};

use super::seeded::seeded;

/// The gradients of the inputs, out of that of the result.
type Backward = Box<dyn Fn(&Tensor) -> Result<Vec<Option<Tensor>>>>;

struct Entry {
    result: TensorId,
    inputs: Vec<TensorId>,
    backward: Backward,
}

thread_local! {
    static RUNNING: RefCell<Option<Vec<Entry>>> = const { RefCell::new(None) };
}

/// What was recorded, for one backward pass.
pub struct Tape(Option<Vec<Entry>>);

/// Runs operations so that gradients can go back through them.
///
/// # Errors
/// Those of `run`, or another recording that is running.
pub fn record<T>(device: &Device, run: impl FnOnce() -> Result<T>) -> Result<(T, Tape)> {
    if device.is_cpu() {
        return Ok((run()?, Tape(None)));
    }
    if is_running() {
        bail!("two tapes would record the same operations");
    }
    RUNNING.set(Some(Vec::new()));
    let result = run();
    let entries = RUNNING.take();
    Ok((result?, Tape(entries)))
}

/// Whether operations write themselves down.
pub(super) fn is_running() -> bool {
    RUNNING.with_borrow(Option::is_some)
}

/// Writes an operation down, while a tape runs.
pub(super) fn enter(
    result: &Tensor,
    inputs: &[&Tensor],
    backward: impl Fn(&Tensor) -> Result<Vec<Option<Tensor>>> + 'static,
) {
    RUNNING.with_borrow_mut(|running| {
        if let Some(entries) = running {
            let inputs = inputs.iter().map(|input| input.id()).collect();
            entries.push(Entry { result: result.id(), inputs, backward: Box::new(backward) });
        }
    });
}

/// An operation that is composed of candle's, with candle's gradients.
pub(super) fn composed<const N: usize>(
    inputs: [&Tensor; N],
    operation: impl FnOnce(&[Tensor; N]) -> Result<Tensor>,
) -> Result<Tensor> {
    if !is_running() {
        return operation(&inputs.map(Tensor::clone));
    }
    let vars = inputs.map(|input| Var::from_tensor(&input.detach())).into_iter().collect::<Result<Vec<_>>>()?;
    let mut index = 0;
    let tensors = inputs.map(|_| {
        index += 1;
        vars[index - 1].as_tensor().clone()
    });
    let graph = operation(&tensors)?;
    let result = graph.detach();
    enter(&result, &inputs, move |dy| {
        let mut grads = seeded(&graph, dy)?.backward()?;
        Ok(vars.iter().map(|var| grads.remove(var)).collect())
    });
    Ok(result)
}

/// a + b, of one shape.
///
/// # Errors
/// Those of candle.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.device().is_cpu() || (!is_running() && (a.track_op() || b.track_op())) {
        return a + b;
    }
    let sum = plain_sum(a, b)?;
    enter(&sum, &[a, b], |dy| Ok(vec![Some(dy.clone()), Some(dy.clone())]));
    Ok(sum)
}

/// The same values in another shape.
///
/// # Errors
/// Those of candle.
pub fn reshape(x: &Tensor, shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
    let reshaped = x.reshape(shape.into())?;
    if !is_running() || reshaped.id() == x.id() {
        return Ok(reshaped);
    }
    let shape = x.shape().clone();
    enter(&reshaped, &[x], move |dy| Ok(vec![Some(dy.reshape(&shape)?)]));
    Ok(reshaped)
}

/// A sum that nobody goes back through.
fn plain_sum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a, b) = (a.detach(), b.detach());
    #[cfg(feature = "cuda")]
    if let Some(sum) = super::cuda::sum(&a, &b)? {
        return Ok(sum);
    }
    a + b
}

impl Tape {
    /// The gradients of everything that `y` was recorded from, out of that of `y`.
    ///
    /// # Errors
    /// Those of the operations.
    pub fn backward(self, y: &Tensor, dy: &Tensor) -> Result<GradStore> {
        let Some(entries) = self.0 else { return seeded(y, dy)?.backward() };
        let mut grads = HashMap::from([(y.id(), dy.detach())]);
        for Entry { result, inputs, backward } in entries.into_iter().rev() {
            let Some(dy) = grads.remove(&result) else { continue };
            for (input, gradient) in inputs.into_iter().zip(backward(&dy.contiguous()?)?) {
                let Some(gradient) = gradient else { continue };
                let sum = match grads.remove(&input) {
                    Some(before) => plain_sum(&before, &gradient)?,
                    None => gradient,
                };
                grads.insert(input, sum);
            }
        }
        let mut store = GradStore::default();
        grads.into_iter().for_each(|(id, gradient)| drop(store.insert_id(id, gradient)));
        Ok(store)
    }
}

/// x · factor.
///
/// # Errors
/// Those of candle.
pub fn scaled(x: &Tensor, factor: f64) -> Result<Tensor> {
    composed([x], |[x]| x * factor)
}

/// A bias [out] added to rows, [rows, out], in their type.
///
/// # Errors
/// Those of candle.
pub fn add_bias(y: &Tensor, bias: &Tensor) -> Result<Tensor> {
    composed([y, bias], |[y, bias]| y.broadcast_add(&bias.to_dtype(y.dtype())?))
}
