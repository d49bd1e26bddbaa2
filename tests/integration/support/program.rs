//! The program under test, started without a network.

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

/// A Tor network whose only directory is a closed port on loopback: a line for the start of a
/// configuration file, and a value for `-o`.
pub const NO_NETWORK: &str = "tor_network={\
    authorities={v3idents=['0123456789ABCDEF0123456789ABCDEF01234567']},\
    fallback_caches=[{rsa_identity='89ABCDEF0123456789ABCDEF0123456789ABCDEF',\
    ed_identity='qpL/LxLYVEXghU76iG3LsSI/UW7MBpIROZK0AB18560',\
    orports=['127.0.0.1:1']}]}";

/// The program before it starts: its own folder, a configuration file, a command line.
pub struct Program {
    folder: TempDir,
    ports: Vec<String>,
    config_lines: Vec<String>,
    arguments: Vec<String>,
    trusts_everyone: bool,
    output: Option<File>,
    log: Option<File>,
    open_files: Option<u32>,
    inherited: Option<(OwnedFd, String)>,
    user: Option<u32>,
    environment: Vec<(String, OsString)>,
    wrapper: Vec<String>,
}

/// The running program; killed when dropped.
pub struct Daemon {
    pub process: Process,
    /// The addresses of its ports, in the order of its `listening` lines.
    pub addresses: Vec<ListenAddr>,
    /// Its folder, deleted when dropped.
    pub folder: TempDir,
}

/// Creates a temporary folder that only this user can enter.
pub fn private_folder() -> TempDir {
    let folder = tempfile::tempdir().expect("create a temporary folder");
    set_mode(folder.path(), 0o700);
    folder
}

/// Sets the permissions of a file or folder.
pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set permissions");
}

impl Program {
    /// Configures the program without ports and without a network.
    pub fn offline() -> Self {
        Program {
            folder: private_folder(),
            ports: Vec::new(),
            config_lines: Vec::new(),
            arguments: Vec::new(),
            trusts_everyone: true,
            output: None,
            log: None,
            open_files: None,
            inherited: None,
            user: None,
            environment: Vec::new(),
            wrapper: Vec::new(),
        }
    }

