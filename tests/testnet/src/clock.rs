//! A clock that can be moved, for one `tor` process.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process::{find_program, run};

/// The library that is loaded into a `tor` whose folder contains it.
const LIBRARY: &str = "clock.so";

/// The file with the number of seconds by which that process is ahead.
const AHEAD: &str = "clock_ahead";

/// Gives the `tor` that is started in `folder` from now on a clock of its own, which shows the machine's time at first.
/// Needs a C compiler.
pub(crate) fn make(folder: &Path) -> Result<()> {
    let source = folder.join("clock.c");
    fs::write(&source, include_str!("clock.c"))?;
    set_ahead(folder, 0)?;
    let mut command = Command::new(find_program("cc")?);
    command.args(["-O1", "-shared", "-fPIC", "-o"]);
    command.arg(folder.join(LIBRARY)).arg(source);
    run(command, "")
}

/// Sets how many seconds the clock of that process is ahead of the machine's.
pub(crate) fn set_ahead(folder: &Path, seconds: i64) -> Result<()> {
    use std::os::unix::fs::FileExt as _;
    // In place: the process has the file mapped.
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(folder.join(AHEAD))?;
    Ok(file.write_all_at(&seconds.to_ne_bytes(), 0)?)
}

/// The library to load into the `tor` in `folder`, and its environment, if it has a clock of its own.
pub(crate) fn library(folder: &Path) -> Option<(PathBuf, [(&'static str, OsString); 1])> {
    let library = folder.join(LIBRARY);
    let ahead = folder.join(AHEAD).into_os_string();
    library
        .exists()
        .then_some((library, [("CLOCK_AHEAD", ahead)]))
}
