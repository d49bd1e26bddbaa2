//! Limits that the TOML reader and the torrc reader share.

use std::time::Duration;

/// The shortest `socks_timeout` and exit time-out that is accepted.
pub(super) const MIN_SOCKS_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest `socks_timeout` and exit time-out that is accepted.
pub(super) const MAX_SOCKS_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// The default number of file descriptors to request; arti's default.
pub(super) const DEFAULT_MAX_FILES: u64 = 16_384;
