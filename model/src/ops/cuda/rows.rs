//! Norm, activation, rotation and embedding.

use candle_core::{CudaDevice, DType, Result, Tensor};

use super::{kernel, recorded, takes};
use crate::kernels::cuda::{Arg, Fresh, Grid, Module, device, launch};
use crate::ops::tape;
use crate::ops::types::{Angles, Rotation};

/// Blocks of a warp for each row.
const ROWS_PER_BLOCK: usize = 8;
const WARPS: (u32, u32) = (32, 8);

/// Blocks that share the rows of a norm's gradient, each with a sum for the weight: a few for each multiprocessor.
const GRADIENT_BLOCKS: usize = 512;

/// How a row of `d` values lies in registers: packs of 16 bytes in each thread, and the threads that share it. None for
/// rows that are too long.
fn held(d: usize, dtype: DType) -> Option<(usize, usize)> {
    let packs = d * dtype.size_in_bytes() / 16;
    let lanes = packs.next_power_of_two().min(32);
    match packs.div_ceil(lanes) {
        parts @ 1..=4 => Some((parts, lanes)),
        5..=8 => Some((8, lanes)),
        _ => None,
    }
}

/// The angles of a norm that rotates, and its numbers, as the kernels take them.
fn norm_arguments(
    angles: Option<&Angles>,
    eps: f32,
    [heads, rows, d, lanes]: [usize; 4],
) -> impl Iterator<Item = Arg<'_>> {
    let tables = match angles {
        Some(Angles { cos, sin, places }) => [Arg::At(cos), Arg::At(sin), Arg::At(places)],
        None => [Arg::U64(0), Arg::U64(0), Arg::U64(0)],
    };
    let extents = [Arg::U32(rows), Arg::U32(d), Arg::U32(lanes)];
    tables.into_iter().chain([Arg::U32(heads), Arg::F32(eps)]).chain(extents)
}

/// RMSNorm of rows that fit the registers, and the rotation of heads behind it: [rows, heads, d] where they are rotated.
fn short_norm(x: &Tensor, weight: &Tensor, eps: f64, rotation: Option<&Rotation>) -> Result<Option<Tensor>> {
    let (d, dtype) = (weight.elem_count(), x.dtype());
    let (Some(device), Some((parts, lanes))) = (takes(&[x, weight], d), held(d, dtype)) else { return Ok(None) };
    let names = (kernel(&format!("norm_{parts}"), dtype), kernel(&format!("norm_grad_{parts}"), dtype));
    let (Some(forward), Some(back)) = names else { return Ok(None) };
    if x.dims().last() != Some(&d) || weight.dtype() != DType::F32 {
        return Ok(None);
    }
    let (mut heads, mut angles) = (1, None);
    if let Some(rotation) = rotation {
        let (rows, of_each, _) = x.dims3()?;
        let found = rotation.on(x.device())?;
        let whole = parts == 1 && lanes > 1 && lanes * 16 == d * dtype.size_in_bytes();
        if !whole || d != 2 * rotation.half || found.places.elem_count() != rows {
            return Ok(None);
        }
        (heads, angles) = (of_each, Some(found));
    }
    let (inputs, x, weight, eps) = ([x, weight], x.contiguous()?, weight.contiguous()?, eps as f32);
    let rows = x.elem_count() / d;
    let (y, extents) = (Fresh::new(device, x.shape(), dtype)?, [heads, rows, d, lanes]);
    let own = [Arg::Out(&y), Arg::At(&x), Arg::At(&weight)].into_iter();
    let own: Vec<_> = own.chain(norm_arguments(angles.as_ref(), eps, extents)).collect();
    launch(device, &Module::norms(), &forward, Grid::of(rows * lanes), &own)?;
    let of = device.clone();
    let backward = move |dy: &Tensor| {
        let blocks = (rows * lanes).div_ceil(256).min(GRADIENT_BLOCKS);
        let (dx, dw) = (Fresh::new(&of, x.shape(), dtype)?, Fresh::new(&of, weight.shape(), DType::F32)?);
        let partial = Fresh::new(&of, (blocks, d), DType::F32)?;
        let made = [Arg::Out(&dx), Arg::Out(&partial), Arg::At(&x), Arg::At(&weight), Arg::At(dy)].into_iter();
        let own: Vec<_> = made.chain(norm_arguments(angles.as_ref(), eps, extents)).collect();
        launch(&of, &Module::norms(), &back, Grid { blocks: (blocks, 1), threads: (256, 1) }, &own)?;
        column_sums(&of, &dw, &partial, (blocks, d))?;
        Ok([Some(dx.tensor(dy)?), Some(dw.tensor(dy)?)])
    };
    recorded(y, inputs, backward).map(Some)
}

