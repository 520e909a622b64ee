//! The operations on an NVIDIA GPU, with kernels of their own in f32 and bf16. Each takes the cases that its kernel knows
//! (rows of a multiple of eight values, say) and leaves the others to `reference`.

mod attention;
mod loss;
mod optimizer;
mod products;
mod rows;

use std::sync::Mutex;

use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, bail,
};

pub use attention::{attention, tiles};
pub use loss::{cross_entropy, token_log_probs};
pub use optimizer::{adamw, add_to, squares};
pub use products::linear;
pub use rows::{embedding, rms_norm, rope, swiglu};

use crate::kernels::cuda::{Fresh, device, taken};

/// The name of a kernel for tensors of this type, where there is one.
fn kernel(name: &str, dtype: DType) -> Option<String> {
    match dtype {
        DType::F32 => Some(format!("{name}_f32")),
        DType::BF16 => Some(format!("{name}_bf16")),
        _ => None,
    }
}

/// The device of tensors that the kernels take: all on one GPU, and rows of `width` values that can be read eight at a
/// time.
fn takes<'a>(x: &'a Tensor, width: usize) -> Option<&'a CudaDevice> {
    let fits = width > 0 && width.is_multiple_of(8) && matches!(x.dtype(), DType::F32 | DType::BF16);
    device(x).filter(|_| fits && x.elem_count() > 0)
}

/// An operation that has run: its result, and what takes the result and its gradient to the gradients of the inputs.
struct Ran<B> {
    name: &'static str,
    result: Mutex<Option<Fresh>>,
    backward: B,
}

impl<B> Ran<B> {
    fn new(name: &'static str, result: Fresh, backward: B) -> Ran<B> {
        Ran { name, result: Mutex::new(Some(result)), backward }
    }
}

/// The gradients of `N` inputs, out of the result and its gradient, which is contiguous.
trait Backward<const N: usize>: Fn(&Tensor, &Tensor) -> Result<[Option<Tensor>; N]> + Send + Sync + 'static {}
impl<const N: usize, F> Backward<N> for F where
    F: Fn(&Tensor, &Tensor) -> Result<[Option<Tensor>; N]> + Send + Sync + 'static
{
}

impl<B: Backward<1>> CustomOp1 for Ran<B> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("{}: expected tensors on the GPU", self.name)
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        taken(&self.result)
    }

    fn bwd(&self, _: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let [dx] = (self.backward)(y, &dy.contiguous()?)?;
        Ok(dx)
    }
}

impl<B: Backward<2>> CustomOp2 for Ran<B> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("{}: expected tensors on the GPU", self.name)
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        taken(&self.result)
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [a, b] = (self.backward)(y, &dy.contiguous()?)?;
        Ok((a, b))
    }
}

impl<B: Backward<3>> CustomOp3 for Ran<B> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("{}: expected tensors on the GPU", self.name)
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        taken(&self.result)
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = (self.backward)(y, &dy.contiguous()?)?;
        Ok((a, b, c))
    }
}
