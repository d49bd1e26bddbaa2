//! Medians, percentiles and conversions of units.

use std::time::Duration;

/// Returns the smallest figure that is at least as large as `percent` % of all figures (nearest rank),
/// or `None` if there are no figures.
pub fn percentile(figures: &[f64], percent: u32) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let percent = usize::try_from(percent).unwrap_or(100);
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Returns the median, or `None` if there are no figures.
///
/// The median of an even number of figures is the midpoint of the two in the middle.
pub fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

/// Converts a duration to milliseconds.
pub fn to_milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Converts bytes to units of 1,024 bytes.
#[expect(clippy::cast_precision_loss, reason = "below 2^53 bytes")]
pub fn to_kibibytes(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}

/// Converts bytes to units of 1,048,576 bytes.
pub fn to_mebibytes(bytes: u64) -> f64 {
    to_kibibytes(bytes) / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles_have_known_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 50), Some(50.0));
        assert_eq!(percentile(&hundred, 99), Some(99.0));
        assert_eq!(percentile(&[7.0], 99), Some(7.0));
        assert_eq!(percentile(&[], 50), None);
    }
}
