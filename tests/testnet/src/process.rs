//! Child processes that cannot outlive this process, and helpers that wait for them.
//!
//! Every `tor` runs under `setpriv --pdeathsig KILL`, so the kernel kills it when its parent dies, even if it is stopped
//! (SIGSTOP). The kernel sends that signal when the *thread* that started the child ends (prctl(2)), and test harnesses
//! start a thread for each test. Therefore one dedicated thread, which lives as long as the process, starts all children.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::control::Control;
use crate::preload;
use crate::sync::lock;

/// Time between two checks of an awaited condition.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How often a start is attempted when another process takes one of the chosen ports.
const START_ATTEMPTS: usize = 3;

/// A request to the thread that starts children: the command, and the channel for the child.
type SpawnRequest = (Command, Sender<std::io::Result<Child>>);

/// Starts a command on the thread that lives as long as the process.
pub(crate) fn spawn(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Sender<SpawnRequest>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = channel::<SpawnRequest>();
        thread::Builder::new()
            .name("testnet-spawner".into())
            .spawn(move || {
                for (mut command, reply) in requests {
                    // Fails only if the requesting thread has ended.
                    let _ = reply.send(command.spawn());
                }
            })
            .expect("the spawner thread starts");
        sender
    });
    let program = command.get_program().to_string_lossy().into_owned();
    let (reply, child) = channel();
    spawner
        .send((command, reply))
        .map_err(|_| anyhow!("the spawner thread is gone"))?;
    child
        .recv()
        .context("the spawner thread is gone")?
        .with_context(|| format!("cannot start {program}"))
}

/// Finds a program in `PATH` and the usual folders.
///
/// # Errors
/// When it is not installed; the message names the package to install.
pub(crate) fn find_program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/bin", "/usr/sbin", "/usr/local/bin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| match name {
            "setpriv" => {
                anyhow!("no `setpriv` found: install it with `apt-get install util-linux`")
            }
            "cc" => anyhow!("no `{name}` found: install it with `apt-get install gcc`"),
            "obfs4proxy" => anyhow!("no `{name}` found: install it with `apt-get install {name}`"),
            _ => anyhow!("no `{name}` found: install it with `apt-get install tor`"),
        })
}

/// Runs a helper program to its end, with `input` as its standard input.
///
/// # Errors
/// When it fails; the message contains its output.
pub(crate) fn run(mut command: Command, input: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = spawn(command)?;
    if let Some(mut stdin) = child.stdin.take() {
        // Fails if the program ends without reading.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        bail!(
            "{program} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&text).trim()
        );
    }
    Ok(())
}

/// Whether a process has an open connection to an IPv4 address (proc(5), `/proc/pid/net/tcp`).
pub(crate) fn is_connected_to(pid: u32, server: SocketAddr) -> bool {
    const ESTABLISHED: &str = "01";
    let SocketAddr::V4(server) = server else {
        return false;
    };
    // The file shows addresses in the byte order of the machine.
    let ip = u32::from_ne_bytes(server.ip().octets());
    let remote = format!("{ip:08X}:{:04X}", server.port());
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let sockets: HashSet<String> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|row| row.get(2) == Some(&&*remote) && row.get(3) == Some(&ESTABLISHED))
        .filter_map(|row| Some(format!("socket:[{}]", row.get(9)?)))
        .collect();
    let files = fs::read_dir(format!("/proc/{pid}/fd"));
    files.into_iter().flatten().flatten().any(|file| {
        fs::read_link(file.path()).is_ok_and(|to| sockets.contains(&*to.to_string_lossy()))
    })
}

/// A running `tor`, killed when dropped.
#[derive(Debug)]
pub(crate) struct Tor {
    name: String,
    folder: PathBuf,
    child: Child,
}

impl Tor {
    /// Starts `tor` with the `torrc` in `folder`. Its messages go to the files `log` (set in the torrc) and `output` there.
    pub(crate) fn start(name: &str, folder: &Path) -> Result<Self> {
        // A log or socket of an earlier run would be mistaken for this one's.
        let _ = fs::rename(folder.join("log"), folder.join("log.old"));
        let _ = fs::remove_file(folder.join("control"));
        let output = File::create(folder.join("output"))?;
        let mut command = Command::new(find_program("setpriv")?);
        command
            .args(["--pdeathsig", "KILL"])
            .arg(find_program("tor")?)
            .args(["--defaults-torrc", "/dev/null", "--hush", "-f"])
            .arg(folder.join("torrc"))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        preload::configure(&mut command, folder);
        detach_from_terminal(&mut command);
        Ok(Self {
            name: name.to_owned(),
            folder: folder.to_owned(),
            child: spawn(command)?,
        })
    }

