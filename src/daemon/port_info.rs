//! A file that names the open ports, for programs that cannot know them beforehand.
//!
//! The form is arti's `port_info.json`: `{"ports":[{"protocol":"socks","address":"inet:127.0.0.1:9150"}]}`.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use serde_json::json;

use crate::config::port_line::PortKind;
use crate::daemon::atomic_file::Draft;
use crate::inbound::listener::ListenAddr;

/// Everybody may read it, as far as the umask allows.
const MODE: u32 = 0o666;

/// The file; removed again when dropped, if it still says what was written.
#[derive(Debug)]
pub struct PortInfo {
    path: PathBuf,
    text: String,
}

impl PortInfo {
    /// Writes the file, and its folder if that is not there. Whoever reads the file sees all of it.
    pub fn write<'a>(
        path: &Path,
        ports: impl Iterator<Item = (PortKind, &'a ListenAddr)>,
    ) -> io::Result<PortInfo> {
        let ports: Vec<_> = ports
            .map(|(kind, place)| json!({"protocol": protocol(kind), "address": address(place)}))
            .collect();
        let text = format!("{}\n", json!({ "ports": ports }));
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        fs::create_dir_all(folder)?;
        // Not synced: it is of no use after a crash.
        let mut draft = Draft::create_in(folder, MODE)?;
        draft.write_all(text.as_bytes())?;
        draft.persist(path)?;
        Ok(PortInfo {
            path: path.to_owned(),
            text,
        })
    }
}

impl PortInfo {
    /// Whether the file still says what was written. Another one in its place may be anything: a link
    /// is not followed, and a FIFO blocks nobody.
    fn is_unchanged(&self) -> io::Result<bool> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits())
            .open(&self.path)?;
        if !file.metadata()?.is_file() {
            return Ok(false);
        }
        let mut found = Vec::new();
        let limit = self.text.len() as u64 + 1;
        file.take(limit).read_to_end(&mut found)?;
        Ok(found == self.text.as_bytes())
    }

    /// Leaves the file to a newer one that has been written in its place.
    pub fn give_way(mut self, newer: Option<&PortInfo>) {
        if newer.is_some_and(|newer| newer.path == self.path) {
            self.text.clear();
        }
    }
}

impl Drop for PortInfo {
    fn drop(&mut self) {
        let ours = || !self.text.is_empty() && self.is_unchanged().unwrap_or(false);
        if ours() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// arti's words; it has none for transparent ports.
fn protocol(kind: PortKind) -> &'static str {
    match kind {
        PortKind::Dns => "dns_udp",
        other => other.word(),
    }
}

fn address(place: &ListenAddr) -> String {
    match place {
        ListenAddr::Tcp(address) => format!("inet:{address}"),
        ListenAddr::Unix(path) => format!("unix:{}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_every_port_and_goes_with_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("public/port_info.json");
        let socks = ListenAddr::Tcp("127.0.0.1:9150".parse().unwrap());
        let unix = ListenAddr::Unix("/run/onionport/http".into());
        let dns = ListenAddr::Tcp("[::1]:53".parse().unwrap());
        let ports = [
            (PortKind::Socks, &socks),
            (PortKind::Http, &unix),
            (PortKind::Dns, &dns),
        ];
        let info = PortInfo::write(&path, ports.into_iter()).unwrap();
        let read: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let expected = json!({"ports": [
            {"protocol": "socks", "address": "inet:127.0.0.1:9150"},
            {"protocol": "http", "address": "unix:/run/onionport/http"},
            {"protocol": "dns_udp", "address": "inet:[::1]:53"},
        ]});
        assert_eq!(read, expected);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        drop(info);
        assert!(!path.exists());
    }

    #[test]
    fn a_newer_file_stays_when_the_older_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ports");
        let place = ListenAddr::Tcp("127.0.0.1:1".parse().unwrap());
        let write = || PortInfo::write(&path, std::iter::once((PortKind::Socks, &place))).unwrap();
        let older = write();
        let newer = write();
        older.give_way(Some(&newer));
        assert!(path.exists());
        newer.give_way(None);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_another_program_wrote_meanwhile_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ports");
        let place = ListenAddr::Tcp("127.0.0.1:1".parse().unwrap());
        let info = PortInfo::write(&path, std::iter::once((PortKind::Socks, &place))).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(info);
        assert_eq!(fs::read_to_string(&path).unwrap(), "another's");
    }

    /// In a folder such as /tmp, others can put links and FIFOs anywhere.
    #[test]
    fn nothing_that_others_have_put_in_the_way_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ports");
        let precious = folder.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        let link = |name: String| {
            let link = folder.path().join(name);
            std::os::unix::fs::symlink(&precious, link).unwrap();
        };
        link("ports".to_owned());
        // The draft's name must not be one that can be guessed.
        for number in [std::process::id(), 0, 1] {
            link(format!("ports.{number}"));
            link(format!(".ports.{number}"));
        }
        let place = ListenAddr::Tcp("127.0.0.1:1".parse().unwrap());
        let before = fs::read_dir(folder.path()).unwrap().count();
        let info = PortInfo::write(&path, std::iter::once((PortKind::Socks, &place))).unwrap();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), before);
        drop(info);
        assert!(!path.exists());
    }

    #[test]
    fn something_else_in_its_place_stays_and_blocks_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ports");
        let place = ListenAddr::Tcp("127.0.0.1:1".parse().unwrap());
        let write = || PortInfo::write(&path, std::iter::once((PortKind::Socks, &place))).unwrap();
        let info = write();
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        drop(info);
        assert!(fs::symlink_metadata(&path).is_ok());
        // A link to a file that says the same.
        fs::remove_file(&path).unwrap();
        let info = write();
        let aside = folder.path().join("aside");
        fs::rename(&path, &aside).unwrap();
        std::os::unix::fs::symlink(&aside, &path).unwrap();
        drop(info);
        assert!(fs::symlink_metadata(&path).is_ok() && aside.exists());
    }
}
