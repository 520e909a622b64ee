//! Sums over a binary tree.

use rayon::prelude::*;

/// How often a number of terms can be halved: the depth of the tree over them.
pub fn halvings(terms: usize) -> u32 {
    if terms == 0 { 0 } else { terms.trailing_zeros() }
}

/// The sum of terms that lie one after another, each as long as `sum`: an even number of them is the sum of two halves,
/// an odd one is added up in order. Whoever has the sums of equal runs of terms, as many as a power of two, gets the
/// same bits from them.
pub fn tree_sum(terms: &[f32], sum: &mut [f32]) {
    const TASK: usize = 1 << 14; // values handed to one parallel task
    let (length, count) = (sum.len(), if sum.is_empty() { 0 } else { terms.len() / sum.len() });
    let leaf = count >> halvings(count);
    sum.par_chunks_mut(TASK).enumerate().for_each(|(chunk, sum)| {
        let term = |index: usize| &terms[index * length + chunk * TASK..][..sum.len()];
        let mut waiting: Vec<(u32, Vec<f32>)> = Vec::new();
        for first in (0..count).step_by(leaf.max(1)) {
            let mut total = term(first).to_vec();
            (first + 1..first + leaf).for_each(|index| add(&mut total, term(index)));
            let mut level = 0;
            while let Some((_, before)) = waiting.pop_if(|(at, _)| *at == level) {
                add(&mut total, &before);
                level += 1;
            }
            waiting.push((level, total));
        }
        if let Some((_, total)) = waiting.pop() {
            sum.copy_from_slice(&total);
        }
    });
}

fn add(sum: &mut [f32], values: &[f32]) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}
