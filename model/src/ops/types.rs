//! What operations take and give beside tensors.

use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};

use candle_core::{Device, Result, Tensor};

/// One sequence inside packed tensors: which rows of the queries and which rows of the keys and values are its own.
///
/// The queries are the last positions of the sequence: with more keys than queries, the first keys are the past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Rows of `q`.
    pub queries: Range<usize>,
    /// Rows of `k` and `v`.
    pub keys: Range<usize>,
}

/// The sequences of a batch, and what its device knows of them once it was asked for.
#[derive(Clone, Debug, Default)]
pub struct Spans {
    all: Vec<Span>,
    #[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "read by the kernels of a GPU alone"))]
    tiles: OnceLock<Tensor>,
}

impl From<Vec<Span>> for Spans {
    fn from(all: Vec<Span>) -> Spans {
        Spans { all, tiles: OnceLock::new() }
    }
}

impl Deref for Spans {
    type Target = [Span];

    fn deref(&self) -> &[Span] {
        &self.all
    }
}

#[cfg(feature = "cuda")]
impl Spans {
    /// The tiles that the kernel of attention is run on, [3 · tiles]; none where a sequence has a past.
    pub(super) fn tiles(&self, device: &Device) -> Result<Option<Tensor>> {
        if let Some(tiles) = self.tiles.get() {
            return Ok(Some(tiles.clone()));
        }
        let Some(tiles) = super::cuda::tiles(self) else { return Ok(None) };
        let count = tiles.len();
        let tiles = Tensor::from_vec(tiles, count, device)?;
        Ok(Some(self.tiles.get_or_init(|| tiles).clone()))
    }
}

/// The angles of a batch: cosines and sines, [rows, d/2], already times the attention factor of a scaled RoPE.
#[derive(Clone)]
pub struct Rotation {
    /// Cosines, row by row.
    pub cos: Arc<[f32]>,
    /// Sines, row by row.
    pub sin: Arc<[f32]>,
    /// d/2: the number of rotated pairs in one head.
    pub half: usize,
    on_device: Arc<OnceLock<Angles>>,
}

/// Angles on a device: row `i` of a batch takes those of row `places[i]`.
#[derive(Clone)]
pub struct Angles {
    /// [n, d/2].
    pub cos: Tensor,
    /// [n, d/2].
    pub sin: Tensor,
    /// [rows], below n.
    pub places: Tensor,
}

impl Rotation {
    /// Angles row by row, `half` for each.
    pub fn new(cos: Arc<[f32]>, sin: Arc<[f32]>, half: usize) -> Rotation {
        Rotation { cos, sin, half, on_device: Arc::default() }
    }

    /// Angles that lie on a device already; on the CPU there are none.
    pub fn on_device(angles: Angles, half: usize) -> Rotation {
        Rotation { cos: Arc::default(), sin: Arc::default(), half, on_device: Arc::new(OnceLock::from(angles)) }
    }

    /// The angles on a device, which they are brought to once.
    ///
    /// # Errors
    /// Those of candle.
    pub fn on(&self, device: &Device) -> Result<Angles> {
        if let Some(angles) = self.on_device.get() {
            return Ok(angles.clone());
        }
        let rows = self.cos.len() / self.half.max(1);
        let table = |values: &[f32]| Tensor::from_slice(values, (rows, self.half), device);
        let places = Tensor::arange(0, rows as u32, device)?;
        let angles = Angles { cos: table(&self.cos)?, sin: table(&self.sin)?, places };
        Ok(self.on_device.get_or_init(|| angles).clone())
    }
}

/// A target that takes no part in the loss.
pub const IGNORE: u32 = u32::MAX;

/// The loss of a batch and its parts.
pub struct CrossEntropy {
    /// The sum of both parts, a scalar to call `backward` on.
    pub loss: Tensor,
    /// Two numbers in f64: the mean negative log-likelihood of the targets, in nats, and `z_weight · mean(log² Z)` with
    /// Z = Σ exp(logits) (Chowdhery et al. 2022, section 5). Who reads them waits for the device.
    pub parts: Tensor,
    /// Targets that were not [`IGNORE`].
    pub targets: usize,
}

impl CrossEntropy {
    /// Negative log-likelihood and z-loss, both means: see [`parts`](Self::parts).
    ///
    /// # Errors
    /// Those of the device.
    pub fn read(&self) -> Result<(f64, f64)> {
        match self.parts.to_vec1::<f64>()?[..] {
            [nll, z_loss] => Ok((nll, z_loss)),
            _ => candle_core::bail!("a loss has other parts than two"),
        }
    }
}
