//! The log: to standard error, filtered as the user asks; and the evidence that the Tor side
//! collects, which no filter may switch off.
//!
//! Who starts the program and does not read its log must not stop its streams. So what is not a file, and may
//! keep a writer waiting, is written by a thread of its own, and lines that find no room are dropped and counted.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::writer::{BoxMakeWriter, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

mod output;
mod secrets;

pub use secrets::hide;

use output::Output;
use secrets::{may_be_logged, redacted};

/// The target of warnings of configuration that is not obeyed, which are logged whatever the filter: who
/// wants to hear of errors alone would not hear of these otherwise. C tor tells them at any level too.
pub const ALWAYS: &str = "onionport::configuration";

/// How many lines may wait to be written.
const MAX_WAITING: usize = 4096;

/// How long the end of the program waits for lines to be written.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// The log that was started. When it is dropped, lines that wait are written, if that takes no longer than
/// a second.
#[derive(Debug)]
pub struct Log(Arc<Queue>);

impl Log {
    /// Says something as it is, whatever the filter.
    pub fn say(&self, line: &str) {
        self.0
            .push(redacted(format!("{line}\n").as_bytes()).into_owned());
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let waiting = self.0.lock();
        // A thread that panicked leaves nothing to wait for.
        let _ =
            (self.0.changed).wait_timeout_while(waiting, LAST_WAIT, |waiting| waiting.is_busy());
    }
}

/// Lines on their way to standard error.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    /// How many have found no room since one was written.
    lost: u64,
    /// Whether one is being written.
    writing: bool,
}

impl Waiting {
    fn is_busy(&self) -> bool {
        self.writing || !self.lines.is_empty()
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a line, or counts it as lost.
    fn push(&self, line: Vec<u8>) {
        let mut waiting = self.lock();
        if waiting.lines.len() < MAX_WAITING {
            waiting.lines.push_back(line);
        } else {
            waiting.lost += 1;
        }
        drop(waiting);
        self.changed.notify_all();
    }

    /// Writes line after line; never returns.
    fn write_to(&self, output: impl Write + AsFd) {
        let mut output = Output::new(output);
        let mut waiting = self.lock();
        loop {
            let Some(line) = waiting.lines.pop_front() else {
                let woken = self.changed.wait(waiting);
                waiting = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let lost = std::mem::take(&mut waiting.lost);
            waiting.writing = true;
            drop(waiting);
            output.missed(lost);
            output.line(&line);
            waiting = self.lock();
            waiting.writing = false;
            self.changed.notify_all();
        }
    }
}

/// Puts each event, which comes in one piece, in the queue.
impl Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(redacted(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes the writer of each event.
struct Lines(Arc<Queue>);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Queue;

    fn make_writer(&'a self) -> &'a Queue {
        &self.0
    }
}

/// Writes each event at once.
struct Direct(Mutex<Output<File>>);

impl<'a> MakeWriter<'a> for Direct {
    type Writer = &'a Direct;

    fn make_writer(&'a self) -> &'a Direct {
        self
    }
}

/// Takes each event, which comes in one piece. What cannot be written is counted: an error would be told
/// on standard error, which is this file.
impl Write for &Direct {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        output.line(&redacted(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes times of UTC, cut to multiples of this: exact times, once somebody else gets hold of them, help to
/// tell who was connected where.
struct Timer(Duration);

impl Timer {
    /// A length of time since 1970, as it is written.
    fn text(&self, since_epoch: Duration) -> impl fmt::Display {
        let Timer(granularity) = *self;
        let nanos = since_epoch.as_nanos();
        let rest = nanos.checked_rem(granularity.as_nanos()).unwrap_or(0);
        // Enough for centuries.
        let cut = u64::try_from(nanos - rest).unwrap_or(u64::MAX);
        let time = UNIX_EPOCH + Duration::from_nanos(cut);
        if granularity >= Duration::from_secs(1) {
            humantime::format_rfc3339_seconds(time)
        } else if granularity >= Duration::from_millis(1) {
            humantime::format_rfc3339_millis(time)
        } else {
            humantime::format_rfc3339_micros(time)
        }
    }
}

impl FormatTime for Timer {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        write!(w, "{}", self.text(now.unwrap_or_default()))
    }
}

/// Starts logging. `filter` is in the language of [`EnvFilter`]: `info`, `info,onionport=debug`, ...; whatever it
/// says, warnings for [`ALWAYS`] pass. Times are cut to multiples of `granularity`.
///
/// The error says what is wrong with the filter, or that logging was started before.
pub fn start(filter: &str, granularity: Duration) -> Result<Log, String> {
    // Of directives for one target the last counts.
    let filter = EnvFilter::try_new(format!("{filter},{ALWAYS}=warn"))
        .map_err(|e| format!("log filter {filter:?}: {e}"))?;
    let failed = |error: &dyn std::fmt::Display| format!("cannot start logging: {error}");
    // Not by the handle of the standard library, whose lock others would wait for.
    let output = io::stderr().as_fd().try_clone_to_owned();
    let output = File::from(output.map_err(|error| failed(&error))?);
    let queue = Arc::new(Queue::default());
    let is_file = output.metadata().is_ok_and(|metadata| metadata.is_file());
    let writer = if is_file {
        let copy = output.try_clone().map_err(|error| failed(&error))?;
        BoxMakeWriter::new(Direct(Mutex::new(Output::new(copy))))
    } else {
        BoxMakeWriter::new(Lines(Arc::clone(&queue)))
    };
    let writing = Arc::clone(&queue);
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || writing.write_to(output))
        .map_err(|error| failed(&error))?;
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .with_timer(Timer(granularity))
        .with_filter(filter.and(filter_fn(may_be_logged).with_max_level_hint(LevelFilter::TRACE)));
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
    Ok(Log(queue))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_cut_and_not_rounded() {
        let time = Duration::from_micros(1_700_000_059_987_654);
        for (granularity, text) in [
            (Duration::from_secs(1), "2023-11-14T22:14:19Z"),
            (Duration::from_secs(10), "2023-11-14T22:14:10Z"),
            (Duration::from_secs(3600), "2023-11-14T22:00:00Z"),
            (Duration::from_millis(500), "2023-11-14T22:14:19.500Z"),
            (Duration::ZERO, "2023-11-14T22:14:19.987654Z"),
        ] {
            assert_eq!(Timer(granularity).text(time).to_string(), text);
        }
    }

    #[test]
    fn lines_that_find_no_room_are_counted_and_told() {
        let queue = Arc::new(Queue::default());
        for number in 0..MAX_WAITING + 3 {
            queue.push(format!("{number}\n").into_bytes());
        }
        let (reader, writer) = io::pipe().expect("a pipe");
        let writing = Arc::clone(&queue);
        thread::spawn(move || writing.write_to(writer));
        let mut lines = io::BufRead::lines(io::BufReader::new(reader));
        assert_eq!(lines.next().expect("a line").expect("text"), "0");
        let told = lines.next().expect("a line").expect("text");
        assert!(told.starts_with("3 lines "), "{told}");
        for number in 1..MAX_WAITING {
            let line = lines.next().expect("a line").expect("text");
            assert_eq!(line, number.to_string());
        }
    }

    #[test]
    fn the_end_waits_for_what_is_being_written_but_not_for_ever() {
        let queue = Arc::new(Queue::default());
        queue.push(b"said\n".to_vec());
        let begun = std::time::Instant::now();
        // Nobody writes.
        drop(Log(Arc::clone(&queue)));
        assert!(begun.elapsed() >= LAST_WAIT);
        assert!(begun.elapsed() < 10 * LAST_WAIT);
    }
}
