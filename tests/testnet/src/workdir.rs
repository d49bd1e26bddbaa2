//! The temporary folder of a network, and a watcher that removes it if this process is killed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::process::{detach_from_terminal, spawn};
use crate::sync::lock;

/// Unix socket paths hold 107 bytes; the rest is for the part below the folder.
const LONGEST_PATH: usize = 70;

/// The shell script of the watcher. Its standard input ends when this process ends, in whatever way; the line "keep" before
/// that dismisses it. The pause lets the killed `tor` processes end first, since they may still write to the folder.
const WATCHER: &str = r#"
read -r word && [ "$word" = keep ] && exit 0
for try in 1 2 3 4 5 6 7 8 9 10; do
    [ -e "$1" ] || exit 0
    sleep 0.2
    rm -rf -- "$1" 2>/dev/null
done
"#;

/// How many lines from the end of each log are printed.
const PRINTED_LINES: usize = 60;

/// A private temporary folder.
///
/// Dropping it removes it if [`WorkDir::mark_done`] was called. Otherwise something has failed: the folder is kept and its
/// path printed. `TESTNET_KEEP=1` keeps it in any case. If this process is killed, the watcher removes the folder.
#[derive(Debug)]
pub(crate) struct WorkDir {
    folder: Mutex<Option<TempDir>>,
    path: PathBuf,
    watcher: Mutex<Child>,
    done: AtomicBool,
    /// The logs whose last lines are printed on drop unless [`WorkDir::mark_done`] was called.
    logs_to_print: Mutex<Vec<PathBuf>>,
}

impl WorkDir {
    /// Creates the folder in the system's folder for temporary files.
    pub(crate) fn new() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("testnet-")
            .tempdir()
            .context("cannot create a temporary folder")?;
        let path = folder.path().to_owned();
        if path.as_os_str().len() > LONGEST_PATH {
            bail!(
                "the path of the temporary folder {} is too long for sockets in it: set TMPDIR to a shorter one",
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
        if is_keep_requested() {
            dismiss_watcher(&mut watcher);
        }
        Ok(Self {
            folder: Mutex::new(Some(folder)),
            path,
            watcher: Mutex::new(watcher),
            done: AtomicBool::new(false),
            logs_to_print: Mutex::default(),
        })
    }

    /// Marks the files as no longer needed, so that the folder is removed on drop.
    pub(crate) fn mark_done(&self) {
        self.done.store(true, Ordering::Relaxed);
    }

    /// Prints the last lines of a log on drop unless [`WorkDir::mark_done`] was called.
    pub(crate) fn show_if_kept(&self, log: &Path) {
        lock(&self.logs_to_print).push(log.to_owned());
    }

    fn print_logs(&self) {
        for path in &*lock(&self.logs_to_print) {
            let log = fs::read(path).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(PRINTED_LINES)..];
            eprintln!("--- end of {}\n{}\n---", path.display(), last.join("\n"));
        }
    }

    /// Returns the path of the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates a subfolder with mode 0700, which `tor` requires.
    pub(crate) fn private_folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        private_folder(&path)?;
        Ok(path)
    }
}

/// Creates a folder and its parents with mode 0700; does nothing if the folder exists.
pub(crate) fn private_folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot create the folder {}", path.display()))
}

/// Whether the environment variable `TESTNET_KEEP` is set to anything but 0.
fn is_keep_requested() -> bool {
    std::env::var_os("TESTNET_KEEP").is_some_and(|v| !v.is_empty() && v != "0")
}

/// Ends the watcher without removing the folder.
fn dismiss_watcher(watcher: &mut Child) {
    if let Some(mut stdin) = watcher.stdin.take() {
        // Fails only if the watcher has ended, and then it does not remove the folder either.
        let _ = stdin.write_all(b"keep\n");
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let failed = std::thread::panicking() || !self.done.load(Ordering::Relaxed);
        if failed {
            self.print_logs();
        }
        let Ok(watcher) = self.watcher.get_mut() else {
            return;
        };
        let Ok(folder) = self.folder.get_mut() else {
            return;
        };
        if let Some(folder) = folder.take() {
            if failed || is_keep_requested() {
                dismiss_watcher(watcher);
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
    fn a_dropped_folder_is_removed_only_if_it_was_marked_done() {
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
        fs::remove_dir_all(&path).expect("the folder is removed");
    }
}
