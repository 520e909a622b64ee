//! The door to NVIDIA's GPUs: memory, kernels in CUDA C that are compiled for the device when they are first asked for,
//! and matrix products by cuBLAS. What the kernels compute, `ops/cuda/` says, which alone uses this.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::cuda_backend::cudarc::cublas::result::gemm_ex;
use candle_core::cuda_backend::cudarc::cublas::sys::{
    cublasComputeType_t, cublasGemmAlgo_t, cublasOperation_t, cudaDataType,
};
use candle_core::cuda_backend::cudarc::driver::sys::CUmemPool_attribute;
use candle_core::cuda_backend::cudarc::driver::{DevicePtr, LaunchConfig, PushKernelArg, result as driver};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};
use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp1, DType, Device, Error, Layout, Result, Shape, Storage, Tensor, bail,
};
use half::bf16;

/// Opens the GPU of this number: one stream of work, whose memory is kept for what comes.
///
/// # Errors
/// A GPU that there is not, or its driver's.
#[allow(unsafe_code, reason = "the driver's functions")]
pub fn open(ordinal: usize) -> Result<Device> {
    let device = Device::new_cuda_with_stream(ordinal)?;
    let cuda = device.as_cuda_device()?;
    let mut all = u64::MAX;
    // SAFETY: all work goes through one stream, in order, so that no tensor is used before it is written or after it is
    // freed. The pool is that of a device that is open; the attribute's value is a u64.
    unsafe {
        cuda.disable_event_tracking();
        let pool =
            driver::device::get_default_mem_pool(cuda.cuda_stream().context().cu_device()).map_err(Error::wrap)?;
        let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        driver::mem_pool::set_attribute(pool, attribute, (&raw mut all).cast::<c_void>()).map_err(Error::wrap)?;
    }
    Ok(device)
}

/// The most bytes that tensors have held on the device.
///
/// # Errors
/// The driver's.
#[allow(unsafe_code, reason = "the driver's functions")]
pub fn peak_memory(device: &CudaDevice) -> Result<u64> {
    let mut bytes = 0_u64;
    // SAFETY: the pool is that of a device that is open; the attribute's value is a u64.
    unsafe {
        let pool = driver::device::get_default_mem_pool(device.cuda_stream().context().cu_device());
        let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
        let value = (&raw mut bytes).cast::<c_void>();
        driver::mem_pool::get_attribute(pool.map_err(Error::wrap)?, attribute, value).map_err(Error::wrap)?;
    }
    Ok(bytes)
}

/// Bytes of the device that nobody holds.
///
/// # Errors
/// The driver's.
pub fn free_memory(device: &CudaDevice) -> Result<u64> {
    device.cuda_stream().context().bind_to_thread().map_err(Error::wrap)?;
    Ok(driver::mem_get_info().map_err(Error::wrap)?.0 as u64)
}

/// Compiled sources, by the name of the module.
static COMPILED: Mutex<BTreeMap<String, Arc<str>>> = Mutex::new(BTreeMap::new());

/// A source of kernels with what it is compiled for.
pub struct Module {
    name: String,
    source: &'static str,
    defines: Vec<String>,
}

impl Module {
    /// Norms, and the rotation behind them.
    pub fn norms() -> Module {
        let source = concat!(include_str!("common.cuh"), include_str!("norms.cu"));
        Module { name: "norms".to_owned(), source, defines: Vec::new() }
    }

    /// Activation, rotation, attention over a past, embedding, loss, optimiser.
    pub fn rows() -> Module {
        let source = concat!(include_str!("common.cuh"), include_str!("rows.cu"));
        Module { name: "rows".to_owned(), source, defines: Vec::new() }
    }

    /// Attention with heads of this width; none where it has no tiles for them.
    pub fn attention(width: usize) -> Option<Module> {
        // Rows of a tile of keys and of queries, and blocks on a multiprocessor: what the registers allow.
        let (keys, queries, blocks) = match width {
            32 => (64, 32, 4),
            64 => (64, 32, 3),
            128 => (32, 16, 2),
            _ => return None,
        };
        let defines = [("D", width), ("KEYS", keys), ("QUERIES", queries), ("DKV_BLOCKS", blocks)];
        let defines = defines.map(|(name, value)| format!("-D{name}={value}")).to_vec();
        Some(Module { name: format!("attention-{width}"), source: include_str!("attention.cu"), defines })
    }

    /// The source as the driver takes it, for devices of this compute capability and later ones.
    fn compiled(&self, (major, minor): (i32, i32)) -> Result<Arc<str>> {
        let key = format!("{} {major}.{minor}", self.name);
        let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ptx) = compiled.get(&key) {
            return Ok(Arc::clone(ptx));
        }
        let mut options = vec![format!("--gpu-architecture=compute_{major}{minor}"), "--std=c++17".to_owned()];
        options.extend(self.defines.iter().cloned());
        let options = CompileOptions { options, name: Some(format!("{}.cu", self.name)), ..CompileOptions::default() };
        let ptx = compile_ptx_with_opts(self.source, options).map_err(|e| Error::msg(format!("{key}: {e:?}")))?;
        let ptx: Arc<str> = ptx.to_src().into();
        compiled.insert(key, Arc::clone(&ptx));
        Ok(ptx)
    }
}

