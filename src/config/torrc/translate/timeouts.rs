//! The durations `SocksTimeout`, `CircuitStreamTimeout` and `MaxCircuitDirtiness`, within their limits.

use super::super::assign::Values;
use super::super::document::Document;
use super::super::error::TorrcError;
use crate::config::limits::MAX_SOCKS_TIMEOUT;

/// The longest `socks_timeout` and `connect_timeout`, in seconds. C tor has no such limit.
const MAX_TIMEOUT: i64 = MAX_SOCKS_TIMEOUT.as_secs() as i64;
/// C tor's shortest `CircuitStreamTimeout` and `MaxCircuitDirtiness`, in seconds.
const MIN_SECONDS: i64 = 10;
/// C tor's longest `MaxCircuitDirtiness`, in seconds.
const MAX_DIRTINESS: i64 = 30 * 24 * 60 * 60;

/// Translates `SocksTimeout`.
pub(super) fn set_socks_timeout(
    values: &mut Values,
    document: &mut Document,
) -> Result<(), TorrcError> {
    let Some(assigned) = values.get("SocksTimeout").cloned() else {
        return Ok(());
    };
    let mut seconds = assigned.parse_number()?;
    if seconds == 0 {
        return Err(assigned.error("0 is too short; write at least 1 second"));
    }
    if seconds > MAX_TIMEOUT {
        seconds = MAX_TIMEOUT;
        values.warn(
            &assigned.position,
            "SocksTimeout",
            &describe_reduction(MAX_TIMEOUT),
        );
    }
    document.set(
        "proxy.socks_timeout",
        format!("{seconds} s"),
        assigned.origin(),
    );
    Ok(())
}

/// Translates `CircuitStreamTimeout` and `MaxCircuitDirtiness`.
pub(super) fn set_circuit_times(
    values: &mut Values,
    document: &mut Document,
) -> Result<(), TorrcError> {
    for (option, key, longest) in [
        (
            "CircuitStreamTimeout",
            "stream_timeouts.connect_timeout",
            MAX_TIMEOUT,
        ),
        (
            "MaxCircuitDirtiness",
            "circuit_timing.max_dirtiness",
            MAX_DIRTINESS,
        ),
    ] {
        let Some(assigned) = values.get(option).cloned() else {
            continue;
        };
        let written = assigned.parse_number()?;
        if written == 0 && option == "CircuitStreamTimeout" {
            // C tor's default.
            continue;
        }
        let seconds = written.clamp(MIN_SECONDS, longest);
        if seconds != written {
            let text = match seconds == MAX_TIMEOUT {
                true => describe_reduction(seconds),
                false => format!("adjusted to {seconds} seconds, as in C tor"),
            };
            values.warn(&assigned.position, option, &text);
        }
        document.set(key, format!("{seconds} s"), assigned.origin());
    }
    Ok(())
}

/// Describes that a time-out was above the maximum.
fn describe_reduction(seconds: i64) -> String {
    format!("reduced to {seconds} seconds, the maximum")
}
