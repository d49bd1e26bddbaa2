//! Child processes that end with their test, and tell what they said when it fails.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::LIMIT;

/// How often to ask whether a process has ended.
const POLL: Duration = Duration::from_millis(5);

/// The lines a process has written so far.
#[derive(Clone, Default)]
pub struct Lines(Arc<(Mutex<Said>, Condvar)>);

#[derive(Default)]
struct Said {
    lines: Vec<String>,
    over: bool,
}

impl Lines {
    /// Collects the lines of `source` until it ends.
    fn follow(source: impl Read + Send + 'static) -> Self {
        let lines = Lines::default();
        let writer = lines.clone();
        thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while source.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                writer.change(|said| said.lines.push(text));
                line.clear();
            }
            writer.change(|said| said.over = true);
        });
        lines
    }

    fn change(&self, change: impl FnOnce(&mut Said)) {
        let (said, changed) = &*self.0;
        change(&mut said.lock().unwrap_or_else(PoisonError::into_inner));
        changed.notify_all();
    }

    /// Waits for `find` to find something; `None` if it has not within [`LIMIT`], or there will be
    /// no more lines.
    fn wait<T>(&self, mut find: impl FnMut(&[String]) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + LIMIT;
        let (said, changed) = &*self.0;
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = find(&said.lines) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if said.over || left.is_zero() {
                return None;
            }
            (said, _) = changed
                .wait_timeout(said, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// All lines so far.
    pub fn all(&self) -> Vec<String> {
        self.wait(|lines| Some(lines.to_vec())).unwrap_or_default()
    }

    /// All lines, once there will be no more.
    fn complete(&self) -> Vec<String> {
        self.wait(|_| None::<()>);
        self.all()
    }
}

/// A command that runs `program`, and is killed with the thread that starts it: the test's own, which
/// may be killed without ending anything.
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
    /// Whether its standard error comes here.
    tells_errors: bool,
}

/// A program that has ended.
pub struct Ended {
    pub status: ExitStatus,
    pub out: Vec<String>,
    pub err: Vec<String>,
}

impl Process {
    /// Starts a program. Its output is collected, unless the command says where it goes. Its input
    /// is whatever the command says.
    pub fn start(name: &'static str, command: &mut Command) -> Self {
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let out = child.stdout.take().map(Lines::follow).unwrap_or_default();
        let err = child.stderr.take().map(Lines::follow);
        Process {
            name,
            child,
            out,
            tells_errors: err.is_some(),
            err: err.unwrap_or_default(),
        }
    }

    /// Waits for a line on standard output.
    pub fn wait_out<T>(&self, what: &str, find: impl FnMut(&[String]) -> Option<T>) -> T {
        let found = self.out.wait(find);
        found.unwrap_or_else(|| panic!("{}: no {what} on standard output", self.name))
    }

    /// What `find` finds on standard output; `None` if the program ends without it, or says nothing
    /// more.
    pub fn try_out<T>(&self, find: impl FnMut(&[String]) -> Option<T>) -> Option<T> {
        self.out.wait(find)
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line on standard error that holds `text`.
    pub fn wait_err(&self, text: &str) -> String {
        let found = self
            .err
            .wait(|lines| lines.iter().find(|line| line.contains(text)).cloned());
        found.unwrap_or_else(|| panic!("{}: no {text:?} on standard error", self.name))
    }

    /// Waits until so many lines on standard error hold `text`.
    pub fn wait_err_times(&self, text: &str, times: usize) {
        let found = self.err.wait(|lines| {
            let count = lines.iter().filter(|line| line.contains(text)).count();
            (count >= times).then_some(())
        });
        found.unwrap_or_else(|| panic!("{}: not {times} times {text:?}", self.name));
    }

    /// Whether it has not ended yet.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_none()
    }

    /// Sends a signal by its name: TERM, INT, HUP, KILL.
    pub fn signal(&self, name: &str) {
        // The standard library can only kill.
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.child.id())])
            .status()
            .expect("a shell");
        assert!(sent.success(), "cannot send {name} to {}", self.name);
    }

    /// Waits for the end and everything said until then.
    pub fn wait(mut self) -> Ended {
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                break status;
            }
            assert!(Instant::now() < deadline, "{} does not end", self.name);
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
        // Both fail only if it has ended already.
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
        // A panic in a task does not end the program: look for it in the log.
        let err = match self.tells_errors {
            true => self.err.complete(),
            false => Vec::new(),
        };
        let panicked = err.iter().find(|line| line.contains(" panicked at "));
        assert_eq!(panicked, None, "{}", self.name);
    }
}