/// An argument of a kernel.
pub enum Arg<'a> {
    /// A contiguous tensor on the device, which the kernel may write.
    At(&'a Tensor),
    /// What the kernel makes.
    Out(&'a Fresh),
    /// A number.
    U32(usize),
    /// A number.
    U64(usize),
    /// A number.
    F32(f32),
    /// A number.
    F64(f64),
}

/// The blocks of a launch and the threads of each.
#[derive(Clone, Copy)]
pub struct Grid {
    /// Blocks.
    pub blocks: (usize, usize),
    /// Threads of a block.
    pub threads: (u32, u32),
}

impl Grid {
    /// As many blocks of 256 threads as make `threads`, at least one.
    pub fn of(threads: usize) -> Grid {
        Grid { blocks: (threads.div_ceil(256).max(1), 1), threads: (256, 1) }
    }
}

/// Runs a kernel. The extents that it is given must be those of the tensors: the callers, one for each kernel, see to it.
///
/// # Errors
/// The compiler's and the driver's.
#[allow(unsafe_code, reason = "a kernel writes into raw memory")]
pub fn launch(device: &CudaDevice, module: &Module, kernel: &str, grid: Grid, arguments: &[Arg<'_>]) -> Result<()> {
    enum Raw {
        U64(u64),
        U32(u32),
        F32(f32),
        F64(f64),
    }
    let too_many = |n: usize| Error::msg(format!("{kernel}: {n} is more than a kernel counts"));
    let raw = |argument: &Arg<'_>| -> Result<Raw> {
        Ok(match argument {
            Arg::At(tensor) => Raw::U64(address(tensor)?),
            Arg::Out(fresh) => Raw::U64(fresh.address),
            Arg::U32(n) => Raw::U32(u32::try_from(*n).map_err(|_| too_many(*n))?),
            Arg::U64(n) => Raw::U64(*n as u64),
            Arg::F32(x) => Raw::F32(*x),
            Arg::F64(x) => Raw::F64(*x),
        })
    };
    let arguments = arguments.iter().map(raw).collect::<Result<Vec<_>>>()?;
    let capability = device.cuda_stream().context().compute_capability().map_err(Error::wrap)?;
    let function = device.get_or_load_custom_func(kernel, &module.name, &module.compiled(capability)?)?;
    let blocks = |n: usize| u32::try_from(n).map_err(|_| too_many(n));
    let config = LaunchConfig {
        grid_dim: (blocks(grid.blocks.0)?, blocks(grid.blocks.1)?, 1),
        block_dim: (grid.threads.0, grid.threads.1, 1),
        shared_mem_bytes: 0,
    };
    let mut builder = function.builder();
    for argument in &arguments {
        match argument {
            Raw::U64(n) => builder.arg(n),
            Raw::U32(n) => builder.arg(n),
            Raw::F32(x) => builder.arg(x),
            Raw::F64(x) => builder.arg(x),
        };
    }
    // SAFETY: the arguments are those of the kernel, and its extents those of the tensors: see above.
    unsafe { builder.launch(config) }.map_err(Error::wrap)?;
    Ok(())
}

/// The device of a tensor that lies on a GPU of NVIDIA's.
pub fn device(tensor: &Tensor) -> Option<&CudaDevice> {
    match tensor.device() {
        Device::Cuda(device) => Some(device),
        _ => None,
    }
}

/// Where the values of a contiguous tensor begin.
fn address(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cuda(cuda), Some((start, _))) = (&*storage, layout.contiguous_offsets()) else {
        bail!("a tensor is not contiguous, or not on the GPU");
    };
    Ok(base(cuda)? + (start * tensor.dtype().size_in_bytes()) as u64)
}

