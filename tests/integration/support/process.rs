//! Child processes that end with their test, and whose output is printed if it fails.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::LIMIT;

/// How often to check whether a process has exited.
const POLL: Duration = Duration::from_millis(5);

/// The lines that a process has written to one stream.
#[derive(Clone, Default)]
pub struct Lines(Arc<(Mutex<Output>, Condvar)>);

#[derive(Default)]
struct Output {
    lines: Vec<String>,
    /// Whether the stream has ended.
    ended: bool,
}

impl Lines {
    /// Starts to collect the lines of `source`, in a thread, until it ends.
    fn follow(source: impl Read + Send + 'static) -> Self {
        let lines = Lines::default();
        let writer = lines.clone();
        thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while source.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                writer.change(|output| output.lines.push(text));
                line.clear();
            }
            writer.change(|output| output.ended = true);
        });
        lines
    }

    /// The lines of a stream that is not piped: none.
    fn none() -> Self {
        let lines = Lines::default();
        lines.change(|output| output.ended = true);
        lines
    }

    fn change(&self, change: impl FnOnce(&mut Output)) {
        let (output, changed) = &*self.0;
        change(&mut output.lock().unwrap_or_else(PoisonError::into_inner));
        changed.notify_all();
    }

    /// Waits until `find` finds something; returns `None` after [`LIMIT`] or at the end of the stream.
    fn wait<T>(&self, mut find: impl FnMut(&[String]) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + LIMIT;
        let (output, changed) = &*self.0;
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = find(&output.lines) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if output.ended || left.is_zero() {
                return None;
            }
            (output, _) = changed
                .wait_timeout(output, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns all lines so far.
    pub fn all(&self) -> Vec<String> {
        self.wait(|lines| Some(lines.to_vec())).unwrap_or_default()
    }

    /// Waits for the end of the stream and returns all lines.
    fn complete(&self) -> Vec<String> {
        self.wait(|_| None::<()>);
        self.all()
    }
}

/// Returns a command that runs `program` and is killed when the thread that starts it ends, even if the
/// test is killed and cannot clean up.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A running program; killed when dropped.
pub struct Process {
    name: &'static str,
    child: Child,
    pub out: Lines,
    pub err: Lines,
    /// Whether `err` collects its standard error.
    collects_stderr: bool,
}

/// A program that has exited.
pub struct Ended {
    pub status: ExitStatus,
    pub out: Vec<String>,
    pub err: Vec<String>,
}

impl Process {
    /// Starts a program, and collects its output from the streams that `command` pipes.
    pub fn start(name: &'static str, command: &mut Command) -> Self {
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let out = child.stdout.take();
        let out = out.map_or_else(Lines::none, Lines::follow);
        let err = child.stderr.take().map(Lines::follow);
        Process {
            name,
            child,
            out,
            collects_stderr: err.is_some(),
            err: err.unwrap_or_else(Lines::none),
        }
    }

    /// Waits until `find` finds something on standard output; `what` describes it if it does not.
    pub fn wait_out<T>(&self, what: &str, find: impl FnMut(&[String]) -> Option<T>) -> T {
        let found = self.out.wait(find);
        found.unwrap_or_else(|| panic!("{}: no {what} on standard output", self.name))
    }

    /// Waits until `find` finds something on standard output; returns `None` if the program exits first
    /// or after [`LIMIT`].
    pub fn try_wait_out<T>(&self, find: impl FnMut(&[String]) -> Option<T>) -> Option<T> {
        self.out.wait(find)
    }

    /// Returns the process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line on standard error that contains `text`, and returns it.
    pub fn wait_err(&self, text: &str) -> String {
        let found = self
            .err
            .wait(|lines| lines.iter().find(|line| line.contains(text)).cloned());
        found.unwrap_or_else(|| panic!("{}: no {text:?} on standard error", self.name))
    }

    /// Waits until at least `times` lines on standard error contain `text`.
    pub fn wait_err_times(&self, text: &str, times: usize) {
        let found = self.err.wait(|lines| {
            let count = lines.iter().filter(|line| line.contains(text)).count();
            (count >= times).then_some(())
        });
        found.unwrap_or_else(|| panic!("{}: fewer than {times} lines with {text:?}", self.name));
    }

    /// Returns whether it is still running.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("wait for the child").is_none()
    }

    /// Sends a signal by name, such as TERM or HUP.
    pub fn signal(&self, name: &str) {
        // The standard library can only kill.
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.child.id())])
            .status()
            .expect("run a shell");
        assert!(sent.success(), "cannot send {name} to {}", self.name);
    }

    /// Waits until it exits, and returns its complete output.
    pub fn wait(mut self) -> Ended {
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait for the child") {
                break status;
            }
            assert!(Instant::now() < deadline, "{} does not exit", self.name);
            thread::sleep(POLL);
        };
        Ended {
            status,
            out: self.out.complete(),
            err: self.err.complete(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- {}, standard output:", self.name);
            self.out
                .complete()
                .iter()
                .for_each(|line| eprintln!("{line}"));
            eprintln!("--- {}, standard error:", self.name);
            self.err
                .complete()
                .iter()
                .for_each(|line| eprintln!("{line}"));
            eprintln!("---");
            return;
        }
        // A panic in a task does not end the program, so look for one in the log.
        let err = match self.collects_stderr {
            true => self.err.complete(),
            false => Vec::new(),
        };
        let panicked = err.iter().find(|line| line.contains(" panicked at "));
        assert_eq!(panicked, None, "{}", self.name);
    }
}
