//! The two operations at the borders of a block whose matrices are divided among workers: f and g of Shoeybi et al.
//! 2019, section 3. Each is the other's gradient.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::storage::{slice, with_slice};

/// The workers that share each layer, seen by one of them. All of them make the same calls in the same order.
pub trait TensorGroup: Send + Sync {
    /// This worker's number, from 0.
    fn rank(&self) -> usize;

    /// Workers of the group.
    fn size(&self) -> usize;

    /// Sums over all workers, for all of them.
    ///
    /// # Errors
    /// Another worker is out of reach.
    fn all_reduce(&self, values: &mut [f32]) -> Result<()>;
}

/// f: the same tensor, whose gradient is the sum of those of all workers. What is whole at each worker goes through it
/// into what is divided.
pub fn to_divided(x: &Tensor, group: &Arc<dyn TensorGroup>) -> Result<Tensor> {
    x.contiguous()?.apply_op1(ToDivided(Arc::clone(group)))
}

/// g: the sum over all workers, whose gradient is that of each of them. Shape of `x`.
pub fn from_divided(x: &Tensor, group: &Arc<dyn TensorGroup>) -> Result<Tensor> {
    x.contiguous()?.apply_op1(FromDivided(Arc::clone(group)))
}

struct ToDivided(Arc<dyn TensorGroup>);

impl CustomOp1 for ToDivided {
    fn name(&self) -> &'static str {
        "to-divided"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(slice(self.name(), x, layout)?.to_vec()), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let mut dx = with_slice(self.name(), dy, |dy| Ok(dy.to_vec()))?;
        self.0.all_reduce(&mut dx)?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

struct FromDivided(Arc<dyn TensorGroup>);

impl CustomOp1 for FromDivided {
    fn name(&self) -> &'static str {
        "from-divided"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut y = slice(self.name(), x, layout)?.to_vec();
        self.0.all_reduce(&mut y)?;
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(dy.clone()))
    }
}
