//! Child processes that cannot outlive us, and the waiting that goes with them.
//!
//! Every `tor` runs under `setpriv --pdeathsig KILL`, so the kernel kills it when its parent dies, stopped (SIGSTOP) or not.
//! That signal comes when the *thread* that started the child ends, and test harnesses start a thread for each test:
//! so one thread of our own, which lives as long as the process, starts all children.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock;

/// What is loaded into each `tor` of a network that has this file in its folder.
pub(crate) const OWN_SIDE: &str = "own_side.so";

/// One order to the thread that starts children: the command, and where the child goes.
type SpawnOrder = (Command, Sender<std::io::Result<Child>>);

/// Starts a command from the thread that never ends.
pub(crate) fn spawn(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Sender<SpawnOrder>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = channel::<SpawnOrder>();
        thread::Builder::new()
            .name("testnet-spawner".into())
            .spawn(move || {
                for (mut command, answer) in inbox {
                    // The asker may have gone away; then the child goes with the answer.
                    let _ = answer.send(command.spawn());
                }
            })
            .expect("no thread left for starting processes");
        orders
    });
    let program = command.get_program().to_string_lossy().into_owned();
    let (answer, reply) = channel();
    spawner
        .send((command, answer))
        .map_err(|_| anyhow!("the spawner thread is gone"))?;
    reply
        .recv()
        .context("the spawner thread is gone")?
        .with_context(|| format!("cannot start {program}"))
}

/// Where a program is, or one line that says how to get it.
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

/// Runs a helper program to its end; an error holds what it said.
pub(crate) fn run(mut command: Command, input: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = spawn(command)?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may end without reading.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!(
            "{program} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&said).trim()
        );
    }
    Ok(())
}

/// Whether a process has an open connection to an IPv4 address (proc(5), `/proc/pid/net/tcp`).
pub(crate) fn is_connected_to(pid: u32, server: SocketAddr) -> bool {
    /// State of an open connection.
    const ESTABLISHED: &str = "01";
    let SocketAddr::V4(server) = server else {
        return false;
    };
    // In the byte order of the machine.
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
    /// Starts `tor` with the file `torrc` of `folder`; its messages go to `log` (by the torrc) and `output` there.
    pub(crate) fn start(name: &str, folder: &Path) -> Result<Self> {
        // A log or socket left by an earlier run would be taken for this one's.
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
        let own_side = folder.parent().map(|network| network.join(OWN_SIDE));
        let mut libraries: Vec<PathBuf> = own_side.into_iter().filter(|f| f.exists()).collect();
        if let Some((library, environment)) = clock::library(folder) {
            libraries.push(library);
            command.envs(environment);
        }
        if !libraries.is_empty() {
            let libraries: Vec<_> = libraries.iter().map(|f| f.display().to_string()).collect();
            command.env("LD_PRELOAD", libraries.join(":"));
        }
        detach_from_terminal(&mut command);
        Ok(Self {
            name: name.to_owned(),
            folder: folder.to_owned(),
            child: spawn(command)?,
        })
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal. It is an error if the process has ended.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.exited()? {
            bail!("{} has ended already ({status})", self.name);
        }
        let pid = Pid::from_raw(i32::try_from(self.pid())?);
        kill(pid, signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Kills the process, stopped or not, and waits for its end.
    pub(crate) fn kill(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The exit status, if the process has ended.
    fn exited(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// An error that tells why, if the process has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        let Some(status) = self.exited()? else {
            return Ok(());
        };
        let complaints = self.complaints();
        if complaints.contains("Could not bind to") || complaints.contains("Address already in use")
        {
            return Err(anyhow!(PortTaken(self.name.clone())));
        }
        bail!("{} ended ({status}): {complaints}", self.name)
    }

    /// What it last warned of, for error messages.
    fn complaints(&self) -> String {
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

/// Somebody took the port between our choice and the bind: the one failure that is worth another try.
#[derive(Debug)]
pub(crate) struct PortTaken(String);

impl std::fmt::Display for PortTaken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} could not bind its port", self.0)
    }
}

impl std::error::Error for PortTaken {}

/// Keeps a Ctrl-C in the terminal away from the child: it goes when we go, in order.
pub(crate) fn detach_from_terminal(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
}

/// Asks `condition` every `pause` until it gives a value; after `limit` an error that names `what` was awaited.
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    pause: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if start.elapsed() >= limit {
            bail!("waited {} s in vain for {what}", limit.as_secs());
        }
        thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_told_in_one_line_with_the_remedy() {
        let error = find_program("tor-that-is-nowhere").expect_err("it is nowhere");
        assert_eq!(
            format!("{error:#}"),
            "no `tor-that-is-nowhere` found: install it with `apt-get install tor`"
        );
    }

    #[test]
    fn a_wait_ends_with_the_name_of_what_was_awaited() {
        let pause = Duration::from_millis(1);
        let mut left = 3;
        let reached = wait_for("the third look", Duration::from_secs(5), pause, || {
            left -= 1;
            Ok((left == 0).then_some("there"))
        });
        assert_eq!(reached.expect("reached"), "there");
        let error = wait_for("what never comes", Duration::ZERO, pause, || Ok(None::<()>));
        let error = error.expect_err("it never comes").to_string();
        assert!(error.contains("what never comes"), "{error}");
    }

    /// The kernel kills a child when the thread that started it ends: ours must not be the caller's.
    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let mut child = thread::spawn(|| {
            let mut command = Command::new(find_program("setpriv").expect("setpriv"));
            command.args(["--pdeathsig", "KILL", "sleep", "60"]);
            spawn(command).expect("started")
        })
        .join()
        .expect("no panic");
        thread::sleep(Duration::from_millis(200));
        assert!(child.try_wait().expect("a status").is_none());
        child.kill().expect("killed");
        child.wait().expect("dead");
    }
}
