//! The log, on standard error: filtered by the user, without the secrets of the configuration.
//!
//! Events go through [`secrets`] into [`writer`], which writes to a file at once and to anything else
//! through a thread with a bounded queue: a reader that stops reading must not stop the streams. Lines
//! are written by [`output`], whole or counted as missing.
//!
//! Not `tracing-appender`: its `Worker::worker_thread` drops lines on write errors uncounted, and even with a writer that
//! never fails, `WorkerGuard::drop` prints to standard output if the queue is full, and blocks or panics there.
//!
//! [`start`] also installs the layer that observes attempts to reach onion services
//! ([`crate::tor::observer_layer`]), which no filter turns off.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

mod output;
mod secrets;
mod timestamp;
mod writer;

pub use secrets::hide_secrets;

use output::LogOutput;
use secrets::{can_be_logged, redact};
use timestamp::TruncatedTime;
use writer::{FileWriter, LineQueue, QueueWriter};

/// The target of warnings about settings that have no effect. They pass every filter, as in C tor: a
/// user who logs only errors would not learn of them otherwise.
pub const ALWAYS: &str = "onionport::configuration";

/// How long the end of the program waits for queued lines to be written.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// Keeps the log running. When dropped, waits up to a second for queued lines to be written.
#[derive(Debug)]
pub struct LogGuard(Arc<LineQueue>);

impl LogGuard {
    /// Writes a line without its secrets, whatever the filter.
    pub fn write_line(&self, line: &str) {
        self.0
            .push(redact(format!("{line}\n").as_bytes()).into_owned());
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.0.wait_until_written(FLUSH_LIMIT);
    }
}

/// Starts logging. `filter` is an [`EnvFilter`], such as `info` or `info,onionport=debug`; warnings for
/// [`ALWAYS`] pass whatever it is. Times are truncated to multiples of `granularity`.
///
/// # Errors
/// One line, if the filter is invalid or the log cannot be set up.
pub fn start(filter: &str, granularity: Duration) -> Result<LogGuard, String> {
    // The last directive for a target wins.
    let filter = EnvFilter::try_new(format!("{filter},{ALWAYS}=warn"))
        .map_err(|e| format!("log filter {filter:?}: {e}"))?;
    let failed = |error: &dyn fmt::Display| format!("cannot start logging: {error}");
    // A duplicate descriptor: with `std::io::Stderr`, writers would wait for its lock.
    let output = io::stderr().as_fd().try_clone_to_owned();
    let output = File::from(output.map_err(|error| failed(&error))?);
    let queue = Arc::new(LineQueue::default());
    let is_file = output.metadata().is_ok_and(|metadata| metadata.is_file());
    let writer = if is_file {
        let copy = output.try_clone().map_err(|error| failed(&error))?;
        BoxMakeWriter::new(FileWriter::new(LogOutput::new(copy)))
    } else {
        BoxMakeWriter::new(QueueWriter(Arc::clone(&queue)))
    };
    let writing = Arc::clone(&queue);
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || writing.write_to(LogOutput::new(output)))
        .map_err(|error| failed(&error))?;
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .with_timer(TruncatedTime(granularity))
        .with_filter(filter.and(filter_fn(can_be_logged).with_max_level_hint(LevelFilter::TRACE)));
    tracing_subscriber::registry()
        .with(layer)
        .with(crate::tor::observer_layer())
        .try_init()
        .map_err(|error| failed(&error))?;
    std::panic::set_hook(Box::new(|panic| {
        let trace = Backtrace::capture();
        match trace.status() {
            BacktraceStatus::Captured => tracing::error!("{panic}\n{trace}"),
            _ => tracing::error!("{panic}"),
        }
    }));
    Ok(LogGuard(queue))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_end_waits_for_queued_lines_but_not_for_ever() {
        let queue = Arc::new(LineQueue::default());
        queue.push(b"line\n".to_vec());
        let started = Instant::now();
        // No thread writes the line.
        drop(LogGuard(Arc::clone(&queue)));
        assert!(started.elapsed() >= FLUSH_LIMIT);
        assert!(started.elapsed() < 10 * FLUSH_LIMIT);
    }
}
