//! The program on a private network.
//!
//! The demo includes this file too. Each of the two crates defines `crate::program()`, because they find
//! the program in different places.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use testnet::Network;

use crate::program;

/// How long the program may take to bootstrap, to reload its configuration, or to exit in [`Onionport::stop`].
const LIMIT: Duration = Duration::from_secs(60);

/// Interval between two checks of a condition.
const POLL: Duration = Duration::from_millis(50);

/// The log messages that end a reload, after success and after failure.
const RELOADED: [&str; 2] = ["configuration reloaded", "configuration not reloaded"];

/// File names of [`Start::torrc`] and [`Start::extra_config`].
const TORRC: &str = "torrc";
const EXTRA_CONFIG: &str = "extra.toml";

/// The SOCKS ports of most tests: one with `ExtendedErrors` and one without.
const SOCKS_PORTS: [&str; 2] = ["auto ExtendedErrors", "auto"];

/// The log level of most tests. tor_netdir warns every second that so small a network has too few guards.
const LOG_FILTER: &str =
    "info,onionport=debug,tor_hsclient=debug,tor_circmgr::hspool=trace,tor_netdir=error";

/// Options for starting the program.
#[derive(Clone, Copy)]
pub struct Start<'a> {
    network: &'a Network,
    proxy_settings: &'a str,
    socks_ports: &'a [&'a str],
    torrc: Option<&'a str>,
    /// The text set by [`Start::extra_config`].
    pub extra_config: &'a str,
    state: Option<&'a Path>,
    check_permissions: bool,
    log_filter: &'a str,
}

impl<'a> Start<'a> {
    /// The defaults: one SOCKS port with `ExtendedErrors`, one without, and state in a new folder.
    pub fn new(network: &'a Network) -> Self {
        Start {
            network,
            proxy_settings: "",
            socks_ports: &SOCKS_PORTS,
            torrc: None,
            extra_config: "",
            state: None,
            check_permissions: false,
            log_filter: LOG_FILTER,
        }
    }

    /// Adds lines to the `[proxy]` section. Whole sections may follow them.
    pub fn proxy_settings(self, proxy_settings: &'a str) -> Self {
        Start {
            proxy_settings,
            ..self
        }
    }

    /// Replaces the SOCKS ports of the command line.
    pub fn socks_ports(self, socks_ports: &'a [&'a str]) -> Self {
        Start {
            socks_ports,
            ..self
        }
    }

    /// Adds a torrc, which the program reads first.
    pub fn torrc(self, torrc: &'a str) -> Self {
        Start {
            torrc: Some(torrc),
            ..self
        }
    }

    /// Adds a configuration file, which the program reads last. It may have any section.
    pub fn extra_config(self, extra_config: &'a str) -> Self {
        Start {
            extra_config,
            ..self
        }
    }

    /// Sets the folder for state and cache.
    pub fn state(self, state: &'a Path) -> Self {
        Start {
            state: Some(state),
            ..self
        }
    }

    /// Lets the program check the permissions of its files. Only the network's own folder is exempt: others may
    /// write to the folders above it.
    pub fn check_permissions(self) -> Self {
        Start {
            check_permissions: true,
            ..self
        }
    }

    /// Sets the log filter.
    pub fn log_filter(self, log_filter: &'a str) -> Self {
        Start { log_filter, ..self }
    }

    /// Starts the program and waits until it has bootstrapped.
    pub fn start(self) -> Result<Onionport> {
        let mut started = self.spawn()?;
        self.network.show_if_kept(&started.log);
        started.wait_until_bootstrapped(LIMIT)?;
        Ok(started)
    }

    /// Starts the program and waits only until it has opened `ports` ports, before it has bootstrapped.
    pub fn start_until_ports_are_open(self, ports: usize) -> Result<Onionport> {
        let mut started = self.spawn()?;
        self.network.show_if_kept(&started.log);
        let deadline = Instant::now() + LIMIT;
        while started.ports.len() < ports {
            ensure!(
                !started.read_line_until(deadline)?,
                "the program bootstrapped with {} of {ports} ports open",
                started.ports.len()
            );
        }
        Ok(started)
    }

    /// Starts the program without waiting. Its log is not printed if the network's folder is kept.
    pub fn spawn(self) -> Result<Onionport> {
        let network = self.network;
        // The network removes its folder even if the tests are interrupted.
        let folder = tempfile::tempdir_in(network.dir())?.keep();
        let own_state = folder.join("state");
        let state = self.state.unwrap_or(&own_state);
        fs::create_dir_all(state)?;
        let mut text = network.arti_config(state);
        if self.check_permissions {
            let network_folder = network.dir().display().to_string();
            text = text.replace(
                "dangerously_trust_everyone = true\n",
                &format!("ignore_prefix = {network_folder:?}\n"),
            );
        }
        let config = folder.join("onionport.toml");
        fs::write(
            &config,
            format!("{text}\n[proxy]\n{}\n", self.proxy_settings),
        )?;
        let extra_config = folder.join(EXTRA_CONFIG);
        fs::write(&extra_config, self.extra_config)?;
        let log = folder.join("log");
        let program = program()?;
        // The program dies with the test's process, even if that is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&program);
        if let Some(torrc) = self.torrc {
            fs::write(folder.join(TORRC), torrc)?;
            command.arg("--torrc").arg(folder.join(TORRC));
        }
        let mut child = command
            .arg("-c")
            .arg(&config)
            .arg("-c")
            .arg(&extra_config)
            .args(
                self.socks_ports
                    .iter()
                    .flat_map(|line| ["--socks-port", line]),
            )
            .args(["-l", self.log_filter])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let output = child.stdout.take().context("standard output not piped")?;
        Ok(Onionport {
            child,
            ports: Vec::new(),
            log,
            folder,
            lines: Mutex::new(read_lines(output)),
        })
    }
}