/// Sums of the columns of `parts`, [rows, d].
fn column_sums(device: &CudaDevice, out: &Fresh, parts: &Fresh, (rows, d): (usize, usize)) -> Result<()> {
    let own = [Arg::Out(out), Arg::Out(parts), Arg::U32(rows), Arg::U32(d)];
    launch(device, &Module::norms(), "column_sums", Grid { blocks: (d.div_ceil(32), 1), threads: WARPS }, &own)
}

/// See [`norm_rope`](crate::ops::norm_rope).
pub fn norm_rope(x: &Tensor, weight: &Tensor, eps: f64, rotation: &Rotation) -> Result<Option<Tensor>> {
    short_norm(x, weight, eps, Some(rotation))
}

/// See [`rms_norm`](crate::ops::rms_norm); none for rows that the kernel does not know, or another weight than f32.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Option<Tensor>> {
    if let Some(y) = short_norm(x, weight, eps, None)? {
        return Ok(Some(y));
    }
    let d = weight.elem_count();
    let (Some(device), Some(forward)) = (takes(&[x, weight], d), kernel("rms_norm", x.dtype())) else {
        return Ok(None);
    };
    if x.dims().last() != Some(&d) || weight.dtype() != DType::F32 {
        return Ok(None);
    }
    let (inputs, x, weight, eps) = ([x, weight], x.contiguous()?, weight.contiguous()?, eps as f32);
    let rows = x.elem_count() / d;
    let grid = Grid { blocks: (rows.div_ceil(ROWS_PER_BLOCK), 1), threads: WARPS };
    let y = Fresh::new(device, x.shape(), x.dtype())?;
    let extents = [Arg::F32(eps), Arg::U32(rows), Arg::U32(d)];
    let [e, r, w] = extents;
    launch(device, &Module::norms(), &forward, grid, &[Arg::Out(&y), Arg::At(&x), Arg::At(&weight), e, r, w])?;
    let of = device.clone();
    let backward = move |dy: &Tensor| {
        let (x, weight) = (&x, &weight);
        let (Some(to_x), Some(to_weight)) = (kernel("rms_norm_dx", x.dtype()), kernel("rms_norm_dw", x.dtype())) else {
            return Ok([None, None]);
        };
        let (dx, scales) = (Fresh::new(&of, x.shape(), x.dtype())?, Fresh::new(&of, rows, DType::F32)?);
        let (r, w) = (Arg::U32(rows), Arg::U32(d));
        let own = [Arg::Out(&dx), Arg::Out(&scales), Arg::At(x), Arg::At(weight), Arg::At(dy), Arg::F32(eps), r, w];
        launch(&of, &Module::norms(), &to_x, grid, &own)?;
        // Parts of the sum over the rows, and then their sum.
        let (columns, parts) = (d.div_ceil(32), rows.div_ceil(128).min(256));
        let (partial, dw) = (Fresh::new(&of, (parts, d), DType::F32)?, Fresh::new(&of, weight.shape(), DType::F32)?);
        let (r, w) = (Arg::U32(rows), Arg::U32(d));
        let own = [Arg::Out(&partial), Arg::Out(&scales), Arg::At(x), Arg::At(dy), r, w];
        launch(&of, &Module::norms(), &to_weight, Grid { blocks: (columns, parts), threads: WARPS }, &own)?;
        column_sums(&of, &dw, &partial, (parts, d))?;
        Ok([Some(dx.tensor(dy)?), Some(dw.tensor(dy)?)])
    };
    recorded(y, inputs, backward).map(Some)
}

/// See [`swiglu`](crate::ops::swiglu).
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Option<Tensor>> {
    let (Some(device), Some(forward)) = (takes(&[gate, up], gate.elem_count()), kernel("swiglu", gate.dtype())) else {
        return Ok(None);
    };
    if up.dtype() != gate.dtype() || up.shape() != gate.shape() {
        return Ok(None);
    }
    let (inputs, gate, up) = ([gate, up], gate.contiguous()?, up.contiguous()?);
    let packs = gate.elem_count() * gate.dtype().size_in_bytes() / 16;
    let grid = Grid::of(packs);
    let y = Fresh::new(device, gate.shape(), gate.dtype())?;
    launch(device, &Module::rows(), &forward, grid, &[Arg::Out(&y), Arg::At(&gate), Arg::At(&up), Arg::U64(packs)])?;
    let of = device.clone();
    let backward = move |dy: &Tensor| {
        let (gate, up) = (&gate, &up);
        let Some(back) = kernel("swiglu_grad", gate.dtype()) else { return Ok([None, None]) };
        let fresh = || Fresh::new(&of, gate.shape(), gate.dtype());
        let (dgate, dup) = (fresh()?, fresh()?);
        let own = [Arg::Out(&dgate), Arg::Out(&dup), Arg::At(gate), Arg::At(up), Arg::At(dy), Arg::U64(packs)];
        launch(&of, &Module::rows(), &back, grid, &own)?;
        Ok([Some(dgate.tensor(dy)?), Some(dup.tensor(dy)?)])
    };
    recorded(y, inputs, backward).map(Some)
}