    /// Returns the process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the process accepts connections to its control socket, for up to `limit`.
    ///
    /// # Errors
    /// When the process ends, or the limit is over.
    pub(crate) fn wait_for_control(&mut self, limit: Duration) -> Result<Control> {
        let what = format!("the control socket of {}", self.name);
        wait_for(&what, limit, || {
            self.check_alive()?;
            Ok(Control::connect(&self.folder).ok())
        })
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process has ended.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.exit_status()? {
            bail!("{} has ended already ({status})", self.name);
        }
        let pid = Pid::from_raw(i32::try_from(self.pid())?);
        kill(pid, signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Kills the process, even if it is stopped, and waits for its end.
    pub(crate) fn kill(&mut self) {
        // Both fail only if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Returns the exit status, or `None` while the process runs.
    fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Checks that the process runs.
    ///
    /// # Errors
    /// When the process has ended: [`PortTaken`] if it could not bind its port, otherwise its last warnings.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        let Some(status) = self.exit_status()? else {
            return Ok(());
        };
        let warnings = self.last_warnings();
        if warnings.contains("Could not bind to") || warnings.contains("Address already in use") {
            return Err(anyhow!(PortTaken(self.name.clone())));
        }
        bail!("{} ended ({status}): {warnings}", self.name)
    }

    /// Returns the last warnings and errors that it logged, for error messages.
    fn last_warnings(&self) -> String {
        let text = ["log", "output"]
            .map(|file| fs::read(self.folder.join(file)).unwrap_or_default())
            .concat();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text
            .lines()
            .filter(|l| l.contains("[warn]") || l.contains("[err]"))
            .collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }
}

impl Drop for Tor {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal to a `tor` that may have been killed, named `name` in the error.
///
/// # Errors
/// When it does not run.
pub(crate) fn signal(tor: &Mutex<Option<Tor>>, name: &str, signal: Signal) -> Result<()> {
    lock(tor)
        .as_mut()
        .ok_or_else(|| anyhow!("{name} is not running"))?
        .signal(signal)
}

/// The error of a `tor` that could not bind a port because another process took it after it had been chosen. Only this
/// error is worth another attempt.
#[derive(Debug)]
pub(crate) struct PortTaken(String);

impl std::fmt::Display for PortTaken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} could not bind its port", self.0)
    }
}

impl std::error::Error for PortTaken {}

/// Runs `start`, and repeats it with new ports while it fails with [`PortTaken`], up to three times in all.
pub(crate) fn retry_if_port_taken<T>(mut start: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..START_ATTEMPTS {
        match start() {
            Err(error) if error.is::<PortTaken>() => {}
            result => return result,
        }
    }
    start()
}

/// Puts the child in a process group of its own, so that a Ctrl-C in the terminal does not reach it: this process ends it.
pub(crate) fn detach_from_terminal(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
}

/// Evaluates `condition` every [`POLL_INTERVAL`] until it returns a value.
///
/// # Errors
/// When `condition` fails, or there is no value after `limit`; the message names `what` was awaited.
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if start.elapsed() >= limit {
            bail!("timed out after {} s waiting for {what}", limit.as_secs());
        }
        thread::sleep(POLL_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_reported_with_the_package_to_install() {
        let error = find_program("tor-that-is-nowhere").expect_err("the program does not exist");
        assert_eq!(
            format!("{error:#}"),
            "no `tor-that-is-nowhere` found: install it with `apt-get install tor`"
        );
    }

    #[test]
    fn a_wait_that_times_out_names_the_awaited_condition() {
        let mut left = 3;
        let reached = wait_for("the third check", Duration::from_secs(5), || {
            left -= 1;
            Ok((left == 0).then_some("reached"))
        });
        assert_eq!(reached.expect("the condition is met"), "reached");
        let error = wait_for("a lost cause", Duration::ZERO, || Ok(None::<()>));
        let error = error.expect_err("the wait times out").to_string();
        assert!(error.contains("a lost cause"), "{error}");
    }

    #[test]
    fn a_start_is_repeated_only_if_a_port_was_taken() {
        let mut attempts = 0;
        let mut start = |taken: bool| {
            attempts += 1;
            match taken {
                true => Err::<(), _>(anyhow!(PortTaken("relay0".into()))),
                false => Err(anyhow!("another error")),
            }
        };
        retry_if_port_taken(|| start(true)).expect_err("every port is taken");
        retry_if_port_taken(|| start(false)).expect_err("another error");
        assert_eq!(attempts, START_ATTEMPTS + 1);
    }

    /// The kernel kills a child when the thread that started it ends, so that must not be the caller's thread.
    #[test]
    fn a_child_outlives_the_thread_that_requested_it() {
        let mut child = thread::spawn(|| {
            let mut command = Command::new(find_program("setpriv").expect("setpriv is installed"));
            command.args(["--pdeathsig", "KILL", "sleep", "60"]);
            spawn(command).expect("the child starts")
        })
        .join()
        .expect("the thread does not panic");
        thread::sleep(Duration::from_millis(200));
        assert!(child.try_wait().expect("a status").is_none());
        child.kill().expect("the child is killed");
        child.wait().expect("the child ends");
    }
}
