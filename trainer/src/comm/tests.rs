//! What every group must do, with threads.

use std::sync::Arc;
use std::thread;

use super::*;

/// Runs the same function in every worker of a group, and returns what each of them found.
fn everywhere<T: Send>(size: usize, work: impl Fn(Arc<dyn Comm>) -> T + Sync) -> Vec<T> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = local::world(size).into_iter().map(|comm| scope.spawn(move || work(comm))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Numbers whose sum depends on the order in which it is taken.
fn values(rank: usize, length: usize) -> Vec<f32> {
    (0..length).map(|i| ((rank * 7919 + i * 104_729) % 10_007) as f32 * 1.37e-3 - 5.0).collect()
}

#[test]
fn collectives_are_what_they_are_called() {
    for size in [1, 2, 3, 4, 7] {
        for length in [0, 1, BLOCK - 1, 3 * BLOCK + 5, 9 * BLOCK] {
            let all: Vec<Vec<f32>> = (0..size).map(|rank| values(rank, length)).collect();
            let mut sum = vec![0.0; length];
            tree_sum(&all.concat(), &mut sum);
            for (i, sum) in sum.iter().enumerate() {
                let exact: f64 = all.iter().map(|values| f64::from(values[i])).sum();
                assert!((f64::from(*sum) - exact).abs() < 1e-4, "{sum} is not {exact}");
            }
            let found = everywhere(size, |comm| {
                let (mut reduced, mut sent) = (values(comm.rank(), length), values(comm.rank(), length));
                comm.all_reduce(&mut reduced).unwrap();
                comm.broadcast(size - 1, &mut sent).unwrap();
                comm.barrier().unwrap();
                let numbers = all_numbers(&*comm, &[comm.rank() as f64 / 3.0, f64::NAN, -0.0]).unwrap();
                let bits: Vec<Vec<u64>> = numbers.iter().map(|n| n.iter().map(|n| n.to_bits()).collect()).collect();
                (reduced, sent, bits, comm.piece(comm.rank(), length))
            });
            let mut end = 0;
            for (reduced, sent, bits, piece) in found {
                assert!(reduced == sum && sent == all[size - 1], "{size} ranks, {length} values");
                for (rank, bits) in bits.iter().enumerate() {
                    assert_eq!(*bits, [rank as f64 / 3.0, f64::NAN, -0.0].map(f64::to_bits));
                }
                assert_eq!(piece.start, end, "pieces lie one after another");
                end = piece.end;
            }
            assert_eq!(end, length);
        }
    }
}

#[test]
fn a_sum_has_the_same_bits_however_many_workers_took_it() {
    for terms in [8, 12, 20] {
        let all: Vec<f32> = (0..terms).flat_map(|term| values(term, 1000)).collect();
        let mut whole = vec![0.0; 1000];
        tree_sum(&all, &mut whole);
        for workers in [1, 2, 4] {
            let found = everywhere(workers, |comm| {
                let own = terms / workers * 1000;
                let mut sum = vec![0.0; 1000];
                tree_sum(&all[comm.rank() * own..][..own], &mut sum);
                comm.all_reduce(&mut sum).unwrap();
                sum
            });
            assert!(found.iter().all(|sum| *sum == whole), "{terms} terms, {workers} workers");
        }
        let mut in_order = vec![0.0; 1000];
        all.chunks(1000).for_each(|term| in_order.iter_mut().zip(term).for_each(|(sum, value)| *sum += value));
        assert_ne!(in_order, whole, "the order would not matter: the test shows nothing");
    }
}

#[test]
fn groups_are_split_by_color_and_do_not_hear_each_other() {
    let found = everywhere(6, |comm| {
        let rank = comm.rank();
        let rows = comm.split(rank / 3, rank).unwrap();
        let columns = comm.split(rank % 3, 5 - rank).unwrap();
        let (mut row, mut column) = (vec![rank as f32], vec![rank as f32]);
        rows.all_reduce(&mut row).unwrap();
        columns.broadcast(0, &mut column).unwrap();
        let pair = rows.split(usize::from(rows.rank() == 0), 0).unwrap();
        (row[0], column[0], pair.size(), columns.rank())
    });
    let expected = [(3.0, 3.0, 1, 1), (3.0, 4.0, 2, 1), (3.0, 5.0, 2, 1), (12.0, 3.0, 1, 0), (12.0, 4.0, 2, 0)];
    assert_eq!(found[..5], expected);
}

#[test]
fn a_worker_that_ended_is_named_with_the_operation() {
    let found = everywhere(2, |comm| match comm.rank() {
        0 => comm.all_reduce(&mut [1.0]).unwrap_err().to_string(),
        _ => String::new(),
    });
    assert!(found[0].contains("all_reduce") && found[0].contains("rank 1 of 2"), "{}", found[0]);
    let found = everywhere(2, |comm| match comm.rank() {
        0 => comm.recv(1, &mut [0.0; 3]).unwrap_err().to_string(),
        _ => comm.send(0, &[1.0]).map_or_else(|e| e.to_string(), |()| String::new()),
    });
    assert!(found[0].contains("1 values came: expected 3"), "{}", found[0]);
}
