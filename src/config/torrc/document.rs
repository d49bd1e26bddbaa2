//! The settings read from torrc files as a TOML document, with the lines that set them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use toml::{Table, Value};

use super::error::FilePosition;

/// A document under construction.
#[derive(Debug, Default)]
pub(super) struct Document {
    /// The settings.
    pub(super) table: Table,
    /// Their keys, with the tables that hold them, in the order in which they were set.
    order: Vec<String>,
    /// The line that sets each key; for an array, one line per element.
    pub(super) origins: BTreeMap<String, Vec<FilePosition>>,
}

impl Document {
    /// Sets `table.key`, or `table.table.key`.
    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>, origins: Vec<FilePosition>) {
        let (tables, name) = key.rsplit_once('.').unwrap_or(("", key));
        let mut inside = &mut self.table;
        for table in tables.split('.').filter(|table| !table.is_empty()) {
            let entry = inside
                .entry(table)
                .or_insert_with(|| Value::Table(Table::new()));
            match entry {
                Value::Table(table) => inside = table,
                // Unreachable: no key is both a table and a value.
                _ => return,
            }
        }
        inside.insert(name.to_owned(), value.into());
        self.order.push(key.to_owned());
        self.origins.insert(key.to_owned(), origins);
    }

    /// Returns the value of `key`.
    fn get(&self, key: &str) -> Option<&Value> {
        let (tables, name) = key.rsplit_once('.').unwrap_or(("", key));
        let mut inside = &self.table;
        for table in tables.split('.').filter(|table| !table.is_empty()) {
            inside = inside.get(table)?.as_table()?;
        }
        inside.get(name)
    }

    /// Writes the document as a file for users to keep: in the order in which the keys were set, each
    /// value followed by a comment with its position.
    pub(super) fn to_toml(&self) -> String {
        let mut out = String::new();
        let mut open = "";
        for key in &self.order {
            let Some(value) = self.get(key) else { continue };
            let origins = self.origins.get(key).map_or(&[][..], Vec::as_slice);
            let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
            if let Some(tables) = value.as_array().filter(|a| has_tables(a)) {
                open = "";
                write_tables(&mut out, key, tables, origins);
                continue;
            }
            if table != open {
                // Writing to a string cannot fail.
                let _ = write!(out, "\n[{table}]\n");
                open = table;
            }
            match value.as_array() {
                Some(array) if !array.is_empty() => write_array(&mut out, name, array, origins),
                _ => {
                    let _ = writeln!(out, "{name} = {value}{}", to_comment(origins.first()));
                }
            }
        }
        out
    }
}

/// Whether the elements of an array are tables.
fn has_tables(array: &[Value]) -> bool {
    array.first().is_some_and(Value::is_table)
}

/// Writes an array with one element per line.
fn write_array(out: &mut String, name: &str, array: &[Value], origins: &[FilePosition]) {
    let _ = writeln!(out, "{name} = [");
    for (at, element) in array.iter().enumerate() {
        let _ = writeln!(out, "    {element},{}", to_comment(origins.get(at)));
    }
    out.push_str("]\n");
}

/// Writes an array of tables.
fn write_tables(out: &mut String, key: &str, tables: &[Value], origins: &[FilePosition]) {
    for (at, table) in tables.iter().filter_map(Value::as_table).enumerate() {
        let _ = write!(out, "\n[[{key}]]{}\n", to_comment(origins.get(at)));
        for (name, value) in table {
            let _ = writeln!(out, "{name} = {value}");
        }
    }
}

/// Formats a position as a trailing comment.
fn to_comment(position: Option<&FilePosition>) -> String {
    position.map_or_else(String::new, |position| {
        format!(" # {}", replace_control_chars(&position.to_string()))
    })
}

/// Replaces control characters with spaces, so that the text fits into a comment.
pub(super) fn replace_control_chars(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
