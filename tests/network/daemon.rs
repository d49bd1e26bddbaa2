//! The real program on a private network.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use testnet::Network;

/// How long it may take from the start of the program until it is usable.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// The ports of most tests: one with `ExtendedErrors` and one without.
const PORTS: [&str; 2] = ["auto ExtendedErrors", "auto"];

/// A running `onionport`, stopped when dropped. Its folder goes with the network's, and if that is kept, the end of its
/// log is printed.
pub struct Onionport {
    child: Child,
    /// The places of its ports, as it named them.
    ports: Vec<String>,
    #[allow(dead_code, reason = "the demo does not need it")]
    log: PathBuf,
    folder: PathBuf,
    /// What else it says on standard output.
    lines: Mutex<mpsc::Receiver<String>>,
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
        let mut started = Self::start_early(program, network, proxy, lines)?;
        started.wait_until_usable()?;
        Ok(started)
    }

    /// The same, but only waits until the SOCKS ports are open: the Tor network may still be out of reach.
    pub fn start_early(
        program: &Path,
        network: &Network,
        proxy: &str,
        lines: &[&str],
    ) -> Result<Onionport> {
        // Within the network's folder, which goes even when the tests are interrupted.
        let folder = tempfile::tempdir_in(network.dir())?.keep();
        // The key folder has to be private.
        fs::create_dir(folder.join("state"))?;
        let config = folder.join("onionport.toml");
        let text = network.arti_config(&folder.join("state"));
        fs::write(&config, format!("{text}\n[proxy]\n{proxy}\n"))?;
        let log = folder.join("log");
        network.show_if_kept(&log);
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
        let mut started = Onionport {
            lines: Mutex::new(lines_of(child.stdout.take().context("no standard output")?)),
            child,
            ports: Vec::new(),
            log,
            folder,
        };
        while started.ports.len() < lines.len() {
            ensure!(!started.is_usable_after_next_line()?, "no ports yet");
        }
        Ok(started)
    }

    /// Waits until it has said that it can use the Tor network.
    pub fn wait_until_usable(&mut self) -> Result<()> {
        while !self.is_usable_after_next_line()? {}
        Ok(())
    }

    /// Reads one more line, which may be that it can use the Tor network.
    fn is_usable_after_next_line(&mut self) -> Result<bool> {
        let lines = self.lines.get_mut().unwrap_or_else(PoisonError::into_inner);
        let line = lines.recv_timeout(READY_LIMIT);
        let line = line.context("onionport did not say it was ready")?;
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["listening", _kind, place] => self.ports.push(place.to_owned()),
            ["bootstrapped"] => return Ok(true),
            _ => bail!("expected `listening …` or `bootstrapped`, got `{line}`"),
        }
        Ok(false)
    }

    /// Whether it has said nothing that was not read yet.
    #[allow(dead_code, reason = "the demo does not need it")]
    pub fn is_quiet(&self) -> bool {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(lines.try_recv(), Err(mpsc::TryRecvError::Empty))
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
        ensure!(sent.success(), "cannot send {name}");
        Ok(())
    }

    /// A folder of its own.
    #[allow(dead_code, reason = "the demo does not need it")]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it has logged so far.
    #[allow(dead_code, reason = "the demo does not need it")]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Onionport {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
