//! C tor to compare with, offline like the program under test.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::client::ListenAddr;
use super::process::{Process, command};
use super::program::private_folder;
use super::skipped::report_skipped;

/// The text before the address of an opened listener in tor's log.
const OPENED: &str = " listener connection (ready) on ";

/// A running C tor; killed when dropped.
pub struct CTor {
    process: Process,
    _folder: TempDir,
}

/// Returns the path of the installed C tor; if there is none, reports that the comparison is skipped.
#[track_caller]
pub fn find() -> Option<PathBuf> {
    let found = installed();
    if found.is_none() {
        report_skipped("C tor is not installed: apt-get install tor");
    }
    found
}

fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/bin", "/usr/sbin"].map(PathBuf::from))
        .map(|folder| folder.join("tor"))
        .find(|file| file.is_file())
}

/// Returns the line that `tor --version` prints, without the full stop.
pub fn version(tor: &PathBuf) -> String {
    let output = Command::new(tor)
        .arg("--version")
        .output()
        .expect("run tor --version");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .next()
        .unwrap_or_default()
        .trim_end_matches('.')
        .to_owned()
}

impl CTor {
    /// Starts C tor with `lines` added to its torrc. `FOLDER` in them is replaced by its own temporary
    /// folder.
    pub fn start(tor: &PathBuf, lines: &[String]) -> Self {
        CTor::start_as(None, tor, lines)
    }

    /// Starts C tor as another user, which only root can do.
    pub fn start_as(user: Option<u32>, tor: &PathBuf, lines: &[String]) -> Self {
        let folder = private_folder();
        let path = folder.path().display().to_string();
        let mut text = format!(
            "DataDirectory {path}/data\n\
             DirAuthority dead orport=1 no-v2 v3ident=0123456789ABCDEF0123456789ABCDEF01234567 \
             127.0.0.1:1 89ABCDEF0123456789ABCDEF0123456789ABCDEF\n\
             Log notice stdout\n\
             ShutdownWaitLength 0\n",
        );
        for line in lines {
            text += &format!("{}\n", line.replace("FOLDER", &path));
        }
        let torrc = folder.path().join("torrc");
        fs::write(&torrc, text).expect("write torrc");
        let mut command = match user {
            None => command(tor),
            Some(uid) => {
                chown(folder.path(), Some(uid), Some(uid)).expect("chown as root");
                let uid = uid.to_string();
                let mut command = command("/usr/bin/setpriv");
                command
                    .args(["--reuid", &uid, "--regid", &uid, "--clear-groups"])
                    .args(["--pdeathsig", "KILL", "--"])
                    .arg(tor);
                command
            }
        };
        command
            .args(["--defaults-torrc", "/dev/null", "-f"])
            .arg(torrc)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        CTor {
            process: Process::start("C tor", &mut command),
            _folder: folder,
        }
    }

    /// Waits until C tor opens a port, or exits because it cannot; returns whether it did.
    pub fn opens_ports(&self) -> bool {
        let opened =
            |lines: &[String]| lines.iter().any(|line| line.contains(OPENED)).then_some(());
        self.process.try_wait_out(opened).is_some()
    }

    /// Waits until a listener is open whose address starts with `start`, and returns the address. Tor
    /// chooses the port numbers, so callers give each listener a different host or path.
    pub fn listen_addr(&self, start: &str) -> ListenAddr {
        let what = format!("listener on {start}");
        self.process.wait_out(&what, |lines| {
            let opened = lines.iter().filter_map(|line| line.split_once(OPENED));
            let (_, address) = opened
                .into_iter()
                .find(|(_, address)| address.starts_with(start))?;
            Some(match address.starts_with('/') {
                true => ListenAddr::Unix(address.into()),
                false => ListenAddr::Ip(address.parse().expect("IP address and port")),
            })
        })
    }
}
