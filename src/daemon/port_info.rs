//! A file that lists the open ports, for programs that cannot know them beforehand.
//!
//! The format is that of arti's `port_info.json`:
//! `{"ports":[{"protocol":"socks","address":"inet:127.0.0.1:9150"}]}`.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use serde_json::json;

use crate::config::port_line::PortKind;
use crate::inbound::listener::ListenAddr;

/// The file's mode, less the umask.
const MODE: u32 = 0o666;

/// The written file. Dropping this removes the file, if its content is still the same.
#[derive(Debug)]
pub(super) struct PortInfo {
    path: PathBuf,
    /// The content; empty once another [`PortInfo`] owns the file.
    text: String,
}

impl PortInfo {
    /// Writes the file, and creates its folder if there is none. Readers see a complete file, the old or
    /// the new one.
    pub(super) fn write<'a>(
        path: &Path,
        ports: impl Iterator<Item = (PortKind, &'a ListenAddr)>,
    ) -> io::Result<PortInfo> {
        let ports: Vec<_> = ports
            .map(|(kind, address)| {
                json!({"protocol": protocol_name(kind), "address": format_address(address)})
            })
            .collect();
        let text = format!("{}\n", json!({ "ports": ports }));
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        fs::create_dir_all(folder)?;
        // The draft's random name and `O_EXCL` keep other writers of the folder from putting a link in
        // its way; renaming replaces a link at `path` without following it.
        let mut draft = tempfile::Builder::new()
            .prefix(".")
            .suffix(".new")
            .permissions(Permissions::from_mode(MODE))
            .tempfile_in(folder)?;
        draft.write_all(text.as_bytes())?;
        // Not synced: the file is of no use after a crash.
        draft.persist(path)?;
        Ok(PortInfo {
            path: path.to_owned(),
            text,
        })
    }

    /// Whether the file still has the content that was written. Another process may have replaced it
    /// by anything: links are not followed, and a FIFO does not block.
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

    /// Drops this, and leaves the file to `newer` if that was written to the same path.
    pub(super) fn yield_to(mut self, newer: Option<&PortInfo>) {
        if newer.is_some_and(|newer| newer.path == self.path) {
            self.text.clear();
        }
    }
}

impl Drop for PortInfo {
    fn drop(&mut self) {
        let is_ours = || !self.text.is_empty() && self.is_unchanged().unwrap_or(false);
        if is_ours() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// arti's name of a protocol; for transparent ports, which arti has no name for, that of the port line.
fn protocol_name(kind: PortKind) -> &'static str {
    match kind {
        PortKind::Dns => "dns_udp",
        other => other.name(),
    }
}

fn format_address(address: &ListenAddr) -> String {
    match address {
        ListenAddr::Ip(address) => format!("inet:{address}"),
        ListenAddr::Unix(path) => format!("unix:{}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_lists_every_port_and_is_removed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("public/port_info.json");
        let socks = ListenAddr::Ip("127.0.0.1:9150".parse().unwrap());
        let unix = ListenAddr::Unix("/run/onionport/http".into());
        let dns = ListenAddr::Ip("[::1]:53".parse().unwrap());
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
    fn a_newer_file_at_the_same_path_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ports");
        let address = ListenAddr::Ip("127.0.0.1:1".parse().unwrap());
        let write =
            || PortInfo::write(&path, std::iter::once((PortKind::Socks, &address))).unwrap();
        let older = write();
        let newer = write();
        older.yield_to(Some(&newer));
        assert!(path.exists());
        newer.yield_to(None);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_changed_by_another_program_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ports");
        let address = ListenAddr::Ip("127.0.0.1:1".parse().unwrap());
        let info = PortInfo::write(&path, std::iter::once((PortKind::Socks, &address))).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(info);
        assert_eq!(fs::read_to_string(&path).unwrap(), "another's");
    }

    /// In a shared folder such as /tmp, other users can put links and FIFOs anywhere.
    #[test]
    fn links_of_other_users_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ports");
        let precious = folder.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        let link = |name: String| {
            let link = folder.path().join(name);
            std::os::unix::fs::symlink(&precious, link).unwrap();
        };
        link("ports".to_owned());
        // The draft must not have a name that can be guessed.
        for number in [std::process::id(), 0, 1] {
            link(format!("ports.{number}"));
            link(format!(".ports.{number}"));
        }
        let address = ListenAddr::Ip("127.0.0.1:1".parse().unwrap());
        let before = fs::read_dir(folder.path()).unwrap().count();
        let info = PortInfo::write(&path, std::iter::once((PortKind::Socks, &address))).unwrap();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), before);
        drop(info);
        assert!(!path.exists());
    }

    #[test]
    fn a_fifo_or_link_in_its_place_is_not_removed_and_does_not_block() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ports");
        let address = ListenAddr::Ip("127.0.0.1:1".parse().unwrap());
        let write =
            || PortInfo::write(&path, std::iter::once((PortKind::Socks, &address))).unwrap();
        let info = write();
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        drop(info);
        assert!(fs::symlink_metadata(&path).is_ok());
        // A link to a file with the same content.
        fs::remove_file(&path).unwrap();
        let info = write();
        let aside = folder.path().join("aside");
        fs::rename(&path, &aside).unwrap();
        std::os::unix::fs::symlink(&aside, &path).unwrap();
        drop(info);
        assert!(fs::symlink_metadata(&path).is_ok() && aside.exists());
    }
}
