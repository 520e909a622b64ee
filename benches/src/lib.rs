//! Comparisons with peers and with the limits of the machine: one command each (`src/bin/`), printing ratios.

pub mod domains;
pub mod http;
pub mod policies;
pub mod process;
pub mod random_checkpoint;
pub mod scoring;
pub mod stores;
pub mod synthetic;

/// The median of some measurements; 0 of none.
pub fn median(values: Vec<f64>) -> f64 {
    percentile(values, 0.5)
}

/// The measurement below which this share of the others lies; 0 of none.
pub fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // an index below the length
    let place = (values.len() as f64 * share) as usize;
    values.get(place.min(values.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::{median, percentile};

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(vec![9.0, 1.0, 5.0]), 5.0);
        assert_eq!(median(vec![]), 0.0);
    }

    #[test]
    fn the_last_percentile_of_few_is_the_greatest() {
        assert_eq!(percentile(vec![3.0, 1.0, 2.0], 0.99), 3.0);
        assert_eq!(percentile((0..200).map(f64::from).collect(), 0.99), 198.0);
    }
}
