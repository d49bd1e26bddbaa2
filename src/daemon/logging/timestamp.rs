//! Times of log lines.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Writes times in UTC, truncated to multiples of this duration: in the wrong hands, exact times help
/// to find out who was connected to what.
pub(super) struct TruncatedTime(pub(super) Duration);

impl FormatTime for TruncatedTime {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        write!(w, "{}", self.format(now.unwrap_or_default()))
    }
}

impl TruncatedTime {
    /// Formats the time `since_epoch` (after 1970) with as many digits as the granularity needs.
    fn format(&self, since_epoch: Duration) -> impl fmt::Display {
        let TruncatedTime(granularity) = *self;
        let nanos = since_epoch.as_nanos();
        let rest = nanos.checked_rem(granularity.as_nanos()).unwrap_or(0);
        // A u64 of nanoseconds lasts until the year 2554.
        let truncated = u64::try_from(nanos - rest).unwrap_or(u64::MAX);
        let time = UNIX_EPOCH + Duration::from_nanos(truncated);
        if granularity >= Duration::from_secs(1) {
            humantime::format_rfc3339_seconds(time)
        } else if granularity >= Duration::from_millis(1) {
            humantime::format_rfc3339_millis(time)
        } else {
            humantime::format_rfc3339_micros(time)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_truncated_and_not_rounded() {
        let time = Duration::from_micros(1_700_000_059_987_654);
        for (granularity, text) in [
            (Duration::from_secs(1), "2023-11-14T22:14:19Z"),
            (Duration::from_secs(10), "2023-11-14T22:14:10Z"),
            (Duration::from_secs(3600), "2023-11-14T22:00:00Z"),
            (Duration::from_millis(500), "2023-11-14T22:14:19.500Z"),
            (Duration::ZERO, "2023-11-14T22:14:19.987654Z"),
        ] {
            assert_eq!(TruncatedTime(granularity).format(time).to_string(), text);
        }
    }
}
