//! Ports in the file system: unix sockets, with C tor's rules for who may reach them
//! (`check_location_for_unix_socket`; tor(1), "SocksPort unix:").

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

use super::BACKLOG;
use crate::port::Flags;

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
    check_folder(path, flags)?;
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
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|e| e.to_string())?;
    socket.listen(BACKLOG).map_err(|e| e.to_string())?;
    socket.set_nonblocking(true).map_err(|e| e.to_string())?;
    let listener = UnixListener::from_std(socket.into()).map_err(|e| e.to_string())?;
    Ok((listener, file))
}

/// The folder must keep out whoever the socket is meant to keep out.
fn check_folder(path: &Path, flags: &Flags) -> Result<(), String> {
    let folder = path.parent().ok_or("the path names no folder")?;
    let metadata = fs::metadata(folder)
        .map_err(|error| format!("folder {}: {error}; create it first", folder.display()))?;
    if !metadata.is_dir() {
        return Err(format!("{} is no folder", folder.display()));
    }
    if flags.relax_dir_mode_check || flags.world_writable {
        return Ok(());
    }
    let me = Uid::effective().as_raw();
    if metadata.uid() != me && metadata.uid() != 0 {
        return Err(format!(
            "folder {} belongs to another user; choose one of your own, or add the flag \
             RelaxDirModeCheck",
            folder.display()
        ));
    }
    let forbidden = if flags.group_writable { 0o007 } else { 0o077 };
    if metadata.mode() & forbidden != 0 {
        return Err(format!(
            "others can enter folder {} (mode {:03o}); chmod it to {}, or add the flag \
             RelaxDirModeCheck",
            folder.display(),
            metadata.mode() & 0o777,
            if flags.group_writable { "0750" } else { "0700" },
        ));
    }
    Ok(())
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
    match UnixStream::connect(path) {
        Ok(_) => Err("another program listens there; stop it or choose another path".into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|e| format!("cannot remove the old socket: {e}"))
        }
        Err(error) => Err(format!(
            "cannot tell whether another program listens there: {error}"
        )),
    }
}

#[cfg(test)]
mod tests {
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
}
