//! The computer, the date, and the versions of the programs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::proxy::{Candidate, Program};

/// Above this load per core before the first measurement, the figures are not reliable.
const MAX_LOAD_PER_CORE: f64 = 0.5;

/// The properties of the computer that affect the figures.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's model name.
    pub processor: String,
    /// The number of cores that this process may use.
    pub cores: usize,
    /// The memory, in GiB.
    pub memory_gib: f64,
    /// The release of the Linux kernel, without the suffix of the build.
    pub kernel: String,
    /// The load average over the minute before the first measurement.
    pub load_before: f64,
}

impl Machine {
    /// Reads the properties of this computer from `/proc`. Unreadable ones get a default value.
    pub fn detect() -> Machine {
        let cpuinfo = read_or_empty("/proc/cpuinfo");
        let meminfo = read_or_empty("/proc/meminfo");
        let kib: f64 = find_field(&meminfo, "MemTotal")
            .and_then(|text| text.split(' ').next()?.parse().ok())
            .unwrap_or_default();
        let load = read_or_empty("/proc/loadavg");
        Machine {
            processor: find_field(&cpuinfo, "model name")
                .unwrap_or("unknown")
                .to_owned(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_gib: kib / f64::from(1 << 20),
            kernel: read_or_empty("/proc/sys/kernel/osrelease")
                .trim()
                .split('-')
                .next()
                .unwrap_or_default()
                .to_owned(),
            load_before: load
                .split(' ')
                .next()
                .and_then(|text| text.parse().ok())
                .unwrap_or_default(),
        }
    }

    /// Returns a warning if the machine was too busy for reliable figures.
    pub fn warning(&self) -> Option<String> {
        let cores = self.cores;
        let limit = MAX_LOAD_PER_CORE * f64::from(u32::try_from(cores).unwrap_or(u32::MAX));
        (self.load_before > limit).then(|| {
            let load = self.load_before;
            format!(
                "the machine was busy (load {load:.1} on {cores} cores): do not trust these figures"
            )
        })
    }
}

/// Returns the versions of the programs by their names, and the commit of the sources.
pub fn find_versions(candidates: &[Candidate]) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    for candidate in candidates {
        let mut version = first_output_line(Command::new(&candidate.path).arg("--version"));
        for line in &candidate.torrc_lines {
            version.push_str(&format!(" with {line}"));
        }
        versions.insert(candidate.program.name().to_owned(), version);
    }
    if candidates.iter().all(|c| c.program != Program::CTor) {
        // The relays are C tor processes even if C tor is not measured.
        versions.insert(
            "relays".to_owned(),
            first_output_line(Command::new("tor").arg("--version")),
        );
    }
    versions.insert(
        "commit".to_owned(),
        first_output_line(Command::new("git").args(["describe", "--always", "--dirty", "--tags"])),
    );
    versions
}

/// Returns today's date in UTC, as `2026-11-23`.
pub fn today() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    format_date(seconds / 86_400)
}

/// Converts a count of days since 1970-01-01 to a date in the Gregorian calendar.
fn format_date(day: u64) -> String {
    // Count eras of 400 years from 0000-03-01, so that a leap day is the last day of its year.
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + carry)
}

/// Returns the content of a file, or an empty string if it cannot be read.
fn read_or_empty(path: &str) -> String {
    fs::read_to_string(Path::new(path)).unwrap_or_default()
}

/// Returns the value of the line `name: value`.
fn find_field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// Runs a command and returns the first line of its standard output.
fn first_output_line(command: &mut Command) -> String {
    let output = command
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    let output = String::from_utf8_lossy(&output);
    output.lines().next().unwrap_or("unknown").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_converted_to_dates() {
        for (day, expected) in [
            (0, "1970-01-01"),
            (789, "1972-02-29"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_780, "2026-11-23"),
        ] {
            assert_eq!(format_date(day), expected);
        }
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "model\t\t: 2\nmodel name\t: A Processor\n";
        assert_eq!(find_field(text, "model name"), Some("A Processor"));
        assert_eq!(find_field(text, "name"), None);
    }
}