    /// Starts it through another program, such as `setpriv`.
    pub fn run_under(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Adds a port line to `proxy.socks_port`.
    pub fn port(mut self, line: impl Into<String>) -> Self {
        self.ports.push(line.into());
        self
    }

    /// Appends to the configuration file, inside `[proxy]`.
    pub fn config_lines(mut self, lines: impl Into<String>) -> Self {
        self.config_lines.push(lines.into());
        self
    }

    /// Adds command-line arguments.
    pub fn arguments(mut self, words: &[&str]) -> Self {
        self.arguments
            .extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// Makes it check the permissions of files and folders, as it does by default.
    pub fn check_permissions(mut self) -> Self {
        self.trusts_everyone = false;
        self
    }

    /// Redirects its standard output to `file`.
    pub fn output(mut self, file: File) -> Self {
        self.output = Some(file);
        self
    }

    /// Redirects its log to `file`.
    pub fn log(mut self, file: File) -> Self {
        self.log = Some(file);
        self
    }

    /// Limits how many files it may have open.
    pub fn open_files(mut self, limit: u32) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// Passes it a named socket, as systemd does.
    pub fn inherit_socket(mut self, socket: impl Into<OwnedFd>, name: &str) -> Self {
        self.inherited = Some((socket.into(), name.to_owned()));
        self
    }

    /// Runs it as another user, who then owns its folder. Only root can do this.
    pub fn user(mut self, uid: u32) -> Self {
        chown(self.folder(), Some(uid), Some(uid)).expect("chown as root");
        self.user = Some(uid);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Returns the path of its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the path of its configuration file, which is written when it starts.
    pub fn file(&self) -> PathBuf {
        self.folder().join("onionport.toml")
    }

    /// Returns the text of its configuration file.
    fn configuration(&self) -> String {
        let folder = self.folder();
        let (state, cache) = (folder.join("state"), folder.join("cache"));
        let mut text =
            format!("{NO_NETWORK}\n[storage]\nstate_dir = {state:?}\ncache_dir = {cache:?}\n");
        if self.trusts_everyone {
            text += "[storage.permissions]\ndangerously_trust_everyone = true\n";
        }
        text += "[proxy]\n";
        if !self.ports.is_empty() {
            text += &format!("socks_port = {:?}\n", self.ports);
        }
        for lines in &self.config_lines {
            text += &format!("{lines}\n");
        }
        text
    }

    fn spawn(&self) -> Process {
        fs::write(self.file(), self.configuration()).expect("write the configuration");
        let mut command = match (self.open_files, &self.inherited) {
            (None, None) => match (self.user, &self.wrapper[..]) {
                (Some(uid), _) => as_user(uid),
                (None, []) => bare(PROGRAM),
                (None, [program, words @ ..]) => {
                    let mut command = bare(program);
                    command.args(words).arg(PROGRAM);
                    command
                }
            },
            (Some(limit), _) => shell(&format!("ulimit -n {limit}")),
            // The first inherited socket has to be file descriptor 3.
            (None, Some((socket, name))) => {
                let mut shell = shell("exec 3<&0 </dev/null && export LISTEN_PID=$$ LISTEN_FDS=1");
                shell
                    .stdin(socket.try_clone().expect("duplicate the socket"))
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
            command.stdout(file.try_clone().expect("duplicate the file"));
        }
        if let Some(file) = &self.log {
            command.stderr(file.try_clone().expect("duplicate the file"));
        }
        Process::start("onionport", &mut command)
    }

    /// Starts it and waits until it listens on all ports added with [`Program::port`].
    pub fn start(self) -> Daemon {
        let ports = self.ports.len();
        self.start_with_ports(ports)
    }

    /// Starts it and waits until it listens on this many ports.
    pub fn start_with_ports(self, ports: usize) -> Daemon {
        let process = self.spawn();
        let addresses = process.wait_out("line for each port", |lines| {
            let addresses = lines.iter().filter_map(|line| parse_listening_line(line));
            let addresses: Vec<ListenAddr> = addresses.collect();
            (addresses.len() >= ports).then_some(addresses)
        });
        Daemon {
            process,
            addresses,
            folder: self.folder,
        }
    }

    /// Starts it without waiting for anything.
    pub fn launch(self) -> Daemon {
        Daemon {
            process: self.spawn(),
            addresses: Vec::new(),
            folder: self.folder,
        }
    }

    /// Runs it until it exits.
    pub fn run(&self) -> Ended {
        self.spawn().wait()
    }
}

/// Parses the address in a line `listening KIND ADDRESS`.
fn parse_listening_line(line: &str) -> Option<ListenAddr> {
    let (_, address) = line.strip_prefix("listening ")?.split_once(' ')?;
    Some(match address.strip_prefix("unix:") {
        Some(path) => ListenAddr::Unix(path.into()),
        None => ListenAddr::Ip(address.parse().expect("IP address and port")),
    })
}

/// Returns a command without arguments, and with an empty environment.
fn bare(program: &str) -> Command {
    let mut command = command(program);
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Returns a command that starts the program after the shell commands `preparation`, in the same process.
fn shell(preparation: &str) -> Command {
    let mut shell = bare("/bin/sh");
    shell.args([
        "-c",
        &format!("{preparation} && exec \"$0\" \"$@\""),
        PROGRAM,
    ]);
    shell
}

/// Returns a command that starts the program as another user. The executable is opened first, because
/// that user may be unable to enter its folder.
fn as_user(uid: u32) -> Command {
    let mut shell = bare("/bin/sh");
    let script = format!(
        "exec 9<\"$0\" && exec /usr/bin/setpriv --reuid {uid} --regid {uid} --clear-groups \
         --pdeathsig KILL -- /proc/self/fd/9 \"$@\""
    );
    shell.args(["-c", &script, PROGRAM]);
    shell
}

/// Starts the program through another one, with only these arguments and an empty environment.
pub fn launch_under(words: &[&str], arguments: &[&str]) -> Process {
    let (program, words) = words.split_first().expect("a program to start it with");
    let mut command = bare(program);
    command.args(words).arg(PROGRAM).args(arguments);
    Process::start("onionport", &mut command)
}

/// Runs the program until it exits, with only these arguments and an empty home folder.
pub fn run(arguments: &[&str]) -> Ended {
    let home = private_folder();
    let mut command = bare(PROGRAM);
    command.env("HOME", home.path()).args(arguments);
    Process::start("onionport", &mut command).wait()
}
