//! The real program on a private network.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use testnet::Network;

/// How long it may take from the start of the program until it is usable.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// How much of the log is shown when a test fails; all of it is kept.
const LOG_LINES: usize = 60;

/// The ports of most tests: one with `ExtendedErrors` and one without.
const PORTS: [&str; 2] = ["auto ExtendedErrors", "auto"];

/// A running `onionport`. Stopped when dropped; its log is shown when the test fails.
pub struct Onionport {
    child: Child,
    /// The places of its ports, as it named them.
    ports: Vec<String>,
    log: PathBuf,
    folder: tempfile::TempDir,
}

impl Onionport {
    /// Starts `program` with more lines for its `[proxy]` section, and waits until it is usable. It
    /// has one port with `ExtendedErrors` and one without.
    pub fn start(program: &Path, network: &Network, proxy: &str) -> Result<Onionport> {
        Self::with_ports(program, network, proxy, &PORTS)
    }

    /// The same with these SOCKS ports.
    pub fn with_ports(
        program: &Path,
        network: &Network,
        proxy: &str,
        lines: &[&str],
    ) -> Result<Onionport> {
        // Within the network's folder, which goes even when the tests are interrupted.
        let folder = tempfile::tempdir_in(network.dir())?;
        // The key folder has to be private.
        fs::create_dir(folder.path().join("state"))?;
        let config = folder.path().join("onionport.toml");
        let text = network.arti_config(&folder.path().join("state"));
        fs::write(&config, format!("{text}\n[proxy]\n{proxy}\n"))?;
        let log = folder.path().join("log");
        // As the network's own processes: gone when whoever started it is, whatever became of it.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .arg("-c")
            .arg(&config)
            .args(lines.iter().flat_map(|line| ["--socks-port", line]))
            // tor_netdir complains every second that so small a network has too few guards.
            .args([
                "-l",
                "info,onionport=debug,tor_hsclient=debug,tor_circmgr::hspool=trace,tor_netdir=error",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let lines = lines_of(child.stdout.take().context("no standard output")?);
        let mut started = Onionport {
            child,
            ports: Vec::new(),
            log,
            folder,
        };
        loop {
            let line = next(&lines)?;
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["listening", _kind, place] => started.ports.push(place.to_owned()),
                ["bootstrapped"] => return Ok(started),
                _ => bail!("expected `listening …` or `bootstrapped`, got `{line}`"),
            }
        }
    }

    /// The port with `ExtendedErrors`.
    pub fn extended(&self) -> SocketAddr {
        self.port(0)
    }

    /// The port without.
    pub fn plain(&self) -> SocketAddr {
        self.port(1)
    }

    /// The TCP or UDP port that it named as the `number`th.
    pub fn port(&self, number: usize) -> SocketAddr {
        self.ports[number].parse().expect("an address and a port")
    }

    /// Sends it a signal by its name: USR1, HUP.
    #[allow(dead_code, reason = "the demo does not need it")]
    pub fn signal(&self, name: &str) -> Result<()> {
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.child.id())])
            .status()?;
        anyhow::ensure!(sent.success(), "cannot send {name}");
        Ok(())
    }

    /// A folder that goes with it.
    #[allow(dead_code, reason = "the demo does not need it")]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Onionport {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
            eprintln!(
                "--- end of {}\n{}\n---",
                self.log.display(),
                last.join("\n")
            );
        }
    }
}

/// Reads lines in a thread, so that waiting for one can end.
fn lines_of(output: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

fn next(lines: &mpsc::Receiver<String>) -> Result<String> {
    lines
        .recv_timeout(READY_LIMIT)
        .context("onionport did not say it was ready")
}
