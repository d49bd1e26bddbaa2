//! The real program on a private network.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use testnet::Network;

/// How long it may take from the start of the program until it is usable.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Between two looks at something awaited.
const POLL: Duration = Duration::from_millis(50);

/// What the log says at the end of a reload, whatever has come of it.
const RELOADED: [&str; 2] = ["configuration reloaded", "configuration not reloaded"];

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
        let start = Start {
            proxy,
            ports: lines,
            ..Start::default()
        };
        Self::start_with(program, network, start)
    }

    /// The same, but only waits until the SOCKS ports are open: the Tor network may still be out of reach.
    #[allow(dead_code, reason = "the demo does not need it")]
    pub fn start_early(
        program: &Path,
        network: &Network,
        proxy: &str,
        lines: &[&str],
    ) -> Result<Onionport> {
        let start = Start {
            proxy,
            ports: lines,
            ports_only: Some(lines.len()),
            ..Start::default()
        };
        Self::start_with(program, network, start)
    }

    /// The same with all that there is to say.
    pub fn start_with(program: &Path, network: &Network, start: Start<'_>) -> Result<Onionport> {
        // Within the network's folder, which goes even when the tests are interrupted.
        let folder = tempfile::tempdir_in(network.dir())?.keep();
        let own_state = folder.join("state");
        let state = start.state.unwrap_or(&own_state);
        // The key folder has to be private.
        fs::create_dir_all(state)?;
        let text = network.arti_config(state);
        let config = folder.join("onionport.toml");
        fs::write(&config, format!("{text}\n[proxy]\n{}\n", start.proxy))?;
        fs::write(folder.join(EXTRA), start.extra)?;
        let log = folder.join("log");
        network.show_if_kept(&log);
        // As the network's own processes: gone when whoever started it is, whatever became of it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        if let Some(torrc) = start.torrc {
            fs::write(folder.join(TORRC), torrc)?;
            command.arg("--torrc").arg(folder.join(TORRC));
        }
        let mut child = command
            .arg("-c")
            .arg(&config)
            .arg("-c")
            .arg(folder.join(EXTRA))
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
        let mut started = Onionport {
            lines: Mutex::new(lines_of(child.stdout.take().context("no standard output")?)),
            child,
            ports: Vec::new(),
            log,
            folder,
        };
        match start.ports_only {
            None => started.wait_until_usable()?,
            Some(ports) => {
                while started.ports.len() < ports {
                    ensure!(!started.is_usable_after_next_line()?, "no ports yet");
                }
            }
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

    /// Writes the files anew that are read first and last, as far as they are given, and has it read its configuration
    /// again. Returns when it says what has come of that, and gives what it has logged since.
    #[allow(dead_code, reason = "the demo does not need it")]
    pub fn reload(&self, torrc: Option<&str>, extra: Option<&str>) -> Result<String> {
        for (name, text) in [(TORRC, torrc), (EXTRA, extra)] {
            if let Some(text) = text {
                fs::write(self.folder.join(name), text)?;
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
        assert_no_panic(&self.log());
    }
}

/// Asserts that the log shows no panic: one in a task ends only that task, and nobody would notice.
pub fn assert_no_panic(log: &str) {
    let panicked = log.lines().find(|line| line.contains(" panicked at "));
    if !std::thread::panicking() {
        assert_eq!(panicked, None);
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
