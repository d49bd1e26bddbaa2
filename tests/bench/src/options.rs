//! The command line, and the size of each measurement.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;
use serde::Serialize;

use crate::catalog::ROWS;

/// Compares the performance of onionport, C tor and, if its binary is given, arti on private Tor networks.
#[derive(Clone, Debug, Parser)]
#[command(version, args_override_self = true)]
pub struct Options {
    /// The onionport binary [default: the one in the folder of this program]
    #[arg(long, value_name = "PATH")]
    pub onionport: Option<PathBuf>,
    /// Also measure another build of onionport
    #[arg(long, value_name = "PATH")]
    pub before: Option<PathBuf>,
    /// Also measure this arti binary
    #[arg(long, value_name = "PATH")]
    pub arti: Option<PathBuf>,
    /// Measure only these rows, given by name or by the first parts of the name: `bulk`, `stream.exit`, `rate.exit.100`
    #[arg(long, value_name = "ROW,...", value_delimiter = ',')]
    pub rows: Vec<String>,
    /// Add a line to C tor's torrc, for example `ConfluxEnabled 0`
    #[arg(long, value_name = "LINE")]
    pub c_tor_line: Vec<String>,
    /// Let relays send in bursts (KIST, tor's default) instead of each cell at once
    #[arg(long)]
    pub kist: bool,
    /// The delay of each link to a relay, each way, in milliseconds, for the rows `far` and `codes` [default: 20, with --quick 5]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=200))]
    pub distance: Option<u64>,
    /// The number of rounds [default: 3, with --quick 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: Option<u32>,
    /// Make a short run to check that everything works; its figures mean nothing
    #[arg(long)]
    pub quick: bool,
    /// The folder for the results
    #[arg(long, value_name = "FOLDER", default_value = "bench-results")]
    pub out: PathBuf,
    /// Also write the table between the markers of this file
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
}

/// The size of each measurement. The JSON results contain it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// The number of rounds of all rows except the codes.
    pub rounds: u32,
    /// The number of rounds of the codes. It is smaller, because a frozen service takes C tor two
    /// minutes.
    pub code_rounds: u32,
    /// How many times per round a program is started to measure the fast codes.
    pub code_starts: usize,
    /// The pause between the moment a program is usable and the measurement, in seconds.
    pub settle_seconds: f64,
    /// The number of streams for percentiles, opened one after another, of all starts together.
    pub streams: usize,
    /// How many times a program is started for these streams. Each start builds new circuits.
    pub stream_starts: usize,
    /// How long the rows `rate` open streams at full speed, in seconds.
    pub rate_seconds: f64,
    /// The size of a transfer, in bytes, of all its streams together.
    pub bulk_bytes: u64,
    /// How many times per round a program is started for a transfer, in both networks. Throughput
    /// depends on the relays of a circuit.
    pub transfer_starts: usize,
    /// How many times per round a program is started for its first onion connection.
    pub cold_starts: usize,
    /// The pause between closing all streams and measuring memory, in seconds.
    pub closing_seconds: f64,
    /// The number of requests for onion services that do not exist.
    pub flood_requests: u32,
    /// The pause between these requests and measuring memory, in seconds.
    pub flood_rest_seconds: f64,
    /// The deadline of a request (`socks_timeout`, `SocksTimeout`), in seconds.
    pub deadline_seconds: u32,
    /// The consensus parameter `cbtinitialtimeout` of the network for the codes, in milliseconds;
    /// `None` for tor's default of one minute.
    pub circuit_timeout_ms: Option<u32>,
    /// Whether the relays send in bursts (KIST) instead of each cell at once.
    pub kist: bool,
    /// The delay of each link to a relay, each way, in the far network and the network for the codes, in
    /// milliseconds.
    pub distance_ms: u64,
    /// The number of streams for a median in the far network, opened one after another.
    pub far_streams: usize,
    /// The size of a transfer in the far network, in bytes, of all its streams together.
    pub far_bytes: u64,
}

impl Settings {
    /// The settings of a full run.
    const FULL: Settings = Settings {
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

    /// The settings of a short run.
    const QUICK: Settings = Settings {
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

    /// Returns [`Settings::settle_seconds`] as a duration.
    pub fn settle(&self) -> Duration {
        Duration::from_secs_f64(self.settle_seconds)
    }

    /// Returns [`Settings::rate_seconds`] as a duration.
    pub fn rate_time(&self) -> Duration {
        Duration::from_secs_f64(self.rate_seconds)
    }

    /// Returns [`Settings::closing_seconds`] as a duration.
    pub fn closing(&self) -> Duration {
        Duration::from_secs_f64(self.closing_seconds)
    }

    /// Returns [`Settings::flood_rest_seconds`] as a duration.
    pub fn flood_rest(&self) -> Duration {
        Duration::from_secs_f64(self.flood_rest_seconds)
    }

    /// Returns [`Settings::distance_ms`] as a duration.
    pub fn distance(&self) -> Duration {
        Duration::from_millis(self.distance_ms)
    }
}

impl Options {
    /// Returns the size of each measurement.
    pub fn settings(&self) -> Settings {
        let settings = if self.quick {
            Settings::QUICK
        } else {
            Settings::FULL
        };
        let rounds = self.rounds.unwrap_or(settings.rounds);
        Settings {
            rounds,
            code_rounds: settings.code_rounds.min(rounds),
            kist: self.kist,
            distance_ms: self.distance.unwrap_or(settings.distance_ms),
            ..settings
        }
    }

    /// Returns the filter for the rows to measure.
    ///
    /// # Errors
    /// If a given name matches no row.
    pub fn row_filter(&self) -> Result<RowFilter> {
        for name in &self.rows {
            if !ROWS.iter().any(|row| is_below(name, row.id)) {
                bail!("--rows: unknown row `{name}`; the groups are {GROUPS}");
            }
        }
        Ok(RowFilter(self.rows.clone()))
    }
}

/// The groups of rows, for the error message.
const GROUPS: &str = "start, onion, stream, rate, bulk, memory, flood, far, codes";

/// Selects the rows to measure. An empty list selects all.
#[derive(Clone, Debug)]
pub struct RowFilter(Vec<String>);

impl RowFilter {
    /// Whether the row is to be measured.
    pub fn includes(&self, id: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|name| is_below(name, id))
    }

    /// Whether any row with this name or below it is to be measured.
    pub fn includes_any(&self, name: &str) -> bool {
        ROWS.iter()
            .any(|row| is_below(name, row.id) && self.includes(row.id))
    }
}

/// Whether `id` is `name`, or `name` followed by a dot and more.
pub(crate) fn is_below(name: &str, id: &str) -> bool {
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
    fn rows_are_selected_by_the_first_parts_of_their_names() {
        let filter = options("bulk.exit,rate.exit.10")
            .row_filter()
            .expect("known rows");
        assert!(filter.includes("bulk.exit.down.8"));
        assert!(filter.includes("rate.exit.10"));
        assert!(!filter.includes("rate.exit.100"));
        assert!(filter.includes_any("bulk.exit.up"));
        assert!(!filter.includes_any("bulk.onion"));
        assert!(!filter.includes_any("memory"));
    }

    #[test]
    fn an_unknown_row_is_refused_with_a_list_of_the_groups() {
        let error = options("bulk,nothing")
            .row_filter()
            .expect_err("unknown row");
        assert_eq!(
            error.to_string(),
            format!("--rows: unknown row `nothing`; the groups are {GROUPS}")
        );
    }
}