fn base(storage: &CudaStorage) -> Result<u64> {
    let stream = storage.device.cuda_stream();
    Ok(match &storage.slice {
        CudaStorageSlice::F32(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::BF16(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::F64(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::U32(slice) => slice.device_ptr(&stream).0,
        _ => bail!("a tensor is of another type than the kernels know"),
    })
}

/// Memory of the device that nothing is written into yet.
pub struct Fresh {
    storage: CudaStorage,
    shape: Shape,
    dtype: DType,
    address: u64,
}

impl Fresh {
    /// Room for a tensor of this shape.
    ///
    /// # Errors
    /// A type that the kernels do not know, or no memory.
    #[allow(unsafe_code, reason = "memory that is not written yet")]
    pub fn new(device: &CudaDevice, shape: impl Into<Shape>, dtype: DType) -> Result<Fresh> {
        let shape = shape.into();
        let (count, of) = (shape.elem_count(), device.clone());
        // SAFETY: the kernel that it is made for writes all of it before anything reads it, in the one stream.
        let storage = unsafe {
            match dtype {
                DType::F32 => CudaStorage::wrap_cuda_slice(device.alloc::<f32>(count)?, of),
                DType::BF16 => CudaStorage::wrap_cuda_slice(device.alloc::<bf16>(count)?, of),
                DType::F64 => CudaStorage::wrap_cuda_slice(device.alloc::<f64>(count)?, of),
                _ => bail!("the kernels make no tensors of {dtype:?}"),
            }
        };
        Ok(Fresh { address: base(&storage)?, storage, shape, dtype })
    }

    /// Zeros of this shape, in f32.
    ///
    /// # Errors
    /// No memory.
    pub fn zeros(device: &CudaDevice, shape: impl Into<Shape>) -> Result<Fresh> {
        let shape = shape.into();
        let storage = CudaStorage::wrap_cuda_slice(device.alloc_zeros::<f32>(shape.elem_count())?, device.clone());
        Ok(Fresh { address: base(&storage)?, storage, shape, dtype: DType::F32 })
    }

    /// A tensor that no gradient goes through. `beside`: any tensor of the device.
    ///
    /// # Errors
    /// A tensor of another device.
    pub fn tensor(self, beside: &Tensor) -> Result<Tensor> {
        struct Give(Mutex<Option<Fresh>>);
        impl CustomOp1 for Give {
            fn name(&self) -> &'static str {
                "fresh"
            }

            fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
                bail!("expected a tensor on the GPU")
            }

            fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
                match self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    Some(Fresh { storage, shape, .. }) => Ok((storage, shape)),
                    None => bail!("memory was given away twice"),
                }
            }
        }
        beside.apply_op1_no_bwd(&Give(Mutex::new(Some(self))))
    }
}

/// A factor of a product: a matrix, row by row, or its transpose.
#[derive(Clone, Copy)]
pub struct Factor<'a> {
    /// [rows, columns], contiguous, in f32 or bf16.
    pub matrix: &'a Tensor,
    /// Whether its transpose is meant.
    pub transposed: bool,
}

/// `out` = a · b, or `out` + a · b where it is to be added, of factors of one type; `out` in theirs or in f32. Sums are
/// in f32.
///
/// # Errors
/// Shapes or types that do not fit, and cuBLAS's.
#[allow(unsafe_code, reason = "cuBLAS writes into raw memory")]
pub fn product(device: &CudaDevice, a: Factor<'_>, b: Factor<'_>, out: &Fresh, add: bool) -> Result<()> {
    let extents = |factor: Factor<'_>| -> Result<(usize, usize)> {
        let (rows, columns) = factor.matrix.dims2()?;
        Ok(if factor.transposed { (columns, rows) } else { (rows, columns) })
    };
    let ((m, k), (other, n)) = (extents(a)?, extents(b)?);
    let (dtype, made) = (a.matrix.dtype(), out.dtype);
    if k != other || out.shape.dims() != [m, n] || b.matrix.dtype() != dtype || ![dtype, DType::F32].contains(&made) {
        bail!("product: {m} × {k} by {other} × {n} into {:?}, of {dtype:?} into {made:?}", out.shape);
    }
    let kind = |dtype: DType| match dtype {
        DType::F32 => Ok(cudaDataType::CUDA_R_32F),
        DType::BF16 => Ok(cudaDataType::CUDA_R_16BF),
        _ => bail!("product: expected f32 or bf16, got {dtype:?}"),
    };
    let turn = |factor: Factor<'_>| match factor.transposed {
        true => cublasOperation_t::CUBLAS_OP_T,
        false => cublasOperation_t::CUBLAS_OP_N,
    };
    let int = |n: usize| i32::try_from(n).map_err(|_| Error::msg(format!("product: {n} is more than cuBLAS counts")));
    let stride = |factor: Factor<'_>| int(factor.matrix.dim(1)?);
    let (alpha, beta) = (1.0_f32, if add { 1.0_f32 } else { 0.0 });
    let (left, right) = (address(a.matrix)?, address(b.matrix)?);
    // cuBLAS counts by columns: it is asked for the transpose, bᵀ · aᵀ.
    // SAFETY: the pointers are those of live tensors of the extents that are given, `out` among them.
    unsafe {
        gemm_ex(
            *device.cublas_handle().handle(),
            turn(b),
            turn(a),
            int(n)?,
            int(m)?,
            int(k)?,
            (&raw const alpha).cast(),
            right as *const c_void,
            kind(dtype)?,
            stride(b)?,
            left as *const c_void,
            kind(dtype)?,
            stride(a)?,
            (&raw const beta).cast(),
            out.address as *mut c_void,
            kind(made)?,
            int(n)?,
            cublasComputeType_t::CUBLAS_COMPUTE_32F,
            cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
        )
    }
    .map_err(Error::wrap)
}
