//! The state folder: JSON files with guards, vanguards and circuit times.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;

use super::set_aside::{find_type_problem, set_aside};

/// Sets aside every state file that is not JSON: empty, truncated, overwritten, or not a regular file.
///
/// A file that this user may not read is left alone: arti names it and refuses to start.
pub(super) fn repair(folder: &Path) {
    for path in files(folder) {
        if let Some(why) = find_type_problem(&path) {
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

/// Sets aside the state files that arti's error names: they are JSON with unexpected content. Returns whether
/// there were any.
pub(super) fn set_named_aside(folder: &Path, report: &str) -> bool {
    let mut renamed = false;
    for path in files(folder) {
        let name = path.file_name().and_then(OsStr::to_str);
        if name.is_some_and(|name| report.contains(name)) {
            renamed |= set_aside(&path, folder, "it has unexpected content");
        }
    }
    renamed
}

/// Lists the state files, of whatever file type.
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
    fn damaged_state_files_are_set_aside_and_intact_ones_stay() {
        let above = tempfile::tempdir().expect("a folder");
        let folder = above.path().join("state");
        fs::create_dir(&folder).expect("created");
        let at = |name: &str| folder.join(name);
        fs::write(at("good.json"), r#"{"default":{"guards":[]}}"#).expect("written");
        fs::write(at("empty.json"), "").expect("written");
        fs::write(at("cut.json"), r#"{"default":{"gua"#).expect("written");
        fs::write(at("zeroed.json"), [0; 64]).expect("written");
        fs::create_dir(at("folder.json")).expect("created");
        std::os::unix::fs::symlink("/nowhere/at/all", at("link.json")).expect("created");
        fs::write(at("state.lock"), "").expect("written");
        repair(&folder);
        // arti does not trust a folder that contains a dangling link.
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
    fn the_number_of_damaged_files_of_one_name_is_limited() {
        let folder = tempfile::tempdir().expect("a folder");
        for _ in 0..super::super::set_aside::MAX_KEPT + 3 {
            fs::write(folder.path().join("guards.json"), "x").expect("written");
            repair(folder.path());
        }
        let names = names(folder.path());
        assert_eq!(
            names.len(),
            super::super::set_aside::MAX_KEPT as usize,
            "{names:?}"
        );
        assert!(!names.contains(&"guards.json".to_owned()));
    }

    #[test]
    fn only_the_file_that_the_error_names_is_set_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["guards.json", "circuit_timeouts.json"] {
            fs::write(folder.path().join(name), "[]").expect("written");
        }
        let report =
            "error: JSON error while loading persistent data on state/guards.json in /x: …";
        assert!(set_named_aside(folder.path(), report));
        assert_eq!(
            names(folder.path()),
            ["circuit_timeouts.json", "guards.json.damaged"]
        );
        assert!(!set_named_aside(folder.path(), report));
    }
}
