//! Unix sockets, with C tor's rules for who may reach them (`check_location_for_unix_socket`; tor(1),
//! "SocksPort unix:").

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

use super::ip::BACKLOG;
use crate::config::port_line::Flags;

mod folder;

/// The file of a listening socket. Removed on drop, if the path still names the same file.
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode number.
    id: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.id) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens on a new socket at `path`. Replaces the socket of a process that has ended.
///
/// # Errors
/// A message that names the remedy, but not the path.
pub(super) fn bind(path: &Path, flags: &Flags) -> Result<(UnixListener, SocketFile), String> {
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
    let created = fs::symlink_metadata(path).map_err(|e| e.to_string())?;
    let file = SocketFile {
        path: path.to_owned(),
        id: (created.dev(), created.ino()),
    };
    // Set the mode before listening: until then the socket refuses every connection.
    set_mode(path, mode).map_err(|e| e.to_string())?;
    socket.listen(BACKLOG).map_err(|e| e.to_string())?;
    socket.set_nonblocking(true).map_err(|e| e.to_string())?;
    let listener = UnixListener::from_std(socket.into()).map_err(|e| e.to_string())?;
    Ok((listener, file))
}

/// Sets the permissions of the socket at `path`, without following a symbolic link: in a folder that
/// others can write to, the socket may have been replaced by one.
fn set_mode(path: &Path, mode: u16) -> io::Result<()> {
    let changed = fchmodat(
        AT_FDCWD,
        path,
        Mode::from_bits_truncate(mode.into()),
        FchmodatFlags::NoFollowSymlink,
    );
    match changed {
        // Either a link, or the call is not supported: C libraries need /proc or a recent kernel.
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) if !fs::symlink_metadata(path)?.is_symlink() => {
            fs::set_permissions(path, fs::Permissions::from_mode(mode.into()))
        }
        changed => Ok(changed?),
    }
}

/// Removes the socket file of a process that has ended, if there is one.
fn remove_stale(path: &Path) -> Result<(), String> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.to_string()),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(
                "a file that is not a socket exists there; remove it or choose another path".into(),
            );
        }
        Ok(_) => {}
    }
    match is_listening(path) {
        Ok(true) => Err("another program listens there; stop it or choose another path".into()),
        Ok(false) => {
            fs::remove_file(path).map_err(|e| format!("cannot remove the stale socket: {e}"))
        }
        Err(error) => Err(format!(
            "cannot find out whether another program listens there: {error}"
        )),
    }
}

/// Whether a process listens on the socket at `path`.
///
/// Does not block. A blocking connect(2) would wait as long as the backlog is full, such as that of a
/// stopped process; a non-blocking one returns `EAGAIN` (unix(7)).
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
        fs::metadata(path).expect("metadata").mode() & 0o777
    }

    #[tokio::test]
    async fn flags_set_the_mode_of_the_socket_which_is_removed_with_the_port() {
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
    fn the_mode_of_a_links_target_is_not_changed() {
        let folder = private_folder();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, "").expect("file written");
        fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).expect("mode set");
        std::os::unix::fs::symlink(&target, &link).expect("link created");
        assert!(set_mode(&link, 0o666).is_err());
        assert_eq!(mode(&target), 0o600);
        set_mode(&target, 0o660).expect("set");
        assert_eq!(mode(&target), 0o660);
    }

    #[tokio::test]
    async fn a_socket_is_replaced_only_if_no_process_listens_on_it() {
        let folder = private_folder();
        let path = folder.path().join("socks");
        let first = bind(&path, &Flags::default()).expect("bound");
        let refused = bind(&path, &Flags::default())
            .map(|_| ())
            .expect_err("in use");
        assert!(refused.contains("another program listens"), "{refused}");
        let (listener, file) = first;
        // As after a crash: the file exists, and no process listens.
        std::mem::forget(file);
        drop(listener);
        bind(&path, &Flags::default()).expect("replaced");
    }

    #[tokio::test]
    async fn a_file_that_is_not_a_socket_is_not_replaced() {
        let folder = private_folder();
        let path = folder.path().join("socks");
        fs::write(&path, "precious").expect("file written");
        let refused = bind(&path, &Flags::default())
            .map(|_| ())
            .expect_err("a file");
        assert!(refused.contains("not a socket"), "{refused}");
        assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
    }

    #[tokio::test]
    async fn a_folder_that_others_can_enter_is_refused_unless_a_flag_allows_it() {
        let folder = private_folder();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("mode set");
        let path = folder.path().join("socks");
        let refused = bind(&path, &Flags::default())
            .map(|_| ())
            .expect_err("folder open to others");
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

    /// The socket of a stopped process listens and accepts nothing.
    #[tokio::test]
    async fn a_socket_with_a_full_backlog_is_in_use_and_does_not_block_bind() {
        let folder = private_folder();
        let path = folder.path().join("socks");
        let address = SockAddr::unix(&path).expect("address");
        let stopped = Socket::new(Domain::UNIX, Type::STREAM, None).expect("socket");
        stopped.bind(&address).expect("bound");
        stopped.listen(0).expect("listening");
        let mut waiting = Vec::new();
        loop {
            let client = Socket::new(Domain::UNIX, Type::STREAM, None).expect("socket");
            client.set_nonblocking(true).expect("set");
            match client.connect(&address) {
                Ok(()) => waiting.push(client),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(!waiting.is_empty());
        // In a thread: if `bind` blocked, it would block for ever.
        let (done, refused) = std::sync::mpsc::channel();
        let runtime = tokio::runtime::Handle::current();
        std::thread::spawn(move || {
            let _inside = runtime.enter();
            done.send(bind(&path, &Flags::default()).map(|_| ()))
        });
        let refused = refused.recv_timeout(Duration::from_secs(20));
        let refused = refused.expect("`bind` returns").expect_err("in use");
        assert!(refused.contains("another program listens"), "{refused}");
    }
}
