//! C libraries that are loaded into `tor` processes with `LD_PRELOAD`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::clock;
use crate::process::{find_program, run};

/// The name of the library that binds connections to [`NETWORK_SIDE`](crate::NETWORK_SIDE).
const SOURCE_ADDRESS: &str = "source_address";

/// Makes every `tor` that is started later in a subfolder of `network_folder` connect from
/// [`NETWORK_SIDE`](crate::NETWORK_SIDE). Needs a C compiler.
pub(crate) fn bind_source_address(network_folder: &Path) -> Result<()> {
    let source = include_str!("source_address.c");
    compile(network_folder, SOURCE_ADDRESS, source)
}

/// Compiles C source text to the shared library `NAME.so` in `folder`.
pub(crate) fn compile(folder: &Path, name: &str, source: &str) -> Result<()> {
    let file = folder.join(name).with_extension("c");
    fs::write(&file, source)?;
    let mut command = Command::new(find_program("cc")?);
    command.args(["-O1", "-shared", "-fPIC", "-o"]);
    // Before version 2.34 of glibc, `dlsym` is in a library of its own.
    command.arg(library(folder, name)).arg(file).arg("-ldl");
    run(command, "")
}

/// Returns the path of the library `name` in `folder`.
pub(crate) fn library(folder: &Path, name: &str) -> PathBuf {
    folder.join(name).with_extension("so")
}

/// Sets the environment of the `tor` in `folder`, so that it loads the libraries of its network and its own.
pub(crate) fn configure(command: &mut Command, folder: &Path) {
    let source_address = folder
        .parent()
        .map(|network_folder| library(network_folder, SOURCE_ADDRESS));
    let mut libraries: Vec<PathBuf> = source_address.into_iter().filter(|f| f.exists()).collect();
    if let Some((library, environment)) = clock::library(folder) {
        libraries.push(library);
        command.envs(environment);
    }
    if !libraries.is_empty() {
        let libraries: Vec<_> = libraries.iter().map(|f| f.display().to_string()).collect();
        command.env("LD_PRELOAD", libraries.join(":"));
    }
}
