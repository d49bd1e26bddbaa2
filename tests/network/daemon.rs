//! The real program on a private network.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use testnet::Network;

/// How long it may take from the start of the program until it is usable.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// How much of the log is shown when a test fails; all of it is kept.
const LOG_LINES: usize = 60;

/// Between two looks at something awaited.
const POLL: Duration = Duration::from_millis(50);

/// What the log says at the end of a reload, whatever has come of it.
const RELOADED: [&str; 2] = [
    "the configuration was read again",
    "the configuration stays as it was",
];

/// The files of [`Start::torrc`] and [`Start::extra`].
const TORRC: &str = "torrc";
const EXTRA: &str = "extra.toml";

/// The ports of most tests: one with `ExtendedErrors` and one without.
const PORTS: [&str; 2] = ["auto ExtendedErrors", "auto"];

/// How to start the program.
#[derive(Clone, Copy)]
pub struct Start<'a> {
    /// More lines for its `[proxy]` section, and whole sections behind them.
    pub proxy: &'a str,
    /// Its SOCKS ports.
    pub ports: &'a [&'a str],
    /// A torrc to read first.
    pub torrc: Option<&'a str>,
    /// A file to read last, which may have any section.
    pub extra: &'a str,
    /// Where its state is; in a folder of its own if not said.
    pub state: Option<&'a Path>,
    /// To wait only until so many ports are open; else until it has connected to Tor.
    pub ports_only: Option<usize>,
}

impl Default for Start<'_> {
    fn default() -> Self {
        Start {
            proxy: "",
            ports: &PORTS,
            torrc: None,
            extra: "",
            state: None,
            ports_only: None,
        }
    }
}

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
        let start = Start {
            proxy,
            ports: lines,
            ..Start::default()
        };
        Self::start_with(program, network, start)
    }

    /// The same with all that there is to say.
    pub fn start_with(program: &Path, network: &Network, start: Start<'_>) -> Result<Onionport> {
        // Within the network's folder, which goes even when the tests are interrupted.
        let folder = tempfile::tempdir_in(network.dir())?;
        let own_state = folder.path().join("state");
        let state = start.state.unwrap_or(&own_state);
        // The key folder has to be private.
        fs::create_dir_all(state)?;
        let text = network.arti_config(state);
        let config = folder.path().join("onionport.toml");
        fs::write(&config, format!("{text}\n[proxy]\n{}\n", start.proxy))?;
        fs::write(folder.path().join(EXTRA), start.extra)?;
        let log = folder.path().join("log");
        // As the network's own processes: gone when whoever started it is, whatever became of it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        if let Some(torrc) = start.torrc {
            fs::write(folder.path().join(TORRC), torrc)?;
            command.arg("--torrc").arg(folder.path().join(TORRC));
        }
        let mut child = command
            .arg("-c")
            .arg(&config)
            .arg("-c")
            .arg(folder.path().join(EXTRA))
            .args(start.ports.iter().flat_map(|line| ["--socks-port", line]))
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
        while start.ports_only != Some(started.ports.len()) {
            let line = next(&lines)?;
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["listening", _kind, place] => started.ports.push(place.to_owned()),
                ["bootstrapped"] => break,
                _ => bail!("expected `listening …` or `bootstrapped`, got `{line}`"),
            }
        }
        Ok(started)
    }

    /// Writes the files anew that are read first and last, as far as they are given, and has it read its configuration
    /// again. Returns when it says what has come of that, and gives what it has logged since.
    #[allow(dead_code, reason = "the demo does not need it")]
    pub fn reload(&self, torrc: Option<&str>, extra: Option<&str>) -> Result<String> {
        for (name, text) in [(TORRC, torrc), (EXTRA, extra)] {
            if let Some(text) = text {
                fs::write(self.folder.path().join(name), text)?;
            }
        }
        let before = self.log().len();
        self.signal("HUP")?;
        let begun = Instant::now();
        loop {
            let log = self.log()[before..].to_owned();
            if RELOADED.iter().any(|said| log.contains(said)) {
                return Ok(log);
            }
            if begun.elapsed() > READY_LIMIT {
                bail!("it does not say what has come of SIGHUP: {log}");
            }
            std::thread::sleep(POLL);
        }
    }

    /// Stops it (SIGTERM) and waits for its end.
    #[allow(dead_code, reason = "the demo does not need it")]
    pub fn stop(mut self) -> Result<()> {
        self.signal("TERM")?;
        let begun = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begun.elapsed() > READY_LIMIT {
                bail!("it does not stop");
            }
            std::thread::sleep(POLL);
        }
        Ok(())
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
