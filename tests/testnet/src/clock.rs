//! An adjustable clock for one `tor` process.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::preload;

/// The name of the library that is loaded into a `tor` whose folder contains it.
const LIBRARY: &str = "clock";

/// The file with the number of seconds by which the clock of that process is ahead.
const OFFSET: &str = "clock_offset";

/// Gives the next `tor` that is started in `folder` a clock of its own, which at first shows the machine's time. Needs a C
/// compiler.
pub(crate) fn create(folder: &Path) -> Result<()> {
    set_offset(folder, 0)?;
    preload::compile(folder, LIBRARY, include_str!("clock.c"))
}

/// Sets how many seconds the clock of that process is ahead of the machine's.
pub(crate) fn set_offset(folder: &Path, seconds: i64) -> Result<()> {
    use std::os::unix::fs::FileExt as _;
    // Written in place: the process has the file mapped.
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(folder.join(OFFSET))?;
    Ok(file.write_all_at(&seconds.to_ne_bytes(), 0)?)
}

/// Returns the library to load into the `tor` in `folder` and its environment, if that `tor` has a clock of its own.
pub(crate) fn library(folder: &Path) -> Option<(PathBuf, [(&'static str, OsString); 1])> {
    let library = preload::library(folder, LIBRARY);
    let offset = folder.join(OFFSET).into_os_string();
    library
        .exists()
        .then_some((library, [("CLOCK_OFFSET_FILE", offset)]))
}
