//! C tor as the judge, offline like the program itself.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::client::ListenAddr;
use super::lacking::not_tested;
use super::process::{Process, command};
use super::program::private_folder;

/// Says where a listener that tor has opened is.
const OPENED: &str = " listener connection (ready) on ";

/// A running C tor; killed when dropped.
pub struct CTor {
    process: Process,
    _folder: TempDir,
}

/// Where C tor is installed, if it is. A comparison that cannot take place for want of it is told of.
#[track_caller]
pub fn find() -> Option<PathBuf> {
    let found = installed();
    if found.is_none() {
        not_tested("no C tor to compare with: apt-get install tor");
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

/// Its version, as it calls it.
pub fn version(tor: &PathBuf) -> String {
    let output = Command::new(tor)
        .arg("--version")
        .output()
        .expect("tor --version");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .next()
        .unwrap_or_default()
        .trim_end_matches('.')
        .to_owned()
}

impl CTor {
    /// Starts it with these lines in its configuration, one of them for each SOCKS port. `FOLDER`
    /// stands for a folder of its own.
    pub fn start(tor: &PathBuf, lines: &[String]) -> Self {
        CTor::start_as(None, tor, lines)
    }

    /// The same as another user, for which we have to be root.
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
        fs::write(&torrc, text).expect("written");
        let mut command = match user {
            None => command(tor),
            Some(uid) => {
                chown(folder.path(), Some(uid), Some(uid)).expect("root");
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

    /// Whether it opens all its ports; if not, it ends.
    pub fn opens(&self) -> bool {
        let opened =
            |lines: &[String]| lines.iter().any(|line| line.contains(OPENED)).then_some(());
        self.process.try_out(opened).is_some()
    }

    /// Waits until a port is open at an address that starts so: each has an address of its own, and
    /// tor chooses the number.
    pub fn place(&self, start: &str) -> ListenAddr {
        let what = format!("listener on {start}");
        self.process.wait_out(&what, |lines| {
            let opened = lines.iter().filter_map(|line| line.split_once(OPENED));
            let (_, place) = opened
                .into_iter()
                .find(|(_, place)| place.starts_with(start))?;
            Some(match place.starts_with('/') {
                true => ListenAddr::Unix(place.into()),
                false => ListenAddr::Tcp(place.parse().expect("an address and a port")),
            })
        })
    }
}
