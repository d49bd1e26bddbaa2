//! Writers of the log's events: directly to a file, or through a queue and a thread.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::writer::MakeWriter;

use crate::daemon::logging::output::LogOutput;
use crate::daemon::logging::secrets::redact;

/// How many lines may wait to be written.
const MAX_LINES: usize = 4096;

/// Lines that wait for the thread that writes them.
#[derive(Debug, Default)]
pub(super) struct LineQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    lines: VecDeque<Vec<u8>>,
    /// Lines that were dropped, because the queue was full, since one was last taken out.
    dropped: u64,
    /// Whether a line that was taken out is being written.
    is_writing: bool,
}

impl QueueState {
    fn is_busy(&self) -> bool {
        self.is_writing || !self.lines.is_empty()
    }
}

impl LineQueue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line; counts it as dropped if the queue is full.
    pub(super) fn push(&self, line: Vec<u8>) {
        let mut state = self.lock();
        if state.lines.len() < MAX_LINES {
            state.lines.push_back(line);
        } else {
            state.dropped += 1;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Writes line after line; never returns.
    pub(super) fn write_to(&self, mut output: LogOutput<impl Write + AsFd>) {
        let mut state = self.lock();
        loop {
            let Some(line) = state.lines.pop_front() else {
                let woken = self.changed.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let dropped = std::mem::take(&mut state.dropped);
            state.is_writing = true;
            drop(state);
            output.add_missing(dropped);
            output.write_line(&line);
            state = self.lock();
            state.is_writing = false;
            self.changed.notify_all();
        }
    }

    /// Waits until all lines are written, or until `limit` has passed.
    pub(super) fn wait_until_written(&self, limit: Duration) {
        let state = self.lock();
        // An error means that a thread panicked: there is nothing to wait for.
        let _ = self
            .changed
            .wait_timeout_while(state, limit, |state| state.is_busy());
    }
}

/// Puts each event into the queue.
pub(super) struct QueueWriter(pub(super) Arc<LineQueue>);

impl<'a> MakeWriter<'a> for QueueWriter {
    type Writer = &'a LineQueue;

    fn make_writer(&'a self) -> &'a LineQueue {
        &self.0
    }
}

/// Takes an event per call: the formatter writes each event whole.
impl Write for &LineQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(redact(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes each event at once.
pub(super) struct FileWriter(Mutex<LogOutput<File>>);

impl FileWriter {
    pub(super) fn new(output: LogOutput<File>) -> FileWriter {
        FileWriter(Mutex::new(output))
    }
}

impl<'a> MakeWriter<'a> for FileWriter {
    type Writer = &'a FileWriter;

    fn make_writer(&'a self) -> &'a FileWriter {
        self
    }
}

/// Takes an event per call. Never fails, because `tracing` would report an error on standard error,
/// which is this file; the output counts the line instead.
impl Write for &FileWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        output.write_line(&redact(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn lines_dropped_from_a_full_queue_are_counted_and_reported() {
        let queue = Arc::new(LineQueue::default());
        for number in 0..MAX_LINES + 3 {
            queue.push(format!("{number}\n").into_bytes());
        }
        let (reader, writer) = io::pipe().expect("a pipe");
        let writing = Arc::clone(&queue);
        thread::spawn(move || writing.write_to(LogOutput::new(writer)));
        let mut lines = io::BufRead::lines(io::BufReader::new(reader));
        assert_eq!(lines.next().expect("a line").expect("text"), "0");
        let report = lines.next().expect("a line").expect("text");
        assert!(report.starts_with("3 log lines "), "{report}");
        for number in 1..MAX_LINES {
            let line = lines.next().expect("a line").expect("text");
            assert_eq!(line, number.to_string());
        }
    }
}
