//! The log: to standard error, filtered as the user asks; and the evidence that the Tor side
//! collects, which no filter may switch off.

use std::io::IsTerminal as _;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// Starts logging. `filter` is in the language of [`EnvFilter`]: `info`, `info,onionport=debug`, ...
///
/// The error says what is wrong with the filter, or that logging was started before.
pub fn start(filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|e| format!("log filter {filter:?}: {e}"))?;
    let output = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_filter(filter);
    tracing_subscriber::registry()
        .with(output)
        .with(crate::tor::evidence_layer())
        .try_init()
        .map_err(|error| format!("cannot start logging: {error}"))
}
