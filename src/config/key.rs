//! Configuration keys: their written form, the list of known ones, and the nearest to a wrong one.

use std::fmt;
use std::sync::LazyLock;

/// The example file: the one list of all keys.
pub(super) const EXAMPLE: &str = include_str!("../../arti.toml.example");

/// Every key and table that the example names, commented out or not.
static KNOWN: LazyLock<Vec<Key>> = LazyLock::new(|| known(EXAMPLE));

/// A key of the arti program which means nothing here or is not served; it stands for everything below it.
#[derive(Debug)]
pub(super) struct NotServed {
    key: &'static str,
    /// Values that ask for nothing, or for what is so anyway; an empty list is the empty text. Most are
    /// arti's defaults, which people leave in their files.
    nothing: &'static [&'static str],
    /// What to do about any other value.
    remedy: &'static str,
}

impl NotServed {
    /// What to do about a value, unless it asks for nothing.
    pub(super) fn remedy_for(&self, value: &str) -> Option<&'static str> {
        (!self.nothing.contains(&value)).then_some(self.remedy)
    }
}

/// All of them.
const NOT_SERVED: &[NotServed] = &[
    NotServed {
        key: "application.defer_bootstrap",
        nothing: &["false"],
        remedy: "remove it, and start onionport when it may connect",
    },
    NotServed {
        key: "proxy.enable_http_connect",
        nothing: &["false"],
        remedy: "remove it; a SOCKS port never speaks HTTP here, proxy.http_port is for that",
    },
    NotServed {
        key: "proxy.socket_send_buf_size",
        nothing: BUFFER,
        remedy: "remove it; the system chooses",
    },
    NotServed {
        key: "proxy.socket_recv_buf_size",
        nothing: BUFFER,
        remedy: "remove it; the system chooses",
    },
    NotServed {
        key: "logging.syslog",
        nothing: &[""],
        remedy: LOGGING,
    },
    NotServed {
        key: "logging.journald",
        nothing: &[""],
        remedy: LOGGING,
    },
    NotServed {
        key: "logging.files",
        nothing: &[""],
        remedy: LOGGING,
    },
    NotServed {
        key: "logging.opentelemetry",
        nothing: &[],
        remedy: LOGGING,
    },
    NotServed {
        key: "logging.tokio_console.enabled",
        nothing: &["false"],
        remedy: LOGGING,
    },
    NotServed {
        key: "logging.tokio_console",
        nothing: &[],
        remedy: LOGGING,
    },
    NotServed {
        key: "logging.protocol_warnings",
        nothing: &["false"],
        remedy: LOGGING,
    },
    NotServed {
        key: "logging.log_sensitive_information",
        nothing: &["false"],
        remedy: "remove it; addresses are never logged above level debug",
    },
    NotServed {
        key: "metrics.prometheus.listen",
        nothing: &["", "0", "false"],
        remedy: METRICS,
    },
    NotServed {
        key: "metrics",
        nothing: &[],
        remedy: METRICS,
    },
    NotServed {
        key: "rpc.enable",
        nothing: &["false"],
        remedy: RPC,
    },
    NotServed {
        key: "rpc",
        nothing: &[],
        remedy: RPC,
    },
    NotServed {
        key: "onion_services",
        nothing: &[],
        remedy: "remove it; services are arti's business, this is a client",
    },
];

/// arti's default size of a socket's buffers.
const BUFFER: &[&str] = &["128 KB", "128000"];
const METRICS: &str = "remove it; there are no metrics";
const RPC: &str = "remove it; there is no RPC, use arti for that";
/// What to do about the other ways of logging.
const LOGGING: &str = "remove it and use logging.console: the log goes to standard error";

/// A key with the tables it stands in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Key(pub(super) Vec<Step>);

/// One step from a table, or an array, to what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// To the entry of this name.
    Name(String),
    /// To the element of this number, counted from 0.
    Index(usize),
}

