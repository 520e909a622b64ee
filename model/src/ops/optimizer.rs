//! What a trainer does with gradients on a device: added up, measured, and learnt from, without a way through the host.

use candle_core::{DType, Result, Tensor, Var};

/// The numbers of one update of one parameter by AdamW (Loshchilov and Hutter 2019, algorithm 2).
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// Takes the gradient to what is learnt from.
    pub gradient_scale: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// The rate over the correction of the first moment's beginning at zero.
    pub step_size: f32,
    /// The correction of the second moment's.
    pub second_correction: f32,
    /// What is left of the weight by its decay.
    pub keep: f32,
    /// ε.
    pub epsilon: f32,
}

/// `sum` + `values`, in `sum`'s place where its device has a kernel for that; shapes and types are the same.
///
/// # Errors
/// Those of candle.
pub fn add_to(sum: &mut Tensor, values: &Tensor) -> Result<()> {
    #[cfg(feature = "cuda")]
    if super::cuda::add_to(sum, &values.contiguous()?)? {
        return Ok(());
    }
    *sum = (&*sum + values)?;
    Ok(())
}

/// The sum of the squares of each tensor. The device is waited for once.
///
/// # Errors
/// Those of candle.
pub fn squares(tensors: &[&Tensor]) -> Result<Vec<f64>> {
    #[cfg(feature = "cuda")]
    if let Some(sums) = super::cuda::squares(tensors)? {
        return Ok(sums);
    }
    let sums =
        tensors.iter().map(|tensor| tensor.sqr()?.sum_all()?.to_dtype(DType::F32)).collect::<Result<Vec<_>>>()?;
    if sums.is_empty() {
        return Ok(Vec::new());
    }
    Ok(Tensor::stack(&sums, 0)?.to_vec1::<f32>()?.into_iter().map(f64::from).collect())
}

/// One update of a parameter and its two moments, all f32 and of one shape.
///
/// # Errors
/// Those of candle.
pub fn adamw(weight: &Var, moments: &mut (Tensor, Tensor), gradient: &Tensor, update: &Update) -> Result<()> {
    #[cfg(feature = "cuda")]
    if super::cuda::adamw(weight, (&moments.0, &moments.1), &gradient.contiguous()?, update)? {
        return Ok(());
    }
    let Update { gradient_scale, beta1, beta2, step_size, second_correction, keep, epsilon } = *update;
    let [scale, b1, b2] = [gradient_scale, beta1, beta2].map(f64::from);
    let gradient = (gradient * scale)?;
    let (first, second) = &*moments;
    let first = ((first * b1)? + (&gradient * (1.0 - b1))?)?;
    let second = ((second * b2)? + (gradient.sqr()? * (1.0 - b2))?)?;
    let below = ((&second / f64::from(second_correction))?.sqrt()? + f64::from(epsilon))?;
    let step = ((&first * f64::from(step_size))? / below)?;
    weight.set(&((weight.as_tensor().detach() * f64::from(keep))? - step)?)?;
    *moments = (first, second);
    Ok(())
}
