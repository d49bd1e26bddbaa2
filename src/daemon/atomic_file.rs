//! Files that others see whole or not at all.
//!
//! The new content is written to a draft beside the file, under a random name that did not exist
//! before (`O_EXCL`): in a folder that others can write to, nobody can put a link in its way. The
//! draft then takes the place of the file, which may be a link itself and is not followed either.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::{Builder, NamedTempFile};

/// A file that is being written; removed when dropped before [`Draft::persist`].
#[derive(Debug)]
pub(crate) struct Draft(NamedTempFile);

impl Draft {
    /// Begins a draft in `folder`. Its permissions are `mode`, less what the umask takes away.
    pub(crate) fn create_in(folder: &Path, mode: u32) -> io::Result<Draft> {
        let draft = Builder::new()
            .prefix(".")
            .suffix(".new")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(folder)?;
        Ok(Draft(draft))
    }

    /// Puts the draft in the place of `path`, which must be in the same folder.
    pub(crate) fn persist(self, path: &Path) -> io::Result<()> {
        self.0.persist(path)?;
        Ok(())
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