impl Key {
    /// Reads `a.b[0]."c d"`, the form in which TOML and tor-config write keys.
    ///
    /// Text that is not quite of this form gives a key that is not quite right, and no error: it is
    /// only used to find the place for a message.
    pub(super) fn parse(text: &str) -> Self {
        let mut steps = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            if let Some(quoted) = rest.strip_prefix('"') {
                let (name, tail) = quoted.split_once('"').unwrap_or((quoted, ""));
                steps.push(Step::Name(name.to_owned()));
                rest = tail;
            } else if let Some((index, tail)) =
                rest.strip_prefix('[').and_then(|r| r.split_once(']'))
            {
                steps.extend(index.parse().ok().map(Step::Index));
                rest = tail;
            } else {
                let end = rest.find(['.', '[']).unwrap_or(rest.len());
                let (name, tail) = rest.split_at(end);
                if !name.is_empty() {
                    steps.push(Step::Name(name.trim().to_owned()));
                }
                rest = tail;
            }
            rest = rest.strip_prefix('.').unwrap_or(rest);
        }
        Key(steps)
    }

    /// The names of the key, without array indices.
    fn names(&self) -> Vec<&str> {
        self.0.iter().filter_map(Step::name).collect()
    }

    /// The table in which this key stands.
    pub(super) fn parent(&self) -> Self {
        let mut key = self.clone();
        key.0.pop();
        key
    }

    /// This key with one more name at its end.
    pub(super) fn child(&self, name: &str) -> Self {
        let mut key = self.clone();
        key.0.push(Step::Name(name.to_owned()));
        key
    }

    /// The element of this key, which is a list.
    pub(super) fn element(&self, index: usize) -> Self {
        let mut key = self.clone();
        key.0.push(Step::Index(index));
        key
    }

    /// Whether this key is `other`, or stands somewhere in it.
    pub(super) fn is_below(&self, other: &Key) -> bool {
        self.names().starts_with(&other.names())
    }

    /// The entry for this key if it is one of the arti program's that is not served.
    pub(super) fn not_served(&self) -> Option<&'static NotServed> {
        NOT_SERVED
            .iter()
            .find(|entry| self.is_below(&Key::parse(entry.key)))
    }

    /// Whether the first table of a key is one that the example names.
    pub(super) fn is_in_known_table(&self) -> bool {
        let table = self.names().first().copied();
        table.is_some()
            && KNOWN
                .iter()
                .any(|known| known.names().first().copied() == table)
    }

    /// The known key that looks most like this one.
    ///
    /// The same name in another table comes first, because a key under the wrong heading is as
    /// common as a misspelled one; then the other keys of its own table.
    pub(super) fn nearest(&self) -> String {
        let wanted = self.names();
        let (name, table) = wanted.split_last().unwrap_or((&"", &[]));
        let path = wanted.join(".");
        let rank = |known: &&Key| {
            let names = known.names();
            let (known_name, known_table) = names.split_last().unwrap_or((&"", &[]));
            (
                known_name != name,
                known_table != table,
                // "timeout" for "socks_timeout" is many letters away and yet near.
                !(name.len() > 3 && known_name.contains(name)),
                strsim::damerau_levenshtein(&path, &names.join(".")),
            )
        };
        KNOWN
            .iter()
            .min_by_key(rank)
            .map(Key::to_string)
            .unwrap_or_default()
    }
}

impl Step {
    /// The name, if the step is not into an array.
    fn name(&self) -> Option<&str> {
        match self {
            Step::Name(name) => Some(name),
            Step::Index(_) => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Name(name) => {
                    let dot = if at == 0 { "" } else { "." };
                    if !name.is_empty() && name.chars().all(bare) {
                        write!(f, "{dot}{name}")?;
                    } else {
                        write!(f, "{dot}{name:?}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// One line of the example that names something.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ExampleLine<'a> {
    /// `[table]` or `[[table]]`, whichever of the two.
    Table(&'a str),
    /// `key = …`: the key and its value.
    Setting(&'a str, &'a str),
}

/// Reads one line of the example file, without the `#` that makes it a comment.
pub(super) fn example_line(line: &str) -> Option<ExampleLine<'_>> {
    let line = line.trim_start_matches('#').trim();
    if line.starts_with('[') && line.ends_with(']') && !line.contains([',', ' ', '=']) {
        let table = line.trim_matches(['[', ']']);
        return (!table.is_empty()).then_some(ExampleLine::Table(table));
    }
    let (key, value) = line.split_once(" = ")?;
    let bare = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (!key.is_empty() && key.chars().all(bare)).then_some(ExampleLine::Setting(key, value))
}

/// All keys and tables of an example file, in its order.
fn known(example: &str) -> Vec<Key> {
    let mut table = Key::default();
    let mut keys = Vec::new();
    for line in example.lines().filter_map(example_line) {
        let key = match line {
            ExampleLine::Table(name) => {
                table = Key::parse(name);
                table.clone()
            }
            ExampleLine::Setting(name, _) => table.child(name),
        };
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}
