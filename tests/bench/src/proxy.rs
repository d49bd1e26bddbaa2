//! A program under measurement: started, watched, and stopped when dropped.
//!
//! All are started in the same way: under `setpriv`, so that none outlives us, with what they log
//! read line by line from their standard output and error. A moment that a log line marks is the
//! moment the line arrived here.

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

mod setup;
mod usage;

pub use setup::Setup;
pub use usage::Usage;

/// How long a program may take until it is usable.
const READY_LIMIT: Duration = Duration::from_secs(90);

/// How long a program may take to end when it is asked to.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// How often to look whether it has ended.
const STOP_POLL: Duration = Duration::from_millis(20);

/// How many of a program's last lines are told when it fails.
const LAST_LINES: usize = 5;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// This program.
    Onionport,
    /// Another build of it.
    Before,
    /// What all are compared with.
    CTor,
    /// arti's own proxy.
    Arti,
}

impl Kind {
    /// As it stands in the table.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Onionport => "onionport",
            Kind::Before => "onionport before",
            Kind::CTor => "C tor",
            Kind::Arti => "arti",
        }
    }

    /// A word for the names of folders.
    fn word(self) -> &'static str {
        match self {
            Kind::Onionport => "onionport",
            Kind::Before => "before",
            Kind::CTor => "ctor",
            Kind::Arti => "arti",
        }
    }
}

/// A program to measure.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Which it is.
    pub kind: Kind,
    /// Where it is.
    pub program: PathBuf,
    /// Lines for its configuration beyond those that all have.
    pub lines: Vec<String>,
}

impl Candidate {
    /// The folder, below `folder`, in which it keeps what it learns of the network.
    pub fn home(&self, folder: &Path) -> PathBuf {
        folder.join(self.kind.word())
    }
}

/// All programs in the order of a round: each comes first in its turn.
pub fn in_turn(candidates: &[Candidate], round: u32) -> impl Iterator<Item = &Candidate> {
    let first = usize::try_from(round).unwrap_or_default() % candidates.len().max(1);
    let (later, earlier) = candidates.split_at(first);
    earlier.iter().chain(later)
}

/// A running program that is usable.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    socks: SocketAddr,
    started: Instant,
    usable_after: Duration,
    last_lines: LastLines,
}

type LastLines = Arc<Mutex<VecDeque<String>>>;

/// What a line says of how far a program is.
enum Sign {
    /// It accepts clients here.
    Listening(SocketAddr),
    /// It has connected to the network.
    Usable,
}

impl Proxy {
    /// Starts a program with its files in `home`, which is made if it is missing, and waits until
    /// it is usable.
    ///
    /// # Errors
    /// When it cannot be started, ends, or takes too long; the text holds its last lines.
    pub fn start(
        candidate: &Candidate,
        network: &Network,
        home: &Path,
        setup: &Setup,
    ) -> Result<Proxy> {
        fs::create_dir_all(home)?;
        setup::make_private(home)?;
        // arti is the one that cannot say which port it was given.
        let free_port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let arguments = setup.write(candidate, network, home, free_port)?;
        let (lines, inbox) = mpsc::channel();
        let started = Instant::now();
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&candidate.program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", candidate.program.display()))?;
        let last_lines = LastLines::default();
        if let Some(output) = child.stdout.take() {
            read_lines(output, &last_lines, lines.clone());
        }
        if let Some(output) = child.stderr.take() {
            read_lines(output, &last_lines, lines);
        }
        let mut proxy = Proxy {
            child,
            socks: free_port,
            started,
            usable_after: Duration::ZERO,
            last_lines,
        };
        proxy
            .wait_until_usable(candidate.kind, &inbox)
            .with_context(|| format!("{} did not become usable", candidate.kind.name()))?;
        Ok(proxy)
    }

    fn wait_until_usable(&mut self, kind: Kind, lines: &Receiver<(Instant, String)>) -> Result<()> {
        let deadline = self.started + READY_LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (when, line) = match lines.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("waited {} s: {}", READY_LIMIT.as_secs(), self.last_lines())
                }
                Err(RecvTimeoutError::Disconnected) => bail!("it ended: {}", self.last_lines()),
            };
            match sign(kind, &line) {
                Some(Sign::Listening(address)) => self.socks = address,
                Some(Sign::Usable) => {
                    self.usable_after = when - self.started;
                    return Ok(());
                }
                None => {}
            }
        }
    }

    /// Its SOCKS port, which has `ExtendedErrors` where the program knows it.
    pub fn socks(&self) -> SocketAddr {
        self.socks
    }

    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// How long it took from the start until it said that it was usable.
    pub fn usable_after(&self) -> Duration {
        self.usable_after
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// When it has ended.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.child.id()).with_context(|| format!("it ended: {}", self.last_lines()))
    }

    /// What it said last, in one line.
    fn last_lines(&self) -> String {
        let lines = self
            .last_lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Vec::from_iter(lines.iter().map(String::as_str)).join(" | ")
    }
}

impl Drop for Proxy {
    /// Asks it to end, so that it can write down what it has learnt, and kills it if it does not.
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
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a line of a program's output says.
fn sign(kind: Kind, line: &str) -> Option<Sign> {
    match kind {
        Kind::Onionport | Kind::Before => match line.strip_prefix("listening socks ") {
            Some(place) => place.parse().ok().map(Sign::Listening),
            None => (line == "bootstrapped").then_some(Sign::Usable),
        },
        Kind::CTor => match line.split_once("Opened Socks listener connection (ready) on ") {
            Some((_, place)) => place.trim().parse().ok().map(Sign::Listening),
            None => line.contains("Bootstrapped 100%").then_some(Sign::Usable),
        },
        Kind::Arti => line
            .contains("Sufficiently bootstrapped")
            .then_some(Sign::Usable),
    }
}

/// Reads lines in a thread of its own for as long as there are any, so that the program never waits
/// for us.
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
            // Nobody listens once the program is usable.
            let _ = inbox.send((Instant::now(), line));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signs_of_each_program_are_known() {
        let listening = |kind, line| match sign(kind, line) {
            Some(Sign::Listening(address)) => Some(address.port()),
            _ => None,
        };
        let usable = |kind, line| matches!(sign(kind, line), Some(Sign::Usable));
        assert_eq!(
            listening(Kind::Onionport, "listening socks 127.0.0.1:9150"),
            Some(9150)
        );
        assert!(usable(Kind::Onionport, "bootstrapped"));
        let opened = "Nov 23 04:00:00.000 [notice] Opened Socks listener connection (ready) on 127.0.0.1:41321";
        assert_eq!(listening(Kind::CTor, opened), Some(41_321));
        assert!(usable(
            Kind::CTor,
            "Nov 23 04:00:00.000 [notice] Bootstrapped 100% (done): Done"
        ));
        assert!(!usable(Kind::CTor, "Bootstrapped 95% (circuit_create)"));
        assert!(usable(
            Kind::Arti,
            "2026-11-22T10:00:00Z  INFO arti::subcommands::proxy: Sufficiently bootstrapped; proxy now functional."
        ));
    }
}
