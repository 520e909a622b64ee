//! The operations on an NVIDIA GPU, with kernels of their own in f32 and bf16. Each takes the cases that its kernel knows
//! (rows of a multiple of eight values, say) and leaves the others to `reference`.

mod attention;
mod loss;
mod optimizer;
mod products;
mod rows;

use candle_core::{CudaDevice, DType, Result, Tensor};

pub use attention::{attention, tiles};
pub use loss::{cross_entropy, token_log_probs};
pub use optimizer::{adamw, add_to, squares};
pub use products::linear;
pub use rows::{embedding, norm_rope, rms_norm, rope, sum, swiglu};

use super::tape;
use crate::kernels::cuda::{Fresh, device};

/// The name of a kernel for tensors of this type, where there is one.
fn kernel(name: &str, dtype: DType) -> Option<String> {
    match dtype {
        DType::F32 => Some(format!("{name}_f32")),
        DType::BF16 => Some(format!("{name}_bf16")),
        _ => None,
    }
}

/// The device of tensors that the kernels take: all on one GPU, with rows of `width` values that can be read eight at a
/// time. Gradients go back through a tape alone: tensors of candle's graph are for `reference`.
fn takes<'a>(inputs: &[&'a Tensor], width: usize) -> Option<&'a CudaDevice> {
    let [x, ..] = inputs else { return None };
    let fits = width > 0 && width.is_multiple_of(8) && matches!(x.dtype(), DType::F32 | DType::BF16);
    let same = inputs.iter().all(|input| device(input).is_some());
    let free = tape::is_running() || !inputs.iter().any(|input| input.track_op());
    device(x).filter(|_| fits && same && free && x.elem_count() > 0)
}

/// The result of an operation on `inputs`, written down with what takes its gradient, which is contiguous, to theirs.
fn recorded<const N: usize>(
    result: Fresh,
    inputs: [&Tensor; N],
    backward: impl Fn(&Tensor) -> Result<[Option<Tensor>; N]> + 'static,
) -> Result<Tensor> {
    let result = result.tensor(inputs[0])?;
    tape::enter(&result, &inputs, move |dy| backward(dy).map(Vec::from));
    Ok(result)
}
