//! What the user asked for, and how much of everything a run takes.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;
use serde::Serialize;

use crate::catalog::ROWS;

/// Measures onionport beside C tor, and arti where its binary is given, on a private Tor network.
#[derive(Clone, Debug, Parser)]
#[command(version, args_override_self = true)]
pub struct Options {
    /// The onionport to measure [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    pub onionport: Option<PathBuf>,
    /// Another build of onionport, to compare the two
    #[arg(long, value_name = "PATH")]
    pub before: Option<PathBuf>,
    /// Measure this arti as well
    #[arg(long, value_name = "PATH")]
    pub arti: Option<PathBuf>,
    /// Only these rows, by name or by the beginning of it: `bulk`, `stream.exit`, `rate.exit.100`
    #[arg(long, value_name = "ROW,...", value_delimiter = ',')]
    pub rows: Vec<String>,
    /// Another line for C tor's torrc, such as `ConfluxEnabled 0`
    #[arg(long, value_name = "LINE")]
    pub c_tor_line: Vec<String>,
    /// Relays send in runs, as tor's do by default (KIST); else each cell at once
    #[arg(long)]
    pub kist: bool,
    /// How long each link to a relay takes, each way, in milliseconds, for the rows `far` and `codes` [default: 20]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=200))]
    pub distance: Option<u64>,
    /// How many rounds [default: 3, with --quick 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: Option<u32>,
    /// A short run that shows that all works; its figures say nothing
    #[arg(long)]
    pub quick: bool,
    /// Where the results go
    #[arg(long, value_name = "FOLDER", default_value = "bench-results")]
    pub out: PathBuf,
    /// Put the table between the markers in this file
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
}

/// How much of everything a run takes; part of the results.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Amounts {
    /// How often everything is measured.
    pub rounds: u32,
    /// How often the codes are: a frozen service takes C tor two minutes.
    pub code_rounds: u32,
    /// How often, each round, a program is started and asked for those codes that come soon.
    pub code_starts: usize,
    /// After a program has said that it is usable, before it is measured, in seconds.
    pub settle_seconds: f64,
    /// Streams opened one after another, for percentiles, all starts together.
    pub streams: usize,
    /// How often a program is started for them: each start has circuits of its own.
    pub stream_starts: usize,
    /// For how long streams are opened at full speed, in seconds.
    pub rate_seconds: f64,
    /// How many bytes a transfer has, all its streams together.
    pub bulk_bytes: u64,
    /// How often a program is started for a transfer, each round, near and far: what is carried
    /// depends on the relays of a circuit.
    pub transfer_starts: usize,
    /// How often a program is started for a first onion connection, each round.
    pub cold_starts: usize,
    /// After all streams are closed, before memory is looked at, in seconds.
    pub closing_seconds: f64,
    /// How many clients ask for services that do not exist.
    pub flood_requests: u32,
    /// After them, before memory is looked at, in seconds.
    pub flood_rest_seconds: f64,
    /// The deadline of a request that is never answered (`socks_timeout`, `SocksTimeout`), in seconds.
    pub deadline_seconds: u32,
    /// The network's `cbtinitialtimeout` while codes are measured; none for tor's own, a minute.
    pub circuit_timeout_ms: Option<u32>,
    /// Whether the relays send in runs (KIST), instead of each cell at once.
    pub kist: bool,
    /// How long each link to a relay takes, each way, where links take time, in milliseconds.
    pub distance_ms: u64,
    /// Streams opened one after another there, for a median.
    pub far_streams: usize,
    /// How many bytes a transfer has there, all its streams together.
    pub far_bytes: u64,
}

impl Amounts {
    /// What makes the figures of a table.
    const FULL: Amounts = Amounts {
        rounds: 3,
        code_rounds: 2,
        code_starts: 6,
        settle_seconds: 3.0,
        streams: 200,
        stream_starts: 5,
        rate_seconds: 4.0,
        bulk_bytes: 32_000_000,
        transfer_starts: 3,
        cold_starts: 3,
        closing_seconds: 10.0,
        flood_requests: 300,
        flood_rest_seconds: 120.0,
        deadline_seconds: 120,
        circuit_timeout_ms: None,
        kist: false,
        distance_ms: 20,
        far_streams: 40,
        far_bytes: 16_000_000,
    };

