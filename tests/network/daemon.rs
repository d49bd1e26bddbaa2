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

/// A running `onionport`, with one port that has `ExtendedErrors` and one that has not. Stopped when
/// dropped; its log is shown when the test fails.
pub struct Onionport {
    child: Child,
    extended: SocketAddr,
    plain: SocketAddr,
    log: PathBuf,
    folder: tempfile::TempDir,
}

impl Onionport {
    /// Starts `program` with more lines for its `[proxy]` section, and waits until it is usable.
    pub fn start(program: &Path, network: &Network, proxy: &str) -> Result<Onionport> {
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
            .args([
                "--socks-port",
                "auto ExtendedErrors",
                "--socks-port",
                "auto",
            ])
            // tor_netdir complains every second that so small a network has too few guards.
            .args([
                "-l",
                "info,onionport=debug,tor_hsclient=debug,tor_netdir=error",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let lines = lines_of(child.stdout.take().context("no standard output")?);
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut started = Onionport {
            child,
            extended: nowhere,
            plain: nowhere,
            log,
            folder,
        };
        started.extended = listening(&lines)?;
        started.plain = listening(&lines)?;
        match next(&lines)?.as_str() {
            "bootstrapped" => Ok(started),
            other => bail!("expected `bootstrapped`, got `{other}`"),
        }
    }

    /// The port with `ExtendedErrors`.
    pub fn extended(&self) -> SocketAddr {
        self.extended
    }

    /// The port without.
    pub fn plain(&self) -> SocketAddr {
        self.plain
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

fn listening(lines: &mpsc::Receiver<String>) -> Result<SocketAddr> {
    let line = next(lines)?;
    let address = line
        .strip_prefix("listening socks ")
        .and_then(|a| a.parse().ok());
    address.with_context(|| format!("expected `listening socks ADDRESS`, got `{line}`"))
}
