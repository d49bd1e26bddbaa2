//! The real program, started where it can reach nothing.

use std::ffi::OsString;
use std::fs;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::client::ListenAddr;
use super::process::{Ended, Process, command};

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_onionport");

/// A network whose only directory is a port on loopback at which nobody listens.
const NO_NETWORK: &str = r#"
[tor_network]
authorities.v3idents = ["0123456789ABCDEF0123456789ABCDEF01234567"]
fallback_caches = [{
    rsa_identity = "89ABCDEF0123456789ABCDEF0123456789ABCDEF",
    ed_identity = "qpL/LxLYVEXghU76iG3LsSI/UW7MBpIROZK0AB18560",
    orports = ["127.0.0.1:1"],
}]
"#;

/// A program that is yet to be started: a folder of its own, a configuration file, a command line.
pub struct Program {
    folder: TempDir,
    ports: Vec<String>,
    proxy: Vec<String>,
    arguments: Vec<String>,
    trusting: bool,
    output: Option<File>,
    log: Option<File>,
    open_files: Option<u32>,
    handed: Option<(OwnedFd, String)>,
    user: Option<u32>,
    environment: Vec<(String, OsString)>,
    under: Vec<String>,
}

/// The program, with all its ports open; killed when dropped.
pub struct Daemon {
    pub process: Process,
    /// Its ports, in the order in which it named them.
    pub places: Vec<ListenAddr>,
    /// Its folder, which goes with it.
    pub folder: TempDir,
}

/// A folder that nobody else can enter.
pub fn private_folder() -> TempDir {
    let folder = tempfile::tempdir().expect("temporary folder");
    set_mode(folder.path(), 0o700);
    folder
}

/// Sets the permissions of a file or folder.
pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode set");
}

impl Program {
    /// Without ports, and without a network.
    pub fn offline() -> Self {
        Program {
            folder: private_folder(),
            ports: Vec::new(),
            proxy: Vec::new(),
            arguments: Vec::new(),
            trusting: true,
            output: None,
            log: None,
            open_files: None,
            handed: None,
            user: None,
            environment: Vec::new(),
            under: Vec::new(),
        }
    }

