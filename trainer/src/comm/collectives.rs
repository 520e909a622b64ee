//! Collective operations over messages between two ranks. Everyone sends to the next rank, then to the one behind it,
//! and so on: each value travels once, which is the least there can be (Thakur, Rabenseifner and Gropp 2005, section
//! 4), and every sum is taken at one place, in one order.

use std::ops::Range;

use super::{Comm, CommError, tree_sum};

pub fn reduce_scatter(comm: &dyn Comm, values: &mut [f32]) -> Result<(), CommError> {
    let (rank, size) = (comm.rank(), comm.size());
    if size == 1 {
        return Ok(());
    }
    let own = comm.piece(rank, values.len());
    let mut terms = vec![0.0; own.len() * size];
    terms[rank * own.len()..][..own.len()].copy_from_slice(&values[own.clone()]);
    for distance in 1..size {
        let (to, from) = ((rank + distance) % size, (rank + size - distance) % size);
        let sent = &values[comm.piece(to, values.len())];
        exchange(comm, to, sent, from, &mut terms[from * own.len()..][..own.len()])?;
    }
    tree_sum(&terms, &mut values[own]);
    Ok(())
}

pub fn all_gather(comm: &dyn Comm, values: &mut [f32], pieces: &[Range<usize>]) -> Result<(), CommError> {
    let (rank, size) = (comm.rank(), comm.size());
    if size == 1 {
        return Ok(());
    }
    let own = values[pieces[rank].clone()].to_vec();
    for distance in 1..size {
        let (to, from) = ((rank + distance) % size, (rank + size - distance) % size);
        exchange(comm, to, &own, from, &mut values[pieces[from].clone()])?;
    }
    Ok(())
}

/// Down a binomial tree from `root`.
pub fn broadcast(comm: &dyn Comm, root: usize, values: &mut [f32]) -> Result<(), CommError> {
    let size = comm.size();
    let place = (comm.rank() + size - root) % size; // seen from the root
    let at = |place: usize| (place + root) % size;
    let mut distance = size.next_power_of_two();
    if place > 0 {
        distance = 1 << place.trailing_zeros();
        comm.recv(at(place - distance), values)?;
    }
    while distance > 1 {
        distance /= 2;
        if place + distance < size {
            comm.send(at(place + distance), values)?;
        }
    }
    Ok(())
}

/// Nobody waits for nothing: both ends know how long their pieces are.
fn exchange(comm: &dyn Comm, to: usize, sent: &[f32], from: usize, received: &mut [f32]) -> Result<(), CommError> {
    match (sent.is_empty(), received.is_empty()) {
        (true, true) => Ok(()),
        (true, false) => comm.recv(from, received),
        (false, true) => comm.send(to, sent),
        (false, false) => comm.exchange(to, sent, from, received),
    }
}
