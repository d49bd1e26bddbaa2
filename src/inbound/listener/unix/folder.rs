//! The folder of a unix socket, checked as C tor checks it (`check_location_for_unix_socket`,
//! `check_private_dir`): on some systems whoever reaches the folder can connect, whatever the
//! socket's own mode.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::{Gid, Uid};

use crate::config::port_line::Flags;

/// The user and group that the folder must belong to.
#[derive(Clone, Copy, Debug)]
struct Owner {
    uid: u32,
    gid: u32,
}

/// Checks the folder of the socket at `path`.
///
/// `WorldWritable` sockets may be anywhere. `GroupWritable` admits a group that may not write to the
/// folder; `RelaxDirModeCheck` admits others who may not. Both leave the owner to be checked.
pub(super) fn check(path: &Path, flags: &Flags) -> Result<(), String> {
    if flags.world_writable {
        return Ok(());
    }
    let folder = path.parent().ok_or("the path names no folder")?;
    let metadata = open(folder)
        .and_then(|opened| opened.metadata())
        .map_err(|error| format!("folder {}: {}", folder.display(), explain(&error)))?;
    let me = Owner {
        uid: Uid::current().as_raw(),
        gid: Gid::current().as_raw(),
    };
    check_metadata(&metadata, flags, me)
        .map_err(|problem| format!("folder {} {problem}", folder.display()))
}

/// Opens the folder itself, never one behind a link. `O_NONBLOCK`: a FIFO in its place must not
/// block.
fn open(folder: &Path) -> io::Result<File> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(folder)
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("{error}; create it first"),
        io::ErrorKind::NotADirectory => {
            "it is no folder, or a link to one; name the folder itself".to_owned()
        }
        _ => error.to_string(),
    }
}

fn check_metadata(metadata: &Metadata, flags: &Flags, me: Owner) -> Result<(), String> {
    if metadata.uid() != me.uid {
        return Err("belongs to another user; choose one of your own".to_owned());
    }
    if flags.group_writable && metadata.gid() != me.gid && metadata.gid() != 0 {
        return Err(format!(
            "belongs to another group ({}); chgrp it to the group of this program ({})",
            metadata.gid(),
            me.gid
        ));
    }
    let mode = metadata.mode() & 0o777;
    if mode & forbidden(flags) == 0 {
        return Ok(());
    }
    Err(match (flags.relax_dir_mode_check, flags.group_writable) {
        (true, _) => format!("can be written by others (mode {mode:04o}); chmod it to 0755"),
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

/// The permissions that nobody but the owner may have.
fn forbidden(flags: &Flags) -> u32 {
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
            format!("unix:/a {words}").parse().expect("a line");
        line.flags
    }

    fn folder(mode: u32) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("temporary folder");
        fs::set_permissions(folder.path(), Permissions::from_mode(mode)).expect("mode set");
        folder
    }

    fn judge(folder: &Path, words: &str) -> Result<(), String> {
        check(&folder.join("socket"), &flags(words))
    }

    /// The same table is put to C tor in the integration tests.
    #[test]
    fn the_mode_of_the_folder_is_judged_by_the_flags() {
        let both = &format!("{GROUP} {RELAXED}");
        for (mode, words, fits) in [
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
            let judged = judge(folder.path(), words);
            assert_eq!(judged.is_ok(), fits, "{mode:o} {words}: {judged:?}");
        }
    }

    #[test]
    fn the_folder_of_another_user_or_group_is_refused() {
        let folder = folder(0o700);
        let metadata = fs::metadata(folder.path()).expect("there");
        let (uid, gid) = (metadata.uid(), metadata.gid());
        let me = Owner { uid, gid };
        let other_user = Owner { uid: uid + 1, gid };
        for words in [PLAIN, GROUP, RELAXED] {
            assert_eq!(check_metadata(&metadata, &flags(words), me), Ok(()));
            let problem = check_metadata(&metadata, &flags(words), other_user);
            assert!(
                problem.is_err_and(|p| p.contains("another user")),
                "{words}"
            );
        }
        // The group counts only where it is let in; group 0 is everybody's.
        let other_group = Owner { uid, gid: gid + 1 };
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
    fn a_link_or_a_file_is_no_folder_and_a_missing_one_is_named() {
        let folder = folder(0o700);
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("real")).expect("made");
        fs::set_permissions(at("real"), Permissions::from_mode(0o700)).expect("mode set");
        std::os::unix::fs::symlink(at("real"), at("link")).expect("linked");
        fs::write(at("file"), "").expect("written");
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        assert_eq!(judge(&at("real"), PLAIN), Ok(()));
        for name in ["link", "file", "fifo"] {
            let problem = judge(&at(name), RELAXED).expect_err(name);
            assert!(problem.contains("no folder"), "{name}: {problem}");
        }
        assert_eq!(judge(&at("link"), WORLD), Ok(()));
        let problem = judge(&at("missing"), PLAIN).expect_err("missing");
        assert!(problem.contains("create it first"), "{problem}");
    }
}
