//! A configuration key with its tables: parsing, printing, and which key is below which.

use std::fmt;

/// A key with its tables, `a.b[0].c`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Key(pub(super) Vec<KeyPart>);

/// One part of a [`Key`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyPart {
    /// The entry of a table with this name.
    Name(String),
    /// The element of an array, counted from 0.
    Index(usize),
}

impl Key {
    /// Parses `a.b[0]."c d"`, the form in which TOML and tor-config write keys.
    ///
    /// Malformed text gives an approximate key and no error: it is only used to find the location
    /// for a message.
    pub(super) fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            if let Some(quoted) = rest.strip_prefix('"') {
                let (name, tail) = quoted.split_once('"').unwrap_or((quoted, ""));
                parts.push(KeyPart::Name(name.to_owned()));
                rest = tail;
            } else if let Some((index, tail)) =
                rest.strip_prefix('[').and_then(|r| r.split_once(']'))
            {
                parts.extend(index.parse().ok().map(KeyPart::Index));
                rest = tail;
            } else {
                let end = rest.find(['.', '[']).unwrap_or(rest.len());
                let (name, tail) = rest.split_at(end);
                if !name.is_empty() {
                    parts.push(KeyPart::Name(name.trim().to_owned()));
                }
                rest = tail;
            }
            rest = rest.strip_prefix('.').unwrap_or(rest);
        }
        Key(parts)
    }

    /// Returns the names of the key, without array indices.
    pub(super) fn names(&self) -> Vec<&str> {
        self.0.iter().filter_map(KeyPart::name).collect()
    }

    /// Returns the table or array that contains this key.
    pub(super) fn parent(&self) -> Self {
        let mut key = self.clone();
        key.0.pop();
        key
    }

    /// Appends a name.
    pub(super) fn child(&self, name: &str) -> Self {
        let mut key = self.clone();
        key.0.push(KeyPart::Name(name.to_owned()));
        key
    }

    /// Appends an array index.
    pub(super) fn element(&self, index: usize) -> Self {
        let mut key = self.clone();
        key.0.push(KeyPart::Index(index));
        key
    }

    /// Whether this key is `other`, or anything inside it. Array indices do not count.
    pub(super) fn is_below(&self, other: &Key) -> bool {
        self.names().starts_with(&other.names())
    }
}

impl KeyPart {
    /// Returns the name; `None` for an index.
    fn name(&self) -> Option<&str> {
        match self {
            KeyPart::Name(name) => Some(name),
            KeyPart::Index(_) => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        for (at, part) in self.0.iter().enumerate() {
            match part {
                KeyPart::Index(index) => write!(f, "[{index}]")?,
                KeyPart::Name(name) => {
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
