//! Who holds a lock file.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process;

use nix::fcntl::OFlag;
use nix::sys::stat::{major, minor};

/// The process that holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tor) enum Holder {
    /// This one.
    Us,
    /// Another one; its number, if the system tells.
    Other(Option<u32>),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Us => write!(f, "this process"),
            Holder::Other(None) => write!(f, "another process"),
            Holder::Other(Some(pid)) => {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                match name.trim() {
                    "" => write!(f, "process {pid}"),
                    name => write!(f, "process {pid} ({name})"),
                }
            }
        }
    }
}

/// Which process holds the lock file at `path`; `None` if nobody does, or there is no such file.
pub(super) fn holder(path: &Path) -> Option<Holder> {
    // Opened for reading alone: the file is looked at and not made. A pipe in its place is not waited
    // for.
    let mut options = File::options();
    let file = options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let file = file.open(path).ok()?;
    match file.try_lock() {
        // Dropping the file gives the lock back.
        Ok(()) | Err(TryLockError::Error(_)) => None,
        Err(TryLockError::WouldBlock) => Some(match owner(&file) {
            Some(pid) if pid == process::id() => Holder::Us,
            pid => Holder::Other(pid),
        }),
    }
}

/// The process that has locked a file, as the system lists it (proc_locks(5)).
fn owner(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let (device, inode) = (metadata.dev(), metadata.ino());
    let exact = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let holders = |is_it: &dyn Fn(&str) -> bool| -> Vec<u32> {
        let lines = locks.lines().map(|line| line.split_whitespace().collect());
        // `1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF`; one that waits has `->` in front.
        lines
            .filter_map(|fields: Vec<&str>| match fields[..] {
                [_, "FLOCK", _, "WRITE", pid, place, ..] if is_it(place) => pid.parse().ok(),
                _ => None,
            })
            .collect()
    };
    // Some file systems are listed with another device than stat(2) tells.
    let same_inode = format!(":{inode}");
    let found = holders(&|place| place == exact).first().copied();
    found.or_else(
        || match holders(&|place| place.ends_with(&same_inode))[..] {
            [only] => Some(only),
            _ => None,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_nobody_holds_is_free_and_stays_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.lock");
        assert_eq!(holder(&path), None);
        assert!(!path.exists());
        File::create(&path).expect("made");
        assert_eq!(holder(&path), None);
        assert_eq!(holder(&path), None);
    }

    #[test]
    fn a_lock_of_this_process_is_known_as_such() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.lock");
        let file = File::create(&path).expect("made");
        file.lock().expect("locked");
        assert_eq!(holder(&path), Some(Holder::Us));
        file.unlock().expect("unlocked");
        assert_eq!(holder(&path), None);
    }

    #[test]
    fn a_lock_of_another_process_is_told_with_its_number_and_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.lock");
        File::create(&path).expect("made");
        let mut child = process::Command::new("flock")
            .args([
                "--no-fork".as_ref(),
                path.as_os_str(),
                "sleep".as_ref(),
                "60".as_ref(),
            ])
            .spawn()
            .expect("flock(1) is there");
        let held = || holder(&path).filter(|_| is_sleeping(child.id()));
        let mut found = held();
        for _ in 0..500 {
            if found.is_some() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
            found = held();
        }
        let told = found.map(|holder| holder.to_string());
        let expected = format!("process {} (sleep)", child.id());
        child.kill().expect("killed");
        child.wait().expect("gone");
        assert_eq!(found, Some(Holder::Other(Some(child.id()))));
        assert_eq!(told.as_deref(), Some(&*expected));
    }

    /// Whether flock(1) has become the program that it starts.
    fn is_sleeping(pid: u32) -> bool {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
    }
}
