//! The programs under test: starts them, reads their logs, and stops them when dropped.
//!
//! Each program runs under `setpriv`, which makes the kernel kill it when the benchmark ends. Its log
//! is read line by line from standard output and standard error. The time of a log line is when the
//! benchmark reads it.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use testnet::Network;

mod config;
mod usage;

pub use config::ExtraConfig;
pub use usage::Usage;

/// The time limit for a program to become usable.
const READY_LIMIT: Duration = Duration::from_secs(90);

/// The time limit for a program to end after SIGTERM, before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The interval for checking whether it has ended.
const STOP_POLL: Duration = Duration::from_millis(20);

/// How many of the last log lines an error message contains.
const LAST_LINES: usize = 5;

/// The programs that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// The onionport under test.
    Onionport,
    /// Another build of onionport.
    Before,
    /// C tor, with which all others are compared.
    CTor,
    /// arti's SOCKS proxy.
    Arti,
}

impl Program {
    /// Returns the name for the table.
    pub fn name(self) -> &'static str {
        match self {
            Program::Onionport => "onionport",
            Program::Before => "onionport before",
            Program::CTor => "C tor",
            Program::Arti => "arti",
        }
    }

    /// Returns the name of its data folder.
    fn folder_name(self) -> &'static str {
        match self {
            Program::Onionport => "onionport",
            Program::Before => "before",
            Program::CTor => "ctor",
            Program::Arti => "arti",
        }
    }
}

/// A program to measure.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Which program it is.
    pub program: Program,
    /// The path of the binary, or its name if it is to be found in `PATH`.
    pub path: PathBuf,
    /// Additional torrc lines; empty except for C tor.
    pub torrc_lines: Vec<String>,
}

impl Candidate {
    /// Returns the path of its data folder in `parent`.
    pub fn data_dir(&self, parent: &Path) -> PathBuf {
        parent.join(self.program.folder_name())
    }
}

/// Returns all programs in the order for this round. Each round starts with the next program.
pub fn rotated(candidates: &[Candidate], round: u32) -> impl Iterator<Item = &Candidate> {
    let first = usize::try_from(round).unwrap_or_default() % candidates.len().max(1);
    let (later, earlier) = candidates.split_at(first);
    earlier.iter().chain(later)
}

/// A running program that is usable. It is stopped when dropped.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    socks_addr: SocketAddr,
    started: Instant,
    time_to_usable: Duration,
    last_lines: LastLines,
}

type LastLines = Arc<Mutex<VecDeque<String>>>;

/// A step of the start, as a log line reports it.
enum StartEvent {
    /// The SOCKS port is open at this address.
    Listening(SocketAddr),
    /// The program has connected to the Tor network.
    Usable,
}

impl Proxy {
    /// Starts a program and waits until it is usable. Creates its data folder if it is missing.
    ///
    /// # Errors
    /// If it cannot be started, ends, or takes longer than 90 seconds. The message contains its last
    /// log lines.
    pub fn start(
        candidate: &Candidate,
        network: &Network,
        data_dir: &Path,
        extra: &ExtraConfig,
    ) -> Result<Proxy> {
        fs::create_dir_all(data_dir)?;
        config::make_private(data_dir)?;
        // The port for arti, which cannot choose a free port and log it, as the others do.
        let free_port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let arguments = extra.write_file(candidate, network, data_dir, free_port)?;
        let (lines, inbox) = mpsc::channel();
        let started = Instant::now();
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&candidate.path)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", candidate.path.display()))?;
        let last_lines = LastLines::default();
        if let Some(output) = child.stdout.take() {
            read_lines(output, &last_lines, lines.clone());
        }
        if let Some(output) = child.stderr.take() {
            read_lines(output, &last_lines, lines);
        }
        let mut proxy = Proxy {
            child,
            socks_addr: free_port,
            started,
            time_to_usable: Duration::ZERO,
            last_lines,
        };
        proxy
            .wait_until_usable(candidate.program, &inbox)
            .with_context(|| format!("{} did not become usable", candidate.program.name()))?;
        Ok(proxy)
    }

    fn wait_until_usable(
        &mut self,
        program: Program,
        lines: &Receiver<(Instant, String)>,
    ) -> Result<()> {
        let deadline = self.started + READY_LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (when, line) = match lines.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "timed out after {} s: {}",
                        READY_LIMIT.as_secs(),
                        self.last_lines()
                    )
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the program ended: {}", self.last_lines())
                }
            };
            match parse_line(program, &line) {
                Some(StartEvent::Listening(address)) => self.socks_addr = address,
                Some(StartEvent::Usable) => {
                    self.time_to_usable = when - self.started;
                    return Ok(());
                }
                None => {}
            }
        }
    }

    /// Returns the address of its SOCKS port, which has `ExtendedErrors` if the program supports it.
    pub fn socks_addr(&self) -> SocketAddr {
        self.socks_addr
    }

    /// Returns when it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Returns the time from the start until it reported that it was usable.
    pub fn time_to_usable(&self) -> Duration {
        self.time_to_usable
    }

    /// Returns its resource usage so far.
    ///
    /// # Errors
    /// If it has ended.
    pub fn usage(&self) -> Result<Usage> {
        Usage::read(self.child.id())
            .with_context(|| format!("the program ended: {}", self.last_lines()))
    }

    /// Returns its last log lines, joined into one.
    fn last_lines(&self) -> String {
        let lines = self
            .last_lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Vec::from_iter(lines.iter().map(String::as_str)).join(" | ")
    }
}

