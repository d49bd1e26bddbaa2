//! Every row of the table. A row is named by its place: group first, then what it is about.

use serde::Serialize;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// Streams in a second.
    StreamsPerSecond,
    /// Millions of bytes in a second.
    MegabytesPerSecond,
    /// Seconds of the processor for a thousand million bytes.
    CpuSecondsPerGigabyte,
    /// Milliseconds of the processor for a stream.
    CpuMillisecondsPerStream,
    /// Units of 1,048,576 bytes.
    Mebibytes,
    /// Units of 1,024 bytes.
    Kibibytes,
}

impl Unit {
    /// As it stands behind a figure.
    pub fn word(self) -> &'static str {
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

    /// Whether a bigger figure is the better one.
    pub fn more_is_better(self) -> bool {
        matches!(self, Unit::StreamsPerSecond | Unit::MegabytesPerSecond)
    }
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name, such as `bulk.exit.down.1`; the first word is the group.
    pub id: &'static str,
    /// What it is, in a few words.
    pub title: &'static str,
    /// What its figures count.
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
        "start, empty cache: processor",
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
        "start, warm cache: processor",
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
        "streams, exit, 100 at once: processor each",
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
        "streams, onion, 100 at once: processor each",
        Unit::CpuMillisecondsPerStream,
    ),
    row(
        "bulk.exit.down.1",
        "download, exit, 1 stream",
        Unit::MegabytesPerSecond,
    ),
    row(
        "bulk.exit.down.1.cpu",
        "download, exit, 1 stream: processor",
        Unit::CpuSecondsPerGigabyte,
    ),
    row(
        "bulk.exit.down.8",
        "download, exit, 8 streams",
        Unit::MegabytesPerSecond,
    ),
    row(
        "bulk.exit.down.8.cpu",
        "download, exit, 8 streams: processor",
        Unit::CpuSecondsPerGigabyte,
    ),
    row(
        "bulk.exit.up.1",
        "upload, exit, 1 stream",
        Unit::MegabytesPerSecond,
    ),
    row(
        "bulk.exit.up.1.cpu",
        "upload, exit, 1 stream: processor",
        Unit::CpuSecondsPerGigabyte,
    ),
    row(
        "bulk.exit.up.8",
        "upload, exit, 8 streams",
        Unit::MegabytesPerSecond,
    ),
    row(
        "bulk.exit.up.8.cpu",
        "upload, exit, 8 streams: processor",
        Unit::CpuSecondsPerGigabyte,
    ),
    row(
        "bulk.onion.down.1",
        "download, onion, 1 stream",
        Unit::MegabytesPerSecond,
    ),
    row(
        "bulk.onion.down.1.cpu",
        "download, onion, 1 stream: processor",
        Unit::CpuSecondsPerGigabyte,
    ),
    row(
        "bulk.onion.down.8",
        "download, onion, 8 streams",
        Unit::MegabytesPerSecond,
    ),
    row(
        "bulk.onion.down.8.cpu",
        "download, onion, 8 streams: processor",
        Unit::CpuSecondsPerGigabyte,
    ),
    row(
        "bulk.onion.up.1",
        "upload, onion, 1 stream",
        Unit::MegabytesPerSecond,
    ),
    row(
        "bulk.onion.up.1.cpu",
        "upload, onion, 1 stream: processor",
        Unit::CpuSecondsPerGigabyte,
    ),
    row(
        "bulk.onion.up.8",
        "upload, onion, 8 streams",
        Unit::MegabytesPerSecond,
    ),
    row(
        "bulk.onion.up.8.cpu",
        "upload, onion, 8 streams: processor",
        Unit::CpuSecondsPerGigabyte,
    ),
    row("memory.start", "memory after the start", Unit::Mebibytes),
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
        "memory after all are closed",
        Unit::Mebibytes,
    ),
    row(
        "memory.latency.0",
        "new stream, none open, p50",
        Unit::Milliseconds,
    ),
    row(
        "memory.latency.5000",
        "new stream, 5,000 idle ones open, p50",
        Unit::Milliseconds,
    ),
    row(
        "flood.cpu",
        "request for a service that does not exist, client gone: processor",
        Unit::CpuMillisecondsPerStream,
    ),
    row(
        "flood.latency",
        "new stream, onion, beside 300 of these, p99",
        Unit::Milliseconds,
    ),
    row(
        "flood.memory",
        "memory that 300 of these leave behind",
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
    row("codes.F0", "no descriptor: answer", Unit::Seconds),
    row(
        "codes.F1",
        "descriptor's signature wrong: answer",
        Unit::Seconds,
    ),
    row("codes.F2", "service gone: answer", Unit::Seconds),
    row("codes.F3", "service frozen: answer", Unit::Seconds),
    row("codes.F4", "authorization missing: answer", Unit::Seconds),
    row("codes.F5", "authorization wrong: answer", Unit::Seconds),
    row("codes.F6", "address mistyped: answer", Unit::Seconds),
    row(
        "codes.F7",
        "introduction points silent: answer",
        Unit::Seconds,
    ),
];

/// The row of a name.
pub fn find(id: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_rows_share_a_name() {
        for (number, row) in ROWS.iter().enumerate() {
            assert!(
                ROWS[number + 1..].iter().all(|other| other.id != row.id),
                "{}",
                row.id
            );
        }
    }
}
