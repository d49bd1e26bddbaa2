//! All rows of the table.

use serde::Serialize;

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// Streams per second.
    StreamsPerSecond,
    /// Megabytes (1,000,000 bytes) per second.
    MegabytesPerSecond,
    /// Seconds of processor time per gigabyte (1,000,000,000 bytes).
    CpuSecondsPerGigabyte,
    /// Milliseconds of processor time per stream.
    CpuMillisecondsPerStream,
    /// Units of 1,048,576 bytes.
    Mebibytes,
    /// Units of 1,024 bytes.
    Kibibytes,
}

impl Unit {
    /// Returns the symbol to print after a figure.
    pub fn symbol(self) -> &'static str {
        match self {
            Unit::Seconds => "s",
            Unit::Milliseconds => "ms",
            Unit::StreamsPerSecond => "/s",
            Unit::MegabytesPerSecond => "MB/s",
            Unit::CpuSecondsPerGigabyte => "CPU-s/GB",
            Unit::CpuMillisecondsPerStream => "CPU-ms",
            Unit::Mebibytes => "MiB",
            Unit::Kibibytes => "KiB",
        }
    }

    /// Whether a higher figure is better.
    pub fn is_higher_better(self) -> bool {
        matches!(self, Unit::StreamsPerSecond | Unit::MegabytesPerSecond)
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The name, such as `bulk.exit.down.1`. The part before the first dot is the group.
    pub id: &'static str,
    /// A short description.
    pub title: &'static str,
    /// The unit of its figures.
    pub unit: Unit,
}

const fn row(id: &'static str, title: &'static str, unit: Unit) -> Row {
    Row { id, title, unit }
}