impl Drop for Proxy {
    /// Sends SIGTERM, so that the program can save its state, and kills it after the time limit.
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).map(Pid::from_raw);
        if pid.is_ok_and(|pid| kill(pid, Signal::SIGTERM).is_ok()) {
            let deadline = Instant::now() + STOP_LIMIT;
            while Instant::now() < deadline {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                thread::sleep(STOP_POLL);
            }
        }
        // Both fail only if it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Recognises the log lines that report a step of the start.
fn parse_line(program: Program, line: &str) -> Option<StartEvent> {
    match program {
        Program::Onionport | Program::Before => match line.strip_prefix("listening socks ") {
            Some(address) => address.parse().ok().map(StartEvent::Listening),
            None => (line == "bootstrapped").then_some(StartEvent::Usable),
        },
        Program::CTor => match line.split_once("Opened Socks listener connection (ready) on ") {
            Some((_, address)) => address.trim().parse().ok().map(StartEvent::Listening),
            None => line
                .contains("Bootstrapped 100%")
                .then_some(StartEvent::Usable),
        },
        Program::Arti => line
            .contains("Sufficiently bootstrapped")
            .then_some(StartEvent::Usable),
    }
}

/// Reads lines in a new thread until the output ends, so that the program never blocks on a full pipe.
fn read_lines(
    output: impl Read + Send + 'static,
    last_lines: &LastLines,
    inbox: Sender<(Instant, String)>,
) {
    let last_lines = Arc::clone(last_lines);
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            {
                let mut last = last_lines.lock().unwrap_or_else(PoisonError::into_inner);
                if last.len() == LAST_LINES {
                    last.pop_front();
                }
                last.push_back(line.clone());
            }
            // The receiver is dropped once the program is usable.
            let _ = inbox.send((Instant::now(), line));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_messages_of_each_program_are_recognised() {
        let listening = |program, line| match parse_line(program, line) {
            Some(StartEvent::Listening(address)) => Some(address.port()),
            _ => None,
        };
        let usable = |program, line| matches!(parse_line(program, line), Some(StartEvent::Usable));
        assert_eq!(
            listening(Program::Onionport, "listening socks 127.0.0.1:9150"),
            Some(9150)
        );
        assert!(usable(Program::Onionport, "bootstrapped"));
        let opened = "Nov 23 04:00:00.000 [notice] Opened Socks listener connection (ready) on 127.0.0.1:41321";
        assert_eq!(listening(Program::CTor, opened), Some(41_321));
        assert!(usable(
            Program::CTor,
            "Nov 23 04:00:00.000 [notice] Bootstrapped 100% (done): Done"
        ));
        assert!(!usable(Program::CTor, "Bootstrapped 95% (circuit_create)"));
        assert!(usable(
            Program::Arti,
            "2026-11-22T10:00:00Z  INFO arti::subcommands::proxy: Sufficiently bootstrapped; proxy now functional."
        ));
    }
}
