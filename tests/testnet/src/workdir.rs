//! The temporary folder of a network, and the watcher that removes it when we cannot.

use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::process::{detach_from_terminal, spawn};

/// Unix socket paths hold 107 bytes; this much of it is for the part below the folder.
const LONGEST_PATH: usize = 70;

/// What the watcher runs. Its standard input ends when we do, however we end; "keep" before that means hands off.
/// The pause lets the killed `tor` processes go first, or they would put files into a folder being removed.
const WATCHER: &str = r#"
read -r word && [ "$word" = keep ] && exit 0
for try in 1 2 3 4 5 6 7 8 9 10; do
    [ -e "$1" ] || exit 0
    sleep 0.2
    rm -rf -- "$1" 2>/dev/null
done
"#;

/// How many lines of a log are printed when the folder is kept.
const SHOWN_LINES: usize = 60;

/// A private temporary folder. Dropping it removes it if [`WorkDir::mark_done`] was called; otherwise something went
/// wrong, and it is kept and its path printed. `TESTNET_KEEP=1` keeps it in any case. A process that is killed leaves
/// no folder.
#[derive(Debug)]
pub(crate) struct WorkDir {
    folder: Mutex<Option<TempDir>>,
    path: PathBuf,
    watcher: Mutex<Child>,
    done: AtomicBool,
    /// The logs whose last lines are printed when the folder is kept.
    shown: Mutex<Vec<PathBuf>>,
}

impl WorkDir {
    /// Makes the folder below the system's place for temporary files.
    pub(crate) fn new() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("testnet-")
            .tempdir()
            .context("cannot make a temporary folder")?;
        let path = folder.path().to_owned();
        if path.as_os_str().len() > LONGEST_PATH {
            bail!(
                "the temporary folder {} has too long a path for sockets below it: set TMPDIR",
                path.display()
            );
        }
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WATCHER, "testnet-watcher"]).arg(&path);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        detach_from_terminal(&mut command);
        let mut watcher = spawn(command)?;
        if keep_asked_for() {
            dismiss(&mut watcher);
        }
        Ok(Self {
            folder: Mutex::new(Some(folder)),
            path,
            watcher: Mutex::new(watcher),
            done: AtomicBool::new(false),
            shown: Mutex::default(),
        })
    }

    /// Says that nobody will need the files any more.
    pub(crate) fn mark_done(&self) {
        self.done.store(true, Ordering::Relaxed);
    }

    /// Has the last lines of a log printed if the folder is kept.
    pub(crate) fn show_if_kept(&self, log: &Path) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.push(log.to_owned());
    }

    /// Prints the last lines of the logs that are to be shown.
    fn show_logs(&self) {
        for path in &*self.shown.lock().unwrap_or_else(PoisonError::into_inner) {
            let log = fs::read(path).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
            eprintln!("--- end of {}\n{}\n---", path.display(), last.join("\n"));
        }
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a folder in it that only we can enter, as `tor` insists.
    pub(crate) fn private_folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        private_folder(&path)?;
        Ok(path)
    }
}

/// Makes a folder (and those above it) that only we can enter; one that is there already stays.
pub(crate) fn private_folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the folder {}", path.display()))
}

/// Whether the folder is to stay in any case.
fn keep_asked_for() -> bool {
    std::env::var_os("TESTNET_KEEP").is_some_and(|v| !v.is_empty() && v != "0")
}

/// Tells the watcher to leave the folder alone.
fn dismiss(watcher: &mut Child) {
    if let Some(mut stdin) = watcher.stdin.take() {
        // Without a watcher nobody removes the folder either.
        let _ = stdin.write_all(b"keep\n");
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let failed = std::thread::panicking() || !self.done.load(Ordering::Relaxed);
        if failed {
            self.show_logs();
        }
        let Ok(watcher) = self.watcher.get_mut() else {
            return;
        };
        let Ok(folder) = self.folder.get_mut() else {
            return;
        };
        if let Some(folder) = folder.take() {
            if failed || keep_asked_for() {
                dismiss(watcher);
                eprintln!("testnet: files kept in {}", folder.keep().display());
            } else {
                drop(folder);
            }
        }
        drop(watcher.stdin.take());
        let _ = watcher.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_with_its_owner_only_after_the_owner_said_that_all_went_well() {
        let done = WorkDir::new().expect("a folder");
        let path = done.path().to_owned();
        assert!(path.exists());
        done.mark_done();
        drop(done);
        assert!(!path.exists());

        let failed = WorkDir::new().expect("a folder");
        let path = failed.path().to_owned();
        drop(failed);
        assert!(path.exists());
        fs::remove_dir_all(&path).expect("removed");
    }
}
