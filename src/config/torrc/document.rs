//! The settings that a torrc comes to, as TOML, each with the lines it comes from.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use toml::{Table, Value};

use super::error::Place;

/// A document under construction.
#[derive(Debug, Default)]
pub(super) struct Document {
    /// The settings.
    pub(super) table: Table,
    /// Their keys with their tables, in the order in which they were set.
    pub(super) order: Vec<String>,
    /// Where each comes from: of an array, one place for each element.
    pub(super) origins: BTreeMap<String, Vec<Place>>,
}

impl Document {
    /// Sets `table.key`, or `table.table.key`.
    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>, origins: Vec<Place>) {
        let (tables, name) = key.rsplit_once('.').unwrap_or(("", key));
        let mut inside = &mut self.table;
        for table in tables.split('.').filter(|table| !table.is_empty()) {
            let entry = inside
                .entry(table)
                .or_insert_with(|| Value::Table(Table::new()));
            match entry {
                Value::Table(table) => inside = table,
                // No key is a table and a value.
                _ => return,
            }
        }
        inside.insert(name.to_owned(), value.into());
        self.order.push(key.to_owned());
        self.origins.insert(key.to_owned(), origins);
    }

    /// The value of a key.
    fn get(&self, key: &str) -> Option<&Value> {
        let (tables, name) = key.rsplit_once('.').unwrap_or(("", key));
        let mut inside = &self.table;
        for table in tables.split('.').filter(|table| !table.is_empty()) {
            inside = inside.get(table)?.as_table()?;
        }
        inside.get(name)
    }

    /// Writes the document as a file that a user could keep: tables in the order of
    /// `arti.toml.example`, and beside each value the line it comes from.
    pub(super) fn write(&self) -> String {
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
                    let _ = writeln!(out, "{name} = {value}{}", comment(origins.first()));
                }
            }
        }
        out
    }
}

/// Whether an array is one of tables.
fn has_tables(array: &[Value]) -> bool {
    array.first().is_some_and(Value::is_table)
}

/// Writes an array with an element on each line.
fn write_array(out: &mut String, name: &str, array: &[Value], origins: &[Place]) {
    let _ = writeln!(out, "{name} = [");
    for (at, element) in array.iter().enumerate() {
        let _ = writeln!(out, "    {element},{}", comment(origins.get(at)));
    }
    out.push_str("]\n");
}

/// Writes an array of tables.
fn write_tables(out: &mut String, key: &str, tables: &[Value], origins: &[Place]) {
    for (at, table) in tables.iter().filter_map(Value::as_table).enumerate() {
        let _ = write!(out, "\n[[{key}]]{}\n", comment(origins.get(at)));
        for (name, value) in table {
            let _ = writeln!(out, "{name} = {value}");
        }
    }
}

/// The place of a value, as a comment behind it.
fn comment(place: Option<&Place>) -> String {
    place.map_or_else(String::new, |place| {
        format!(" # {}", one_line(&place.to_string()))
    })
}

/// Text that may stand in a comment.
pub(super) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
