//! The state folder: JSON files with guards, vanguards and circuit times.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;

use super::{not_a_file, set_aside};

/// Sets aside each state file that cannot be read as JSON: empty, cut short, overwritten, or not a
/// file.
///
/// A file that this user may not read is left alone: arti names it and ends the start.
pub(super) fn mend(folder: &Path) {
    for path in files(folder) {
        if let Some(why) = not_a_file(&path) {
            set_aside(&path, folder, why);
            continue;
        }
        let Ok(bytes) = fs::read(&path) else {
            continue;
        };
        if let Err(error) = serde_json::from_slice::<IgnoredAny>(&bytes) {
            set_aside(&path, folder, &error.to_string());
        }
    }
}

/// Sets aside the state files that an error of arti names. They are JSON and hold something else than
/// they should.
pub(super) fn mend_named_in(folder: &Path, report: &str) -> bool {
    let mut mended = false;
    for path in files(folder) {
        let name = path.file_name().and_then(OsStr::to_str);
        if name.is_some_and(|name| report.contains(name)) {
            mended |= set_aside(&path, folder, "its content is not what it should be");
        }
    }
    mended
}

/// The state files, whatever they are.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder").flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.file_name().display().to_string())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn damaged_state_files_are_set_aside_and_good_ones_stay() {
        let above = tempfile::tempdir().expect("a folder");
        let folder = above.path().join("state");
        fs::create_dir(&folder).expect("made");
        let at = |name: &str| folder.join(name);
        fs::write(at("good.json"), r#"{"default":{"guards":[]}}"#).expect("written");
        fs::write(at("empty.json"), "").expect("written");
        fs::write(at("cut.json"), r#"{"default":{"gua"#).expect("written");
        fs::write(at("zeroed.json"), [0; 64]).expect("written");
        fs::create_dir(at("folder.json")).expect("made");
        std::os::unix::fs::symlink("/nowhere/at/all", at("link.json")).expect("made");
        fs::write(at("state.lock"), "").expect("written");
        mend(&folder);
        // arti does not trust a folder with a link to nothing in it.
        assert_eq!(names(above.path()), ["link.json.damaged", "state"]);
        assert_eq!(
            names(&folder),
            [
                "cut.json.damaged",
                "empty.json.damaged",
                "folder.json.damaged",
                "good.json",
                "state.lock",
                "zeroed.json.damaged",
            ]
        );
    }

    #[test]
    fn damaged_files_of_one_name_are_kept_up_to_a_limit() {
        let folder = tempfile::tempdir().expect("a folder");
        for _ in 0..super::super::MAX_KEPT + 3 {
            fs::write(folder.path().join("guards.json"), "x").expect("written");
            mend(folder.path());
        }
        let names = names(folder.path());
        assert_eq!(names.len(), super::super::MAX_KEPT as usize, "{names:?}");
        assert!(!names.contains(&"guards.json".to_owned()));
    }

    #[test]
    fn a_file_that_an_error_names_is_set_aside_and_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["guards.json", "circuit_timeouts.json"] {
            fs::write(folder.path().join(name), "[]").expect("written");
        }
        let report =
            "error: JSON error while loading persistent data on state/guards.json in /x: …";
        assert!(mend_named_in(folder.path(), report));
        assert_eq!(
            names(folder.path()),
            ["circuit_timeouts.json", "guards.json.damaged"]
        );
        assert!(!mend_named_in(folder.path(), report));
    }
}
