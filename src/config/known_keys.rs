//! The known keys, read from the example file, and the known key nearest to an unknown one.

use std::sync::LazyLock;

use super::key::Key;

/// The example file: the only list of all keys.
pub(super) const EXAMPLE: &str = include_str!("../../arti.toml.example");

/// Every key and table of the example, commented out or not.
static KNOWN: LazyLock<Vec<Key>> = LazyLock::new(|| parse_example(EXAMPLE));

/// Whether the example has the first table of a key.
pub(super) fn is_in_known_table(key: &Key) -> bool {
    let table = key.names().first().copied();
    table.is_some()
        && KNOWN
            .iter()
            .any(|known| known.names().first().copied() == table)
}

/// Returns the known key most similar to this one.
///
/// The same name in another table ranks first, because a key in the wrong table is as common a
/// mistake as a typo; then come the other keys of its own table.
pub(super) fn find_nearest(key: &Key) -> String {
    let wanted = key.names();
    let (name, table) = wanted.split_last().unwrap_or((&"", &[]));
    let path = wanted.join(".");
    let rank = |known: &&Key| {
        let names = known.names();
        let (known_name, known_table) = names.split_last().unwrap_or((&"", &[]));
        (
            known_name != name,
            known_table != table,
            // Prefer keys that contain the name: `timeout` most likely means `socks_timeout`, although many
            // letters differ.
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

/// A line of the example that contains a table or a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ExampleLine<'a> {
    /// `[table]` or `[[table]]`.
    Table(&'a str),
    /// `key = …`: the key and its value.
    Setting(&'a str, &'a str),
}

/// Parses one line of the example file, commented out or not; `None` for prose.
pub(super) fn parse_example_line(line: &str) -> Option<ExampleLine<'_>> {
    let line = line.trim_start_matches('#').trim();
    if line.starts_with('[') && line.ends_with(']') && !line.contains([',', ' ', '=']) {
        let table = line.trim_matches(['[', ']']);
        return (!table.is_empty()).then_some(ExampleLine::Table(table));
    }
    let (key, value) = line.split_once(" = ")?;
    let bare = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (!key.is_empty() && key.chars().all(bare)).then_some(ExampleLine::Setting(key, value))
}

/// Returns all keys and tables of an example file, in its order.
fn parse_example(example: &str) -> Vec<Key> {
    let mut table = Key::default();
    let mut keys = Vec::new();
    for line in example.lines().filter_map(parse_example_line) {
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
