//! Ports in the file system: unix sockets, with C tor's rules for who may reach them
//! (`check_location_for_unix_socket`; tor(1), "SocksPort unix:").

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

use super::BACKLOG;
use crate::config::port_line::Flags;

mod folder;

/// A socket's file; removed when the port is closed, if it is still the same file.
pub(super) struct File {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for File {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens a socket at `path`. A file that an earlier run left is replaced, unless somebody answers
/// there.
pub(super) fn bind(path: &Path, flags: &Flags) -> Result<(UnixListener, File), String> {
    folder::check(path, flags)?;
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(|e| e.to_string())?;
    let address = SockAddr::unix(path).map_err(|e| e.to_string())?;
    socket.bind(&address).map_err(|e| e.to_string())?;
    let mode = match (flags.world_writable, flags.group_writable) {
        (true, _) => 0o666,
        (false, true) => 0o660,
        (false, false) => 0o600,
    };
    let made = fs::symlink_metadata(path).map_err(|e| e.to_string())?;
    let file = File {
        path: path.to_owned(),
        inode: (made.dev(), made.ino()),
    };
    // Nobody gets in before the mode is set: a socket that does not listen yet refuses everybody.
    set_mode(path, mode).map_err(|e| e.to_string())?;
    socket.listen(BACKLOG).map_err(|e| e.to_string())?;
    socket.set_nonblocking(true).map_err(|e| e.to_string())?;
    let listener = UnixListener::from_std(socket.into()).map_err(|e| e.to_string())?;
    Ok((listener, file))
}

/// Sets the permissions of the socket at `path`. Where others can write to the folder, there may be a
/// link by now: what it points to is left alone.
fn set_mode(path: &Path, mode: u16) -> io::Result<()> {
    let changed = fchmodat(
        AT_FDCWD,
        path,
        Mode::from_bits_truncate(mode.into()),
        FchmodatFlags::NoFollowSymlink,
    );
    match changed {
        // It is a link, or the system cannot tell: C libraries need /proc for that, or a new kernel.
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) if !fs::symlink_metadata(path)?.is_symlink() => {
            fs::set_permissions(path, fs::Permissions::from_mode(mode.into()))
        }
        changed => Ok(changed?),
    }
}

/// Removes the socket of a program that is no more.
fn remove_stale(path: &Path) -> Result<(), String> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.to_string()),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(
                "there is a file that is no socket; remove it or choose another path".into(),
            );
        }
        Ok(_) => {}
    }
    match is_listening(path) {
        Ok(true) => Err("another program listens there; stop it or choose another path".into()),
        Ok(false) => {
            fs::remove_file(path).map_err(|e| format!("cannot remove the old socket: {e}"))
        }
        Err(error) => Err(format!(
            "cannot tell whether another program listens there: {error}"
        )),
    }
}

/// Whether a program listens on the socket at `path`.
///
/// Never waits. A blocking connect(2) waits for a program that accepts nothing, such as one that is
/// stopped, for as long as its backlog is full; a non-blocking one says so (unix(7), `EAGAIN`).
fn is_listening(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn private_folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("temporary folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("mode set");
        folder
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").mode() & 0o777
    }

    #[tokio::test]
    async fn the_socket_has_the_mode_that_its_flags_ask_for_and_goes_with_the_port() {
        let folder = private_folder();
        let path = folder.path().join("socks");
        let flags = [(Flags::default(), 0o600)]
            .into_iter()
            .chain([(
                Flags {
                    group_writable: true,
                    ..Flags::default()
                },
                0o660,
            )])
            .chain([(
                Flags {
                    world_writable: true,
                    ..Flags::default()
                },
                0o666,
            )]);
        for (flags, expected) in flags {
            let bound = bind(&path, &flags).expect("bound");
            assert_eq!(mode(&path), expected);
            drop(bound);
            assert!(!path.exists());
        }
    }

    #[test]
    fn the_mode_of_what_a_link_points_to_is_left_alone() {
        let folder = private_folder();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, "").expect("written");
        fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).expect("mode set");
        std::os::unix::fs::symlink(&target, &link).expect("linked");
        assert!(set_mode(&link, 0o666).is_err());
        assert_eq!(mode(&target), 0o600);
        set_mode(&target, 0o660).expect("set");
        assert_eq!(mode(&target), 0o660);
    }

    #[tokio::test]
    async fn a_socket_is_taken_over_only_when_nobody_answers_on_it() {
        let folder = private_folder();
        let path = folder.path().join("socks");
        let first = bind(&path, &Flags::default()).expect("bound");
        let refused = bind(&path, &Flags::default())
            .map(|_| ())
            .expect_err("in use");
        assert!(refused.contains("another program listens"), "{refused}");
        let (listener, file) = first;
        // As after a crash: the file stays, and nobody listens.
        std::mem::forget(file);
        drop(listener);
        bind(&path, &Flags::default()).expect("taken over");
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let folder = private_folder();
        let path = folder.path().join("socks");
        fs::write(&path, "precious").expect("written");
        let refused = bind(&path, &Flags::default())
            .map(|_| ())
            .expect_err("a file");
        assert!(refused.contains("no socket"), "{refused}");
        assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
    }

    #[tokio::test]
    async fn a_folder_that_others_can_enter_is_refused_unless_a_flag_allows_it() {
        let folder = private_folder();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("mode set");
        let path = folder.path().join("socks");
        let refused = bind(&path, &Flags::default())
            .map(|_| ())
            .expect_err("open folder");
        assert!(
            refused.contains("RelaxDirModeCheck") && refused.contains("0700"),
            "{refused}"
        );
        let relaxed = Flags {
            relax_dir_mode_check: true,
            ..Flags::default()
        };
        bind(&path, &relaxed).expect("allowed");
    }

    /// As a program that is stopped leaves it: it listens, and accepts nothing.
    #[tokio::test]
    async fn a_socket_whose_backlog_is_full_is_in_use_and_makes_nobody_wait() {
        let folder = private_folder();
        let path = folder.path().join("socks");
        let address = SockAddr::unix(&path).expect("an address");
        let stopped = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        stopped.bind(&address).expect("bound");
        stopped.listen(0).expect("listening");
        let mut waiting = Vec::new();
        loop {
            let client = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
            client.set_nonblocking(true).expect("set");
            match client.connect(&address) {
                Ok(()) => waiting.push(client),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(!waiting.is_empty());
        // Were it to wait, it would wait for good.
        let (done, refused) = std::sync::mpsc::channel();
        let runtime = tokio::runtime::Handle::current();
        std::thread::spawn(move || {
            let _inside = runtime.enter();
            done.send(bind(&path, &Flags::default()).map(|_| ()))
        });
        let refused = refused.recv_timeout(Duration::from_secs(20));
        let refused = refused.expect("it waits").expect_err("in use");
        assert!(refused.contains("another program listens"), "{refused}");
    }
}
