//! C tor's configuration files, read as settings of this program.
//!
//! | step | module | gives |
//! |---|---|---|
//! | files are found and read, `%include` too | `files` | lines, each with its place |
//! | text becomes lines | `lines` | key and value |
//! | names become options | `options` | the table of all options of C tor 0.4.9 |
//! | values are checked | `value` | their shortest form |
//! | later lines win, lists grow | `assign` | what counts |
//! | options become settings | `serve` | a `document` of TOML |
//!
//! Every line is read as C tor reads it (tor(1), "THE CONFIGURATION FILE FORMAT"). What a client can
//! notice is served; what arti has no part for is passed over with a warning, unless a user would
//! rely on it: then it is refused, and so are the options of relays and onion services. Reading
//! opens and changes nothing.
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
mod document;
mod error;
mod files;
mod lines;
mod options;
mod serve;
#[cfg(test)]
mod tests;
mod value;

pub use error::{Place, Refusal, TorrcError, Unknown};

use assign::Values;
use document::Document;
use files::Reader;

use crate::config::redact::hide;

/// What torrc files come to.
#[derive(Debug, Clone, PartialEq)]
pub struct Torrc {
    /// The settings, in the form of `arti.toml`. Only what was said is in it, and `socks_port`,
    /// whose default is C tor's.
    pub table: toml::Table,
    /// The lines behind each key, such as `proxy.socks_port`: one for each element of an array, one
    /// for anything else, and none for a default.
    pub origins: BTreeMap<String, Vec<Place>>,
    /// Whole sentences for the log, each with its place: options without effect, values that were
    /// cut to a limit.
    pub warnings: Vec<String>,
    /// Every file that was read, includes as well, in order.
    pub files: Vec<PathBuf>,
    /// The settings as text.
    text: String,
}

/// Reads torrc files: the first one is what C tor calls the defaults, later ones win over it
/// (`tor --defaults-torrc FIRST -f SECOND`).
///
/// # Errors
/// [`TorrcError`]: one line that names file, line, option and remedy. Options that are refused, and
/// names that no option has, are all named in it; of other mistakes the first.
pub fn read(paths: &[PathBuf]) -> Result<Torrc, TorrcError> {
    let mut reader = Reader::default();
    let mut values = Values::default();
    for path in paths {
        let lines = reader.read(path)?;
        values.assign(lines)?;
    }
    values.all_known()?;
    let document = serve::serve(&mut values)?;
    let text = document.write();
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
    /// The line that a setting comes from: `key` is `table.key`, and may go on to an element and
    /// what is in it (`proxy.socks_port[1]`, `bridges.transports[0].path`). Without an element it is
    /// the first line. `None` for what no line says.
    #[must_use]
    pub fn origin(&self, key: &str) -> Option<&Place> {
        let (name, rest) = key.split_once('[').unwrap_or((key, ""));
        let element: usize = rest
            .split_once(']')
            .and_then(|(index, _)| index.parse().ok())
            .unwrap_or(0);
        let below = format!("{name}.");
        let lines = self.origins.get(name).or_else(|| {
            // A whole table: its first setting.
            let mut inside = self.origins.iter().filter(|(k, _)| k.starts_with(&below));
            inside.find_map(|(_, lines)| (!lines.is_empty()).then_some(lines))
        })?;
        lines.get(element).or(lines.first())
    }
}

/// Writes the settings as an `arti.toml` that can be kept in the place of the torrc files, with the
/// warnings and the line of each setting as comments. It reads back as the same table.
#[must_use]
pub fn to_toml(torrc: &Torrc) -> String {
    let mut out = String::new();
    let mut comment = |text: &str| {
        out.push_str("# ");
        out.push_str(&document::one_line(text));
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
