//! The log: to standard error, filtered as the user asks; and the evidence that the Tor side
//! collects, which no filter may switch off.
//!
//! It is written by a thread of its own: who starts the program and does not read its log must not stop
//! its streams. What finds no room is dropped.

use std::io::IsTerminal as _;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// How many lines may wait to be written.
const MAX_WAITING: usize = 4096;

/// Writes what still waits when it is dropped, but waits no longer than a moment for that.
pub type Log = WorkerGuard;

/// Starts logging, for as long as the result is kept. `filter` is in the language of [`EnvFilter`]: `info`, `info,onionport=debug`, ...
///
/// The error says what is wrong with the filter, or that logging was started before.
pub fn start(filter: &str) -> Result<Log, String> {
    let filter = EnvFilter::try_new(filter).map_err(|e| format!("log filter {filter:?}: {e}"))?;
    let (writer, log) = NonBlockingBuilder::default()
        .buffered_lines_limit(MAX_WAITING)
        .lossy(true)
        .thread_name("log")
        .finish(std::io::stderr());
    let output = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_filter(filter);
    tracing_subscriber::registry()
        .with(output)
        .with(crate::tor::evidence_layer())
        .try_init()
        .map_err(|error| format!("cannot start logging: {error}"))?;
    Ok(log)
}
