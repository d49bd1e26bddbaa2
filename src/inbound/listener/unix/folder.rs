//! Checks the folder of a Unix socket by C tor's rules (`check_location_for_unix_socket`,
//! `check_private_dir`): some systems ignore the socket's own mode, so that the folder's permissions
//! decide who can connect.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::{Gid, Uid};

use crate::config::port_line::Flags;

/// The user and group that the folder must belong to.
#[derive(Clone, Copy, Debug)]
struct FolderOwner {
    uid: u32,
    gid: u32,
}

/// Checks the folder of the socket at `path`.
///
/// With `WorldWritable` any folder passes. `GroupWritable` lets the group enter the folder, and
/// `RelaxDirModeCheck` lets everyone, but neither lets them write to it. The owner is checked in both
/// cases.
///
/// # Errors
/// A message that names the folder and the remedy.
pub(super) fn check(path: &Path, flags: &Flags) -> Result<(), String> {
    if flags.world_writable {
        return Ok(());
    }
    let folder = path.parent().ok_or("the path has no folder")?;
    let metadata = open(folder)
        .and_then(|opened| opened.metadata())
        .map_err(|error| format!("folder {}: {}", folder.display(), describe(&error)))?;
    let process = FolderOwner {
        uid: Uid::current().as_raw(),
        gid: Gid::current().as_raw(),
    };
    check_metadata(&metadata, flags, process)
        .map_err(|problem| format!("folder {} {problem}", folder.display()))
}

/// Opens the folder itself, without following a symbolic link. `O_NONBLOCK`: a FIFO at its path must
/// not block.
fn open(folder: &Path) -> io::Result<File> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(folder)
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("{error}; create it first"),
        io::ErrorKind::NotADirectory => {
            "not a folder, or a link to one; write the path of the folder itself".to_owned()
        }
        _ => error.to_string(),
    }
}

fn check_metadata(metadata: &Metadata, flags: &Flags, process: FolderOwner) -> Result<(), String> {
    if metadata.uid() != process.uid {
        return Err(
            "belongs to another user; choose a folder of the user that runs onionport".to_owned(),
        );
    }
    if flags.group_writable && metadata.gid() != process.gid && metadata.gid() != 0 {
        return Err(format!(
            "belongs to another group ({}); chgrp it to onionport's group ({})",
            metadata.gid(),
            process.gid
        ));
    }
    let mode = metadata.mode() & 0o777;
    if mode & forbidden_mode(flags) == 0 {
        return Ok(());
    }
    Err(match (flags.relax_dir_mode_check, flags.group_writable) {
        (true, _) => format!("is writable by others (mode {mode:04o}); chmod it to 0755"),
        (false, true) => format!(
            "is open to others (mode {mode:04o}); chmod it to 0750, or to 0755 with the flag \
             RelaxDirModeCheck"
        ),
        (false, false) => format!(
            "can be entered by others (mode {mode:04o}); chmod it to 0700, or to 0755 with the \
             flag RelaxDirModeCheck"
        ),
    })
}

/// Returns the permission bits that the folder must not have.
fn forbidden_mode(flags: &Flags) -> u32 {
    if flags.relax_dir_mode_check {
        0o022
    } else if flags.group_writable {
        0o027
    } else {
        0o077
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const PLAIN: &str = "";
    const GROUP: &str = "GroupWritable";
    const RELAXED: &str = "RelaxDirModeCheck";
    const WORLD: &str = "WorldWritable";

    fn flags(words: &str) -> Flags {
        let line: crate::config::port_line::PortLine =
            format!("unix:/a {words}").parse().expect("port line");
        line.flags
    }

    fn folder(mode: u32) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("temporary folder");
        fs::set_permissions(folder.path(), Permissions::from_mode(mode)).expect("mode set");
        folder
    }

    fn check_folder(folder: &Path, words: &str) -> Result<(), String> {
        check(&folder.join("socket"), &flags(words))
    }

    /// `tests/integration/socket_folder.rs` compares similar cases with C tor.
    #[test]
    fn flags_decide_which_folder_modes_pass() {
        let both = &format!("{GROUP} {RELAXED}");
        for (mode, words, passes) in [
            (0o700, PLAIN, true),
            (0o710, PLAIN, false),
            (0o701, PLAIN, false),
            (0o700, GROUP, true),
            (0o750, GROUP, true),
            (0o770, GROUP, false),
            (0o751, GROUP, false),
            (0o755, RELAXED, true),
            (0o775, RELAXED, false),
            (0o757, RELAXED, false),
            (0o755, both, true),
            (0o770, both, false),
            (0o777, WORLD, true),
        ] {
            let folder = folder(mode);
            let result = check_folder(folder.path(), words);
            assert_eq!(result.is_ok(), passes, "{mode:o} {words}: {result:?}");
        }
    }

    #[test]
    fn the_folder_of_another_user_or_group_is_refused() {
        let folder = folder(0o700);
        let metadata = fs::metadata(folder.path()).expect("metadata");
        let (uid, gid) = (metadata.uid(), metadata.gid());
        let process = FolderOwner { uid, gid };
        let other_user = FolderOwner { uid: uid + 1, gid };
        for words in [PLAIN, GROUP, RELAXED] {
            assert_eq!(check_metadata(&metadata, &flags(words), process), Ok(()));
            let problem = check_metadata(&metadata, &flags(words), other_user);
            assert!(
                problem.is_err_and(|p| p.contains("another user")),
                "{words}"
            );
        }
        // Only `GroupWritable` checks the group, and accepts group 0.
        let other_group = FolderOwner { uid, gid: gid + 1 };
        for words in [PLAIN, RELAXED] {
            assert_eq!(
                check_metadata(&metadata, &flags(words), other_group),
                Ok(())
            );
        }
        let refused = check_metadata(&metadata, &flags(GROUP), other_group);
        assert_eq!(refused.is_err(), gid != 0, "{refused:?}");
    }

    #[test]
    fn links_files_and_fifos_are_refused_and_a_missing_folder_is_named() {
        let folder = folder(0o700);
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("real")).expect("folder created");
        fs::set_permissions(at("real"), Permissions::from_mode(0o700)).expect("mode set");
        std::os::unix::fs::symlink(at("real"), at("link")).expect("link created");
        fs::write(at("file"), "").expect("file written");
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("FIFO created");
        assert_eq!(check_folder(&at("real"), PLAIN), Ok(()));
        for name in ["link", "file", "fifo"] {
            let problem = check_folder(&at(name), RELAXED).expect_err(name);
            assert!(problem.contains("not a folder"), "{name}: {problem}");
        }
        assert_eq!(check_folder(&at("link"), WORLD), Ok(()));
        let problem = check_folder(&at("missing"), PLAIN).expect_err("missing");
        assert!(problem.contains("create it first"), "{problem}");
    }
}
