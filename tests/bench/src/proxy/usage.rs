//! What a process has used: proc(5).

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// How often the clock ticks that processor time is counted in, in a second: `USER_HZ`, which is 100
/// wherever Linux runs.
const TICKS: f64 = 100.0;

/// What a process has used up to a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Time on the processor, its own and the kernel's on its behalf, of all threads.
    pub processor: Duration,
    /// Memory that is resident, in bytes.
    pub memory: u64,
}

impl Usage {
    /// Looks at a process.
    pub(super) fn of(pid: u32) -> Result<Usage> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Usage::parse(&stat, &status).context("a process that has no memory")
    }

    fn parse(stat: &str, status: &str) -> Option<Usage> {
        // The name may hold anything, spaces and brackets as well.
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut times = fields.split(' ').skip(11).map(str::parse::<u32>);
        let (user, system) = (times.next()?.ok()?, times.next()?.ok()?);
        let ticks = f64::from(user) + f64::from(system);
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(Usage {
            processor: Duration::from_secs_f64(ticks / TICKS),
            memory: kib * 1024,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_that_of_user_and_system() {
        let stat = "77 (a ) b) S 1 77 77 0 -1 4194304 100 0 0 0 150 25 3 4 20 0 3 0 1000 1 2";
        let usage = Usage::parse(stat, "Name:\ta\nVmRSS:\t    2048 kB\n").expect("usage");
        assert_eq!(usage.processor, Duration::from_millis(1750));
        assert_eq!(usage.memory, 2 << 20);
    }

    #[test]
    fn our_own_usage_is_found() {
        let usage = Usage::of(std::process::id()).expect("usage");
        assert!(usage.memory > 100_000);
    }

    #[test]
    fn a_process_that_has_ended_has_none() {
        // The highest number that Linux gives is 2^22.
        assert!(Usage::of(1 << 23).is_err());
    }
}
