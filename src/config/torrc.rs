//! Reads C tor's configuration files as settings of onionport.
//!
//! Read the modules in this order:
//!
//! | step | module | gives |
//! |---|---|---|
//! | split text into lines | `lines` | keys and values |
//! | find and read files, follow `%include` | `files` | lines with their positions |
//! | look up option names | `options` | the table of all options of C tor 0.4.9 |
//! | check values | `value` | their canonical form |
//! | let later lines replace earlier ones or extend lists | `assign` | the values in effect, each an `assigned::Assigned` |
//! | translate options into settings | `translate` | a `document` of TOML |
//!
//! The module imports nothing from its parent, [`crate::config`], but its modules `access`, `limits`,
//! `port_line` and `redact`.
//!
//! Every line is read as C tor reads it (tor(1), "THE CONFIGURATION FILE FORMAT"). Options with an
//! effect that clients notice become settings. Options that arti cannot follow are ignored with a
//! warning, or refused if a user may rely on them. Options of relays and onion services are refused.
//! Reading opens no port and changes no file.
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # let file = folder.path().join("torrc");
//! std::fs::write(&file, "SocksPort 9050 IsolateDestPort\nSocksTimeout 1 minute\n")?;
//! let torrc = onionport::config::torrc::read(&[file])?;
//! assert_eq!(torrc.table["proxy"]["socks_timeout"].as_str(), Some("60 s"));
//! assert_eq!(torrc.origin("proxy.socks_port[0]").unwrap().line, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

mod assign;
mod assigned;
mod document;
mod error;
mod files;
mod lines;
mod options;
#[cfg(test)]
mod tests;
mod translate;
mod value;

pub use error::{FilePosition, RefusedOption, TorrcError, UnknownOption};

use assign::Values;
use document::Document;
use files::FileReader;

use crate::config::redact::hide;

/// The settings read from torrc files.
#[derive(Debug, Clone, PartialEq)]
pub struct Torrc {
    /// The settings, in the form of `arti.toml`: those that a line sets, and `socks_port`, which has C
    /// tor's default.
    pub table: toml::Table,
    /// The lines behind each key, such as `proxy.socks_port`: one per element of an array, one for
    /// any other value, none for a default.
    pub origins: BTreeMap<String, Vec<FilePosition>>,
    /// Log messages, each with its position: ignored options, values cut to a limit.
    pub warnings: Vec<String>,
    /// Every file that was read, including those of `%include`, in order.
    pub files: Vec<PathBuf>,
    /// The settings as text.
    text: String,
}

/// Reads torrc files. The first file has the role of C tor's defaults; later files take precedence
/// over it (`tor --defaults-torrc FIRST -f SECOND`).
///
/// # Errors
/// [`TorrcError`], whose message is one line with file, line, option and remedy. Unknown names, and
/// refused options, are all listed; of other mistakes only the first is reported.
pub fn read(paths: &[PathBuf]) -> Result<Torrc, TorrcError> {
    let mut reader = FileReader::default();
    let mut values = Values::default();
    for path in paths {
        let lines = reader.read(path)?;
        values.assign(lines)?;
    }
    values.refuse_unknown()?;
    let document = translate::to_document(&mut values)?;
    let text = document.to_toml();
    let Document { table, origins, .. } = document;
    Ok(Torrc {
        table,
        origins,
        warnings: values.warnings.iter().map(|text| hide(text)).collect(),
        files: reader.files,
        text,
    })
}

impl Torrc {
    /// Returns the line that sets `key`, or `None` if no line does.
    ///
    /// `key` is `table.key`, optionally with the index of an element and a path below it
    /// (`proxy.socks_port[1]`, `bridges.transports[0].path`). Without an index it is the first line.
    #[must_use]
    pub fn origin(&self, key: &str) -> Option<&FilePosition> {
        let (name, rest) = key.split_once('[').unwrap_or((key, ""));
        let element: usize = rest
            .split_once(']')
            .and_then(|(index, _)| index.parse().ok())
            .unwrap_or(0);
        let below = format!("{name}.");
        let lines = self.origins.get(name).or_else(|| {
            // `key` may be a whole table: take its first setting.
            let mut inside = self.origins.iter().filter(|(k, _)| k.starts_with(&below));
            inside.find_map(|(_, lines)| (!lines.is_empty()).then_some(lines))
        })?;
        lines.get(element).or(lines.first())
    }
}

/// Writes the settings as an `arti.toml` that can replace the torrc files, with the warnings and the
/// position of each setting as comments. It parses to the same table.
#[must_use]
pub fn to_toml(torrc: &Torrc) -> String {
    let mut out = String::new();
    let mut comment = |text: &str| {
        out.push_str("# ");
        out.push_str(&document::replace_control_chars(text));
        out.push('\n');
    };
    for file in &torrc.files {
        comment(&format!("From {}", file.display()));
    }
    for warning in &torrc.warnings {
        comment(warning);
    }
    out + &torrc.text
}
