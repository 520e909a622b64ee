//! Where a backward pass begins with a gradient that came from elsewhere.

use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, MetalStorage, Result, Shape, Tensor, bail};

/// A scalar whose `backward` is that of `y` with the gradient `dy`, of one shape. Its value means nothing.
///
/// # Errors
/// Those of candle.
pub fn seeded(y: &Tensor, dy: &Tensor) -> Result<Tensor> {
    if y.shape() != dy.shape() || y.dtype() != dy.dtype() {
        bail!("a gradient {:?} for {:?}", dy.shape(), y.shape());
    }
    y.apply_op1(Seeded(dy.detach()))
}

struct Seeded(Tensor);

impl CustomOp1 for Seeded {
    fn name(&self) -> &'static str {
        "seeded"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), Shape::from(())))
    }

    fn cuda_fwd(&self, storage: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        use candle_core::backend::{BackendDevice, BackendStorage};
        let shape = Shape::from(());
        Ok((storage.device().zeros_impl(&shape, candle_core::DType::F32)?, shape))
    }

    fn metal_fwd(&self, storage: &MetalStorage, _: &Layout) -> Result<(MetalStorage, Shape)> {
        use candle_core::backend::{BackendDevice, BackendStorage};
        let shape = Shape::from(());
        Ok((storage.device().zeros_impl(&shape, candle_core::DType::F32)?, shape))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.0.clone()))
    }
}
