//! What goes into a checkpoint, put together at one worker from what all of them hold: a checkpoint is the same however
//! many there were.

use std::collections::BTreeMap;

use safelmm_model::{Config, Slice};

use crate::buckets::{Buckets, Buffers, Part};
use crate::comm::CommError;
use crate::gradients::GradientError;
use crate::mesh::Mesh;
use crate::optimizer::AdamW;
use crate::parameters::{Parameters, shapes_of_part};
use crate::tensors::TensorSlice;

/// Copies of the weights and the moments, so that training goes on while they are written.
pub struct Snapshot {
    /// The weights, in the order of names.
    pub model: Vec<TensorSlice>,
    /// The moments, `NAME.first` and `NAME.second`.
    pub moments: Vec<TensorSlice>,
}

/// One parameter, or what a worker has of it: its whole shape, and weights, first and second moments.
struct Piece {
    shape: Vec<usize>,
    slice: Option<Slice>,
    values: [Vec<f32>; 3],
}

impl Snapshot {
    /// Everyone calls it; the root gets a snapshot.
    ///
    /// # Errors
    /// Those of candle and of the exchange.
    pub fn take(
        parameters: &Parameters,
        buckets: &Buckets,
        optimizer: &AdamW,
        shape: &Config,
        mesh: &Mesh,
    ) -> Result<Option<Snapshot>, GradientError> {
        let whole = |kept: &Buffers| whole(kept, buckets, mesh);
        let moments = optimizer.moments(buckets.places())?;
        let (first, second) = (whole(&moments.first)?, whole(&moments.second)?);
        if mesh.data.rank() > 0 {
            return Ok(None);
        }
        let mut pieces = BTreeMap::new();
        for ((name, var), place) in parameters.iter().zip(buckets.places()) {
            let part = |buffers: &Buffers| buffers[place.bucket][place.range.clone()].to_vec();
            let values = [var.as_tensor().flatten_all()?.to_vec1()?, part(&first), part(&second)];
            let slice = parameters.slice(name);
            pieces.insert(name.to_owned(), Piece { shape: var.dims().to_vec(), slice, values });
        }
        if mesh.model.size() > 1 {
            pieces = match mesh.is_root() {
                true => join(pieces, shape, mesh)?,
                false => return send(&pieces, mesh).map(|()| None),
            };
        }
        let (mut model, mut moments) = (Vec::new(), Vec::new());
        for (name, Piece { shape, values: [weights, first, second], .. }) in pieces {
            let tensor = |name, values| TensorSlice { name, shape: shape.clone(), values };
            moments.extend([tensor(format!("{name}.first"), first), tensor(format!("{name}.second"), second)]);
            model.push(tensor(name, weights));
        }
        Ok(Some(Snapshot { model, moments }))
    }
}

/// The buckets whose pieces `kept` are, at the first of those that share them; nothing at the others.
fn whole(kept: &Buffers, buckets: &Buckets, mesh: &Mesh) -> Result<Buffers, CommError> {
    let (rank, size) = (mesh.data.rank(), mesh.data.size());
    if rank > 0 {
        if mesh.zero {
            kept.iter().filter(|piece| !piece.is_empty()).try_for_each(|piece| mesh.data.send(0, piece))?;
        }
        return Ok(Vec::new());
    }
    let mut all = buckets.zeros();
    for ((bucket, piece), length) in all.iter_mut().zip(kept).zip(buckets.lengths()) {
        bucket[..piece.len()].copy_from_slice(piece);
        for from in 1..if mesh.zero { size } else { 1 } {
            let range = mesh.kept(from, *length);
            if !range.is_empty() {
                mesh.data.recv(from, &mut bucket[range])?;
            }
        }
    }
    Ok(all)
}

/// Sends what counts of a worker's parameters to the root, in the order of names.
fn send(pieces: &BTreeMap<String, Piece>, mesh: &Mesh) -> Result<(), GradientError> {
    for (name, piece) in pieces {
        if mesh.counts(mesh.model.rank(), Part::of(name), mesh.tensor.size() == 1 || piece.slice.is_some()) {
            piece.values.iter().try_for_each(|values| mesh.model.send(0, values))?;
        }
    }
    Ok(())
}

/// The whole parameters, from the root's own and what the others send.
fn join(own: BTreeMap<String, Piece>, shape: &Config, mesh: &Mesh) -> Result<BTreeMap<String, Piece>, GradientError> {
    let mut all = BTreeMap::new();
    for rank in 0..mesh.model.size() {
        for (name, (shape, slice)) in shapes_of_part(shape, &mesh.part(rank, shape.n_layers))? {
            if !mesh.counts(rank, Part::of(&name), mesh.tensor.size() == 1 || slice.is_some()) {
                continue;
            }
            let length = shape.iter().product::<usize>();
            let whole = all.entry(name.clone()).or_insert_with(|| Piece {
                shape: shape.clone(),
                slice: None,
                values: [vec![0.0; length], vec![0.0; length], vec![0.0; length]],
            });
            let mut received = vec![0.0; length / slice.map_or(1, |slice| slice.count)];
            for (which, values) in whole.values.iter_mut().enumerate() {
                match own.get(&name).filter(|_| rank == mesh.model.rank()) {
                    Some(piece) => place(&piece.values[which], &shape, slice, values),
                    None => {
                        mesh.model.recv(rank, &mut received)?;
                        place(&received, &shape, slice, values);
                    }
                }
            }
        }
    }
    Ok(all)
}

/// Puts the values of a slice where they stand in the whole.
fn place(values: &[f32], shape: &[usize], slice: Option<Slice>, whole: &mut [f32]) {
    let Some(Slice { dim, index, count }) = slice else { return whole.copy_from_slice(values) };
    let run = shape[dim..].iter().product::<usize>() / count; // values that lie one after another in both
    for (values, whole) in values.chunks_exact(run).zip(whole.chunks_exact_mut(run * count)) {
        whole[index * run..][..run].copy_from_slice(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_make_the_whole() {
        let whole: Vec<f32> = (0..24).map(|i| i as f32).collect();
        for (dim, shares) in [
            (0, [(0..12).collect::<Vec<u8>>(), (12..24).collect()]),
            (1, {
                let half = |from: u8| (0..4).flat_map(|row| (0..3).map(move |c| row * 6 + from + c)).collect();
                [half(0), half(3)]
            }),
        ] {
            let mut found = vec![0.0; 24];
            for (index, share) in shares.iter().enumerate() {
                let values: Vec<f32> = share.iter().map(|v| f32::from(*v)).collect();
                place(&values, &[4, 6], Some(Slice { dim, index, count: 2 }), &mut found);
            }
            assert_eq!(found, whole, "along {dim}");
        }
    }
}