/// All rows, in the order of the table.
pub const ROWS: &[Row] = &[
    row(
        "start.cold.usable",
        "start, empty cache: usable",
        Unit::Seconds,
    ),
    row(
        "start.cold.stream",
        "start, empty cache: first stream",
        Unit::Seconds,
    ),
    row(
        "start.cold.cpu",
        "start, empty cache: processor time",
        Unit::Seconds,
    ),
    row(
        "start.warm.usable",
        "start, warm cache: usable",
        Unit::Seconds,
    ),
    row(
        "start.warm.stream",
        "start, warm cache: first stream",
        Unit::Seconds,
    ),
    row(
        "start.warm.cpu",
        "start, warm cache: processor time",
        Unit::Seconds,
    ),
    row(
        "onion.cold",
        "first onion connection, cold",
        Unit::Milliseconds,
    ),
    row(
        "stream.exit.p50",
        "new stream, exit, p50",
        Unit::Milliseconds,
    ),
    row(
        "stream.exit.p99",
        "new stream, exit, p99",
        Unit::Milliseconds,
    ),
    row(
        "stream.exit.answer",
        "first byte of the answer, exit, p50",
        Unit::Milliseconds,
    ),
    row(
        "stream.exit.rested",
        "new stream on a circuit at rest, exit, p50",
        Unit::Milliseconds,
    ),
    row(
        "stream.onion.p50",
        "new stream, onion, p50",
        Unit::Milliseconds,
    ),
    row(
        "stream.onion.p99",
        "new stream, onion, p99",
        Unit::Milliseconds,
    ),
    row(
        "stream.onion.answer",
        "first byte of the answer, onion, p50",
        Unit::Milliseconds,
    ),
    row(
        "stream.onion.rested",
        "new stream on a circuit at rest, onion, p50",
        Unit::Milliseconds,
    ),
    row(
        "rate.exit.1",
        "streams, exit, 1 at once",
        Unit::StreamsPerSecond,
    ),
    row(
        "rate.exit.10",
        "streams, exit, 10 at once",
        Unit::StreamsPerSecond,
    ),
    row(
        "rate.exit.100",
        "streams, exit, 100 at once",
        Unit::StreamsPerSecond,
    ),
    row(
        "rate.exit.100.cpu",
        "streams, exit, 100 at once: processor time each",
        Unit::CpuMillisecondsPerStream,
    ),
    row(
        "rate.onion.1",
        "streams, onion, 1 at once",
        Unit::StreamsPerSecond,
    ),
    row(
        "rate.onion.10",
        "streams, onion, 10 at once",
        Unit::StreamsPerSecond,
    ),
    row(
        "rate.onion.100",
        "streams, onion, 100 at once",
        Unit::StreamsPerSecond,
    ),
    row(
        "rate.onion.100.cpu",
        "streams, onion, 100 at once: processor time each",
        Unit::CpuMillisecondsPerStream,
    ),
    row(
        "bulk.exit.down.1",
        "download, exit, 1 stream",
        Unit::MegabytesPerSecond,
    ),
    row(
        "bulk.exit.down.1.cpu",
        "download, exit, 1 stream: processor time",
        Unit::CpuSecondsPerGigabyte,
    ),
    row(
        "bulk.exit.down.8",
        "download, exit, 8 streams",
        Unit::MegabytesPerSecond,
    ),
    row(
        "bulk.exit.down.8.cpu",
        "download, exit, 8 streams: processor time",
        Unit::CpuSecondsPerGigabyte,
    ),
    row(
        "bulk.exit.up.1",
        "upload, exit, 1 stream",
        Unit::MegabytesPerSecond,
    ),
    row(
        "bulk.exit.up.1.cpu",
        "upload, exit, 1 stream: processor time",
        Unit::CpuSecondsPerGigabyte,
    ),
    row(
        "bulk.exit.up.8",
        "upload, exit, 8 streams",
        Unit::MegabytesPerSecond,
    ),
    row(
        "bulk.exit.up.8.cpu",
        "upload, exit, 8 streams: processor time",
        Unit::CpuSecondsPerGigabyte,
    ),
    row(
        "bulk.onion.down.1",
        "download, onion, 1 stream",
        Unit::MegabytesPerSecond,
    ),
    row(
        "bulk.onion.down.1.cpu",
        "download, onion, 1 stream: processor time",
        Unit::CpuSecondsPerGigabyte,
    ),
    row(
        "bulk.onion.down.8",
        "download, onion, 8 streams",
        Unit::MegabytesPerSecond,
    ),
    row(
        "bulk.onion.down.8.cpu",
        "download, onion, 8 streams: processor time",
        Unit::CpuSecondsPerGigabyte,
    ),
    row(
        "bulk.onion.up.1",
        "upload, onion, 1 stream",
        Unit::MegabytesPerSecond,
    ),
    row(
        "bulk.onion.up.1.cpu",
        "upload, onion, 1 stream: processor time",
        Unit::CpuSecondsPerGigabyte,
    ),
    row(
        "bulk.onion.up.8",
        "upload, onion, 8 streams",
        Unit::MegabytesPerSecond,
    ),
    row(
        "bulk.onion.up.8.cpu",
        "upload, onion, 8 streams: processor time",
        Unit::CpuSecondsPerGigabyte,
    ),
    row("memory.start", "memory after start", Unit::Mebibytes),
    row(
        "memory.1000",
        "memory per idle stream, 1,000 open",
        Unit::Kibibytes,
    ),
    row(
        "memory.5000",
        "memory per idle stream, 5,000 open",
        Unit::Kibibytes,
    ),
    row(
        "memory.closed",
        "memory after all streams are closed",
        Unit::Mebibytes,
    ),
    row(
        "memory.latency.0",
        "new stream, no other open, p50",
        Unit::Milliseconds,
    ),
    row(
        "memory.latency.5000",
        "new stream, 5,000 idle streams open, p50",
        Unit::Milliseconds,
    ),
    row(
        "flood.cpu",
        "request for a nonexistent service, client gone: processor time",
        Unit::CpuMillisecondsPerStream,
    ),
    row(
        "flood.latency",
        "new stream, onion, during 300 such requests, p99",
        Unit::Milliseconds,
    ),
    row(
        "flood.memory",
        "memory growth after 300 such requests",
        Unit::Mebibytes,
    ),
    row(
        "far.onion.cold",
        "far: first onion connection, cold",
        Unit::Milliseconds,
    ),
    row(
        "far.exit.answer",
        "far: first byte of the answer, exit, p50",
        Unit::Milliseconds,
    ),
    row(
        "far.onion.answer",
        "far: first byte of the answer, onion, p50",
        Unit::Milliseconds,
    ),
    row(
        "far.exit.down.1",
        "far: download, exit, 1 stream",
        Unit::MegabytesPerSecond,
    ),
    row(
        "far.exit.down.8",
        "far: download, exit, 8 streams",
        Unit::MegabytesPerSecond,
    ),
    row(
        "far.exit.up.1",
        "far: upload, exit, 1 stream",
        Unit::MegabytesPerSecond,
    ),
    row(
        "far.exit.up.8",
        "far: upload, exit, 8 streams",
        Unit::MegabytesPerSecond,
    ),
    row(
        "far.onion.down.1",
        "far: download, onion, 1 stream",
        Unit::MegabytesPerSecond,
    ),
    row(
        "far.onion.down.8",
        "far: download, onion, 8 streams",
        Unit::MegabytesPerSecond,
    ),
    row(
        "far.onion.up.1",
        "far: upload, onion, 1 stream",
        Unit::MegabytesPerSecond,
    ),
    row(
        "far.onion.up.8",
        "far: upload, onion, 8 streams",
        Unit::MegabytesPerSecond,
    ),
    row("codes.F0", "no descriptor: reply", Unit::Seconds),
    row(
        "codes.F1",
        "descriptor signature wrong: reply",
        Unit::Seconds,
    ),
    row("codes.F2", "service gone: reply", Unit::Seconds),
    row("codes.F3", "service frozen: reply", Unit::Seconds),
    row("codes.F4", "authorization missing: reply", Unit::Seconds),
    row("codes.F5", "authorization wrong: reply", Unit::Seconds),
    row("codes.F6", "address mistyped: reply", Unit::Seconds),
    row(
        "codes.F7",
        "introduction points silent: reply",
        Unit::Seconds,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_names_are_distinct() {
        for (number, row) in ROWS.iter().enumerate() {
            assert!(
                ROWS[number + 1..].iter().all(|other| other.id != row.id),
                "{}",
                row.id
            );
        }
    }
}
