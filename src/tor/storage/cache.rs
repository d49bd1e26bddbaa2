//! The cache folder: directory documents in an SQLite database, and the large ones in files of their own.

use std::fs;
use std::io;
use std::path::Path;

use fs_mistrust::Mistrust;
use sha3::{Digest as _, Sha3_256};
use tracing::warn;

use super::set_aside::{find_type_problem, set_aside};

const DATABASE: &str = "dir.sqlite3";
/// Files that SQLite keeps for a database. They must not be applied to a new one.
const DATABASE_COMPANIONS: [&str; 3] =
    ["dir.sqlite3-journal", "dir.sqlite3-wal", "dir.sqlite3-shm"];
/// The folder with large documents.
const DOCUMENTS: &str = "dir_blobs";
/// What precedes the digest in the name of a large document, as in `con_microdesc_sha3-256-HEX`.
const DIGEST: &str = "_sha3-256-";

/// Removes the large documents that arti could not use; it downloads them again. A consensus whose digest
/// does not match its name would otherwise be the base of every consensus diff, and no diff would ever apply.
pub(super) fn repair(folder: &Path, mistrust: &Mistrust) {
    let database = folder.join(DATABASE);
    if let Some(why) = find_type_problem(&database) {
        set_aside(&database, folder, why);
    }
    let documents = fs::read_dir(folder.join(DOCUMENTS));
    for entry in documents.into_iter().flatten().flatten() {
        let path = entry.path();
        let Some(why) = find_problem(&path, mistrust) else {
            continue;
        };
        if path.is_dir() && !path.is_symlink() {
            set_aside(&path, folder, &why);
            continue;
        }
        match fs::remove_file(&path) {
            Ok(()) => warn!(
                "{} is unusable ({why}): removed; it will be downloaded again",
                path.display()
            ),
            Err(error) => warn!(
                "{} is unusable ({why}) and cannot be removed: {error}; remove it",
                path.display()
            ),
        }
    }
}

/// Returns why a large document is unusable, if it is.
fn find_problem(path: &Path, mistrust: &Mistrust) -> Option<String> {
    if let Some(why) = find_type_problem(path) {
        return Some(why.to_owned());
    }
    // Problems of the folders above it are for the user to fix.
    if let Err(error) = mistrust.verifier().permit_readable().check(path)
        && error.path() == Some(path)
    {
        return Some(error.to_string());
    }
    let name = path.file_name()?.to_str()?;
    let (_, expected) = name.rsplit_once(DIGEST)?;
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Some(error.to_string());
        }
        // Too many open files, or a failing disk: the document may be intact.
        Err(_) => return None,
    };
    let digest = data_encoding::HEXLOWER.encode(&Sha3_256::digest(&bytes));
    (digest != expected).then(|| "its digest does not match its name".to_owned())
}

/// Sets the database aside; arti downloads its content again. `report` is arti's error.
pub(super) fn set_database_aside(folder: &Path, report: &str) -> bool {
    let database = folder.join(DATABASE);
    if fs::symlink_metadata(&database).is_err() || !set_aside(&database, folder, report) {
        return false;
    }
    for name in DATABASE_COMPANIONS {
        let _ = fs::remove_file(folder.join(name));
    }
    true
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const TEXT: &str = "network-status-version 3 microdesc\n";

    /// A cache with one document, and the document's path.
    fn cache() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let documents = folder.path().join(DOCUMENTS);
        fs::create_dir(&documents).expect("created");
        let digest = data_encoding::HEXLOWER.encode(&Sha3_256::digest(TEXT));
        let path = documents.join(format!("con_microdesc{DIGEST}{digest}"));
        fs::write(&path, TEXT).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        (folder, path)
    }

    fn strict() -> Mistrust {
        // The folders above the temporary one are not under test.
        Mistrust::builder()
            .ignore_prefix(std::env::temp_dir())
            .build()
            .expect("valid")
    }

    #[test]
    fn an_intact_document_stays() {
        let (folder, path) = cache();
        repair(folder.path(), &strict());
        assert!(path.exists());
    }

    #[test]
    fn a_damaged_document_is_removed() {
        let damages: [fn(&Path); 6] = [
            |path| fs::write(path, "").expect("written"),
            |path| fs::write(path, &TEXT[..10]).expect("written"),
            |path| fs::write(path, vec![0; TEXT.len()]).expect("written"),
            |path| fs::write(path, TEXT.replace('3', "4")).expect("written"),
            |path| {
                fs::remove_file(path).expect("removed");
                std::os::unix::fs::symlink("/nowhere/at/all", path).expect("created");
            },
            |path| {
                fs::set_permissions(path, fs::Permissions::from_mode(0o666)).expect("set");
            },
        ];
        for (number, damage) in damages.into_iter().enumerate() {
            let (folder, path) = cache();
            damage(&path);
            repair(folder.path(), &strict());
            assert!(fs::symlink_metadata(&path).is_err(), "damage {number}");
        }
    }

    #[test]
    fn a_folder_in_place_of_a_document_is_moved_with_its_content() {
        let (folder, path) = cache();
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("created");
        fs::write(path.join("precious"), "mine").expect("written");
        repair(folder.path(), &strict());
        assert!(!path.exists());
        let name = format!("{}.damaged", path.file_name().expect("a name").display());
        let moved = folder.path().join(name).join("precious");
        assert_eq!(fs::read_to_string(moved).expect("readable"), "mine");
    }

    #[test]
    fn setting_a_database_aside_removes_its_companions() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(DATABASE), "x").expect("written");
        fs::write(folder.path().join(DATABASE_COMPANIONS[1]), "x").expect("written");
        assert!(set_database_aside(folder.path(), "file is not a database"));
        let left: Vec<_> = fs::read_dir(folder.path()).expect("readable").collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(folder.path().join("dir.sqlite3.damaged").exists());
        assert!(!set_database_aside(folder.path(), "no database"));
    }
}
