//! A file that names the open ports, for programs that cannot know them beforehand.
//!
//! The form is arti's `port_info.json`: `{"ports":[{"protocol":"socks","address":"inet:127.0.0.1:9150"}]}`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::listener::Place;
use crate::port::PortKind;

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
        ports: impl Iterator<Item = (PortKind, &'a Place)>,
    ) -> io::Result<PortInfo> {
        let ports: Vec<_> = ports
            .map(|(kind, place)| json!({"protocol": protocol(kind), "address": address(place)}))
            .collect();
        let text = format!("{}\n", json!({ "ports": ports }));
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(format!(".{}", std::process::id()));
        let unfinished = PathBuf::from(unfinished);
        fs::write(&unfinished, &text)?;
        fs::rename(&unfinished, path).inspect_err(|_| {
            let _ = fs::remove_file(&unfinished);
        })?;
        Ok(PortInfo {
            path: path.to_owned(),
            text,
        })
    }
}

impl PortInfo {
    /// Leaves the file to a newer one that has been written in its place.
    pub fn give_way(mut self, newer: Option<&PortInfo>) {
        if newer.is_some_and(|newer| newer.path == self.path) {
            self.text.clear();
        }
    }
}

impl Drop for PortInfo {
    fn drop(&mut self) {
        if fs::read_to_string(&self.path).is_ok_and(|text| !text.is_empty() && text == self.text) {
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

fn address(place: &Place) -> String {
    match place {
        Place::Tcp(address) => format!("inet:{address}"),
        Place::Unix(path) => format!("unix:{}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_every_port_and_goes_with_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("public/port_info.json");
        let socks = Place::Tcp("127.0.0.1:9150".parse().unwrap());
        let unix = Place::Unix("/run/onionport/http".into());
        let dns = Place::Tcp("[::1]:53".parse().unwrap());
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
        let place = Place::Tcp("127.0.0.1:1".parse().unwrap());
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
        let place = Place::Tcp("127.0.0.1:1".parse().unwrap());
        let info = PortInfo::write(&path, std::iter::once((PortKind::Socks, &place))).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(info);
        assert_eq!(fs::read_to_string(&path).unwrap(), "another's");
    }
}