/// A running `onionport`, killed when dropped.
///
/// Its folder is removed with the network's folder.
pub struct Onionport {
    child: Child,
    /// The addresses of its ports, as it prints them.
    ports: Vec<String>,
    log: PathBuf,
    folder: PathBuf,
    /// The lines of its standard output that have not been read yet.
    lines: Mutex<mpsc::Receiver<String>>,
}

impl Onionport {
    /// Starts the program with more lines in its `[proxy]` section and waits until it has bootstrapped.
    pub fn start(network: &Network, proxy_settings: &str) -> Result<Onionport> {
        Start::new(network).proxy_settings(proxy_settings).start()
    }

    /// Waits until the program has bootstrapped.
    pub fn wait_until_bootstrapped(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !self.read_line_until(deadline)? {}
        Ok(())
    }

    /// Reads the next line of standard output, and returns whether it reports that the program has bootstrapped.
    fn read_line_until(&mut self, deadline: Instant) -> Result<bool> {
        let lines = self.lines.get_mut().unwrap_or_else(PoisonError::into_inner);
        let line = lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        let line = line.context("onionport did not report that it is ready")?;
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["listening", _kind, address] => self.ports.push(address.to_owned()),
            ["bootstrapped"] => return Ok(true),
            _ => bail!("expected `listening …` or `bootstrapped`, got `{line}`"),
        }
        Ok(false)
    }

    /// Whether standard output has no unread line; discards one if it has.
    pub fn is_quiet(&self) -> bool {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(lines.try_recv(), Err(mpsc::TryRecvError::Empty))
    }

    /// Replaces the torrc and the extra configuration file, as far as they are given, and sends SIGHUP. Waits until
    /// the reload has succeeded or failed, and returns what was logged since SIGHUP.
    pub fn reload(&self, torrc: Option<&str>, extra_config: Option<&str>) -> Result<String> {
        for (name, text) in [(TORRC, torrc), (EXTRA_CONFIG, extra_config)] {
            if let Some(text) = text {
                fs::write(self.folder.join(name), text)?;
            }
        }
        let before = self.log().len();
        self.signal("HUP")?;
        let begun = Instant::now();
        loop {
            let log = self.log()[before..].to_owned();
            if RELOADED.iter().any(|message| log.contains(message)) {
                return Ok(log);
            }
            if begun.elapsed() > LIMIT {
                bail!("no message about a reload after SIGHUP: {log}");
            }
            std::thread::sleep(POLL);
        }
    }

    /// Sends SIGTERM and waits until the program has exited.
    pub fn stop(mut self) -> Result<()> {
        self.signal("TERM")?;
        self.wait_until_exit(LIMIT)?;
        Ok(())
    }

    /// Waits until the program has exited, and returns its status.
    pub fn wait_until_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "the program does not exit\n{}",
                self.log()
            );
            std::thread::sleep(POLL);
        }
    }

    /// The port with `ExtendedErrors`.
    pub fn extended_port(&self) -> SocketAddr {
        self.port(0)
    }

    /// The port without `ExtendedErrors`.
    pub fn plain_port(&self) -> SocketAddr {
        self.port(1)
    }

    /// The TCP or UDP port with this index, in the order in which the program printed them: SOCKS ports first.
    pub fn port(&self, index: usize) -> SocketAddr {
        self.ports[index].parse().expect("an address and a port")
    }

    /// Sends a signal, by its name without `SIG`.
    pub fn signal(&self, name: &str) -> Result<()> {
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.child.id())])
            .status()?;
        ensure!(sent.success(), "cannot send SIG{name}");
        Ok(())
    }

    /// Returns what the program has logged so far.
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

/// Asserts that the log shows no panic. A panic in a task ends only that task, so the test might not notice.
fn assert_no_panic(log: &str) {
    let panicked = log.lines().find(|line| line.contains(" panicked at "));
    if !std::thread::panicking() {
        assert_eq!(panicked, None);
    }
}

/// Reads lines in a thread, so that the receiver can wait with a time-out.
fn read_lines(output: impl Read + Send + 'static) -> mpsc::Receiver<String> {
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