/// See [`rope`](crate::ops::rope).
pub fn rope(x: &Tensor, rotation: &Rotation) -> Result<Option<Tensor>> {
    let (Some(_), Some(name)) = (takes(&[x], rotation.half), kernel("rope", x.dtype())) else { return Ok(None) };
    let (rows, _, d) = x.dims3()?;
    let angles = rotation.on(x.device())?;
    if d != 2 * rotation.half || angles.places.elem_count() != rows {
        return Ok(None);
    }
    let rotated = move |x: &Tensor, direction: f32| {
        let (rows, heads, d) = x.dims3()?;
        let Some(device) = device(x) else { candle_core::bail!("rope: expected a tensor on the GPU") };
        let y = Fresh::new(device, x.shape(), x.dtype())?;
        let threads = x.elem_count() * x.dtype().size_in_bytes() / 32;
        let (cos, sin, places) = (Arg::At(&angles.cos), Arg::At(&angles.sin), Arg::At(&angles.places));
        let extents = [Arg::U32(rows), Arg::U32(heads), Arg::U32(d / 2)];
        let [r, h, half] = extents;
        let own = [Arg::Out(&y), Arg::At(x), cos, sin, places, Arg::F32(direction), r, h, half];
        launch(device, &Module::rows(), &name, Grid::of(threads), &own)?;
        Ok(y)
    };
    let y = rotated(&x.contiguous()?, 1.0)?;
    // A rotation's transpose is the rotation by the opposite angle.
    recorded(y, [x], move |dy| Ok([Some(rotated(dy, -1.0)?.tensor(dy)?)])).map(Some)
}

/// See [`embedding`](crate::ops::embedding).
pub fn embedding(table: &Tensor, ids: &[u32], dtype: DType) -> Result<Option<Tensor>> {
    let (vocab, d) = table.dims2()?;
    let (Some(device), Some(forward)) = (takes(&[table], d), kernel("embed", dtype)) else { return Ok(None) };
    if table.dtype() != DType::F32 || ids.is_empty() || ids.iter().any(|id| *id as usize >= vocab) {
        return Ok(None);
    }
    let (input, table, y) = (table, table.contiguous()?, Fresh::new(device, (ids.len(), d), dtype)?);
    let on_device = |values: &[u32]| Tensor::from_slice(values, values.len(), table.device());
    let grid = |blocks: usize| Grid { blocks: (blocks, 1), threads: (256, 1) };
    let rows = on_device(ids)?;
    let own = [Arg::Out(&y), Arg::At(&table), Arg::At(&rows), Arg::U32(d)];
    launch(device, &Module::rows(), &forward, grid(ids.len()), &own)?;
    if !tape::is_running() {
        return y.tensor(&table).map(Some);
    }
    // The rows of each token that occurs, one token after another.
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_by_key(|row| ids[*row as usize]);
    let (mut tokens, mut starts) = (Vec::new(), Vec::new());
    for (at, row) in order.iter().enumerate() {
        if tokens.last() != Some(&ids[*row as usize]) {
            tokens.push(ids[*row as usize]);
            starts.push(at as u32);
        }
    }
    starts.push(order.len() as u32);
    let (count, of) = (tokens.len(), device.clone());
    let lists = (on_device(&tokens)?, on_device(&starts)?, on_device(&order)?);
    let backward = move |dy: &Tensor| {
        let Some(back) = kernel("embed_grad", dy.dtype()) else { return Ok([None]) };
        let dtable = Fresh::zeros(&of, (vocab, d))?;
        let (tokens, starts, order) = &lists;
        let own = [Arg::Out(&dtable), Arg::At(dy), Arg::At(tokens), Arg::At(starts), Arg::At(order), Arg::U32(d)];
        launch(&of, &Module::rows(), &back, grid(count), &own)?;
        Ok([Some(dtable.tensor(dy)?)])
    };
    recorded(y, [input], backward).map(Some)
}

/// a + b of one shape and type, which nobody goes back through.
pub fn sum(a: &Tensor, b: &Tensor) -> Result<Option<Tensor>> {
    let (Some(device), Some(name)) = (takes(&[a, b], a.elem_count()), kernel("sum", a.dtype())) else {
        return Ok(None);
    };
    if a.dtype() != b.dtype() || a.shape() != b.shape() {
        return Ok(None);
    }
    let (a, b, y) = (a.contiguous()?, b.contiguous()?, Fresh::new(device, a.shape(), a.dtype())?);
    let packs = a.elem_count() * a.dtype().size_in_bytes() / 16;
    launch(
        device,
        &Module::rows(),
        &name,
        Grid::of(packs),
        &[Arg::Out(&y), Arg::At(&a), Arg::At(&b), Arg::U64(packs)],
    )?;
    y.tensor(&a).map(Some)
}
