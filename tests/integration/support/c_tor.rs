//! C tor as the judge, offline like the program itself.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::client::Place;
use super::process::Process;
use super::program::private_folder;

/// Says where a listener that tor has opened is.
const OPENED: &str = " listener connection (ready) on ";

/// A running C tor; killed when dropped.
pub struct CTor {
    process: Process,
    _folder: TempDir,
}

/// Where C tor is installed, if it is.
pub fn find() -> Option<PathBuf> {
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
        let folder = private_folder();
        let path = folder.path().display().to_string();
        let mut text = format!(
            "DataDirectory {path}/data\n\
             DirAuthority dead orport=1 no-v2 v3ident=0123456789ABCDEF0123456789ABCDEF01234567 \
             127.0.0.1:1 89ABCDEF0123456789ABCDEF0123456789ABCDEF\n\
             Log notice stdout\n\
             ShutdownWaitLength 0\n\
             __OwningControllerProcess {}\n",
            std::process::id()
        );
        for line in lines {
            text += &format!("{}\n", line.replace("FOLDER", &path));
        }
        let torrc = folder.path().join("torrc");
        fs::write(&torrc, text).expect("written");
        let mut command = Command::new(tor);
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

    /// Waits until a port is open at an address that starts so: each has an address of its own, and
    /// tor chooses the number.
    pub fn place(&self, start: &str) -> Place {
        let what = format!("listener on {start}");
        self.process.wait_out(&what, |lines| {
            let opened = lines.iter().filter_map(|line| line.split_once(OPENED));
            let (_, place) = opened
                .into_iter()
                .find(|(_, place)| place.starts_with(start))?;
            Some(match place.starts_with('/') {
                true => Place::Unix(place.into()),
                false => Place::Tcp(place.parse().expect("an address and a port")),
            })
        })
    }
}