    /// Has another program start it, such as `setpriv`.
    pub fn under(mut self, words: &[&str]) -> Self {
        self.under = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// One more line of `proxy.socks_port`.
    pub fn port(mut self, line: impl Into<String>) -> Self {
        self.ports.push(line.into());
        self
    }

    /// One more line in the table `[proxy]`.
    pub fn proxy(mut self, line: impl Into<String>) -> Self {
        self.proxy.push(line.into());
        self
    }

    /// More words on the command line.
    pub fn arguments(mut self, words: &[&str]) -> Self {
        self.arguments
            .extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// Looks at the permissions of files and folders, as it does for users.
    pub fn strict(mut self) -> Self {
        self.trusting = false;
        self
    }

    /// Writes its standard output there.
    pub fn output(mut self, file: File) -> Self {
        self.output = Some(file);
        self
    }

    /// Writes its log there.
    pub fn log(mut self, file: File) -> Self {
        self.log = Some(file);
        self
    }

    /// Lets the system give it no more than so many open files.
    pub fn open_files(mut self, limit: u32) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// Hands it a socket, as systemd does, by this name.
    pub fn handed(mut self, socket: impl Into<OwnedFd>, name: &str) -> Self {
        self.handed = Some((socket.into(), name.to_owned()));
        self
    }

    /// Runs it as another user, whose folder its own then is. We have to be root.
    pub fn user(mut self, uid: u32) -> Self {
        chown(self.folder(), Some(uid), Some(uid)).expect("root");
        self.user = Some(uid);
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its configuration file, which is written only when it starts.
    pub fn file(&self) -> PathBuf {
        self.folder().join("onionport.toml")
    }

    /// What stands in its configuration file.
    fn configuration(&self) -> String {
        let folder = self.folder();
        let (state, cache) = (folder.join("state"), folder.join("cache"));
        let mut text = format!("[storage]\nstate_dir = {state:?}\ncache_dir = {cache:?}\n");
        if self.trusting {
            text += "[storage.permissions]\ndangerously_trust_everyone = true\n";
        }
        text += NO_NETWORK;
        text += "[proxy]\n";
        if !self.ports.is_empty() {
            text += &format!("socks_port = {:?}\n", self.ports);
        }
        for line in &self.proxy {
            text += &format!("{line}\n");
        }
        text
    }

    fn spawn(&self) -> Process {
        fs::write(self.file(), self.configuration()).expect("written");
        let mut command = match (self.open_files, &self.handed) {
            (None, None) => match (self.user, &self.under[..]) {
                (Some(uid), _) => as_user(uid),
                (None, []) => bare(PROGRAM),
                (None, [program, words @ ..]) => {
                    let mut command = bare(program);
                    command.args(words).arg(PROGRAM);
                    command
                }
            },
            (Some(limit), _) => shell(&format!("ulimit -n {limit}")),
            // The first socket that is handed over has number 3.
            (None, Some((socket, name))) => {
                let mut shell = shell("exec 3<&0 </dev/null && export LISTEN_PID=$$ LISTEN_FDS=1");
                shell
                    .stdin(socket.try_clone().expect("another handle"))
                    .env("LISTEN_FDNAMES", name);
                shell
            }
        };
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
            .env("HOME", self.folder())
            .arg("-c")
            .arg(self.file())
            .args(&self.arguments);
        if let Some(file) = &self.output {
            command.stdout(file.try_clone().expect("another handle"));
        }
        if let Some(file) = &self.log {
            command.stderr(file.try_clone().expect("another handle"));
        }
        Process::start("onionport", &mut command)
    }

    /// Starts it, and waits until all ports of its configuration file are open.
    pub fn start(self) -> Daemon {
        let ports = self.ports.len();
        self.start_with(ports)
    }

    /// Starts it, and waits until it has named so many ports.
    pub fn start_with(self, ports: usize) -> Daemon {
        let process = self.spawn();
        let places = process.wait_out("line for each port", |lines| {
            let places: Vec<ListenAddr> = lines.iter().filter_map(|line| listening(line)).collect();
            (places.len() >= ports).then_some(places)
        });
        Daemon {
            process,
            places,
            folder: self.folder,
        }
    }

    /// Starts it and says nothing about what it does.
    pub fn launch(self) -> Daemon {
        Daemon {
            process: self.spawn(),
            places: Vec::new(),
            folder: self.folder,
        }
    }

    /// Runs it to its end.
    pub fn run(&self) -> Ended {
        self.spawn().wait()
    }
}

/// The place in a line `listening KIND PLACE`.
fn listening(line: &str) -> Option<ListenAddr> {
    let (_, place) = line.strip_prefix("listening ")?.split_once(' ')?;
    Some(match place.strip_prefix("unix:") {
        Some(path) => ListenAddr::Unix(path.into()),
        None => ListenAddr::Tcp(place.parse().expect("an address and a port")),
    })
}

/// A program without arguments or surroundings.
fn bare(program: &str) -> Command {
    let mut command = command(program);
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The program under test, in a process that a shell has prepared.
fn shell(preparation: &str) -> Command {
    let mut shell = bare("/bin/sh");
    shell.args([
        "-c",
        &format!("{preparation} && exec \"$0\" \"$@\""),
        PROGRAM,
    ]);
    shell
}

/// The program under test, as another user. That one may not be able to enter its folder, so it is
/// opened before.
fn as_user(uid: u32) -> Command {
    let mut shell = bare("/bin/sh");
    let script = format!(
        "exec 9<\"$0\" && exec /usr/bin/setpriv --reuid {uid} --regid {uid} --clear-groups \
         --pdeathsig KILL -- /proc/self/fd/9 \"$@\""
    );
    shell.args(["-c", &script, PROGRAM]);
    shell
}

/// Has another program start it with these arguments alone, and an empty environment.
pub fn launch_under(words: &[&str], arguments: &[&str]) -> Process {
    let (program, words) = words.split_first().expect("a program");
    let mut command = bare(program);
    command.args(words).arg(PROGRAM).args(arguments);
    Process::start("onionport", &mut command)
}

/// Runs the program to its end with these arguments alone, as in an empty home.
pub fn run(arguments: &[&str]) -> Ended {
    let home = private_folder();
    let mut command = bare(PROGRAM);
    command.env("HOME", home.path()).args(arguments);
    Process::start("onionport", &mut command).wait()
}
