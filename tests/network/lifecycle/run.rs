//! A program that is started in folders which outlast it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use testnet::{Network, socks5_connect};

use crate::daemon::assert_no_panic;
use crate::program;

/// How long a program may take to end after a signal.
const END_LIMIT: Duration = Duration::from_secs(20);
/// How long a stream may take to be opened.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// How often to ask whether it has ended.
const POLL: Duration = Duration::from_millis(10);

/// State and cache of a program.
pub struct Folders(tempfile::TempDir);

impl Folders {
    /// Empty ones.
    pub fn new(network: &Network) -> Result<Folders> {
        let folder = tempfile::tempdir_in(network.dir())?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700))?;
        Ok(Folders(folder))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// Others with the same files in them.
    pub fn copy(&self, network: &Network) -> Result<Folders> {
        let copy = Folders::new(network)?;
        let mut from = self.path().as_os_str().to_owned();
        from.push("/.");
        let copied = Command::new("cp")
            .arg("-a")
            .arg(from)
            .arg(copy.path())
            .status()?;
        ensure!(copied.success(), "cp -a");
        Ok(copy)
    }
}

/// The program while it runs; killed when dropped.
pub struct Run {
    child: Child,
    lines: mpsc::Receiver<String>,
    port: Option<SocketAddr>,
    log: PathBuf,
}

impl Run {
    /// Starts it with one SOCKS port and `more` configuration. Permissions of files count.
    pub fn start(network: &Network, folders: &Folders, more: &str) -> Result<Run> {
        let folder = tempfile::tempdir_in(network.dir())?.keep();
        let config = network.arti_config(folders.path());
        // The folders above are the network's and everybody's.
        let trust = format!(
            "ignore_prefix = {:?}\n",
            network.dir().display().to_string()
        );
        let config = config.replace("dangerously_trust_everyone = true\n", &trust);
        let file = folder.join("onionport.toml");
        fs::write(&file, format!("{config}\n{more}\n"))?;
        let log = folder.join("log");
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program())
            .args(["--socks-port", "auto", "-l", "info,tor_netdir=error", "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()?;
        let output = child.stdout.take().context("no standard output")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.for_each(|line| drop(sender.send(line)));
        });
        Ok(Run {
            child,
            lines,
            port: None,
            log,
        })
    }

    /// Waits until it has said that it can use the Tor network.
    pub fn wait_until_usable(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).context("it is not usable")?;
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["listening", "socks", place] => self.port = Some(place.parse()?),
                ["bootstrapped"] => return Ok(()),
                _ => bail!("unexpected line {line}"),
            }
        }
    }

    /// A stream to `target`.
    pub fn connect(&self, target: SocketAddr) -> Result<TcpStream> {
        let port = self.port.context("it has named no port")?;
        let host = target.ip().to_string();
        let reply = socks5_connect(port, &host, target.port(), REQUEST_LIMIT)?;
        let code = reply.code;
        reply
            .stream
            .with_context(|| format!("refused with {code:02X}"))
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends it a signal, and waits for its end.
    pub fn stop(&mut self, signal: &str) -> Result<ExitStatus> {
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{signal} {}", self.child.id())])
            .status()?;
        ensure!(sent.success(), "cannot send {signal}");
        self.ended(END_LIMIT)
    }

    /// Waits for its end.
    pub fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "it does not end\n{}", self.log());
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        assert_no_panic(&self.log());
    }
}
