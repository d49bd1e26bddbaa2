//! Walks parsed TOML: finds a key, collects values.

use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::super::key::{Key, KeyPart};
use super::super::redact;

/// Finds `key`; returns the byte offset of its last name, and its value.
pub(super) fn find_key<'a, 'i>(
    table: &'a DeTable<'i>,
    key: &Key,
) -> Option<(usize, &'a DeValue<'i>)> {
    let mut found = None;
    let mut value: Option<&DeValue<'i>> = None;
    for part in &key.0 {
        match part {
            // arti's configuration code writes `list.0` for the first element.
            KeyPart::Name(name) if value.is_some_and(|value| value.is_array()) => {
                let index: usize = name.parse().ok()?;
                value = Some(value?.as_array()?.get(index)?.get_ref());
            }
            KeyPart::Name(name) => {
                let inside = match value {
                    None => table,
                    Some(value) => value.as_table()?,
                };
                let (key, next) = inside.iter().find(|(k, _)| *k.get_ref() == *name)?;
                found = Some(key.span().start);
                value = Some(next.get_ref());
            }
            KeyPart::Index(index) => {
                value = Some(value?.as_array()?.get(*index)?.get_ref());
            }
        }
    }
    Some((found?, value?))
}

/// Adds the keys at or below `key` whose values are not tables, each with its value as text. The
/// text of a list only shows whether the list is empty.
pub(super) fn collect_leaves(value: &DeValue<'_>, key: Key, leaves: &mut Vec<(Key, String)>) {
    let text = match value {
        DeValue::Table(table) => {
            for (name, value) in table {
                collect_leaves(value.get_ref(), key.child(name.get_ref()), leaves);
            }
            return;
        }
        DeValue::Array(array) if array.is_empty() => String::new(),
        DeValue::Array(_) => "[…]".to_owned(),
        DeValue::String(text) => text.clone().into_owned(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(switch) => switch.to_string(),
        DeValue::Datetime(time) => time.to_string(),
    };
    leaves.push((key, text));
}

/// Adds the texts at or below `key` that may be secrets.
pub(super) fn collect_secrets(
    value: &DeValue<'_>,
    key: &Key,
    secrets: &mut Vec<Zeroizing<String>>,
) {
    match value {
        DeValue::Table(table) => {
            for (name, value) in table {
                collect_secrets(value.get_ref(), &key.child(name.get_ref()), secrets);
            }
        }
        DeValue::Array(array) => {
            for value in array {
                collect_secrets(value.get_ref(), key, secrets);
            }
        }
        DeValue::String(text) if redact::is_secret(key) || redact::hide(text) != **text => {
            secrets.push(Zeroizing::new(text.clone().into_owned()));
        }
        _ => {}
    }
}
