//! Which process holds a lock file.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process;

use nix::fcntl::OFlag;
use nix::sys::stat::{major, minor};

/// The process that holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tor) enum LockHolder {
    /// This process.
    Us,
    /// Another process, and its ID if the system reports it.
    Other(Option<u32>),
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockHolder::Us => write!(f, "this process"),
            LockHolder::Other(None) => write!(f, "another process"),
            LockHolder::Other(Some(pid)) => {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                match name.trim() {
                    "" => write!(f, "process {pid}"),
                    name => write!(f, "process {pid} ({name})"),
                }
            }
        }
    }
}

/// Returns which process holds the lock file at `path`, if one does and the file exists.
pub(super) fn find_holder(path: &Path) -> Option<LockHolder> {
    // Opened for reading only, so that the file is not created, and without waiting if it is a pipe.
    let mut options = File::options();
    let file = options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let file = file.open(path).ok()?;
    match file.try_lock() {
        // Dropping the file releases the lock.
        Ok(()) | Err(TryLockError::Error(_)) => None,
        Err(TryLockError::WouldBlock) => Some(match find_owner(&file) {
            Some(pid) if pid == process::id() => LockHolder::Us,
            pid => LockHolder::Other(pid),
        }),
    }
}

/// Returns the process that has locked a file, according to proc_locks(5).
fn find_owner(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let (device, inode) = (metadata.dev(), metadata.ino());
    let exact = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let holders = |is_it: &dyn Fn(&str) -> bool| -> Vec<u32> {
        let lines = locks.lines().map(|line| line.split_whitespace().collect());
        // `1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF`; a waiting process has `->` before `FLOCK`.
        lines
            .filter_map(|fields: Vec<&str>| match fields[..] {
                [_, "FLOCK", _, "WRITE", pid, place, ..] if is_it(place) => pid.parse().ok(),
                _ => None,
            })
            .collect()
    };
    // For some file systems, the listed device differs from stat(2)'s.
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
    fn a_free_lock_stays_free() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.lock");
        assert_eq!(find_holder(&path), None);
        assert!(!path.exists());
        File::create(&path).expect("created");
        assert_eq!(find_holder(&path), None);
        assert_eq!(find_holder(&path), None);
    }

    #[test]
    fn a_lock_of_this_process_is_recognised() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.lock");
        let file = File::create(&path).expect("created");
        file.lock().expect("locked");
        assert_eq!(find_holder(&path), Some(LockHolder::Us));
        file.unlock().expect("unlocked");
        assert_eq!(find_holder(&path), None);
    }

    #[test]
    fn a_lock_of_another_process_is_reported_with_its_id_and_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.lock");
        File::create(&path).expect("created");
        let mut child = process::Command::new("flock")
            .args([
                "--no-fork".as_ref(),
                path.as_os_str(),
                "sleep".as_ref(),
                "60".as_ref(),
            ])
            .spawn()
            .expect("flock(1) is installed");
        let held = || find_holder(&path).filter(|_| is_sleeping(child.id()));
        let mut found = held();
        for _ in 0..500 {
            if found.is_some() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
            found = held();
        }
        let text = found.map(|holder| holder.to_string());
        let expected = format!("process {} (sleep)", child.id());
        child.kill().expect("killed");
        child.wait().expect("reaped");
        assert_eq!(found, Some(LockHolder::Other(Some(child.id()))));
        assert_eq!(text.as_deref(), Some(&*expected));
    }

    /// Returns whether flock(1) has executed the command that it starts.
    fn is_sleeping(pid: u32) -> bool {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
    }
}
