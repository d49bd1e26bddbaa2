//! The configuration: files and the command line, checked and typed.
//!
//! [`load`] merges C tor's files, `arti.toml` (arti-client's tables and ours) and the command line
//! into one [`Config`], or returns the first problem as a [`ConfigError`]. It opens no port and
//! changes nothing on disk.
//!
//! Read in this order:
//!
//! | module | holds |
//! |---|---|
//! | `checked` | [`Config`], the result |
//! | `arguments` | the options of the command line |
//! | `sources` | files and `-o` options, merged, and where each key is set |
//! | `file` | our tables of `arti.toml` as written |
//! | `build` | from all of these to a [`Config`] |
//! | `ports`, [`port_line`] | the port lines of all sources, and their grammar |
//! | [`access`], [`address_map`], `plaintext_ports`, `log_filter`, `folders` | the checks of single keys |
//! | [`torrc`] | C tor's configuration files |
//! | `describe` | what `--check-config` prints |
//! | `error`, `setting`, `redact` | errors with their location, without secrets |
//!
//! This part imports no other part of the program.

pub mod access;
pub mod address_map;
mod arguments;
mod arti_keys;
mod build;
mod checked;
mod describe;
mod error;
mod error_text;
mod file;
mod folders;
mod key;
mod known_keys;
mod limits;
mod log_filter;
mod plaintext_ports;
pub mod port_line;
mod ports;
pub(crate) mod redact;
mod setting;
mod sources;
#[cfg(test)]
mod tests;
pub mod torrc;

pub use arguments::ProxyArgs;
pub use checked::{
    Config, DEFAULT_EXIT_TIMEOUT, ExitTimeouts, OutboundProxy, PORT_INFO, TransProxyType,
};
pub use describe::describe;
pub use error::{ConfigError, SourceLocation};
pub use plaintext_ports::PlaintextPorts;

use sources::Sources;

/// Reads and checks the configuration that a command line names.
///
/// Without `-c` and `--torrc`, the files are `arti.toml` and `arti.d/*.toml` in arti's configuration
/// folder, if they exist. Later files override earlier ones, ours override C tor's, `-o` overrides
/// all files, and dedicated options (`--socks-port`, `--log`) override everything.
///
/// # Errors
/// [`ConfigError`] for the first problem found.
pub fn load(args: &ProxyArgs) -> Result<Config, ConfigError> {
    let sources = Sources::read(&args.torrc, &args.config, &args.option)?;
    build::build(&sources, args)
}
