//! Attention without its scores in memory (Dao et al. 2022), in bf16 on tensor cores.

use candle_core::{CudaDevice, DType, Error, Result, Tensor};

use super::{kernel, takes};
use crate::kernels::cuda::{Arg, Fresh, Grid, Module, launch};
use crate::ops::tape;
use crate::ops::types::Spans;

/// Rows of a tile: those that a block of the kernel holds.
pub const ROWS: usize = 64;

/// The tiles of whole sequences as the kernel reads them, three numbers each: the first row of the sequence, its length,
/// the tile's first row in it. None where a sequence has a past.
pub fn tiles(spans: &Spans) -> Option<Vec<u32>> {
    let mut tiles = Vec::new();
    for span in spans.iter() {
        if span.keys != span.queries {
            return None;
        }
        for first in (0..span.queries.len()).step_by(ROWS) {
            tiles.extend([span.queries.start as u32, span.queries.len() as u32, first as u32]);
        }
    }
    Some(tiles)
}

/// Attention of one sequence that nobody goes back through, with a past or without.
fn attend(q: &Tensor, k: &Tensor, v: &Tensor, spans: &Spans, window: Option<usize>) -> Result<Option<Tensor>> {
    let ((rows, heads, d), (keys, kv_heads, _)) = (q.dims3()?, k.dims3()?);
    let fits = d.is_multiple_of(32) && d <= 256 && heads.is_multiple_of(kv_heads.max(1)) && k.shape() == v.shape();
    let alone = matches!(&spans[..], [span] if span.queries == (0..rows) && span.keys == (0..keys)) && rows <= keys;
    let same = [k, v].iter().all(|x| x.dtype() == q.dtype());
    let (Some(device), Some(name)) = (takes(&[q, k, v], d), kernel("attend", q.dtype())) else { return Ok(None) };
    if !fits || !alone || !same || tape::is_running() {
        return Ok(None);
    }
    let (q, k, v, out) = (q.contiguous()?, k.contiguous()?, v.contiguous()?, Fresh::new(device, q.shape(), q.dtype())?);
    let window = window.unwrap_or(usize::MAX).min(i32::MAX as usize);
    let extents = [Arg::U32(window), Arg::U32(keys - rows), Arg::U32(heads), Arg::U32(kv_heads), Arg::U32(d)];
    let own = [Arg::Out(&out), Arg::At(&q), Arg::At(&k), Arg::At(&v), Arg::F32(1.0 / (d as f32).sqrt())];
    let grid = Grid { blocks: (rows, heads), threads: (256, 1) };
    launch(device, &Module::rows(), &name, grid, &own.into_iter().chain(extents).collect::<Vec<_>>())?;
    out.tensor(&q).map(Some)
}

/// See [`attention`](crate::ops::attention): of whole sequences in bf16, with heads of 32, 64 or 128 values, on GPUs that
/// have tensor cores for bf16; or of one sequence without gradient, in any type, with its past.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, spans: &Spans, window: Option<usize>) -> Result<Option<Tensor>> {
    match tiled(q, k, v, spans, window)? {
        Some(out) => Ok(Some(out)),
        None => attend(q, k, v, spans, window),
    }
}

fn tiled(q: &Tensor, k: &Tensor, v: &Tensor, spans: &Spans, window: Option<usize>) -> Result<Option<Tensor>> {
    let ((rows, heads, d), (_, kv_heads, _)) = (q.dims3()?, k.dims3()?);
    if Module::attention(d).is_none() {
        return Ok(None);
    }
    let Some(device) = takes(&[q, k, v], d).filter(|_| [q, k, v].iter().all(|x| x.dtype() == DType::BF16)) else {
        return Ok(None);
    };
    let capability = device.cuda_stream().context().compute_capability().map_err(Error::wrap)?;
    let same = k.shape() == v.shape() && k.dim(0)? == rows && k.dim(2)? == d && heads.is_multiple_of(kv_heads);
    let Some(tiles) = spans.tiles(q.device())?.filter(|_| same && capability.0 >= 8) else { return Ok(None) };
    let (inputs, q, k, v) = ([q, k, v], q.contiguous()?, k.contiguous()?, v.contiguous()?);
    let scale = std::f32::consts::LOG2_E / (d as f32).sqrt();
    let window = window.unwrap_or(usize::MAX).min(i32::MAX as usize);
    let count = tiles.elem_count() / 3;
    let grid = move |heads: usize| Grid { blocks: (count, heads), threads: (128, 1) };
    let numbers = move || {
        let extents = [Arg::U32(window), Arg::U32(rows), Arg::U32(heads), Arg::U32(kv_heads)];
        [Arg::F32(scale)].into_iter().chain(extents)
    };
    let launch = move |device: &CudaDevice, kernel: &str, grid: Grid, arguments: &[Arg<'_>]| match Module::attention(d)
    {
        Some(module) => launch(device, &module, kernel, grid, arguments),
        None => candle_core::bail!("attention: heads of {d} values have no kernel"),
    };
    let (out, log_sums) = (Fresh::new(device, q.shape(), q.dtype())?, Fresh::new(device, (heads, rows), DType::F32)?);
    let own = [Arg::Out(&out), Arg::Out(&log_sums), Arg::At(&q), Arg::At(&k), Arg::At(&v), Arg::At(&tiles)];
    launch(device, "attention", grid(heads), &own.into_iter().chain(numbers()).collect::<Vec<_>>())?;
    let (out, log_sums) = (out.tensor(&q)?, log_sums.tensor(&q)?);
    let (result, of) = (out.clone(), device.clone());
    tape::enter(&out, &inputs, move |dout| {
        let (q, k, v) = (&q, &k, &v);
        let weights = Fresh::new(&of, (heads, rows), DType::F32)?;
        let own = [Arg::Out(&weights), Arg::At(&result), Arg::At(dout), Arg::U32(rows), Arg::U32(heads)];
        let by_row = Grid { blocks: (rows.div_ceil(4), heads), threads: (32, 4) };
        launch(&of, "attention_weights", by_row, &own)?;
        let fresh = |x: &Tensor| Fresh::new(&of, x.shape(), x.dtype());
        let (dq, dk, dv) = (fresh(q)?, fresh(k)?, fresh(v)?);
        let run = |kernel: &str, heads: usize, made: Vec<Arg<'_>>| {
            let read = [Arg::At(q), Arg::At(k), Arg::At(v), Arg::At(dout), Arg::At(&log_sums), Arg::Out(&weights)];
            let own = made.into_iter().chain(read).chain([Arg::At(&tiles)]).chain(numbers());
            launch(&of, kernel, grid(heads), &own.collect::<Vec<_>>())
        };
        run("attention_dq", heads, vec![Arg::Out(&dq)])?;
        run("attention_dkv", kv_heads, vec![Arg::Out(&dk), Arg::Out(&dv)])?;
        Ok(vec![Some(dq.tensor(dout)?), Some(dk.tensor(dout)?), Some(dv.tensor(dout)?)])
    });
    Ok(Some(out))
}
