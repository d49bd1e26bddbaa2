//! Where and with what it was measured.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::proxy::{Candidate, Kind};

/// More running processes for each core than this, before anything is measured, and the figures say
/// little.
const BUSY: f64 = 0.5;

/// The machine, as far as it matters.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// What the processor calls itself.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory, in GiB.
    pub memory_gib: f64,
    /// The kernel's release.
    pub kernel: String,
    /// How many processes ran or wanted to, on average over the minute before.
    pub load_before: f64,
}

impl Machine {
    /// Looks at this machine.
    pub fn look() -> Machine {
        let cpuinfo = read("/proc/cpuinfo");
        let meminfo = read("/proc/meminfo");
        let kib: f64 = field(&meminfo, "MemTotal")
            .and_then(|text| text.split(' ').next()?.parse().ok())
            .unwrap_or_default();
        let load = read("/proc/loadavg");
        Machine {
            processor: field(&cpuinfo, "model name")
                .unwrap_or("unknown")
                .to_owned(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_gib: kib / f64::from(1 << 20),
            // What stands behind is the name of a build.
            kernel: read("/proc/sys/kernel/osrelease")
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

    /// What speaks against figures from this machine now, if anything does.
    pub fn warning(&self) -> Option<String> {
        let cores = self.cores;
        let limit = BUSY * f64::from(u32::try_from(cores).unwrap_or(u32::MAX));
        (self.load_before > limit).then(|| {
            let load = self.load_before;
            format!(
                "the machine was busy (load {load:.1} on {cores} cores): do not trust these figures"
            )
        })
    }
}

/// The versions of the programs by their names, and the commit of the sources.
pub fn versions(candidates: &[Candidate]) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    for candidate in candidates {
        let mut version = first_line(Command::new(&candidate.program).arg("--version"));
        for line in &candidate.lines {
            version.push_str(&format!(" with {line}"));
        }
        versions.insert(candidate.kind.name().to_owned(), version);
    }
    if candidates.iter().all(|c| c.kind != Kind::CTor) {
        // The relays are C tor's all the same.
        versions.insert(
            "relays".to_owned(),
            first_line(Command::new("tor").arg("--version")),
        );
    }
    versions.insert(
        "commit".to_owned(),
        first_line(Command::new("git").args(["describe", "--always", "--dirty", "--tags"])),
    );
    versions
}

/// Today, as `2026-11-23`, in UTC.
pub fn today() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    date(seconds / 86_400)
}

/// The date of a day, counted from 1970-01-01, in the Gregorian calendar.
fn date(day: u64) -> String {
    // Counted in eras of 400 years from 0000-03-01, so that leap days come last in their year.
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

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(path)).unwrap_or_default()
}

/// The text behind `name:` in a list of such lines.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// The first line that a program says.
fn first_line(command: &mut Command) -> String {
    let said = command
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    said.lines().next().unwrap_or("unknown").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_dates() {
        for (day, expected) in [
            (0, "1970-01-01"),
            (789, "1972-02-29"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_780, "2026-11-23"),
        ] {
            assert_eq!(date(day), expected);
        }
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "model\t\t: 2\nmodel name\t: A Processor\n";
        assert_eq!(field(text, "model name"), Some("A Processor"));
        assert_eq!(field(text, "name"), None);
    }
}