    /// What shows that the harness works.
    const QUICK: Amounts = Amounts {
        rounds: 1,
        code_rounds: 1,
        code_starts: 1,
        settle_seconds: 1.0,
        streams: 20,
        stream_starts: 1,
        rate_seconds: 0.5,
        bulk_bytes: 2_000_000,
        transfer_starts: 1,
        cold_starts: 1,
        closing_seconds: 2.0,
        flood_requests: 20,
        flood_rest_seconds: 2.0,
        deadline_seconds: 10,
        circuit_timeout_ms: Some(2500),
        kist: false,
        distance_ms: 5,
        far_streams: 5,
        far_bytes: 1_000_000,
    };

    /// [`Amounts::settle_seconds`].
    pub fn settle(&self) -> Duration {
        Duration::from_secs_f64(self.settle_seconds)
    }

    /// [`Amounts::rate_seconds`].
    pub fn rate_time(&self) -> Duration {
        Duration::from_secs_f64(self.rate_seconds)
    }

    /// [`Amounts::closing_seconds`].
    pub fn closing(&self) -> Duration {
        Duration::from_secs_f64(self.closing_seconds)
    }

    /// [`Amounts::flood_rest_seconds`].
    pub fn flood_rest(&self) -> Duration {
        Duration::from_secs_f64(self.flood_rest_seconds)
    }

    /// [`Amounts::distance_ms`].
    pub fn distance(&self) -> Duration {
        Duration::from_millis(self.distance_ms)
    }
}

impl Options {
    /// How much of everything to take.
    pub fn amounts(&self) -> Amounts {
        let amounts = if self.quick {
            Amounts::QUICK
        } else {
            Amounts::FULL
        };
        let rounds = self.rounds.unwrap_or(amounts.rounds);
        Amounts {
            rounds,
            code_rounds: amounts.code_rounds.min(rounds),
            kist: self.kist,
            distance_ms: self.distance.unwrap_or(amounts.distance_ms),
            ..amounts
        }
    }

    /// The rows to measure.
    ///
    /// # Errors
    /// When a name given fits no row.
    pub fn picked(&self) -> Result<Picked> {
        for name in &self.rows {
            if !ROWS.iter().any(|row| is_part_of(name, row.id)) {
                bail!("--rows: there is no row `{name}`; the groups are {GROUPS}");
            }
        }
        Ok(Picked(self.rows.clone()))
    }
}

/// For the error message.
const GROUPS: &str = "start, onion, stream, rate, bulk, memory, flood, far, codes";

/// Which rows are wanted.
#[derive(Clone, Debug)]
pub struct Picked(Vec<String>);

impl Picked {
    /// Whether a row is wanted.
    pub fn wants(&self, id: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|name| is_part_of(name, id))
    }

    /// Whether a row below this beginning of a name is wanted.
    pub fn wants_any(&self, beginning: &str) -> bool {
        ROWS.iter()
            .any(|row| is_part_of(beginning, row.id) && self.wants(row.id))
    }
}

/// Whether `id` is `name`, or goes on behind it with a dot.
fn is_part_of(name: &str, id: &str) -> bool {
    id.strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(rows: &str) -> Options {
        Options::parse_from(["bench", "--rows", rows])
    }

    #[test]
    fn rows_are_picked_by_the_beginning_of_their_names() {
        let picked = options("bulk.exit,rate.exit.10").picked().expect("names");
        assert!(picked.wants("bulk.exit.down.8"));
        assert!(picked.wants("rate.exit.10"));
        assert!(!picked.wants("rate.exit.100"));
        assert!(picked.wants_any("bulk.exit.up"));
        assert!(!picked.wants_any("bulk.onion"));
        assert!(!picked.wants_any("memory"));
    }

    #[test]
    fn an_unknown_row_is_refused_with_the_names_there_are() {
        let error = options("bulk,nothing").picked().expect_err("unknown");
        assert_eq!(
            error.to_string(),
            format!("--rows: there is no row `nothing`; the groups are {GROUPS}")
        );
    }
}
