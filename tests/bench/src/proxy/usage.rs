//! The resource usage of a process, from proc(5).

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// The unit of processor times in `/proc`, in ticks per second: `USER_HZ`, which is 100 on all common
/// platforms.
const TICKS_PER_SECOND: f64 = 100.0;

/// The resource usage of a process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// The processor time of all threads since the start, in user and kernel mode.
    pub processor: Duration,
    /// The resident memory, in bytes.
    pub memory: u64,
}

impl Usage {
    /// Reads the usage of a running process.
    pub(super) fn read(pid: u32) -> Result<Usage> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Usage::parse(&stat, &status).context("the process has ended, or its usage cannot be parsed")
    }

    fn parse(stat: &str, status: &str) -> Option<Usage> {
        // The name of the process comes first and may contain spaces and brackets.
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut times = fields.split(' ').skip(11).map(str::parse::<u32>);
        let (user, system) = (times.next()?.ok()?, times.next()?.ok()?);
        let ticks = f64::from(user) + f64::from(system);
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(Usage {
            processor: Duration::from_secs_f64(ticks / TICKS_PER_SECOND),
            memory: kib * 1024,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_the_sum_of_user_and_system_time() {
        let stat = "77 (a ) b) S 1 77 77 0 -1 4194304 100 0 0 0 150 25 3 4 20 0 3 0 1000 1 2";
        let usage = Usage::parse(stat, "Name:\ta\nVmRSS:\t    2048 kB\n").expect("usage");
        assert_eq!(usage.processor, Duration::from_millis(1750));
        assert_eq!(usage.memory, 2 << 20);
    }

    #[test]
    fn the_usage_of_the_own_process_is_read() {
        let usage = Usage::read(std::process::id()).expect("usage");
        assert!(usage.memory > 100_000);
    }

    #[test]
    fn an_ended_process_has_no_usage() {
        // The highest process id on Linux is 2^22.
        assert!(Usage::read(1 << 23).is_err());
    }
}
